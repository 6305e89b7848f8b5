package main

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// memory: eight submissions of 14 MB at once.
func (b *bench) memory() error {
	fmt.Printf("memory: %d submissions of 14 MB of images at once\n", inFlight)
	root, err := b.spool("memory")
	if err != nil {
		return err
	}
	if err := fill(root, inFlight, 14_000_000/3-10, map[string][]byte{".ready": nil}); err != nil {
		return err
	}
	var all sync.WaitGroup // nobody is answered before all have been read
	all.Add(inFlight)
	url, stop, err := serve(&sink{after: func() { all.Done(); all.Wait() }})
	if err != nil {
		return err
	}
	defer stop()
	d, err := b.start(root, url, fmt.Sprintf("concurrency: %d", inFlight))
	if err != nil {
		return err
	}
	if err := until("all in done", time.Minute, func() bool { return d.count("done") == inFlight }); err != nil {
		return errors.Join(err, d.stop())
	}
	peak, err := d.peak()
	if err = errors.Join(err, d.stop()); err != nil {
		return err
	}
	return within("peak resident memory", peak, 48, "MiB")
}
