// Package report owns what people look at: the report, as HTML, CSV and JSON,
// and the overview page. It counts what it is given, and draws it; it asks
// nobody.
package report

import (
	"time"

	"idenfy-batch/internal/journal"
	"idenfy-batch/sidecar"
)

// Schema is the value of the field schema of the JSON form. Fields may be added
// under the same value; one is never removed, nor its meaning changed.
const Schema = "idenfy-batch/report/v1"

// Report is what became of the folders that were taken in a time. A folder
// counts once, with its newest submission.
type Report struct {
	Schema    string    `json:"schema"`
	Head      Head      `json:"head"`
	Totals    Totals    `json:"control_totals"`
	Outcomes  []Sum     `json:"outcomes"`
	Verdicts  []Sum     `json:"verdicts"` // each folder in one: iDenfy's final word, Waiting, NotFinal or None
	Inboxes   []Group   `json:"inboxes"`
	Days      []Group   `json:"days"`    // by day and inbox, in their order
	Reasons   []Reason  `json:"reasons"` // a folder may have several
	Attempts  Attempts  `json:"attempts"`
	Submit    Waits     `json:"to_submission"` // from complete to the first byte of the first attempt
	Verdict   Waits     `json:"to_verdict"`    // from iDenfy's acceptance to the first final verdict
	Person    []Folder  `json:"for_a_person"`  // in hold, or with final verdicts that contradict each other: the newest
	PersonAll int       `json:"for_a_person_all"`
	Decisions Decisions `json:"decisions"`
	Deletions Deletions `json:"deletions"`
}

// Verdicts that are no words of iDenfy's.
const (
	Waiting  = "waiting"   // accepted, and the final one is to come
	NotFinal = "not_final" // one came that is not final, and no other is waited for
	None     = "none"      // none came, and none is waited for: it was not accepted, or its scanRef is not known
)

// Head says what the report is of.
type Head struct {
	System  string         `json:"system"`
	Version string         `json:"version"`
	Host    string         `json:"host"`
	Root    string         `json:"root"` // of the spool
	Zone    string         `json:"zone"` // of all days
	Filters Filters        `json:"filters"`
	By      sidecar.Person `json:"made_by"`
	At      sidecar.Time   `json:"made_at"`
	Ledger  Ledger         `json:"ledger"`

	Location *time.Location `json:"-"` // Zone
}

// Filters say which folders are in it. What is empty sets no bound.
type Filters struct {
	From    sidecar.Time    `json:"from,omitzero"` // taken at that time or later
	To      sidecar.Time    `json:"to,omitzero"`   // taken before it
	Inbox   string          `json:"inbox,omitempty"`
	Place   string          `json:"place,omitempty"`
	Outcome sidecar.Outcome `json:"outcome,omitempty"`
	Verdict string          `json:"verdict,omitempty"` // as in Report.Verdicts, or contradicted
	Client  string          `json:"client,omitempty"`
}

// Ledger is how far the ledger had come when the report was made.
type Ledger struct {
	Entries    int64  `json:"entries"`
	Checkpoint string `json:"checkpoint"`        // the newest signed one, whole
	Covers     int64  `json:"covers"`            // entries
	Missing    string `json:"missing,omitempty"` // why there is no checkpoint
}

// Totals are to be held against each other: submissions is the sum of the four
// below it, and each of the sums at the end is equal to folders.
type Totals struct {
	Submissions int `json:"submissions"`      // in the journal
	Outside     int `json:"outside"`          // of these, begun outside the time
	Filtered    int `json:"filtered"`         // left out by the other filters
	Again       int `json:"came_again"`       // of folders that came again, and are counted by their later one
	Folders     int `json:"folders"`          // counted here
	ByOutcome   int `json:"sum_by_outcome"`   //
	ByVerdict   int `json:"sum_by_verdict"`   //
	ByInbox     int `json:"sum_by_inbox"`     //
	ByDay       int `json:"sum_by_day"`       //
	ByAttempts  int `json:"sum_by_attempts"`  //
	Lines       int `json:"lines_of_the_csv"` // without that of the heads; 0 also where none was written
}

// AddUp reports whether they do.
func (t *Totals) AddUp() bool {
	for _, sum := range []int{t.ByOutcome, t.ByVerdict, t.ByInbox, t.ByDay, t.ByAttempts} {
		if sum != t.Folders {
			return false
		}
	}
	return t.Submissions == t.Outside+t.Filtered+t.Again+t.Folders && (t.Lines == 0 || t.Lines == t.Folders)
}

// Sum is how many folders are of a name.
type Sum struct {
	Name    string `json:"name"`
	Folders int    `json:"folders"`
}

// Reason is how many folders have one.
type Reason struct {
	Code    string         `json:"code"`
	Source  sidecar.Source `json:"source"`
	Folders int            `json:"folders"`
}

// Group is what became of the folders of an inbox, and of a day.
type Group struct {
	Day      string         `json:"day,omitempty"` // empty: it isn't known
	Inbox    string         `json:"inbox"`
	Folders  int            `json:"folders"`
	Outcomes map[string]int `json:"outcomes"`
	Verdicts map[string]int `json:"verdicts"`
}

// Attempts says how often was tried.
type Attempts struct {
	All     int   `json:"all"` // of all folders together
	Folders []Sum `json:"folders"`
}

// Waits say how long something took, in seconds.
type Waits struct {
	Folders int      `json:"folders"` // for which it is known
	Least   float64  `json:"least"`
	Median  float64  `json:"median"` // this one and the next are right to within 2 %
	P95     float64  `json:"p95"`
	Most    float64  `json:"most"`
	Bars    []Bucket `json:"buckets"`
}

// Bucket is how many waited for no longer, and longer than those before.
type Bucket struct {
	UpTo    float64 `json:"up_to,omitempty"` // seconds; 0: no bound
	Folders int     `json:"folders"`
}

// Folder is one that a person has to look at.
type Folder struct {
	ID      string          `json:"id"`
	Folder  string          `json:"folder"`
	Inbox   string          `json:"inbox"`
	Place   string          `json:"place"`
	Name    string          `json:"name"`
	Outcome sidecar.Outcome `json:"outcome"`
	Verdict string          `json:"verdict"`
	Reasons []journal.Why   `json:"reasons"`
	Taken   sidecar.Time    `json:"taken"`
}

// Decisions are those of people that were made in the time, about whatever
// folder of the inbox.
type Decisions struct {
	All    int              `json:"all"`
	Forced int              `json:"forced"`
	ByKind []Sum            `json:"by_action"`
	Newest []journal.Judged `json:"newest"` // no more than mostListed
}

// Deletions are what was deleted of the folders that are counted, by retention
// or by people, whenever that was.
type Deletions struct {
	Folders  int       `json:"folders"` // of which something was
	Emptied  int       `json:"emptied"` // of which the images and meta.yaml were
	Times    int       `json:"times"`   // that something was; a folder may have several
	Files    int       `json:"files"`
	Bytes    int64     `json:"bytes"`
	ByRule   []Deleted `json:"by_rule"`   // as in result.json
	ByPerson []Deleted `json:"by_person"` // who had it done; without a name: the daemon, as it was configured
	ByPlace  []Deleted `json:"by_place"`  // where the folder lies
	Sessions []Sum     `json:"sessions"`  // that iDenfy was asked to delete, by what became of it: the ledger's words
}

// Deleted is what was deleted by something.
type Deleted struct {
	Name  string `json:"name"`
	Times int    `json:"times"`
	Files int    `json:"files"`
	Bytes int64  `json:"bytes"`
}

// mostListed bounds lists of folders and decisions.
const mostListed = 200
