package report

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// outcomes are all there are, in the order in which they are told.
var outcomes = []string{
	string(sidecar.Accepted), string(sidecar.Rejected), string(sidecar.Invalid), string(sidecar.Incomplete),
	string(sidecar.GaveUp), string(sidecar.Unknown), string(sidecar.Pending),
}

// The order of verdicts: what iDenfy decided, whatever else it says, and what it did not say.
var (
	firstVerdicts = []string{"APPROVED", "DENIED", "SUSPECTED", "EXPIRED"}
	lastVerdicts  = []string{Waiting, NotFinal, None}
)

// mostWords bounds words from outside that are told apart; the rest is otherWords.
const (
	mostWords  = 100
	otherWords = "other"
)

// Counter makes a report of lives that are given to it, whatever number.
type Counter struct {
	r                  Report
	outcomes, verdicts map[string]int
	inboxes            map[string]*Group
	days               map[[2]string]*Group
	reasons            map[journal.Why]int
	attempts           [7]int
	submit, verdict    durations
	actions, sessions  map[string]int
	erased             [3]map[string]*Deleted // by rule, person, place
}

// NewCounter begins a report.
func NewCounter(h Head) *Counter {
	return &Counter{
		sessions: map[string]int{}, erased: [3]map[string]*Deleted{{}, {}, {}},
		r: Report{Schema: Schema, Head: h}, outcomes: map[string]int{}, verdicts: map[string]int{}, inboxes: map[string]*Group{},
		days: map[[2]string]*Group{}, reasons: map[journal.Why]int{}, actions: map[string]int{},
	}
}

// Extent takes how much there is in the journal, once.
func (c *Counter) Extent(e journal.Extent) {
	c.r.Totals.Submissions += e.Outside
	c.r.Totals.Outside = e.Outside
	c.r.Head.Ledger.Entries = e.Entries
}

// Add takes a life that was begun in the time, and reports whether it counts as
// a folder of the report.
func (c *Counter) Add(l *journal.Counted) bool {
	t := &c.r.Totals
	t.Submissions++
	verdict := verdictOf(l)
	switch {
	case l.Again:
		t.Again++
		return false
	case !c.r.Head.Filters.match(l, verdict):
		t.Filtered++
		return false
	}
	t.Folders++
	outcome := string(l.Outcome)
	if _, known := c.verdicts[verdict]; !known && len(c.verdicts) >= mostWords {
		verdict = otherWords
	}
	for _, g := range []*Group{c.inbox(l.Inbox), c.day(l)} {
		g.Folders++
		g.Outcomes[outcome]++
		g.Verdicts[verdict]++
	}
	c.outcomes[outcome]++
	c.verdicts[verdict]++
	c.why(l.Reasons)
	c.purges(l)
	c.r.Attempts.All += l.Attempts
	c.attempts[bucketOf(l.Attempts)]++
	if begin := cmp.Or(l.Complete, l.Claimed); !l.Submitted.IsZero() && !begin.IsZero() {
		c.submit.add(l.Submitted.Sub(begin.Time))
	}
	if !l.Decided.IsZero() && !l.Accepted.IsZero() {
		c.verdict.add(l.Decided.Sub(l.Accepted.Time))
	}
	if l.Contradicted || l.Place == string(spool.Hold) {
		if c.r.PersonAll++; len(c.r.Person) < mostListed {
			c.r.Person = append(c.r.Person, Folder{l.ID, l.Folder, l.Inbox, l.Place, l.Name, l.Outcome, verdict, l.Reasons, l.Claimed})
		}
	}
	return true
}

func (f *Filters) match(l *journal.Counted, verdict string) bool {
	return (f.Inbox == "" || f.Inbox == l.Inbox) && (f.Place == "" || f.Place == l.Place || f.Place == string(spool.Inbox) && spool.Place(l.Place).IsInbox()) && (f.Outcome == "" || f.Outcome == l.Outcome) &&
		(f.Client == "" || f.Client == l.ClientID) &&
		(f.Verdict == "" || f.Verdict == verdict || f.Verdict == journal.Contradicted && l.Contradicted || f.Verdict == l.Verdict)
}

// verdictOf puts each folder at one verdict.
func verdictOf(l *journal.Counted) string {
	switch {
	case l.Final:
		return l.Verdict
	case l.Awaited:
		return Waiting
	case l.Verdict != "":
		return NotFinal
	default:
		return None
	}
}

func group(day, inbox string) *Group {
	return &Group{Day: day, Inbox: inbox, Outcomes: map[string]int{}, Verdicts: map[string]int{}}
}

