package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"idenfy-batch/internal/sample"
	"idenfy-batch/sidecar"
)

// starts: a daemon with years of work in done starts on a machine that has just
// booted. The very first start, which may have to take in what lies there, is
// shown beside it and has no limit.
func (b *bench) starts() error {
	n := b.pick(200_000, 5_000)
	fmt.Printf("start: %d folders in done, one in the inbox\n", n)
	root, err := b.spool("start")
	if err != nil {
		return err
	}
	if err := settled(root, n, nil); err != nil {
		return err
	}
	began := make(chan time.Time, 1)
	url, stop, err := serve(&sink{before: func() { began <- time.Now() }})
	if err != nil {
		return err
	}
	defer stop()
	o := opener{b: b, root: root, url: url, began: began, n: n, cold: true}
	o.files, o.hashes = proven()
	first, firstPeak, err := o.once(0, 0)
	if err != nil {
		return err
	}
	var times, peaks []float64
	for i := range b.pick(3, 1) {
		took, peak, err := o.once(i+1, 3*time.Second)
		if err != nil {
			return err
		}
		times, peaks = append(times, took), append(peaks, peak)
	}
	if !o.cold {
		fmt.Println("  the page cache is warm: only root can drop it")
	}
	fmt.Printf("  %-46s %8.2f s, %.1f MiB at most\n", "the very first start, to its first request", first, firstPeak)
	fmt.Printf("  %-46s %8.2f s (of %d starts: %.2f)\n", "later starts", median(times), len(times), times)
	slow := within("start of the program to its first request", median(times), 1, "s")
	if b.quick {
		slow = nil // it is a time, and CI's machine may be busy
	}
	return errors.Join(slow, within("peak resident memory", slices.Max(peaks), 48, "MiB"), b.looks(root, url, n))
}

// opener starts the daemon on a spool with n folders in done.
type opener struct {
	b         *bench
	root, url string
	began     <-chan time.Time // when a request came
	n         int
	files     map[string][]byte
	hashes    string
	cold      bool // the page cache could be dropped before each start
}

// once drops a folder, starts the daemon, and returns the seconds to its
// request, and the peak memory in MiB until what the start leaves for
// afterwards is over too.
func (o *opener) once(nth int, after time.Duration) (took, peak float64, err error) {
	name := fmt.Sprintf("new%05d", nth)
	o.files["meta.yaml"] = []byte(sample.Meta(token(o.n+nth), "LT", "ID_CARD") + o.hashes)
	if err := sample.Write(filepath.Join(o.root, "inbox", name), o.files); err != nil {
		return 0, 0, err
	}
	o.cold = dropCaches() == nil && o.cold
	begin := time.Now()
	d, err := o.b.start(o.root, o.url, "")
	if err != nil {
		return 0, 0, err
	}
	select {
	case at := <-o.began:
		took = at.Sub(begin).Seconds()
	case <-time.After(10 * time.Minute):
		return 0, 0, errors.Join(errors.New("no request came"), d.stop())
	}
	err = until("the folder in done", time.Minute, func() bool {
		_, err := os.Stat(filepath.Join(o.root, "done", name))
		return err == nil
	})
	if err == nil {
		time.Sleep(after)
		peak, err = d.peak()
	}
	return took, peak, errors.Join(err, d.stop())
}

// days is over how many the folders in done came.
const days = 100

// settled makes n folders in done, as the daemon leaves them, but without
// images, which nobody looks at. more, if there is any, gives one a session, and
// what belongs to that.
func settled(root string, n int, more func(i int, res *sidecar.Result) (map[string][]byte, error)) error {
	var group errgroup.Group
	const makers = 4
	for maker := range makers {
		group.Go(func() error {
			now := time.Now()
			for i := maker; i < n; i += makers {
				at := sidecar.Time{Time: now.Add(-time.Duration(n-i) * (days * 24 * time.Hour / time.Duration(n)))}
				name := fmt.Sprintf("case%06d", i)
				res := &sidecar.Result{
					ID: rand.Text(), Folder: name, Outcome: sidecar.Accepted,
					Request:  sidecar.Request{Endpoint: "https://ivs.idenfy.com/api/v2/process", TokenHint: sidecar.TokenHint(token(i)), Country: "LT", DocumentType: "ID_CARD"},
					Attempts: []sidecar.Attempt{{N: 1, Started: at, Finished: at, State: sidecar.Answered, HTTPStatus: 200}},
					Times:    sidecar.Times{FirstSeen: at, Complete: at, Claimed: at, Finished: at},
				}
				files, lines := map[string][]byte{}, []string(nil)
				if more != nil {
					var err error
					if files, err = more(i, res); err != nil {
						return err
					}
					lines = append(lines, "scanRef: "+res.Session.ScanRef)
				}
				data, err := sidecar.Encode(res)
				if err != nil {
					return err
				}
				files[sidecar.Name], files["meta.yaml"] = data, []byte(sample.Meta(token(i), "LT", "ID_CARD", lines...))
				if err := sample.Write(filepath.Join(root, "done", name), files); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// dropCaches has everything on the disk and nothing in memory, as after a boot
// (proc(5), /proc/sys/vm/drop_caches).
func dropCaches() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}
