package journal_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// hash stands for the SHA-256 of a token.
func hash(token string) string { return strings.Repeat(token, 64) }

// before is an earlier life, or that of another folder.
type before struct {
	state   journal.State
	outcome sidecar.Outcome
	fate    journal.Fate
	token   string // one letter
	by      string // what the folder in question is known by: result (and dir, as when it was moved), named (a result only), dir or token
}

var (
	pending     = before{journal.Pending, sidecar.Pending, journal.Unsettled, "a", "token"}
	notYet      = before{journal.Pending, sidecar.Pending, journal.Unsent, "a", "token"}
	acceptedOwn = before{journal.Filed, sidecar.Accepted, journal.Taken, "a", "result"}
	rejectedOwn = before{journal.Filed, sidecar.Rejected, journal.Refused, "a", "result"}
	invalidOwn  = before{journal.Filed, sidecar.Invalid, journal.Unsent, "a", "result"}
	unknownOwn  = before{journal.Filed, sidecar.Unknown, journal.Unsettled, "a", "result"}
	gaveUpOwn   = before{journal.Filed, sidecar.GaveUp, journal.Unsettled, "a", "result"}
)

func (b before) knownBy(by string) before { b.by = by; return b }

// enter makes the lives known, and returns the question that a new one asks.
func enter(t *testing.T, j *journal.Journal, token string, lives ...before) (journal.Question, []string) {
	t.Helper()
	id := spool.NewID()
	q := journal.Question{Life: &journal.Life{ID: id, State: journal.Pending, Fate: journal.Unsent, Token: hash(token), Dir: "dir-" + id, Place: "work", Result: &sidecar.Result{
		ID: id, Folder: "case", Outcome: sidecar.Pending, Attempts: []sidecar.Attempt{{N: 1, Started: sidecar.Now(), State: sidecar.Sending}},
	}}}
	var ids []string
	for _, b := range lives {
		old := spool.NewID()
		ids = append(ids, old)
		l := &journal.Life{
			ID: old, State: b.state, Fate: b.fate, Took: b.fate != journal.Unsent, Token: hash(b.token), Place: "failed", Name: "case",
			Result: &sidecar.Result{ID: old, Folder: "case", Outcome: b.outcome},
		}
		switch b.by {
		case "named":
			q.Life.Prior = append(q.Life.Prior, old)
		case "result":
			q.Life.Prior, l.Dir = append(q.Life.Prior, old), q.Life.Dir
		case "dir":
			l.Dir = q.Life.Dir
		}
		must(t, j.Adopt([]journal.Adopted{{Lives: []*journal.Life{l}}}))
	}
	must(t, j.Claim(id, "inbox", "case"))
	return q, ids
}

func decide(t *testing.T, j *journal.Journal, id string, action sidecar.Action, forced bool) {
	t.Helper()
	l, err := j.Load(t.Context(), id)
	must(t, err)
	must(t, j.Decide(l, l.Fate, sidecar.Decision{At: sidecar.Now(), Action: action, Forced: forced, Result: id}, "", nil))
}

