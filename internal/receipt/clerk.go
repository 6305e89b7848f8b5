// Package receipt owns what an uploader is told, who sees no result: a file for
// each of his folders, in a directory that he can read.
//
// What is owed stands in the journal until it is written, so that none is lost,
// and nobody waits for it: a directory that can't be written into is told, and
// tried again, by a goroutine that does nothing else.
package receipt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/sidecar"
)

// Settings say where the receipts of an inbox go.
type Settings struct {
	Inbox string        // its directory, whose group reads the receipts
	Path  string        // directory of the receipts
	Keep  time.Duration // after which they are removed; 0: never
}

// Clerk writes the receipts of one inbox.
type Clerk struct {
	inbox   string // its name
	journal *journal.Journal
	emit    events.Sink
	set     atomic.Pointer[Settings]
	wake    chan struct{}

	mu    sync.Mutex
	waits map[string]journal.Awaiting // that are not recorded yet, by the folder's name as it may be shown
	loose *events.Ignored             // that is not written yet

	// Of Run's goroutine.
	stuck   map[string]stuck // receipts that can't be written by their own fault, by the folder's name
	foreign error            // why the last one could not be given to the inbox's group
	written int              // since that was told
	owed    int              // as it was told
	said    string           // the trouble that was told
}

// stuck is why a receipt can't be written, and until when that isn't tried.
type stuck struct {
	err   error
	until time.Time
}

// NewClerk returns a clerk for the inbox of a name.
func NewClerk(inbox string, j *journal.Journal, s Settings, emit events.Sink) *Clerk {
	c := &Clerk{inbox: inbox, journal: j, emit: emit, wake: make(chan struct{}, 1), waits: map[string]journal.Awaiting{}, stuck: map[string]stuck{}}
	c.set.Store(&s)
	return c
}

// Set changes the settings.
func (c *Clerk) Set(s Settings) {
	c.set.Store(&s)
	c.Wake()
}

// Wake has it look soon.
func (c *Clerk) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Take hears of what happens to folders; it is an events.Sink.
func (c *Clerk) Take(e events.Event) {
	switch e := e.(type) {
	case events.FolderLacks:
		if e.Inbox != c.inbox {
			return
		}
		w := journal.Awaiting{Folder: meta.Show(e.Folder), Over: len(e.Reasons) == 0}
		if !w.Over {
			w.Seen, w.Since, w.Reasons = sidecar.Time{Time: e.Seen}, sidecar.Time{Time: e.Since}, waits(e.Reasons)
		}
		c.mu.Lock()
		c.waits[w.Folder] = w
		c.mu.Unlock()
	case events.Ignored:
		if e.Inbox != c.inbox {
			return
		}
		c.mu.Lock()
		c.loose = &e
		c.mu.Unlock()
	case events.Ended, events.Decided, events.VerdictCame, events.Vanished:
	default:
		return
	}
	c.Wake()
}

// Times and bounds of the clerk.
const (
	gather     = 300 * time.Millisecond // what comes within it shares the waits for the disk
	lookAlways = 30 * time.Second
	firstRetry = time.Second // where nothing can be written; each time twice that
	lastRetry  = time.Minute
	tryAgain   = 10 * time.Minute // of one that can't be written by its own fault
	cleaning   = time.Hour        // between two looks for what is old
	atOnce     = 64               // receipts that are written together
	listed     = 500              // folders that are asked for together
	mostStuck  = 1000             // more are tried each time
)

// Run works until ctx ends, and then writes once more what is owed. What can't
// be written then is after the next start.
func (c *Clerk) Run(ctx context.Context) {
	var cleaned time.Time
	set := c.set.Load()
	for retry := firstRetry; ; {
		over := ctx.Err() != nil
		if now := c.set.Load(); now != set {
			set, cleaned = now, time.Time{}
		}
		err := c.round(context.WithoutCancel(ctx))
		if err == nil && !over && time.Since(cleaned) > cleaning {
			cleaned = time.Now()
			err = c.clean(ctx)
		}
		c.tell(context.WithoutCancel(ctx), err)
		if over {
			return
		}
		if err == nil {
			retry = firstRetry
			c.pause(ctx, lookAlways, c.wake)
			continue
		}
		c.pause(ctx, retry, nil) // whatever comes would only meet the same
		retry = min(2*retry, lastRetry)
	}
}

