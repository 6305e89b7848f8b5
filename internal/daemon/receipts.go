package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/receipt"
)

// tellers write the receipts of the inboxes that have any, each in a goroutine
// of its own: a directory that hangs holds up nobody else's.
type tellers struct {
	d    *daemon
	ctx  context.Context
	stop context.CancelFunc
	all  sync.WaitGroup
	now  atomic.Pointer[map[string]teller] // by the inbox's name
}

type teller struct {
	*receipt.Clerk
	stop context.CancelFunc
}

// openTellers begins to write what a configuration wants. They go on until end.
func openTellers(ctx context.Context, d *daemon, cfg *config.Config) (*tellers, error) {
	t := &tellers{d: d}
	t.ctx, t.stop = context.WithCancel(context.WithoutCancel(ctx))
	t.now.Store(&map[string]teller{})
	if err := t.admit(cfg); err != nil {
		t.stop()
		return nil, err
	}
	t.set(cfg)
	d.tellers.Store(t)
	return t, nil
}

// admit has what happens from now on be owed to the uploaders of the inboxes that
// have receipts by a configuration. It may fail, and comes before set.
func (t *tellers) admit(cfg *config.Config) error {
	var list []journal.Receiver
	for _, in := range cfg.Drops() {
		if in.Receipts != "" {
			list = append(list, journal.Receiver{Inbox: in.Name, Verdict: cfg.ReceiptsVerdict})
		}
	}
	return t.d.journal.Receive(list)
}

// set has receipts be written as a configuration says.
func (t *tellers) set(cfg *config.Config) {
	was, is := *t.now.Load(), map[string]teller{}
	for _, in := range cfg.Drops() {
		if in.Receipts == "" {
			continue
		}
		s := receipt.Settings{Inbox: in.Path, Path: in.Receipts, Keep: time.Duration(cfg.ReceiptsKeep)}
		old, runs := was[in.Name]
		if runs {
			old.Set(s)
			is[in.Name] = old
			continue
		}
		ctx, stop := context.WithCancel(t.ctx)
		next := teller{receipt.NewClerk(in.Name, t.d.journal, s, t.d.emit), stop}
		is[in.Name] = next
		t.all.Go(func() {
			next.Run(ctx)
			if t.ctx.Err() == nil {
				t.d.emit(events.ReceiptsLeft{Inbox: in.Name})
			}
		})
	}
	t.now.Store(&is)
	for name, old := range was {
		if _, stays := is[name]; !stays {
			old.stop()
		}
	}
}

// told has uploaders be told of what happened; it is an events.Sink.
func (d *daemon) told(e events.Event) {
	t := d.tellers.Load()
	if t == nil {
		return
	}
	for _, k := range *t.now.Load() {
		k.Take(e)
	}
}

// longestLast is how long the end of the daemon waits for the last receipts:
// their directories may hang. What is left is written after the next start.
const longestLast = 5 * time.Second

// end has the last receipts be written.
func (t *tellers) end() {
	t.stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.all.Wait()
	}()
	select {
	case <-done:
	case <-time.After(longestLast):
	}
}

// CheckReceipts tells what keeps this user from writing receipts, all at once.
func CheckReceipts(cfg *config.Config) error {
	var errs []error
	for _, in := range cfg.Drops() {
		if in.Receipts == "" {
			continue
		}
		if err := receipt.Check(receipt.Settings{Inbox: in.Path, Path: in.Receipts}); err != nil {
			errs = append(errs, fmt.Errorf("receipts of inbox %s: %w", in.Name, err))
		}
	}
	return errors.Join(errs...)
}
