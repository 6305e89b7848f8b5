package sidecar

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/durable"
)

// VerdictName is the name of the file that says what iDenfy decided about the
// person, beside result.json.
const VerdictName = "verdict.json"

// VerdictSchema is the value of its field schema, as Schema is of result.json.
const VerdictSchema = "idenfy-batch/verdict/v1"

// Said is what an event says of the person and the document: iDenfy's words, as
// they are. Empty: it doesn't say.
type Said struct {
	Overall          string   `json:"overall"` // APPROVED, DENIED, SUSPECTED, REVIEWING, EXPIRED, or another word
	Final            bool     `json:"final"`   // nothing more is to come, as far as iDenfy knows
	AutoDocument     string   `json:"auto_document"`
	ManualDocument   string   `json:"manual_document"`
	AutoFace         string   `json:"auto_face"`
	ManualFace       string   `json:"manual_face"`
	FraudTags        []string `json:"fraud_tags"`
	MismatchTags     []string `json:"mismatch_tags"`
	SuspicionReasons []string `json:"suspicion_reasons"`
	DenyReasons      []string `json:"deny_reasons"`
}

// By says how an event came.
type By string

// The ways.
const (
	ByWebhook By = "webhook" // iDenfy sent it, with a good signature
	ByStatus  By = "status"  // the daemon asked
)

// VerdictEvent is one event.
type VerdictEvent struct {
	SHA256   string `json:"sha256"` // lower-case hex, of what was sent
	Received Time   `json:"received"`
	By       By     `json:"by"`
	Type     string `json:"type,omitempty"`    // header Idenfy-Event-Type, which the signature does not cover
	Finished Time   `json:"finished,omitzero"` // when the person's session ended, by iDenfy's clock
	Body     string `json:"body,omitempty"`    // name of the file that has all that was sent, see verdict.keep
	Said
}

// Verdict is the content of verdict.json.
type Verdict struct {
	Schema  string `json:"schema"`
	ID      string `json:"id"`       // of the submission that was taken, as in result.json
	ScanRef string `json:"scan_ref"` // iDenfy's reference of the session
	Said           // of the newest final event; while there is none, of the newest
	// Contradicted says that final events have different words; look the
	// session up in the iDenfy dashboard.
	Contradicted bool           `json:"contradicted"`
	Events       []VerdictEvent `json:"events"`                   // in the order in which they came
	Omitted      int            `json:"events_omitted,omitempty"` // older ones that are not listed
}

// mostVerdict bounds what is read of a verdict.json, in bytes.
const mostVerdict = 16 << 20

// listed makes lists that are never null, so that readers need no case for it.
func (s Said) listed() Said {
	s.FraudTags = append([]string{}, s.FraudTags...)
	s.MismatchTags = append([]string{}, s.MismatchTags...)
	s.SuspicionReasons = append([]string{}, s.SuspicionReasons...)
	s.DenyReasons = append([]string{}, s.DenyReasons...)
	return s
}

// EncodeVerdict returns v as it stands in the file.
func EncodeVerdict(v *Verdict) ([]byte, error) {
	c := *v
	c.Schema, c.Said = VerdictSchema, v.listed()
	c.Events = append([]VerdictEvent{}, v.Events...)
	for i := range c.Events {
		c.Events[i].Said = c.Events[i].listed()
	}
	return encode(&c)
}

// WriteVerdict durably replaces the verdict.json in dir by data, as Write does.
func WriteVerdict(dir *os.Root, data []byte) error {
	if err := durable.WriteFile(dir, VerdictName, data, 0o640); err != nil {
		return fmt.Errorf("writing %s: %w", VerdictName, err)
	}
	return nil
}

// ReadVerdict returns the verdict.json in dir, and its bytes. A missing one is
// fs.ErrNotExist, one of another kind or schema ErrNotOurs.
func ReadVerdict(dir *os.Root) (*Verdict, []byte, error) {
	data, err := drop.ReadFile(dir, VerdictName, mostVerdict)
	if err != nil {
		return nil, nil, err
	}
	var v Verdict
	if err := json.Unmarshal(data, &v); err != nil || v.Schema != VerdictSchema {
		return nil, nil, fmt.Errorf("%s: %w", VerdictName, ErrNotOurs)
	}
	return &v, data, nil
}

// BodyName is the name of the file that has all that was sent with an event, by
// its SHA-256.
func BodyName(sum string) string { return "verdict." + sum[:min(len(sum), 16)] + ".json" }

var verdictName = regexp.MustCompile(`^verdict(\.[0-9]{1,9}|\.[0-9a-f]{16})?\.json$`)
