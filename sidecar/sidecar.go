// Package sidecar owns result.json, verdict.json and receipts: their formats,
// and how the first two are read and durably written.
//
// They are what people and programs read: evidence, and never state. The
// daemon's own memory is its journal. The schemas are published as
// result.schema.json, verdict.schema.json and receipt.schema.json beside this
// file.
package sidecar

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/durable"
)

// Name is the file's name in the folder.
const Name = "result.json"

// Schema is the value of the field schema. Fields may be added under the same
// value; one is never removed, nor its meaning changed.
const Schema = "idenfy-batch/result/v1"

// maxSize bounds what Read takes in, in bytes. What Write writes stays far
// below; what was written before attempts and reasons were bounded need not.
const maxSize = 64 << 20

// Outcome says what became of a folder; the set is closed.
type Outcome string

// The outcomes, with the place where a folder of that outcome lies.
const (
	Pending    Outcome = "pending"    // work: being submitted, or waiting for the next attempt
	Accepted   Outcome = "accepted"   // done: iDenfy took the documents for processing
	Rejected   Outcome = "rejected"   // failed: the API said no
	Invalid    Outcome = "invalid"    // failed: pre-flight said no, nothing was sent
	Incomplete Outcome = "incomplete" // failed: never became complete, nothing was sent
	GaveUp     Outcome = "gave_up"    // failed: retries are over, and nothing was accepted
	Unknown    Outcome = "unknown"    // hold: may or may not have been accepted
)

// Final reports whether o ends a folder's life.
func (o Outcome) Final() bool { return o != Pending && o != "" }

// State says how far an attempt got.
type State string

// The states of an attempt.
const (
	Sending  State = "sending"   // written before the first byte; after a crash it counts as no_answer
	Answered State = "answered"  // an answer was received whole
	NoAnswer State = "no_answer" // something may have been sent, no usable answer came
	NotSent  State = "not_sent"  // proven: not one byte of the request left
)

// Source says who gave a reason.
type Source string

// The sources of reasons.
const (
	FromAPI       Source = "api"
	FromPreflight Source = "preflight"
	FromDaemon    Source = "daemon"
)

// Reason says why a folder ended as it did, or what it waits for.
type Reason struct {
	Code    string `json:"code"`            // for programs: lower_case, or the API's own identifier
	Message string `json:"message"`         // for people: what is wrong and what to do
	Source  Source `json:"source"`          // who says so
	Field   string `json:"field,omitempty"` // the key, step or file that it is about
}

// Image is one image as it was, or would be, sent.
type Image struct {
	Step   string `json:"step"`             // FRONT, BACK or FACE
	File   string `json:"file"`             // plain file name in the folder
	Bytes  int64  `json:"bytes"`            // size of the file, before Base64
	SHA256 string `json:"sha256"`           // lower-case hex, of the very bytes sent, or, of what ended invalid or incomplete, of the file; else empty
	Format string `json:"format"`           // jpeg, png or pdf
	Width  int    `json:"width,omitempty"`  // pixels; 0 for a PDF
	Height int    `json:"height,omitempty"` // pixels; 0 for a PDF
}

// Request describes the submission without the data in it.
type Request struct {
	Endpoint     string  `json:"endpoint"`               // URL that was posted to
	TokenHint    string  `json:"token_hint"`             // the token's first four characters and its length, see TokenHint
	TokenSHA256  string  `json:"token_sha256,omitempty"` // lower-case hex: tells which token it was to whoever knows it
	MetaSHA256   string  `json:"meta_sha256,omitempty"`  // lower-case hex, of meta.yaml as it was read
	Country      string  `json:"country"`                // ISO 3166-1 alpha-2, upper case
	DocumentType string  `json:"document_type"`          // the API's name
	SkipAnalysis bool    `json:"skip_analysis"`          // as sent
	Bytes        int64   `json:"bytes"`                  // size of the request's body
	Images       []Image `json:"images"`                 // in the order sent
}

// Attempt is one try at the submission.
type Attempt struct {
	N          int    `json:"n"` // from 1
	Started    Time   `json:"started"`
	Finished   Time   `json:"finished,omitzero"`
	State      State  `json:"state"`
	HTTPStatus int    `json:"http_status,omitempty"`
	Identifier string `json:"identifier,omitempty"`  // the API's, as it came
	Message    string `json:"message,omitempty"`     // the API's, shortened; or what went wrong
	DurationMS int64  `json:"duration_ms,omitempty"` // milliseconds from start to end
	RetryAfter int64  `json:"retry_after,omitempty"` // seconds that the service asked to wait
}

// Times are the steps of the folder's life, by the daemon's clock.
type Times struct {
	FirstSeen Time `json:"first_seen,omitzero"`
	Complete  Time `json:"complete,omitzero"`
	Claimed   Time `json:"claimed,omitzero"`
	Finished  Time `json:"finished,omitzero"`
}

