// Package retention owns what is deleted of folders that have ended: when, by
// which rule, and how that is recorded. Images, meta.yaml and all else that came
// with them go; results and verdicts stay, and say what went.
//
// Each purge is recorded before it is made. The steps, and what a crash after
// each leaves:
//
//	journal and ledger   nothing is deleted; it is on record, and the next start goes on from here
//	result.json          likewise, and the folder says so
//	unlinkat, fsync      it is gone
//	journal              it is noted as done
//
// What stands in the way of a deletion is looked for before the first of these,
// so that a purge that can't be made is not begun.
package retention

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
	"sync"
	"time"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/record"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Hold is the name in a folder that keeps anything of it from being deleted: a
// legal hold.
const Hold = ".keep"

// Rules say after what time from its end a folder is purged, by where it lies,
// and Verdicts, what iDenfy had sent is; 0: never.
type Rules struct{ Done, Failed, Hold, Verdicts time.Duration }

// Any reports whether anything is ever deleted.
func (r Rules) Any() bool { return r != Rules{} }

func (r Rules) of(p spool.Place) time.Duration {
	return map[spool.Place]time.Duration{spool.Done: r.Done, spool.Failed: r.Failed, spool.Hold: r.Hold}[p]
}

// places are where folders that have ended lie, in the order of a pass.
var places = []spool.Place{spool.Done, spool.Failed, spool.Hold}

// Ask asks for a purge.
type Ask struct {
	Rules  Rules           `json:"rules"`
	Listed bool            `json:"listed"` // those of List, in place of those that Rules are about
	List   []string        `json:"list,omitempty"`
	Yes    bool            `json:"yes"`             // else it is only said what would go
	Remote bool            `json:"remote"`          // iDenfy is asked to delete the sessions too
	By     *sidecar.Person `json:"by,omitempty"`    // nil: the daemon
	After  string          `json:"after,omitempty"` // where the answer before this one ended
}

// Report is what went, or would go.
type Report struct {
	Sums     []Sum  `json:"sums"`
	Held     []Told `json:"held"` // what a legal hold keeps
	Told     []Told `json:"told"` // what could not be purged, and why
	Unlisted int    `json:"unlisted,omitempty"`
	Sessions int    `json:"sessions"` // that iDenfy is to delete, or was asked to
	Erased   int    `json:"erased"`   // that it said it has
	Next     string `json:"next,omitempty"`
}

// Sum counts what goes by one rule from one place.
type Sum struct {
	Rule    sidecar.Rule `json:"rule"`
	Place   spool.Place  `json:"place"`
	Folders int          `json:"folders"`
	Files   int          `json:"files"`
	Bytes   int64        `json:"bytes"`
}

// Told says something of a folder, or of a line of a list.
type Told struct {
	Name string `json:"name"` // place/name, or the line
	Why  string `json:"why"`
}

// mostTold bounds how many are told of each kind.
const mostTold = 200

// Add adds a later part of the same answer.
func (r *Report) Add(more Report) {
	for _, s := range more.Sums {
		r.count(s)
	}
	for _, t := range more.Held {
		r.tell(&r.Held, t)
	}
	for _, t := range more.Told {
		r.tell(&r.Told, t)
	}
	r.Unlisted += more.Unlisted
	r.Sessions += more.Sessions
	r.Erased += more.Erased
	r.Next = more.Next
}

func (r *Report) count(s Sum) {
	at := slices.IndexFunc(r.Sums, func(o Sum) bool { return o.Rule == s.Rule && o.Place == s.Place })
	if at < 0 {
		r.Sums = append(r.Sums, s)
		return
	}
	o := &r.Sums[at]
	o.Folders, o.Files, o.Bytes = o.Folders+s.Folders, o.Files+s.Files, o.Bytes+s.Bytes
}

func (r *Report) tell(list *[]Told, t Told) {
	if len(*list) == mostTold {
		r.Unlisted++
		return
	}
	*list = append(*list, t)
}

