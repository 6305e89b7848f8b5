package idenfy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
)

// Taken says what a status tells of an unanswered submission.
type Taken int

// What a status tells.
const (
	TakenUnknown Taken = iota // nothing
	NotTaken                  // the token is unused: send again
	WasTaken                  // it is being, or was, processed
	TokenExpired              // the token expired unused
)

// TakenBy reads a session's status as the documentation describes it ("Data
// retrieval").
func TakenBy(status string) Taken {
	switch status {
	case "ACTIVE":
		return NotTaken
	case "APPROVED", "DENIED", "SUSPECTED", "REVIEWING":
		return WasTaken
	case "EXPIRED":
		return TokenExpired
	default:
		return TakenUnknown
	}
}

// Standing is the state of a session.
type Standing struct {
	Word string // the service's own
	Body []byte // of its answer, a JSON object
}

// Status asks for the state of one session, see Look. The text is the service's
// own word.
func (c *Client) Status(ctx context.Context, scanRef string) (Taken, string, error) {
	s, err := c.Look(ctx, scanRef)
	if err != nil {
		return 0, "", err
	}
	return TakenBy(s.Word), s.Word, nil
}

// Look asks for the state of one session. iDenfy forbids regular polling of it;
// it is for single checks.
func (c *Client) Look(ctx context.Context, scanRef string) (Standing, error) {
	req, err := json.Marshal(map[string]string{"scanRef": scanRef})
	if err != nil {
		return Standing{}, err
	}
	x, err := c.do(ctx, statusPath, bytes.NewReader(req), int64(len(req)))
	if err != nil {
		return Standing{}, broken(&x, err)
	}
	var answer struct {
		Status string `json:"status"`
	}
	if x.status == http.StatusOK && x.bodyErr == nil && json.Unmarshal(x.body, &answer) == nil && answer.Status != "" {
		return Standing{Word: clean(answer.Status, 40), Body: x.body}, nil
	}
	if err := classify(&x); err != nil {
		// Not found is the session here, not the service.
		if e := (*Error)(nil); errors.As(err, &e) && x.status == http.StatusNotFound && e.Identifier != "" {
			e.Class = Rejected
		}
		return Standing{}, err
	}
	return Standing{}, &Error{Class: NoAnswer, Status: x.status, Message: "an answer without a status"}
}
