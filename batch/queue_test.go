package batch

import (
	"fmt"
	"io"
	"slices"
	"syscall"
	"testing"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/sidecar"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// in is a task that is due so many seconds from now.
func in(id string, seconds int) task {
	return task{id: id, work: id, due: now.Add(time.Duration(seconds) * time.Second)}
}

func (t task) after(id string) task { t.behind = id; return t }
func (t task) found() task          { t.fresh = true; return t }
func (t task) onDisk() task         { t.disk = true; return t }

// closed is a gate that is shut for so many seconds more.
func closed(seconds, tries int) gate {
	return gate{reason: "x", until: now.Add(time.Duration(seconds) * time.Second), tries: tries}
}

// What begins now, one after the other, and whether a new folder may.
func TestQueueNext(t *testing.T) {
	for name, c := range map[string]struct {
		q     queue
		begin []string
		takes bool // before anything begins
		new   bool // and is preferred
	}{
		"nothing":                     {queue{limit: 2}, nil, true, false},
		"by when it was due":          {queue{limit: 9, waiting: []task{in("b", -1), in("c", 0), in("a", -2)}}, []string{"a", "b", "c"}, true, false},
		"not before":                  {queue{limit: 9, waiting: []task{in("a", 1)}}, nil, true, false},
		"the limit":                   {queue{limit: 2, waiting: []task{in("b", -1), in("c", 0), in("a", -2)}}, []string{"a", "b"}, true, false},
		"what is in flight counts":    {queue{limit: 2, inFlight: 2, waiting: []task{in("a", -2)}}, nil, false, false},
		"a limit that was lowered":    {queue{limit: 1, inFlight: 3, waiting: []task{in("a", -2)}}, nil, false, false},
		"what a start found is first": {queue{limit: 9, waiting: []task{in("a", -1).found()}}, []string{"a"}, false, false},
		"found, and not due":          {queue{limit: 9, waiting: []task{in("a", 9).found()}}, nil, false, false},
		"behind, until it is due":     {queue{limit: 9, waiting: []task{in("a", 9).after("x")}}, nil, true, false},
		"behind, and due":             {queue{limit: 9, waiting: []task{in("a", -9).after("x")}}, []string{"a"}, true, false},

		"shut":                         {queue{limit: 9, gate: closed(5, 1), waiting: []task{in("a", -1)}}, nil, false, false},
		"one probe":                    {queue{limit: 9, gate: closed(0, 1), waiting: []task{in("b", -1), in("a", -2)}}, []string{"a"}, false, false},
		"a probe before its time":      {queue{limit: 9, gate: closed(0, 1), waiting: []task{in("a", 100)}}, []string{"a"}, false, false},
		"a new folder probes":          {queue{limit: 9, gate: closed(0, 1)}, nil, true, false},
		"every other probe is new":     {queue{limit: 9, gate: closed(0, 2), waiting: []task{in("a", -1)}}, []string{"a"}, false, true},
		"new, and not yet":             {queue{limit: 9, gate: closed(5, 2)}, nil, false, false},
		"none while one probes":        {queue{limit: 9, gate: gate{reason: "x", until: now, probing: true, tries: 2}, waiting: []task{in("a", -1)}}, nil, false, false},
		"who waits behind can't probe": {queue{limit: 9, gate: closed(0, 1), waiting: []task{in("a", -1).after("x")}}, nil, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			if takes := c.q.takes(now); takes != c.takes {
				t.Errorf("takes %v", takes)
			}
			if is := c.q.prefersNew(now); is != c.new {
				t.Errorf("prefers new %v", is)
			}
			var got []string
			for next, ok := c.q.next(now); ok; next, ok = c.q.next(now) {
				began := c.q.begin(next)
				if began.probe != c.q.gate.shut() {
					t.Error("whether it is a probe")
				}
				got = append(got, began.id)
			}
			if !slices.Equal(got, c.begin) {
				t.Errorf("began %v, want %v", got, c.begin)
			}
		})
	}
}