// Total returns the sum of the sums; a folder of which two rules delete something
// counts twice.
func (r *Report) Total() (all Sum) {
	for _, s := range r.Sums {
		all.Folders, all.Files, all.Bytes = all.Folders+s.Folders, all.Files+s.Files, all.Bytes+s.Bytes
	}
	return all
}

// Keeper purges folders: in the daemon, or, while none runs, in the command
// itself, which then holds the spool's lock.
type Keeper struct {
	Journal *journal.Journal
	Paths   spool.Paths
	Emit    events.Sink
	// Delete asks iDenfy to delete a session. Nil: it can't be asked.
	Delete func(ctx context.Context, scanRef string) error
	// Turn waits until the rate allows one more request.
	Turn func(ctx context.Context) error

	mu sync.Mutex // one pass at a time
}

// pageTime is after what time an answer ends, and says where to go on.
const pageTime = 15 * time.Second

// pass is one pass on its way.
type pass struct {
	*Keeper
	ask    Ask
	report Report
	now    time.Time
	where  map[string]at // of all folders, by their ids; nil: nobody has looked
}

type at struct {
	place spool.Place
	name  string
}

func (a at) String() string { return string(a.place) + "/" + meta.Show(a.name) }

// Pass makes a purge, or looks what one would delete; a part of it, if Next says
// so. An error is the journal's, the service's, or the context's; what keeps one
// folder is in the report.
func (k *Keeper) Pass(ctx context.Context, a Ask) (Report, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a.Yes && a.Remote && k.Delete == nil {
		return Report{}, errors.New("iDenfy can't be asked to delete sessions: there are no API credentials here (idenfy-batch check)")
	}
	s := &pass{Keeper: k, ask: a, now: time.Now()}
	if a.Yes && a.After == "" {
		if err := s.finish(ctx); err != nil {
			return s.report, err
		}
	}
	if a.Listed {
		return s.report, s.list(ctx)
	}
	err := s.all(ctx)
	return s.report, err
}

// Finish makes what was recorded and cut off.
func (k *Keeper) Finish(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return (&pass{Keeper: k, now: time.Now()}).finish(ctx)
}

// all goes through all folders that have ended.
func (s *pass) all(ctx context.Context) error {
	if !s.ask.Rules.Any() {
		return nil
	}
	from, after, _ := strings.Cut(s.ask.After, "/")
	for _, p := range places {
		if from != "" && slices.Index(places, p) < slices.Index(places, spool.Place(from)) {
			continue
		}
		names, err := s.Paths.List(p)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		slices.Sort(names)
		for _, name := range names {
			if string(p) == from && name <= after {
				continue
			}
			if err := s.one(ctx, at{p, name}, false); err != nil {
				return err
			}
			if time.Since(s.now) > pageTime {
				s.report.Next = string(p) + "/" + name
				return nil
			}
		}
	}
	return nil
}