// The rule itself.
func TestBegin(t *testing.T) {
	const requeued, resubmit = sidecar.Requeued, sidecar.Resubmit
	for name, c := range map[string]struct {
		others []before
		token  string
		action sidecar.Action // that a person decided about the first
		force  bool
		unused bool
		want   journal.Verdict
		own    bool
		forced bool
	}{
		"nothing before": {token: "a", want: journal.Send},

		"another is in work with this token":              {others: []before{pending}, token: "a", want: journal.Wait},
		"this folder's copy is in work, other token":      {others: []before{pending.knownBy("named")}, token: "b", want: journal.Wait, own: true},
		"another is in work, and has not sent":            {others: []before{notYet}, token: "a", want: journal.Send},
		"another is in work, one was taken":               {others: []before{acceptedOwn, pending}, token: "a", want: journal.Wait, own: true},
		"another is in work, forced":                      {others: []before{unknownOwn, pending}, token: "a", action: resubmit, force: true, want: journal.Wait, own: true},
		"another is in work with another's token":         {others: []before{pending}, token: "b", want: journal.Send},
		"taken, same token":                               {others: []before{acceptedOwn}, token: "a", want: journal.Before, own: true},
		"taken, other token":                              {others: []before{acceptedOwn}, token: "b", want: journal.Before, own: true},
		"taken, known by the token only":                  {others: []before{acceptedOwn.knownBy("token")}, token: "a", want: journal.Before},
		"taken, known by the directory":                   {others: []before{acceptedOwn.knownBy("dir")}, token: "b", want: journal.Before, own: true},
		"taken, its result was copied":                    {others: []before{acceptedOwn.knownBy("named")}, token: "b", want: journal.Before, own: true},
		"taken, its result was copied, requeued by force": {others: []before{acceptedOwn.knownBy("named")}, token: "b", action: requeued, force: true, want: journal.Before, own: true},
		"open, its result was copied":                     {others: []before{unknownOwn.knownBy("named")}, token: "b", want: journal.Maybe, own: true},
		"taken, known by nothing":                         {others: []before{acceptedOwn.knownBy("token")}, token: "b", want: journal.Send},
		"taken, requeued":                                 {others: []before{acceptedOwn}, token: "b", action: requeued, want: journal.Before, own: true},
		"taken, requeued by force":                        {others: []before{acceptedOwn}, token: "b", action: requeued, force: true, want: journal.Send, own: true, forced: true},
		"taken, requeued by force, same token":            {others: []before{acceptedOwn}, token: "a", action: requeued, force: true, want: journal.Before, own: true},
		"taken, then invalid":                             {others: []before{acceptedOwn, invalidOwn}, token: "b", want: journal.Before, own: true},
		"taken, and another open":                         {others: []before{acceptedOwn, unknownOwn}, token: "b", want: journal.Before, own: true},
		"taken, and another open, forced":                 {others: []before{acceptedOwn, unknownOwn}, token: "b", action: requeued, force: true, want: journal.Send, own: true, forced: true},
		"taken, decided to be accepted":                   {others: []before{acceptedOwn}, token: "b", action: sidecar.Confirmed, force: true, want: journal.Before, own: true},
		"refused":                                         {others: []before{rejectedOwn}, token: "a", want: journal.Send, own: true},
		"refused, other token":                            {others: []before{rejectedOwn}, token: "b", want: journal.Send, own: true},
		"nothing was sent":                                {others: []before{invalidOwn}, token: "b", want: journal.Send, own: true},
		"open, same token":                                {others: []before{unknownOwn}, token: "a", want: journal.Maybe, own: true},
		"open, other token":                               {others: []before{unknownOwn}, token: "b", want: journal.Maybe, own: true},
		"open, known by the token only":                   {others: []before{unknownOwn.knownBy("token")}, token: "a", want: journal.Maybe},
		"open, known by the directory":                    {others: []before{unknownOwn.knownBy("dir")}, token: "b", want: journal.Maybe, own: true},
		"open, then invalid":                              {others: []before{unknownOwn, invalidOwn}, token: "b", want: journal.Maybe, own: true},
		"open, then rejected":                             {others: []before{unknownOwn, rejectedOwn}, token: "b", want: journal.Maybe, own: true},
		"open, its session is unused":                     {others: []before{unknownOwn}, token: "a", unused: true, want: journal.Send, own: true},
		"open, another session is unused":                 {others: []before{unknownOwn}, token: "b", unused: true, want: journal.Maybe, own: true},
		"open, resubmitted":                               {others: []before{unknownOwn}, token: "a", action: resubmit, want: journal.Send, own: true},
		"open, resubmitted with another token":            {others: []before{unknownOwn}, token: "b", action: resubmit, want: journal.Maybe, own: true},
		"open, resubmitted by force":                      {others: []before{unknownOwn}, token: "a", action: resubmit, force: true, want: journal.Send, own: true, forced: true},
		"open, resubmitted by force, other token":         {others: []before{unknownOwn}, token: "b", action: resubmit, force: true, want: journal.Send, own: true, forced: true},
		"given up, same token":                            {others: []before{gaveUpOwn}, token: "a", want: journal.Send, own: true},
		"given up, other token":                           {others: []before{gaveUpOwn}, token: "b", want: journal.Maybe, own: true},
		"given up, requeued, other token":                 {others: []before{gaveUpOwn}, token: "b", action: requeued, want: journal.Maybe, own: true},
		"given up, requeued by force, other token":        {others: []before{gaveUpOwn}, token: "b", action: requeued, force: true, want: journal.Send, own: true, forced: true},
		"given up, and another open, same token":          {others: []before{gaveUpOwn, unknownOwn}, token: "a", want: journal.Maybe, own: true},
		"given up twice, with two tokens":                 {others: []before{gaveUpOwn, {journal.Filed, sidecar.GaveUp, journal.Unsettled, "b", "result"}}, token: "b", want: journal.Maybe, own: true},
		"open, ended but not moved":                       {others: []before{{journal.Ended, sidecar.Unknown, journal.Unsettled, "a", "token"}}, token: "a", want: journal.Maybe},
		"taken away from work while it may be accepted":   {others: []before{{journal.Filed, sidecar.Unknown, journal.Unsettled, "a", "token"}}, token: "a", want: journal.Maybe},
	} {
		t.Run(name, func(t *testing.T) {
			for _, only := range []bool{true, false} { // asked only, it changes nothing
				_, j := create(t)
				q, ids := enter(t, j, c.token, c.others...)
				if c.action != "" {
					decide(t, j, ids[0], c.action, c.force)
				}
				q.Unused, q.Only = c.unused, only
				a, err := j.Begin(q)
				must(t, err)
				if a.Verdict != c.want || a.Own != c.own || a.Forced != c.forced {
					t.Errorf("only %v: verdict %d, own %v, forced %v; want %d, %v, %v", only, a.Verdict, a.Own, a.Forced, c.want, c.own, c.forced)
				}
				if a.Verdict != journal.Send && a.Other.ID == "" {
					t.Error("it doesn't say because of whom")
				}
				l, err := j.Load(t.Context(), q.Life.ID)
				must(t, err)
				began := a.Verdict == journal.Send && !only
				if l.Took != began || len(l.Result.Attempts) == 1 != began || l.Forced != (began && c.forced) || (l.Fate == journal.Unsettled) != began {
					t.Errorf("only %v: recorded %+v, %d attempts", only, l, len(l.Result.Attempts))
				}
				if l.Token != hash(c.token) {
					t.Error("the token is not recorded")
				}
				if only && c.want == journal.Send { // the real question finds what was decided
					q.Only = false
					if a, err := j.Begin(q); err != nil || a.Verdict != journal.Send || a.Forced != c.forced {
						t.Errorf("after asking: %+v, %v", a, err)
					}
				}
			}
		})
	}
}

