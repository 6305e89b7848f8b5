// Package decision owns what a person may decide about a folder that has
// ended: that it goes to its inbox again, or how a held one ended. It refuses
// what might be a second submission, and records in the journal, and in
// result.json, who decided what and when.
package decision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/record"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Decision is what is decided, and by whom.
type Decision struct {
	Action sidecar.Action
	By     sidecar.Person
	Force  bool // though it might be a second submission
	// Inbox is the name of the one that the folder is to go to; empty: the one
	// that it came from.
	Inbox   string
	Comment string
}

// Desk is where decisions are made: in the daemon, or, while none runs, in the
// command itself, which then holds the spool's lock.
type Desk struct {
	Paths   spool.Paths
	Journal *journal.Journal
	// InWork tells whether the folder of a life is in work, or worked on though
	// somebody moved it.
	InWork func(id string) (bool, error)
	// Status asks once for the state of a session. Nil: nobody can be asked.
	Status func(ctx context.Context, scanRef string) (idenfy.Taken, string, error)
	// Give has done what takes the rights to give files away. Nil: this process
	// has those that it has.
	Give func(do func() error) error
}

func (d *Desk) give(do func() error) error {
	if d.Give == nil {
		return do()
	}
	return d.Give(do)
}

// RefusedError says why a decision is refused, and what to do.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

func refuse(format string, args ...any) error { return &RefusedError{fmt.Sprintf(format, args...)} }

// Make makes a decision about the folder name, which may begin with its place
// and a slash. It returns where the folder lies then. The record is in the
// journal and on the disk before the folder moves: after a crash in between,
// Make it again.
func (d *Desk) Make(ctx context.Context, name string, dec Decision) (place spool.Place, newName string, err error) {
	from, found, err := d.find(name, dec.Action)
	if _, none := errors.AsType[*RefusedError](err); none {
		var o *journal.Other
		if o, from, found, err = d.away(ctx, name, dec, err); o != nil {
			return "", "", d.decideAway(ctx, o, dec)
		}
	}
	if err != nil {
		return "", "", err
	}
	name = found
	dir, err := d.Paths.OpenFolder(from, name)
	if err != nil {
		return "", "", err
	}
	defer dir.Close()
	unlock, err := spool.LockFolder(dir)
	if errors.Is(err, spool.ErrLocked) {
		return "", "", refuse("somebody has it locked: another idenfy-batch that is at work on it, or who uploaded it (lsof and fuser say who). Try again when it is free")
	}
	if err != nil {
		return "", "", err
	}
	defer unlock()
	c := &matter{desk: d, dir: dir, from: from, name: name, dec: dec}
	if err := c.read(ctx); err != nil {
		return "", "", err
	}
	if p := c.life.Result.Emptied(); p != nil && (dec.Action == sidecar.Requeued || dec.Action == sidecar.Resubmit) {
		return "", "", refuse("its images and meta.yaml were deleted on %s (idenfy-batch show): there is nothing left to send. Have it uploaded anew", p.At.Local().Format(time.DateOnly))
	}
	inbox, err := c.inbox()
	if err != nil {
		return "", "", err
	}
	if !c.life.Result.Decided(dec.Action) { // else a crash came before the move
		if err := c.allowed(ctx); err != nil {
			return "", "", err
		}
	}
	to, err := c.enter(inbox)
	if err != nil {
		return "", "", err
	}
	if to == from {
		return from, name, nil
	}
	if to == inbox { // who sent it may have to mend it
		u := c.life.Result.Uploader
		if err := d.give(func() error { return d.Paths.Unseal(from, name, inbox, u.UID, u.GID) }); err != nil {
			return "", "", err
		}
	}
	newName, err = d.Paths.Revise(from, name, to)
	if newName == "" && to == inbox { // it is evidence as before
		err = errors.Join(err, d.give(func() error { return d.Paths.Reseal(from, name) }))
	}
	if newName != "" && to.Final() {
		d.Journal.Filed(c.life.ID, string(to), newName)
	}
	return to, newName, err
}

