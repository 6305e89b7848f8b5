package idenfy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
)

// Delete has iDenfy delete a session, with all that it has of the person there.
// Nil: it says that it did. While the session lives it is refused. After
// ServerError and NoAnswer it may have been deleted.
func (c *Client) Delete(ctx context.Context, scanRef string) error {
	req, err := json.Marshal(map[string]string{"scanRef": scanRef})
	if err != nil {
		return &Error{Class: NotSent, Message: err.Error(), Err: err}
	}
	x, err := c.do(ctx, deletePath, bytes.NewReader(req), int64(len(req)))
	if err != nil {
		return broken(&x, err)
	}
	err = classify(&x)
	// Not found is the session here, not the service.
	if e := (*Error)(nil); errors.As(err, &e) && x.status == http.StatusNotFound && e.Identifier != "" {
		e.Class = Rejected
	}
	return err
}
