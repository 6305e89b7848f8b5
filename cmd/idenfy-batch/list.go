package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// outcomes are what list can be asked for.
var outcomes = []sidecar.Outcome{sidecar.Pending, sidecar.Accepted, sidecar.Rejected, sidecar.Invalid, sidecar.Incomplete, sidecar.GaveUp, sidecar.Unknown}

// listed is how many folders a terminal gets without --limit, and aPage how
// many are asked for at once.
const (
	listed = 50
	aPage  = 500
)

func newList() *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List the folders that the daemon took, the newest first",
		Long: `List shows the folders that the daemon ever took from the inbox, the newest
first, each once, with its newest submission. It reads the journal, with and
without a running daemon, as root, as the daemon's user, and as a member of its
group. What still waits in the inbox is for idenfy-batch status.

The place is where the daemon, or a command, put the folder; what was moved by
hand is not noticed before it comes again. The times are when it was taken. Behind
the name is what iDenfy decided, once it has said so (docs/verdicts.md).

--json prints an object a line: id, folder (the name that it was dropped with),
place (empty: somebody took it out of work), name (in its place), inbox (that it
came from; empty: it was submitted without the daemon), outcome,
reasons (their codes), country, document_type, token_hint, scan_ref, client_id
(empty: it came with a token), verdict (iDenfy's word; empty: none came) and
verdict_final, attempts, claimed (taken) and finished, as in result.json and
verdict.json, and purged (when its images were deleted; missing: they were not).

--csv prints the same by RFC 4180, with a line of heads, and an apostrophe before
what a spreadsheet would take for a formula.`,
		Example: "  idenfy-batch list --since 24h\n  idenfy-batch list --place hold\n  idenfy-batch list --verdict waiting\n  idenfy-batch list --client customer-4711\n  idenfy-batch list --inbox branch-1 --outcome invalid\n  idenfy-batch list --outcome rejected --json | jq -r '.reasons[]' | sort | uniq -c",
		Args:    cobra.NoArgs,
	}
	load := configFlag(c)
	place := c.Flags().String("place", "", "only those in this `place`: work, done, failed, hold, or sent back to the inbox")
	outcome := c.Flags().String("outcome", "", "only those with this `outcome`: "+joined(outcomes))
	verdict := c.Flags().String("verdict", "", "only those with this `verdict`: iDenfy's word, such as APPROVED or DENIED, or waiting (for a final one), or contradicted")
	client := c.Flags().String("client", "", "only those of this person: the `clientId` in meta.yaml, for which the daemon opened the session")
	inbox := c.Flags().String("inbox", "", "only those that came from this inbox, by its `name`; the one below the root is inbox")
	since := c.Flags().String("since", "", "only those taken since this `time`: a date, RFC 3339, or how long ago, such as 24h or 7d")
	until := c.Flags().String("until", "", "only those taken before this `time`; of a date, that day is included")
	limit := c.Flags().Int("limit", 0, fmt.Sprintf("no more than this many; 0 is all (on a terminal %d, unless given)", listed))
	asJSON := c.Flags().Bool("json", false, "print JSON, an object a line")
	asCSV := c.Flags().Bool("csv", false, "print CSV")
	completeList(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		q := journal.Query{Place: *place, Outcome: sidecar.Outcome(*outcome), Verdict: *verdict, Client: *client, Inbox: *inbox}
		if err := bounds(&q, *since, *until); err != nil {
			return err
		}
		if *limit < 0 {
			return errors.New("--limit is less than nothing")
		}
		out := bufio.NewWriter(c.OutOrStdout())
		p, most := newPrinter(out, terminalWidth(c.OutOrStdout()), *asJSON, *asCSV), *limit
		if _, lines := p.(*columns); lines {
			q.Brief = true
			if isTerminal(c.OutOrStdout()) && !c.Flags().Changed("limit") {
				most = listed
			}
		}
		cfg, err := load()
		if err != nil {
			return err
		}
		return listAll(c, &cfg, q, most, p, out)
	}
	return c
}

// completeList says what list's flags may be, to the shell's completion too.
func completeList(c *cobra.Command) {
	c.MarkFlagsMutuallyExclusive("json", "csv")
	for flag, words := range map[string][]string{"place": texts(spool.Places()), "outcome": texts(outcomes), "verdict": {"APPROVED", "DENIED", "SUSPECTED", "REVIEWING", "EXPIRED", journal.Awaited, journal.Contradicted}, "client": nil, "inbox": nil} {
		_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	}
}

func listAll(c *cobra.Command, cfg *config.Config, q journal.Query, most int, p printer, out *bufio.Writer) error {
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r, end, err := lookInto(ctx, cfg)
	if err != nil {
		return err
	}
	defer end()
	more, err := list(ctx, r, q, most, p)
	err = errors.Join(err, out.Flush())
	if more && isTerminal(c.OutOrStdout()) {
		fmt.Fprintf(c.ErrOrStderr(), "and older ones; --limit 0 shows all\n")
	}
	return failed(err)
}

func texts[T ~string](list []T) (words []string) {
	for _, w := range list {
		words = append(words, string(w))
	}
	return words
}

func joined[T ~string](list []T) string { return strings.Join(texts(list), ", ") }

