package idenfy_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/sandbox"
)

var person = idenfy.SessionRequest{ClientID: "client-7", ExternalRef: "ABCDEFGHIJKLMNOPQRSTUVWXYZ", Expiry: time.Hour, Person: map[string]string{"firstName": "Jonas"}}

func TestOpenSession(t *testing.T) {
	s, c := api(t)
	got, err := c.OpenSession(t.Context(), person)
	if err != nil || got.Expiry != time.Hour || got.Status != 201 {
		t.Fatalf("%v, %v", got.Expiry, err)
	}
	seen := s.Token(got.Token)
	if seen.ClientID != "client-7" || seen.Reference != person.ExternalRef || seen.ScanRef != got.ScanRef {
		t.Errorf("%+v", seen)
	}
	r := passport()
	r.Token = got.Token
	if _, err := c.Process(t.Context(), r); err != nil {
		t.Error(err)
	}
}

// Each answer is told by whose it is, and none of them with a token in it.
func TestOpenSessionAnswers(t *testing.T) {
	const secret = "SECRET-TOKEN-0123456789"
	for name, c := range map[string]struct {
		status int
		body   string
		want   idenfy.Class
	}{
		"active":                  {409, `{"message": "Client has an active session", "identifier": "VALIDATION_ERROR"}`, idenfy.Busy},
		"409 of a proxy":          {409, `<html>`, idenfy.ServiceFault},
		"of the folder":           {400, `{"message": "Bad value", "identifier": "VALIDATION_ERROR"}`, idenfy.Rejected},
		"no credits":              {400, `{"message": "Partner reached token limit.", "identifier": "PERMISSIONS_ERROR"}`, idenfy.ServiceFault},
		"a wrong key":             {401, ``, idenfy.ServiceFault},
		"quota":                   {429, ``, idenfy.ServiceFault},
		"a server error":          {502, `<html>`, idenfy.ServerError},
		"an internal error":       {400, `{"message": "oops", "identifier": "INTERNAL_ERROR"}`, idenfy.ServerError},
		"an error with 200":       {200, `{"message": "no", "identifier": "VALIDATION_ERROR"}`, idenfy.Rejected},
		"nothing":                 {200, ``, idenfy.NoAnswer},
		"no token":                {201, `{"message": "Token created", "scanRef": "328c6766-934e"}`, idenfy.NoAnswer},
		"no scanRef":              {201, `{"message": "` + secret + `", "authToken": "` + secret + `"}`, idenfy.NoAnswer},
		"a token that can't be":   {201, `{"authToken": "a\nb` + secret + `", "scanRef": "328c6766-934e"}`, idenfy.NoAnswer},
		"a reference with a path": {201, `{"authToken": "` + secret + `", "scanRef": "../../etc"}`, idenfy.NoAnswer},
		"another type":            {201, `{"authToken": ["` + secret + `"], "scanRef": 7}`, idenfy.NoAnswer},
		"cut off":                 {201, `{"authToken": "` + secret + `", "sca`, idenfy.NoAnswer},
		"a redirect":              {302, `{"authToken": "` + secret + `"}`, idenfy.ServiceFault},
		"too large":               {201, `{"authToken": "` + secret + `", "scanRef": "328c6766-934e", "x": "` + strings.Repeat("x", 1<<17) + `"}`, idenfy.NoAnswer},
		"just right":              {200, `{"authToken": "` + secret + `", "scanRef": "328c6766-934e", "expiryTime": 60, "digitString": null, "x": []}`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var sent map[string]any
				if err := json.NewDecoder(r.Body).Decode(&sent); err != nil || sent["tokenType"] != "IDENTIFICATION" || sent["expiryTime"] != 3600.0 || sent["firstName"] != "Jonas" {
					t.Errorf("%v, %v", sent, err)
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			defer srv.Close()
			got, err := client(t, idenfy.Options{BaseURL: srv.URL}).OpenSession(t.Context(), person)
			if class(err) != c.want || c.want == 0 && (got.Token != secret || got.Expiry != time.Minute) {
				t.Errorf("%v", err)
			}
			if e, ok := errors.AsType[*idenfy.Error](err); ok && (strings.Contains(e.Error(), secret) || e.Err != nil && strings.Contains(e.Err.Error(), secret) || got.Token != "") {
				t.Errorf("the token is in the error: %v", err)
			}
		})
	}
}

// A service that calls the token otherwise is the account's affair, with its
// mend.
func TestTokenField(t *testing.T) {
	for _, c := range []struct{ sends, takes, wants string }{{"authToken", "token", "token"}, {"token", "authToken", "authToken"}, {"token", "token", ""}, {"", "", ""}} {
		s := sandbox.New(sandbox.Options{TokenField: c.takes})
		url, stop, err := s.Start()
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		_, err = client(t, idenfy.Options{BaseURL: url, TokenField: c.sends}).Process(t.Context(), passport())
		e, failed := errors.AsType[*idenfy.Error](err)
		if failed != (c.wants != "") || failed && (e.WantsField != c.wants || e.Class != idenfy.ServiceFault) {
			t.Errorf("%+v: %+v", c, err)
		}
	}
	// An image that is missing is the folder's, as ever.
	_, c := api(t)
	if _, err := c.Process(t.Context(), request(front)); class(err) != idenfy.Rejected {
		t.Error(err)
	}
}
