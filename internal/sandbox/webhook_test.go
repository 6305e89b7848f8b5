package sandbox_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"idenfy-batch/internal/sandbox"
)

// A webhook that is sent again is the same, byte for byte, also in another
// second: its body tells the time.
func TestWebhookTwice(t *testing.T) {
	a := start(t, sandbox.Options{})
	bodies := make(chan []byte, 3)
	n := 0
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if n++; n == 1 { // as a receiver that can't take it now
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		var said struct{ FinishTime int64 }
		if err := json.Unmarshal(body, &said); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Until(time.Unix(said.FinishTime+1, 0))) // the next one is made in another second
		bodies <- body
	}))
	t.Cleanup(receiver.Close)
	a.Issue(token, sandbox.NewScanRef())
	a.Webhook(sandbox.Webhooks{URL: receiver.URL, Key: "key", Every: time.Millisecond, Script: func(string) []sandbox.Hook {
		return []sandbox.Hook{{Overall: "DENIED", Final: true, Copies: 1}}
	}})
	if status, answer := a.call("/api/v2/process", body(nil)); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	first := <-bodies
	for range 2 {
		if again := <-bodies; !bytes.Equal(first, again) {
			t.Errorf("%s, and then %s", first, again)
		}
	}
}
