// Package batch takes a ready folder to its end: claim, intent, submission,
// answer, final place.
//
// The queue says what comes next; a visit goes on with one folder as far as it
// can go now, by what the journal says of its life (life.go has the tables).
// What is in memory here can be lost at any instant: the next start finds
// every folder in work, and goes on with each by the same way.
package batch

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Settings say how folders are submitted. They may change while the batch
// works; what is in flight ends under those that it began with.
type Settings struct {
	Concurrency int // submissions in flight
	Retry       Retry
	Rejections  int            // in a row with the same words, until that is taken for the account's fault; 0: any number
	Grace       time.Duration  // how long a stop waits for submissions in flight
	DiskRetry   time.Duration  // how long a folder waits that met a fault of the disk; 0: 30 s
	Limits      meta.Limits    // the defaults in them are not looked at
	Daemon      sidecar.Daemon // goes into each result
	API         *idenfy.Client
	Rate        *rate.Limiter // asked once for each request

	SessionExpiry time.Duration // of the sessions that are opened

	Defaults map[string]meta.Defaults // of each inbox, by its name
}

// Batch submits folders. Create it with New.
type Batch struct {
	settings atomic.Pointer[Settings]
	changed  chan struct{}
	spool    *spool.Spool
	journal  *journal.Journal
	spare    chan string // lives that are claimed beforehand
	shared   Shared      // of Submit; nil: nothing is shared
	tokens   spool.Tokens
	emit     events.Sink

	soft context.Context // of Run; nothing begins after its end

	hands sync.Map // ids of the lives that a visit is at, or that could not be recorded yet

	// Below: of the goroutine in Run only.
	queue      queue
	stuck      map[stuckKey]events.FolderStuck
	soughtGone time.Time // of these, when those that are gone were looked for
}

// New returns a batch that works on the spool with the journal.
func New(set Settings, s *spool.Spool, j *journal.Journal, emit events.Sink) *Batch {
	b := &Batch{changed: make(chan struct{}, 1), spare: make(chan string, spares), stuck: map[stuckKey]events.FolderStuck{}, spool: s, journal: j, emit: emit}
	b.settings.Store(&set)
	if s != nil {
		b.tokens.Dir = s.Path(spool.Work)
	}
	return b
}

// Set changes the settings, at any time and from any goroutine. Where a gate is
// shut one folder tries at once, unless the service asked for more patience:
// what shut it may have been mended.
func (b *Batch) Set(set Settings) {
	b.settings.Store(&set)
	select {
	case b.changed <- struct{}{}:
	default: // Run has not looked yet
	}
}

// Left is what Run leaves undone.
type Left struct {
	InWork int    // folders in work, for the next start
	Paused string // why a gate is shut, and the mend; empty: none is
}

// end is how far a visit came.
type end struct {
	task   task
	folder string
	again  *task              // how it goes on, when the folder is still in work
	wrote  bool               // the disk took what there was to write
	fault  fault              // what kept it from its end
	stuck  events.FolderStuck // without a place: it isn't

	answer  answer // what the service said, whatever became of the record
	refusal string // of a rejection: what makes it the same as others
}

// answer is what the service said in its own words. Any shows that the account
// is well.
type answer int

const (
	silence    answer = iota
	reply             // no, or what it knows of a session
	acceptance        // yes
)

// met adds a fault to the end, unless the disk has failed as well: what could
// not be recorded comes first.
func (e end) met(f fault) end {
	if e.fault.owner == nobody {
		e.fault = f
	}
	if e.again != nil && f.owner == account && f.doubtful {
		e.again.doubted = true
	}
	return e
}

// Run works until ctx ends, or, with once, until intake was closed and nothing
// is in flight, or a gate is shut. Then it waits for what is in flight,
// for as long as Settings.Grace; what has not ended by then is cut off, and
// recorded as what it is. An error means that work, or the journal, could not
// be read at the start.
func (b *Batch) Run(ctx context.Context, intake <-chan drop.Arrival, once bool) (Left, error) {
	if err := b.recover(ctx); err != nil && ctx.Err() == nil {
		return Left{}, err
	}
	if err := b.remember(ctx); err != nil && ctx.Err() == nil {
		return Left{}, fmt.Errorf("the journal: %w", err)
	}
	b.soft = ctx
	// Submissions outlive ctx by the grace.
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var group errgroup.Group
	ends := make(chan end)
	start := func(t task) {
		t = b.queue.begin(t, time.Now())
		b.hands.Store(t.id, nil)
		group.Go(func() error { // their number is the queue's to bound
			ends <- b.visit(hard, t)
			return nil // a folder's failure is data
		})
	}
	reserving, reserved := context.WithCancel(ctx)
	defer reserved()
	group.Go(func() error { b.reserve(reserving); return nil })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		b.prepare()
		if b.queue.prefersNew(time.Now()) {
			intake = b.offer(intake, start)
		}
		for t, ok := b.queue.next(time.Now()); ok; t, ok = b.queue.next(time.Now()) {
			start(t)
		}
		if once && b.queue.inFlight == 0 && (intake == nil || b.queue.barred(time.Now())) {
			break
		}
		timer.Reset(b.queue.idle(time.Now()))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-b.changed:
			b.hasten()
		case e := <-ends:
			b.ended(e)
		case a, ok := <-b.open(intake):
			if !ok {
				intake = nil
				continue
			}
			start(b.arrive(task{arrival: &a, asks: true}))
		}
	}
	reserved()
	grace := time.AfterFunc(b.settings.Load().Grace, cut)
	defer grace.Stop()
	for b.queue.inFlight > 0 {
		b.ended(<-ends)
	}
	return Left{InWork: len(b.queue.waiting), Paused: b.queue.paused()}, group.Wait()
}

