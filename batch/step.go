package batch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// folder is one claimed folder that a job goes on with.
type folder struct {
	b    *Batch
	set  *Settings // in force when the job began, and until it ends
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
	f := &folder{b: b, set: b.set.Load(), work: j.parked.work, res: j.parked.res}
	if j.arrival != nil {
		f.name, f.id = j.arrival.Name, spool.NewID()
		var err error
		if f.work, err = b.spool.Claim(f.name, f.id); err != nil {
			return f.notClaimed(err).of(j, f.name)
		}
		b.emit(events.Claimed{Folder: f.name, ID: f.id})
	} else {
		f.name, f.id, _ = spool.Split(f.work)
	}
	claimed := f.work
	e := f.run(ctx, j)
	if e.work == "" {
		b.tokens.leave(claimed)
	}
	return e.of(j, f.name)
}

// settled notes that a folder lies in its final place.
func (f *folder) settled(to spool.Place, name string) {
	if m, err := meta.Read(f.dir); err == nil && (to == spool.Done || to == spool.Hold) {
		f.b.tokens.settle(m.AuthToken)
	}
	f.b.emit(events.Ended{Result: f.res, Place: to, Name: name})
}

// notClaimed ends a step of a folder that stays in the inbox, where the watcher
// offers it again.
func (f *folder) notClaimed(err error) end {
	if errors.Is(err, fs.ErrNotExist) { // the uploader took it away
		return end{}
	}
	f.b.emit(events.ClaimFailed{Folder: f.name, Err: err})
	if errors.Is(err, fs.ErrPermission) && f.work == "" {
		return end{}
	}
	return f.spoolFault(err) // should it lie in work, it goes back from there
}

// spoolRetry is how long a folder waits that met a fault of the disk. Should
// the fault be its own, it is not to hold the others up all the time.
//
// Settings.DiskRetry replaces it.
const spoolRetry = 30 * time.Second

// spoolFault ends a step because of the disk: nothing is lost, and it is tried
// again.
func (f *folder) spoolFault(err error) end {
	return end{work: f.work, due: time.Now().Add(cmp.Or(f.set.DiskRetry, spoolRetry)), res: f.res, health: fault, spool: true, reason: "the spool: " + err.Error()}
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
		f.b.emit(events.Vanished{Folder: f.name, ID: f.id})
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
		return f.resume(ctx, !j.parked.fresh, j.probe)
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
	if err := f.keep(); err != nil {
		_ = f.release("what was uploaded could not be brought to the disk") // where that failed too, it is still in work
		return f.spoolFault(err)
	}
	// From here on result.json is ours: what lies there is kept as evidence.
	before, err := sidecar.Read(f.dir)
	if err != nil { // then it says nothing
		before = &sidecar.Result{}
	}
	if err := sidecar.Rotate(f.dir); err != nil {
		return f.spoolFault(err)
	}
	f.res = f.newResult(a)
	f.res.Decisions = before.Decisions
	switch {
	case len(f.rep.Invalid) > 0:
		return f.refuse(sidecar.Invalid, append(f.rep.Invalid, f.rep.Waits...))
	case len(f.rep.Waits) > 0:
		return f.refuse(sidecar.Incomplete, f.rep.Waits)
	}
	if o := f.sentBefore(before); o != "" {
		return f.decide(o)
	}
	return f.attempt(ctx, false)
}

// keep brings what was uploaded to the disk. Uploading programs don't, so a
// power cut within half a minute would leave empty images behind a record
// which says that they were sent. The names are synced with result.json.
func (f *folder) keep() error {
	for _, e := range f.list.Entries {
		if !e.Regular() {
			continue
		}
		file, err := drop.OpenFile(f.dir, e)
		if errors.Is(err, drop.ErrChanged) || errors.Is(err, fs.ErrPermission) {
			continue // an image is looked at again; what travels along may be anybody's
		}
		if err != nil {
			return err
		}
		if err := errors.Join(durable.Keep(file), file.Close()); err != nil {
			return err
		}
	}
	return nil
}