// next is a further life of the folder, which asks.
func next(t *testing.T, j *journal.Journal, token string, prior ...string) (journal.Answer, *journal.Life) {
	t.Helper()
	q, _ := enter(t, j, token)
	if q.Life.Prior = prior; len(prior) > 0 { // the folder itself, as after mv
		was, err := j.Load(t.Context(), prior[0])
		must(t, err)
		q.Life.Dir = was.Dir
	}
	a, err := j.Begin(q)
	must(t, err)
	l, err := j.Load(t.Context(), q.Life.ID)
	must(t, err)
	return a, l
}

// What a person decided lets one life be sent, and no other.
func TestPermitIsUsedUp(t *testing.T) {
	for _, fate := range []journal.Fate{journal.Taken, journal.Unsettled, journal.Refused} {
		_, j := create(t)
		_, ids := enter(t, j, "z", acceptedOwn)
		decide(t, j, ids[0], sidecar.Requeued, true)
		a, l := next(t, j, "b", ids[0])
		if a.Verdict != journal.Send || !a.Forced || !l.Forced {
			t.Fatalf("%+v", a)
		}
		// Another attempt of the same life needs none.
		if a, err := j.Begin(journal.Question{Life: l}); err != nil || a.Verdict != journal.Send || !a.Forced {
			t.Errorf("%+v, %v", a, err)
		}
		l.State, l.Fate, l.Result.Outcome = journal.Filed, fate, sidecar.Rejected
		must(t, j.Put(l))
		if a, _ := next(t, j, "c", ids[0], l.ID); a.Verdict != journal.Before {
			t.Errorf("%s: a permit was used twice: %+v", fate, a)
		}
	}
}

