package batch

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/record"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// visit goes on with one folder, as far as it can go now.
type visit struct {
	b   *Batch
	set *Settings
	// Where each place was when the visit began. A folder goes back where it was
	// taken from, whatever a reload changed meanwhile.
	paths spool.Paths
	task  task
	dir   *os.Root
	name  string // as it was dropped
	life  *journal.Life
	list  drop.Listing
	rep   meta.Report

	defaults meta.Defaults // of this life, see limits

	listed bool // list was made just now, with the folder sealed

	// What the seal makes the daemon's own, and was not.
	foreign []meta.Reason // of links to somebody else's files, in the place of what is to be sent
	planted []string      // files with names of records
	left    spool.Left    // what the seal could not make so

	token string // that is to be sent, once it is known

	standing map[string]standing // of the sessions that were asked for since the last attempt

	known bool     // what the folder is known by was read, see recognise
	sums  []string // SHA-256 of its images, if it came with results

	stays bool // Submit: there is no spool
}

// visit makes one.
func (b *Batch) visit(ctx context.Context, t task) end {
	v := &visit{b: b, set: b.settings.Load(), paths: b.spool.Paths(), task: t}
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
	from := spool.InboxNamed(v.task.arrival.Inbox)
	if v.paths[from] != v.task.arrival.Dir { // of another one by now: whoever watches that hands on what is there
		return end{}, true
	}
	if err := v.b.spool.Intact(); err != nil {
		v.b.emit(events.ClaimFailed{Inbox: from.InboxName(), Folder: v.name, Err: v.brief(err)})
		return v.diskFault(err), true
	}
	if !v.task.reserved {
		if err := v.b.journal.Claim(v.task.id, from.InboxName(), meta.Show(v.name)); err != nil {
			v.b.emit(events.ClaimFailed{Inbox: from.InboxName(), Folder: v.name, Err: v.brief(err)})
			return v.diskFault(err), true
		}
	}
	life, noted := v.note(from)
	work, err := v.paths.Claim(from, v.name, v.task.id)
	v.task.work = work
	if noteErr := <-noted; err == nil && noteErr == nil {
		v.life = life // as the journal has it
		v.b.emit(events.Claimed{Folder: v.name, ID: v.task.id})
		return end{}, false
	} else if err == nil {
		err = noteErr
	}
	if work != "" { // it lies there, and may not survive a power cut
		return v.diskFault(err), true
	}
	forgot := v.b.journal.Unclaim(v.task.id) // else the next start does
	if errors.Is(err, fs.ErrNotExist) {      // the uploader took it away
		return end{}, true
	}
	if forgot == nil && drop.Own(err) && v.b.spool.Takes(from) == nil {
		return end{stuck: v.at(from, fmt.Sprintf("it can't be taken: %v", v.brief(err)), err)}, true
	}
	alone := forgot == nil && v.b.spool.Alone(from)
	v.b.emit(events.ClaimFailed{Inbox: from.InboxName(), Folder: v.name, Alone: alone, Err: v.brief(err)})
	if alone { // no more are handed on from there
		return end{}, true
	}
	return v.diskFault(err), true
}

// note has the journal know whose folder it is, and its whole name: once the
// folder is sealed in work, nothing else tells. It goes on while the folder is
// moved, so that nobody waits for one after the other.
func (v *visit) note(from spool.Place) (l *journal.Life, noted <-chan error) {
	done := make(chan error, 1)
	l = &journal.Life{ID: v.task.id, State: journal.Claimed, Fate: journal.Unsent, Place: string(spool.Work), Result: &sidecar.Result{
		ID: v.task.id, Folder: meta.Show(v.name), Inbox: from.InboxName(), Outcome: sidecar.Pending, Times: sidecar.Times{Claimed: sidecar.Now()},
	}}
	if info, err := os.Lstat(filepath.Join(v.paths[from], v.name)); err == nil { // else the claim says it
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			l.Result.Uploader = uploader(st.Uid, st.Gid)
		}
	}
	go func() { done <- v.b.journal.Put(l) }()
	return l, done
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
	if v.life == nil && v.task.id != "" && v.task.unsaved == nil {
		if v.life, err = v.b.journal.Load(ctx, v.task.id); err != nil {
			return v.diskFault(err)
		}
	}
	if l := cmp.Or(v.life, v.task.unsaved); l != nil {
		v.name = meta.Whole(v.name, l.Result.Folder)
	}
	if v.life != nil && v.life.State != journal.Claimed {
		v.defaults = meta.DefaultsOf(v.life.Result, v.life.ClientID)
	}
	if v.task.id != "" && (v.life == nil || v.life.State != journal.Claimed) {
		// As a rule it has been. A power cut may have undone it, or it is of a
		// version that did not do it.
		if v.left, err = v.b.spool.Seal(ctx, v.task.work, v.sent(), v.copies(), true); err != nil {
			return v.diskFault(err)
		}
	}
	v.dir, err = drop.Open(parent, v.task.work)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := v.b.spool.Intact(); err != nil { // only now
			return v.diskFault(err)
		}
		// Perhaps it was being wrapped when the disk failed.
		if back, err := v.b.spool.Rewrap(v.task.id); err != nil {
			return v.diskFault(err)
		} else if back != "" {
			return end{again: v.come(time.Now())}
		}
		return v.gone()
	case err != nil && drop.Own(err):
		return v.notReadable(err)
	case err != nil:
		return v.diskFault(err)
	}
	defer v.dir.Close()
	return entries[v.state()](v, ctx)
}