// matter is what is decided about.
type matter struct {
	desk *Desk
	dir  *os.Root
	from spool.Place
	name string
	dec  Decision

	life    *journal.Life
	history journal.History
	meta    *meta.Meta // nil: it can't be read
}

// read finds out what the journal knows.
func (c *matter) read(ctx context.Context) error {
	id, err := sidecar.ID(c.dir, sidecar.Name)
	if err != nil {
		return err
	}
	if id != "" {
		if c.life, err = c.desk.Journal.Load(ctx, id); err != nil {
			return err
		}
	}
	if c.life == nil {
		return refuse("it has no %s that the journal knows, so nothing is known about it; if it was never submitted, move it to the inbox yourself (mv)", sidecar.Name)
	}
	if c.life.State != journal.Filed {
		in, err := c.desk.InWork(id)
		for n := 0; err == nil && in && c.life.State == journal.Ended && n < 200 && ctx.Err() == nil; n++ {
			time.Sleep(5 * time.Millisecond) // it was moved here just now, and that is being noted
			in, err = c.desk.InWork(id)
		}
		if err != nil {
			return err
		}
		if in {
			return refuse("submission %s is in work: what lies here is a copy, or was moved from there while it was being sent; try again when that has ended (idenfy-batch status)", id)
		}
		if c.life.State == journal.Pending { // somebody took it from there
			if err := c.desk.Journal.Gone(id); err != nil {
				return err
			}
			if c.life, err = c.desk.Journal.Load(ctx, id); err != nil {
				return err
			}
		}
	}
	if p := spool.Place(c.life.Place); (p != c.from || c.life.Name != c.name) && record.LiesAt(c.desk.Paths, p, c.life.Name, id) {
		return refuse("it is a copy of %s/%s; decide that one", p, meta.Show(c.life.Name))
	}
	named, err := sidecar.IDs(c.dir)
	if err != nil {
		return err
	}
	if c.history, err = c.desk.Journal.History(ctx, id, named...); err != nil {
		return err
	}
	c.meta, _ = meta.Read(c.dir, meta.DefaultsOf(c.life.Result, c.life.ClientID)) // what can't be read is not asked about
	return nil
}

// standsFor returns the earlier lives that may have been taken and that are
// decided with this folder: not those for which another one lies in hold.
func (c *matter) standsFor() (ids []string) {
	for _, o := range c.history.Open {
		if !record.LiesAt(c.desk.Paths, spool.Place(o.Place), o.Name, o.ID) {
			ids = append(ids, o.ID)
		}
	}
	return ids
}

// inbox returns the inbox that the folder goes to if it is to be sent again.
func (c *matter) inbox() (spool.Place, error) {
	if c.dec.Action != sidecar.Requeued && c.dec.Action != sidecar.Resubmit {
		if c.dec.Inbox != "" {
			return "", refuse("it does not go to an inbox; leave --inbox out")
		}
		return spool.Inbox, nil // which it doesn't go to
	}
	name := cmp.Or(c.dec.Inbox, c.life.Result.Inbox)
	p := spool.InboxNamed(name)
	if c.desk.Paths[p] != "" {
		return p, nil
	}
	var names []string
	for _, p := range c.desk.Paths.Inboxes() {
		names = append(names, p.InboxName())
	}
	if c.dec.Inbox != "" {
		return "", refuse("there is no inbox %s in the configuration; there is %s", meta.Show(name), strings.Join(names, ", "))
	}
	return "", refuse("it came from the inbox %s, which is not in the configuration any more. Say where it is to go: --inbox with one of %s", meta.Show(p.InboxName()), strings.Join(names, ", "))
}

