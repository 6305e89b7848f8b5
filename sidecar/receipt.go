package sidecar

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"idenfy-batch/internal/drop"
)

// ReceiptSchema is the value of the field schema of a receipt, as Schema is of
// result.json.
const ReceiptSchema = "idenfy-batch/receipt/v1"

// ReceiptState says how a folder stands, for its uploader.
type ReceiptState string

// The states of a receipt.
const (
	Waits     ReceiptState = "waiting"  // it lies in the inbox, and is not complete
	Works     ReceiptState = "working"  // it is complete, and its end is still to come
	Ends      ReceiptState = "ended"    // outcome says how
	PutBack   ReceiptState = "requeued" // it had ended, and a person put it into the inbox again
	LeftAlone ReceiptState = "ignored"  // what lies in the inbox and is no folder: it is named, and stays
)

// Receipt is the content of a receipt: what the uploader of a folder is told,
// who sees no result.json. It says nothing of tokens, of the person, or of
// other uploaders.
type Receipt struct {
	Schema   string           `json:"schema"`
	Inbox    string           `json:"inbox"`            // name of the inbox
	Folder   string           `json:"folder,omitempty"` // name that it was dropped with; empty: it is about the inbox
	State    ReceiptState     `json:"state"`
	Message  string           `json:"message"`           // for people: how it stands, and what to do
	ID       string           `json:"id,omitempty"`      // of the submission, as in result.json
	Outcome  Outcome          `json:"outcome,omitempty"` // of what has ended
	Reasons  []ReceiptReason  `json:"reasons"`
	Times    ReceiptTimes     `json:"times"`
	Decision *ReceiptDecision `json:"decision,omitempty"` // the last one of a person
	Verdict  *ReceiptVerdict  `json:"verdict,omitempty"`  // with receipts_verdict only
	Earlier  []ReceiptEarlier `json:"earlier,omitempty"`  // folders of this name before, the newest first
	Older    int              `json:"earlier_omitted,omitempty"`
	Ignored  []ReceiptIgnored `json:"ignored,omitempty"` // of an inbox
	Unnamed  int              `json:"ignored_omitted,omitempty"`
	Written  Time             `json:"written"`
}

// ReceiptReason is one thing that is wrong, or that is waited for.
type ReceiptReason struct {
	Code    string `json:"code"`            // for programs, as in result.json
	Message string `json:"message"`         // for people
	Field   string `json:"field,omitempty"` // the key, step or file that it is about
}

// ReceiptTimes are the steps of the folder's life.
type ReceiptTimes struct {
	FirstSeen Time `json:"first_seen,omitzero"`
	Since     Time `json:"waits_since,omitzero"` // nothing in it has changed since
	Complete  Time `json:"complete,omitzero"`
	Finished  Time `json:"finished,omitzero"`
}

// ReceiptDecision is what a person decided.
type ReceiptDecision struct {
	At     Time   `json:"at"`
	Action Action `json:"action"`
}

// ReceiptVerdict is iDenfy's word, as in verdict.json.
type ReceiptVerdict struct {
	Overall string `json:"overall"`
	Final   bool   `json:"final"`
}

// ReceiptEarlier is how a folder of the same name ended before.
type ReceiptEarlier struct {
	ID       string  `json:"id"`
	Outcome  Outcome `json:"outcome"`
	Finished Time    `json:"finished,omitzero"`
}

// ReceiptIgnored is what lies in an inbox and is no folder.
type ReceiptIgnored struct {
	Name string `json:"name"`
	Kind string `json:"kind"` // file, link, or special
}

// EncodeReceipt returns r as it stands in the file.
func EncodeReceipt(r *Receipt) ([]byte, error) {
	c := *r
	c.Schema = ReceiptSchema
	c.Reasons = append([]ReceiptReason{}, r.Reasons...)
	return encode(&c)
}

// mostReceipt bounds what is read of a receipt, in bytes.
const mostReceipt = 1 << 20

// ReadReceipt returns the receipt called name in dir. One of another kind or
// schema is ErrNotOurs.
func ReadReceipt(dir *os.Root, name string) (*Receipt, error) {
	data, err := drop.ReadFile(dir, name, mostReceipt)
	if err != nil {
		return nil, err
	}
	var r Receipt
	if err := json.Unmarshal(data, &r); err != nil || r.Schema != ReceiptSchema {
		return nil, fmt.Errorf("%s: %w", name, ErrNotOurs)
	}
	return &r, nil
}

// InboxReceipt is the name of the receipt about an inbox. That of a folder never
// has it, see ReceiptName.
const InboxReceipt = "_inbox" + receiptEnd

const receiptEnd = ".json"

// Bounds of a receipt's name, which is a file's: 255 bytes (NAME_MAX).
const (
	longestPlain = 255 - len(receiptEnd)
	hashLength   = 32
	longestHead  = longestPlain - len("~") - hashLength
)

// hashed is how a name ends that was cut.
var hashed = regexp.MustCompile(`~[0-9a-f]{32}$`)

// ReceiptName returns the name of the receipt of a folder, by the folder's name
// as it may be shown: with .json behind it. A name that is too long for that,
// or that is the inbox's or ends as a cut one does, is cut and gets a hash of
// the whole behind it; so no two folders have one receipt.
func ReceiptName(folder string) string {
	if len(folder) <= longestPlain && !strings.EqualFold(folder+receiptEnd, InboxReceipt) && !hashed.MatchString(folder) && !strings.ContainsAny(folder, "/\x00") && !strings.HasPrefix(folder, ".") {
		return folder + receiptEnd
	}
	sum := sha256.Sum256([]byte(folder))
	head := strings.Map(func(r rune) rune {
		if r == '/' || r == 0 {
			return '_'
		}
		return r
	}, strings.TrimLeft(folder, "."))
	for n := longestHead; len(head) > longestHead; n-- {
		if utf8.RuneStart(head[n]) {
			head = head[:n]
		}
	}
	return head + "~" + hex.EncodeToString(sum[:])[:hashLength] + receiptEnd
}