// How long nothing will be due: never longer than the heartbeat, and never as
// short as to spin.
func TestQueueIdle(t *testing.T) {
	for name, c := range map[string]struct {
		q    queue
		want time.Duration
	}{
		"nothing":               {queue{limit: 1}, heartbeat},
		"due":                   {queue{limit: 1, waiting: []task{in("a", -5)}}, 0},
		"the first that is due": {queue{limit: 1, waiting: []task{in("a", 3), in("b", 2)}}, 2 * time.Second},
		"due late":              {queue{limit: 1, waiting: []task{in("a", 300)}}, heartbeat},
		"no place":              {queue{limit: 1, inFlight: 1, waiting: []task{in("a", -5)}}, heartbeat},
		"behind":                {queue{limit: 1, waiting: []task{in("a", 4).after("x")}}, 4 * time.Second},
		"shut":                  {queue{limit: 1, gate: closed(3, 1), waiting: []task{in("a", -5)}}, 3 * time.Second},
		"shut for long":         {queue{limit: 1, gate: closed(300, 1)}, heartbeat},
		"nobody to probe with":  {queue{limit: 1, gate: closed(-1, 1)}, heartbeat},
		"probing":               {queue{limit: 1, gate: gate{reason: "x", until: now.Add(time.Second), probing: true}}, heartbeat},
	} {
		if got := c.q.idle(now); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// The end of a task, and what it lets go on.
func TestQueueEnd(t *testing.T) {
	q := queue{limit: 2, waiting: []task{in("b", 30).after("a"), in("c", 30).after("z"), in("d", 30)}}
	a := q.begin(in("a", 0))
	again := in("a", 7)
	q.end(a, &again, now)
	if q.inFlight != 0 || len(q.waiting) != 4 || q.waiting[0].behind != "a" {
		t.Errorf("it goes on: %+v", q)
	}
	a = q.begin(a)
	q.waiting = q.waiting[:3]
	q.end(a, nil, now)
	if q.waiting[0].behind != "" || !q.waiting[0].due.Equal(now) || q.waiting[1].behind != "z" || q.waiting[2].due.Equal(now) {
		t.Errorf("it is over: %+v", q.waiting)
	}
	q.gate = closed(0, 1)
	p := q.begin(in("p", 0))
	if !p.probe || !q.gate.probing {
		t.Error("no probe")
	}
	q.end(in("was in flight before", 0), nil, now) // says nothing of the probe
	if !q.gate.probing {
		t.Error("the probe is forgotten")
	}
	q.end(p, nil, now)
	if q.gate.probing {
		t.Error("the probe is over")
	}
}

func TestGate(t *testing.T) {
	r := Retry{First: time.Second, Max: time.Minute}
	var g gate
	if g.shut() || !g.passes(now) {
		t.Error("it is open")
	}
	for n := 1; n <= 20; n++ {
		wait := g.fail("x", 0, r, now)
		if wait < 0 || wait > r.ceiling(n) || wait > r.Max || g.tries != n || !g.shut() {
			t.Errorf("try %d: %s", n, wait)
		}
		if !g.until.Equal(now.Add(wait)) || wait > 0 && g.passes(now.Add(wait-1)) || !g.passes(now.Add(wait)) {
			t.Errorf("try %d: until %s", n, g.until)
		}
	}
	if wait := g.fail("x", time.Hour, r, now); wait != time.Hour {
		t.Errorf("the service asked for an hour, it waits %s", wait)
	}
	q := queue{gate: g, waiting: []task{in("d", 30).onDisk(), in("s", 30)}}
	q.open(now)
	if q.gate.shut() || q.gate.tries != 0 || !q.waiting[0].due.Equal(now) || q.waiting[1].due.Equal(now) {
		t.Errorf("open: %+v", q)
	}
}

// Only what may have left whole leaves open whether it was taken.
func TestMeanings(t *testing.T) {
	proven := map[ending]bool{unfinished: true, notSent: true, changed: true, unreadable: true, serviceFault: true}
	for how := accepted; how <= unreadable; how++ {
		m, ok := meanings[how]
		if !ok || m.follow == nil {
			t.Errorf("ending %d has no meaning", how)
		}
		if (m.fate == journal.Unsettled) != (how == noAnswer || how == serverError) || proven[how] && m.fate != journal.Unsent {
			t.Errorf("ending %d: fate %s", how, m.fate)
		}
	}
	for _, c := range []struct {
		err  *idenfy.Error
		want ending
	}{
		{&idenfy.Error{Class: idenfy.Rejected, Identifier: "BAD_VALUE"}, rejected},
		{&idenfy.Error{Class: idenfy.Rejected, Identifier: idenfy.TokenNotValid}, tokenRefused},
		{&idenfy.Error{Class: idenfy.ServiceFault}, serviceFault},
		{&idenfy.Error{Class: idenfy.ServerError}, serverError},
		{&idenfy.Error{Class: idenfy.NoAnswer}, noAnswer},
		{&idenfy.Error{Class: idenfy.Unfinished}, unfinished},
		{&idenfy.Error{Class: idenfy.NotSent}, notSent},
		{&idenfy.Error{Class: idenfy.Withheld, Err: fmt.Errorf("x: %w", drop.ErrChanged)}, changed},
		{&idenfy.Error{Class: idenfy.Withheld, Err: io.ErrUnexpectedEOF}, changed},
		{&idenfy.Error{Class: idenfy.Withheld, Err: fmt.Errorf("read: %w", syscall.EIO)}, unreadable},
		{&idenfy.Error{Class: idenfy.Withheld, Err: syscall.ESTALE}, unreadable},
	} {
		if got := endingOf(c.err); got != c.want {
			t.Errorf("%+v: %d, want %d", c.err, got, c.want)
		}
	}
}

// Every state has its way on, and what is in the journal tells the state.
func TestStates(t *testing.T) {
	for s := stray; s <= unrecorded; s++ {
		if entries[s] == nil {
			t.Errorf("state %d has no way on", s)
		}
	}
	attempt := func(s sidecar.State, identifier string) *sidecar.Result {
		return &sidecar.Result{Outcome: sidecar.Pending, Attempts: []sidecar.Attempt{{N: 1, State: s, Identifier: identifier}}}
	}
	work := task{id: "x", work: "a.x"}
	for name, c := range map[string]struct {
		task task
		life *journal.Life
		want state
	}{
		"no id":                 {task{work: "a"}, nil, stray},
		"an id of nobody's":     {work, nil, foreign},
		"an arrival":            {task{id: "x", arrival: &drop.Arrival{}}, &journal.Life{State: journal.Claimed}, arrived},
		"claimed":               {work, &journal.Life{State: journal.Claimed}, claimed},
		"pending":               {work, &journal.Life{State: journal.Pending, Result: &sidecar.Result{Outcome: sidecar.Pending}}, waiting},
		"cut off":               {work, &journal.Life{State: journal.Pending, Result: attempt(sidecar.Sending, "")}, sending},
		"no answer":             {work, &journal.Life{State: journal.Pending, Result: attempt(sidecar.NoAnswer, "")}, waiting},
		"the token was refused": {work, &journal.Life{State: journal.Pending, Result: attempt(sidecar.Answered, idenfy.TokenNotValid)}, refused},
		"decided":               {work, &journal.Life{State: journal.Pending, Result: &sidecar.Result{Outcome: sidecar.Accepted}}, decided},
		"ended":                 {work, &journal.Life{State: journal.Ended, Place: "done"}, ended},
		"moved back into work":  {work, &journal.Life{State: journal.Filed, Place: "done"}, ended},
		"taken out, and back":   {work, &journal.Life{State: journal.Filed}, returned},
		"not recorded":          {task{id: "x", work: "a.x", unsaved: &journal.Life{}}, nil, unrecorded},
	} {
		if got := (&visit{task: c.task, life: c.life}).state(); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// What can't be read for now, and nothing else, is no change of a folder.
func TestUnreadableNow(t *testing.T) {
	unread, missing := meta.Reason{Code: "unreadable", Message: "FACE.jpg"}, meta.Reason{Code: "missing_file"}
	for _, c := range []struct {
		rep  meta.Report
		want string
	}{
		{meta.Report{}, ""},
		{meta.Report{Waits: []meta.Reason{unread}}, "FACE.jpg"},
		{meta.Report{Waits: []meta.Reason{unread, unread}}, "FACE.jpg"},
		{meta.Report{Waits: []meta.Reason{unread, missing}}, ""},
		{meta.Report{Waits: []meta.Reason{missing}}, ""},
		{meta.Report{Waits: []meta.Reason{unread}, Invalid: []meta.Reason{{Code: "bad_value"}}}, ""},
	} {
		if got := unreadableNow(&c.rep); got != c.want {
			t.Errorf("%+v: %q", c.rep, got)
		}
	}
}
