package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"idenfy-batch/internal/sandbox"
	"idenfy-batch/sidecar"
)

// report: a report over years of work in all its forms, beside the daemon and
// without it.
func (b *bench) report() error {
	n := b.pick(200_000, 2_000)
	fmt.Printf("report: %d folders with their verdicts\n", n)
	root, err := b.spool("report")
	if err != nil {
		return err
	}
	if err := settled(root, n, judged); err != nil {
		return err
	}
	url, stop, err := serve(&sink{})
	if err != nil {
		return err
	}
	defer stop()
	d, err := b.start(root, url, "metrics: {listen: '127.0.0.1:0'}")
	if err != nil {
		return err
	}
	err = until("the daemon answers", 10*time.Minute, func() bool {
		return exec.Command(b.bin, "reload", "--config", root+".yaml").Run() == nil
	})
	before, peakErr := d.peak()
	err = errors.Join(err, peakErr, b.reports("beside the daemon", root, n))
	after, peakErr := d.peak()
	fmt.Printf("  %-46s %8.1f MiB, and %.1f MiB before\n", "the daemon at most, meanwhile", after, before)
	return errors.Join(err, peakErr, d.stop(), b.reports("without a daemon", root, n))
}

// reports makes some.
func (b *bench) reports(how, root string, n int) error {
	var times, peaks []float64
	for range 3 {
		c := exec.Command(b.bin, "report", "--json", "--html", root+".html", "--csv", root+".csv", "--config", root+".yaml")
		out, took, peak, err := watched(c)
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
		var r struct {
			Totals struct {
				Folders int
				Lines   int `json:"lines_of_the_csv"`
			} `json:"control_totals"`
			Verdicts []struct{ Folders int }
		}
		if err := json.Unmarshal(out, &r); err != nil {
			return err
		}
		if r.Totals.Folders != n || r.Totals.Lines != n || len(r.Verdicts) != 2 {
			return fmt.Errorf("report: %+v", r)
		}
		times, peaks = append(times, took), append(peaks, peak)
	}
	slow := within("report as HTML, CSV and JSON, "+how, median(times), 5, "s")
	if b.quick {
		slow = nil // it is a time, and CI's machine may be busy
	}
	return errors.Join(slow, within("peak resident memory", slices.Max(peaks), 64, "MiB"))
}

// watched runs a command, and returns what it printed, the seconds that it took,
// and its peak memory in MiB, as it was seen last.
func watched(c *exec.Cmd) (out []byte, took, peak float64, err error) {
	to, err := os.CreateTemp("", "idenfy-batch-bench-")
	if err != nil {
		return nil, 0, 0, err
	}
	defer os.Remove(to.Name())
	defer to.Close()
	c.Stdout, c.Stderr = to, os.Stderr
	begin := time.Now()
	if err := c.Start(); err != nil {
		return nil, 0, 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for {
		select {
		case err := <-ended:
			took := time.Since(begin).Seconds()
			out, readErr := os.ReadFile(to.Name())
			return out, took, peak, errors.Join(err, readErr)
		case <-time.After(5 * time.Millisecond):
			if now, err := (&daemon{cmd: c}).peak(); err == nil {
				peak = max(peak, now)
			}
		}
	}
}

// judged gives a settled folder a session and its verdict.
func judged(i int, res *sidecar.Result) (map[string][]byte, error) {
	res.Session = &sidecar.Session{ScanRef: sandbox.NewScanRef(), By: sidecar.ByProducer}
	said := sidecar.Said{Overall: []string{"APPROVED", "DENIED"}[i%2], Final: true}
	came := sidecar.Time{Time: res.Times.Finished.Add(time.Duration(i%5000) * time.Second)}
	data, err := sidecar.EncodeVerdict(&sidecar.Verdict{ID: res.ID, ScanRef: res.Session.ScanRef, Said: said, Events: []sidecar.VerdictEvent{{
		Received: came, By: sidecar.ByWebhook, SHA256: fmt.Sprintf("%064x", i), Said: said,
	}}})
	return map[string][]byte{sidecar.VerdictName: data}, err
}
