package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/report"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// forms say where a report is written.
type forms struct {
	html, csv string // files; -: standard output
	json      bool   // on standard output
}

func newReport() *cobra.Command {
	c := &cobra.Command{
		Use:   "report",
		Short: "Tell what became of the folders of a time: HTML, CSV, JSON",
		Long: `Report counts the folders that were taken in a time: by outcome and by verdict,
by day and inbox, their reasons, how long they waited for their submission and
for the verdict, attempts, decisions of people, and deletions. A folder counts once, with its
newest submission. Its head says of which system, time and filters it is, who made
it and when, and has the newest signed checkpoint of the ledger; its control
totals add up. docs/report.md explains each number.

--html writes one file with charts and tables, without scripts and without
anything from elsewhere, to be mailed, printed or kept. --csv writes the folders
that are counted, a line each, by RFC 4180, with an apostrophe before what a
spreadsheet would take for a formula. --json prints all numbers (schema
idenfy-batch/report/v1). Without any of these a summary is printed. FILE may be -,
for standard output.

It reads the journal, with and without a running daemon, as root, as the daemon's
user, and as a member of its group.`,
		Example: "  idenfy-batch report --from 2026-01-01 --to 2026-01-31 --html january.html --csv january.csv\n  idenfy-batch report --from 7d\n  TZ=UTC idenfy-batch report --json | jq .control_totals",
		Args:    cobra.NoArgs,
	}
	load := configFlag(c)
	var to forms
	var f report.Filters
	from := c.Flags().String("from", "", "only folders taken since this `time`: a date, RFC 3339, or how long ago, such as 24h or 7d")
	until := c.Flags().String("to", "", "only folders taken before this `time`; of a date, that day is included (default: now)")
	c.Flags().StringVar(&f.Inbox, "inbox", "", "only those of this inbox (`name`)")
	c.Flags().StringVar(&f.Place, "place", "", "only those in this `place`: work, done, failed, hold, or sent back to the inbox")
	outcome := c.Flags().String("outcome", "", "only those with this `outcome`: "+joined(outcomes))
	c.Flags().StringVar(&f.Verdict, "verdict", "", "only those with this `verdict`: iDenfy's word, waiting, not_final, none, or contradicted")
	c.Flags().StringVar(&f.Client, "client", "", "only those of this person: the `clientId` in meta.yaml, for which the daemon opened the session")
	c.Flags().StringVar(&to.html, "html", "", "write HTML to this `file`")
	c.Flags().StringVar(&to.csv, "csv", "", "write the folders as CSV to this `file`")
	c.Flags().BoolVar(&to.json, "json", false, "print JSON")
	for flag, words := range map[string][]string{"place": texts(spool.Places()), "outcome": texts(outcomes), "verdict": {"APPROVED", "DENIED", "SUSPECTED", report.Waiting, report.None, journal.Contradicted}} {
		_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		f.Outcome = sidecar.Outcome(*outcome)
		q := journal.Query{Place: f.Place, Outcome: f.Outcome}
		if err := bounds(&q, *from, *until); err != nil {
			return err
		}
		if !q.Until.IsZero() && !q.Since.Before(q.Until) {
			return errors.New("--from is not before --to")
		}
		f.From, f.To, f.Verdict = sidecar.Time{Time: q.Since}, sidecar.Time{Time: q.Until}, cmp.Or(ownVerdict(f.Verdict), strings.ToUpper(f.Verdict))
		if err := to.check(); err != nil {
			return err
		}
		cfg, err := load()
		if err != nil {
			return err
		}
		return makeReport(c, &cfg, f, to)
	}
	return c
}

// check returns why they can't all be had.
func (f *forms) check() error {
	n := 0
	for _, is := range []bool{f.html == "-", f.csv == "-", f.json} {
		if is {
			n++
		}
	}
	if n > 1 {
		return errors.New("only one of --html -, --csv - and --json can have the standard output")
	}
	if f.html != "" && f.html == f.csv {
		return errors.New("--html and --csv can't be written to the same file")
	}
	return nil
}

// ownVerdict is a word of the report's own, or empty.
func ownVerdict(s string) string {
	if s == report.NotFinal || s == report.None {
		return s
	}
	return ""
}

