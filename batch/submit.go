package batch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// RefusedError says why a folder may not be submitted.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

// Submit makes one attempt with a folder that stays where it is, by the same
// steps as the daemon: intent, submission, answer. The result is in the folder
// and returned; an error means that it has no end yet, and that Submit may be
// called again.
//
// A result.json of an earlier Submit decides: a folder that was or may have
// been accepted is a *RefusedError, one that waits is gone on with, and one
// that was refused before anything was taken begins anew.
func (b *Batch) Submit(ctx context.Context, dir *os.Root, name string) (*sidecar.Result, error) {
	unlock, err := spool.LockFolder(dir)
	if errors.Is(err, spool.ErrLocked) {
		return nil, &RefusedError{"another idenfy-batch is submitting it"}
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	one := New(*b.set.Load(), nil, func(events.Event) {}) // the caller tells what happened
	f := &folder{b: one, set: one.set.Load(), dir: dir, name: name, stays: true}
	res, err := sidecar.Read(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, sidecar.ErrNotOurs):
		f.id = spool.NewID()
	case err != nil:
		return nil, err
	case res.Outcome == sidecar.Accepted:
		return nil, &RefusedError{fmt.Sprintf("it was accepted on %s (%s); it is not sent again", res.Times.Finished.Format("2006-01-02 15:04"), sidecar.Name)}
	case res.Outcome == sidecar.Unknown:
		return nil, &RefusedError{fmt.Sprintf("it may have been accepted (%s); look the session up in the iDenfy dashboard first, then take the file away", sidecar.Name)}
	case res.Outcome == sidecar.Pending:
		f.id, f.res = res.ID, res
	default:
		f.id = spool.NewID()
	}
	var e end
	if f.res == nil {
		e = f.begin(ctx, nil)
	} else if e = f.resume(ctx, true, true); e.health == nothing && !f.res.Outcome.Final() {
		e = f.resume(ctx, true, true) // the first only noted the crash
	}
	switch {
	case f.res == nil || e.health == fault:
		return nil, errors.New(e.reason)
	case !f.res.Outcome.Final():
		return f.res, fmt.Errorf("no end yet: %s", e.reason)
	default:
		return f.res, nil
	}
}
