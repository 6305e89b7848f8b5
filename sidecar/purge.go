package sidecar

import "slices"

// Rule says why something was deleted of a folder that had ended.
type Rule string

// The rules: the keys of the configuration's retention, and a person's list.
const (
	OfDone     Rule = "done"     // it had lain in done for that long
	OfFailed   Rule = "failed"   // likewise
	OfHold     Rule = "hold"     // likewise
	OfVerdicts Rule = "verdicts" // what iDenfy had sent, see VerdictEvent.Body, and nothing else
	OfList     Rule = "list"     // a person named it
)

// Deleted is a file or directory that was deleted.
type Deleted struct {
	File   string `json:"file"`             // path in the folder, as in extra_files; directories end with a slash
	Bytes  int64  `json:"bytes"`            // of a file
	SHA256 string `json:"sha256,omitempty"` // lower-case hex, of what was deleted; empty: it was no file, or could not be read
	Linked bool   `json:"linked,omitempty"` // it had another name elsewhere, under which it is still there
}

// Deletion is the request to iDenfy to delete the session.
type Deletion struct {
	ScanRef    string `json:"scan_ref"`
	Started    Time   `json:"started"`
	Finished   Time   `json:"finished,omitzero"`
	State      State  `json:"state"` // as of an attempt: answered with http_status 200 and no identifier is deleted
	HTTPStatus int    `json:"http_status,omitempty"`
	Identifier string `json:"identifier,omitempty"` // the API's, as it came
	Message    string `json:"message,omitempty"`    // the API's, shortened; or what went wrong
}

// Done reports whether iDenfy said that it was.
func (d *Deletion) Done() bool {
	return d.State == Answered && d.HTTPStatus < 300 && d.Identifier == ""
}

// Purge is what was deleted of a folder at one time, and by which rule. It is
// recorded before that is done.
type Purge struct {
	At     Time      `json:"at"`
	Rule   Rule      `json:"rule"`
	By     *Person   `json:"by,omitempty"` // nil: the daemon, as it was configured
	Files  []Deleted `json:"files"`
	Remote *Deletion `json:"remote,omitempty"` // nil: iDenfy was not asked
}

// Bytes returns how many there were in the files.
func (p *Purge) Bytes() (n int64) {
	for i := range p.Files {
		n += p.Files[i].Bytes
	}
	return n
}

// Empties reports whether it took what the folder was sent with.
func (p *Purge) Empties() bool { return p.Rule != OfVerdicts && len(p.Files) > 0 }

// Emptied returns the last purge that took what the folder was sent with, or
// nil.
func (r *Result) Emptied() *Purge {
	for i := range slices.Backward(r.Purges) {
		if p := &r.Purges[i]; p.Empties() {
			return p
		}
	}
	return nil
}