// list goes through what a person listed.
func (s *pass) list(ctx context.Context) error {
	for _, line := range s.ask.List {
		place, name := "", line
		if before, after, ok := strings.Cut(line, "/"); ok && spool.Place(before).Final() {
			place, name = before, strings.TrimSuffix(after, "/")
		}
		found, plain, err := s.Journal.Named(ctx, name, meta.Show(name), place)
		if err != nil {
			return &stopError{err}
		}
		switch {
		case len(found) == 0:
			s.report.tell(&s.report.Told, Told{meta.Show(line), "there is no such folder, id or clientId in done, failed or hold"})
			continue
		case !plain:
			s.report.tell(&s.report.Told, Told{meta.Show(line), several(found)})
			continue
		}
		for i := range found {
			where, lies, err := s.find(&found[i])
			if err != nil {
				return err
			}
			if !lies {
				s.report.tell(&s.report.Told, Told{meta.Show(line), fmt.Sprintf("%s was put into %s/%s, and lies in no final place any more", found[i].ID, found[i].Place, meta.Show(found[i].Name))})
				continue
			}
			if err := s.one(ctx, where, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// several says which folders have a name.
func several(found []journal.Kept) string {
	const few = 5
	var all []string
	for _, k := range found[:min(few, len(found))] {
		all = append(all, fmt.Sprintf("%s (%s/%s)", k.ID, k.Place, meta.Show(k.Name)))
	}
	more := ""
	if n := len(found) - few; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return "several folders are called that, or it is a clientId as well; give the id of each that is meant: " + strings.Join(all, ", ") + more
}

// find tells where the folder of a life lies: where the journal says, or, when
// somebody moved it by hand, in whatever final place.
func (s *pass) find(k *journal.Kept) (where at, lies bool, err error) {
	if p := spool.Place(k.Place); record.LiesAt(s.Paths, p, k.Name, k.ID) {
		return at{p, k.Name}, true, nil
	}
	if s.where == nil {
		s.where = map[string]at{}
		for _, p := range places {
			names, err := s.Paths.List(p)
			if err != nil {
				return at{}, false, fmt.Errorf("%s: %w", p, err)
			}
			for _, name := range names {
				dir, err := s.Paths.OpenFolder(p, name)
				if err != nil {
					continue
				}
				if id, err := sidecar.ID(dir, sidecar.Name); err == nil && id != "" {
					s.where[id] = at{p, name}
				}
				_ = dir.Close() // it was read only
			}
		}
	}
	where, lies = s.where[k.ID]
	return where, lies, nil
}

// stopError is what ends a pass, since any other folder would meet it too.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }
func (e *stopError) Unwrap() error { return e.err }

// obstacle is what keeps a folder from being purged.
type obstacle struct {
	file string // empty: the folder itself
	why  error
}

func (o *obstacle) Error() string {
	if o.file == "" {
		return o.why.Error()
	}
	return meta.Show(o.file) + ": " + o.why.Error()
}
func (o *obstacle) Unwrap() error { return o.why }

func because(format string, args ...any) error { return &obstacle{why: fmt.Errorf(format, args...)} }

// one purges a folder, or looks what would go of it.
func (s *pass) one(ctx context.Context, where at, listed bool) error {
	id, err := s.look(ctx, where, listed)
	if err == nil {
		return ctx.Err()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if _, stop := errors.AsType[*stopError](err); stop || errors.Is(err, journal.ErrNotWritten) || errors.Is(err, journal.ErrClosed) {
		return err
	}
	s.fail(where, id, err)
	return nil
}

// fail tells that a folder could not be purged.
func (s *pass) fail(where at, id string, err error) {
	s.report.tell(&s.report.Told, Told{where.String(), err.Error()})
	if s.ask.Yes || s.ask.By == nil {
		why := err
		if o, ok := errors.AsType[*obstacle](err); ok {
			why = o.why
		}
		if e, ok := errors.AsType[*fs.PathError](why); ok { // without the name
			why = fmt.Errorf("%s: %w", e.Op, e.Err)
		}
		s.Emit(events.PurgeFailed{Folder: where.name, ID: id, Place: where.place, Err: why})
	}
}

// look finds out what is due of a folder, and purges it.
func (s *pass) look(ctx context.Context, where at, listed bool) (id string, err error) {
	dir, err := s.Paths.OpenFolder(where.place, where.name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // it went on
	}
	if err != nil {
		return "", err
	}
	defer dir.Close()
	if id, err = sidecar.ID(dir, sidecar.Name); err != nil {
		return "", err
	}
	k, known, err := s.Journal.Kept(ctx, cmp.Or(id, "-"))
	if err != nil {
		return id, &stopError{err}
	}
	if !known {
		return id, because("it has no %s that the journal knows: it never went through the daemon, and nothing of it is deleted", sidecar.Name)
	}
	rules, err := s.due(&k, where.place, listed)
	if err != nil || len(rules) == 0 {
		return id, err
	}
	for n := 0; k.State == journal.Ended && n < 200 && ctx.Err() == nil; n++ {
		time.Sleep(5 * time.Millisecond) // it was moved here just now, and that is being noted
		if k, _, err = s.Journal.Kept(ctx, id); err != nil {
			return id, &stopError{err}
		}
	}
	switch p := spool.Place(k.Place); {
	case k.State == journal.Claimed, k.State == journal.Pending, k.State == journal.Ended:
		return id, because("it is in work, or on its way from there")
	case k.State == journal.Away:
		return id, because("it was taken out of work by hand, and nobody has decided about it (idenfy-batch resolve)")
	case !p.Final():
		return id, because("a person sent it to %s, and that was not carried out; repeat that decision", cmp.Or(k.Place, "nowhere"))
	case (p != where.place || k.Name != where.name) && record.LiesAt(s.Paths, p, k.Name, id):
		return id, because("it is a copy of %s/%s, made by hand: delete it yourself", p, meta.Show(k.Name))
	}
	f := &folder{pass: s, dir: dir, at: where, id: id}
	for _, rule := range rules {
		if err := f.purge(ctx, rule); err != nil {
			return id, err
		}
	}
	return id, nil
}

// due returns the rules by which something of a folder is to go.
func (s *pass) due(k *journal.Kept, p spool.Place, listed bool) (rules []sidecar.Rule, err error) {
	if listed {
		return []sidecar.Rule{sidecar.OfList}, nil
	}
	over := func(after time.Duration) bool { return after > 0 && s.now.Sub(k.Ended.Time) >= after }
	of := s.ask.Rules.of(p)
	if k.Ended.IsZero() {
		if of > 0 {
			return nil, because("the journal doesn't know when it ended; purge it with --list, or never")
		}
		return nil, nil
	}
	if over(s.ask.Rules.Verdicts) {
		rules = append(rules, sidecar.OfVerdicts)
	}
	if over(of) {
		rules = append(rules, sidecar.Rule(p))
	}
	return rules, nil
}

// finish makes what was recorded and cut off, wherever the folder lies now.
func (s *pass) finish(ctx context.Context) error {
	ids, err := s.Journal.Purging(ctx)
	if err != nil {
		return &stopError{err}
	}
	for _, id := range ids {
		k, known, err := s.Journal.Kept(ctx, id)
		if err != nil {
			return &stopError{err}
		}
		if !known {
			s.fail(at{}, id, because("something of it is recorded as deleted, and the journal doesn't know it any more; see idenfy-batch ledger verify"))
			continue
		}
		where, lies, err := s.find(&k)
		if err != nil {
			return err
		}
		if !lies {
			s.fail(at{spool.Place(k.Place), k.Name}, id, because("of what is recorded as deleted nothing may have been: it was cut off, and the folder is not where it was put"))
			continue
		}
		err = s.resume(ctx, where, id)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, journal.ErrNotWritten), errors.Is(err, journal.ErrClosed):
			return err
		case err != nil:
			s.fail(where, id, err)
		}
	}
	return nil
}

// resume finishes the purge of one folder.
func (s *pass) resume(ctx context.Context, where at, id string) error {
	dir, err := s.Paths.OpenFolder(where.place, where.name)
	if err != nil {
		return err
	}
	defer dir.Close()
	unlock, err := s.lock(dir, where, id)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := s.Journal.Load(ctx, id)
	if err != nil || l == nil {
		return err
	}
	f := &folder{pass: s, dir: dir, at: where, id: id}
	return f.carryOut(ctx, l, true)
}

// lock keeps decisions and verdicts away from a folder, and makes sure that it
// is still the one.
func (s *pass) lock(dir *os.Root, where at, id string) (unlock func(), err error) {
	unlock, err = spool.LockFolder(dir)
	if errors.Is(err, spool.ErrLocked) {
		return nil, because("somebody is at work on it; try again")
	}
	if err != nil {
		return nil, err
	}
	is, err := os.Lstat(filepath.Join(s.Paths[where.place], where.name))
	was, statErr := dir.Stat(".")
	if err != nil || statErr != nil || !os.SameFile(is, was) || !record.LiesAt(s.Paths, where.place, where.name, id) {
		unlock()
		return nil, because("it was moved just now; try again")
	}
	return unlock, nil
}