// sent returns the names of the files that were, or are to be sent.
func (v *visit) sent() []string {
	names := []string{meta.Name}
	if v.life != nil {
		for _, img := range v.life.Result.Request.Images {
			names = append(names, img.File)
		}
	}
	return names
}

// gone ends a life whose folder somebody took out of work.
func (v *visit) gone() end {
	if v.life = cmp.Or(v.life, v.task.unsaved); v.task.unsaved != nil {
		if err := v.b.journal.Put(v.life); err != nil {
			return v.unrecorded(err)
		}
	}
	if v.life == nil || v.life.State == journal.Filed || v.life.State == journal.Away {
		return end{}
	}
	if err := v.b.spool.Intact(); err != nil {
		return v.diskFault(err)
	}
	if err := v.b.tokens.Drop(v.task.id); err != nil {
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
	return v.later(fmt.Sprintf("it can't be opened: %v", v.brief(err)), err)
}

// diskRetry is how long a folder waits that met a fault of the disk. Should the
// fault be its own, it is not to hold the others up all the time.
const diskRetry = 30 * time.Second

// diskFault ends a visit because of the disk, or of the journal on it: nothing
// is lost, and it is tried again.
func (v *visit) diskFault(err error) end {
	e := end{fault: v.faultOfDisk(err)}
	if v.task.work != "" || v.stays {
		e.again = v.come(time.Now().Add(cmp.Or(v.set.DiskRetry, diskRetry)))
		e.again.disk, e.again.asks = true, false
	}
	return e
}

// brief is an error as it may stand in a log.
func (v *visit) brief(err error) error {
	return v.paths.Brief(err)
}

// failed ends a visit because of an error at the files of its folder. What an
// uploader can make, directories in the place of files, modes, links, holds up
// that folder alone.
func (v *visit) failed(err error) end {
	if drop.Own(err) {
		return v.later(fmt.Sprintf("it can't be worked on: %v", v.brief(err)), err)
	}
	return v.diskFault(err)
}

// stuck ends a visit because the folder could not be moved to a place. Whether
// that is the folder's own fault is asked of the place.
func (v *visit) stuck(to spool.Place, err error) end {
	if drop.Own(err) && v.b.spool.Takes(to) == nil || v.b.spool.Alone(to) {
		return v.later(fmt.Sprintf("it can't be moved to %s: %v", to, v.brief(err)), err)
	}
	return v.diskFault(err)
}

// come is the task of a further visit.
func (v *visit) come(due time.Time) *task {
	t := &task{id: v.task.id, work: v.task.work, due: due, unsaved: v.task.unsaved, asks: true}
	if v.life != nil && v.life.Result != nil {
		last := v.life.Result.LastTry()
		t.doubted, t.failed = last != nil && doubtful(last), last != nil && charged(last)
	}
	return t
}

// stuckRetry is the longest that a folder waits which can't go on by its own
// fault: it is tried ever more seldom.
const stuckRetry = 5 * time.Minute

// later ends a visit of a folder that can't go on now, by its own fault.
func (v *visit) later(why string, err error) end {
	wait := cmp.Or(v.set.DiskRetry, diskRetry)
	for range v.task.stuck {
		wait = max(wait, min(2*wait, stuckRetry))
	}
	e := end{again: v.come(time.Now().Add(wait)), fault: fault{owner: folder, reason: why}}
	e.stuck = v.at(spool.Work, why, err)
	e.again.asks, e.again.stuck = false, min(v.task.stuck+1, 32)
	return e
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
		return end{fault: fault{owner: folder, reason: why}}
	}
	to := v.inbox()
	if v.paths[to] == "" {
		return v.later(fmt.Sprintf("it can't go back to the inbox that it came from (%s; %s): %v", to.InboxName(), why, spool.ErrNotConfigured), spool.ErrNotConfigured)
	}
	if v.nameTaken() {
		return v.later(fmt.Sprintf("it can't go back to the inbox (%s): %v", why, errNameTaken), errNameTaken)
	}
	if v.life != nil { // before it is in the inbox, where it may be claimed at once
		u := v.life.Result.Uploader
		if err := v.paths.Unseal(spool.Work, v.task.work, to, u.UID, u.GID); err != nil && !drop.Own(err) {
			return v.diskFault(err)
		}
	}
	name, err := v.back()
	if name != "" {
		v.b.emit(events.Released{Inbox: to.InboxName(), Folder: name, ID: v.task.id, Why: why})
		v.task.work = ""
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = v.missing(err)
	}
	if err == nil && v.task.id != "" {
		err = v.b.journal.Unclaim(v.task.id)
	}
	if err != nil && v.task.work != "" {
		return v.stuck(to, err)
	}
	if err != nil {
		return v.diskFault(err)
	}
	return end{wrote: true}
}