func (c *Counter) inbox(name string) *Group {
	if c.inboxes[name] == nil {
		c.inboxes[name] = group("", name)
	}
	return c.inboxes[name]
}

func (c *Counter) day(l *journal.Counted) *Group {
	key := [2]string{"", l.Inbox}
	if !l.Claimed.IsZero() {
		key[0] = l.Claimed.In(c.r.Head.zone()).Format(time.DateOnly)
	}
	if c.days[key] == nil {
		c.days[key] = group(key[0], key[1])
	}
	return c.days[key]
}

func (h *Head) zone() *time.Location { return cmp.Or(h.Location, time.UTC) }

// why counts a folder once for each of its reasons.
func (c *Counter) why(list []journal.Why) {
	for i, w := range list {
		if slices.Contains(list[:i], w) {
			continue
		}
		if _, known := c.reasons[w]; !known && len(c.reasons) >= mostWords {
			w = journal.Why{Code: otherWords}
		}
		c.reasons[w]++
	}
}

// purges counts what was deleted of a folder.
func (c *Counter) purges(l *journal.Counted) {
	if len(l.Purges) == 0 {
		return
	}
	d := &c.r.Deletions
	d.Folders++
	if !emptied(l).IsZero() {
		d.Emptied++
	}
	for i := range l.Purges {
		p := &l.Purges[i]
		d.Times, d.Files, d.Bytes = d.Times+1, d.Files+p.Files, d.Bytes+p.Bytes
		if p.Remote != "" {
			c.sessions[string(p.Remote)]++
		}
		by := ""
		if p.By != nil {
			by = who(*p.By)
		}
		for k, name := range [3]string{string(p.Rule), by, l.Place} {
			all := c.erased[k]
			if all[name] == nil && len(all) >= mostWords {
				name = otherWords
			}
			if all[name] == nil {
				all[name] = &Deleted{Name: name}
			}
			of := all[name]
			of.Times, of.Files, of.Bytes = of.Times+1, of.Files+p.Files, of.Bytes+p.Bytes
		}
	}
}

// emptied is when the images of a folder were deleted last.
func emptied(l *journal.Counted) (at sidecar.Time) {
	for i := range l.Purges {
		if l.Purges[i].Emptied {
			at = l.Purges[i].At
		}
	}
	return at
}

func deleted(m map[string]*Deleted) []Deleted {
	list := []Deleted{}
	for _, d := range m {
		list = append(list, *d)
	}
	slices.SortFunc(list, func(a, b Deleted) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Judge takes a decision of a person.
func (c *Counter) Judge(d *journal.Judged) {
	if f := c.r.Head.Filters.Inbox; f != "" && f != d.Inbox {
		return
	}
	all := &c.r.Decisions
	all.All++
	if d.Forced {
		all.Forced++
	}
	c.actions[string(d.Action)]++
	if len(all.Newest) < mostListed {
		all.Newest = append(all.Newest, *d)
	}
}

// Report returns the report of all that was added.
func (c *Counter) Report(linesOfCSV int) *Report {
	r := &c.r
	r.Outcomes, r.Verdicts = sums(c.outcomes, outcomes, nil), sums(c.verdicts, firstVerdicts, lastVerdicts)
	r.Inboxes = slices.SortedFunc(values(c.inboxes), func(a, b Group) int { return cmp.Compare(a.Inbox, b.Inbox) })
	r.Days = slices.SortedFunc(values(c.days), func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.Inbox, b.Inbox))
	})
	r.Reasons = []Reason{}
	for w, n := range c.reasons {
		r.Reasons = append(r.Reasons, Reason{w.Code, w.Source, n})
	}
	slices.SortFunc(r.Reasons, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Folders, a.Folders), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Source, b.Source))
	})
	r.Attempts.Folders = nil
	for i, n := range c.attempts {
		r.Attempts.Folders = append(r.Attempts.Folders, Sum{attemptNames[i], n})
	}
	r.Submit, r.Verdict = c.submit.waits(), c.verdict.waits()
	r.Decisions.ByKind = sums(c.actions, nil, nil)
	d := &r.Deletions
	d.ByRule, d.ByPerson, d.ByPlace, d.Sessions = deleted(c.erased[0]), deleted(c.erased[1]), deleted(c.erased[2]), sums(c.sessions, nil, nil)
	if r.Person == nil {
		r.Person = []Folder{}
	}
	if r.Decisions.Newest == nil {
		r.Decisions.Newest = []journal.Judged{}
	}
	t := &r.Totals
	t.ByOutcome, t.ByVerdict, t.ByAttempts = total(r.Outcomes), total(r.Verdicts), total(r.Attempts.Folders)
	t.ByInbox, t.ByDay, t.Lines = grouped(r.Inboxes), grouped(r.Days), linesOfCSV
	return r
}

