package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"idenfy-batch/batch"
	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/telemetry"
	"idenfy-batch/sidecar"
	"idenfy-batch/watcher"
)

// readState returns the state of the daemon that works on the spool, or nil
// when none does.
func readState(ctx context.Context, cfg *config.Config) (*telemetry.State, error) {
	locked, err := spool.Locked(cfg.Spool())
	if err != nil || !locked {
		return nil, err
	}
	var s telemetry.State // if nobody tells: one runs, and that is all that is known
	c, err := control.Dial(cfg.Root)
	if errors.Is(err, control.ErrNoDaemon) { // it starts, or a command has the spool
		return &s, nil
	}
	if err != nil {
		return &s, err
	}
	defer c.Close()
	if err := c.State(ctx, &s); err != nil {
		return &telemetry.State{}, nil // it starts, or ends
	}
	return &s, nil
}

// placeStatus is what status says of one directory.
type placeStatus struct {
	Place   spool.Place `json:"place"`
	Path    string      `json:"path"`
	Folders int         `json:"folders"`
	Oldest  int64       `json:"oldest_seconds"` // since it came there; 0 without folders
	Error   string      `json:"error,omitempty"`
}

// waitStatus is what status says of one folder in an inbox.
type waitStatus struct {
	Inbox    string   `json:"inbox"`
	Folder   string   `json:"folder"`
	Age      int64    `json:"unchanged_seconds"`
	Complete bool     `json:"complete"`
	WaitsFor []string `json:"waits_for"`
	Defaults []string `json:"defaults,omitempty"` // what the configuration fills in, as in result.json

	byDefault string        // of these, for people
	quiet     time.Duration // how long nothing may change before it is taken

	// Why the daemon can't take it; null: it was not tried, or no daemon runs.
	Stuck *telemetry.StuckFolder `json:"stuck"`
}

// openStatus is what status says of one folder that is being submitted, or
// waits for a person.
type openStatus struct {
	Folder   string   `json:"folder"`
	Age      int64    `json:"age_seconds"` // since it was claimed
	Token    string   `json:"token_hint"`  // enough to find the session in the dashboard
	Attempts int      `json:"attempts"`
	Last     string   `json:"last,omitempty"` // how the last attempt ended
	Reasons  []string `json:"reasons"`

	// Why the daemon can't go on with it; null: it can, or no daemon runs.
	Stuck *telemetry.StuckFolder `json:"stuck"`

	id string
}

// spoolStatus is all that status says.
type spoolStatus struct {
	Daemon  *telemetry.State `json:"daemon"` // null: none runs
	Left    *telemetry.Gate  `json:"left"`   // the account's gate, as the last daemon left it shut
	Places  []placeStatus    `json:"places"`
	Waiting []waitStatus     `json:"inbox"`
	Work    []openStatus     `json:"work"`
	Hold    []openStatus     `json:"hold"`
	Away    []awayStatus     `json:"taken_out"`

	Ignored   []ignoredStatus  `json:"ignored"`
	Unwatched *unwatchedStatus `json:"unwatched"` // null: there is none with folders in it

	Verdicts *journal.Verdicts `json:"verdicts"` // null: the journal can't be read by this user
	Error    string            `json:"error,omitempty"`
}

// unwatchedStatus is what status says of the inbox below the root where others
// were configured in its place.
type unwatchedStatus struct {
	Path    string `json:"path"`
	Folders int    `json:"folders"`
}

func newStatus() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show how many folders are where, and what those in the inbox wait for",
		Long: `Status shows for each directory of the spool how many folders it holds and how
long the oldest has been there, what each folder in the inbox and in work waits
for, what lies in the inbox and is no folder, which are stuck by their own fault and how to mend that (a running daemon
tells it), which ones a person has to decide about (those that somebody took out of
work by hand are among them), how many wait for iDenfy's verdict and which ones
came, and whether submission is paused, why, and what mends that. It works with and without a running daemon, and changes nothing.`,
		Example: "  idenfy-batch status\n  idenfy-batch status --json | jq '.inbox[] | select(.complete | not)'",
		Args:    cobra.NoArgs,
	}
	load := configFlag(c)
	asJSON := c.Flags().Bool("json", false, "print JSON")
	all := c.Flags().Bool("all", false, "show every folder, not only the first twenty of each place")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		_ = daemon.Become(cfg.Spool()) // root sees what the daemon may do, not what root may; without a spool there is nothing to see
		s := readStatus(c.Context(), &cfg)
		if *asJSON {
			enc := json.NewEncoder(c.OutOrStdout())
			enc.SetIndent("", "  ")
			if err := enc.Encode(s); err != nil {
				return failed(err)
			}
		} else {
			s.print(c.OutOrStdout(), &cfg, *all)
		}
		if s.Error != "" {
			return failed(errors.New(s.Error))
		}
		return nil
	}
	return c
}

