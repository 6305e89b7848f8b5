// Package meta owns what one folder asks for: it parses meta.yaml, finds the
// images, and checks all of it before anything is sent.
package meta

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/strictyaml"
)

// Name is the file's name in the folder.
const Name = "meta.yaml"

// maxSize bounds meta.yaml, in bytes. A full one has less than a thousand.
const maxSize = 64 << 10

// Reason is one thing that is wrong, or that is waited for.
type Reason struct {
	Code    string // for programs, lower_case
	Field   string // key of meta.yaml, or file name
	Message string // for people: what is wrong and what to do
	line    int    // in meta.yaml
}

// Steps holds a value for each image that the API knows.
type Steps struct {
	Front string `yaml:"FRONT"`
	Back  string `yaml:"BACK"`
	Face  string `yaml:"FACE"`
}

// stepNames are the API's keys, in the order that images are sent.
var stepNames = []string{"FRONT", "BACK", "FACE"}

func (s *Steps) get(step string) string {
	switch {
	case s == nil:
		return ""
	case step == "FRONT":
		return s.Front
	case step == "BACK":
		return s.Back
	default:
		return s.Face
	}
}

// Meta is the content of meta.yaml. The keys are the API's own names.
type Meta struct {
	AuthToken    string `yaml:"authToken"`    // 10 to 40 ASCII characters; a secret
	ClientID     string `yaml:"clientId"`     // in its place: 1 to 100 ASCII characters, names the person
	Country      string `yaml:"country"`      // ISO 3166-1 alpha-2; upper case after Parse
	DocumentType string `yaml:"documentType"` // one of DocumentTypes
	SkipAnalysis *bool  `yaml:"skipAnalysis"` // nil: not sent
	ScanRef      string `yaml:"scanRef"`      // optional; settles an unanswered attempt
	Images       *Steps `yaml:"images"`       // nil: found by file name
	SHA256       *Steps `yaml:"sha256"`       // lower-case hex after Parse

	// Of the person, beside clientId only: what iDenfy is to compare the
	// document with. Each may be left out.
	FirstName      string `yaml:"firstName"`
	LastName       string `yaml:"lastName"`
	DateOfBirth    string `yaml:"dateOfBirth"` // YYYY-MM-DD
	Nationality    string `yaml:"nationality"` // ISO 3166-1 alpha-2; upper case after Parse
	PersonalNumber string `yaml:"personalNumber"`
	DocumentNumber string `yaml:"documentNumber"`
	Sex            string `yaml:"sex"` // M or F
	Address        string `yaml:"address"`
}

// TokenSHA256 returns the SHA-256 of the token, in lower-case hex, or "" when
// there is no valid one: by it a token is known without being kept.
func (m *Meta) TokenSHA256() string {
	if m == nil || !idenfy.IsToken(m.AuthToken) {
		return ""
	}
	return TokenSum(m.AuthToken)
}