// inbox is where the folder came from.
func (v *visit) inbox() spool.Place {
	if v.life == nil {
		return spool.Inbox
	}
	return spool.InboxNamed(v.life.Result.Inbox)
}

// giveBackFor gives a folder back that met a fault of the disk. Where that
// fails too it is still in work, and that is told as well.
func (v *visit) giveBackFor(why string, err error) end {
	back := v.giveBack(why).fault
	e := v.diskFault(err)
	if !v.stays && back.owner != nobody && back.reason != e.fault.reason {
		e.fault.reason += "; and it could not be given back: " + back.reason
	}
	return e
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

// examine makes an arrival the daemon's own, looks at it again, and goes on
// with it if it is as the watcher saw it. What was changed all the time until
// it was too old is never sent, and needs not be as it was.
func (v *visit) examine(ctx context.Context) end {
	a := v.task.arrival
	restless := a != nil && a.Changing != ""
	var err error
	switch v.defaults, err = v.begins(ctx); {
	case err != nil && drop.Own(err):
		return v.giveBack(v.brief(err).Error())
	case err != nil:
		return v.giveBackFor("it could not be read", err)
	}
	if !v.stays {
		if e, over := v.seal(ctx); over {
			return e
		}
	}
	why, err := v.inspect()
	for _, r := range v.foreign {
		if !slices.Contains(v.rep.Invalid, r) {
			v.rep.Invalid = append(v.rep.Invalid, r)
		}
	}
	switch {
	case err != nil && !drop.Own(err):
		return v.giveBackFor("it could not be read", err)
	case err != nil:
		return v.giveBack(v.brief(err).Error())
	case restless:
		v.rep.Waits = append(v.rep.Waits, meta.StillChanging(a.Changing))
	case why != "":
		return v.giveBack(why)
	case a != nil && !a.Expired && len(v.rep.Invalid) == 0 && len(v.rep.Waits) > 0:
		return v.giveBack("it is not complete: " + v.rep.Waits[0].Code)
	}
	switch err := v.keep(); {
	case err == nil, restless && errors.Is(err, drop.ErrBusy):
	case drop.Own(err): // somebody's lease, as a rule
		return v.giveBack("one of its files can't be opened: " + v.brief(err).Error())
	default:
		return v.giveBackFor("what was uploaded could not be brought to the disk", err)
	}
	v.life.Result = v.newResult(a)
	return v.begin(ctx)
}

// seal takes the folder out of its uploader's hands, if it is as the watcher
// saw it. over tells that it is not to be gone on with.
func (v *visit) seal(ctx context.Context) (e end, over bool) {
	var err error
	if v.list, err = meta.List(v.dir, v.set.Limits); err != nil {
		if !drop.Own(err) {
			return v.giveBackFor("it could not be read", err), true
		}
		return v.giveBack(v.brief(err).Error()), true
	}
	a := v.task.arrival
	restless := a != nil && a.Changing != ""
	switch {
	case restless:
	case a != nil && v.list.Content != a.Content:
		return v.giveBack("it changed before the claim"), true
	case drop.Busy(v.dir, v.list) != "":
		return v.giveBack("somebody has one of its files open for writing"), true
	}
	if err := v.owner(ctx); err != nil {
		return v.diskFault(err), true
	}
	first, foreign := meta.Sent(v.dir, v.list, v.limits())
	v.foreign, v.planted = foreign, meta.Foreign(v.list)
	copies, all := v.copies(), restless || v.list.More || v.list.Deep != ""
	copies.Open = func(path string) bool { // what Busy does not send back
		return all || slices.ContainsFunc(v.list.Records, func(e drop.Entry) bool { return e.Name == path })
	}
	v.left, err = v.b.spool.Seal(ctx, v.task.work, first, copies, false)
	if err != nil && ctx.Err() != nil {
		return v.giveBack("the daemon stops"), true
	}
	if err == nil {
		seen := v.list
		v.list, err = meta.List(v.dir, v.set.Limits)
		if err == nil && !restless && !drop.SameFiles(seen, v.list) {
			return v.giveBack("it changed before the claim"), true
		}
	}
	if err == nil { // what stands there can't come back, and is listed as any other name
		var moved bool
		moved, err = record.MakeRoom(v.dir)
		v.listed = err == nil && !moved
	}
	if err != nil && !drop.Own(err) {
		return v.giveBackFor("it could not be made the daemon's own", err), true
	}
	return end{}, false // the folder's own is met again, by the look at it or by the result
}

// copies are as many as the files of a folder that may be sent.
func (v *visit) copies() spool.Copies {
	return spool.Copies{Bytes: v.set.Limits.Request, Files: v.set.Limits.Files}
}

// owner has the journal know whose folder it is, where the claim's look at it
// was outrun. What is the daemon's own was sealed before, and came back by mv:
// its uploader is that of the life before.
func (v *visit) owner(ctx context.Context) error {
	u := v.life.Result.Uploader
	if dir := v.list.Dir; u.UID != dir.UID || u.GID != dir.GID {
		u = uploader(dir.UID, dir.GID)
	}
	if int(u.UID) == os.Geteuid() {
		if id, err := sidecar.ID(v.dir, sidecar.Name); err == nil && id != "" {
			before, err := v.b.journal.Load(ctx, id)
			if err != nil {
				return err
			}
			if before != nil {
				u = before.Result.Uploader
			}
		}
	}
	if u == v.life.Result.Uploader {
		return nil
	}
	v.life.Result.Uploader = u
	return v.b.journal.Put(v.life)
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
	if !v.listed {
		if v.list, err = meta.List(v.dir, v.set.Limits); err != nil {
			return "", err
		}
	}
	v.listed = false
	if drop.Busy(v.dir, v.list) != "" {
		why = "somebody has one of its files open for writing"
	}
	v.rep = meta.Inspect(v.dir, v.name, v.list, v.limits(), false)
	return why, nil
}

// leased reports whether a file of the folder that was busy is under somebody's
// lease, which opening it has asked back by now, or is busy no longer. A lease
// may end between two looks; a file that is open for writing stays so.
func (v *visit) leased() bool {
	for range 3 {
		name := drop.Busy(v.dir, v.list)
		if name == "" {
			return true
		}
		e, _ := v.list.Find(name)
		f, err := drop.OpenFile(v.dir, e)
		if errors.Is(err, drop.ErrBusy) {
			return true
		}
		if err == nil {
			_ = f.Close() // it was read only
		}
	}
	return false
}

func (v *visit) newResult(a *drop.Arrival) *sidecar.Result {
	res := &sidecar.Result{
		ID: v.task.id, Folder: meta.Show(v.name), Inbox: v.life.Result.Inbox, Outcome: sidecar.Pending,
		ExtraFiles: slices.Concat(v.planted, v.rep.Extra), MoreFiles: v.rep.More,
		Uploader: v.life.Result.Uploader,
		Daemon:   v.set.Daemon,
		Times:    sidecar.Times{Claimed: v.life.Result.Times.Claimed},
	}
	if v.stays {
		res.Uploader = uploader(v.list.Dir.UID, v.list.Dir.GID)
	}
	if a != nil {
		res.Times.FirstSeen = sidecar.Time{Time: a.FirstSeen}
		if !a.Expired {
			res.Times.Complete = sidecar.Time{Time: a.Complete}
		}
	}
	v.notSealed(res)
	v.describe(res)
	return res
}

// notSealed notes what somebody else may still change in the folder.
func (v *visit) notSealed(res *sidecar.Result) {
	for _, name := range v.left.Names {
		res.Unsealed = append(res.Unsealed, meta.Show(name))
	}
	res.MoreUnsealed = v.left.More
}

// describe fills in what was asked for, as far as it is known.
func (v *visit) describe(res *sidecar.Result) {
	m := v.rep.Meta
	res.Request.MetaSHA256, res.Defaults = v.rep.SHA256, v.rep.Filled
	if sum := m.TokenSHA256(); sum != "" {
		v.life.Token = sum
		res.Request.TokenSHA256, res.Request.TokenHint = sum, sidecar.TokenHint(m.AuthToken)
	}
	if m == nil || len(v.rep.Invalid) > 0 {
		return
	}
	v.life.ClientID = m.ClientID
	if v.life.ScanRef = m.ScanRef; m.ScanRef != "" {
		res.Session = &sidecar.Session{ScanRef: m.ScanRef, By: sidecar.ByProducer}
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

func uploader(uid, gid uint32) sidecar.Uploader {
	u := sidecar.Uploader{UID: uid, GID: gid}
	if known, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		u.User = known.Username
	}
	if known, err := user.LookupGroupId(strconv.FormatUint(uint64(gid), 10)); err == nil {
		u.Group = known.Name
	}
	return u
}

// evidence notes what lies in a folder that ends without having been sent: the
// hashes of meta.yaml and of its images, as far as they can be read, and are
// not larger than what could have been sent.
func (v *visit) evidence() {
	room := v.set.Limits.Request
	sum := func(e drop.Entry) string {
		if room -= e.Size; !e.Regular() || room < 0 {
			return ""
		}
		f, err := drop.OpenFile(v.dir, e)
		if err != nil {
			return "" // it is told why, where that matters
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, io.LimitReader(f, e.Size)); err != nil || drop.Unchanged(f, e) != nil {
			return ""
		}
		return hex.EncodeToString(h.Sum(nil))
	}
	req := &v.life.Result.Request
	if e, ok := v.list.Find(meta.Name); ok && req.MetaSHA256 == "" {
		req.MetaSHA256 = sum(e)
	}
	if len(req.Images) > 0 && req.Images[0].SHA256 != "" {
		return // as they were sent
	}
	req.Images = nil
	for _, img := range v.images() {
		req.Images = append(req.Images, sidecar.Image{
			Step: img.Step, File: meta.Show(img.File.Name), Bytes: img.File.Size, SHA256: sum(img.File),
			Format: string(img.Format), Width: img.Width, Height: img.Height,
		})
	}
}

// images returns the images that are there; without a meta.yaml that names
// them, by their names.
func (v *visit) images() []meta.Image {
	if len(v.rep.Images) > 0 || v.rep.Meta != nil {
		return v.rep.Images
	}
	var list []meta.Image
	for _, step := range []string{"FRONT", "BACK", "FACE"} {
		for _, e := range v.list.Entries {
			if stem, _, dot := strings.Cut(e.Name, "."); dot && strings.EqualFold(stem, step) && e.Regular() {
				list = append(list, meta.Image{Step: step, File: e})
			}
		}
	}
	return list
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
		v.notSealed(v.life.Result)
		if m, err := meta.Read(v.dir, meta.Defaults{}); err == nil {
			v.life.Token, v.life.ClientID = m.TokenSHA256(), m.ClientID
			v.life.Result.Request.TokenSHA256, v.life.Result.Request.TokenHint = v.life.Token, sidecar.TokenHint(m.AuthToken)
		}
		if l, err := meta.List(v.dir, v.set.Limits); err == nil {
			v.list = l
			v.evidence()
		}
		if err := v.b.journal.Adopt([]journal.Adopted{{Lives: []*journal.Life{v.life}}}); err != nil {
			return v.diskFault(err)
		}
	}
	v.life.State = journal.Pending
	v.because("not_understood", "it lies in work with the id of a submission that the journal can't account for, so it may have been accepted; look the session up in the iDenfy dashboard, then decide with idenfy-batch resolve")
	return v.decide(ctx, sidecar.Unknown)
}