// bounds checks and completes what is asked for.
func bounds(q *journal.Query, since, until string) (err error) {
	if q.Place != "" && !slices.Contains(spool.Places(), spool.Place(q.Place)) {
		err = fmt.Errorf("--place %q is none; there are %s", q.Place, joined(spool.Places()))
	}
	if q.Outcome != "" && !slices.Contains(outcomes, q.Outcome) {
		err = errors.Join(err, fmt.Errorf("--outcome %q is none; there are %s", q.Outcome, joined(outcomes)))
	}
	if since != "" {
		t, wrong := when(since, false)
		q.Since, err = t, errors.Join(err, wrong)
	}
	if until != "" {
		t, wrong := when(until, true)
		q.Until, err = t, errors.Join(err, wrong)
	}
	return err
}

// printer prints folders one by one.
type printer interface {
	print(f *journal.Folder) error
	end() error
}

// list prints the folders, a page at a time: nobody waits in the daemon for a
// reader who is slow. more tells that there are others beyond the limit.
func list(ctx context.Context, r control.Reader, q journal.Query, most int, p printer) (more bool, err error) {
	for left := most; ; {
		q.Most = aPage
		if most > 0 {
			q.Most = min(left+1, aPage)
		}
		page, err := r.List(ctx, q)
		if err != nil {
			return false, err
		}
		for i := range page {
			if most > 0 && left == 0 {
				return true, p.end()
			}
			if err := p.print(&page[i]); err != nil {
				return false, err
			}
			left--
		}
		if len(page) < q.Most {
			return false, p.end()
		}
		last := page[len(page)-1]
		q.After = &journal.Cursor{ID: last.ID, Claimed: last.Claimed}
	}
}

func newPrinter(out io.Writer, width int, asJSON, asCSV bool) printer {
	switch {
	case asJSON:
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		return jsonLines{enc}
	case asCSV:
		return newCSV(out)
	default:
		return newColumns(out, width)
	}
}

// jsonLines prints an object a line.
type jsonLines struct{ *json.Encoder }

func (j jsonLines) print(f *journal.Folder) error { return j.Encode(f) }
func (j jsonLines) end() error                    { return nil }

// columns prints lines for people.
type columns struct {
	out   io.Writer
	width int // of names; 0: as long as they are
	head  bool
}

// columnsForm has 41 characters before the name.
const columnsForm = "%-19s  %-6s  %-10s  %s\n"

func newColumns(out io.Writer, width int) *columns {
	p := &columns{out: out}
	if width > 60 {
		p.width = width - 41
	}
	return p
}

// terminalWidth is 0 for what is no terminal.
func terminalWidth(out io.Writer) int {
	if f, ok := out.(*os.File); ok && isTerminal(out) {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			return width
		}
	}
	return 0
}

func (p *columns) print(f *journal.Folder) error {
	if !p.head {
		p.head = true
		fmt.Fprintf(p.out, columnsForm, "TAKEN", "PLACE", "OUTCOME", "FOLDER")
	}
	name, verdict := shownName(f), shownVerdict(f)+shownInbox(f)
	if room := p.width - utf8.RuneCountInString(verdict); p.width > 0 && room > 1 && utf8.RuneCountInString(name) > room {
		name = string([]rune(name)[:room-1]) + "…"
	}
	place := cmp.Or(string(spool.Place(f.Place).Kind()), "gone")
	_, err := fmt.Fprintf(p.out, columnsForm, clock(f.Claimed.Time), place, f.Outcome, name+verdict)
	return err
}

func (p *columns) end() error { return nil }

// shownVerdict is iDenfy's word, to stand behind the name, where there is one.
func shownVerdict(f *journal.Folder) string {
	switch {
	case f.Verdict == "":
		return ""
	case !f.Final:
		return "  " + meta.Show(f.Verdict) + " (not final)"
	default:
		return "  " + meta.Show(f.Verdict)
	}
}

// shownInbox is the inbox that the folder came from, to stand behind all else,
// where it is not the one below the root.
func shownInbox(f *journal.Folder) string {
	if f.Inbox == "" || f.Inbox == string(spool.Inbox) {
		return ""
	}
	return "  (from " + meta.Show(f.Inbox) + ")"
}

// shownName is the folder's name where it lies, else that it was dropped with.
func shownName(f *journal.Folder) string {
	if f.Name != "" {
		return meta.Show(f.Name)
	}
	return meta.Show(f.Folder)
}

// table prints CSV.
type table struct{ *csv.Writer }

func newCSV(out io.Writer) table {
	w := csv.NewWriter(out)
	w.UseCRLF = true
	_ = w.Write([]string{"id", "folder", "place", "name", "outcome", "reasons", "country", "document_type", "token_hint", "scan_ref", "attempts", "claimed", "finished", "verdict", "verdict_final", "client_id", "inbox", "purged"}) // end says it
	return table{w}
}

func (t table) print(f *journal.Folder) error {
	row := []string{
		f.ID, meta.Show(f.Folder), f.Place, meta.Show(f.Name), string(f.Outcome), strings.Join(f.Reasons, " "), f.Country, f.DocumentType,
		f.TokenHint, f.ScanRef, strconv.Itoa(f.Attempts), stamp(f.Claimed), stamp(f.Finished), meta.Show(f.Verdict), strconv.FormatBool(f.Final), meta.Show(f.ClientID), meta.Show(f.Inbox), stamp(f.Purged),
	}
	for i := range row {
		row[i] = harmless(row[i])
	}
	return t.Write(row)
}

func (t table) end() error {
	t.Flush()
	return t.Error()
}

// stamp is a time as JSON has it, or empty.
func stamp(t sidecar.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// harmless keeps a spreadsheet from taking a cell for a formula.
func harmless(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}