// enter records the decision, and returns where the folder is to go.
func (c *matter) enter(inbox spool.Place) (spool.Place, error) {
	to, l := inbox, c.life
	was, wasFate := l.Result.Outcome, l.Fate
	var fate journal.Fate
	switch c.dec.Action {
	case sidecar.Confirmed:
		to, l.Result.Outcome, fate = spool.Done, sidecar.Accepted, journal.Taken
	case sidecar.Denied:
		to, l.Result.Outcome, fate = spool.Failed, sidecar.Rejected, journal.Refused
	}
	if !l.Result.Decided(c.dec.Action) {
		made := sidecar.Decision{
			At: sidecar.Now(), Action: c.dec.Action, By: c.dec.By, Forced: c.dec.Force,
			Comment: c.dec.Comment, Result: l.ID, Outcome: was,
		}
		l.Result.Decisions = append(l.Result.Decisions, made)
		l.Result.Decisions = l.Result.Decisions[max(0, len(l.Result.Decisions)-journal.MostDecisions):] // as it is read again
		if fate != "" {
			l.Fate = fate
			l.Result.Reasons = append(l.Result.Reasons, sidecar.Reason{
				Code: "decided_by_person", Source: sidecar.FromDaemon,
				Message: fmt.Sprintf("a person decided that it was %s, see decisions", c.dec.Action),
			})
		}
		l.State, l.Place, l.Name = journal.Filed, string(to), c.name
		if c.dir == nil {
			l.Place, l.Name = "", ""
		}
		if err := c.desk.Journal.Decide(l, wasFate, made, fate, c.standsFor()); err != nil {
			return "", err
		}
	} else if err := c.desk.Journal.Redecided(l, l.Result.Decisions[len(l.Result.Decisions)-1]); err != nil {
		return "", err
	}
	if c.dir == nil { // see decideAway
		return to, nil
	}
	return to, record.Write(c.dir, l)
}

// away finds a folder that was taken out of work by hand, by its name or its
// id, or one that was submitted without the daemon, by its id: where it lies with the name that it had in work; or, as o, nowhere. none
// is the error when there is no such one.
func (d *Desk) away(ctx context.Context, name string, dec Decision, none error) (o *journal.Other, from spool.Place, found string, err error) {
	list, err := d.Journal.Reader().Away(ctx)
	if err != nil {
		return nil, "", "", err
	}
	list = slices.DeleteFunc(list, func(o journal.Other) bool { return o.ID != name && o.Folder != meta.Show(name) })
	if len(list) == 0 { // or it was never in the spool
		if list, err = d.Journal.OpenOutside(ctx, name); err != nil {
			return nil, "", "", err
		}
	}
	switch {
	case len(list) == 0:
		return nil, "", "", none
	case len(list) > 1:
		return nil, "", "", refuse("%d folders of that name were taken out of work by hand; give the id of one, such as %s (idenfy-batch status has them)", len(list), list[0].ID)
	}
	o = &list[0]
	if p, as, lies := record.Find(d.Paths, o.ID, name, o.Folder); lies {
		return nil, p, as, nil
	}
	if dec.Action != sidecar.Confirmed && dec.Action != sidecar.Denied {
		return nil, "", "", refuse("it is not in the spool, so it can't be sent again; %s, or say how it ended: idenfy-batch resolve %s --accepted or --rejected",
			map[bool]string{true: "it was taken out of work by hand: move it to hold first", false: "go on with it as it was sent (idenfy-batch submit)"}[o.State == journal.Away], o.ID)
	}
	return o, "", "", nil
}

// decideAway makes a decision about a folder that is not in the spool any
// more: it is in the journal only.
func (d *Desk) decideAway(ctx context.Context, o *journal.Other, dec Decision) error {
	c := &matter{desk: d, name: o.Folder, dec: dec}
	var err error
	if c.life, err = d.Journal.Load(ctx, o.ID); err != nil {
		return err
	}
	if c.history, err = d.Journal.History(ctx, o.ID); err != nil {
		return err
	}
	if err := c.allowed(ctx); err != nil {
		return err
	}
	_, err = c.enter(spool.Inbox)
	return err
}

