package watcher_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/meta"
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

// Two watchers that hand on by one channel are served in turn: the few folders
// of one inbox don't wait for the many of another, however many these are.
func TestServedInTurn(t *testing.T) {
	const many, few = 200, 10
	dirs := map[string]string{"many": t.TempDir(), "few": t.TempDir()}
	for name, n := range map[string]int{"many": many, "few": few} {
		in := &inbox{t: t, dir: dirs[name]}
		for i := range n {
			in.fill(fmt.Sprint(name, i))
		}
	}
	synctest.Test(t, func(t *testing.T) {
		out := make(chan drop.Arrival)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for name, dir := range dirs {
			all.Go(func() {
				src := &hints{c: make(chan watcher.Hint), watched: map[string]bool{}}
				err := watcher.Run(ctx, watcher.Config{Inbox: name, Dir: dir, Settings: watcher.Settings{
					Settle: 5 * time.Second, Rescan: 15 * time.Second, Limits: meta.Limits{Request: 20_000_000, Files: 64, Marker: ".ready"},
				}}, src, out, (&notes{}).take)
				if err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(20 * time.Second) // all are quiet, and nobody takes one
		got := map[string]int{}
		for n := range 2*few + 1 {
			synctest.Wait() // each of the two offers one
			a := <-out
			if got[a.Inbox]++; a.Dir != dirs[a.Inbox] {
				t.Errorf("number %d is of %s, in %s", n, a.Inbox, a.Dir)
			}
		}
		if got["few"] != few {
			t.Errorf("of the first %d: %v", 2*few+1, got)
		}
		cancel()
		all.Wait()
	})
}
