package batch

import (
	"fmt"
	"slices"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
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
	stuck    int           // times in a row that it could not go on by its own fault
	asks     bool          // it is to ask the service; others only move and record
	doubted  bool          // its last attempt met what may be its own fault, or the account's
	failed   bool          // its last attempt failed, by its own fault or the service's
	heard    int           // answers of the service until then

	// Set when it begins.
	may           bool // it may ask the service
	own           bool // others were answered since it was doubted: it meets its own fault
	began         int  // answers of the service until then
	probesAccount bool // it tells whether that gate may open
	probesDisk    bool

	// unsaved is how the life went on, where that could not be recorded yet.
	unsaved *journal.Life
}

// queue says what comes next, and which gate is shut. It knows no files and no
// clock: times come from outside, and so does what became of a task.
type queue struct {
	limit    int           // tasks in flight
	most     int           // folders that are rejected with the same words, until that is the account's; 0: any number
	patience time.Duration // within which those in flight are answered, but for what is slow to send
	account  gate
	disk     gate
	waiting  []task // in work
	inFlight int
	doubting int                 // of these, doubted ones
	failing  int                 // of these, failed ones
	retried  bool                // the last that began was one of those
	missed   map[string][]string // for each in flight, which ended meanwhile

	heard   int      // answers that were the service's own
	row     []string // lives that met a doubtful fault since the last of these
	refused refusals
}

// gateOf returns the gate of an owner.
func (q *queue) gateOf(o events.Owner) *gate {
	if o == events.Disk {
		return &q.disk
	}
	return &q.account
}

// paused says why a gate is shut; empty: none is.
func (q *queue) paused() string {
	for _, g := range []*gate{&q.disk, &q.account} {
		if g.shut() {
			return g.reason + "; " + g.mend
		}
	}
	return ""
}

// barred reports whether a gate is shut, and not to be probed now.
func (q *queue) barred(now time.Time) bool {
	return !q.disk.passes(q.patience, now) || !q.account.passes(q.patience, now)
}

// mayBegin reports whether one more task that asks the service may begin.
func (q *queue) mayBegin(now time.Time) bool { return q.inFlight < q.limit && !q.barred(now) }

// from is when a task may begin, but for a place in flight; not ok: something
// else has to happen first. A probe need not wait for its time: the pause was
// longer, or it is the only one to try. But what may be a folder's own fault
// has the delay of that, and doesn't probe while others are in flight, who tell
// more; and of such folders one at a time is tried, however many there are.
// What failed gets half of the places at most, so that the others are those of
// folders that were not tried yet.
func (q *queue) from(t *task) (at time.Time, ok bool) {
	switch shut := q.account.shut(); {
	case t.doubted && q.doubting > 0, shut && t.asks && q.suspects(t) && q.inFlight > 0:
		return at, false
	case t.failed && !shut && q.failing >= max(q.limit/2, 1):
		return at, false
	}
	probes := false
	for _, g := range []*gate{&q.disk, &q.account} {
		if !g.shut() || g == &q.account && !t.asks {
			continue
		}
		at, probes = latest(at, g.next(q.patience)), true
	}
	switch {
	case !probes || q.suspects(t):
		return latest(at, t.due), true
	default:
		return at, t.behind == ""
	}
}