// find returns the folder's place and plain name.
func (d *Desk) find(name string, action sidecar.Action) (spool.Place, string, error) {
	usual, others := spool.Hold, []spool.Place{spool.Done, spool.Failed}
	if action == sidecar.Requeued {
		usual, others = spool.Failed, []spool.Place{spool.Hold, spool.Done}
	}
	search := append([]spool.Place{usual}, others...)
	if before, after, ok := strings.Cut(name, "/"); ok && spool.Place(before).Final() {
		search, name = []spool.Place{spool.Place(before)}, strings.TrimSuffix(after, "/")
	}
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/') {
		return "", "", refuse("give a folder's name, such as case-7 or %s/case-7, not a path", usual)
	}
	for _, p := range search {
		if info, err := os.Lstat(filepath.Join(d.Paths[p], name)); err == nil && info.IsDir() {
			return p, name, nil
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", "", fmt.Errorf("%s: %w; run this as root or as the daemon's user", p, err)
		}
	}
	there, err := d.Paths.List(usual)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w; run this as root or as the daemon's user", usual, err)
	}
	slices.Sort(there)
	for i := range there {
		there[i] = meta.Show(there[i])
	}
	switch n := len(there); {
	case n == 0:
		return "", "", refuse("there is no such folder, and %s is empty", usual)
	case n > 5:
		return "", "", refuse("there is no such folder; in %s there are %s and %d more", usual, strings.Join(there[:5], ", "), n-5)
	default:
		return "", "", refuse("there is no such folder; in %s there is %s", usual, strings.Join(there, ", "))
	}
}

const force = "If that is what you want, repeat it with --force, which is recorded"

// allowed refuses what makes no sense, and without force what might be a
// second submission, or contradicts what the service says.
func (c *matter) allowed(ctx context.Context) error {
	again := c.dec.Action == sidecar.Requeued || c.dec.Action == sidecar.Resubmit
	switch {
	case again && slices.ContainsFunc(c.life.Result.Reasons, func(r sidecar.Reason) bool { return r.Code == sidecar.NotWritable }):
		return refuse("it lies inside the folder of this name, since the daemon could not write into it. Mend that (chmod, chattr), then move it to the inbox yourself (mv)")
	case c.dec.Action == sidecar.Requeued:
		return c.mayRequeue()
	case c.dec.Force:
		return nil
	case c.dir != nil && c.from != spool.Hold && c.life.State != journal.Away:
		return refuse("it is in %s, and only what is in hold has to be resolved", c.from)
	}
	if id, _ := c.taken(); id != "" && c.dec.Action != sidecar.Confirmed {
		return refuse("it was accepted (%s): resolve it as --accepted. %s", id, force)
	}
	taken, word, err := c.ask(ctx)
	switch {
	case errors.Is(err, errNoReference), errors.Is(err, errNotIts):
		if c.dec.Action == sidecar.Resubmit {
			return refuse("it may have been accepted, and that can't be found out (%v). If the iDenfy dashboard shows that its token is unused, repeat this with --force, which is recorded", err)
		}
		return nil // the person's word is all there is
	case err != nil:
		return refuse("the session was not asked for (%v), and it may say otherwise. Try again, or, if you saw it in the iDenfy dashboard, repeat this with --force, which is recorded", err)
	case c.dec.Action == sidecar.Resubmit && taken == idenfy.TokenExpired && c.life.ClientID == "":
		return refuse("the session's status is %s: its token would be refused. Resolve it as --rejected, and drop the folder again with a new token", word)
	case c.dec.Action != sidecar.Confirmed && taken == idenfy.WasTaken:
		return refuse("the session's status is %s, so the documents were taken: resolve it as --accepted. %s", word, force)
	case c.dec.Action == sidecar.Confirmed && taken != idenfy.WasTaken:
		return refuse("the session's status is %s, so the documents were not taken. %s", word, force)
	}
	return nil
}