// Uploader is the owner of the folder.
type Uploader struct {
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	User  string `json:"user,omitempty"`  // where the host knows one
	Group string `json:"group,omitempty"` // where the host knows one
}

// Earlier is what else lay in the folder at its end under a name of a result:
// result.json of earlier lives, kept as result.1.json and so on.
type Earlier struct {
	File   string `json:"file"`
	SHA256 string `json:"sha256"` // lower-case hex; empty: it is no file, can't be read, or is too large for a result
}

// Session is iDenfy's session of the submission.
type Session struct {
	ScanRef  string `json:"scan_ref"`            // iDenfy's reference
	ClientID string `json:"client_id,omitempty"` // of the person, where the daemon opened it
	Opened   Time   `json:"opened,omitzero"`     // likewise
	Expires  Time   `json:"expires,omitzero"`    // likewise: if it is not used
	By       Opener `json:"by"`
}

// Opener is who opened a session.
type Opener string

// The openers.
const (
	ByProducer Opener = "producer" // whoever put a token into meta.yaml
	ByDaemon   Opener = "daemon"
)

// Opening is one try at opening a session. After one that ended as no_answer, or
// with a server error, there may be a session that nobody has the token of: it
// expires unused.
type Opening struct {
	Attempt
	After   int    `json:"after,omitempty"`    // the attempt at the submission that came before; 0: none
	ScanRef string `json:"scan_ref,omitempty"` // of the session that was opened
}

// Daemon says which program wrote the result.
type Daemon struct {
	Version string `json:"version"`
	Host    string `json:"host"`
}

// Action is what a person decided.
type Action string

// The actions.
const (
	Requeued  Action = "requeued" // a folder that had ended goes to the inbox again
	Confirmed Action = "accepted" // a held folder: iDenfy took the documents
	Denied    Action = "rejected" // a held folder: iDenfy did not take them
	Resubmit  Action = "resubmit" // a held folder: not taken, and to be sent again
)

// Decision is what a person decided about a folder that had ended.
type Decision struct {
	At      Time    `json:"at"`
	Action  Action  `json:"action"`
	By      Person  `json:"by"`
	Forced  bool    `json:"forced"`            // though it might be a second submission
	Comment string  `json:"comment,omitempty"` // the person's
	Result  string  `json:"result"`            // id of the submission that it is about
	Outcome Outcome `json:"outcome"`           // that it had ended with
}

// Person is who ran a command, as the kernel knows it.
type Person struct {
	UID      uint32  `json:"uid"`
	User     string  `json:"user,omitempty"`      // where the host knows one
	EUID     *uint32 `json:"euid,omitempty"`      // where it is another than UID
	LoginUID *uint32 `json:"login_uid,omitempty"` // who had logged in, whoever that became since (pam_loginuid(8))
	Login    string  `json:"login,omitempty"`     // where the host knows one
	Sudo     string  `json:"sudo,omitempty"`      // of old records only: who became that user, as the environment said
}

// Result is the content of result.json.
type Result struct {
	Schema       string    `json:"schema"`
	ID           string    `json:"id"`              // unique to the submission; ends the folder's name in work
	Folder       string    `json:"folder"`          // name that the folder was dropped with
	Inbox        string    `json:"inbox,omitempty"` // name of the inbox that it was dropped into; empty: into none, or before inboxes had names
	Outcome      Outcome   `json:"outcome"`
	Reasons      []Reason  `json:"reasons"`
	Request      Request   `json:"request"`
	Defaults     []string  `json:"defaults,omitempty"` // what the configuration's defaults filled in: keys of meta.yaml, and meta where there was none
	Attempts     []Attempt `json:"attempts"`
	Omitted      int       `json:"attempts_omitted,omitempty"` // attempts between the first and the last ones that are not listed
	Times        Times     `json:"times"`
	ExtraFiles   []string  `json:"extra_files"`                // what travelled along and was not sent: "note.txt", "originals/", "originals/p1.tif"
	MoreFiles    int       `json:"extra_files_more,omitempty"` // how many there are beyond those of extra_files
	Unsealed     []string  `json:"unsealed,omitempty"`         // what somebody else may still change: "originals/p1.tif", directories with a slash, "./" the folder itself
	MoreUnsealed int       `json:"unsealed_more,omitempty"`    // how many there are beyond those of unsealed
	Earlier      []Earlier `json:"earlier_results,omitzero"`   // nil: nobody has looked for them
	Session      *Session  `json:"session,omitempty"`          // nil: its reference isn't known
	Sessions     []Opening `json:"sessions,omitempty"`         // tries at opening one, the oldest first
	Unlisted     int       `json:"sessions_omitted,omitempty"` // of these, between the first and the last ones, that are not listed
	Uploader     Uploader  `json:"uploader"`
	Daemon       Daemon    `json:"daemon"`

	Decisions []Decision `json:"decisions,omitempty"` // of people, the oldest first
	Purges    []Purge    `json:"purged,omitempty"`    // what was deleted of the folder since its end, the oldest first
}

