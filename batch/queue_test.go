package batch

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/sidecar"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// in is a task that is due so many seconds from now.
func in(id string, seconds int) task {
	return task{id: id, work: id, asks: true, due: now.Add(time.Duration(seconds) * time.Second)}
}

func (t task) after(id string) task { t.behind = id; return t }
func (t task) found() task          { t.fresh = true; return t }
func (t task) onDisk() task         { t.disk = true; return t }
func (t task) moves() task          { t.asks = false; return t }
func (t task) inDoubt() task        { t.doubted = true; return t }
func (t task) again() task          { t.failed = true; return t }

// closed is a gate that is shut for so many seconds more.
func closed(seconds, tries int) gate {
	return gate{reason: "x", until: now.Add(time.Duration(seconds) * time.Second), tries: tries}
}

// probed is a gate that is probed since so many seconds.
func probed(seconds int) gate {
	g := closed(-90, 2)
	g.begin("p", now.Add(time.Duration(seconds)*time.Second))
	return g
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

		"shut":                         {queue{limit: 9, account: closed(5, 1), waiting: []task{in("a", -1)}}, nil, false, false},
		"one probe":                    {queue{limit: 9, account: closed(0, 1), waiting: []task{in("b", -1), in("a", -2)}}, []string{"a"}, false, false},
		"a probe before its time":      {queue{limit: 9, account: closed(0, 1), waiting: []task{in("a", 100)}}, []string{"a"}, false, false},
		"a new folder probes":          {queue{limit: 9, account: closed(0, 1)}, nil, true, false},
		"every other probe is new":     {queue{limit: 9, account: closed(0, 2), waiting: []task{in("a", -1)}}, []string{"a"}, false, true},
		"new, and not yet":             {queue{limit: 9, account: closed(5, 2)}, nil, false, false},
		"none while one probes":        {queue{limit: 9, account: probed(-59), waiting: []task{in("a", -1)}}, nil, false, false},
		"one that probes for ever":     {queue{limit: 9, account: probed(-60), waiting: []task{in("a", -1), in("b", -1)}}, []string{"a"}, false, true},
		"moves go on":                  {queue{limit: 9, account: closed(5, 1), waiting: []task{in("b", -1).moves(), in("a", -2)}}, []string{"b"}, false, false},
		"moves are no probes":          {queue{limit: 9, account: closed(0, 1), waiting: []task{in("b", -1).moves(), in("a", 3)}}, []string{"b", "a"}, false, false},
		"moves don't hold probes up":   {queue{limit: 9, account: closed(0, 1), waiting: []task{in("b", 1).moves()}}, nil, true, false},
		"who is doubted comes last":    {queue{limit: 9, account: closed(0, 1), waiting: []task{in("a", -9).inDoubt(), in("b", 5)}}, []string{"b"}, false, false},
		"a new one before":             {queue{limit: 9, account: closed(0, 1), waiting: []task{in("a", 9).inDoubt()}}, nil, true, false},
		"the doubted one alone":        {queue{limit: 9, account: closed(0, 1), waiting: []task{in("a", -9).inDoubt()}}, []string{"a"}, true, false},
		"the doubted one at its time":  {queue{limit: 9, account: closed(0, 1), waiting: []task{in("a", 1).inDoubt()}}, nil, true, false},
		"one doubted at a time":        {queue{limit: 9, waiting: []task{in("a", -3).inDoubt(), in("b", -2).inDoubt(), in("c", -1)}}, []string{"a", "c"}, true, false},
		"doubted, and others tell":     {queue{limit: 9, inFlight: 1, account: closed(0, 1), waiting: []task{in("a", -9).inDoubt()}}, nil, true, false},
		"failed, and shut just now":    {queue{limit: 9, account: closed(0, 0), waiting: []task{in("a", -9).again(), in("b", 5)}}, []string{"b"}, false, true},
		"not before its time then":     {queue{limit: 9, account: closed(0, 0), waiting: []task{in("a", 1).again()}}, nil, true, true},
		"doubted, and only moves":      {queue{limit: 9, inFlight: 1, account: closed(0, 1), waiting: []task{in("a", -9).inDoubt().moves()}}, []string{"a"}, true, false},
		"half for those that failed":   {queue{limit: 4, waiting: []task{in("a", -4).again(), in("b", -3).again(), in("c", -2).again(), in("d", -1)}}, []string{"a", "b", "d"}, true, false},
		"one at least":                 {queue{limit: 1, waiting: []task{in("a", -4).again(), in("b", -3).again()}}, []string{"a"}, true, false},
		"a new one after that":         {queue{limit: 1, retried: true, waiting: []task{in("a", -4).again()}}, []string{"a"}, true, true},
		"but after what a start found": {queue{limit: 1, retried: true, waiting: []task{in("a", -4).again().found()}}, []string{"a"}, false, false},
		"all who failed may probe":     {queue{limit: 4, failing: 2, account: closed(0, 1), waiting: []task{in("a", -4).again()}}, []string{"a"}, false, false},
		"the disk is for all":          {queue{limit: 9, disk: closed(5, 1), waiting: []task{in("b", -1).moves(), in("a", -2)}}, nil, false, false},
		"one probe of the disk":        {queue{limit: 9, disk: closed(0, 1), waiting: []task{in("b", 3).moves(), in("a", 4)}}, []string{"b"}, false, false},
		"both are shut":                {queue{limit: 9, disk: closed(0, 1), account: closed(5, 1), waiting: []task{in("b", 3).moves(), in("a", 2)}}, []string{"b"}, false, false},
		"both are to be probed":        {queue{limit: 9, disk: closed(0, 1), account: closed(0, 2), waiting: []task{in("b", 3)}}, []string{"b"}, false, false},

		"who waits behind can't probe": {queue{limit: 9, account: closed(0, 1), waiting: []task{in("a", -1).after("x")}}, nil, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.q.patience = time.Minute
			if takes := c.q.takes(now); takes != c.takes {
				t.Errorf("takes %v", takes)
			}
			if is := c.q.prefersNew(now); is != c.new {
				t.Errorf("prefers new %v", is)
			}
			var got []string
			for next, ok := c.q.next(now); ok; next, ok = c.q.next(now) {
				began := c.q.begin(next, now)
				if began.probesAccount != (c.q.account.shut() && next.asks) || began.probesDisk != c.q.disk.shut() {
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
		"nothing":                 {queue{limit: 1}, heartbeat},
		"due":                     {queue{limit: 1, waiting: []task{in("a", -5)}}, 0},
		"the first that is due":   {queue{limit: 1, waiting: []task{in("a", 3), in("b", 2)}}, 2 * time.Second},
		"due late":                {queue{limit: 1, waiting: []task{in("a", 300)}}, heartbeat},
		"no place":                {queue{limit: 1, inFlight: 1, waiting: []task{in("a", -5)}}, heartbeat},
		"behind":                  {queue{limit: 1, waiting: []task{in("a", 4).after("x")}}, 4 * time.Second},
		"shut":                    {queue{limit: 1, account: closed(3, 1), waiting: []task{in("a", -5)}}, 3 * time.Second},
		"shut for long":           {queue{limit: 1, account: closed(300, 1)}, heartbeat},
		"nobody to probe with":    {queue{limit: 1, account: closed(-1, 1)}, heartbeat},
		"moves, and it is shut":   {queue{limit: 1, account: closed(300, 1), waiting: []task{in("a", 1).moves()}}, time.Second},
		"doubted, and it is shut": {queue{limit: 1, account: closed(-1, 1), waiting: []task{in("a", 3).inDoubt()}}, 3 * time.Second},
		"the disk is shut":        {queue{limit: 1, disk: closed(2, 1), waiting: []task{in("a", -1).moves()}}, 2 * time.Second},
		"probing":                 {queue{limit: 1, account: probed(0)}, heartbeat},
		"probing for long":        {queue{limit: 1, account: probed(-58)}, 2 * time.Second},
	} {
		c.q.patience = time.Minute
		if got := c.q.idle(now); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// The end of a task, and what it lets go on.
func TestQueueEnd(t *testing.T) {
	q := queue{limit: 2, waiting: []task{in("b", 30).after("a"), in("c", 30).after("z"), in("d", 30)}}
	a := q.begin(in("a", 0), now)
	again := in("a", 7)
	q.end(a, &again, now)
	if q.inFlight != 0 || len(q.waiting) != 4 || q.waiting[0].behind != "a" {
		t.Errorf("it goes on: %+v", q)
	}
	a = q.begin(a, now)
	q.waiting = q.waiting[:3]
	q.end(a, nil, now)
	if q.waiting[0].behind != "" || !q.waiting[0].due.Equal(now) || q.waiting[1].behind != "z" || q.waiting[2].due.Equal(now) {
		t.Errorf("it is over: %+v", q.waiting)
	}
	for _, g := range []*gate{&q.account, &q.disk} {
		*g = closed(0, 1)
		p := q.begin(in("p", 0), now)
		if p.probesAccount != (g == &q.account) || p.probesDisk != (g == &q.disk) || !g.probing {
			t.Error("no probe")
		}
		q.end(in("was in flight before", 0), nil, now) // says nothing of the probe
		if !g.probing {
			t.Error("the probe is forgotten")
		}
		q.end(p, nil, now)
		if g.probing {
			t.Error("the probe is over")
		}
		*g = gate{}
	}
}

func TestGate(t *testing.T) {
	r := Retry{First: time.Second, Max: time.Minute}
	f := fault{owner: account, reason: "x", mend: "y"}
	var g gate
	if g.shut() || !g.passes(0, now) {
		t.Error("it is open")
	}
	for n := 1; n <= 20; n++ {
		g.fail(f, r, now)
		wait := g.until.Sub(now)
		if wait < 0 || wait > r.ceiling(n) || wait > r.Max || g.tries != n || !g.shut() || !g.since.Equal(now) {
			t.Errorf("try %d: %+v", n, g)
		}
		if wait > 0 && g.passes(0, now.Add(wait-1)) || !g.passes(0, now.Add(wait)) {
			t.Errorf("try %d: until %s", n, g.until)
		}
	}
	g.until = now.Add(time.Minute)
	if g.hasten(now); !g.passes(0, now) {
		t.Error("it is not hastened")
	}
	f.asked = time.Hour
	g.fail(f, r, now)
	g.hasten(now)
	g.another(true, now)
	if !g.until.Equal(now.Add(time.Hour)) {
		t.Errorf("the service asked for an hour, it waits until %s", g.until)
	}
}

// step is the end of one task, as the queue takes it in.
type step struct {
	of   string // the folder
	is   end
	want string // gates that changed, and how they are
}

var (
	took     = end{answer: acceptance, wrote: true}
	key      = end{again: &task{}, wrote: true, fault: fault{owner: account, reason: "key"}}
	firewall = end{again: &task{doubted: true}, wrote: true, fault: fault{owner: account, doubtful: true, reason: "firewall"}}
	oops     = end{again: &task{}, wrote: true, fault: fault{owner: folder, doubtful: true, reason: "oops"}}
	full     = end{again: &task{disk: true}, fault: fault{owner: disk, reason: "full"}}
	own      = end{again: &task{}, fault: fault{owner: folder, reason: "a directory"}}
)

func no(words string) end { return end{answer: reply, wrote: true, refusal: words} }

// state is how the gates are, those that are open left out.
func (q *queue) state(changed []events.Owner) string {
	s := ""
	for _, o := range changed {
		if g := q.gateOf(o); g.shut() {
			s += fmt.Sprintf("%s shut by %s at try %d. ", o, g.reason, g.tries)
		} else {
			s += fmt.Sprintf("%s open. ", o)
		}
	}
	return strings.TrimSpace(s)
}

// What shuts and opens the gates. Every task begins when the one before it has
// ended, after any wait; so each is a probe where one is needed.
func TestQueueGates(t *testing.T) {
	for name, steps := range map[string][]step{
		"the account": {
			{"a", key, "account shut by key at try 1."}, {"b", key, "account shut by key at try 2."},
			{"c", own, ""}, {"c", took, "account open."}, {"d", took, ""},
		},
		"the disk": {
			{"a", full, "disk shut by full at try 1."}, {"b", full, "disk shut by full at try 2."},
			{"c", end{}, ""}, {"c", end{wrote: true}, "disk open."},
		},
		"neither by a folder": {{"a", own, ""}, {"b", own, ""}, {"c", own, ""}, {"d", own, ""}},
		"both": {
			{"a", key, "account shut by key at try 1."},
			{"b", full, "disk shut by full at try 1."},
			{"c", key, "disk open. account shut by key at try 2."},
			{"d", end{answer: acceptance, fault: fault{owner: disk, reason: "full"}}, "disk shut by full at try 1. account open."},
		},
		"one folder's server errors": {{"a", oops, ""}, {"a", oops, ""}, {"a", oops, ""}, {"a", oops, ""}},
		"an outage": {
			{"a", oops, ""}, {"b", oops, ""}, {"c", oops, "account shut by 3 folders in a row met: oops at try 1."},
			{"a", oops, "account shut by 3 folders in a row met: oops at try 2."}, {"b", no("x"), "account open."},
			{"a", oops, ""}, {"b", oops, ""}, {"b", took, ""}, {"c", oops, ""},
		},
		"a firewall before one folder": {
			{"a", firewall, ""}, {"b", took, ""}, {"a", firewall, ""}, {"b", took, ""},
		},
		"a firewall before two folders": {
			{"a", firewall, ""}, {"b", firewall, "account shut by firewall at try 0."}, {"c", took, "account open."},
		},
		"a firewall before the only folder": {
			{"a", firewall, ""}, {"a", firewall, "account shut by firewall at try 0."}, {"a", firewall, "account shut by firewall at try 0."}, {"a", took, "account open."},
		},
		"a firewall before all": {
			{"a", firewall, ""}, {"b", firewall, "account shut by firewall at try 0."},
			{"c", firewall, "account shut by 3 folders in a row met: firewall at try 1."},
			{"a", firewall, "account shut by 3 folders in a row met: firewall at try 2."}, {"d", no("x"), "account open."},
		},
		"a firewall, and then the key": {
			{"a", firewall, ""}, {"b", key, "account shut by key at try 1."},
		},
		"rejections": {
			{"a", no("x"), ""}, {"b", no("x"), ""}, {"c", no("x"), ""}, {"c", took, ""}, {"d", no("x"), ""},
		},
		"the same of one folder": {{"a", no("x"), ""}, {"a", no("x"), ""}, {"a", no("x"), ""}, {"a", no("x"), ""}, {"a", no("x"), ""}},
		"all are rejected": {
			{"a", no("x: m"), ""}, {"b", no("x: m"), ""}, {"c", no("y"), ""}, {"d", no("x: m"), ""}, {"e", no("x: n"), ""},
			{"f", no("x: m"), "account shut by " + rejectedByAll(4, "x").reason + " at try 1."},
			{"g", no("x: m"), "account shut by " + rejectedByAll(4, "x").reason + " at try 2."},
			{"h", key, "account shut by key at try 3."},
			{"i", no("x: m"), "account shut by " + rejectedByAll(4, "x").reason + " at try 4."},
			{"j", no("y"), "account open."}, {"k", no("x: m"), ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := Retry{First: time.Second, Max: time.Minute}
			q, now := queue{limit: 1, most: 4, patience: time.Minute}, now
			for i, s := range steps {
				now = now.Add(time.Hour)
				began := q.begin(task{id: s.of, asks: true}, now)
				e := s.is
				e.task, e.folder = began, s.of
				q.end(began, nil, now)
				if is := q.state(q.note(&e, r, now)); is != s.want {
					t.Fatalf("step %d: %q, want %q", i, is, s.want)
				}
			}
		})
	}
}

// What shuts the gate provisionally is said to nobody before it has lasted, or
// three have met it. What is said is taken back, and nothing else is.
func TestQueueSaysNothingTooEarly(t *testing.T) {
	r := Retry{First: time.Second, Max: time.Minute}
	for name, steps := range map[string][]struct {
		step
		at int // seconds
	}{
		"others are answered": {
			{step{"a", firewall, ""}, 0}, {step{"b", firewall, ""}, 1}, {step{"a", firewall, ""}, 60}, {step{"c", no("x"), ""}, 61}, {step{"a", firewall, ""}, 62},
		},
		"three in a row": {
			{step{"a", firewall, ""}, 0}, {step{"b", oops, ""}, 1},
			{step{"c", firewall, "account shut by 3 folders in a row met: firewall at try 1."}, 2}, {step{"d", took, "account open."}, 9},
		},
		"it lasts": {
			{step{"a", firewall, ""}, 0}, {step{"a", firewall, ""}, 60}, {step{"b", oops, "account shut by oops at try 0."}, 61},
			{step{"a", firewall, "account shut by firewall at try 0."}, 62}, {step{"c", took, "account open."}, 63}, {step{"b", firewall, ""}, 64},
		},
		"the key as well": {
			{step{"a", firewall, ""}, 0}, {step{"b", key, "account shut by key at try 1."}, 1}, {step{"b", took, "account open."}, 60},
		},
	} {
		t.Run(name, func(t *testing.T) {
			q := queue{limit: 9, patience: time.Minute}
			for i, s := range steps {
				at := now.Add(time.Duration(s.at) * time.Second)
				e := s.is
				e.task, e.folder = q.begin(task{id: s.of, asks: true}, at), s.of
				q.end(e.task, nil, at)
				if is := q.state(q.note(&e, r, at)); is != s.want {
					t.Fatalf("step %d: %q, want %q", i, is, s.want)
				}
			}
		})
	}
}

// A probe that takes long is not waited for, and its end says nothing of the
// one that went meanwhile.
func TestQueueProbes(t *testing.T) {
	q := queue{limit: 9, patience: time.Minute, account: closed(0, 1)}
	slow := q.begin(in("slow", 0), now)
	later := now.Add(time.Minute)
	if q.barred(later) || !q.barred(later.Add(-1)) {
		t.Error("not after a minute")
	}
	other := q.begin(in("other", 0), later)
	if q.end(slow, nil, later); !q.account.probing || !q.barred(later) {
		t.Error("the other is forgotten")
	}
	if q.end(other, nil, later); q.account.probing || q.barred(later) {
		t.Error("nobody probes any more")
	}
}

// What met the disk's fault need not wait any longer once that has passed.
func TestQueueDiskOpens(t *testing.T) {
	q := queue{limit: 9, disk: closed(0, 3), waiting: []task{in("d", 30).onDisk(), in("s", 30)}}
	e := end{task: q.begin(in("p", 0), now), wrote: true}
	q.end(e.task, nil, now)
	if is := q.state(q.note(&e, Retry{}, now)); is != "disk open." || !q.waiting[0].due.Equal(now) || q.waiting[1].due.Equal(now) {
		t.Errorf("%s %+v", is, q.waiting)
	}
}

// Those that were in flight when a gate was shut don't count as its probes.
func TestQueueInFlight(t *testing.T) {
	r := Retry{First: time.Second, Max: time.Minute}
	q := queue{limit: 9, most: 2}
	var flight []task
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		flight = append(flight, q.begin(task{id: id, asks: true}, now))
	}
	for i, s := range []step{
		{"", key, "account shut by key at try 1."}, {"", key, ""}, {"", full, "disk shut by full at try 1."}, {"", full, ""},
		{"", took, "account open."}, // whoever shows it
		{"", no("x"), ""}, {"", key, "account shut by key at try 1."},
	} {
		e := s.is
		e.task, e.folder = flight[i], flight[i].id
		q.end(flight[i], nil, now)
		if is := q.state(q.note(&e, r, now)); is != s.want {
			t.Errorf("step %d: %q, want %q", i, is, s.want)
		}
	}
}

// Folders that meet a firewall while others are answered shut no gate, until
// there are too many of them in a row.
func TestQueueAnsweredMeanwhile(t *testing.T) {
	r := Retry{First: time.Second, Max: time.Minute}
	q := queue{limit: 9}
	var flight []task
	for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
		flight = append(flight, q.begin(task{id: id, asks: true}, now))
	}
	for i, s := range []step{
		{"", took, ""}, {"", firewall, ""}, {"", firewall, ""}, {"", took, ""}, {"", firewall, ""}, {"", oops, ""},
		{"g", firewall, "account shut by 3 folders in a row met: firewall at try 1."},
	} {
		e := s.is
		if e.task = q.begin(task{id: s.of, asks: true}, now); s.of == "" {
			q.inFlight--
			e.task = flight[i]
		}
		q.end(e.task, nil, now)
		if is := q.state(q.note(&e, r, now)); is != s.want {
			t.Errorf("step %d: %q, want %q", i, is, s.want)
		}
	}
}

// A folder that was doubted meets its own fault once others were answered.
func TestQueueOwn(t *testing.T) {
	r := Retry{First: time.Second, Max: time.Minute}
	q := queue{limit: 9}
	visit := func(id string, e end) (began task) {
		t.Helper()
		began = q.begin(task{id: id, asks: true}, now)
		for i := range q.waiting {
			if q.waiting[i].id == id {
				began = q.begin(q.waiting[i], now)
				q.inFlight--
				q.waiting = slices.Delete(q.waiting, i, i+1)
				break
			}
		}
		e.task, e.folder = began, id
		if e.again != nil {
			again := *e.again
			again.id, again.asks = id, true
			e.again = &again
		}
		q.end(began, e.again, now)
		q.note(&e, r, now)
		return began
	}
	for range 2 {
		if visit("bad", firewall).own {
			t.Error("its own, with nobody else there")
		}
	}
	visit("good", took)
	if !visit("bad", firewall).own {
		t.Error("not its own, though another was answered")
	}
	q.account = gate{}
	if visit("bad", firewall).own {
		t.Error("its own, and nobody was answered since")
	}
	visit("good", took)
	q.account = closed(0, 1)
	if visit("bad", firewall).own {
		t.Error("its own, while it probes")
	}
}

// What the journal keeps of a gate comes back, and a clock that was set makes
// no wait longer than any that there is, or was asked for.
func TestGateRestored(t *testing.T) {
	r := Retry{First: time.Second, Max: time.Minute}
	for name, c := range map[string]struct {
		asked   time.Duration
		jump    time.Duration // of the clock, before the restart
		wait    time.Duration
		hastens time.Duration // what a reload leaves of the wait
	}{
		"at once":                       {0, 0, 30 * time.Second, 0},
		"later":                         {0, 20 * time.Second, 10 * time.Second, 0},
		"much later":                    {0, time.Hour, 0, 0},
		"a clock that was set back":     {0, -48 * time.Hour, time.Minute, 0},
		"asked":                         {time.Hour, 0, time.Hour, time.Hour},
		"asked, later":                  {time.Hour, 40 * time.Minute, 20 * time.Minute, 20 * time.Minute},
		"asked, a clock that went back": {time.Hour, -48 * time.Hour, time.Hour, time.Hour},
		"asked, a clock that went on":   {time.Hour, 48 * time.Hour, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var g gate
			g.fail(fault{owner: account, reason: "x", mend: "y", asked: c.asked}, r, now)
			if c.asked == 0 {
				g.until = now.Add(30 * time.Second)
			}
			g.refusal = "z"
			later := now.Add(c.jump)
			is := restored(g.kept(), r, later)
			if is.reason != "x" || is.mend != "y" || is.refusal != "z" || is.tries != 1 || is.since.After(later) {
				t.Errorf("%+v", is)
			}
			if wait := max(is.until.Sub(later), 0); wait != c.wait {
				t.Errorf("it waits for %s, want %s", wait, c.wait)
			}
			is.hasten(later)
			if wait := is.until.Sub(later); wait != c.hastens {
				t.Errorf("after a reload for %s, want %s", wait, c.hastens)
			}
		})
	}
	if g := restored(nil, r, now); g.shut() {
		t.Error("shut by nothing")
	}
	if (&gate{}).kept() != nil {
		t.Error("an open gate is kept")
	}
}

// Only what may have left whole leaves open whether it was taken.
func TestMeanings(t *testing.T) {
	proven := map[ending]bool{unfinished: true, notSent: true, changed: true, unreadable: true, serviceFault: true, doubtfulFault: true, ownFault: true}
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
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 302}, doubtfulFault},
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 405}, doubtfulFault},
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 405, Identifier: "METHOD_NOT_ALLOWED"}, serviceFault},
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 401}, serviceFault},
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 400, Identifier: "UNAUTHORIZED"}, serviceFault},
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 407}, serviceFault},
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 429}, doubtfulFault},
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 429, RetryAfter: time.Second}, serviceFault},
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 429, Identifier: "TOO_MANY_REQUESTS"}, serviceFault},
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 403}, doubtfulFault},
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 400}, doubtfulFault},
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 404}, doubtfulFault},
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 400, Identifier: "PARTNER_CONTRACT_ERROR"}, doubtfulFault},
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
		want bool
	}{
		{meta.Report{}, false},
		{meta.Report{Waits: []meta.Reason{unread}}, true},
		{meta.Report{Waits: []meta.Reason{unread, unread}}, true},
		{meta.Report{Waits: []meta.Reason{unread, missing}}, false},
		{meta.Report{Waits: []meta.Reason{missing}}, false},
		{meta.Report{Waits: []meta.Reason{unread}, Invalid: []meta.Reason{{Code: "bad_value"}}}, false},
	} {
		if got := unreadableNow(&c.rep); got != c.want {
			t.Errorf("%+v: %v", c.rep, got)
		}
	}
}
