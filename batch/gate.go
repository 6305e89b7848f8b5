package batch

import (
	"math/rand/v2"
	"slices"
	"time"

	"idenfy-batch/internal/journal"
)

// owner is whose a fault is, and so what it holds up.
type owner int

// The owners.
const (
	nobody  owner = iota // there was none
	folder               // that folder waits, or ends
	account              // nothing is submitted
	disk                 // nothing is moved or recorded
)

// fault is what kept a visit from its end.
type fault struct {
	owner owner
	// doubtful tells that it may be another's, and how others fare tells: the
	// folder's and not the account's, or, when several meet it in a row, the
	// account's and not the folder's.
	doubtful bool
	reason   string        // no text from outside, but for the API's identifier
	mend     string        // what a person can do
	asked    time.Duration // to wait, by the service
}

// gate holds back what needs the account, or the disk, while that is at fault.
type gate struct {
	reason  string // empty: it is open
	mend    string
	since   time.Time
	until   time.Time     // of the next probe
	asked   time.Duration // that the service wants to be left alone
	quiet   time.Time     // the end of that
	tries   int           // probes that failed
	probing bool
	prober  string    // the task that does, or did last
	probed  time.Time // when that began
	refusal string    // that everybody meets; only another answer opens it then

	// suspected tells that it may have been the folder's own fault: nobody is
	// told before how others fare shows that it wasn't.
	suspected bool
}

func (g *gate) shut() bool { return g.reason != "" }

// next is when the next task may probe. One that takes longer than patience
// doesn't keep others from it: it may be the only one that gets no answer.
func (g *gate) next(patience time.Duration) time.Time {
	if g.probing {
		return latest(g.until, g.probed.Add(patience))
	}
	return g.until
}

// passes reports whether a task may begin: through an open gate, or as one
// that probes a shut one.
func (g *gate) passes(patience time.Duration, now time.Time) bool {
	return !g.shut() || !now.Before(g.next(patience))
}

// begin notes that a task probes.
func (g *gate) begin(id string, now time.Time) {
	g.probing, g.prober, g.probed = true, id, now
}

// end notes that a task doesn't probe any more.
func (g *gate) end(id string) {
	g.probing = g.probing && g.prober != id
}

// fail shuts the gate, or keeps it shut, for a time that grows with the tries,
// and is at least as long as the service asked for.
func (g *gate) fail(f fault, r Retry, now time.Time) {
	if !g.shut() {
		g.since = now
	}
	g.tries++
	g.suspected = false
	g.reason, g.mend = f.reason, f.mend
	g.until = now.Add(time.Duration(rand.Int64N(int64(r.ceiling(g.tries)) + 1)))
	g.asked, g.quiet = f.asked, now.Add(f.asked)
	g.until = latest(g.until, g.quiet)
}

// hasten lets one probe go at once, as far as the service allows it.
func (g *gate) hasten(now time.Time) {
	g.until = latest(now, g.quiet)
}

// another lets another folder probe after one that told nothing; soon, if that
// one may be the only one there is.
func (g *gate) another(onlyOne bool, now time.Time) {
	g.hasten(now)
	if onlyOne && g.until.Equal(now) {
		g.until = now.Add(time.Second)
	}
}

// restored is the account's gate as the journal has it. A clock that was set
// back makes no wait longer than any that there is, or was asked for.
func restored(k *journal.Gate, r Retry, now time.Time) gate {
	if k == nil {
		return gate{}
	}
	g := gate{
		reason: k.Reason, mend: k.Mend, since: earliest(k.Since, now), tries: k.Tries, refusal: k.Refusal,
		until: earliest(k.Until, now.Add(max(r.Max, k.Asked))),
	}
	if k.Asked > 0 {
		g.asked, g.quiet = k.Asked, earliest(k.Until, now.Add(k.Asked))
	}
	return g
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func earliest(a, b time.Time) time.Time {
	if a.After(b) {
		return b
	}
	return a
}

// kept is what the journal keeps of the gate.
func (g *gate) kept() *journal.Gate {
	if !g.shut() {
		return nil
	}
	return &journal.Gate{Reason: g.reason, Mend: g.mend, Since: g.since, Until: g.until, Asked: g.asked, Tries: g.tries, Refusal: g.refusal}
}

// refusals count, since the service last accepted a folder, which lives it
// rejected with the same words: a scanner may give all its folders one name.
type refusals map[string][]string

// mostKinds bounds how many kinds of rejections are counted.
const mostKinds = 64

// add counts one, and returns how many different folders have met it, up to
// most.
func (r *refusals) add(key, id string, most int) int {
	if *r == nil || len(*r) >= mostKinds {
		*r = refusals{}
	}
	if met := (*r)[key]; len(met) < most && !slices.Contains(met, id) {
		(*r)[key] = append(met, id)
	}
	return len((*r)[key])
}
