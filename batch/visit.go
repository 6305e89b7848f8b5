package batch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// visit goes on with one folder, as far as it can go now.
type visit struct {
	b    *Batch
	set  *Settings
	task task
	dir  *os.Root
	name string // as it was dropped
	life *journal.Life
	list drop.Listing
	rep  meta.Report

	stays bool // Submit: there is no spool
}

// visit makes one.
func (b *Batch) visit(ctx context.Context, t task) end {
	v := &visit{b: b, set: b.settings.Load(), task: t}
	if t.arrival != nil {
		v.name = t.arrival.Name
		if e, over := v.claim(); over {
			return v.over(t, e)
		}
	} else {
		v.name, _, _ = spool.Split(t.work)
	}
	return v.over(t, v.enter(ctx))
}

// over notes whose end it is.
func (v *visit) over(t task, e end) end {
	e.task, e.folder = t, v.name
	return e
}

// claim takes an arrival into work. The journal has it first, so that whatever
// lies in work under an id is known.
func (v *visit) claim() (end, bool) {
	if err := v.b.spool.Intact(); err != nil {
		v.b.emit(events.ClaimFailed{Folder: v.name, Err: err})
		return v.diskFault(err), true
	}
	if !v.task.reserved {
		if err := v.b.journal.Claim(v.task.id, meta.Show(v.name)); err != nil {
			v.b.emit(events.ClaimFailed{Folder: v.name, Err: err})
			return v.diskFault(err), true
		}
	}
	work, err := v.b.spool.Claim(v.name, v.task.id)
	v.task.work = work
	if err == nil {
		v.b.emit(events.Claimed{Folder: v.name, ID: v.task.id})
		return end{}, false
	}
	if work != "" { // it lies there, and may not survive a power cut
		v.b.emit(events.ClaimFailed{Folder: v.name, Err: err})
		return v.diskFault(err), true
	}
	forgot := v.b.journal.Unclaim(v.task.id) // else the next start does
	if errors.Is(err, fs.ErrNotExist) {      // the uploader took it away
		return end{}, true
	}
	v.b.emit(events.ClaimFailed{Folder: v.name, Err: err})
	if errors.Is(err, fs.ErrPermission) && forgot == nil {
		return end{}, true
	}
	return v.diskFault(err), true
}

// enter opens the folder and goes on by what the journal says of it.
func (v *visit) enter(ctx context.Context) end {
	if err := v.b.spool.Intact(); err != nil {
		return v.diskFault(err)
	}
	parent, err := os.OpenRoot(v.b.spool.Path(spool.Work))
	if err != nil {
		return v.diskFault(err)
	}
	defer parent.Close()
	if v.task.id != "" && v.task.unsaved == nil {
		if v.life, err = v.b.journal.Load(ctx, v.task.id); err != nil {
			return v.diskFault(err)
		}
	}
	v.dir, err = drop.Open(parent, v.task.work)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := v.b.spool.Intact(); err != nil { // only now
			return v.diskFault(err)
		}
		return v.gone()
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrPermission):
		return v.notReadable(err)
	case err != nil:
		return v.diskFault(err)
	}
	defer v.dir.Close()
	return entries[v.state()](v, ctx)
}

// gone ends a life whose folder somebody took out of work.
func (v *visit) gone() end {
	if v.life = cmp.Or(v.life, v.task.unsaved); v.task.unsaved != nil {
		if err := v.b.journal.Put(v.life); err != nil {
			return v.unrecorded(err)
		}
	}
	if v.life == nil || v.life.State == journal.Filed {
		return end{}
	}
	if err := v.b.spool.Intact(); err != nil {
		return v.diskFault(err)
	}
	if v.life.State == journal.Claimed {
		if err := v.b.journal.Unclaim(v.task.id); err != nil {
			return v.diskFault(err)
		}
		return end{}
	}
	if v.life.State == journal.Ended {
		if err := v.b.lost(context.Background(), v.task.id, v.life.State); err != nil {
			return v.diskFault(err)
		}
		return end{}
	}
	if err := v.b.journal.Gone(v.task.id); err != nil {
		return v.diskFault(err)
	}
	v.b.emit(events.Vanished{Folder: v.name, ID: v.task.id})
	return end{}
}

// notReadable is for what lies in work and can't be opened as a folder.
func (v *visit) notReadable(err error) end {
	if s := v.state(); s == stray || s == arrived || s == claimed {
		return v.giveBack("it is not a folder that the daemon may read")
	}
	return v.later(fmt.Sprintf("it can't be opened: %v", err))
}

