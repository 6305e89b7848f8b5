package main

import (
	"fmt"
	"time"
)

// idle: an empty inbox.
func (b *bench) idle() error {
	over := time.Duration(b.pick(60, 20)) * time.Second
	fmt.Printf("idle: an empty inbox for %s\n", over)
	root, err := b.spool("idle")
	if err != nil {
		return err
	}
	url, stop, err := serve(&sink{})
	if err != nil {
		return err
	}
	defer stop()
	d, err := b.start(root, url, "")
	if err != nil {
		return err
	}
	time.Sleep(2 * time.Second)
	share, err := d.share(over)
	if err != nil {
		return err
	}
	peak, err := d.peak()
	if err != nil {
		return err
	}
	fmt.Printf("  %-46s %8.2f %% of one core, %.1f MiB resident\n", "cost", share, peak)
	return d.stop()
}