func makeReport(c *cobra.Command, cfg *config.Config, f report.Filters, to forms) (err error) {
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	by := control.Self() // before root becomes the daemon's user, who may not write where root may
	page, err := create(c.OutOrStdout(), to.html)
	if err != nil {
		return failed(err)
	}
	defer func() { err = failed(errors.Join(err, page.close(err))) }()
	table, err := create(c.OutOrStdout(), to.csv)
	if err != nil {
		return failed(err)
	}
	defer func() { err = failed(errors.Join(err, table.close(err))) }()
	r, end, err := lookInto(ctx, cfg)
	if err != nil {
		return err
	}
	defer end()
	rep, err := count(ctx, r, reportHead(ctx, cfg, r, f, by), table)
	if err != nil {
		return failed(err)
	}
	if page != nil {
		err = report.WriteHTML(page, rep)
	}
	switch {
	case err != nil:
	case to.json:
		enc := json.NewEncoder(c.OutOrStdout())
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err = enc.Encode(rep)
	case page == nil && table == nil:
		err = summary(c.OutOrStdout(), rep)
	}
	if err == nil && !rep.Totals.AddUp() {
		err = errors.New("the control totals do not add up, which is a defect of this program; rely on idenfy-batch list")
	}
	return failed(err)
}

// output is a file that a report is written to. A nil one is none.
type output struct {
	*bufio.Writer
	to *replacing // nil: standard output
}

