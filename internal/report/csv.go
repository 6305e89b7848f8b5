package report

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"

	"idenfy-batch/internal/journal"
	"idenfy-batch/sidecar"
)

// Table writes the folders of a report as CSV by RFC 4180, a line each.
type Table struct {
	w     *csv.Writer
	lines int
}

// heads are the columns.
var heads = []string{
	"id", "inbox", "folder", "place", "name", "outcome", "reasons", "scan_ref", "attempts", "complete", "taken", "submitted", "finished",
	"seconds_to_submission", "verdict", "verdict_final", "verdict_at", "seconds_to_verdict", "purged",
}

// NewTable begins one, with the line of the heads.
func NewTable(out io.Writer) *Table {
	t := &Table{w: csv.NewWriter(out)}
	t.w.UseCRLF = true
	_ = t.w.Write(heads) // End says it
	return t
}

// Add writes the line of a folder.
func (t *Table) Add(l *journal.Counted) error {
	codes := make([]string, len(l.Reasons))
	for i, w := range l.Reasons {
		codes[i] = show(w.Code)
	}
	row := []string{
		l.ID, l.Inbox, show(l.Folder), l.Place, show(l.Name), string(l.Outcome), strings.Join(codes, " "), show(l.ScanRef), strconv.Itoa(l.Attempts),
		stamp(l.Complete), stamp(l.Claimed), stamp(l.Submitted), stamp(l.Finished), between(l.Complete, l.Submitted),
		show(l.Verdict), strconv.FormatBool(l.Final), stamp(l.Decided), between(l.Accepted, l.Decided), stamp(emptied(l)),
	}
	for i := range row {
		row[i] = harmless(row[i])
	}
	t.lines++
	return t.w.Write(row)
}

// End writes what is left, and returns how many folders there were.
func (t *Table) End() (int, error) {
	t.w.Flush()
	return t.lines, t.w.Error()
}

func stamp(t sidecar.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func between(from, to sidecar.Time) string {
	if from.IsZero() || to.IsZero() {
		return ""
	}
	return strconv.FormatFloat(max(seconds(to.Sub(from.Time)), 0), 'f', 3, 64)
}

// harmless keeps a spreadsheet from taking a cell for a formula (OWASP, "CSV
// Injection").
func harmless(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}