// prepare brings the queue up to date before something is begun.
func (b *Batch) prepare() {
	set := b.settings.Load()
	b.queue.limit, b.queue.most = set.Concurrency, set.Rejections
	b.queue.patience = 2 * set.API.Timeout() // one that gets no answer, or half of one, has ended by then
	b.emit(events.Progress{InFlight: b.queue.inFlight, Parked: len(b.queue.waiting)})
	b.freeGone(time.Now())
}

// InWork tells whether the folder of a life is in work, or a visit has still to
// record how it went on: somebody may have moved it away meanwhile. It may be
// asked from any goroutine; an error means that work can't be read.
func (b *Batch) InWork(id string) (bool, error) {
	if _, at := b.hands.Load(id); at {
		return true, nil
	}
	return b.spool.Has(id)
}

// open returns intake while a new folder may begin.
func (b *Batch) open(intake <-chan drop.Arrival) <-chan drop.Arrival {
	if !b.queue.takes(time.Now()) {
		return nil
	}
	return intake
}

// offer starts a new folder if there is one right now.
func (b *Batch) offer(intake <-chan drop.Arrival, start func(task)) <-chan drop.Arrival {
	select {
	case a, ok := <-intake:
		if !ok {
			return nil
		}
		start(b.arrive(task{arrival: &a, asks: true}))
	default:
	}
	return intake
}

// recover finds what lies in work, and lives whose folders are not there.
func (b *Batch) recover(ctx context.Context) error {
	names, err := b.spool.List(spool.Work)
	if err != nil {
		return fmt.Errorf("work: %w", err)
	}
	if err := b.spool.Intact(); err != nil { // else all would be taken for gone
		return err
	}
	lives, err := b.journal.InWork(ctx)
	if err != nil {
		return fmt.Errorf("the journal: %w", err)
	}
	slices.Sort(names)
	for _, name := range names {
		_, id, _ := spool.Split(name)
		delete(lives, id)
		b.queue.waiting = append(b.queue.waiting, task{id: id, work: name, fresh: true})
	}
	var never []string
	for id, state := range lives {
		if state == journal.Claimed { // of no folder, or of one that stayed in the inbox
			never = append(never, id)
		} else if err := b.lost(ctx, id, state); err != nil {
			return err
		}
	}
	if len(never) > 0 {
		if err := b.journal.Unclaim(never...); err != nil {
			return err
		}
	}
	if err := b.tokens.Sweep(func(id string) bool {
		return slices.ContainsFunc(b.queue.waiting, func(t task) bool { return t.id == id })
	}); err != nil {
		return fmt.Errorf("work: %w", err)
	}
	b.emit(events.Recovered{Folders: len(names)})
	return nil
}

// lost ends a life whose folder is not in work: it was moved to its place, and
// that could not be noted, or somebody took it away.
func (b *Batch) lost(ctx context.Context, id string, state journal.State) error {
	l, err := b.journal.Load(ctx, id)
	if err != nil || l == nil {
		return err
	}
	if state == journal.Ended {
		is := func(name string) bool { return b.holds(spool.Place(l.Place), name, id) }
		if name := b.spool.Find(spool.Place(l.Place), cmp.Or(l.Name, l.Result.Folder), is); name != "" {
			b.journal.Filed(id, l.Place, name)
			return nil
		}
	}
	b.emit(events.Vanished{Folder: l.Result.Folder, ID: id})
	return b.journal.Gone(id)
}

// remember takes from the journal what was known of the account.
func (b *Batch) remember(ctx context.Context) error {
	set := b.settings.Load()
	kept, err := b.journal.Reader().Gate(ctx)
	if err != nil {
		return err
	}
	// The newest tell enough: of many kinds of rejections, none is everybody's.
	list, err := b.journal.Refused(ctx, 8*set.Rejections)
	if err != nil {
		return err
	}
	for _, r := range list {
		b.queue.refused.add(r.Key, r.ID, set.Rejections-1) // a further one has to come
	}
	if b.queue.account = restored(kept, set.Retry, time.Now()); b.queue.account.shut() {
		b.tell(events.Account)
	}
	return nil
}

// hasten has shut gates probed after a change of settings, and stuck folders
// tried: what kept them may have been mended.
func (b *Batch) hasten() {
	for i := range b.queue.waiting {
		if t := &b.queue.waiting[i]; t.stuck > 0 {
			t.due = earliest(t.due, time.Now())
		}
	}
	for _, o := range events.Owners() {
		if g := b.queue.gateOf(o); g.shut() {
			g.hasten(time.Now())
			if !g.suspected {
				b.tell(o)
			}
		}
	}
}

// ended notes the end of a visit.
func (b *Batch) ended(e end) {
	now := time.Now()
	if e.again == nil || e.again.unsaved == nil {
		b.hands.Delete(e.task.id)
	}
	b.queue.end(e.task, e.again, now)
	b.noteStuck(&e, now)
	for _, o := range b.queue.note(&e, b.settings.Load().Retry, now) {
		b.tell(o)
	}
}

// tell says how a gate is now, and has the account's kept.
func (b *Batch) tell(o events.Owner) {
	g := b.queue.gateOf(o)
	if o == events.Account {
		b.journal.KeepGate(g.kept())
	}
	if !g.shut() {
		b.emit(events.GateOpened{Owner: o})
		return
	}
	b.emit(events.GateShut{Owner: o, Reason: g.reason, Mend: g.mend, Since: g.since, Wait: max(time.Until(g.until), 0), Asked: max(time.Until(g.quiet), 0), Tries: g.tries})
}
