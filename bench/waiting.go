package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/sample"
)

// waiting: a hundred thousand folders that are not complete, and what these cost
// those that are, beside a tenth of them.
func (b *bench) waiting() error {
	most := b.pick(100_000, 5_000)
	few, _, err := b.beside(most / 10)
	if err != nil {
		return err
	}
	many, peak, err := b.beside(most)
	if err != nil {
		return err
	}
	fmt.Printf("  %-46s %8.2f\n", "folders a second beside these to beside a tenth", many/few)
	if many/few < 0.85 && !b.quick {
		err = fmt.Errorf("folders a second: %.1f beside %d waiting ones, and %.1f beside a tenth of these, less than 0.85 of it", many, most, few)
	}
	return errors.Join(err, within("peak resident memory", peak, 80, "MiB"))
}

// beside returns how many folders a second go through while n others wait in the
// inbox, and the peak memory in MiB.
func (b *bench) beside(n int) (rate, peak float64, err error) {
	sent := b.pick(2000, 100)
	fmt.Printf("waiting: %d folders without a face in the inbox, and %d whole ones that come\n", n, sent)
	root, err := b.spool(fmt.Sprintf("waiting%d", n))
	if err != nil {
		return 0, 0, err
	}
	front := sample.Front()
	for i := range n {
		files := map[string][]byte{"FRONT.jpg": front[:min(len(front), 8000)], "meta.yaml": []byte(sample.Meta(token(1_000_000+i), "LT", "ID_CARD"))}
		if err := sample.Write(filepath.Join(root, "inbox", fmt.Sprintf("wait%06d", i)), files); err != nil {
			return 0, 0, err
		}
	}
	whole := filepath.Join(root, "whole")
	if err := errors.Join(os.Mkdir(whole, 0o770), os.Mkdir(filepath.Join(whole, "inbox"), 0o770), fill(whole, sent, 20_000, map[string][]byte{".ready": nil})); err != nil {
		return 0, 0, err
	}
	unix.Sync() // writing these back is nobody's time
	url, stop, err := serve(&sink{})
	if err != nil {
		return 0, 0, err
	}
	defer stop()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, err
	}
	metrics := free.Addr().String()
	if err := free.Close(); err != nil {
		return 0, 0, err
	}
	d, err := b.start(root, url, fmt.Sprintf("concurrency: %d\nmetrics: {listen: '%s'}", inFlight, metrics))
	if err != nil {
		return 0, 0, err
	}
	rate, peak, err = b.comeAndGo(d, metrics, whole, sent)
	return rate, peak, errors.Join(err, d.stop(), os.RemoveAll(root))
}

// scanned reports whether the daemon has ended a scan, by its metrics: processor
// time doesn't tell, since the first one may wait for the disk.
func scanned(metrics string) bool {
	resp, err := http.Get("http://" + metrics + "/metrics")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return err == nil && regexp.MustCompile(`(?m)^idenfy_batch_rescans_total\{inbox="inbox"\} [1-9]`).Match(text)
}

// comeAndGo has whole folders come once the daemon has looked at all others.
func (b *bench) comeAndGo(d *daemon, metrics, whole string, sent int) (rate, peak float64, err error) {
	if err := until("the first scan is over", 10*time.Minute, func() bool { return scanned(metrics) }); err != nil {
		return 0, 0, err
	}
	time.Sleep(8 * time.Second) // the wait for quiet, after which each is looked into
	var share float64
	err = until("the first look at all is over", 10*time.Minute, func() bool {
		share, err = d.share(3 * time.Second)
		return err != nil || share < 10
	})
	first, errCPU := d.cpu()
	if err := errors.Join(err, errCPU); err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	for i := range sent {
		name := filepath.Join("inbox", fmt.Sprintf("case%05d", i))
		if err := os.Rename(filepath.Join(whole, name), filepath.Join(d.root, name)); err != nil {
			return 0, 0, err
		}
	}
	if err := until("all in done", 10*time.Minute, func() bool { return d.count("done") == sent }); err != nil {
		return 0, 0, err
	}
	rate = float64(sent) / time.Since(begin).Seconds()
	used, err := d.cpu()
	if err != nil {
		return 0, 0, err
	}
	if share, err = d.share(time.Duration(b.pick(60, 10)) * time.Second); err != nil {
		return 0, 0, err
	}
	fmt.Printf("  %-46s %8.2f s of processor time\n  %-46s %8.1f folders/s, each %.1f ms of processor time\n  %-46s %8.2f %% of one core\n",
		"first look at all of them", first.Seconds(), "that come meanwhile", rate, float64((used-first).Milliseconds())/float64(sent), "after that", share)
	peak, err = d.peak()
	return rate, peak, err
}
