// Package batch takes a ready folder to its end: claim, intent, submission,
// answer, final place.
//
// The directories and result.json are the only state. What is in memory here
// can be lost at any instant; the next start finds every folder in work, and
// goes on with each by the same code that an attempt's end goes through.
package batch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Settings say how folders are submitted. They may change while the batch
// works, see Set.
type Settings struct {
	Concurrency int // submissions in flight
	Retry       Retry
	Grace       time.Duration // how long a stop waits for submissions in flight
	DiskRetry   time.Duration // how long a folder waits that met a fault of the disk; 0: 30 s
	Limits      meta.Limits
	Daemon      sidecar.Daemon // goes into each result
	API         *idenfy.Client
	Rate        *rate.Limiter // is asked once for each request
}

// Batch submits folders. Create it with New.
type Batch struct {
	set   atomic.Pointer[Settings]
	fresh chan struct{} // the settings changed
	spool *spool.Spool
	emit  events.Sink

	tokens *tokens // nil without a spool

	// Below: of the goroutine in Run only.
	parked   []parked
	inFlight int
	pause    pause
	row      []string // folders that met trouble, one after the other
}

// New returns a batch that works on the spool, and tells emit what happens.
func New(set Settings, s *spool.Spool, emit events.Sink) *Batch {
	b := &Batch{fresh: make(chan struct{}, 1), spool: s, emit: emit}
	b.set.Store(&set)
	if s != nil {
		b.tokens = newTokens(s)
	}
	return b
}

// Set changes the settings, at any time and from any goroutine. What is in
// flight ends under the old ones. While submission is paused, the next try is
// at once: what was at fault may be mended.
func (b *Batch) Set(set Settings) {
	b.set.Store(&set)
	select {
	case b.fresh <- struct{}{}:
	default: // it is to be noticed anyway
	}
}

// parked is a folder in work that waits for its next attempt.
type parked struct {
	work  string
	due   time.Time
	res   *sidecar.Result // decided, and could not be written yet
	fresh bool            // found at the start, and not looked at yet

	behind string // the folder in work with the same token that it waits for
	spool  bool   // it met a fault of the disk
}

// pause holds submission back while the service, or the disk, is at fault.
type pause struct {
	reason  string // empty: not paused
	until   time.Time
	n       int // failed probes
	probing bool
}

// job is one folder to go on with: an arrival, or one in work.
type job struct {
	arrival *drop.Arrival
	parked  parked
	probe   bool // decides about the pause
}

// end is how far a job came.
type end struct {
	job    job
	folder string
	work   string          // name in work, when it is to go on later
	due    time.Time       // then
	res    *sidecar.Result // not written yet
	behind string          // the folder in work with the same token that it waits for
	health health
	spool  bool          // the fault is the disk's
	reason string        // of a fault
	retry  time.Duration // as the service asked
}

// of notes whose end it is.
func (e end) of(j job, folder string) end {
	e.job, e.folder = j, folder
	return e
}

// well notes that the service answered as it should, and met that it did not,
// unless the disk has failed as well: that comes first.
func (e end) well() end {
	e.health = max(e.health, healthy)
	return e
}

func (e end) met(h health, err *idenfy.Error) end {
	if e.health == nothing {
		e.health, e.reason, e.retry = h, err.Brief(), err.RetryAfter
	}
	return e
}

// health is what a job says of the service.
type health int

const (
	nothing health = iota // it wasn't asked
	healthy               // it answered as it should
	trouble               // no answer, or a server error: the folder or the service
	fault                 // the service's fault, or the disk's
)

// inARow is how many different folders have to meet trouble, with nothing
// going well in between, until it is taken for the service's.
const inARow = 3

// Run works until ctx ends, or, with once, until intake was closed and nothing
// is in flight, or submission is paused. Then it waits for what is in flight,
// for as long as Settings.Grace; what has not ended by then is cut off and
// recorded as unanswered. It returns what it left undone. An error means that
// work could not be read at the start.
func (b *Batch) Run(ctx context.Context, intake <-chan drop.Arrival, once bool) (Left, error) {
	names, err := b.spool.List(spool.Work)
	if err != nil {
		return Left{}, fmt.Errorf("work: %w", err)
	}
	slices.Sort(names)
	for _, name := range names {
		b.parked = append(b.parked, parked{work: name, fresh: true})
	}
	b.emit(events.Recovered{Folders: len(names)})

	// Submissions outlive ctx by the grace.
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var group errgroup.Group
	ends := make(chan end)
	group.Go(func() error {
		_ = b.tokens.read(hard) // a step that needs it tries again, and tells
		return nil
	})
	start := func(j job) {
		b.inFlight++
		group.Go(func() error { // as many as mayStart lets
			ends <- b.step(hard, j)
			return nil // a folder's failure is data
		})
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		b.emit(events.Progress{InFlight: b.inFlight, Parked: len(b.parked)})
		if b.mayStart(time.Now()) && b.paused() && b.pause.n%2 == 0 {
			// Every other probe is a new folder, lest all depend on one that
			// fails by itself.
			select {
			case a, ok := <-intake:
				if ok {
					start(b.job(job{arrival: &a}))
				} else {
					intake = nil
				}
			default:
			}
		}
		for j, ok := b.nextParked(time.Now()); ok; j, ok = b.nextParked(time.Now()) {
			start(j)
		}
		if once && b.inFlight == 0 && (intake == nil || b.paused()) {
			break
		}
		timer.Reset(b.wait(time.Now()))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-b.fresh:
			b.pause.until = time.Now()
		case e := <-ends:
			b.ended(e)
		case a, ok := <-b.open(intake, time.Now()):
			if !ok {
				intake = nil
				continue
			}
			start(b.job(job{arrival: &a}))
		}
	}
	grace := time.AfterFunc(b.set.Load().Grace, cut)
	defer grace.Stop()
	for b.inFlight > 0 {
		b.ended(<-ends)
	}
	cut()
	return Left{InWork: len(b.parked), Paused: b.pause.reason}, group.Wait()
}

