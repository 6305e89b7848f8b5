// Package watcher decides when a folder in an inbox is ready. It reads, and
// never moves or writes; modes that keep it from reading are mended by who has
// the rights (Config.Mend).
//
// The scan is the truth, events only say where to look sooner: events are
// missing on network file systems, are dropped when the kernel's queue
// overflows, and can't be had for more folders than the kernel allows. So
// whatever an event would have told, the next rescan finds.
//
// One goroutine does all of it, and keeps some two hundred bytes a folder, beside
// those for its watch.
package watcher

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/meta"
)

// Config says what to watch.
type Config struct {
	Inbox string // its name
	Dir   string // where it is
	Once  bool   // return when nothing is left but what waits for its uploader
	// Mend makes a folder readable and movable that its uploader's program gave
	// modes which forbid it; nil: it did something. It may be nil.
	Mend func(name string) error
	// Proof proves that a folder can be moved from the inbox. It is asked when
	// Doubts says that one could not, and then again and again until it
	// returns nil; meanwhile no folder is handed on. Both may be nil.
	Proof  func() error
	Doubts <-chan struct{}
	Settings
	// Changes brings settings that are in force from then on; it may be nil.
	// What is known of the folders stays: timers and ages go on.
	Changes <-chan Settings
}

// Settings say how to judge.
type Settings struct {
	Settle    time.Duration // how long nothing may have changed
	Rescan    time.Duration // from the end of one scan to the next; longer when scans are costly
	WarnAfter time.Duration // a folder that waits longer is reported once; 0: never
	FailAfter time.Duration // one that waits longer is handed on as expired; 0: never
	Limits    meta.Limits
}

// doubt is how many times Settle a folder has to be quiet when its meta.yaml
// ends without a line break, and so may be cut off, or when there is none, as
// the defaults allow, and it may still be on its way; the same holds before such
// a one is called invalid.
const doubt = 12

// Quiet returns how long nothing may change in a folder before it is judged by
// what is in it now.
func Quiet(settle time.Duration, rep *meta.Report) time.Duration {
	if rep.Doubtful && !rep.Proven {
		return settle * doubt
	}
	return settle
}

// Bounds of the time between two looks at one folder.
const (
	minGap = 5 * time.Millisecond
	maxGap = time.Minute
)

// share is the part of one core (1/share) that looking may take over time:
// rescans, and looks at a folder that changes all the time.
const share = 100

// haste is the part of one core (1/haste) that a rescan may take while it goes
// on, where events tell of what is new: those who wait for the others, which
// become ready meanwhile, should not notice.
const haste = 20

type state uint8

const (
	settling state = iota // changing, or not quiet for long enough; has a due time
	waiting               // quiet and not complete; a change or a rescan wakes it
	ready                 // complete, in the queue
	offered               // handed on
)

// entry is what is remembered of a folder. A hundred thousand may be waiting, so
// it is kept small: a point in time is how long after the begin of Run it was.
type entry struct {
	name       string
	full       uint64        // fingerprint at the last look
	content    uint64        // likewise
	seen       time.Duration // first look; zero: none yet
	changed    time.Duration // when a look last found a change
	restless   time.Duration // since when it has not been quiet for long enough
	complete   time.Duration
	due        time.Duration // next look; zero: none
	notBefore  time.Duration // earliest next look
	credit     time.Duration // age that the folder had when it was first seen
	gap        time.Duration // back-off
	told       uint32        // what it waits for, as it was told last; zero: nothing was
	place      int32         // in the heap, -1: not in it
	generation uint8         // of the scan that saw it last; those that no scan sees are forgotten
	state      state
	judged     bool // waiting, content has been read since the last change, and nothing but a change mends it
	warned     bool
	watched    bool
	odd        bool // complete, and not what uploading programs make as a rule
}

