package verdict

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/record"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Clerk brings what was said of a session to its folder: verdict.json, and the
// end of a folder of which nobody knew whether iDenfy had taken it. What it has
// not done, for a crash or for the folder, is in the journal: events up to which
// one are written.
type Clerk struct {
	journal *journal.Journal
	paths   spool.Paths
	emit    events.Sink
	wake    chan struct{}

	searched time.Time // when folders were last looked for that are not where they were put

	mu   sync.Mutex
	next map[string]time.Time // sessions whose folder can't be written into, by its own fault
}

// NewClerk returns a clerk.
func NewClerk(j *journal.Journal, paths spool.Paths, emit events.Sink) *Clerk {
	return &Clerk{journal: j, paths: paths, emit: emit, wake: make(chan struct{}, 1), next: map[string]time.Time{}}
}

// Wake has it look now: an event came, or a folder to its place.
func (c *Clerk) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Times of the clerk.
const (
	lookAgain  = time.Second      // where a folder is on its way; each time twice that
	lookAlways = 30 * time.Second // whatever is known
	tryAgain   = 10 * time.Minute // where a folder can't be written into
	atOnce     = 4                // folders
	inOne      = 500              // sessions that are read at once
	forgetting = time.Hour        // between two looks for events that no folder came for
	searching  = 30 * time.Second // between two looks for folders that are not where they were put
)

// Run works until ctx ends.
func (c *Clerk) Run(ctx context.Context) {
	var forgot time.Time
	for again := lookAgain; ctx.Err() == nil; {
		if time.Since(forgot) > forgetting {
			forgot = time.Now()
			if n, err := c.journal.Forget(forgot); err == nil && n > 0 { // else an hour later
				c.emit(events.StraysDropped{Events: n})
			}
		}
		if c.round(ctx) {
			again = min(2*again, lookAlways)
		} else {
			again = lookAlways
		}
		wait := time.NewTimer(again / 2)
		select {
		case <-ctx.Done():
		case <-c.wake:
			again = lookAgain
		case <-wait.C:
		}
		wait.Stop()
	}
}

// round goes through what is not written yet. later tells that something is to
// be looked at again soon.
func (c *Clerk) round(ctx context.Context) (later bool) {
	var again atomic.Bool
	for after := ""; ; {
		refs, err := c.journal.Unwritten(ctx, after, inOne)
		if err != nil {
			if ctx.Err() == nil {
				c.emit(events.Trouble{What: "the journal could not be asked for verdicts, which is tried again", Err: err})
			}
			return false
		}
		if len(refs) == 0 {
			return again.Load()
		}
		after = refs[len(refs)-1]
		err = c.bring(ctx, refs, &again)
		if ctx.Err() != nil {
			return false
		}
		if err != nil {
			c.emit(events.Trouble{What: "verdicts could not be brought to their folders, since the journal can't be written; that is tried again", Err: err})
			return false
		}
	}
}

// bring delivers what was said of sessions. Where a folder is not where it was
// put, since somebody gave it another name or place, all of these are looked for
// at once, and not always: that reads the whole places.
func (c *Clerk) bring(ctx context.Context, refs []string, again *atomic.Bool) error {
	missing, err := c.deliverAll(ctx, refs, nil, again)
	if err != nil || len(missing) == 0 {
		return err
	}
	if time.Since(c.searched) < searching {
		again.Store(true)
		return nil
	}
	wanted := map[uint64]bool{}
	for _, ino := range missing {
		wanted[ino] = true
	}
	found, err := c.paths.ByInode(wanted)
	c.searched = time.Now()
	if err != nil {
		c.emit(events.Trouble{What: "folders that are not where they were put could not be looked for, to write their verdict.json; that is tried again", Err: c.paths.Brief(err)})
		return nil
	}
	_, err = c.deliverAll(ctx, slices.Collect(maps.Keys(missing)), found, again)
	return err
}

// deliverAll delivers several at a time, and returns the inodes of folders that
// are to be looked for: none, when they were, and are found.
func (c *Clerk) deliverAll(ctx context.Context, refs []string, found map[uint64]spool.At, again *atomic.Bool) (missing map[string]uint64, err error) {
	var mu sync.Mutex
	missing = map[string]uint64{}
	group, all := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, ref := range refs {
		if all.Err() != nil || c.patient(ref) {
			continue
		}
		group.Go(func() error {
			done, err := c.deliver(all, ref, found)
			if errors.Is(err, journal.ErrNotWritten) {
				return err
			}
			if away, is := errors.AsType[*awayError](err); is {
				mu.Lock()
				missing[ref] = away.ino
				mu.Unlock()
			} else if err != nil && all.Err() == nil { // else it was cut short
				c.failed(ref, err)
			} else if !done {
				again.Store(true)
			}
			return nil // a folder's failure is its own
		})
	}
	return missing, group.Wait()
}