func readStatus(ctx context.Context, cfg *config.Config) spoolStatus {
	var s spoolStatus
	paths := cfg.Spool()
	var err error
	if s.Daemon, err = readState(ctx, cfg); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Error = fmt.Sprintf("whether a daemon runs can't be told: %v; run this as root or as the daemon's user", err)
	}
	if s.Daemon == nil {
		s.Left = readLeft(ctx, cfg)
	}
	for _, p := range paths.Places() {
		s.Places = append(s.Places, readPlace(paths, p))
	}
	s.Waiting, s.Ignored = readInboxes(cfg), readIgnored(cfg)
	s.Unwatched = readUnwatched(cfg)
	s.Work, s.Hold = readOpen(paths, spool.Work), readOpen(paths, spool.Hold)
	s.markStuck()
	for i := range s.Places {
		if p := &s.Places[i]; p.Place == spool.Work { // each attempt gives a folder in work a new ctime
			p.Oldest = 0
			for _, o := range s.Work {
				p.Oldest = max(p.Oldest, o.Age)
			}
		}
	}
	s.Verdicts = readVerdicts(ctx, cfg)
	if s.Away, err = readAway(ctx, cfg); err != nil {
		s.Error = cmp.Or(s.Error, fmt.Sprintf("whether folders were taken out of work can't be told: the journal: %v", err))
	}
	return s
}

// markStuck notes at each folder what the daemon says of it.
func (s *spoolStatus) markStuck() {
	if s.Daemon == nil {
		return
	}
	type at struct{ inbox, folder string }
	inbox, work := map[at]*telemetry.StuckFolder{}, map[string]*telemetry.StuckFolder{}
	for i := range s.Daemon.Stuck.Newest {
		f := &s.Daemon.Stuck.Newest[i]
		if f.Place.IsInbox() {
			inbox[at{f.Place.InboxName(), f.Folder}] = f
		} else {
			work[f.ID] = f
		}
	}
	for i := range s.Waiting {
		if w := &s.Waiting[i]; inbox[at{w.Inbox, w.Folder}] != nil {
			w.Stuck, w.Complete = inbox[at{w.Inbox, w.Folder}], false
		}
	}
	for i := range s.Work {
		if o := &s.Work[i]; o.id != "" {
			o.Stuck = work[o.id]
		}
	}
}

// readLeft returns the account's gate as the journal has it, where that can be
// read.
func readLeft(ctx context.Context, cfg *config.Config) *telemetry.Gate {
	var g *journal.Gate
	err := beside(ctx, cfg, func(r *journal.Reader) (err error) { g, err = r.Gate(ctx); return err })
	if err != nil || g == nil {
		return nil // an earlier version kept none
	}
	return &telemetry.Gate{Owner: events.Account, Reason: g.Reason, Mend: g.Mend, Since: g.Since, Next: g.Until, Tries: g.Tries}
}

// readVerdicts returns how iDenfy's verdicts stand, where the journal can be read.
func readVerdicts(ctx context.Context, cfg *config.Config) *journal.Verdicts {
	var v journal.Verdicts
	if beside(ctx, cfg, func(r *journal.Reader) (err error) { v, err = r.Verdicts(ctx); return err }) != nil {
		return nil // which is said with the folders that were taken out
	}
	return &v
}