func (c *matter) mayRequeue() error {
	name, l := meta.Show(c.name), c.life
	taken, token := c.taken()
	switch {
	case c.from == spool.Hold:
		return refuse("it is held because it may have been accepted. Look the session up in the iDenfy dashboard, then: idenfy-batch resolve %s --accepted, --rejected or --resubmit", name)
	case taken != "" && !c.dec.Force:
		return refuse("it was accepted before (%s); the same token is not accepted twice, and a person's data would be sent a second time. %s", taken, force)
	case taken != "" && token != "" && c.meta.TokenSHA256() == token:
		return refuse("its authToken was used up by the submission that was accepted (%s), and works once; put a new one into meta.yaml first", taken)
	case c.dec.Force:
		return nil
	case l.Outcome() == sidecar.GaveUp && l.Token != "" && c.meta.TokenSHA256() == l.Token && len(c.history.Open) == 0:
		return nil // the same token works once, whatever became of the tries before
	case l.Outcome() == sidecar.GaveUp && l.ClientID != "" && len(c.history.Open) == 0:
		return nil // before another session is opened the daemon asks what became of the one before
	case l.Fate == journal.Unsettled:
		return refuse("its %s says %s, and it may have been accepted. %s", sidecar.Name, l.Outcome(), force)
	case len(c.history.Open) > 0:
		return refuse("an earlier submission of it (%s) may have been accepted. %s", c.history.Open[0].ID, force)
	}
	return nil
}

// taken returns the submission of the folder that was accepted, and the hash
// of its token; or "".
func (c *matter) taken() (id, token string) {
	switch {
	case c.life.Fate == journal.Taken, c.life.Outcome() == sidecar.Accepted && c.history.Taken == nil:
		return c.life.ID, c.life.Token
	case c.history.Taken != nil:
		return c.history.Taken.ID, c.history.Taken.Token
	}
	return "", ""
}

// Why nothing can be asked for.
var (
	errNoReference = errors.New("there is no scanRef in meta.yaml")
	errNotIts      = errors.New("the session of the scanRef in meta.yaml can't tell")
)

// ask asks once for each session that may have been taken. What it returns is
// that one was; or how they all stand.
func (c *matter) ask(ctx context.Context) (taken idenfy.Taken, word string, err error) {
	refs, err := c.references(ctx)
	switch {
	case err != nil:
		return 0, "", err
	case len(refs) == 0:
		return 0, "", errNoReference
	case c.desk.Status == nil:
		return 0, "", errors.New("no daemon runs that could ask, and there are no API credentials here")
	}
	for _, ref := range refs {
		taken, word, err = c.desk.Status(ctx, ref)
		if err == nil && taken == idenfy.TakenUnknown {
			err = fmt.Errorf("the session's status is %s", word)
		}
		if err != nil || taken == idenfy.WasTaken {
			break
		}
	}
	return taken, word, err
}

// references returns the references of the sessions that may have been taken;
// none, if one of them isn't known, or not for certain whose it is. That in
// meta.yaml is of the token there.
func (c *matter) references(ctx context.Context) (refs []string, err error) {
	open := c.history.Open
	if c.life.Fate == journal.Unsettled || len(open) == 0 {
		open = append([]journal.Other{{ID: c.life.ID, Token: c.life.Token, ScanRef: c.life.ScanRef}}, open...)
	}
	for _, o := range open {
		ref, token := o.ScanRef, o.Token
		if ref == "" && c.meta != nil && (o.Token == "" || o.Token == c.meta.TokenSHA256()) {
			ref, token = c.meta.ScanRef, c.meta.TokenSHA256()
		}
		if ref == "" {
			return nil, nil
		}
		other, err := c.desk.Journal.Rival(ctx, ref, o.ID, token)
		if err != nil {
			return nil, err
		}
		if other != nil {
			return nil, fmt.Errorf("%w: it is also another folder's, %s", errNotIts, meta.Show(other.Where()))
		}
		if !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	return refs, nil
}