func values[K comparable](m map[K]*Group) func(func(Group) bool) {
	return func(yield func(Group) bool) {
		for _, g := range m {
			if !yield(*g) {
				return
			}
		}
	}
}

// sums are those of first and last, in their order, and between them all others, by how many they are.
func sums(m map[string]int, first, last []string) []Sum {
	list := []Sum{}
	for name, n := range m {
		list = append(list, Sum{name, n})
	}
	rank := func(s Sum) int {
		if i := slices.Index(first, s.Name); i >= 0 {
			return i - len(first)
		}
		return 1 + slices.Index(last, s.Name)
	}
	slices.SortFunc(list, func(a, b Sum) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.Folders, a.Folders), cmp.Compare(a.Name, b.Name))
	})
	return list
}

func total(list []Sum) (n int) {
	for _, s := range list {
		n += s.Folders
	}
	return n
}

func grouped(list []Group) (n int) {
	for _, g := range list {
		n += g.Folders
	}
	return n
}

var attemptNames = [7]string{"0", "1", "2", "3", "4 to 9", "10 to 49", "50 and more"}

func bucketOf(attempts int) int {
	switch {
	case attempts < 4:
		return max(attempts, 0)
	case attempts < 10:
		return 4
	case attempts < 50:
		return 5
	default:
		return 6
	}
}

// bounds of the buckets of waiting times; the last has none.
var bounds = []time.Duration{
	time.Second, 10 * time.Second, time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 72 * time.Hour,
}

// steps is into how many parts each doubling of a time is divided, so that any
// number of them is kept in a few kilobytes, each to within 2 %.
const steps = 32

// durations counts times.
type durations struct {
	n           int
	least, most time.Duration
	fine        [steps * 40]int // by their logarithm, from a millisecond on
	coarse      [9]int          // by bounds
}

func (d *durations) add(t time.Duration) {
	t = max(t, 0) // the clock was set
	if d.n == 0 || t < d.least {
		d.least = t
	}
	d.n, d.most = d.n+1, max(d.most, t)
	at := 0
	if ms := t.Seconds() * 1000; ms > 1 {
		at = int(math.Round(steps * math.Log2(ms)))
	}
	d.fine[min(at, len(d.fine)-1)]++
	i, _ := slices.BinarySearch(bounds, t)
	d.coarse[i]++
}

// part returns the time that this part of all did not exceed.
func (d *durations) part(of float64) time.Duration {
	left := int(math.Ceil(of * float64(d.n)))
	for i, n := range d.fine {
		if left -= n; left <= 0 {
			t := time.Duration(math.Exp2(float64(i)/steps) * float64(time.Millisecond))
			return min(max(t, d.least), d.most)
		}
	}
	return d.most
}

func (d *durations) waits() Waits {
	w := Waits{Folders: d.n, Bars: []Bucket{}}
	if d.n > 0 {
		w.Least, w.Median, w.P95, w.Most = seconds(d.least), seconds(d.part(0.5)), seconds(d.part(0.95)), seconds(d.most)
	}
	for i, n := range d.coarse {
		b := Bucket{Folders: n}
		if i < len(bounds) {
			b.UpTo = bounds[i].Seconds()
		}
		w.Bars = append(w.Bars, b)
	}
	return w
}

// seconds is a time to the millisecond.
func seconds(t time.Duration) float64 { return math.Round(t.Seconds()*1000) / 1000 }

// Span is a time, in seconds, as people say it.
func Span(s float64) string {
	switch d := time.Duration(s * float64(time.Second)); {
	case d < 10*time.Second:
		return strconv.FormatFloat(math.Round(s*100)/100, 'f', -1, 64) + " s"
	case d < 2*time.Minute:
		return strconv.Itoa(int(math.Round(s))) + " s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Round(time.Minute).Minutes())) + " min"
	case d < 48*time.Hour:
		return strconv.FormatFloat(math.Round(d.Hours()*10)/10, 'f', -1, 64) + " h"
	default:
		return strconv.FormatFloat(math.Round(d.Hours()/2.4)/10, 'f', -1, 64) + " days"
	}
}

// show is a name from outside as it may be shown: what can't be seen, or turns
// the text around, is written with a backslash.
func show(name string) string { return meta.Show(name) }