// sentBefore holds a folder that came with a result against it, and returns
// the outcome of one that was, or may have been, accepted with the same token
// and that no person decided to send again: "" when it may be sent. The result
// is evidence, which can stop a folder and never speed it up.
func (f *folder) sentBefore(before *sidecar.Result) sidecar.Outcome {
	if before.Request.TokenHint != f.res.Request.TokenHint || before.Again() {
		return ""
	}
	switch {
	case before.WasAccepted():
		f.because(sidecar.SentBefore, "it came with the result of an earlier submission (%s), which was accepted; nothing was sent now. If a second one is meant, use a new token, or idenfy-batch requeue --force", before.ID)
		return sidecar.Invalid
	case before.Outcome == sidecar.Unknown, before.Outcome == sidecar.Pending && anyAttempt(before.Attempts, maybeProcessed):
		f.because("may_have_been_accepted", "it came with the result of an earlier submission (%s), which may have been accepted; nothing was sent now. Look the session up in the iDenfy dashboard, then decide with idenfy-batch resolve", before.ID)
		return sidecar.Unknown
	default:
		return ""
	}
}

// waitsForToken is the code of the reason that a folder waits in work because
// another one with its token is not decided.
const waitsForToken = "token_in_use"

// guard keeps a folder from being sent while another one with the same token
// is undecided, and ends it when that was accepted. over tells that the folder
// is not to be sent now.
func (f *folder) guard(ctx context.Context) (e end, over bool) {
	if f.stays {
		return end{}, false
	}
	place, name, err := f.b.tokens.settled(ctx, f.rep.Meta.AuthToken)
	switch {
	case ctx.Err() != nil:
		return f.stopped(), true
	case err != nil:
		return f.spoolFault(err), true
	}
	owner := f.b.tokens.take(f.rep.Meta.AuthToken, f.work)
	if anyAttempt(f.res.Attempts, maybeProcessed) && owner == "" {
		return end{}, false // it was sent itself; the others wait for it
	}
	f.res.Reasons = slices.DeleteFunc(f.res.Reasons, func(r sidecar.Reason) bool { return r.Code == waitsForToken })
	switch {
	case owner != "":
		other, _, _ := spool.Split(owner)
		f.because(waitsForToken, "another folder with this authToken, %s, is being submitted; this one waits until that is decided", meta.Show(other))
		e := f.decided()
		e.behind = owner
		return e, true
	case place == spool.Hold:
		f.because("token_undecided", "another folder with this authToken, hold/%s, may have been accepted; nothing of this one was sent. Decide that one with idenfy-batch resolve; then this one can be requeued", meta.Show(name))
		return f.decide(sidecar.Invalid), true
	case place == spool.Done:
		f.because("token_used", "another folder with this authToken, done/%s, was accepted; nothing of this one was sent. If a second submission is meant, drop it with a new token", meta.Show(name))
		return f.decide(sidecar.Invalid), true
	}
	return end{}, false
}

// stopped ends a step because the daemon stops.
func (f *folder) stopped() end {
	if len(f.res.Attempts) == 0 && len(f.res.Reasons) == 0 {
		return f.release("the daemon stops")
	}
	return end{work: f.work, due: time.Now()}
}

// inspect lists and checks the folder. why tells that somebody is writing.
func (f *folder) inspect() (why string, err error) {
	if f.list, err = meta.List(f.dir, f.set.Limits); err != nil {
		return "", err
	}
	if drop.Busy(f.dir, f.list) != "" {
		return "somebody has one of its files open for writing", nil
	}
	f.rep = meta.Inspect(f.dir, f.name, f.list, f.set.Limits, false)
	return "", nil
}

func (f *folder) newResult(a *drop.Arrival) *sidecar.Result {
	res := &sidecar.Result{
		ID: f.id, Folder: meta.Show(f.name), Outcome: sidecar.Pending,
		ExtraFiles: f.rep.Extra,
		Uploader:   uploader(f.list.Dir),
		Daemon:     f.set.Daemon,
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
	if name != "" {
		f.b.emit(events.Released{Folder: name, ID: f.id, Why: why})
		f.work = ""
	}
	f.res = nil
	if err != nil {
		return f.spoolFault(err)
	}
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
	return end{work: f.work, due: f.set.Retry.due(f.res, time.Now())}
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
	if name != "" {
		f.settled(to, name)
		f.work = ""
	}
	f.res = nil // it is written
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.spoolFault(err)
	}
	return end{}
}