// printVerdicts tells it.
func printVerdicts(out io.Writer, v *journal.Verdicts) {
	if v == nil || v.Waiting+len(v.Final)+v.Strays == 0 {
		return
	}
	fmt.Fprint(out, "\nverdicts of iDenfy: ")
	if v.Waiting > 0 {
		fmt.Fprintf(out, "%d accepted folders wait for a final one, the first for %s (idenfy-batch list --verdict waiting)\n", v.Waiting, max(time.Since(v.Oldest.Time), 0).Round(time.Second))
	} else {
		fmt.Fprint(out, "no folder waits for one\n")
	}
	var words []string
	for _, word := range slices.Sorted(maps.Keys(v.Final)) {
		words = append(words, fmt.Sprintf("%d %s", v.Final[word], meta.Show(word)))
	}
	if len(words) > 0 {
		fmt.Fprintf(out, "  final: %s\n", strings.Join(words, ", "))
	}
	if v.Contradicted > 0 {
		fmt.Fprintf(out, "  CONTRADICTED: %d have two final ones that differ; look them up in the iDenfy dashboard (idenfy-batch list --verdict contradicted)\n", v.Contradicted)
	}
	if v.Strays > 0 {
		fmt.Fprintf(out, "  %d webhooks are of sessions without a folder here, or that several name; they are kept for a week\n", v.Strays)
	}
}

// readOpen reads what is recorded about the folders in a place.
func readOpen(paths spool.Paths, p spool.Place) []openStatus {
	open := []openStatus{}
	names, err := paths.List(p)
	if err != nil {
		return open // said with the place
	}
	slices.Sort(names)
	parent, err := os.OpenRoot(paths[p])
	if err != nil {
		return open
	}
	defer parent.Close()
	for _, name := range names {
		own, id := name, ""
		if p == spool.Work {
			own, id, _ = spool.Split(name)
		}
		st := openStatus{Folder: meta.Show(own), Reasons: []string{}, id: id}
		if info, err := parent.Lstat(name); err == nil {
			st.Age = int64(unchanged(info).Seconds()) // until there is a record
		}
		if dir, err := drop.Open(parent, name); err == nil {
			if res, err := sidecar.Read(dir); err == nil {
				// Whatever stands there may be anybody's.
				st.Token, st.Attempts = meta.Show(res.Request.TokenHint), len(res.Attempts)
				if at := res.Times.Claimed; !at.IsZero() {
					st.Age = int64(max(time.Since(at.Time), 0).Seconds())
				}
				st.Last = meta.Show(lastAttempt(res))
				for _, r := range res.Reasons {
					st.Reasons = append(st.Reasons, meta.Show(r.Message))
				}
			}
			_ = dir.Close() // it was read only
		}
		open = append(open, st)
	}
	return open
}

func lastAttempt(res *sidecar.Result) string {
	a, what := res.LastTry(), "attempt"
	if o := res.LastOpening(); o != nil && a == &o.Attempt {
		what = "session, request"
	}
	switch {
	case a == nil:
		return ""
	case a.State == sidecar.Sending:
		return fmt.Sprintf("%s %d, since %s, is under way", what, a.N, a.Started.Local().Format(time.DateTime))
	case a.State == sidecar.Answered:
		return strings.TrimSpace(fmt.Sprintf("%s %d, at %s, was answered with %d %s", what, a.N, a.Started.Local().Format(time.DateTime), a.HTTPStatus, a.Identifier))
	default:
		return fmt.Sprintf("%s %d, at %s: %s", what, a.N, a.Started.Local().Format(time.DateTime), a.Message)
	}
}

func readPlace(paths spool.Paths, p spool.Place) placeStatus {
	st := placeStatus{Place: p, Path: paths[p]}
	names, err := paths.List(p)
	if errors.Is(err, fs.ErrNotExist) && p.IsInbox() && p != spool.Inbox {
		st.Error = paths[p] + " does not exist; make it, or correct inboxes in the configuration"
	} else if errors.Is(err, fs.ErrNotExist) {
		st.Error = "not there yet; the first start of the daemon makes it"
	} else if err != nil {
		st.Error = err.Error()
	}
	for _, name := range names {
		if p.IsInbox() && drop.Junk(name) {
			continue
		}
		st.Folders++
		if info, err := os.Lstat(filepath.Join(paths[p], name)); err == nil {
			st.Oldest = max(st.Oldest, int64(unchanged(info).Seconds()))
		}
	}
	return st
}

