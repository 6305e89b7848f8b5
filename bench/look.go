package main

import (
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// looks: list of a day, and show, over a journal of years: beside the daemon
// and without it.
func (b *bench) looks(root, url string, n int) error {
	d, err := b.start(root, url, "")
	if err != nil {
		return err
	}
	show := []string{"show", fmt.Sprintf("case%06d", n/2), "--config", root + ".yaml"}
	list := []string{"list", "--since", "24h", "--config", root + ".yaml"}
	err = until("the daemon answers", time.Minute, func() bool {
		return exec.Command(b.bin, "reload", "--config", root+".yaml").Run() == nil
	})
	err = errors.Join(err, b.times("show, beside the daemon", show), b.times("list of a day, beside the daemon", list), d.stop())
	return errors.Join(err, b.times("show, without a daemon", show), b.times("list of a day, without a daemon", list))
}

// times runs a command some times, from its start to its end.
func (b *bench) times(what string, args []string) error {
	var list []float64
	for range 9 {
		begin := time.Now()
		if out, err := exec.Command(b.bin, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", what, err, out)
		}
		list = append(list, float64(time.Since(begin).Microseconds())/1000)
	}
	slow := within(what, median(list), 50, "ms")
	if b.quick {
		return nil // it is a time, and CI's machine may be busy
	}
	return slow
}