// SentBefore is the code of the reason that a folder was stopped because it
// came with the result of an accepted submission.
const SentBefore = "sent_before"

// NotWritable is the code of the reason that a folder lies inside the one that
// has its result: the daemon can't write into the folder itself.
const NotWritable = "not_writable"

// WasAccepted reports whether the folder was accepted, in this submission or,
// as far as its evidence tells, in one before.
func (r *Result) WasAccepted() bool {
	return r.Outcome == Accepted || slices.ContainsFunc(r.Reasons, func(reason Reason) bool { return reason.Code == SentBefore })
}

// Decided reports whether the last thing that a person decided is this, and
// is about this result.
func (r *Result) Decided(action Action) bool {
	if len(r.Decisions) == 0 {
		return false
	}
	last := &r.Decisions[len(r.Decisions)-1]
	return last.Result == r.ID && last.Action == action
}

// LastAttempt returns the newest attempt, or nil before the first.
func (r *Result) LastAttempt() *Attempt {
	if len(r.Attempts) == 0 {
		return nil
	}
	return &r.Attempts[len(r.Attempts)-1]
}

// LastOpening returns the newest try at opening a session, or nil.
func (r *Result) LastOpening() *Opening {
	if len(r.Sessions) == 0 {
		return nil
	}
	return &r.Sessions[len(r.Sessions)-1]
}

// LastTry returns what was tried last: to open a session, or to submit. It is
// nil before the first.
func (r *Result) LastTry() *Attempt {
	a, o := r.LastAttempt(), r.LastOpening()
	if o != nil && (a == nil || o.After == a.N) {
		return &o.Attempt
	}
	return a
}

// TokenHint returns what of a token may be shown: enough to find it in the
// iDenfy dashboard, too little to use it.
func TokenHint(token string) string {
	if len(token) < 10 {
		return ""
	}
	return fmt.Sprintf("%s… (%d characters)", token[:4], len(token))
}

// Time is a time.Time that is written as RFC 3339 in UTC with milliseconds.
type Time struct{ time.Time }

// Now returns the current time.
func Now() Time { return Time{time.Now()} }

const timeLayout = "2006-01-02T15:04:05.000Z"

// MarshalJSON implements json.Marshaler, in place of the method of the embedded
// time.Time, which writes another format.
func (t Time) MarshalJSON() ([]byte, error) {
	return []byte(`"` + t.UTC().Format(timeLayout) + `"`), nil
}

// Write durably replaces the result.json in dir. On an error the old one is
// still there, whole, or the new one is there and may not survive a power cut.
func Write(dir *os.Root, r *Result) error { return write(dir, r, durable.WriteFile) }

// Show is Write of a result that is to be replaced soon, and that nobody
// relies on: after a power cut the old one may be there, or an empty one.
func Show(dir *os.Root, r *Result) error { return write(dir, r, durable.Replace) }

func write(dir *os.Root, r *Result, how func(*os.Root, string, []byte, fs.FileMode) error) error {
	data, err := Encode(r)
	if err != nil {
		return err
	}
	if err := how(dir, Name, data, 0o640); err != nil {
		return fmt.Errorf("writing %s: %w", Name, err)
	}
	return nil
}

// mostReasons bounds how many reasons a result lists; what is left out is
// counted in the last one.
const mostReasons = 50

// Encode returns r as it stands in the file.
func Encode(r *Result) ([]byte, error) {
	c := *r
	c.Schema = Schema
	// Lists are never null, so that readers need no case for it.
	c.Reasons = append([]Reason{}, r.Reasons...)
	if more := len(c.Reasons) - mostReasons; more > 0 {
		c.Reasons = append(c.Reasons[:mostReasons], Reason{Code: "more", Source: FromDaemon, Message: fmt.Sprintf("and %d reasons more", more)})
	}
	c.Attempts = append([]Attempt{}, r.Attempts...)
	c.ExtraFiles = append([]string{}, r.ExtraFiles...)
	c.Request.Images = append([]Image{}, r.Request.Images...)
	c.Purges = slices.Clone(r.Purges)
	for i := range c.Purges {
		c.Purges[i].Files = append([]Deleted{}, c.Purges[i].Files...)
	}
	return encode(&c)
}

// encode returns v as all files of this package are written: for people to read.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.Bytes(), err
}

// Sum returns the SHA-256, in lower-case hex, of r as it stands in the file.
func Sum(r *Result) (string, error) {
	data, err := Encode(r)
	return SumOf(data), err
}

