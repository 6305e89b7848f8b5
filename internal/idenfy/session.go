package idenfy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"time"
)

// SessionRequest asks for a session of a person (iDenfy, "Generate token").
type SessionRequest struct {
	ClientID    string            // of the person
	ExternalRef string            // comes back in every webhook; at most 40 characters
	Expiry      time.Duration     // of a session that is not used
	Person      map[string]string // what the document is compared with, by the API's names
}

// Session is one that was opened.
type Session struct {
	Token   string // a secret
	ScanRef string
	Expiry  time.Duration // from when it was asked for, at most what was wanted
	Status  int           // HTTP status
}

// Both are said to have at most 40 characters ("Generate token", and "Direct
// Processing" of the token).
var (
	tokenForm   = regexp.MustCompile(`^[\x21-\x7e]{10,40}$`)
	scanRefForm = regexp.MustCompile(`^[0-9A-Za-z-]{8,40}$`)
)

// IsToken reports whether s has the form of a token.
func IsToken(s string) bool { return tokenForm.MatchString(s) }

// IsScanRef reports whether s has the form of a session's scanRef.
func IsScanRef(s string) bool { return scanRefForm.MatchString(s) }

// OpenSession opens a session. Every other end is an *Error. After ServerError
// and NoAnswer a session may have been opened: nobody has its token, and it
// expires unused. Nothing of an answer with a token is in an error.
func (c *Client) OpenSession(ctx context.Context, r SessionRequest) (Session, error) {
	body := map[string]any{}
	for key, value := range r.Person {
		body[key] = value
	}
	body["clientId"], body["tokenType"], body["externalRef"] = r.ClientID, "IDENTIFICATION", r.ExternalRef
	body["expiryTime"] = int64(r.Expiry / time.Second)
	text, err := json.Marshal(body)
	if err != nil {
		return Session{}, &Error{Class: NotSent, Message: err.Error(), Err: err}
	}
	x, err := c.do(ctx, sessionPath, bytes.NewReader(text), int64(len(text)))
	if err != nil {
		return Session{}, broken(&x, err)
	}
	a, _, _ := x.parse()
	if ok := x.status == http.StatusOK || x.status == http.StatusCreated; ok && x.bodyErr == nil && a.Identifier == "" {
		return opened(&x, r.Expiry)
	}
	err = classify(&x)
	e, ok := errors.AsType[*Error](err)
	switch {
	case !ok: // 200 and nothing
		return Session{}, &Error{Class: NoAnswer, Status: x.status, Message: "an empty answer, without a token"}
	case x.bodyErr != nil || x.status < 300 && e.Class == NoAnswer:
		e.Message = "the answer, which may have a token, was cut off or can't be understood"
	case x.status == http.StatusConflict && e.Class == Rejected:
		e.Class = Busy
	}
	return Session{}, e
}

// opened reads the answer of a session.
func opened(x *exchange, wanted time.Duration) (Session, error) {
	none := &Error{Class: NoAnswer, Status: x.status, Message: "an answer without a token and a scanRef that can be used"}
	if len(x.body) >= maxAnswer {
		none.Message = "an answer that is too large"
		return Session{}, none
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(x.body, &fields) != nil {
		return Session{}, none
	}
	s := Session{Expiry: wanted, Status: x.status}
	var seconds int64
	// Field by field: the echo of a setting in an unexpected type hides nothing.
	_ = json.Unmarshal(fields["authToken"], &s.Token)
	_ = json.Unmarshal(fields["scanRef"], &s.ScanRef)
	_ = json.Unmarshal(fields["expiryTime"], &seconds)
	if !IsToken(s.Token) || !IsScanRef(s.ScanRef) {
		return Session{}, none
	}
	if e := time.Duration(seconds) * time.Second; seconds > 0 && seconds < int64(wanted/time.Second) {
		s.Expiry = e
	}
	return s, nil
}
