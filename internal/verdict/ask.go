package verdict

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
)

// Asker asks for sessions whose verdict did not come. iDenfy forbids regular
// polling, so that is a single request, and one more after half a day, and after
// two days: each is on record before it leaves, so that neither a crash nor a
// restart makes more of them.
type Asker struct {
	Journal *journal.Journal
	Emit    events.Sink
	Came    func() // something new is in the journal

	// After says for how long a verdict is waited for before the first
	// request; 0: none is made.
	After func() time.Duration
	// Turn waits until the rate allows one more request.
	Turn func(ctx context.Context) error
	// Paused tells that nothing is to be asked now.
	Paused func() bool
	// Look asks.
	Look func(ctx context.Context, scanRef string) (idenfy.Standing, error)
}

// Times of the asker. The requests are never closer than spread, whatever an
// outage of the receiver left to be asked for.
const (
	askEvery   = 30 * time.Second
	spread     = time.Second // and as much again at random, twice
	secondAsk  = 11 * time.Hour
	thirdAsk   = 36 * time.Hour
	afterFault = 10 * time.Minute // of the service, or the way to it
)

// Run asks until ctx ends.
func (a *Asker) Run(ctx context.Context) {
	for wait := askEvery; pause(ctx, wait); {
		wait = askEvery
		if !a.round(ctx) {
			wait = afterFault
		}
	}
}

// pause waits, and reports whether it came to the end of that.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// round asks for what is due. well is false when the service can't be asked.
func (a *Asker) round(ctx context.Context) (well bool) {
	for ctx.Err() == nil {
		after := a.After()
		if after == 0 || a.Paused() {
			return true
		}
		now := time.Now()
		due, err := a.Journal.ToAsk(ctx, now, now.Add(-after), 1)
		if err != nil && ctx.Err() == nil {
			a.Emit(events.Trouble{What: "the journal could not be asked for verdicts that did not come, which is tried again", Err: err})
		}
		if err != nil || len(due) == 0 {
			return true
		}
		if !pause(ctx, spread+rand.N(2*spread)) || a.Turn(ctx) != nil {
			return true
		}
		if !a.askAt(ctx, due[0], time.Now()) {
			return false
		}
	}
	return true
}

// askAt makes a request, and records what came of it. well is false when the
// service can't be asked.
func (a *Asker) askAt(ctx context.Context, d journal.Due, now time.Time) (well bool) {
	again := map[int]time.Time{0: now.Add(secondAsk), 1: now.Add(thirdAsk)}[d.Asked]
	may, err := a.Journal.Ask(d, again)
	if err != nil {
		a.Emit(events.Trouble{What: "a session was not asked for, since that could not be recorded; it is tried again", Err: err})
		return false
	}
	if !may {
		return true
	}
	s, err := a.Look(ctx, d.ScanRef)
	told := events.Asked{N: d.Asked + 1}
	e, ok := errors.AsType[*idenfy.Error](err)
	if ok {
		told.Fault, told.HTTPStatus, told.Identifier = e.Class.String(), e.Status, e.Identifier
	} else if err != nil {
		told.Fault = idenfy.NotSent.String() // it could not even be made
	}
	a.Emit(told)
	if ok && notAsked(e) {
		if err := a.Journal.Unasked(d); err != nil { // then this one request is missing
			a.Emit(events.Trouble{What: "that a session was not asked for could not be recorded", Err: err})
		}
		return false
	}
	if err != nil {
		return true // the next one may tell
	}
	if _, err := a.Journal.Hear(answered(d.ScanRef, s, time.Now())); err != nil {
		a.Emit(events.Trouble{What: "what a status request told could not be recorded", Err: err})
		return false
	}
	a.Came()
	return true
}

// notAsked reports whether a request was none for its session: nothing of it
// left, or it met what any would, of the account. Whatever else is answered may
// be answered so to this session only, and always: it is a request that was made.
func notAsked(e *idenfy.Error) bool {
	return e.Class == idenfy.NotSent || e.Status == http.StatusUnauthorized || e.Status == http.StatusTooManyRequests
}