// pause waits, or less when it is woken.
func (c *Clerk) pause(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
		return
	case <-wake:
	}
	timer.Reset(gather)
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// tell says how it stands, where that is something else than before.
func (c *Clerk) tell(ctx context.Context, err error) {
	if err == nil {
		err = c.foreign
	}
	for _, folder := range slices.Sorted(maps.Keys(c.stuck)) {
		if err == nil {
			err = fmt.Errorf("%s: %w", strconv.Quote(sidecar.ReceiptName(folder)), c.stuck[folder].err)
		}
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != c.said {
		c.said = text
		c.emit(events.ReceiptTrouble{Inbox: c.inbox, Err: err})
	}
	owed, failed := c.journal.CountOwed(ctx, c.inbox)
	if failed == nil && (owed != c.owed || c.written > 0) {
		c.emit(events.Receipts{Inbox: c.inbox, Written: c.written, Owed: owed})
		c.written, c.owed = 0, owed
	}
}

// round records what the folders wait for, and writes what is owed. What keeps
// it from writing any receipt is an error.
func (c *Clerk) round(ctx context.Context) error {
	if err := c.record(); err != nil {
		return err
	}
	for after := ""; ; {
		list, err := c.journal.Owes(ctx, c.inbox, after, atOnce)
		if err != nil {
			return fmt.Errorf("the journal: %w", err)
		}
		if len(list) == 0 {
			return c.writeLoose()
		}
		after = list[len(list)-1].Folder
		if err := c.write(slices.DeleteFunc(list, func(o journal.Owed) bool { return c.patient(o.Folder) })); err != nil {
			return err
		}
	}
}

// record records what folders wait for.
func (c *Clerk) record() error {
	c.mu.Lock()
	list := slices.Collect(maps.Values(c.waits))
	c.mu.Unlock()
	for some := range slices.Chunk(list, listed) {
		if err := c.journal.Waits(c.inbox, some); err != nil {
			return err
		}
		c.mu.Lock()
		for i := range some { // but for what changed meanwhile
			if w := c.waits[some[i].Folder]; w.Over == some[i].Over && w.Since == some[i].Since && slices.Equal(w.Reasons, some[i].Reasons) {
				delete(c.waits, some[i].Folder)
			}
		}
		c.mu.Unlock()
	}
	return nil
}

// patient tells that a receipt is not to be tried again yet.
func (c *Clerk) patient(folder string) bool {
	s, is := c.stuck[folder]
	if is && time.Now().After(s.until) {
		delete(c.stuck, folder)
		return false
	}
	return is
}

// open opens the directory, and returns the group that is to read it.
func (c *Clerk) open() (d dir, group int, err error) {
	s := c.set.Load()
	info, err := os.Stat(s.Inbox)
	if err != nil {
		return d, 0, fmt.Errorf("whose the inbox is can't be told: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return d, 0, errors.ErrUnsupported
	}
	if d, err = openDir(s.Path); err != nil {
		return d, 0, fmt.Errorf("%s: %w", s.Path, err)
	}
	return d, int(st.Gid), nil
}

// write writes what is owed.
func (c *Clerk) write(list []journal.Owed) error {
	if len(list) == 0 {
		return nil
	}
	d, group, err := c.open()
	if err != nil {
		return err
	}
	defer d.Close()
	files, at := make([]durable.File, 0, len(list)), make([]int, 0, len(list))
	faults := make([]error, len(list))
	for i := range list {
		r, name := c.receipt(&list[i]), sidecar.ReceiptName(list[i].Folder)
		if r == nil {
			faults[i] = d.remove(name)
			continue
		}
		data, err := sidecar.EncodeReceipt(r)
		if err != nil {
			return err
		}
		files, at = append(files, durable.File{Name: name, Data: data, Group: group}), append(at, i)
	}
	if err := d.write(files); err != nil {
		return c.fault(err)
	}
	for i := range files {
		faults[at[i]] = files[i].Err
		if files[i].Err == nil {
			c.written++
			c.foreign = foreign(group, files[i].GroupErr)
		}
	}
	return c.note(list, faults)
}

// foreign explains why a receipt could not be given to the inbox's group.
func foreign(group int, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("receipts can't be given to the group of the inbox (%d), which can't read them (%w); have the directory be of that group, with the setgid bit, or put the daemon's user into it", group, errno(err))
}

// note notes what was written, and which receipts have a fault of their own.
func (c *Clerk) note(list []journal.Owed, faults []error) (first error) {
	done := list[:0]
	for i, err := range faults {
		switch folder := list[i].Folder; {
		case err == nil:
			done = append(done, list[i])
		case !own(err):
			first = err
		case len(c.stuck) < mostStuck:
			c.stuck[folder] = stuck{errno(err), time.Now().Add(tryAgain)}
		}
	}
	if len(done) > 0 {
		if err := c.journal.Receipted(c.inbox, done, time.Now()); err != nil {
			return err
		}
	}
	if first != nil {
		return c.fault(first)
	}
	return nil
}

// fault is an error at the directory, without names of what is in it.
func (c *Clerk) fault(err error) error { return fmt.Errorf("%s: %w", c.set.Load().Path, errno(err)) }

// errno is the error itself, without the names that the system's have.
func errno(err error) error {
	if e, ok := errors.AsType[unix.Errno](err); ok {
		return e
	}
	return err
}

// own reports whether an error is of the one name only.
func own(err error) bool {
	if _, renamed := errors.AsType[*os.LinkError](err); renamed {
		for _, e := range []error{unix.EPERM, unix.EACCES, unix.EBUSY, unix.EINVAL} { // also a mount, a name that the file system can't have
			if errors.Is(err, e) {
				return true
			}
		}
	}
	for _, e := range []error{errInTheWay, unix.EISDIR, unix.EEXIST, unix.ENOTEMPTY, unix.ENAMETOOLONG} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// writeLoose writes what lies in the inbox and is no folder.
func (c *Clerk) writeLoose() error {
	c.mu.Lock()
	e := c.loose
	c.mu.Unlock()
	if e == nil {
		return nil
	}
	d, group, err := c.open()
	if err != nil {
		return err
	}
	defer d.Close()
	if len(e.Loose) == 0 {
		err = d.remove(sidecar.InboxReceipt)
	} else {
		r := sidecar.Receipt{Inbox: c.inbox, State: sidecar.LeftAlone, Message: ignored, Unnamed: e.More, Written: sidecar.Now()}
		for _, l := range e.Loose {
			r.Ignored = append(r.Ignored, sidecar.ReceiptIgnored{Name: meta.Show(l.Name), Kind: l.Kind})
		}
		var data []byte
		if data, err = sidecar.EncodeReceipt(&r); err != nil {
			return err
		}
		files := []durable.File{{Name: sidecar.InboxReceipt, Data: data, Group: group}}
		if err = errors.Join(d.write(files), files[0].Err); err == nil {
			c.written++
			c.foreign = foreign(group, files[0].GroupErr)
		}
	}
	if err != nil && !own(err) {
		return c.fault(err)
	}
	const folder = "_inbox" // which no folder's name comes to
	if delete(c.stuck, folder); err != nil {
		c.stuck[folder] = stuck{errno(err), time.Now().Add(tryAgain)}
	}
	c.mu.Lock()
	if c.loose == e && err == nil {
		c.loose = nil
	}
	c.mu.Unlock()
	return nil
}

// receipt returns what a folder's uploader is told, or nil when that is nothing.
func (c *Clerk) receipt(o *journal.Owed) *sidecar.Receipt {
	r := &sidecar.Receipt{Inbox: c.inbox, Folder: o.Folder, Written: sidecar.Now(), Earlier: o.Earlier, Older: o.Older}
	if w := o.Wait; w != nil {
		r.State, r.Reasons, r.Message = sidecar.Waits, w.Reasons, waitsFor(w.Since.Time, w.Reasons)
		r.Times = sidecar.ReceiptTimes{FirstSeen: w.Seen, Since: w.Since}
		if l := o.Life; l != nil && l.State != journal.Pending && l.State != journal.Claimed {
			r.Earlier = slices.Insert(r.Earlier, 0, sidecar.ReceiptEarlier{ID: l.ID, Outcome: outcome(l), Finished: l.Result.Times.Finished})
			if over := len(r.Earlier) - mostEarlier; over > 0 {
				r.Earlier, r.Older = r.Earlier[:mostEarlier], r.Older+over
			}
		}
		return r
	}
	l := o.Life
	if l == nil {
		return nil
	}
	r.ID, r.Times = l.ID, sidecar.ReceiptTimes{FirstSeen: l.Result.Times.FirstSeen, Complete: l.Result.Times.Complete}
	if l.State == journal.Pending || l.State == journal.Claimed {
		r.State, r.Message = sidecar.Works, works
		return r
	}
	r.Times.Finished = l.Result.Times.Finished
	r.State, r.Outcome, r.Reasons, r.Verdict = sidecar.Ends, outcome(l), reasons(l.Result.Reasons), o.Verdict
	r.Message = ends[r.Outcome]
	for _, d := range l.Result.Decisions {
		if d.Result == l.ID {
			r.Decision = &sidecar.ReceiptDecision{At: d.At, Action: d.Action}
		}
	}
	if l.Result.Decided(sidecar.Requeued) || l.Result.Decided(sidecar.Resubmit) {
		r.State, r.Outcome, r.Message = sidecar.PutBack, "", putBack
	}
	return r
}

// mostEarlier bounds how many folders of before a receipt lists.
const mostEarlier = 20

// outcome is one that its uploader knows.
func outcome(l *journal.Life) sidecar.Outcome {
	if o := l.Outcome(); ends[o] != "" {
		return o
	}
	return sidecar.Unknown
}

// clean removes receipts that are old, and notes that folders wait no more which
// were taken away while no daemon ran.
func (c *Clerk) clean(ctx context.Context) (err error) {
	defer func() {
		if ctx.Err() != nil {
			err = nil // it was cut off, which is no trouble to be told of
		}
	}()
	if err := c.lookForWaiting(ctx); err != nil {
		return err
	}
	var before time.Time
	if keep := c.set.Load().Keep; keep > 0 {
		before = time.Now().Add(-keep)
	}
	for n := listed; n == listed; {
		if n, err = c.journal.Outlive(ctx, c.inbox, before, listed); err != nil {
			return err
		}
	}
	d, _, err := c.open()
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.sweep(ctx, before, func(folders []string) (map[string]bool, error) { return c.journal.Receipts(ctx, c.inbox, folders) })
	if err != nil {
		return c.fault(err)
	}
	return nil
}

// lookForWaiting looks whether the folders that are known to wait are there.
func (c *Clerk) lookForWaiting(ctx context.Context) error {
	inbox, err := os.OpenRoot(c.set.Load().Inbox)
	if err != nil {
		return nil // the watcher says so; nothing is known of the folders, and they are not gone
	}
	defer inbox.Close()
	for after := ""; ; {
		folders, err := c.journal.Waiting(ctx, c.inbox, after, listed)
		if err != nil {
			return fmt.Errorf("the journal: %w", err)
		}
		if len(folders) == 0 {
			return nil
		}
		after = folders[len(folders)-1]
		var over []journal.Awaiting
		for _, folder := range folders {
			if gone(inbox, folder) {
				over = append(over, journal.Awaiting{Folder: folder, Over: true})
			}
		}
		if len(over) > 0 {
			if err := c.journal.Waits(c.inbox, over); err != nil {
				return err
			}
		}
	}
}

// gone reports whether there is certainly no folder, by its name as it is shown.
func gone(inbox *os.Root, folder string) bool {
	_, err := inbox.Lstat(folder)
	if name, quoted := strconv.Unquote(folder); err != nil && quoted == nil {
		_, err = inbox.Lstat(name)
	}
	return errors.Is(err, fs.ErrNotExist)
}

// Check returns why receipts can't be written by this process, as they are set.
func Check(s Settings) error {
	d, err := openDir(s.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s does not exist; make it, for the daemon's user to write and the inbox's group to read (install -d -m 2750 -o USER -g GROUP %s)", s.Path, s.Path)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.Path, err)
	}
	defer d.Close()
	if err := unix.Faccessat(unix.AT_FDCWD, s.Path, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("%s: %w; the daemon's user has to be able to write there (chown)", s.Path, err)
	}
	return nil
}
