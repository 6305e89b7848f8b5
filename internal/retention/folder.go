package retention

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/record"
	"idenfy-batch/sidecar"
)

// Bounds of one record; what is more goes by another one.
const (
	mostFiles   = 500
	mostRecords = 1000
)

// folder is one that is being purged.
type folder struct {
	*pass
	dir *os.Root
	at  at
	id  string
}

// purge deletes what a rule says, or counts it.
func (f *folder) purge(ctx context.Context, rule sidecar.Rule) error {
	held, err := f.held()
	if err != nil || held {
		return err
	}
	if !f.ask.Yes {
		return f.count(ctx, rule)
	}
	if f.ask.Remote && rule != sidecar.OfVerdicts { // not with the folder's lock held
		if err := f.Turn(ctx); err != nil {
			return err
		}
	}
	unlock, err := f.lock(f.dir, f.at, f.id)
	if err != nil {
		return err
	}
	defer unlock()
	if held, err := f.held(); err != nil || held {
		return err
	}
	sum := Sum{Rule: rule, Place: f.at.place}
	for n := range mostRecords {
		p, more, err := f.record(ctx, rule, n == 0)
		if err != nil {
			return err
		}
		if p == nil {
			break
		}
		files := 0
		for _, d := range p.Files {
			if !strings.HasSuffix(d.File, "/") {
				files++
			}
		}
		if len(p.Files) > 0 { // else iDenfy alone was asked
			sum.Folders, sum.Files, sum.Bytes = 1, sum.Files+files, sum.Bytes+p.Bytes()
		}
		if !more {
			break
		}
	}
	if sum.Folders > 0 {
		f.report.count(sum)
		f.Emit(events.Purged{Folder: f.at.name, ID: f.id, Place: f.at.place, Rule: rule, Files: sum.Files, Bytes: sum.Bytes, Person: f.ask.By != nil})
	}
	return nil
}

// held reports whether there is a legal hold, whatever it is that has its name.
func (f *folder) held() (bool, error) {
	_, err := f.dir.Lstat(Hold)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	why := "it has a " + Hold
	if r, err := sidecar.Read(f.dir); err == nil && slices.Contains(r.ExtraFiles, Hold) {
		why += ", which came with the upload"
	}
	told := Told{f.at.String(), why}
	if !slices.Contains(f.report.Held, told) {
		f.report.tell(&f.report.Held, told)
	}
	return true, nil
}

// count says what would go.
func (f *folder) count(ctx context.Context, rule sidecar.Rule) error {
	list, more, err := f.entries(ctx, rule, 1<<20)
	if err != nil {
		return err
	}
	sum := Sum{Rule: rule, Place: f.at.place}
	for _, e := range list {
		sum.Folders = 1
		if e.Regular() {
			sum.Bytes += e.Size
		}
		if !e.Mode.IsDir() {
			sum.Files++
		}
	}
	if more {
		return because("it has more files than can be counted")
	}
	if err := f.obstacles(list); err != nil {
		return err
	}
	if f.ask.Remote && rule != sidecar.OfVerdicts {
		l, err := f.Journal.Load(ctx, f.id)
		if err != nil {
			return &stopError{err}
		}
		if l == nil {
			return errForgotten
		}
		ref, why, err := f.session(ctx, l)
		if err != nil {
			return err
		}
		if ref != "" {
			f.report.Sessions++
		} else {
			f.unasked(why)
		}
	}
	if sum.Folders > 0 {
		f.report.count(sum)
	}
	return nil
}

// entries returns what goes by a rule: files first, and directories after what is
// in them.
func (f *folder) entries(ctx context.Context, rule sidecar.Rule, most int) (list []drop.Entry, more bool, err error) {
	l, err := drop.List(f.dir, most, func(e drop.Entry) bool { return sidecar.IsOwn(e.Name) })
	if err != nil {
		return nil, false, err
	}
	bodies := f.bodies()
	for _, e := range slices.Concat(l.Records, l.Entries) {
		goes, err := f.goes(ctx, rule, e, bodies)
		if err != nil {
			return nil, false, err
		}
		if goes {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b drop.Entry) int { return strings.Compare(b.Name, a.Name) })
	return list, l.More, nil
}

// bodies are the files that have what iDenfy had sent.
func (f *folder) bodies() (names []string) {
	v, _, err := sidecar.ReadVerdict(f.dir)
	if err != nil {
		return nil
	}
	for i := range v.Events {
		if name := v.Events[i].Body; name != "" {
			names = append(names, name)
		}
	}
	return names
}

// goes tells whether an entry of the folder goes by a rule. Results and verdicts
// of submissions that the journal knows stay, and nothing else does.
func (f *folder) goes(ctx context.Context, rule sidecar.Rule, e drop.Entry, bodies []string) (bool, error) {
	if slices.Contains(bodies, e.Name) {
		return rule == sidecar.OfVerdicts || rule == sidecar.OfList, nil
	}
	if rule == sidecar.OfVerdicts || stays(e.Name) && e.Regular() {
		return false, nil
	}
	if !sidecar.IsOwn(e.Name) || durable.IsTemp(e.Name) || !e.Regular() { // IsOwn is true of names in the folder itself only
		return true, nil
	}
	id, err := sidecar.ID(f.dir, e.Name)
	if err != nil || id == "" {
		return true, err
	}
	_, known, err := f.Journal.Kept(ctx, id)
	if err != nil {
		return false, &stopError{err}
	}
	return !known, nil
}

