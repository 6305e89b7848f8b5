package batch

import (
	"hash/fnv"
	"math/rand/v2"
	"time"

	"idenfy-batch/internal/idenfy"
	"idenfy-batch/sidecar"
)

// Retry says how failures that may pass are tried again.
type Retry struct {
	First       time.Duration // upper bound of the first delay
	Max         time.Duration // upper bound of any delay
	GiveUpAfter time.Duration // from a folder's first failure of its own; 0: never
}

// ceiling is the upper bound of the n-th delay, from 1.
func (r Retry) ceiling(n int) time.Duration {
	d := r.First
	for ; n > 1 && d < r.Max; n-- {
		d *= 2
	}
	return min(d, r.Max)
}

// delay is how long after its end the last attempt is followed by the next: a
// pure function of what is recorded, so that a restart changes nothing.
// Exponential, with full jitter that is drawn from the id.
//
// Attempts that failed by the service's fault cost the folder nothing: the
// pause that follows them is for all.
func (r Retry) delay(res *sidecar.Result) time.Duration {
	n := 0
	for i := len(res.Attempts) - 1; i >= 0 && charged(&res.Attempts[i]); i-- {
		n++
	}
	var wait time.Duration
	if n > 0 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(res.ID)) // never fails
		jitter := rand.New(rand.NewPCG(h.Sum64(), uint64(n)))
		wait = time.Duration(jitter.Int64N(int64(r.ceiling(n)) + 1))
	}
	if last := res.LastAttempt(); last != nil {
		wait = max(wait, time.Duration(last.RetryAfter)*time.Second)
	}
	return wait
}

// due is the time of the next attempt. A clock that was set back can't make
// it later than the delay from now.
func (r Retry) due(res *sidecar.Result, now time.Time) time.Time {
	last := res.LastAttempt()
	if last == nil {
		return now
	}
	delay := r.delay(res)
	return now.Add(min(max(last.Finished.Add(delay).Sub(now), 0), delay))
}

// charged reports whether a failed attempt speaks against the folder rather
// than against the service: no answer, one that says server error, or a
// refused token that could not be settled yet.
func charged(a *sidecar.Attempt) bool {
	return maybeProcessed(a) || a.State == sidecar.Answered && a.Identifier == idenfy.TokenNotValid
}

// maybeProcessed reports whether the attempt may have been processed without
// our knowing.
func maybeProcessed(a *sidecar.Attempt) bool {
	return noAnswer(a) || a.State == sidecar.Answered && (a.HTTPStatus >= 500 || a.Identifier == idenfy.InternalError)
}

func noAnswer(a *sidecar.Attempt) bool {
	return a.State == sidecar.NoAnswer || a.State == sidecar.Sending
}

// anyAttempt reports whether one of the attempts is such.
func anyAttempt(attempts []sidecar.Attempt, such func(*sidecar.Attempt) bool) bool {
	for i := range attempts {
		if such(&attempts[i]) {
			return true
		}
	}
	return false
}

// minCharged is how many failures of its own a folder has to have before it is
// given up, whatever the time: an outage, or a daemon that was off, is none.
const minCharged = 4

// over reports whether the folder is to be given up: GiveUpAfter has passed
// while it was being tried. No gap between two attempts counts for more than
// twice Max, so neither an outage, nor a daemon that was off, nor a clock that
// was set forward uses the time up.
func (r Retry) over(res *sidecar.Result) bool {
	n := 0
	var spent time.Duration
	var last time.Time
	for i := range res.Attempts {
		a := &res.Attempts[i]
		if !charged(a) {
			continue
		}
		if n++; n > 1 {
			spent += min(max(a.Started.Sub(last), 0), 2*r.Max)
		}
		last = a.Finished.Time
		spent += time.Duration(a.DurationMS) * time.Millisecond
	}
	return r.GiveUpAfter > 0 && n >= minCharged && spent >= r.GiveUpAfter
}
