package batch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"idenfy-batch/internal/adopt"
	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// RefusedError says why a folder may not be submitted.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

// Submit makes one attempt with a folder that stays where it is, by the same
// way as the daemon: intent, submission, answer. The result is in the folder
// and returned; an error means that it has no end yet, and that Submit may be
// called again.
//
// The journal is b's own, not that of a spool, which is told what is sent, see
// Share. A folder that was, or may have
// been, accepted is a *RefusedError; one that waits is gone on with; one that
// was refused before anything was taken begins another life.
func (b *Batch) Submit(ctx context.Context, dir *os.Root, name string) (*sidecar.Result, error) {
	unlock, err := spool.LockFolder(dir)
	if errors.Is(err, spool.ErrLocked) {
		return nil, &RefusedError{"another idenfy-batch is submitting it"}
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	life, err := b.resume(ctx, dir, name)
	if err != nil {
		return nil, err
	}
	v := &visit{b: b, set: b.settings.Load(), dir: dir, name: name, stays: true, life: life, task: task{id: life.ID, may: true, probesAccount: true}}
	if life.State != journal.Claimed {
		v.defaults = meta.DefaultsOf(life.Result, life.ClientID)
	} else if v.defaults, err = v.begins(ctx); err != nil {
		return nil, err
	}
	announced, err := b.announce(ctx, v)
	if err != nil {
		return nil, err // its life stays, and the next time goes on with it
	}
	var e end
	if life.State == journal.Claimed {
		e = v.examine(ctx)
	} else if e = entries[v.state()](v, ctx); e.fault.owner == nobody && !life.Result.Outcome.Final() {
		e = entries[v.state()](v, ctx) // the first only noted the crash
	}
	if announced {
		if err := b.shared(context.WithoutCancel(ctx), v.life); err != nil { // there it may have been taken, which is safe
			b.emit(events.Trouble{What: "the spool's journal was not told how it ended", Err: err})
		}
	}
	switch res := v.life.Result; {
	case e.fault.owner == account, e.fault.owner == disk:
		return nil, fmt.Errorf("%s; %s", e.fault.reason, e.fault.mend)
	case e.again == nil && !res.Outcome.Final():
		return nil, errors.New(e.fault.reason)
	case !res.Outcome.Final():
		return res, fmt.Errorf("no end yet: %s", why(e, res))
	default:
		return res, nil
	}
}

func why(e end, res *sidecar.Result) string {
	if e.fault.reason == "" && len(res.Reasons) > 0 {
		return res.Reasons[len(res.Reasons)-1].Message
	}
	return e.fault.reason
}

// Shared brings a life into the journal of a spool, which is another one than
// Submit's own: before it is sent, with an attempt that is sending, and after.
// A *RefusedError says why it is not to be sent, by what that journal knows.
type Shared func(ctx context.Context, l *journal.Life) error

// Share has Submit share what it sends. Call it before Submit.
func (b *Batch) Share(s Shared) { b.shared = s }

// KeepTokens has Submit keep the tokens of the sessions that it opens in a
// directory of its own: one that is gone on with needs its token again. Those
// that are left there of others are removed. Call it before Submit.
func (b *Batch) KeepTokens(ctx context.Context, dir string) error {
	b.tokens.Dir = dir
	lives, err := b.journal.InWork(ctx)
	if err != nil {
		return err
	}
	return b.tokens.Sweep(func(id string) bool { _, open := lives[id]; return open })
}

// announce shares what is about to be sent. What has neither token nor clientId
// isn't sent.
func (b *Batch) announce(ctx context.Context, v *visit) (announced bool, err error) {
	if b.shared == nil {
		return false, nil
	}
	dir, life := v.dir, v.life
	m, err := meta.Read(dir, v.defaults)
	if _, system := errors.AsType[syscall.Errno](err); system && !errors.Is(err, fs.ErrNotExist) {
		return false, err // it may be readable a moment later
	}
	if err != nil {
		return false, nil //nolint:nilerr // the look at it tells
	}
	c, r := *life, *life.Result
	c.Result = &r
	if c.Dir, err = drop.Identity(dir); err != nil {
		return false, err
	}
	if c.Prior, err = sidecar.IDs(dir); err != nil {
		return false, err
	}
	if c.ClientID = m.ClientID; m.ClientID != "" {
		if c.Content, err = v.content(m.ClientID); err != nil {
			return false, err
		}
	} else {
		c.Token, r.Request.TokenSHA256, r.Request.TokenHint = m.TokenSHA256(), m.TokenSHA256(), sidecar.TokenHint(m.AuthToken)
	}
	if m.ScanRef != "" {
		c.ScanRef, r.Session = m.ScanRef, &sidecar.Session{ScanRef: m.ScanRef, By: sidecar.ByProducer}
	}
	r.Attempts = append(slices.Clone(r.Attempts), sidecar.Attempt{N: len(r.Attempts) + r.Omitted + 1, Started: sidecar.Now(), State: sidecar.Sending})
	return true, b.shared(ctx, &c)
}

// content is that of a folder with a clientId, or "" if it is not to be sent as it
// is.
func (v *visit) content(clientID string) (string, error) {
	l, err := meta.List(v.dir, v.limits())
	if err != nil {
		return "", err
	}
	rep := meta.Inspect(v.dir, v.name, l, v.limits(), false)
	if !rep.Complete() {
		return "", nil
	}
	var sums []string
	for _, img := range rep.Images {
		sum, err := drop.Sum(v.dir, img.File)
		if err != nil {
			return "", err
		}
		sums = append(sums, sum)
	}
	return content(clientID, rep.Images, sums), nil
}

// resume returns the life of the folder to go on with. One that a crash cut off
// before there was a result is known by the directory itself.
func (b *Batch) resume(ctx context.Context, dir *os.Root, name string) (*journal.Life, error) {
	id, err := sidecar.ID(dir, sidecar.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if id != "" {
		known, err := b.journal.Load(ctx, id)
		if err != nil {
			return nil, err
		}
		if known == nil { // by an earlier version, or on another machine
			f, err := adopt.Folder(dir, "", name)
			if err == nil {
				err = b.journal.Adopt([]journal.Adopted{f})
			}
			if err == nil {
				known, err = b.journal.Load(ctx, id)
			}
			if err != nil {
				return nil, err
			}
		}
		if err := refusal(known); err != nil {
			return nil, err
		}
		if known != nil && known.Result.Outcome == sidecar.Pending {
			known.State = journal.Pending
			return known, nil
		}
	}
	self, err := drop.Identity(dir)
	if err != nil {
		return nil, err
	}
	if self != "" {
		if known, err := b.journal.Unfinished(ctx, self); known != nil || err != nil {
			return known, err
		}
	}
	id = spool.NewID()
	if err := b.journal.ClaimDir(id, meta.Show(name), self); err != nil {
		return nil, err
	}
	return b.journal.Load(ctx, id)
}

func refusal(l *journal.Life) error {
	switch {
	case l == nil:
		return nil
	case l.Result.Outcome == sidecar.Accepted:
		return &RefusedError{fmt.Sprintf("it was accepted on %s (%s); it is not sent again", l.Result.Times.Finished.Local().Format("2006-01-02 15:04"), sidecar.Name)}
	case l.Result.Outcome == sidecar.Unknown:
		return &RefusedError{fmt.Sprintf("it may have been accepted (%s); look the session up in the iDenfy dashboard first, then take the file away", sidecar.Name)}
	}
	return nil
}