// stays reports whether a name is one that is never deleted.
func stays(name string) bool {
	return name == sidecar.Name || name == sidecar.VerdictName || name == Hold
}

// obstacles looks for what would keep entries from being removed.
func (f *folder) obstacles(list []drop.Entry) error {
	return each(f.dir, list, func(e drop.Entry) string { return e.Name }, func(in *os.Root, base string, e drop.Entry) error {
		if err := drop.Removable(in, base); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &obstacle{e.Name, err}
		}
		return nil
	})
}

// each calls do for each of list with the directory that it lies in, which is
// opened without following a link.
func each[E any](dir *os.Root, list []E, name func(E) string, do func(in *os.Root, base string, e E) error) error {
	in, open := dir, "."
	defer func() {
		if in != dir {
			_ = in.Close() // it was read only
		}
	}()
	for _, e := range list {
		parent, base := path.Dir(name(e)), path.Base(name(e))
		if parent != open {
			next, err := below(dir, parent)
			if errors.Is(err, fs.ErrNotExist) {
				continue // gone, with all that was in it
			}
			if err != nil {
				return &obstacle{parent, err}
			}
			if in != dir {
				_ = in.Close() // likewise
			}
			in, open = next, parent
		}
		if err := do(in, base, e); err != nil {
			return err
		}
	}
	return nil
}

// below opens a directory in the tree of dir; dir itself for ".".
func below(dir *os.Root, name string) (*os.Root, error) {
	in := dir
	for part := range strings.SplitSeq(name, "/") {
		if part == "." {
			continue
		}
		next, err := drop.Open(in, part)
		if in != dir {
			_ = in.Close() // likewise
		}
		if err != nil {
			return nil, err
		}
		in = next
	}
	return in, nil
}

