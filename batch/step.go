package batch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// folder is one claimed folder that a job goes on with.
type folder struct {
	b    *Batch
	dir  *os.Root
	work string // its name in work
	id   string
	name string // as it was dropped
	res  *sidecar.Result
	list drop.Listing
	rep  meta.Report

	stays bool // Submit: there is no spool
}

// step goes on with one folder as far as it can go now. It is the whole life
// of a folder; where it is entered is told by the directory that the folder is
// in, and by its result.json:
//
//	in the inbox                        claim it, look again, go on below
//	in work, no result.json of ours     the daemon ended between claim and intent: nothing was
//	                                    sent; back to the inbox, where the rule judges it anew
//	in work, pending, attempt sending   it ended while sending: counts as unanswered
//	in work, pending                    next attempt when it is due
//	in work, final outcome              it ended between the record and the move: move
func (b *Batch) step(ctx context.Context, j job) end {
	f := &folder{b: b, work: j.parked.work, res: j.parked.res}
	if j.arrival != nil {
		f.name, f.id = j.arrival.Name, spool.NewID()
		var err error
		if f.work, err = b.spool.Claim(f.name, f.id); err != nil {
			return f.notClaimed(err).of(j, f.name)
		}
		b.ev.Claimed(f.name, f.id)
	} else {
		f.name, f.id, _ = spool.Split(f.work)
	}
	return f.run(ctx, j).of(j, f.name)
}

// notClaimed ends a step of a folder that stays in the inbox, where the watcher
// offers it again.
func (f *folder) notClaimed(err error) end {
	if errors.Is(err, fs.ErrNotExist) { // the uploader took it away
		return end{}
	}
	f.b.ev.ClaimFailed(f.name, err)
	if errors.Is(err, fs.ErrPermission) {
		return end{}
	}
	f.work = ""
	return f.spoolFault(err)
}

// spoolRetry is how long a folder waits that met a fault of the disk. Should
// the fault be its own, it is not to hold the others up all the time.
const spoolRetry = 30 * time.Second

// spoolFault ends a step because of the disk: nothing is lost, and it is tried
// again.
func (f *folder) spoolFault(err error) end {
	return end{work: f.work, due: time.Now().Add(spoolRetry), res: f.res, health: fault, spool: true, reason: "the spool: " + err.Error()}
}

func (f *folder) run(ctx context.Context, j job) end {
	parent, err := os.OpenRoot(f.b.spool.Path(spool.Work))
	if err != nil {
		return f.spoolFault(err)
	}
	defer parent.Close()
	f.dir, err = drop.Open(parent, f.work)
	switch {
	case errors.Is(err, fs.ErrNotExist): // somebody took it away
		return end{}
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrPermission):
		return f.release("it is not a folder that the daemon may read")
	case err != nil:
		return f.spoolFault(err)
	}
	defer f.dir.Close()

	if f.res != nil { // decided, and still to be written
		return f.decided()
	}
	own, err := f.readOwn()
	switch {
	case err != nil:
		return f.spoolFault(err)
	case !own && j.arrival == nil:
		return f.release("the daemon ended before it sent anything")
	case !own:
		return f.begin(ctx, j.arrival)
	case f.res.Outcome.Final():
		return f.move()
	default:
		return f.resume(ctx, j.probe)
	}
}

// readOwn reads the result.json that this submission wrote. One with another
// id came with the folder: it is evidence, never state.
func (f *folder) readOwn() (bool, error) {
	res, err := sidecar.Read(f.dir)
	switch {
	case err == nil && f.id != "" && res.ID == f.id:
		f.res = res
		f.name = res.Folder
		return true, nil
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, sidecar.ErrNotOurs), errors.Is(err, syscall.ELOOP), errors.Is(err, fs.ErrPermission):
		return false, nil
	default:
		return false, err
	}
}

// begin looks at a folder again and, if it is as the watcher saw it, ends it or
// makes the first attempt. Without an arrival, from Submit, it is as it is.
func (f *folder) begin(ctx context.Context, a *drop.Arrival) end {
	if why, err := f.inspect(); err != nil {
		return f.release(err.Error())
	} else if why != "" {
		return f.release(why)
	}
	if a != nil && f.list.Content != a.Content {
		return f.release("it changed before the claim")
	}
	if a != nil && !a.Expired && len(f.rep.Invalid) == 0 && len(f.rep.Waits) > 0 {
		return f.release("it is not complete: " + f.rep.Waits[0].Code)
	}
	// From here on result.json is ours: what lies there is kept as evidence.
	if err := sidecar.Rotate(f.dir); err != nil {
		return f.spoolFault(err)
	}
	f.res = f.newResult(a)
	switch {
	case len(f.rep.Invalid) > 0:
		return f.refuse(sidecar.Invalid, append(f.rep.Invalid, f.rep.Waits...))
	case len(f.rep.Waits) > 0:
		return f.refuse(sidecar.Incomplete, f.rep.Waits)
	default:
		return f.attempt(ctx, false)
	}
}

