package daemon

import (
	"cmp"
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/report"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/telemetry"
	"idenfy-batch/sidecar"
)

// Bounds of the overview page.
const (
	pageKept = 10 * time.Second // between two looks, however many ask
	lastEnds = 50
	waits    = 20   // of each place
	inboxed  = 1000 // names of the inbox of which the oldest are looked for
)

// overview makes the overview page, not more often than is worth it.
type overview struct {
	d  *daemon
	mu sync.Mutex // one looks, and the others take what it saw

	made time.Time
	page []byte
}

// get returns the page.
func (o *overview) get(ctx context.Context) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.page != nil && time.Since(o.made) < pageKept {
		return o.page, nil
	}
	see, err := o.d.overview(ctx)
	if err != nil {
		return nil, err
	}
	page, err := see.Render()
	if err == nil {
		o.made, o.page = time.Now(), page
	}
	return page, err
}

// overview looks at all that the page shows.
func (d *daemon) overview(ctx context.Context) (*report.Overview, error) {
	ctx, cancel := context.WithTimeout(ctx, pageKept)
	defer cancel()
	cfg, state, now := &d.now.Load().cfg, d.state.State(), time.Now()
	o := &report.Overview{
		Version: d.o.Version, Root: cfg.Root, Location: time.Local, Zone: now.Format("MST, UTC-07:00"),
		At: sidecar.Time{Time: now}, Since: sidecar.Time{Time: state.Since},
	}
	o.Host, _ = os.Hostname() // else it has none to show
	counts := d.state.Counts()
	for _, p := range spool.Places() {
		o.Places = append(o.Places, report.Sum{Name: string(p), Folders: counts[p]})
	}
	for _, g := range state.Gates {
		o.Gates = append(o.Gates, report.Gate{Owner: string(g.Owner), Reason: g.Reason, Mend: g.Mend, Since: sidecar.Time{Time: g.Since}, Next: sidecar.Time{Time: g.Next}, Tries: g.Tries})
	}
	for i := range state.Inboxes {
		if in := &state.Inboxes[i]; in.Trouble != nil {
			o.Gates = append(o.Gates, report.Gate{Inbox: in.Called(), Reason: in.Trouble.Reason, Since: sidecar.Time{Time: in.Trouble.Since}})
		}
	}
	for i := range state.Receipts {
		r := &state.Receipts[i]
		in := telemetry.Inbox{Name: r.Inbox}
		o.Receipts = append(o.Receipts, report.Gate{Inbox: in.Called(), Reason: r.Reason, Since: sidecar.Time{Time: r.Since}})
	}
	for _, f := range state.Stuck.Newest[max(len(state.Stuck.Newest)-waits, 0):] {
		o.Waits = append(o.Waits, report.Wait{Folder: f.Folder, Place: string(f.Place), For: "it is stuck by its own fault: " + f.Reason + "; " + f.Mend, Since: sidecar.Time{Time: f.Since}})
	}
	for _, in := range cfg.Drops() {
		o.Waits = append(o.Waits, waitsInInbox(spool.InboxNamed(in.Name), in.Path, Limits(cfg, in.Defaults))...)
	}
	return o, d.recalled(ctx, o, now)
}

// recalled adds what the journal tells.
func (d *daemon) recalled(ctx context.Context, o *report.Overview, now time.Time) error {
	r := d.journal.Reader()
	y, m, day := now.Date()
	o.Midnight = time.Date(y, m, day, 0, 0, 0, 0, now.Location())
	for _, kind := range []struct {
		ask func(context.Context, int) ([]journal.Line, error)
		say func(*journal.Line) string
	}{
		{r.InWork, func(l *journal.Line) string { return "its submission" + because(l) }},
		{r.Held, func(l *journal.Line) string { return "a person, to decide whether it was accepted" + because(l) }},
		{r.Awaited, func(*journal.Line) string { return "iDenfy's final verdict" }},
	} {
		list, err := kind.ask(ctx, waits)
		if err != nil {
			return err
		}
		for i := range list {
			l := &list[i]
			o.Waits = append(o.Waits, report.Wait{Folder: cmp.Or(l.Name, l.Folder), Place: l.Place, For: kind.say(l), Since: cmp.Or(l.At, l.Claimed)})
		}
	}
	verdicts, err := r.Verdicts(ctx)
	if err != nil {
		return err
	}
	o.AwaitedAll = verdicts.Waiting
	if o.Ends, err = r.Ends(ctx, lastEnds); err != nil {
		return err
	}
	if o.Hours, err = r.Hours(ctx, o.Midnight); err != nil {
		return err
	}
	o.Final, err = r.FinalSince(ctx, o.Midnight)
	return err
}

// because tells the reasons by their codes: texts are the folder's own, or the
// API's, and may have what is a person's.
func because(l *journal.Line) string {
	if len(l.Codes) == 0 {
		return ""
	}
	codes := make([]string, len(l.Codes))
	for i, w := range l.Codes {
		codes[i] = meta.Show(w.Code)
	}
	return " (" + strings.Join(codes, ", ") + ")"
}

// waitsInInbox returns what the folders of an inbox wait for that have been
// there for the longest.
func waitsInInbox(p spool.Place, path string, lim meta.Limits) (list []report.Wait) {
	inbox, err := os.OpenRoot(path)
	if err != nil {
		return nil // which the watcher says
	}
	defer inbox.Close()
	d, err := inbox.Open(".")
	if err != nil {
		return nil
	}
	names, _ := d.Readdirnames(inboxed) // what is gone meanwhile isn't waiting
	_ = d.Close()                       // it was read only
	for _, name := range names {
		if drop.Junk(name) {
			continue
		}
		if info, err := inbox.Lstat(name); err == nil && info.IsDir() {
			list = append(list, report.Wait{Folder: name, Since: sidecar.Time{Time: info.ModTime()}})
		}
	}
	slices.SortFunc(list, func(a, b report.Wait) int {
		return cmp.Or(a.Since.Compare(b.Since.Time), cmp.Compare(a.Folder, b.Folder))
	})
	list = list[:min(len(list), waits)]
	for i := range list {
		list[i].Place, list[i].For = string(p), waitsFor(inbox, list[i].Folder, lim)
	}
	return list
}

func waitsFor(inbox *os.Root, name string, lim meta.Limits) string {
	root, err := drop.Open(inbox, name)
	if err != nil {
		return "to be readable"
	}
	defer root.Close()
	l, err := meta.List(root, lim)
	if err != nil {
		return "to be readable"
	}
	rep := meta.Inspect(root, name, l, lim, false)
	var codes []string
	for _, w := range rep.Invalid { // a key that is none of meta.yaml's may be anything
		codes = append(codes, "invalid: "+w.Code)
	}
	for _, w := range rep.Waits {
		codes = append(codes, strings.TrimSpace(w.Code+" "+meta.Show(w.Field)))
	}
	if len(codes) == 0 {
		return "quiet, or for its turn"
	}
	return strings.Join(codes, ", ")
}