// record records and makes one purge; more tells that something is left for
// another one. It is nil when there is nothing to delete.
func (f *folder) record(ctx context.Context, rule sidecar.Rule, first bool) (p *sidecar.Purge, more bool, err error) {
	list, more, err := f.entries(ctx, rule, mostFiles)
	if err != nil {
		return nil, false, err
	}
	if err := f.obstacles(list); err != nil {
		return nil, false, err
	}
	l, err := f.Journal.Load(ctx, f.id)
	if err != nil {
		return nil, false, &stopError{err}
	}
	if l == nil {
		return nil, false, errForgotten
	}
	made := sidecar.Purge{At: f.next(l.Result), Rule: rule, By: f.ask.By}
	if f.ask.Remote && rule != sidecar.OfVerdicts && first {
		ref, why, err := f.session(ctx, l)
		if err != nil {
			return nil, false, err
		}
		if ref == "" {
			f.unasked(why)
		} else {
			made.Remote = &sidecar.Deletion{ScanRef: ref, Started: sidecar.Now(), State: sidecar.Sending}
			f.report.Sessions++
		}
	}
	if len(list) == 0 && made.Remote == nil {
		return nil, false, nil
	}
	if made.Files, err = f.deleted(list); err != nil {
		return nil, false, err
	}
	l.Result.Purges = append(l.Result.Purges, made)
	err = f.Journal.Purge(l)
	switch {
	case errors.Is(err, journal.ErrChanged):
		return nil, false, because("more became known of it just now; try again")
	case errors.Is(err, journal.ErrPurging): // it is told already why
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	err = f.carryOut(ctx, l, false)
	return &made, more, err
}

// errForgotten says that a folder's life was in the journal just now.
var errForgotten = because("the journal doesn't know it any more; try again")

// next is the time of a purge: no two of a folder have the same.
func (f *folder) next(r *sidecar.Result) sidecar.Time {
	now := time.Now().Round(0).Truncate(time.Millisecond)
	if n := len(r.Purges); n > 0 && !now.After(r.Purges[n-1].At.Time) {
		now = r.Purges[n-1].At.Add(time.Millisecond)
	}
	return sidecar.Time{Time: now}
}

// deleted says what is about to be.
func (f *folder) deleted(list []drop.Entry) (files []sidecar.Deleted, err error) {
	for _, e := range list {
		d := sidecar.Deleted{File: meta.Show(e.Name)}
		switch {
		case e.Mode.IsDir():
			d.File += "/"
		case e.Regular():
			d.Bytes, d.Linked = e.Size, e.Links > 1
			d.SHA256, err = drop.Sum(f.dir, e)
			if errors.Is(err, drop.ErrBusy) || errors.Is(err, drop.ErrChanged) {
				return nil, &obstacle{e.Name, err}
			}
			// What can't be read can be removed all the same.
		}
		files = append(files, d)
	}
	return files, nil
}

// carryOut makes what is on record: result.json, the deletions, and with the
// last purge what iDenfy is asked for. again tells that it was cut off before, so
// that nobody knows whether iDenfy was.
func (f *folder) carryOut(ctx context.Context, l *journal.Life, again bool) error {
	if err := record.Write(f.dir, l); err != nil {
		return err
	}
	for i := range l.Result.Purges {
		if again || i == len(l.Result.Purges)-1 {
			if err := f.remove(l.Result.Purges[i].Files); err != nil {
				return err
			}
		}
	}
	if err := durable.Sync(f.dir); err != nil {
		return err
	}
	var stop error
	if d := l.Result.Purges[len(l.Result.Purges)-1].Remote; d != nil && d.State == sidecar.Sending {
		if again {
			d.State, d.Finished, d.Message = sidecar.NoAnswer, sidecar.Now(), "the daemon, or the command, ended before an answer was recorded"
		} else {
			stop = f.erase(ctx, d)
		}
		if err := f.Journal.PurgeAnswered(l); err != nil {
			return err
		}
		if err := record.Write(f.dir, l); err != nil {
			return err
		}
	}
	if err := f.Journal.Purged(l.ID); err != nil {
		return err
	}
	return stop
}

// remove removes files and directories that are on record. What is not there any
// more is no error, nor a directory that has something in it by now.
func (f *folder) remove(files []sidecar.Deleted) error {
	names := make([]string, 0, len(files))
	for i := range files {
		name := files[i].File
		whole := strings.TrimSuffix(name, "/")
		if strings.HasPrefix(whole, `"`) { // see meta.Show
			raw, err := strconv.Unquote(whole)
			if err != nil {
				continue
			}
			whole = raw
		}
		if whole == "" || stays(whole) {
			continue
		}
		names = append(names, whole)
	}
	return each(f.dir, names, func(n string) string { return n }, func(in *os.Root, base string, name string) error {
		var err error
		if info, lstat := in.Lstat(base); lstat == nil && info.IsDir() && strings.Count(name, "/")+1 >= drop.MaxDepth {
			err = durable.UnlinkTree(in, base) // nobody has looked into it
		} else if errors.Is(lstat, fs.ErrNotExist) {
			return nil
		} else {
			err = durable.Unlink(in, base)
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTEMPTY) {
			return nil
		}
		if err != nil {
			return &obstacle{name, err}
		}
		return nil
	})
}

// session returns the reference of the session that iDenfy may be asked to
// delete; or why there is none.
func (f *folder) session(ctx context.Context, l *journal.Life) (ref, why string, err error) {
	for i := range l.Result.Purges {
		if d := l.Result.Purges[i].Remote; d != nil && d.Done() {
			return "", "", nil
		}
	}
	switch {
	case l.ScanRef == "":
		return "", "its scanRef isn't known", nil
	case l.Fate != journal.Taken && l.Fate != journal.Unsettled:
		return "", "nothing of it was taken by iDenfy", nil
	}
	other, err := f.Journal.Rival(ctx, l.ScanRef, l.ID, l.Token)
	if err != nil {
		return "", "", &stopError{err}
	}
	if other != nil {
		return "", "its scanRef is also another folder's, " + meta.Show(other.Where()), nil
	}
	return l.ScanRef, "", nil
}

func (f *folder) unasked(why string) {
	if why != "" {
		f.report.tell(&f.report.Told, Told{f.at.String(), "iDenfy is not asked to delete its session: " + why})
	}
}

// erase asks iDenfy to delete a session, and notes the answer. The error is one
// that any other session would meet.
func (f *folder) erase(ctx context.Context, d *sidecar.Deletion) error {
	err := f.Delete(ctx, d.ScanRef)
	d.Finished = sidecar.Now()
	told := events.DeletionAsked{Folder: f.at.name, ID: f.id}
	e, ok := errors.AsType[*idenfy.Error](err)
	switch {
	case err == nil:
		d.State, d.HTTPStatus = sidecar.Answered, 200
		f.report.Erased++
		f.Emit(told)
		return nil
	case !ok:
		d.State, d.Message = sidecar.NotSent, err.Error()
	default:
		d.State, d.HTTPStatus, d.Identifier, d.Message = sidecar.Answered, e.Status, e.Identifier, e.Message
		switch e.Class {
		case idenfy.NotSent:
			d.State = sidecar.NotSent
		case idenfy.NoAnswer, idenfy.ServerError:
			d.State = sidecar.NoAnswer
		}
		told.HTTPStatus, told.Identifier = e.Status, e.Identifier
	}
	told.Fault = "failed"
	if ok {
		told.Fault = e.Class.String()
	}
	f.Emit(told)
	f.report.tell(&f.report.Told, Told{f.at.String(), fmt.Sprintf("iDenfy did not delete its session (%v); the same again with --remote asks once more", err)})
	if !ok || e.Class == idenfy.NotSent || e.Class == idenfy.ServiceFault {
		return &stopError{fmt.Errorf("iDenfy can't be asked to delete sessions (%w), so what is left was left as it is; repeat the command", err)}
	}
	return nil
}