// unchanged is the time since a file's ctime, which a move sets.
func unchanged(info fs.FileInfo) time.Duration {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return max(time.Since(time.Unix(st.Ctim.Unix())), 0)
}

// readUnwatched returns the inbox below the root if others took its place, and
// folders lie in it.
func readUnwatched(cfg *config.Config) *unwatchedStatus {
	path := cfg.Unwatched()
	if path == "" {
		return nil
	}
	names, _ := spool.Paths{spool.Inbox: path}.List(spool.Inbox) // as a rule it is not there
	names = slices.DeleteFunc(names, drop.Junk)
	if len(names) == 0 {
		return nil
	}
	return &unwatchedStatus{Path: path, Folders: len(names)}
}

// glance is the time between two looks at an inbox that tell what changes.
const glance = 300 * time.Millisecond

// readInboxes returns what lies in all inboxes, one after the other.
func readInboxes(cfg *config.Config) []waitStatus {
	drops := cfg.Drops()
	lists := make([][]waitStatus, len(drops))
	var all sync.WaitGroup // each takes its glance
	for n := range drops {
		all.Go(func() { lists[n] = readInbox(cfg, &drops[n]) })
	}
	all.Wait()
	return append([]waitStatus{}, slices.Concat(lists...)...)
}

func readInbox(cfg *config.Config, in *config.Inbox) []waitStatus {
	var waits []waitStatus
	inbox, err := os.OpenRoot(in.Path)
	if err != nil {
		return waits // said with the place
	}
	defer inbox.Close()
	d, err := inbox.Open(".")
	if err != nil {
		return waits
	}
	names, err := d.Readdirnames(-1)
	if closeErr := d.Close(); err != nil || closeErr != nil {
		return waits
	}
	lim := daemon.Limits(cfg, in.Defaults)
	before := map[string]uint64{}
	begin := time.Now()
	for _, name := range names {
		if drop.Junk(name) {
			continue
		}
		if root, err := drop.Open(inbox, name); err == nil {
			if l, err := meta.List(root, lim); err == nil {
				before[name] = l.Full
			}
			_ = root.Close() // it was read only
		}
	}
	if len(before) > 0 {
		time.Sleep(glance - min(time.Since(begin), glance))
	}
	for _, name := range names {
		if w, ok := inspectWaiting(inbox, name, cfg, in, before); ok {
			w.Inbox = in.Name
			waits = append(waits, w)
		}
	}
	slices.SortFunc(waits, func(a, b waitStatus) int {
		return cmp.Or(cmp.Compare(b.Age, a.Age), cmp.Compare(a.Folder, b.Folder))
	})
	return waits
}

func inspectWaiting(inbox *os.Root, name string, cfg *config.Config, in *config.Inbox, before map[string]uint64) (waitStatus, bool) {
	w := waitStatus{Folder: meta.Show(name), WaitsFor: []string{}}
	if drop.Junk(name) {
		return w, false
	}
	info, err := inbox.Lstat(name)
	if err != nil || !info.IsDir() {
		return w, false
	}
	w.Age = int64(unchanged(info).Seconds())
	lim := daemon.Limits(cfg, in.Defaults)
	root, err := drop.Open(inbox, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return w, false
	}
	var l drop.Listing
	if err == nil {
		defer root.Close()
		l, err = meta.List(root, lim)
	}
	if err != nil {
		w.WaitsFor = append(w.WaitsFor, watcher.Unreadable(err).Message)
		return w, true
	}
	if err := drop.Movable(inbox, name); err != nil {
		w.WaitsFor = append(w.WaitsFor, watcher.Unmovable(err).Message)
	}
	// What the whole tree's newest file tells, as far as clocks go; the daemon
	// itself goes by what it sees.
	newest := l.Newest()
	since := time.Since(time.Unix(0, newest.ChangeTime()))
	w.Age = int64(max(since, 0).Seconds())
	if before[name] != l.Full || since >= 0 && since < time.Duration(cfg.Completeness.Settle) {
		w.WaitsFor = append(w.WaitsFor, meta.StillChanging(newest.Name).Message)
	}
	if busy := drop.Busy(root, l); busy != "" {
		w.WaitsFor = append(w.WaitsFor, meta.Show(busy)+" is open for writing")
	}
	lim.Defaults.Folder = firstName(cfg, root, l, name)
	rep := meta.Inspect(root, name, l, lim, false)
	w.Defaults, w.byDefault, w.quiet = rep.Filled, byDefault(&rep), watcher.Quiet(time.Duration(cfg.Completeness.Settle), &rep)
	for _, r := range slices.Concat(rep.Invalid, rep.Waits) {
		w.WaitsFor = append(w.WaitsFor, r.Message)
	}
	w.Complete = len(w.WaitsFor) == 0
	return w, true
}