// awayError is of a folder that is not where it was put.
type awayError struct{ ino uint64 }

func (*awayError) Error() string { return "the folder is not where it was put" }

func (c *Clerk) patient(ref string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, is := c.next[ref]
	if is && time.Now().After(at) {
		delete(c.next, ref)
		return false
	}
	return is
}

// failed keeps a folder that can't be written into from being tried all the
// time, and says it.
func (c *Clerk) failed(ref string, err error) {
	c.mu.Lock()
	c.next[ref] = time.Now().Add(tryAgain)
	c.mu.Unlock()
	c.emit(events.Trouble{What: "a verdict could not be brought to its folder; it is kept in the journal, and tried again in ten minutes (scanRef " + ref + ")", Err: c.paths.Brief(err)})
}

// deliver brings all that was said of a session to its folder. done is false
// while the folder is on its way. Where it is not where it was put, it is in one
// of the places that were found; nil: it is to be looked for.
func (c *Clerk) deliver(ctx context.Context, ref string, found map[uint64]spool.At) (done bool, err error) {
	heard, err := c.journal.Heard(ctx, ref)
	if err != nil || heard == nil {
		return true, err
	}
	lives, err := c.journal.OfSession(ctx, ref)
	if err != nil {
		return true, err
	}
	if len(lives) == 0 { // it was replaced just now
		return c.journal.Written(heard, false)
	}
	main := &lives[0]
	heard.Verdict.ID = main.ID
	if err := c.tell(heard, main); err != nil {
		return false, err
	}
	at, err := c.find(ctx, lives, found)
	switch {
	case err != nil:
		return false, err
	case at.onItsWay:
		return false, nil
	case at.name != "":
		if main.Fate != journal.Taken { // it isn't known which of them was
			heard.Verdict.ID = at.id
		}
		if written, err := c.write(ctx, at, heard); err != nil || !written {
			return false, err
		}
	}
	if proves(heard.Verdict) {
		if err := c.settle(lives); err != nil {
			return false, err
		}
	}
	return c.journal.Written(heard, at.name != "")
}

// settle notes of lives that have ended that their session was taken. Who only
// names it has another token.
func (c *Clerk) settle(lives []journal.Other) error {
	for i := range lives {
		o := &lives[i]
		if (o.Fate == journal.Unsettled || o.Fate == journal.Refused) && o.Token == lives[0].Token && (o.State == journal.Filed || o.State == journal.Away) {
			if err := c.journal.Settle(o.ID, journal.Taken); err != nil {
				return err
			}
		}
	}
	return nil
}

// tell reports what is new, once.
func (c *Clerk) tell(h *journal.Heard, main *journal.Other) error {
	if len(h.News) == 0 {
		return nil
	}
	if err := c.journal.Told(h.Verdict.ScanRef, h.Newest); err != nil {
		return err
	}
	for i := range h.News {
		n := &h.News[i]
		after := time.Duration(0)
		if !n.Accepted.IsZero() {
			after = max(n.Event.Received.Sub(n.Accepted.Time), 0)
		}
		if n.Clash == "" && main.Fate == journal.Refused && idenfy.TakenBy(n.Event.Overall) == idenfy.WasTaken {
			n.Clash = string(main.Outcome)
		}
		c.emit(events.VerdictCame{Folder: main.Folder, ID: main.ID, Overall: n.Event.Overall, Final: n.Event.Final, First: n.First, By: n.Event.By, After: after, Clash: n.Clash})
	}
	return nil
}

// proves reports whether what was said shows that the documents were taken.
func proves(v *sidecar.Verdict) bool {
	for i := range v.Events {
		if idenfy.TakenBy(v.Events[i].Overall) == idenfy.WasTaken {
			return true
		}
	}
	return false
}

// where is where the folder of a session lies.
type where struct {
	place    spool.Place
	name     string // empty: nowhere in the spool
	id       string // of the life that its result is of
	onItsWay bool   // it is in work, or just left it
}