// next returns the task in work that is to begin now: by when it was due, and
// as a probe first one that is not suspected.
func (q *queue) next(now time.Time) (task, bool) {
	if q.inFlight >= q.limit {
		return task{}, false
	}
	first := -1
	for i := range q.waiting {
		t := &q.waiting[i]
		if at, ok := q.from(t); !ok || at.After(now) {
			continue
		}
		if first < 0 || q.before(t, &q.waiting[first]) {
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

func (q *queue) before(a, b *task) bool {
	if x, y := q.suspects(a), q.suspects(b); q.account.shut() && x != y {
		return y
	}
	return a.due.Before(b.due)
}

// suspects reports whether a task tells little as a probe of the account, since
// it may meet a fault of its own. While the gate is shut provisionally, with no
// wait between two probes, whatever failed before may.
func (q *queue) suspects(t *task) bool {
	return t.doubted || t.failed && q.account.shut() && q.account.tries == 0
}

// takes reports whether a new folder may begin: after those that were found in
// work, and while a gate is shut only when there is none in work to probe with.
func (q *queue) takes(now time.Time) bool {
	if !q.mayBegin(now) {
		return false
	}
	return !slices.ContainsFunc(q.waiting, func(t task) bool {
		probes := q.disk.shut() || q.account.shut() && t.asks
		return t.fresh || probes && t.behind == "" && !q.suspects(&t)
	})
}

// prefersNew reports whether the next should be a new folder, if there is one:
// every other probe is, lest all depend on one that fails by itself, and so is
// what follows one that failed before, lest such take the only place each time.
func (q *queue) prefersNew(now time.Time) bool {
	if q.account.shut() || q.disk.shut() {
		return (q.account.tries+q.disk.tries)%2 == 0 && q.mayBegin(now)
	}
	return q.retried && q.takes(now)
}

// begin notes that a task is in flight.
func (q *queue) begin(t task, now time.Time) task {
	t.may = t.asks || !q.account.shut()
	t.probesAccount, t.probesDisk = t.asks && q.account.shut(), q.disk.shut()
	t.own = t.doubted && q.heard > t.heard && !t.probesAccount
	t.began = q.heard
	if t.probesAccount {
		q.account.begin(t.id, now)
	}
	if t.probesDisk {
		q.disk.begin(t.id, now)
	}
	q.count(&t, 1)
	q.retried = t.failed || t.doubted
	if q.missed == nil {
		q.missed = map[string][]string{}
	}
	q.missed[t.id] = nil
	return t
}

// count notes that there is one more in flight, or one less.
func (q *queue) count(t *task, one int) {
	q.inFlight += one
	if t.doubted {
		q.doubting += one
	}
	if t.failed {
		q.failing += one
	}
}

// end notes that a task is over; again is the one that goes on with its
// folder, if the folder is still in work. If not, those behind it go on.
func (q *queue) end(t task, again *task, now time.Time) {
	q.count(&t, -1)
	missed := q.missed[t.id]
	delete(q.missed, t.id)
	if t.probesAccount {
		q.account.end(t.id)
	}
	if t.probesDisk {
		q.disk.end(t.id)
	}
	if again != nil {
		if again.behind != "" && slices.Contains(missed, again.behind) { // it would not be told any more
			again.behind, again.due = "", now
		}
		again.heard = q.heard
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

// note takes in what the end of a visit says of account and disk, and returns
// whose gate was shut by it, or stays so after a try, or was opened.
func (q *queue) note(e *end, r Retry, now time.Time) (changed []events.Owner) {
	if q.noteDisk(e, r, now) {
		changed = append(changed, events.Disk)
	}
	if q.noteAccount(e, r, now) {
		changed = append(changed, events.Account)
	}
	return changed
}

func (q *queue) noteDisk(e *end, r Retry, now time.Time) bool {
	failed, probe := e.fault.owner == disk, e.task.probesDisk
	switch {
	case failed && q.disk.shut() && !probe: // one of those that were in flight when it was shut
	case failed:
		q.disk.fail(e.fault, r, now)
		return true
	case probe && e.wrote:
		q.disk = gate{}
		for i := range q.waiting {
			if q.waiting[i].disk {
				q.waiting[i].due = now
			}
		}
		return true
	case probe:
		q.disk.another(e.again != nil, now)
	}
	return false
}

func (q *queue) noteAccount(e *end, r Retry, now time.Time) bool {
	g := &q.account
	switch probe := e.task.probesAccount; {
	case e.answer != silence:
		return q.noteAnswer(e, r, now)
	case e.fault.doubtful:
		return q.noteDoubt(e, r, now)
	case e.fault.owner == account && (!g.shut() || probe || g.tries == 0):
		g.fail(e.fault, r, now)
		g.refusal = ""
		return true
	case probe:
		g.another(e.again != nil, now)
	}
	return false
}

// inARow is how many different folders have to meet a doubtful fault, with no
// answer in between, until it is the account's for certain.
const inARow = 3

// noteDoubt takes in a fault that may be the folder's or the account's. If it
// is more likely the account's, and nobody was answered meanwhile, the gate is
// shut at the first, with no wait: how others fare is to be known at once. That
// is said to nobody before it has lasted for as long as those in flight may
// take, or too many have met it.
func (q *queue) noteDoubt(e *end, r Retry, now time.Time) bool {
	if !slices.Contains(q.row, e.task.id) {
		q.row = append(q.row, e.task.id)
	}
	g, f := &q.account, e.fault
	sure := len(q.row) >= inARow
	if sure {
		f.reason = fmt.Sprintf("%d folders in a row met: %s", len(q.row), f.reason)
	}
	switch {
	case g.shut() && !e.task.probesAccount && (g.tries > 0 || !sure):
		return false // one of those that were in flight when it was shut
	case sure || g.tries > 0:
		g.fail(f, r, now)
	case g.shut() || f.owner == account && q.heard == e.task.began:
		if !g.shut() {
			g.since, g.suspected = now, true
		}
		g.suspected = g.suspected && now.Sub(g.since) <= q.patience
		g.reason, g.mend, g.until = f.reason, f.mend, now
	default:
		return false // it backs off by itself
	}
	g.refusal = ""
	return !g.suspected
}

// noteAnswer takes in an answer that is the service's own: it works. But when
// all are rejected with the same words, it is more likely that something
// changed at the service, or in the account, than that all of them are bad.
func (q *queue) noteAnswer(e *end, r Retry, now time.Time) bool {
	q.heard++
	q.row = nil
	g, met := &q.account, 0
	switch {
	case e.answer == acceptance:
		q.refused = nil
	case e.refusal != "" && q.most > 0:
		met = q.refused.add(e.refusal, e.task.id, q.most)
	}
	switch {
	case q.most > 0 && met >= q.most:
		if g.refusal == e.refusal && !e.task.probesAccount {
			return false // one of those that were in flight when it was shut
		}
		g.fail(rejectedByAll(met, e.refusal), r, now)
		g.refusal = e.refusal
		return true
	case g.shut():
		delete(q.refused, g.refusal)
		told := !g.suspected
		*g = gate{}
		return told
	}
	return false
}

// heartbeat is the longest that nothing happens.
const heartbeat = 5 * time.Second

// idle is how long nothing will be due.
func (q *queue) idle(now time.Time) time.Duration {
	wait := heartbeat
	for _, g := range []*gate{&q.disk, &q.account} {
		// Once that is over, what there is to wait for is a folder to probe
		// with, or a place for it.
		if until := g.next(q.patience).Sub(now); g.shut() && until > 0 {
			wait = min(wait, until)
		}
	}
	if q.inFlight < q.limit {
		for i := range q.waiting {
			if at, ok := q.from(&q.waiting[i]); ok {
				wait = min(wait, max(at.Sub(now), 0))
			}
		}
	}
	return wait
}
