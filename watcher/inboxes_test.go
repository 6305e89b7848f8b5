package watcher_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"idenfy-batch/watcher"
)

// When a folder could not be taken, and none can, by a proof, no other is handed
// on until one can: that is asked again and again, and told once.
func TestDoubts(t *testing.T) {
	var doubts chan struct{} // of the bubble
	var wrong atomic.Pointer[error]
	var asked atomic.Int32
	bubble(t, func(cfg *watcher.Config) {
		doubts = make(chan struct{}, 1)
		cfg.Doubts = doubts
		cfg.Proof = func() error {
			asked.Add(1)
			if err := wrong.Load(); err != nil {
				return *err
			}
			return nil
		}
	}, func(in *inbox) {
		in.fill("first")
		in.hint("first")
		in.want("nobody doubts it", in.after(10*time.Second), "first")
		if asked.Load() > 0 {
			t.Error("it was asked for a proof without need")
		}
		other := errors.New("on another mount")
		wrong.Store(&other)
		doubts <- struct{}{}
		in.fill("second")
		in.hint("second")
		in.want("while none can be moved", in.after(2*time.Minute))
		if n := asked.Load(); n < 5 || n > 40 {
			t.Errorf("it was asked %d times within two minutes", n)
		}
		wrong.Store(nil)
		in.want("once they can", in.after(20*time.Second), "second")
		n := 0
		for _, note := range in.ev.all() {
			if note == "trouble true" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("it was told %d times: %v", n, in.ev.all())
		}
		doubts <- struct{}{} // of the folder's own fault
		in.fill("third")
		in.hint("third")
		in.want("a doubt without a cause", in.after(10*time.Second), "third")
	})
}