// find finds the folder: that of the life whose the session is; or, when that
// came again as another life, of this one.
func (c *Clerk) find(ctx context.Context, lives []journal.Other, found map[uint64]spool.At) (where, error) {
	main, err := c.journal.Load(ctx, lives[0].ID)
	if err != nil || main == nil {
		return where{}, err
	}
	var mine []string // lives of that folder
	for i := range lives {
		o := &lives[i]
		if i > 0 { // the same folder, and not only one that names the same session
			l, err := c.journal.Load(ctx, o.ID)
			if err != nil {
				return where{}, err
			}
			if l == nil || l.Dir != main.Dir || l.Dir == "" {
				continue
			}
		}
		switch o.State {
		case journal.Claimed, journal.Pending, journal.Ended:
			return where{onItsWay: true}, nil
		}
		if p := spool.Place(o.Place); record.LiesAt(c.paths, p, o.Name, o.ID) {
			return where{place: p, name: o.Name, id: o.ID}, nil
		}
		if p, name, lies := record.Find(c.paths, o.ID, o.Name, o.Folder); lies && name != "" {
			return where{place: p, name: name, id: o.ID}, nil
		}
		mine = append(mine, o.ID)
	}
	ino := drop.Inode(main.Dir)
	if found == nil && ino != 0 {
		return where{}, &awayError{ino}
	}
	at := found[ino]
	for _, id := range mine {
		if record.LiesAt(c.paths, at.Place, at.Name, id) {
			return where{place: at.Place, name: at.Name, id: id}, nil
		}
	}
	return where{}, nil
}

// write writes verdict.json, and before it ends what is held. written is false
// when somebody is at work on the folder, or it went on.
func (c *Clerk) write(ctx context.Context, at where, heard *journal.Heard) (written bool, err error) {
	dir, err := c.paths.OpenFolder(at.place, at.name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	unlock, err := spool.LockFolder(dir)
	if errors.Is(err, spool.ErrLocked) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unlock()
	if !record.LiesAt(c.paths, at.place, at.name, at.id) { // moved before it was locked
		return false, nil
	}
	if at.place != spool.Done && proves(heard.Verdict) {
		if err := c.accept(ctx, at, dir, heard.Verdict); err != nil {
			return false, err
		}
	}
	return true, record.WriteVerdict(dir, heard.Verdict, heard.Bodies)
}

// settledByVerdict is the code of the reason that a held folder was accepted.
const settledByVerdict = "settled_by_verdict"

// accept ends a folder as accepted that had ended without anybody knowing
// whether it was. A crash before its move is finished by the next look, since
// nothing is noted as written before.
func (c *Clerk) accept(ctx context.Context, at where, dir *os.Root, v *sidecar.Verdict) error {
	l, err := c.journal.Load(ctx, at.id)
	if err != nil || l == nil || l.ScanRef != v.ScanRef || l.State != journal.Filed {
		return err
	}
	switch l.Outcome() {
	case sidecar.Unknown, sidecar.GaveUp:
		if l.Fate == journal.Unsettled { // else it is an earlier life that was taken
			l.Fate = journal.Taken
		}
		l.Place, l.Name, l.Result.Outcome = string(spool.Done), at.name, sidecar.Accepted
		l.Result.Reasons = append(l.Result.Reasons, sidecar.Reason{
			Code: settledByVerdict, Source: sidecar.FromDaemon,
			Message: fmt.Sprintf("iDenfy said %s of its session, so the documents were taken, see %s", v.Overall, sidecar.VerdictName),
		})
		err := c.journal.Proven(l)
		if errors.Is(err, journal.ErrChanged) {
			return nil
		}
		if err != nil {
			return err
		}
	case sidecar.Accepted: // a crash came before the move; or somebody moved it since
		if l.Place != string(spool.Done) || !slices.ContainsFunc(l.Result.Reasons, func(r sidecar.Reason) bool { return r.Code == settledByVerdict }) {
			return nil
		}
	default:
		return nil
	}
	if err := record.Write(dir, l); err != nil {
		return err
	}
	name, err := c.paths.Revise(at.place, at.name, spool.Done)
	if name != "" {
		c.journal.Filed(l.ID, string(spool.Done), name)
		c.emit(events.Ended{Result: l.Result, Place: spool.Done, Name: name})
	}
	return err
}