// diskRetry is how long a folder waits that met a fault of the disk. Should the
// fault be its own, it is not to hold the others up all the time.
const diskRetry = 30 * time.Second

// diskFault ends a visit because of the disk, or of the journal on it: nothing
// is lost, and it is tried again.
func (v *visit) diskFault(err error) end {
	e := end{health: fault, disk: true, reason: "the spool: " + err.Error()}
	if v.task.work != "" || v.stays {
		e.again = v.come(time.Now().Add(cmp.Or(v.set.DiskRetry, diskRetry)))
		e.again.disk = true
	}
	return e
}

// failed ends a visit because of an error at the files of its folder. What an
// uploader can make, directories in the place of files, modes, links, holds up
// that folder alone.
func (v *visit) failed(err error) end {
	for _, e := range []error{syscall.EACCES, syscall.EPERM, syscall.ENOTEMPTY, syscall.EISDIR, syscall.ENOTDIR, syscall.EEXIST, syscall.ELOOP} {
		if errors.Is(err, e) {
			return v.later(fmt.Sprintf("it can't be worked on: %v", err))
		}
	}
	return v.diskFault(err)
}

// come is the task of a further visit.
func (v *visit) come(due time.Time) *task {
	return &task{id: v.task.id, work: v.task.work, due: due, unsaved: v.task.unsaved}
}

// later ends a visit of a folder that can't be read now, by its own fault.
func (v *visit) later(why string) end {
	return end{again: v.come(time.Now().Add(cmp.Or(v.set.DiskRetry, diskRetry))), reason: why}
}

// release gives a folder back of which nothing was sent in this life.
func (v *visit) release(context.Context) end {
	if v.task.id == "" {
		return v.giveBack("the daemon did not put it into work")
	}
	return v.giveBack("the daemon ended before it sent anything")
}

func (v *visit) giveBack(why string) end {
	if v.stays {
		if err := v.b.journal.Unclaim(v.task.id); err != nil {
			return v.diskFault(err)
		}
		return end{health: fault, reason: why}
	}
	name, err := v.b.spool.Release(v.task.work)
	if name != "" {
		v.b.emit(events.Released{Folder: name, ID: v.task.id, Why: why})
		v.task.work = ""
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = v.missing(err)
	}
	if err == nil && v.task.id != "" {
		err = v.b.journal.Unclaim(v.task.id)
	}
	if err != nil {
		return v.diskFault(err)
	}
	return end{}
}

// missing tells what a move met that found something missing: nil, if it is the
// folder, which somebody took away; else err, of the directory that it was to
// go to, or that it lies in.
func (v *visit) missing(err error) error {
	if intact := v.b.spool.Intact(); intact != nil {
		return intact
	}
	if _, there := os.Lstat(filepath.Join(v.b.spool.Path(spool.Work), v.task.work)); there == nil {
		return err
	}
	return nil
}

// examine looks at an arrival again, and goes on with it if it is as the
// watcher saw it. What was changed all the time until it was too old is never
// sent, and needs not be as it was.
func (v *visit) examine(ctx context.Context) end {
	a := v.task.arrival
	restless := a != nil && a.Changing != ""
	why, err := v.inspect()
	switch {
	case err != nil:
		return v.giveBack(err.Error())
	case restless:
		v.rep.Waits = append(v.rep.Waits, meta.StillChanging(a.Changing))
	case why != "":
		return v.giveBack(why)
	case a != nil && v.list.Content != a.Content:
		return v.giveBack("it changed before the claim")
	case a != nil && !a.Expired && len(v.rep.Invalid) == 0 && len(v.rep.Waits) > 0:
		return v.giveBack("it is not complete: " + v.rep.Waits[0].Code)
	}
	switch err := v.keep(); {
	case err == nil, restless && errors.Is(err, drop.ErrBusy):
	case errors.Is(err, drop.ErrBusy):
		return v.giveBack("somebody has one of its files open")
	default:
		_ = v.giveBack("what was uploaded could not be brought to the disk") // where that failed too, it is still in work
		return v.diskFault(err)
	}
	v.life.Result = v.newResult(a)
	return v.begin(ctx)
}

// keep brings what was uploaded to the disk, the whole tree of it. Uploading
// programs don't, so a power cut within half a minute would leave empty images
// behind a record which says that they were sent. The names in the folder
// itself are synced with result.json, those in its directories here.
func (v *visit) keep() error {
	for entries := range slices.Chunk(v.list.Entries, 64) { // a bound on what is open at once
		if err := v.keepSome(entries); err != nil {
			return err
		}
	}
	return nil
}

