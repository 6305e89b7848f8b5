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
	Grace       time.Duration // how long a stop waits for submissions in flight
	DiskRetry   time.Duration // how long a folder waits that met a fault of the disk; 0: 30 s
	Limits      meta.Limits
	Daemon      sidecar.Daemon // goes into each result
	API         *idenfy.Client
	Rate        *rate.Limiter // asked once for each request
}

// Batch submits folders. Create it with New.
type Batch struct {
	settings atomic.Pointer[Settings]
	changed  chan struct{}
	spool    *spool.Spool
	journal  *journal.Journal
	spare    chan string // lives that are claimed beforehand
	shared   Shared      // of Submit; nil: nothing is shared
	emit     events.Sink

	soft context.Context // of Run; nothing begins after its end

	// Below: of the goroutine in Run only.
	queue queue
	row   []string // folders that met trouble, one after the other
}

// New returns a batch that works on the spool with the journal.
func New(set Settings, s *spool.Spool, j *journal.Journal, emit events.Sink) *Batch {
	b := &Batch{changed: make(chan struct{}, 1), spare: make(chan string, spares), spool: s, journal: j, emit: emit}
	b.settings.Store(&set)
	return b
}

// Set changes the settings, at any time and from any goroutine. A pause ends
// with it: what caused it may have been mended, and the next attempt tells.
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
	Paused string // why submission is paused; empty: it isn't
}

// end is how far a visit came.
type end struct {
	task   task
	folder string
	again  *task // how it goes on, when the folder is still in work
	health health
	disk   bool   // the fault is the disk's
	reason string // of a fault
	retry  time.Duration
}

// health is what a visit says of the service.
type health int

const (
	nothing health = iota // it wasn't asked
	healthy               // it answered as it should
	trouble               // no answer, or a server error: the folder or the service
	fault                 // the service's fault, or the disk's
)

// well notes that the service answered as it should, unless the disk has
// failed as well: that comes first.
func (e end) well() end {
	e.health = max(e.health, healthy)
	return e
}

// met notes that it did not.
func (e end) met(h health, err *idenfy.Error) end {
	if e.health == nothing {
		e.health, e.reason, e.retry = h, err.Brief(), err.RetryAfter
	}
	return e
}

// inARow is how many different folders have to meet trouble, with nothing
// going well in between, until it is taken for the service's.
const inARow = 3

// Run works until ctx ends, or, with once, until intake was closed and nothing
// is in flight, or submission is paused. Then it waits for what is in flight,
// for as long as Settings.Grace; what has not ended by then is cut off, and
// recorded as what it is. An error means that work, or the journal, could not
// be read at the start.
func (b *Batch) Run(ctx context.Context, intake <-chan drop.Arrival, once bool) (Left, error) {
	if err := b.recover(ctx); err != nil && ctx.Err() == nil {
		return Left{}, err
	}
	b.soft = ctx
	// Submissions outlive ctx by the grace.
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var group errgroup.Group
	ends := make(chan end)
	start := func(t task) {
		t = b.queue.begin(t)
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
		b.queue.limit = b.settings.Load().Concurrency
		b.emit(events.Progress{InFlight: b.queue.inFlight, Parked: len(b.queue.waiting)})
		if b.queue.prefersNew(time.Now()) {
			intake = b.offer(intake, start)
		}
		for t, ok := b.queue.next(time.Now()); ok; t, ok = b.queue.next(time.Now()) {
			start(t)
		}
		if once && b.queue.inFlight == 0 && (intake == nil || b.queue.gate.shut()) {
			break
		}
		timer.Reset(b.queue.idle(time.Now()))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-b.changed:
			b.reopen()
		case e := <-ends:
			b.ended(e)
		case a, ok := <-b.open(intake):
			if !ok {
				intake = nil
				continue
			}
			start(b.arrive(task{arrival: &a}))
		}
	}
	reserved()
	grace := time.AfterFunc(b.settings.Load().Grace, cut)
	defer grace.Stop()
	for b.queue.inFlight > 0 {
		b.ended(<-ends)
	}
	return Left{InWork: len(b.queue.waiting), Paused: b.queue.gate.reason}, group.Wait()
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
		start(b.arrive(task{arrival: &a}))
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

// reopen lets submission go on after a change of settings.
func (b *Batch) reopen() {
	if b.queue.gate.shut() {
		b.queue.open(time.Now())
		b.emit(events.Resumed{})
	}
}

// ended notes the end of a visit.
func (b *Batch) ended(e end) {
	b.queue.end(e.task, e.again, time.Now())
	switch e.health {
	case healthy:
		b.row = b.row[:0]
		if b.queue.gate.shut() {
			b.queue.open(time.Now())
			b.emit(events.Resumed{})
		}
	case fault:
		b.hold(e, e.reason)
	case trouble:
		if !slices.Contains(b.row, e.folder) {
			b.row = append(b.row, e.folder)
		}
		if len(b.row) >= inARow || b.queue.gate.shut() {
			b.hold(e, fmt.Sprintf("%d folders in a row met: %s", len(b.row), e.reason))
		}
	case nothing:
		if e.task.probe {
			b.queue.gate.until = time.Now() // it told nothing; take another
			if e.again != nil {
				b.queue.gate.until = time.Now().Add(time.Second) // it may be the only one
			}
		}
	}
}

// hold pauses, or goes on pausing.
func (b *Batch) hold(e end, reason string) {
	if b.queue.gate.shut() && !e.task.probe {
		return // one of those that were in flight when it began
	}
	wait := b.queue.gate.fail(reason, e.retry, b.settings.Load().Retry, time.Now())
	b.emit(events.Paused{Disk: e.disk, Reason: reason, Wait: wait})
}
