// Package ledger owns what proves that the journal's past was not altered: the
// entries, the Merkle tree over them, signed checkpoints, and proofs. It reads
// and writes nothing: entries and hashes are kept by whoever calls it.
//
// Tree and proofs are those of RFC 6962 (golang.org/x/mod/sumdb/tlog), a
// checkpoint is a signed note (C2SP signed-note and tlog-checkpoint), a proof
// for one entry a C2SP tlog-proof. So anybody can check them with a program of
// their own.
package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"idenfy-batch/sidecar"
)

// Kind says what an entry tells.
type Kind string

// The kinds.
const (
	Ended   Kind = "ended"   // a life of a folder came to its end
	Decided Kind = "decided" // a person decided about a folder that had ended
	Adopted Kind = "adopted" // a life of before the journal, or of after a backup, was taken over
	Verdict Kind = "verdict" // iDenfy's final word on the person came
	Purged  Kind = "purged"  // of a folder that had ended something is deleted; again, with the same time: what iDenfy answered
	Started Kind = "started" // a daemon began to work with the journal
)

// Entry is one fact. It holds ids, hashes, public keys, words and times only, so
// that it can be kept for ever and shown to anybody.
type Entry struct {
	Kind    Kind            `json:"kind"`
	At      sidecar.Time    `json:"at"`
	ID      string          `json:"id,omitempty"`      // of the life
	Action  sidecar.Action  `json:"action,omitempty"`  // that a person decided
	Forced  bool            `json:"forced,omitempty"`  // though it might be a second submission
	Rule    sidecar.Rule    `json:"rule,omitempty"`    // by which something is deleted
	Remote  Remote          `json:"remote,omitempty"`  // what became of iDenfy's session then; none: it is not asked for that
	Outcome sidecar.Outcome `json:"outcome,omitempty"` // as result.json has it from now on
	Place   string          `json:"place,omitempty"`   // where the folder goes; none: it was not there any more
	Verdict string          `json:"verdict,omitempty"` // iDenfy's word
	SHA256  string          `json:"sha256,omitempty"`  // lower-case hex, of result.json as it was moved, none: there was none; with a verdict, of what iDenfy sent
	Version string          `json:"version,omitempty"` // of the program
	Key     string          `json:"key,omitempty"`     // the verifier key that belongs to the signatures from now on
}

// Remote says what became of a session that iDenfy was to delete.
type Remote string

// What became of it.
const (
	Asked    Remote = "asked"     // it is asked for
	Erased   Remote = "deleted"   // iDenfy said that it is
	Kept     Remote = "refused"   // iDenfy said no
	NoAnswer Remote = "no_answer" // it may have been, or not
	NotAsked Remote = "not_sent"  // nothing left
)

// RemoteOf returns the word for a request; none, if there was none.
func RemoteOf(d *sidecar.Deletion) Remote {
	switch {
	case d == nil:
		return ""
	case d.State == sidecar.Sending:
		return Asked
	case d.Done():
		return Erased
	case d.State == sidecar.NotSent:
		return NotAsked
	case d.State == sidecar.NoAnswer, d.HTTPStatus >= 500:
		return NoAnswer
	default:
		return Kept
	}
}

// forms say how the line of each kind is written, to the byte: the fields, and
// their order, are always these.
var forms = map[Kind]*regexp.Regexp{
	Ended:   form(`,"id":<id>,"outcome":<word>(,"place":<word>)?(,"sha256":<hash>)?`),
	Decided: form(`,"id":<id>,"action":<word>(,"forced":true)?,"outcome":<word>(,"place":<word>,"sha256":<hash>)?`),
	Adopted: form(`,"id":<id>,"outcome":<word>(,"place":<word>)?(,"sha256":<hash>)?`),
	Verdict: form(`,"id":<id>,"verdict":<text>,"sha256":<hash>`),
	Purged:  form(`,"id":<id>,"rule":<word>(,"remote":<word>)?,"outcome":<word>,"place":<word>,"sha256":<hash>`),
	Started: form(`,"version":<text>,"key":<key>`),
}

func form(fields string) *regexp.Regexp {
	return regexp.MustCompile(`^\{"kind":"[a-z]+","at":"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"` + strings.NewReplacer(
		"<id>", `"[A-Z2-7]{26}"`, "<word>", `"[a-z_]{1,32}"`, "<hash>", `"[0-9a-f]{64}"`, "<text>", `"[ !#-\[\]-~]{1,64}"`,
		"<key>", `"idenfy-batch/[A-Z2-7]{26}\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}"`,
	).Replace(fields) + `\}$`)
}

// mostBytes bounds a line; none that has a form is longer.
const mostBytes = 512

// ErrEntry says that something is no entry of a ledger.
var ErrEntry = errors.New("not an entry of a ledger")

// Encode returns the line that stands for e, without a line break. There is no
// other.
func (e Entry) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, err
	}
	line := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if f := forms[e.Kind]; f == nil || !f.Match(line) {
		return nil, fmt.Errorf("%w: %.600q", ErrEntry, line)
	}
	return line, nil
}

// Parse returns the entry of a line that Encode returned. Any other line, were
// it the same JSON in another order, is ErrEntry.
func Parse(line []byte) (Entry, error) {
	var e Entry
	if len(line) <= mostBytes && json.Unmarshal(line, &e) == nil {
		if same, err := e.Encode(); err == nil && bytes.Equal(same, line) {
			return e, nil
		}
	}
	return Entry{}, fmt.Errorf("%w: %.600q", ErrEntry, line)
}