// Left is what Run leaves undone.
type Left struct {
	InWork int    // folders in work, for the next start
	Paused string // why submission is paused; empty: it isn't
}

// heartbeat is how often Progress is told when nothing else happens.
const heartbeat = 5 * time.Second

// wait is how long nothing is due.
func (b *Batch) wait(now time.Time) time.Duration {
	wait := heartbeat
	if b.paused() {
		// Once that is over, what there is to wait for is a folder to probe
		// with, or a place for it.
		if until := b.pause.until.Sub(now); !b.pause.probing && until > 0 {
			wait = min(wait, until)
		}
		return wait
	}
	if b.inFlight < b.set.Load().Concurrency {
		for i := range b.parked {
			if b.free(&b.parked[i]) {
				wait = min(wait, max(b.parked[i].due.Sub(now), 0))
			}
		}
	}
	return wait
}

func (b *Batch) paused() bool { return b.pause.reason != "" }

// mayStart reports whether one more folder may be gone on with.
func (b *Batch) mayStart(now time.Time) bool {
	if b.paused() && (b.pause.probing || now.Before(b.pause.until)) {
		return false
	}
	return b.inFlight < b.set.Load().Concurrency
}

// free reports whether a parked folder waits for no other one.
func (b *Batch) free(p *parked) bool { return p.behind == "" || !b.tokens.owns(p.behind) }

// open returns intake while new folders may be taken: after those that were
// found in work.
func (b *Batch) open(intake <-chan drop.Arrival, now time.Time) <-chan drop.Arrival {
	if !b.mayStart(now) {
		return nil
	}
	for i := range b.parked {
		if b.parked[i].fresh || b.paused() && b.free(&b.parked[i]) {
			return nil
		}
	}
	return intake
}

// nextParked takes the folder out of parked that is to go on now. A probe is
// any that is parked: it waits for nothing else.
func (b *Batch) nextParked(now time.Time) (job, bool) {
	if !b.mayStart(now) {
		return job{}, false
	}
	first := -1
	for i := range b.parked {
		if b.free(&b.parked[i]) && (first < 0 || b.parked[i].due.Before(b.parked[first].due)) {
			first = i
		}
	}
	if first < 0 {
		return job{}, false
	}
	p := b.parked[first]
	if p.due.After(now) && !b.paused() {
		return job{}, false
	}
	b.parked = slices.Delete(b.parked, first, first+1)
	return b.job(job{parked: p}), true
}

// job marks a job that begins during a pause as its probe.
func (b *Batch) job(j job) job {
	j.probe = b.paused()
	b.pause.probing = j.probe
	return j
}

// ended notes the end of a job.
func (b *Batch) ended(e end) {
	b.inFlight--
	if e.job.probe {
		b.pause.probing = false
	}
	if e.work != "" {
		b.parked = append(b.parked, parked{work: e.work, due: e.due, res: e.res, behind: e.behind, spool: e.spool})
	}
	switch e.health {
	case healthy:
		b.row = b.row[:0]
		if b.paused() {
			b.pause = pause{}
			for i := range b.parked {
				if b.parked[i].spool { // the disk is well again
					b.parked[i].due = time.Now()
				}
			}
			b.emit(events.Resumed{})
		}
	case fault:
		b.hold(e, e.reason)
	case trouble:
		if !slices.Contains(b.row, e.folder) {
			b.row = append(b.row, e.folder)
		}
		if len(b.row) >= inARow || b.paused() {
			b.hold(e, fmt.Sprintf("%d folders in a row met: %s", len(b.row), e.reason))
		}
	case nothing:
		if e.job.probe {
			b.pause.until = time.Now() // it told nothing; take another
		}
	}
}

// hold pauses, or goes on pausing.
func (b *Batch) hold(e end, reason string) {
	if b.paused() && !e.job.probe {
		return // one of those that were in flight when it began
	}
	b.pause.n++
	wait := time.Duration(rand.Int64N(int64(b.set.Load().Retry.ceiling(b.pause.n)) + 1))
	wait = max(wait, e.retry)
	b.pause.reason, b.pause.until = reason, time.Now().Add(wait)
	b.emit(events.Paused{Disk: e.spool, Reason: reason, Wait: wait})
}