// SumOf is Sum of a file that was read, or is to be written.
func SumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// ErrNotOurs says that there is something under the name result.json that
// Write did not write: a link, a directory, another format.
var ErrNotOurs = errors.New("result.json is not one of idenfy-batch")

// Read returns the result.json in dir. A missing one is fs.ErrNotExist, one
// of another kind or schema ErrNotOurs.
func Read(dir *os.Root) (*Result, error) { return ReadNamed(dir, Name) }

// ReadNamed is Read of the result file called name.
func ReadNamed(dir *os.Root, name string) (*Result, error) {
	data, err := drop.ReadFile(dir, name, maxSize)
	if errors.Is(err, drop.ErrNotPlain) {
		return nil, ErrNotOurs
	}
	if err != nil {
		return nil, err
	}
	var r Result
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotOurs, err)
	}
	if r.Schema != Schema {
		return nil, fmt.Errorf("%w: schema %q", ErrNotOurs, r.Schema)
	}
	return &r, nil
}

// idForm is how Write writes an id; it stands within the first hundred bytes.
var idForm = regexp.MustCompile(`"id":\s*"([A-Z2-7]{26})"`)

// ID returns the id in the result file called name in dir, or "" when there is
// none to be found: of a file that is damaged further on, or too large to be
// read, it is found all the same.
func ID(dir *os.Root, name string) (string, error) {
	head, err := drop.ReadHead(dir, name, 4096)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, drop.ErrNotPlain):
		return "", nil
	case err != nil:
		return "", err
	}
	if m := idForm.FindSubmatch(head); m != nil {
		return string(m[1]), nil
	}
	return "", nil
}

// mostResults bounds how many result files of a folder are looked at: more
// are planted.
const mostResults = 1000

// Files returns the names of the result files in dir, the oldest first:
// result.1.json, …, result.json.
func Files(dir *os.Root) (names []string, err error) {
	d, err := drop.Dir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	for len(names) < mostResults {
		const n = 256
		list, err := d.Readdirnames(n)
		for _, name := range list {
			if isResult(name) {
				names = append(names, name)
			}
		}
		if errors.Is(err, io.EOF) || err == nil && len(list) < n {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(number(a), number(b)) })
	return names, nil
}

// Bounds of what Others looks at: whoever drops a folder may have put in
// whatever takes long to read.
const (
	MostOthers = 100     // names
	maxOther   = 1 << 20 // bytes
)

// Others returns the result files in dir, but for the one called but.
func Others(dir *os.Root, but string) ([]Earlier, error) {
	names, err := Files(dir)
	if err != nil {
		return nil, err
	}
	list := []Earlier{}
	for _, name := range names {
		if name == but || len(list) == MostOthers {
			continue
		}
		sum, err := OtherSum(dir, name)
		if err != nil && !drop.Own(err) {
			return nil, err
		}
		list = append(list, Earlier{File: name, SHA256: sum})
	}
	return list, nil
}

// OtherSum returns the SHA-256 of a result file as Others does.
func OtherSum(dir *os.Root, name string) (string, error) {
	data, err := drop.ReadFile(dir, name, maxOther)
	if err != nil {
		return "", err
	}
	return SumOf(data), nil
}

// number is the n of result.n.json; that of result.json is above all.
func number(name string) uint64 {
	n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(name, "result."), ".json"), 10, 32)
	if err != nil {
		return 1 << 32
	}
	return n
}

// IDs returns the ids in all the result files in dir. They say who the folder
// claims to be, and nothing more.
func IDs(dir *os.Root) (ids []string, err error) {
	names, err := Files(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		id, err := ID(dir, name)
		if err != nil {
			return nil, err
		}
		if id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// Rotate keeps whatever lies under the name result.json, or verdict.json, as
// evidence, durably: it becomes result.1.json, or the next number that is free.
// Nothing there is no error.
func Rotate(dir *os.Root, name string) error {
	if _, err := dir.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	d, err := drop.Dir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for n := 1; ; n++ {
		err := durable.Rename(d, name, d, strings.TrimSuffix(name, "json")+strconv.Itoa(n)+".json")
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist):
			return nil
		case errors.Is(err, fs.ErrExist):
		default:
			return fmt.Errorf("keeping the old %s: %w", name, err)
		}
	}
}

// IsOwn reports whether name is one that this package gives a file: they are
// neither input nor extra files.
func IsOwn(name string) bool {
	return isResult(name) || verdictName.MatchString(name) || durable.IsTemp(name)
}

func isResult(name string) bool {
	if name == Name {
		return true
	}
	n, ok := strings.CutPrefix(name, "result.")
	if !ok {
		return false
	}
	n, ok = strings.CutSuffix(n, ".json")
	_, err := strconv.ParseUint(n, 10, 32)
	return ok && err == nil
}