// firstName is the name of a folder that counts as its clientId, where that is by
// default: one that came back from failed may have another now.
func firstName(cfg *config.Config, root *os.Root, l drop.Listing, name string) string {
	var had []string
	if self, err := drop.Identity(root); err == nil && len(l.Records) > 0 {
		err := beside(context.Background(), cfg, func(r *journal.Reader) (err error) {
			had, err = r.NamesOf(context.Background(), self, nil)
			return err
		})
		if err != nil {
			had = nil // the daemon itself will know
		}
	}
	return batch.FirstName(had, name)
}

// shown is how many folders of a place are shown without --all.
const shown = 20

func (s *spoolStatus) print(out io.Writer, cfg *config.Config, all bool) {
	switch {
	case s.Error != "":
		fmt.Fprintf(out, "spool %s\n", cfg.Root)
	case s.Daemon == nil:
		fmt.Fprintf(out, "spool %s, no daemon is running\n", cfg.Root)
	default:
		fmt.Fprintf(out, "spool %s, daemon is running (process %d, since %s)\n", cfg.Root, s.Daemon.PID, s.Daemon.Since.Format(time.DateTime))
	}
	if s.Daemon != nil {
		printGates(out, s.Daemon.Gates, hurry)
	}
	if s.Left != nil {
		printGates(out, []telemetry.Gate{*s.Left}, func(*telemetry.Gate) string { return "" })
	}
	if s.Daemon != nil {
		printInboxes(out, s.Daemon.Inboxes)
		printReceipts(out, s.Daemon.Receipts)
	}
	if u := s.Unwatched; u != nil {
		fmt.Fprintf(out, "NOT WATCHED: %s, where %d folders lie; inboxes in the configuration took its place. Move them to one of these (mv), or add it to the list\n", u.Path, u.Folders)
	}
	if s.Daemon != nil && s.Daemon.Stuck.Folders > 0 {
		fmt.Fprintf(out, "%d folders are stuck by their own fault, which is told at each below; the others go on. Each is tried again within five minutes, in work at once after idenfy-batch reload\n", s.Daemon.Stuck.Folders)
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "\nPLACE\tFOLDERS\tOLDEST")
	for _, p := range s.Places {
		switch {
		case p.Error != "":
			fmt.Fprintf(table, "%s\t?\t%s\n", p.Place, p.Error)
		case p.Folders == 0:
			fmt.Fprintf(table, "%s\t0\t\n", p.Place)
		default:
			fmt.Fprintf(table, "%s\t%d\t%s\n", p.Place, p.Folders, time.Duration(p.Oldest)*time.Second)
		}
	}
	_ = table.Flush() // as with any print, a closed standard output is the reader's affair
	printOpen(out, "in work:", s.Work, all)
	printOpen(out, "on hold, for you to decide (idenfy-batch help resolve):", s.Hold, all)
	printAway(out, s.Away, all)
	printVerdicts(out, s.Verdicts)
	for rest := s.Waiting; len(rest) > 0; {
		n := slices.IndexFunc(rest, func(w waitStatus) bool { return w.Inbox != rest[0].Inbox })
		if n < 0 {
			n = len(rest)
		}
		printWaiting(out, rest[:n], all)
		rest = rest[n:]
	}
	printIgnored(out, s.Ignored, all)
}