// inspect lists and checks the folder. why tells that somebody is writing.
func (f *folder) inspect() (why string, err error) {
	if f.list, err = meta.List(f.dir, f.b.cfg.Limits); err != nil {
		return "", err
	}
	if drop.Busy(f.dir, f.list) != "" {
		return "somebody has one of its files open for writing", nil
	}
	f.rep = meta.Inspect(f.dir, f.name, f.list, f.b.cfg.Limits, false)
	return "", nil
}

func (f *folder) newResult(a *drop.Arrival) *sidecar.Result {
	res := &sidecar.Result{
		ID: f.id, Folder: meta.Show(f.name), Outcome: sidecar.Pending,
		ExtraFiles: f.rep.Extra,
		Uploader:   uploader(f.list.Dir),
		Daemon:     f.b.cfg.Daemon,
		Times:      sidecar.Times{Claimed: sidecar.Now()},
	}
	if a != nil {
		res.Times.FirstSeen, res.Times.Complete = sidecar.Time{Time: a.FirstSeen}, sidecar.Time{Time: a.Complete}
	}
	describe(res, &f.rep)
	return res
}

// describe fills in what was asked for, as far as it is known.
func describe(res *sidecar.Result, rep *meta.Report) {
	m := rep.Meta
	if m == nil || len(rep.Invalid) > 0 {
		return
	}
	res.Request.TokenHint = sidecar.TokenHint(m.AuthToken)
	res.Request.Country, res.Request.DocumentType = m.Country, m.DocumentType
	res.Request.SkipAnalysis = m.SkipAnalysis != nil && *m.SkipAnalysis
	for _, img := range rep.Images {
		res.Request.Images = append(res.Request.Images, sidecar.Image{
			Step: img.Step, File: img.File.Name, Bytes: img.File.Size,
			Format: string(img.Format), Width: img.Width, Height: img.Height,
		})
	}
}

func uploader(dir drop.Entry) sidecar.Uploader {
	u := sidecar.Uploader{UID: dir.UID, GID: dir.GID}
	if known, err := user.LookupId(strconv.FormatUint(uint64(dir.UID), 10)); err == nil {
		u.User = known.Username
	}
	if known, err := user.LookupGroupId(strconv.FormatUint(uint64(dir.GID), 10)); err == nil {
		u.Group = known.Name
	}
	return u
}

// refuse ends a folder of which nothing was sent.
func (f *folder) refuse(o sidecar.Outcome, reasons []meta.Reason) end {
	for _, r := range reasons {
		f.res.Reasons = append(f.res.Reasons, sidecar.Reason{Code: r.Code, Message: r.Message, Source: sidecar.FromPreflight, Field: meta.Show(r.Field)})
	}
	return f.decide(o)
}

// release gives a folder back of which nothing was sent.
func (f *folder) release(why string) end {
	if f.stays {
		f.res = nil
		return end{health: fault, reason: why}
	}
	name, err := f.b.spool.Release(f.work)
	if errors.Is(err, fs.ErrNotExist) {
		return end{}
	}
	if err != nil {
		f.res = nil
		return f.spoolFault(err)
	}
	f.b.ev.Released(name, f.id, why)
	return end{}
}

// because adds a reason of the daemon's own.
func (f *folder) because(code, format string, args ...any) {
	f.res.Reasons = append(f.res.Reasons, sidecar.Reason{Code: code, Message: fmt.Sprintf(format, args...), Source: sidecar.FromDaemon})
}

// decide ends the folder's life with an outcome.
func (f *folder) decide(o sidecar.Outcome) end {
	f.res.Outcome = o
	f.res.Times.Finished = sidecar.Now()
	return f.decided()
}

// decided records what is in f.res, and moves the folder if that is its end.
// If the disk fails it is kept in memory and tried again; a crash meanwhile
// leaves the attempt as sending, which counts as unanswered.
func (f *folder) decided() end {
	if err := sidecar.Write(f.dir, f.res); err != nil {
		return f.spoolFault(err)
	}
	if f.res.Outcome.Final() && !f.stays {
		return f.move()
	}
	return end{work: f.work, due: f.b.cfg.Retry.due(f.res, time.Now())}
}

// place is where a folder of an outcome ends.
func place(o sidecar.Outcome) spool.Place {
	switch o {
	case sidecar.Accepted:
		return spool.Done
	case sidecar.Unknown:
		return spool.Hold
	default:
		return spool.Failed
	}
}

// move brings the folder to its final place. If that fails after the rename
// was made, the folder is where it belongs, and the next try finds nothing.
func (f *folder) move() end {
	to := place(f.res.Outcome)
	name, _, _ := spool.Split(f.work)
	name, err := f.b.spool.Finish(f.work, to, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e := f.spoolFault(err)
		e.res = nil // it is written
		return e
	}
	if err == nil {
		f.b.ev.Ended(f.res, to, name)
	}
	return end{}
}