// TokenSum returns the SHA-256 of a token, in lower-case hex, valid or not.
func TokenSum(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// documentTypes tells for each of the API's document types which images have
// to be there (iDenfy's documentation of Direct Processing).
var documentTypes = map[string][]string{
	"ID_CARD":          {"FRONT", "BACK", "FACE"},
	"PASSPORT":         {"FRONT", "FACE"},
	"DRIVER_LICENSE":   {"FRONT", "BACK", "FACE"},
	"RESIDENCE_PERMIT": {"FRONT", "BACK", "FACE"},
}

// steps returns the images to send. found tells whether a file is there whose
// name says that it is one.
func (m *Meta) steps(found func(step string) bool) []string {
	var steps []string
	for _, step := range stepNames {
		want := slices.Contains(documentTypes[m.DocumentType], step) || m.SHA256.get(step) != "" || found(step)
		if m.Images != nil {
			want = m.Images.get(step) != ""
		}
		if want {
			steps = append(steps, step)
		}
	}
	return steps
}

var hashForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Parse reads meta.yaml, and returns which keys the defaults have filled in, and
// all that is wrong, in the order of the lines. Values are never part of a message
// where they may be secret.
func Parse(data []byte, d Defaults) (m *Meta, filled []string, wrong []Reason) {
	m = &Meta{}
	lines, faults := strictyaml.Decode(data, m)
	c := checker{lines: lines}
	faulty := map[string]bool{}
	for _, f := range faults {
		faulty[f.Key] = true
		c.reasons = append(c.reasons, Reason{Code: f.Code, Field: f.Key, line: f.Line, Message: Name + ": " + f.Error()})
		if f.Key == "" {
			return m, nil, c.reasons // the rest would only be consequences
		}
	}
	c.defaults(m, d)
	check := func(key, value string, do func()) {
		switch {
		case faulty[key]:
		case value == "":
			c.add("missing_key", key, "%s is missing", key)
		default:
			do()
		}
	}
	c.session(m, faulty)
	check("country", m.Country, func() {
		m.Country = strings.ToUpper(m.Country)
		if wrong := wrongCountry(m.Country); wrong != "" {
			c.add("bad_value", "country", "country %s", wrong)
		}
	})
	check("documentType", m.DocumentType, func() {
		if documentTypes[m.DocumentType] == nil {
			c.add("bad_value", "documentType", "documentType %s", wrongDocumentType)
		}
	})
	c.images(m)
	c.hashes(m)
	slices.SortStableFunc(c.reasons, func(a, b Reason) int { return cmp.Compare(a.line, b.line) })
	return m, c.filled, c.reasons
}

type checker struct {
	lines   strictyaml.Lines
	reasons []Reason
	filled  []string // keys that the defaults have filled in
}

func (c *checker) add(code, key, format string, args ...any) {
	fault := strictyaml.Fault{Line: c.lines[key], Message: fmt.Sprintf(format, args...)}
	c.reasons = append(c.reasons, Reason{Code: code, Field: key, line: fault.Line, Message: Name + ": " + fault.Error()})
}

// empty tells a key that stands there without its value, and that nothing else
// is wrong with.
func (c *checker) empty(key, value string) bool {
	return value == "" && c.lines[key] > 0 && !slices.ContainsFunc(c.reasons, func(r Reason) bool { return r.Field == key })
}

func (c *checker) images(m *Meta) {
	if m.Images == nil {
		return
	}
	for _, s := range stepNames {
		if c.empty("images."+s, m.Images.get(s)) {
			c.add("bad_value", "images."+s, "images.%s names no file; name it, or leave the line out if %s is not to be sent", s, s)
		}
	}
	if *m.Images == (Steps{}) {
		if !slices.ContainsFunc(c.reasons, func(r Reason) bool { return strings.HasPrefix(r.Field, "images") }) {
			c.add("bad_value", "images", "images names no file; leave it out to have FRONT.*, BACK.* and FACE.* found by name")
		}
		return
	}
	step := map[string]string{}
	for _, s := range stepNames {
		file := m.Images.get(s)
		if file == "" {
			continue
		}
		key := "images." + s
		if wrong := badFileName(file); wrong != "" {
			c.add("bad_file_name", key, "%s has to be a plain file name in the same folder, and it %s", key, wrong)
		} else if other := step[file]; other != "" {
			c.add("bad_value", key, "%s names the same file as images.%s", key, other)
		}
		step[file] = s
	}
}

func (c *checker) hashes(m *Meta) {
	if m.SHA256 == nil {
		return
	}
	for _, h := range []struct {
		step string
		hash *string
	}{{"FRONT", &m.SHA256.Front}, {"BACK", &m.SHA256.Back}, {"FACE", &m.SHA256.Face}} {
		key := "sha256." + h.step
		if c.empty(key, *h.hash) {
			c.add("bad_value", key, "%s is empty; give the hash, or leave the line out", key)
		}
		if *h.hash == "" {
			continue
		}
		*h.hash = strings.ToLower(*h.hash)
		if !hashForm.MatchString(*h.hash) {
			c.add("bad_value", key, "%s has to be 64 hexadecimal digits, as sha256sum prints", key)
			*h.hash = "" // nothing can match it
		}
		if m.Images != nil && m.Images.get(h.step) == "" {
			c.add("bad_value", key, "%s is of an image that images does not name", key)
		}
	}
}

// Read returns the meta.yaml in dir, with the defaults in it. Only its authToken,
// or its clientId, is sure to be valid.
func Read(dir *os.Root, d Defaults) (*Meta, error) {
	data, err := drop.ReadFile(dir, Name, maxSize)
	if missing := errors.Is(err, fs.ErrNotExist); err != nil && (!missing || !d.Optional) {
		return nil, err
	}
	m, _, _ := Parse(data, d)
	if (m.AuthToken == "") == (m.ClientID == "") || m.ClientID == "" && !idenfy.IsToken(m.AuthToken) || m.AuthToken == "" && !clientForm.MatchString(m.ClientID) {
		return nil, errors.New(Name + " has no valid authToken or clientId")
	}
	return m, nil
}
