package batch

import (
	"testing"
	"time"

	"idenfy-batch/internal/journal"
	"idenfy-batch/sidecar"
)

func attempts(states ...sidecar.State) []sidecar.Attempt {
	var list []sidecar.Attempt
	for i, s := range states {
		a := sidecar.Attempt{N: i + 1, State: s, Started: sidecar.Now(), Finished: sidecar.Now()}
		if s == sidecar.Answered {
			a.HTTPStatus, a.Identifier = 429, "TOO_MANY_REQUESTS"
		}
		list = append(list, a)
	}
	return list
}

func TestCeiling(t *testing.T) {
	r := Retry{First: 2 * time.Second, Max: 10 * time.Minute}
	for n, want := range map[int]time.Duration{
		1: 2 * time.Second, 2: 4 * time.Second, 5: 32 * time.Second, 9: 512 * time.Second, 10: 10 * time.Minute, 1000: 10 * time.Minute,
	} {
		if got := r.ceiling(n); got != want {
			t.Errorf("ceiling(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestDelay(t *testing.T) {
	r := Retry{First: 2 * time.Second, Max: 10 * time.Minute}
	no, answered, notSent := sidecar.NoAnswer, sidecar.Answered, sidecar.NotSent
	for _, c := range []struct {
		attempts []sidecar.Attempt
		most     time.Duration
	}{
		{nil, 0},
		{attempts(no), 2 * time.Second},
		{attempts(no, no, no), 8 * time.Second},
		{attempts(no, no, answered, no), 2 * time.Second}, // an answer ends the row
		{attempts(no, notSent), 0},                        // the pause is for all
		{attempts(answered), 0},
	} {
		var longest time.Duration
		for id := range 300 {
			res := &sidecar.Result{ID: string(rune('A' + id)), Attempts: c.attempts}
			d := r.delay(res)
			if d != r.delay(res) {
				t.Fatal("the delay is not a function of what is recorded")
			}
			longest = max(longest, d)
		}
		if longest > c.most || longest < c.most*9/10 {
			t.Errorf("%v: the longest of 300 delays is %s, want up to %s", states(c.attempts), longest, c.most)
		}
	}
	res := &sidecar.Result{ID: "A", Attempts: attempts(answered)}
	res.Attempts[0].RetryAfter = 30
	if d := r.delay(res); d != 30*time.Second {
		t.Errorf("Retry-After of 30 s gives %s", d)
	}
}

// A fault that may be the folder's own delays it, and uses its time up only
// where it is known to be its own.
func TestDoubtful(t *testing.T) {
	r := Retry{First: 2 * time.Second, Max: 10 * time.Minute, GiveUpAfter: time.Hour}
	l := &journal.Life{Result: &sidecar.Result{ID: "A"}}
	at := time.Now()
	for n := 1; n <= 40; n++ {
		own := n > 20
		l.Result.Attempts = append(l.Result.Attempts, sidecar.Attempt{
			N: n, State: sidecar.Answered, HTTPStatus: 403, Started: sidecar.Time{Time: at}, Finished: sidecar.Time{Time: at},
		})
		r.charge(l, own)
		if d := r.delay(l.Result); d > r.ceiling(n) || n > 12 && d == 0 {
			t.Errorf("after %d: %s", n, d)
		}
		at = at.Add(10 * time.Minute)
		if over := r.over(l); over != (n >= 26) || !own && l.Charged != 0 {
			t.Errorf("after %d: %v, %d charged, %s spent", n, over, l.Charged, l.Spent)
		}
	}
}

func states(list []sidecar.Attempt) (s []sidecar.State) {
	for _, a := range list {
		s = append(s, a.State)
	}
	return s
}

func TestDueWithClocksThatJump(t *testing.T) {
	r := Retry{First: 2 * time.Second, Max: 10 * time.Minute}
	now := time.Now()
	res := &sidecar.Result{ID: "A", Attempts: attempts(sidecar.NoAnswer)}
	delay := r.delay(res)
	for name, c := range map[string]struct {
		finished time.Time
		want     time.Duration
	}{
		"just now":            {now, delay},
		"a restart later":     {now.Add(-time.Hour), 0},
		"the clock went back": {now.Add(time.Hour), delay},
	} {
		res.Attempts[0].Finished = sidecar.Time{Time: c.finished}
		if got := r.due(res, now).Sub(now); got != c.want {
			t.Errorf("%s: due in %s, want %s", name, got, c.want)
		}
	}
}

// spent is a life with these attempts, charged one by one.
func spent(r Retry, res *sidecar.Result) *journal.Life {
	l := &journal.Life{Result: &sidecar.Result{}}
	for _, a := range res.Attempts {
		l.Result.Attempts = append(l.Result.Attempts, a)
		r.charge(l, false)
	}
	return l
}

func TestOver(t *testing.T) {
	r := Retry{GiveUpAfter: time.Hour, Max: 10 * time.Minute}
	no := sidecar.NoAnswer
	// every spreads n failures evenly.
	every := func(gap time.Duration, n int) *sidecar.Result {
		res := &sidecar.Result{}
		for i := range n {
			at := sidecar.Time{Time: time.Now().Add(time.Duration(i) * gap)}
			res.Attempts = append(res.Attempts, sidecar.Attempt{N: i + 1, Started: at, Finished: at, State: no})
		}
		return res
	}
	old := every(time.Hour, 4)
	for name, c := range map[string]struct {
		res  *sidecar.Result
		over bool
	}{
		"four at once":        {every(0, 4), false},
		"an hour of failures": {every(10*time.Minute, 7), true},
		"almost":              {every(10*time.Minute, 6), false},
		"three long outages count for 20 min each":   {old, true},
		"two, or a clock set forward twice, for 40":  {every(1000*time.Hour, 3), false},
		"a clock that was set back uses no time up":  {every(-time.Hour, 10), false},
		"a clock that jumps for each of the attempt": {every(1000*time.Hour, 4), true},
	} {
		if r.over(spent(r, c.res)) != c.over {
			t.Errorf("%s: want %v", name, c.over)
		}
	}
	for _, res := range []*sidecar.Result{
		{Attempts: attempts(no, no, no)},
		{Attempts: attempts(sidecar.NotSent, sidecar.NotSent, sidecar.Answered, sidecar.NotSent, sidecar.NotSent)},
		{},
	} {
		if r.over(spent(r, res)) {
			t.Errorf("given up after %v", states(res.Attempts))
		}
	}
	if (Retry{}).over(spent(r, old)) {
		t.Error("given up without a limit")
	}
}

// An attempt whose end nobody saw, because the daemon was off, uses no more of
// the time up than any other.
func TestOffIsNoTime(t *testing.T) {
	r := Retry{GiveUpAfter: 24 * time.Hour, Max: 10 * time.Minute}
	l := &journal.Life{Charged: 3, Result: &sidecar.Result{Attempts: attempts(sidecar.NoAnswer)}}
	l.Result.Attempts[0].DurationMS = (25 * time.Hour).Milliseconds()
	r.charge(l, false)
	if r.over(l) || l.Charged != 4 {
		t.Errorf("%+v", l)
	}
}