// printInboxes tells which inboxes nothing can be taken from, and which are not
// watched by events.
func printInboxes(out io.Writer, list []telemetry.Inbox) {
	for i := range list {
		in := &list[i]
		if t := in.Trouble; t != nil {
			fmt.Fprintf(out, "NOTHING CAN BE TAKEN FROM %s since %s: %s\n", strings.ToUpper(in.Called()), t.Since.Local().Format(time.DateTime), meta.Show(t.Reason))
		}
		if in.Mode != "" && in.Mode != string(events.ByEvents) {
			fmt.Fprintf(out, "%s is watched by %s: %s\n", in.Called(), in.Mode, meta.Show(in.ModeReason))
		}
	}
}

// printWaiting tells what the folders in one inbox wait for.
func printWaiting(out io.Writer, list []waitStatus, all bool) {
	fmt.Fprintf(out, "\nin %s:\n", (&telemetry.Inbox{Name: list[0].Inbox}).Called())
	for i, w := range list {
		if i == shown && !all {
			fmt.Fprintf(out, "  and %d more; --all shows them\n", len(list)-shown)
			break
		}
		fmt.Fprintf(out, "  %s (unchanged for %s)\n", w.Folder, time.Duration(w.Age)*time.Second)
		if w.Complete {
			fmt.Fprintf(out, "      complete; taken when it was quiet for %s, and it is its turn\n", w.quiet)
		}
		for _, reason := range w.WaitsFor {
			fmt.Fprintf(out, "      waits: %s\n", reason)
		}
		if w.byDefault != "" {
			fmt.Fprintf(out, "      by default: %s\n", w.byDefault)
		}
		printStuck(out, w.Stuck)
	}
}

// hurry says what a reload does about a gate.
func hurry(g *telemetry.Gate) string {
	switch at := g.Asked.Local().Format(time.DateTime); {
	case !g.Asked.After(time.Now()):
		return "; idenfy-batch reload has it try at once"
	case g.Next.Sub(g.Asked) < time.Second:
		return "; iDenfy asked for that, and idenfy-batch reload doesn't shorten it"
	default:
		return "; idenfy-batch reload has it try at " + at + ", before which iDenfy asked for no request"
	}
}

// printGates says which gates are shut; more is added to each.
func printGates(out io.Writer, gates []telemetry.Gate, more func(*telemetry.Gate) string) {
	for _, g := range gates {
		what := "SUBMISSION IS PAUSED"
		if g.Owner == events.Disk {
			what = "ALL IS PAUSED BECAUSE OF THE DISK"
		}
		fmt.Fprintf(out, "%s since %s: %s\n", what, g.Since.Local().Format(time.DateTime), meta.Show(g.Reason))
		fmt.Fprintf(out, "    to mend it: %s\n", meta.Show(g.Mend))
		next := "the next folder"
		if g.Next.After(time.Now()) {
			next = "one folder, at " + g.Next.Local().Format(time.DateTime) + ","
		}
		fmt.Fprintf(out, "    it goes on by itself: %s tries (%d tries so far)%s\n", next, g.Tries, more(&g))
	}
}

func printStuck(out io.Writer, f *telemetry.StuckFolder) {
	if f == nil {
		return
	}
	fmt.Fprintf(out, "      STUCK since %s: %s\n", f.Since.Local().Format(time.DateTime), meta.Show(f.Reason))
	fmt.Fprintf(out, "          to mend it: %s\n", meta.Show(f.Mend))
}

func printOpen(out io.Writer, title string, list []openStatus, all bool) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(out, "\n"+title)
	for i, o := range list {
		if i == shown && !all {
			fmt.Fprintf(out, "  and %d more; --all shows them\n", len(list)-shown)
			return
		}
		fmt.Fprintf(out, "  %s (token %s, claimed %s ago)\n", o.Folder, cmp.Or(o.Token, "not read yet"), time.Duration(o.Age)*time.Second)
		if o.Last != "" {
			fmt.Fprintf(out, "      %s\n", o.Last)
		}
		for _, reason := range o.Reasons {
			fmt.Fprintf(out, "      %s\n", reason)
		}
		printStuck(out, o.Stuck)
	}
}