type watcher struct {
	cfg   Config
	src   Source
	emit  events.Sink
	inbox *os.Root
	began time.Time // see now

	entries    map[string]*entry
	expired    map[*entry]string // those handed on as such, or about to be, and what keeps changing in them
	due        dueHeap
	queue      [2][]string // ready folders, in order: plain ones, and odd ones
	generation uint8

	sweep      []*entry // those that this scan has still to look at
	sweeping   bool
	sweepCost  time.Duration
	nextSweep  time.Duration // when the next scan begins, or this one goes on
	swept      bool          // at least once
	lastSweep  time.Duration // its end
	lostEvents bool          // while sweeping
	hurry      bool          // events were lost, and no scan that began later has ended
	mode       events.Mode
	inboxWatch error
	watchErr   error
	loose      []events.Loose // what this scan met that is no folder, the first by name
	looseMore  int            // how many there are beyond these
	looseKind  string         // of what was looked at last; empty: it is a folder, or gone
	looseTold  *events.Ignored
	trouble    error         // why the inbox can't be read, or nothing be moved from it
	refused    bool          // Proof said so
	nextProof  time.Duration // zero: a scan has to tell whether it can be read
}

// Run watches until ctx ends, or, with Config.Once, until nothing is left to
// hand on. Ready folders are sent to out one by one, the longest ready first,
// but odd ones as if they had been ready later (deference);
// while nobody receives, the judgement is kept up to date. An inbox that can't be
// read is reported and tried again; with Config.Once it ends Run. That is an error
// then, and so is a folder that never comes to rest.
func Run(ctx context.Context, cfg Config, src Source, out chan<- drop.Arrival, emit events.Sink) error {
	w := &watcher{cfg: cfg, src: src, emit: emit, began: time.Now(), entries: map[string]*entry{}, expired: map[*entry]string{}, mode: "none"}
	defer func() {
		if w.inbox != nil {
			_ = w.inbox.Close() // it was read only
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		worked := w.retry()
		worked = w.takeHints() || worked
		worked = w.lookDue() || worked
		worked = w.lookSweep() || worked
		if cfg.Once && w.trouble != nil {
			return fmt.Errorf("nothing can be taken from %s: %w; see idenfy-batch check", w.called(), w.trouble)
		}
		if cfg.Once && w.idle(w.now()) {
			return w.left()
		}
		var offer chan<- drop.Arrival
		var arrival drop.Arrival
		head := w.head()
		if head != nil {
			offer, arrival = out, w.arrival(head)
		}
		if worked {
			select {
			case offer <- arrival:
				w.offered(head)
			case s := <-cfg.Changes:
				w.change(s)
			case <-cfg.Doubts:
				w.doubt()
			default:
			}
			continue
		}
		timer.Reset(w.wake() - w.now())
		select {
		case <-ctx.Done():
		case <-timer.C:
		case h := <-src.Hints():
			w.hint(h)
		case s := <-cfg.Changes:
			w.change(s)
		case <-cfg.Doubts:
			w.doubt()
		case offer <- arrival:
			w.offered(head)
		}
	}
	return nil
}

// called is what the inbox is called for people.
func (w *watcher) called() string {
	if w.cfg.Inbox == "" || w.cfg.Inbox == "inbox" {
		return "the inbox"
	}
	return "inbox " + w.cfg.Inbox
}

// now returns how long Run has been going on, which is never zero.
func (w *watcher) now() time.Duration { return time.Since(w.began) + 1 }

func (w *watcher) arrival(e *entry) drop.Arrival {
	changing, expired := w.expired[e]
	now, at := time.Now(), w.now() // by the clock as it is set now
	return drop.Arrival{Inbox: w.cfg.Inbox, Dir: w.cfg.Dir, Name: e.name, Content: e.content, Expired: expired, Changing: changing, FirstSeen: now.Add(e.seen - at), Complete: now.Add(e.complete - at)}
}

// idle reports whether all that is left waits for its uploader, as one does that
// is not quiet for longer than any doubt lasts.
func (w *watcher) idle(now time.Duration) bool {
	if !w.swept || w.sweeping || w.head() != nil {
		return false
	}
	for _, e := range w.entries {
		if e.state == settling && now-e.restless < w.patience() {
			return false
		}
	}
	return true
}

// left tells of what was not waited for any longer.
func (w *watcher) left() error {
	n := 0
	for _, e := range w.entries {
		if e.state == settling {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d folders in %s keep changing, and were not waited for any longer; see idenfy-batch status, and run it again later", n, w.called())
}

// patience is how long a folder that is not quiet is about to be.
func (w *watcher) patience() time.Duration { return 2 * doubt * w.cfg.Settle }

// deference is how much later than it was an odd folder counts as ready, beside
// plain ones: those who keep to the rules wait for little else than each other.
const deference = 10 * time.Second

// head returns the folder to hand on next, or nil.
func (w *watcher) head() *entry {
	if w.trouble != nil {
		return nil
	}
	plain, odd := w.first(false), w.first(true)
	if plain == nil || odd != nil && odd.complete+deference < plain.complete {
		return odd
	}
	return plain
}

// queueOf returns the queue of odd folders, or of plain ones.
func (w *watcher) queueOf(odd bool) *[]string {
	if odd {
		return &w.queue[1]
	}
	return &w.queue[0]
}

// first returns the first folder in one of the queues, or nil.
func (w *watcher) first(odd bool) *entry {
	q := w.queueOf(odd)
	for len(*q) > 0 {
		if e := w.entries[(*q)[0]]; e != nil && e.state == ready && e.odd == odd {
			return e
		}
		*q = (*q)[1:] // changed or vanished since
	}
	*q = nil
	return nil
}

// offered notes that e was handed on. Its watch ends here: the folder is about
// to move, and the next one under its name is another.
func (w *watcher) offered(e *entry) {
	q := w.queueOf(e.odd)
	*q = (*q)[1:]
	w.unwatch(e)
	e.state = offered
	// Should it still be there then, it could not be claimed, or came back.
	e.gap = min(max(2*e.gap, time.Second), maxGap)
	w.schedule(e, w.now()+e.gap)
}

// change brings new settings into force. What was judged by others is judged
// again, but for what was handed on: the batch looks at that itself.
func (w *watcher) change(s Settings) {
	if s == w.cfg.Settings {
		return
	}
	now := w.now()
	limits, last := s.Limits != w.cfg.Limits, w.lastSweep
	w.cfg.Settings = s
	if next := last + s.Rescan; !w.sweeping && next < w.nextSweep {
		w.nextSweep = next
	}
	if limits {
		w.queue = [2][]string{}
	}
	for _, e := range w.entries {
		switch {
		case e.state == offered:
		case limits:
			e.state, e.judged = settling, false
			w.schedule(e, now)
		case e.state == settling || e.place >= 0 || w.old(e, now):
			w.schedule(e, now) // by another settle, or another age
		}
	}
}

// wake returns when there is something to do without a hint.
func (w *watcher) wake() time.Duration {
	at := w.nextSweep
	if len(w.due) > 0 {
		at = min(at, w.due[0].due)
	}
	if w.trouble != nil && w.nextProof != 0 {
		at = min(at, w.nextProof)
	}
	return at
}

// The work of each kind that is done before the others get their turn.
const (
	hintsAtOnce = 512
	looksAtOnce = 16
)

func (w *watcher) takeHints() bool {
	for n := range hintsAtOnce {
		select {
		case h := <-w.src.Hints():
			w.hint(h)
		default:
			return n > 0
		}
	}
	return true
}

func (w *watcher) hint(h Hint) {
	if h.All {
		w.emit(events.Overflowed{Inbox: w.cfg.Inbox, Err: h.Err})
		w.lostEvents, w.hurry = true, true
		w.rescanSoon()
		return
	}
	e := w.find(h.Name)
	if e != nil && h.Gone {
		w.unwatch(e) // the watch goes with the folder, and isn't that of another under its name
	}
	if e != nil && e.state != offered {
		w.schedule(e, w.now())
	} else if e != nil {
		// Gone, most likely; the look tells.
		w.look(e)
	}
}

// rescanSoon has the next scan begin early because events were lost; not at
// once when they are lost again and again.
func (w *watcher) rescanSoon() {
	w.nextSweep = min(w.nextSweep, w.lastSweep+4*w.sweepCost)
}

// find returns the entry of a name, new if need be, or nil for what is no drop.
func (w *watcher) find(name string) *entry {
	if name == "" || drop.Junk(name) {
		return nil
	}
	e := w.entries[name]
	if e == nil {
		e = &entry{name: name, place: -1, generation: w.generation}
		w.entries[name] = e
	}
	return e
}

func (w *watcher) lookDue() bool {
	for n := range looksAtOnce {
		if len(w.due) == 0 || w.due[0].due > w.now() {
			return n > 0
		}
		e := w.due[0]
		w.schedule(e, 0)
		w.look(e)
	}
	return true
}

// lookSweep begins, continues or ends a scan.
func (w *watcher) lookSweep() bool {
	now := w.now()
	if now < w.nextSweep {
		return false
	}
	if !w.sweeping {
		w.beginSweep()
		w.sweepCost = w.now() - now
		return true
	}
	for range min(looksAtOnce, len(w.sweep)) {
		name := w.sweep[0].name
		w.sweep = w.sweep[1:]
		e := w.find(name) // which may have been forgotten meanwhile
		e.generation = w.generation
		w.looseKind = ""
		if w.look(e); w.looseKind != "" {
			w.passOver(events.Loose{Name: name, Kind: w.looseKind})
		}
	}
	cost := w.now() - now
	w.sweepCost += cost
	switch {
	case len(w.sweep) == 0:
		w.endSweep()
	case (w.mode == events.ByEvents || w.mode == events.Partial) && !w.hurry && !w.cfg.Once:
		w.nextSweep = w.now() + (haste-1)*cost
	}
	return true
}

func (w *watcher) beginSweep() {
	w.generation++
	w.sweeping, w.lostEvents = true, false
	w.watchErr = nil // the scan tries again
	w.loose, w.looseMore = nil, 0
	list, err := w.list()
	if err == nil {
		w.prove()
	} else {
		w.nextProof = 0
		w.tell(err)
	}
	w.sweep = list
	if err != nil {
		// Nothing is known of the folders; they are not gone.
		w.sweeping = false
		w.nextSweep = w.now() + min(w.cfg.Rescan, maxGap)
	}
}

// doubt finds out why a folder could not be moved.
func (w *watcher) doubt() {
	if w.nextProof != 0 && w.cfg.Proof != nil {
		w.refused = true
		w.prove()
	}
}

// retry finds out whether what can't be moved can be again. A scan does that
// too, but may be far off, where it costs much.
func (w *watcher) retry() bool {
	if w.trouble == nil || w.nextProof == 0 || w.now() < w.nextProof {
		return false
	}
	if w.prove(); w.trouble == nil {
		w.rescanSoon()
	}
	return true
}

// prove finds out, and says, whether anything can be moved from the inbox, which
// can be read.
func (w *watcher) prove() {
	var trouble error
	switch {
	case errors.Is(drop.Movable(w.inbox, "."), drop.ErrParent):
		trouble = errors.New(Unmovable(drop.ErrParent).Message)
	case w.refused:
		trouble = w.cfg.Proof()
		w.refused = trouble != nil
	}
	w.tell(trouble)
	w.nextProof = w.now() + min(w.cfg.Rescan, maxGap)
}

// tell says what is wrong with the inbox, when that has changed.
func (w *watcher) tell(trouble error) {
	if fmt.Sprint(trouble) != fmt.Sprint(w.trouble) {
		w.emit(events.InboxTrouble{Inbox: w.cfg.Inbox, Err: trouble})
	}
	w.trouble = trouble
}

// list reads what is in the inbox, opening it anew when the path means another
// directory by now.
func (w *watcher) list() (list []*entry, err error) {
	if w.inbox != nil {
		was, err1 := w.inbox.Stat(".")
		is, err2 := os.Stat(w.cfg.Dir)
		if err1 != nil || err2 != nil || !os.SameFile(was, is) {
			_ = w.inbox.Close() // it was read only
			w.inbox = nil
			w.src.Unwatch("")
			for _, e := range w.entries {
				w.unwatch(e)
			}
		}
	}
	if w.inbox == nil {
		inbox, err := os.OpenRoot(w.cfg.Dir)
		if err != nil {
			return nil, err
		}
		w.inbox = inbox
		w.inboxWatch = errNotTried
	}
	if w.inboxWatch != nil {
		w.inboxWatch = w.src.Watch("") // before the scan, so that nothing falls between
	}
	d, err := w.inbox.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	list = make([]*entry, 0, len(w.entries))
	for {
		names, err := d.Readdirnames(1024) // so that those which are known already are not kept twice
		for _, name := range names {
			if e := w.find(name); e != nil {
				list = append(list, e)
			}
		}
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

var errNotTried = errors.New("not tried")

func (w *watcher) endSweep() {
	var oldest time.Duration
	now := w.now()
	for _, e := range w.entries {
		if e.generation != w.generation {
			w.forget(e)
			continue
		}
		if age := e.age(now); e.seen != 0 && age > oldest {
			oldest = age
		}
	}
	if now := (events.Ignored{Inbox: w.cfg.Inbox, Loose: w.loose, More: w.looseMore}); w.looseTold == nil || now.More != w.looseTold.More || !slices.Equal(now.Loose, w.looseTold.Loose) {
		w.looseTold = &now
		w.emit(now)
	}
	first := !w.swept
	w.sweeping, w.swept = false, true
	w.sweep = nil
	w.reportMode()
	w.emit(events.Rescanned{Inbox: w.cfg.Inbox, Folders: len(w.entries), Oldest: oldest, Took: w.sweepCost})
	w.lastSweep = now
	w.nextSweep = now + w.cfg.Rescan
	if !first { // the first one began all watches, which no other has to
		w.nextSweep = now + max(w.cfg.Rescan, share*w.sweepCost)
	}
	if w.hurry = w.lostEvents; w.hurry {
		w.rescanSoon()
	}
}

func (w *watcher) reportMode() {
	mode, err := events.ByEvents, w.watchErr
	switch {
	case w.inboxWatch != nil:
		mode, err = events.ByRescans, w.inboxWatch
	case w.watchErr != nil:
		mode = events.Partial
	}
	if mode != w.mode {
		w.emit(events.WatchModeChanged{Inbox: w.cfg.Inbox, Mode: mode, Err: err})
	}
	w.mode = mode
}

// age is how long the folder has been there, as far as is known.
func (e *entry) age(now time.Duration) time.Duration { return now - e.seen + e.credit }

// schedule has e looked at then, or sooner; zero: not at all.
func (w *watcher) schedule(e *entry, at time.Duration) {
	if at == 0 {
		if e.place >= 0 {
			heap.Remove(&w.due, int(e.place))
		}
		e.due = at
		return
	}
	at = max(at, e.notBefore)
	if e.place < 0 {
		e.due = at
		heap.Push(&w.due, e)
	} else if at < e.due {
		e.due = at
		heap.Fix(&w.due, int(e.place))
	}
}

func (w *watcher) forget(e *entry) {
	w.lacksNothing(e)
	w.schedule(e, 0)
	w.unwatch(e)
	delete(w.entries, e.name)
	delete(w.expired, e)
}

func (w *watcher) unwatch(e *entry) {
	if e.watched {
		w.src.Unwatch(e.name)
		e.watched = false
	}
}

// look brings what is known of e up to date, and decides.
func (w *watcher) look(e *entry) {
	if w.inbox == nil {
		return // the scan that opens it looks at all
	}
	begin := w.now()
	if e.state == offered && begin < e.due {
		// Being claimed. All there is to see is whether it is gone.
		if _, err := w.inbox.Lstat(e.name); errors.Is(err, fs.ErrNotExist) {
			w.forget(e)
		}
		return
	}
	if !e.watched && e.state != offered && !w.watch(e) {
		return
	}
	root, l, err := w.read(e)
	if errors.Is(err, fs.ErrPermission) && w.mend(e) {
		root, l, err = w.read(e)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		w.forget(e)
		return
	}
	if err != nil {
		w.unreadable(e, begin, err)
		return
	}
	defer root.Close()
	now := w.now()
	switch {
	case e.seen == 0:
		e.seen, e.changed, e.restless = now, now, now
		e.credit = w.credit(l)
	case l.Full != e.full:
		e.changed = now
		e.gap = 0
	case e.state == offered:
		e.changed = now // came back, or could not be taken: begin again
	case e.state == ready:
		return
	case e.state == waiting && e.judged && !w.old(e, now):
		return
	}
	if l.Full != e.full || e.state == offered {
		if e.state != settling && w.expired[e] == "" {
			e.restless = now
		}
		e.full, e.content, e.judged, e.state = l.Full, l.Content, false, settling
	}
	w.judge(e, root, l, now)
	// A look that was long because there was much to read may not be followed
	// by the next at once, however often the folder changes.
	now = w.now()
	e.notBefore = now + min(max(minGap, share/5*(now-begin)), time.Second)
}

// read opens and lists the folder, whose root is then to be closed.
func (w *watcher) read(e *entry) (*os.Root, drop.Listing, error) {
	root, err := drop.Open(w.inbox, e.name)
	if err != nil {
		return nil, drop.Listing{}, err
	}
	l, err := meta.List(root, w.cfg.Limits)
	if err != nil {
		return nil, l, errors.Join(err, root.Close())
	}
	return root, l, nil
}

// watch begins the watch of e, before it is looked at, so that nothing falls
// between. It is false when there is no folder any more.
func (w *watcher) watch(e *entry) bool {
	info, err := w.inbox.Lstat(e.name)
	if err != nil || !info.IsDir() {
		if err == nil && !drop.Temporary(e.name) {
			w.looseKind = drop.Kind(info.Mode())
		}
		w.forget(e)
		return false
	}
	err = w.src.Watch(e.name)
	if errors.Is(err, ErrNoWatch) && w.lively(e) && w.spare() {
		w.watchErr = err // of the one that was spared
		err = w.src.Watch(e.name)
	}
	switch {
	case err == nil:
		e.watched = true
	case !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR): // of that one folder, and told by the look
		w.watchErr = err
	}
	return true
}

// passOver notes what is no folder: the first by name, so that the same is told
// as long as nothing changes.
func (w *watcher) passOver(l events.Loose) {
	at, _ := slices.BinarySearchFunc(w.loose, l.Name, func(l events.Loose, name string) int { return strings.Compare(l.Name, name) })
	w.loose = slices.Insert(w.loose, at, l)
	if len(w.loose) > events.MostIgnored {
		w.loose = w.loose[:events.MostIgnored]
		w.looseMore++
	}
}

// lively reports whether e came, or was found changed, since the first scan: much
// may be about to happen in it.
func (w *watcher) lively(e *entry) bool {
	return w.swept && e.seen == 0 || e.state == settling && e.changed > e.seen
}

// spare ends the watch of one that has been waiting for long, so that there is one
// for another. It looks at a few, which are any of those there are: that none of
// them has waited for longer than one that came lately happens about never.
func (w *watcher) spare() bool {
	var longest *entry
	looked, waits := 0, 0
	for _, e := range w.entries {
		if looked++; looked > 500 || waits == 8 {
			break
		}
		if !e.watched || e.state != waiting {
			continue
		}
		waits++
		if longest == nil || e.changed < longest.changed {
			longest = e
		}
	}
	if longest == nil {
		return false
	}
	w.unwatch(longest)
	return true
}

// old reports whether age alone makes another judgement worth while.
func (w *watcher) old(e *entry, now time.Duration) bool {
	age := e.age(now)
	return !e.warned && w.cfg.WarnAfter > 0 && age >= w.cfg.WarnAfter ||
		w.cfg.FailAfter > 0 && age >= w.cfg.FailAfter
}

// credit is the age of a folder that lay there before the daemon started, by
// the newest of its change times. It serves the day-long limit only, never the
// judgement of completeness; and because a clock may be wrong, a folder is
// left at least WarnAfter to mend. With Config.Once there is nothing but the
// clock to tell how often it was seen before.
func (w *watcher) credit(l drop.Listing) time.Duration {
	most := max(w.cfg.FailAfter-w.cfg.WarnAfter, 0)
	if w.cfg.Once {
		most = w.cfg.FailAfter
	}
	return min(max(time.Since(time.Unix(0, l.Newest().ChangeTime())), 0), most)
}

func (w *watcher) unreadable(e *entry, now time.Duration, err error) {
	if e.seen == 0 {
		e.seen, e.changed, e.restless = now, now, now
	}
	w.wait(e, now, []meta.Reason{Unreadable(err)})
	e.full, e.judged = 0, false // the next scan looks again
}

// judge applies the rule of completeness to a listing.
func (w *watcher) judge(e *entry, root *os.Root, l drop.Listing, now time.Duration) {
	quiet := now - e.changed
	settled := quiet >= w.cfg.Settle
	if err := drop.Movable(w.inbox, e.name); err != nil {
		if errors.Is(err, drop.ErrFolder) && w.mend(e) {
			w.schedule(e, now) // it has changed by that
			return
		}
		w.wait(e, now, []meta.Reason{Unmovable(err)})
		return
	}
	rep := meta.Inspect(root, e.name, l, w.cfg.Limits, !settled)
	if slices.ContainsFunc(rep.Waits, func(r meta.Reason) bool { return r.Code == "unreadable" }) && w.mend(e) {
		w.schedule(e, now)
		return
	}
	long := Quiet(w.cfg.Settle, &rep)
	invalid := len(rep.Invalid) > 0 && !uploading(rep.Waits)
	switch {
	case rep.Complete() && (rep.Proven || quiet >= long), invalid && quiet >= long:
		if w.busy(e, root, l, now) {
			return
		}
		w.finish(e, now, odd(e.name, l, &rep))
	case !settled, (rep.Complete() || invalid) && quiet < long:
		next := e.changed + w.cfg.Settle
		if settled {
			next = e.changed + long
		}
		e.state = settling
		w.schedule(e, next)
		w.warn(e, now, []meta.Reason{meta.StillChanging(l.Newest().Name)})
		if w.overdue(e, now) {
			w.expire(e, now, l.Newest().Name)
		}
	default:
		e.judged = !rep.Passing
		w.wait(e, now, rep.Waits)
		if rep.Passing {
			w.soon(e, now)
		}
		if w.cfg.FailAfter > 0 && e.age(now) >= w.cfg.FailAfter {
			w.expire(e, now, drop.Busy(root, l))
		}
	}
}

// overdue reports whether a folder that would be complete if it were left alone
// is old, and not about to be left alone: it has not been quiet for longer than
// any doubt lasts.
func (w *watcher) overdue(e *entry, now time.Duration) bool {
	return w.cfg.FailAfter > 0 && e.age(now) >= w.cfg.FailAfter && now-e.restless >= min(w.cfg.FailAfter, w.patience())
}

// Unmovable explains an error of drop.Movable to people.
func Unmovable(err error) meta.Reason {
	message := "the daemon may not move it: fix with chmod g+rwx on it, in an inbox whose group the daemon shares"
	if errors.Is(err, drop.ErrParent) {
		message = "the daemon may not move anything out of the inbox: fix with chmod g+rwx on the inbox, and its file system mounted for writing"
	}
	return meta.Reason{Code: "not_movable", Message: message}
}

// Unreadable explains why a folder can't be looked into.
func Unreadable(err error) meta.Reason {
	r := meta.Reason{Code: "unreadable", Message: fmt.Sprintf("unreadable: %v", err)}
	mend := "g+rwx on it"
	if below, ok := errors.AsType[*drop.BelowError](err); ok {
		r.Field, mend = below.Dir, "-R g+rX on "+meta.Show(below.Dir)
		r.Message = fmt.Sprintf("unreadable: %s: %v", meta.Show(below.Dir), below.Err)
	}
	if errors.Is(err, fs.ErrPermission) {
		r.Message = fmt.Sprintf("unreadable: fix with chmod %s, in an inbox whose group the daemon shares", mend)
	}
	return r
}

// uploading reports whether a temporary name shows that somebody is at it.
func uploading(waits []meta.Reason) bool {
	for _, r := range waits {
		if r.Code == "temporary_name" {
			return true
		}
	}
	return false
}

// mend has the modes of e put right, and tells whether anything was changed.
func (w *watcher) mend(e *entry) bool { return w.cfg.Mend != nil && w.cfg.Mend(e.name) == nil }

// busy has another look scheduled if somebody is writing: there is no event
// for the end of that.
func (w *watcher) busy(e *entry, root *os.Root, l drop.Listing, now time.Duration) bool {
	name := drop.Busy(root, l)
	if name == "" {
		return false
	}
	w.wait(e, now, []meta.Reason{{Code: "open_for_writing", Field: name, Message: meta.Show(name) + " is open for writing"}})
	w.soon(e, now)
	if w.overdue(e, now) {
		w.expire(e, now, name)
	}
	return true
}

// odd reports whether a folder has more in it, or less, than what makes a
// submission. That may be as it should be, and may cost a lot.
func odd(name string, l drop.Listing, rep *meta.Report) bool {
	return len(rep.Invalid) > 0 || len(rep.Extra) > 0 || len(l.Records) > 0 || l.More || drop.CleanName(name) != "" ||
		slices.ContainsFunc(l.Entries, func(e drop.Entry) bool { return !e.Regular() || e.Links > 1 })
}

// soon has e looked at again for what passes without any event, ever more seldom.
// Rescans may be far apart, where they cost much.
func (w *watcher) soon(e *entry, now time.Duration) {
	e.gap = min(max(2*e.gap, minGap), max(w.cfg.Rescan, minGap))
	w.schedule(e, now+e.gap)
}

func (w *watcher) finish(e *entry, now time.Duration, odd bool) {
	w.schedule(e, 0)
	w.lacksNothing(e)
	e.state, e.complete, e.odd = ready, now, odd
	delete(w.expired, e)
	q := w.queueOf(odd)
	*q = append(*q, e.name)
}

// expire hands e on as one that never became complete.
func (w *watcher) expire(e *entry, now time.Duration, changing string) {
	w.finish(e, now, true)
	w.expired[e] = changing
}

// wait notes that e is not complete, and warns of an old one.
func (w *watcher) wait(e *entry, now time.Duration, reasons []meta.Reason) {
	e.state = waiting
	w.warn(e, now, reasons)
}

func (w *watcher) warn(e *entry, now time.Duration, reasons []meta.Reason) {
	if age := e.age(now); !e.warned && w.cfg.WarnAfter > 0 && age >= w.cfg.WarnAfter {
		e.warned = true
		w.emit(events.FolderWaits{Inbox: w.cfg.Inbox, Folder: e.name, Age: age, Reasons: reasons})
	}
	if e.warned && (e.state != settling || now-e.restless >= w.patience()) { // else what it waits for is found out soon
		w.lacks(e, reasons)
	}
}

// lacks tells what an old folder waits for, when that has changed.
func (w *watcher) lacks(e *entry, reasons []meta.Reason) {
	sum := uint32(1)
	for _, r := range reasons {
		sum = sum*31 + crc32.ChecksumIEEE([]byte(r.Code))
		if r.Code != "still_changing" { // of which each look may find another
			sum = sum*31 + crc32.ChecksumIEEE([]byte(r.Message))
		}
	}
	if sum = max(sum, 1); sum == e.told {
		return
	}
	e.told = sum
	now, at := time.Now(), w.now()
	w.emit(events.FolderLacks{Inbox: w.cfg.Inbox, Folder: e.name, Seen: now.Add(e.seen - at), Since: now.Add(e.changed - at), Reasons: reasons})
}

// lacksNothing tells that a folder waits no more: it is complete, or gone.
func (w *watcher) lacksNothing(e *entry) {
	if e.told != 0 {
		e.told = 0
		w.emit(events.FolderLacks{Inbox: w.cfg.Inbox, Folder: e.name})
	}
}

// dueHeap orders entries by the time of their next look.
type dueHeap []*entry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = int32(i), int32(j)
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	e, _ := x.(*entry)
	e.place = int32(len(*h))
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	e.place = -1
	return e
}
