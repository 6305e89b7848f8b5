package batch

import (
	"math/rand/v2"
	"slices"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/journal"
)

// task is one folder to go on with: an arrival, or one in work.
type task struct {
	id       string
	arrival  *drop.Arrival // nil: it is in work
	reserved bool          // its life is claimed already
	work     string        // its name there
	due      time.Time     // not before
	fresh    bool          // found at the start, and not looked at yet
	behind   string        // the life whose end it waits for, though not beyond due
	disk     bool          // it met a fault of the disk
	probe    bool          // it tells whether the gate may open

	// unsaved is how the life went on, where that could not be recorded yet.
	unsaved *journal.Life
}

// queue says what comes next. It knows no files and no clock: times come from
// outside, and so does what became of a task.
type queue struct {
	limit    int // tasks in flight
	gate     gate
	waiting  []task // in work
	inFlight int
	missed   map[string][]string // for each in flight, which ended meanwhile
}

// gate holds submission back while the service, or the disk, is at fault.
type gate struct {
	reason  string // empty: it is open
	until   time.Time
	tries   int // probes that failed
	probing bool
}

func (g *gate) shut() bool { return g.reason != "" }

// passes reports whether a task may begin: through an open gate, or as the one
// that probes a shut one.
func (g *gate) passes(now time.Time) bool {
	return !g.shut() || !g.probing && !now.Before(g.until)
}

// fail shuts the gate, or keeps it shut, for a time that grows with the tries,
// and is at least as long as the service asked for.
func (g *gate) fail(reason string, asked time.Duration, r Retry, now time.Time) (wait time.Duration) {
	g.tries++
	wait = max(time.Duration(rand.Int64N(int64(r.ceiling(g.tries))+1)), asked)
	g.reason, g.until = reason, now.Add(wait)
	return wait
}

// mayBegin reports whether one more task may begin.
func (q *queue) mayBegin(now time.Time) bool {
	return q.inFlight < q.limit && q.gate.passes(now)
}

// ready reports whether a task may begin at that time. A probe need not wait
// for its time: the pause was longer, or it is the only one to try.
func (q *queue) ready(t *task, now time.Time) bool {
	if q.gate.shut() {
		return t.behind == ""
	}
	return !t.due.After(now)
}

// next returns the task in work that is to begin now.
func (q *queue) next(now time.Time) (task, bool) {
	if !q.mayBegin(now) {
		return task{}, false
	}
	first := -1
	for i := range q.waiting {
		if q.ready(&q.waiting[i], now) && (first < 0 || q.waiting[i].due.Before(q.waiting[first].due)) {
			first = i
		}
	}
	if first < 0 {
		return task{}, false
	}
	t := q.waiting[first]
	q.waiting = slices.Delete(q.waiting, first, first+1)
	return t, true
}

// takes reports whether a new folder may begin: after those that were found in
// work, and while the gate is shut only when there is none in work to probe
// with.
func (q *queue) takes(now time.Time) bool {
	if !q.mayBegin(now) {
		return false
	}
	return !slices.ContainsFunc(q.waiting, func(t task) bool { return t.fresh || q.gate.shut() && t.behind == "" })
}

// prefersNew reports whether the next probe should be a new folder, if there
// is one: every other is, lest all depend on one that fails by itself.
func (q *queue) prefersNew(now time.Time) bool {
	return q.gate.shut() && q.gate.tries%2 == 0 && q.mayBegin(now)
}

// begin notes that a task is in flight.
func (q *queue) begin(t task) task {
	t.probe = q.gate.shut()
	q.gate.probing = q.gate.probing || t.probe
	q.inFlight++
	if q.missed == nil {
		q.missed = map[string][]string{}
	}
	q.missed[t.id] = nil
	return t
}

// end notes that a task is over; again is the one that goes on with its
// folder, if the folder is still in work. If not, those behind it go on.
func (q *queue) end(t task, again *task, now time.Time) {
	q.inFlight--
	missed := q.missed[t.id]
	delete(q.missed, t.id)
	if t.probe {
		q.gate.probing = false
	}
	if again != nil {
		if again.behind != "" && slices.Contains(missed, again.behind) { // it would not be told any more
			again.behind, again.due = "", now
		}
		q.waiting = append(q.waiting, *again)
		return
	}
	for id := range q.missed {
		q.missed[id] = append(q.missed[id], t.id)
	}
	for i := range q.waiting {
		if q.waiting[i].behind == t.id {
			q.waiting[i].behind, q.waiting[i].due = "", now
		}
	}
}

// open opens the gate. What met the disk's fault need not wait any longer.
func (q *queue) open(now time.Time) {
	q.gate = gate{}
	for i := range q.waiting {
		if q.waiting[i].disk {
			q.waiting[i].due = now
		}
	}
}

// heartbeat is the longest that nothing happens.
const heartbeat = 5 * time.Second

// idle is how long nothing will be due.
func (q *queue) idle(now time.Time) time.Duration {
	wait := heartbeat
	if q.gate.shut() {
		// Once that is over, what there is to wait for is a folder to probe
		// with, or a place for it.
		if until := q.gate.until.Sub(now); !q.gate.probing && until > 0 {
			wait = min(wait, until)
		}
		return wait
	}
	if q.inFlight < q.limit {
		for i := range q.waiting {
			wait = min(wait, max(q.waiting[i].due.Sub(now), 0))
		}
	}
	return wait
}