// create opens a file; nothing of what was there is lost before there is
// something to write.
func create(stdout io.Writer, path string) (*output, error) {
	switch path {
	case "":
		return nil, nil
	case "-":
		return &output{Writer: bufio.NewWriter(stdout)}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	to := &replacing{f: f}
	return &output{bufio.NewWriter(to), to}, nil
}

// replacing writes a file from its beginning, and cuts off what is left of before.
type replacing struct {
	f     *os.File // not embedded: bufio would go past Write, by WriteString and ReadFrom
	begun bool
}

func (r *replacing) Write(p []byte) (int, error) {
	if !r.begun {
		r.begun = true
		if err := r.f.Truncate(0); err != nil && !errors.Is(err, syscall.EINVAL) { // a pipe has nothing to cut off
			return 0, err
		}
	}
	return r.f.Write(p)
}

// close ends it. What is not whole is not left to be taken for it; what was there
// before is, as long as nothing was written over it.
func (o *output) close(failure error) error {
	if o == nil {
		return nil
	}
	var err error
	if failure == nil || o.to == nil {
		err = o.Flush()
	}
	if o.to == nil {
		return err
	}
	if failure != nil || err != nil {
		err = errors.Join(err, o.to.cut())
	}
	return errors.Join(err, o.to.f.Close())
}

// cut leaves nothing of what was written.
func (r *replacing) cut() error {
	if !r.begun {
		return nil
	}
	if err := r.f.Truncate(0); !errors.Is(err, syscall.EINVAL) { // of a pipe nothing can be cut off
		return err
	}
	return nil
}

// reportHead says what the report is of. Whatever is begun while it is made is of
// a later time.
func reportHead(ctx context.Context, cfg *config.Config, r control.Reader, f report.Filters, by sidecar.Person) report.Head {
	h := report.Head{System: "idenfy-batch", Version: versionText(), Root: cfg.Root, Filters: f, By: by, At: sidecar.Now(), Location: time.Local, Zone: zoneName()}
	if h.Filters.To.IsZero() || h.Filters.To.After(h.At.Time) {
		h.Filters.To = h.At
	}
	var err error
	if h.Host, err = os.Hostname(); err != nil {
		h.Host = "unknown"
	}
	var text []byte
	var key string
	if text, err = checkpoint(cfg); err == nil {
		h.Ledger.Checkpoint = string(text)
		key, err = verifierKey(ctx, r)
	}
	if err == nil {
		var c ledger.Checkpoint
		if c, err = ledger.Open(text, key); err != nil {
			err = fmt.Errorf("the checkpoint is not one of this ledger: %w; see idenfy-batch ledger verify", err)
		}
		h.Ledger.Covers = c.N
	}
	if err != nil {
		h.Ledger.Missing = err.Error()
	}
	return h
}

// zoneName is the name of the zone that days are counted in, where it has one.
func zoneName() string {
	name := os.Getenv("TZ")
	if link, err := os.Readlink("/etc/localtime"); name == "" && err == nil {
		_, name, _ = strings.Cut(link, "zoneinfo/")
	}
	short, _ := time.Now().Zone()
	return strings.TrimSpace(cmp.Or(name, short) + time.Now().Format(" (UTC-07:00)"))
}

// count reads what is in the time, a page while the one before is counted, and
// writes the folders of the table.
func count(ctx context.Context, r control.Reader, h report.Head, table *output) (*report.Report, error) {
	c := report.NewCounter(h)
	span := journal.Span{Since: h.Filters.From.Time, Until: h.Filters.To.Time, Most: journal.MostCounted}
	extent, err := r.Extent(ctx, span)
	if err != nil {
		return nil, err
	}
	c.Extent(extent)
	lines := report.NewTable(io.Discard)
	if table != nil {
		lines = report.NewTable(table)
	}
	err = each(ctx, r.Count, span, func(l *journal.Counted) error {
		if c.Add(l) && table != nil {
			return lines.Add(l)
		}
		return nil
	}, func(l *journal.Counted) *journal.Cursor { return &journal.Cursor{ID: l.ID, Claimed: l.Claimed} })
	n, endErr := lines.End()
	if err = errors.Join(err, endErr); err != nil {
		return nil, err
	}
	err = each(ctx, r.Judged, span, func(d *journal.Judged) error { c.Judge(d); return nil },
		func(d *journal.Judged) *journal.Cursor { return &journal.Cursor{ID: strconv.FormatInt(d.N, 10)} })
	return c.Report(n), err
}

// each asks for page after page, and has each thing in it taken while the next
// page is read.
func each[T any](ctx context.Context, ask func(context.Context, journal.Span) ([]T, error), span journal.Span, take func(*T) error, cursor func(*T) *journal.Cursor) error {
	type page struct {
		list []T
		err  error
	}
	ctx, stop := context.WithCancel(ctx)
	pages := make(chan page, 1)
	defer func() {
		stop()
		for range pages { // nobody asks any more once this returns
		}
	}()
	go func() {
		defer close(pages)
		for {
			list, err := ask(ctx, span)
			select {
			case pages <- page{list, err}:
			case <-ctx.Done():
				return
			}
			if err != nil || len(list) < span.Most {
				return
			}
			span.After = cursor(&list[len(list)-1])
		}
	}()
	for p := range pages {
		if p.err != nil {
			return p.err
		}
		for i := range p.list {
			if err := take(&p.list[i]); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// summary tells the report in some lines.
func summary(out io.Writer, r *report.Report) error {
	h := &r.Head
	from := "the beginning"
	if !h.Filters.From.IsZero() {
		from = clock(h.Filters.From.Time)
	}
	fmt.Fprintf(out, "%s %s on %s, spool %s\nfolders taken from %s until before %s, %s\n", h.System, h.Version, h.Host, h.Root, from, clock(h.Filters.To.Time), h.Zone)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(n int, what string) { fmt.Fprintf(w, "%d\t  %s\n", n, what) }
	fmt.Fprintln(w)
	row(r.Totals.Folders, "folders")
	for _, s := range r.Outcomes {
		row(s.Folders, s.Name)
	}
	fmt.Fprintln(w, "\nby verdict of iDenfy:")
	for _, s := range r.Verdicts {
		row(s.Folders, meta.Show(s.Name))
	}
	if len(r.Inboxes) > 1 {
		fmt.Fprintln(w, "\nby inbox:")
		for _, g := range r.Inboxes {
			row(g.Folders, g.Inbox)
		}
	}
	if len(r.Reasons) > 0 {
		fmt.Fprintln(w, "\nreasons:")
	}
	for _, s := range r.Reasons[:min(len(r.Reasons), 10)] {
		row(s.Folders, meta.Show(s.Code))
	}
	err := w.Flush()
	for _, waited := range []struct {
		what string
		w    *report.Waits
	}{{"to submission", &r.Submit}, {"to verdict", &r.Verdict}} {
		if waited.w.Folders > 0 {
			fmt.Fprintf(out, "\n%s, of %d folders: median %s, 95 %% within %s, at most %s", waited.what, waited.w.Folders, report.Span(waited.w.Median), report.Span(waited.w.P95), report.Span(waited.w.Most))
		}
	}
	if d := &r.Deletions; d.Folders > 0 {
		fmt.Fprintf(out, "\ndeleted of %d folders: %d files, %d bytes", d.Folders, d.Files, d.Bytes)
	}
	fmt.Fprintf(out, "\n%d attempts; %d decisions of people, %d of them forced; %d folders for a person\n", r.Attempts.All, r.Decisions.All, r.Decisions.Forced, r.PersonAll)
	return err
}