// What a record of before tells of decisions lets nothing be sent.
func TestAdoptedDecision(t *testing.T) {
	_, j := create(t)
	id := spool.NewID()
	must(t, j.Adopt([]journal.Adopted{{
		Lives:     []*journal.Life{{ID: id, State: journal.Filed, Fate: journal.Taken, Took: true, Token: hash("a"), Dir: "dir", Result: &sidecar.Result{ID: id, Outcome: sidecar.Accepted}}},
		Decisions: []sidecar.Decision{{At: sidecar.Now(), Action: sidecar.Requeued, Forced: true, Result: id}},
	}}))
	a, l := next(t, j, "b", id)
	if a.Verdict != journal.Before {
		t.Errorf("%+v", a)
	}
	if list, err := j.Decisions(t.Context(), l.ID); err != nil || len(list) != 1 {
		t.Errorf("the decision is not kept: %v, %v", list, err)
	}
}

// Whoever takes the token first sends; asking and taking are one step.
func TestOneOfMany(t *testing.T) {
	_, j := create(t)
	const many = 20
	verdicts := make([]journal.Verdict, many)
	var questions []journal.Question
	for range many {
		q, _ := enter(t, j, "a")
		questions = append(questions, q)
	}
	var group sync.WaitGroup
	for n, q := range questions {
		group.Go(func() {
			a, err := j.Begin(q)
			if err != nil {
				t.Error(err)
			}
			verdicts[n] = a.Verdict
		})
	}
	group.Wait()
	count := map[journal.Verdict]int{}
	for _, v := range verdicts {
		count[v]++
	}
	if count[journal.Send] != 1 || count[journal.Wait] != many-1 {
		t.Errorf("verdicts %v", count)
	}
}

// A decision with a fate is of those that it is made with and that may have
// been taken.
func TestDecideSettlesAll(t *testing.T) {
	_, j := create(t)
	q, ids := enter(t, j, "a", unknownOwn, unknownOwn, acceptedOwn)
	q.Only = true
	_, err := j.Begin(q) // now they are one
	must(t, err)
	l, err := j.Load(t.Context(), ids[0])
	must(t, err)
	must(t, j.Decide(l, l.Fate, sidecar.Decision{At: sidecar.Now(), Action: sidecar.Denied, Result: l.ID}, journal.Refused, ids))
	want := []journal.Fate{journal.Refused, journal.Refused, journal.Taken}
	for n, id := range ids {
		if l, err := j.Load(t.Context(), id); err != nil || l.Fate != want[n] {
			t.Errorf("%d: %+v, %v", n, l, err)
		}
	}
	h, err := j.History(t.Context(), ids[0])
	must(t, err)
	if len(h.Open) != 0 || h.Taken == nil || h.Taken.ID != ids[2] {
		t.Errorf("history %+v", h)
	}
	must(t, j.Settle(ids[2], journal.Refused)) // it is not open
	if l, err := j.Load(t.Context(), ids[2]); err != nil || l.Fate != journal.Taken {
		t.Errorf("%+v, %v", l, err)
	}
}

// Lives that are found to be of one folder are so from then on, whatever they
// were known by.
func TestCasesJoin(t *testing.T) {
	_, j := create(t)
	_, ids := enter(t, j, "z", before{journal.Filed, sidecar.Accepted, journal.Taken, "a", "token"})
	// It comes with the result and another token, and is invalid; then only
	// with that token, and no result.
	q, _ := enter(t, j, "b")
	q.Life.Prior, q.Only = []string{ids[0]}, true
	a, err := j.Begin(q)
	must(t, err)
	l := q.Life
	l.State, l.Result.Outcome, l.Result.Attempts = journal.Filed, sidecar.Invalid, nil
	must(t, j.Put(l))
	if a.Verdict != journal.Before {
		t.Errorf("%+v", a)
	}
	if a, _ := next(t, j, "b"); a.Verdict != journal.Before || a.Own {
		t.Errorf("%s", fmt.Sprintf("%+v", a))
	}
}