func (v *visit) keepSome(entries []drop.Entry) (err error) {
	var files []*os.File
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
	}()
	for _, e := range entries {
		open := drop.OpenFile
		if e.Mode.IsDir() {
			open = drop.OpenDir
		} else if !e.Regular() {
			continue
		}
		file, err := open(v.dir, e)
		if errors.Is(err, drop.ErrChanged) || errors.Is(err, fs.ErrPermission) {
			continue // an image is looked at again; what travels along may be anybody's
		}
		if err != nil {
			return err
		}
		files = append(files, file)
	}
	return durable.KeepAll(files)
}

// inspect lists and checks the folder. why tells that somebody is writing.
func (v *visit) inspect() (why string, err error) {
	if v.list, err = meta.List(v.dir, v.set.Limits); err != nil {
		return "", err
	}
	if drop.Busy(v.dir, v.list) != "" {
		why = "somebody has one of its files open for writing"
	}
	v.rep = meta.Inspect(v.dir, v.name, v.list, v.set.Limits, false)
	return why, nil
}

// leased reports whether a file of the folder is under somebody's lease, which
// opening it has asked back by now.
func (v *visit) leased() bool {
	e, _ := v.list.Find(drop.Busy(v.dir, v.list))
	f, err := drop.OpenFile(v.dir, e)
	if err == nil {
		_ = f.Close() // it was read only
	}
	return errors.Is(err, drop.ErrBusy)
}

func (v *visit) newResult(a *drop.Arrival) *sidecar.Result {
	res := &sidecar.Result{
		ID: v.task.id, Folder: meta.Show(v.name), Outcome: sidecar.Pending,
		ExtraFiles: v.rep.Extra, MoreFiles: v.rep.More,
		Uploader: uploader(v.list.Dir),
		Daemon:   v.set.Daemon,
		Times:    sidecar.Times{Claimed: sidecar.Now()},
	}
	if a != nil {
		res.Times.FirstSeen = sidecar.Time{Time: a.FirstSeen}
		if !a.Expired {
			res.Times.Complete = sidecar.Time{Time: a.Complete}
		}
	}
	v.describe(res)
	return res
}

// describe fills in what was asked for, as far as it is known.
func (v *visit) describe(res *sidecar.Result) {
	m := v.rep.Meta
	res.Request.MetaSHA256 = v.rep.SHA256
	if sum := m.TokenSHA256(); sum != "" {
		v.life.Token = sum
		res.Request.TokenSHA256, res.Request.TokenHint = sum, sidecar.TokenHint(m.AuthToken)
	}
	if m == nil || len(v.rep.Invalid) > 0 {
		return
	}
	if v.life.ScanRef = m.ScanRef; m.ScanRef != "" {
		res.Session = &sidecar.Session{ScanRef: m.ScanRef, By: "producer"}
	}
	res.Request.Country, res.Request.DocumentType = m.Country, m.DocumentType
	res.Request.SkipAnalysis = m.SkipAnalysis != nil && *m.SkipAnalysis
	for _, img := range v.rep.Images {
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

// because adds a reason of the daemon's own.
func (v *visit) because(code, format string, args ...any) {
	v.life.Result.Reasons = append(v.life.Result.Reasons, sidecar.Reason{Code: code, Message: fmt.Sprintf(format, args...), Source: sidecar.FromDaemon})
}

// notUnderstood is for a folder that carries an id of the daemon's and of
// which the journal can't say how it came there: it may have been sent, so a
// person decides.
func (v *visit) notUnderstood(ctx context.Context) end {
	if v.life == nil {
		v.life = &journal.Life{ID: v.task.id, State: journal.Pending, Fate: journal.Unsettled, Place: string(spool.Work), Result: &sidecar.Result{
			ID: v.task.id, Folder: meta.Show(v.name), Outcome: sidecar.Pending, Daemon: v.set.Daemon,
		}}
		if m, err := meta.Read(v.dir); err == nil {
			v.life.Token = m.TokenSHA256()
			v.life.Result.Request.TokenSHA256, v.life.Result.Request.TokenHint = v.life.Token, sidecar.TokenHint(m.AuthToken)
		}
		if err := v.b.journal.Adopt([]journal.Adopted{{Lives: []*journal.Life{v.life}}}); err != nil {
			return v.diskFault(err)
		}
	}
	v.life.State = journal.Pending
	v.because("not_understood", "it lies in work with the id of a submission that the journal can't account for, so it may have been accepted; look the session up in the iDenfy dashboard, then decide with idenfy-batch resolve")
	return v.decide(ctx, sidecar.Unknown)
}
