package main

import (
	"fmt"
	"path/filepath"
	"time"

	"idenfy-batch/internal/sample"
)

// waiting: twenty thousand folders that are not complete.
func (b *bench) waiting() error {
	n := b.pick(20_000, 5_000)
	fmt.Printf("waiting: %d folders without a face in the inbox\n", n)
	root, err := b.spool("waiting")
	if err != nil {
		return err
	}
	front := sample.Front()
	for i := range n {
		files := map[string][]byte{"FRONT.jpg": front[:min(len(front), 8000)], "meta.yaml": []byte(sample.Meta(token(i), "LT", "ID_CARD"))}
		if err := sample.Write(filepath.Join(root, "inbox", fmt.Sprintf("case%05d", i)), files); err != nil {
			return err
		}
	}
	url, stop, err := serve(&sink{})
	if err != nil {
		return err
	}
	defer stop()
	begin := time.Now()
	d, err := b.start(root, url, "")
	if err != nil {
		return err
	}
	// The first scan, the wait for quiet, and the look into each.
	time.Sleep(12 * time.Second)
	first, err := d.cpu()
	if err != nil {
		return err
	}
	share, err := d.share(time.Duration(b.pick(120, 30)) * time.Second)
	if err != nil {
		return err
	}
	peak, err := d.peak()
	if err != nil {
		return err
	}
	fmt.Printf("  %-46s %8.2f s of processor time\n  %-46s %8.2f %% of one core\n", "first look at all of them", first.Seconds(), fmt.Sprintf("after that, measured %s after the start", time.Since(begin).Round(time.Second)), share)
	if err := d.stop(); err != nil {
		return err
	}
	return within("peak resident memory", peak, 64, "MiB")
}
