package batch

import (
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"time"

	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
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
// pause that follows them is for all. Where that is doubtful they do.
func (r Retry) delay(res *sidecar.Result) time.Duration {
	n := 0
	list := tries(res)
	for i := len(list) - 1; i >= 0 && (charged(list[i]) || doubtful(list[i]) || busy(list[i])); i-- {
		n++
	}
	last := res.LastTry()
	var wait time.Duration
	if n > 0 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(res.ID)) // never fails
		jitter := rand.New(rand.NewPCG(h.Sum64(), uint64(last.N)))
		wait = time.Duration(jitter.Int64N(int64(r.ceiling(n)) + 1))
	}
	if last != nil {
		wait = max(wait, time.Duration(last.RetryAfter)*time.Second)
	}
	return wait
}

// due is the time of the next attempt. A clock that was set back can't make
// it later than the delay from now.
func (r Retry) due(res *sidecar.Result, now time.Time) time.Time {
	last := res.LastTry()
	if last == nil {
		return now
	}
	delay := r.delay(res)
	return now.Add(min(max(last.Finished.Add(delay).Sub(now), 0), delay))
}

// tries are what failed, or not, since it began to do what it tried last: to open
// a session, or to submit.
func tries(res *sidecar.Result) (list []*sidecar.Attempt) {
	if o := res.LastOpening(); o != nil && res.LastTry() == &o.Attempt {
		for i := range res.Sessions {
			list = append(list, &res.Sessions[i].Attempt)
		}
		return list
	}
	for i := range res.Attempts {
		list = append(list, &res.Attempts[i])
	}
	return list
}

// busy reports whether no session was opened since the person has an active one.
// That ends by itself, so it speaks against nobody.
func busy(a *sidecar.Attempt) bool {
	return a.State == sidecar.Answered && a.HTTPStatus == http.StatusConflict
}

// charged reports whether a failed attempt speaks against the folder rather
// than against the service: no answer, one that says server error, a request
// that broke off, or a refused token that could not be settled yet.
func charged(a *sidecar.Attempt) bool {
	switch a.State {
	case sidecar.NoAnswer, sidecar.Sending:
		return true
	case sidecar.Answered:
		return a.HTTPStatus >= 500 || a.Identifier == idenfy.InternalError || a.Identifier == idenfy.TokenNotValid
	default:
		return false
	}
}

// doubtful reports whether a failed attempt may speak against the folder, or
// against the account: how others fare tells.
func doubtful(a *sidecar.Attempt) bool {
	return a.State == sidecar.Answered && !charged(a) && idenfy.Doubtful(a.HTTPStatus, a.Identifier, a.RetryAfter > 0)
}

// charge adds the last attempt to what its folder has failed by itself; own
// tells that a doubtful one is. No attempt,
// and no gap between two, counts for more than twice Max, so neither an outage,
// nor a daemon that was off, nor a clock that was set forward uses up the time
// until it is given up.
func (r Retry) charge(l *journal.Life, own bool) {
	list := tries(l.Result)
	last := l.Result.LastTry()
	if last == nil || !charged(last) && !own {
		return
	}
	l.Charged++
	l.Spent += min(time.Duration(last.DurationMS)*time.Millisecond, 2*r.Max)
	for i := len(list) - 2; i >= 0; i-- {
		if a := list[i]; charged(a) || doubtful(a) {
			l.Spent += min(max(last.Started.Sub(a.Finished.Time), 0), 2*r.Max)
			return
		}
	}
}

// minCharged is how many failures of its own a folder has to have before it is
// given up, whatever the time: an outage, or a daemon that was off, is none.
const minCharged = 4

// over reports whether the folder is to be given up: GiveUpAfter has passed
// while it was being tried.
func (r Retry) over(l *journal.Life) bool {
	return r.GiveUpAfter > 0 && l.Charged >= minCharged && l.Spent >= r.GiveUpAfter
}