// What a person forced covers the doubts that there were, and none that came
// after.
func TestPermitBeforeADoubt(t *testing.T) {
	_, j := create(t)
	q, ids := enter(t, j, "b", unknownOwn)
	decide(t, j, ids[0], sidecar.Requeued, true)
	later := spool.NewID()
	must(t, j.Adopt([]journal.Adopted{{Lives: []*journal.Life{{
		ID: later, State: journal.Filed, Fate: journal.Unsettled, Took: true, Token: hash("a"), Place: "hold", Name: "copy",
		Result: &sidecar.Result{ID: later, Folder: "copy", Outcome: sidecar.Unknown, Times: sidecar.Times{Finished: sidecar.Time{Time: time.Now().Add(time.Second)}}},
	}}}}))
	a, err := j.Begin(q)
	must(t, err)
	if a.Verdict != journal.Maybe || a.Forced {
		t.Errorf("%+v", a)
	}
}

// A folder that names another's life is held against it, also once the result
// that named it is gone; and the other is not held against that folder, unless
// it has the other's meta.yaml or one of its images.
func TestStrangersLife(t *testing.T) {
	for name, c := range map[string]struct {
		agrees bool
		change func(q *journal.Question)
	}{
		"a result only":    {false, func(*journal.Question) {}},
		"another image":    {false, func(q *journal.Question) { q.Sums = []string{hash("8")} }},
		"an image of it":   {true, func(q *journal.Question) { q.Sums = []string{hash("8"), hash("9")} }},
		"its meta.yaml":    {true, func(q *journal.Question) { q.Life.Result.Request.MetaSHA256 = hash("7") }},
		"no name of a dir": {true, func(q *journal.Question) { q.Life.Dir = "" }},
	} {
		t.Run(name, func(t *testing.T) {
			_, j := create(t)
			first := spool.NewID()
			must(t, j.Adopt([]journal.Adopted{{Lives: []*journal.Life{{
				ID: first, State: journal.Filed, Fate: journal.Refused, Took: true, Token: hash("a"), Dir: "hers", Place: "failed", Name: "hers",
				Result: &sidecar.Result{ID: first, Folder: "hers", Outcome: sidecar.Rejected, Request: sidecar.Request{MetaSHA256: hash("7"), Images: []sidecar.Image{{Step: "FACE", SHA256: hash("9")}}}},
			}}}}))
			q, _ := enter(t, j, "b")
			q.Life.Prior = []string{first}
			c.change(&q)
			if a, err := j.Begin(q); err != nil || a.Verdict != journal.Send || !a.Own {
				t.Fatalf("%+v, %v", a, err)
			}
			l, err := j.Load(t.Context(), q.Life.ID)
			must(t, err)
			l.State, l.Fate, l.Result.Outcome = journal.Filed, journal.Taken, sidecar.Accepted
			must(t, j.Put(l))
			// Hers comes again.
			h, err := j.History(t.Context(), first)
			must(t, err)
			if (h.Taken != nil) != c.agrees {
				t.Errorf("her history: %+v", h)
			}
			hers, _ := enter(t, j, "c")
			hers.Life.Dir, hers.Life.Prior = "hers", []string{first}
			a, err := j.Begin(hers)
			must(t, err)
			if want := map[bool]journal.Verdict{true: journal.Before, false: journal.Send}[c.agrees]; a.Verdict != want {
				t.Fatalf("hers: %+v", a)
			}
			if c.agrees {
				return
			}
			l, err = j.Load(t.Context(), hers.Life.ID)
			must(t, err)
			l.State, l.Fate, l.Result.Outcome = journal.Filed, journal.Taken, sidecar.Accepted
			must(t, j.Put(l))
			// The other comes again, with another token and without the result.
			again, _ := enter(t, j, "d")
			again.Life.Dir = q.Life.Dir
			if a, err := j.Begin(again); err != nil || a.Verdict != journal.Before {
				t.Errorf("the other: %+v, %v", a, err)
			}
		})
	}
}
