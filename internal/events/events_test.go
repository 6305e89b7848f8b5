package events_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
	"idenfy-batch/watcher"
)

// Each event is one line with fixed fields, and what is secret or personal in
// a result is in none of them.
func TestLines(t *testing.T) {
	var out bytes.Buffer
	log := logrus.New()
	log.SetOutput(&out)
	log.SetLevel(logrus.DebugLevel)
	log.SetFormatter(&logrus.JSONFormatter{})
	var states []events.State
	r := events.New(log, "1.0", func(s events.State) { states = append(states, s) })
	private := "PRIVATE"
	res := &sidecar.Result{
		ID: "ID", Folder: "case-7", Outcome: sidecar.Rejected,
		Reasons:    []sidecar.Reason{{Code: "BAD_VALUE", Message: private, Field: private}},
		Request:    sidecar.Request{TokenHint: private, Images: []sidecar.Image{{File: private}}},
		Attempts:   []sidecar.Attempt{{N: 1, State: sidecar.Answered, HTTPStatus: 400, Identifier: "BAD_VALUE", Message: private, DurationMS: 12}},
		ExtraFiles: []string{private}, Uploader: sidecar.Uploader{User: private},
	}
	for _, step := range []struct {
		do   func()
		want map[string]any
	}{
		{func() { r.Claimed("case-7", "ID") }, map[string]any{"folder": "case-7", "id": "ID"}},
		{func() { r.Attempted("case-7", "ID", res.Attempts[0]) }, map[string]any{"attempt": 1.0, "http_status": 400.0, "identifier": "BAD_VALUE", "duration_ms": 12.0}},
		{func() { r.Ended(res, spool.Failed, "case-7.2") }, map[string]any{"outcome": "rejected", "place": "failed/case-7.2", "level": "warning"}},
		{func() { r.Released("a\nb", "ID", "why") }, map[string]any{"folder": `"a\nb"`, "why": "why"}},
		{func() { r.ClaimFailed("x", errors.New("no")) }, map[string]any{"error": "no", "level": "warning"}},
		{func() { r.FolderWaits("x", time.Hour, []meta.Reason{{Code: "truncated", Message: private}}) }, map[string]any{"age": "1h0m0s"}},
		{func() { r.Paused(false, "service fault", time.Second) }, map[string]any{"reason": "service fault", "level": "error"}},
		{func() { r.Resumed() }, map[string]any{"level": "info"}},
		{func() { r.WatchMode(watcher.Partial, errors.New("no watch")) }, map[string]any{"mode": "partial", "error": "no watch", "level": "warning"}},
		{func() { r.WatchMode(watcher.ByEvents, nil) }, map[string]any{"mode": "events", "level": "info"}},
		{func() { r.EventsLost(errors.New("overflow")) }, map[string]any{"error": "overflow"}},
		{func() { r.InboxTrouble(errors.New("gone")) }, map[string]any{"level": "error"}},
		{func() { r.InboxTrouble(nil) }, map[string]any{"level": "info"}},
	} {
		out.Reset()
		step.do()
		var line map[string]any
		if err := json.Unmarshal(out.Bytes(), &line); err != nil {
			t.Fatalf("not one line: %q", out.String())
		}
		for k, v := range step.want {
			if line[k] != v {
				t.Errorf("%s is %v, want %v, in %s", k, line[k], v, out.String())
			}
		}
		if strings.Contains(out.String(), private) {
			t.Errorf("something private stands in %s", out.String())
		}
	}
	if len(states) != 4 || states[0].Paused == "" || states[1].Paused != "" || states[2].Mode != "partial" {
		t.Errorf("states: %+v", states)
	}
}

func TestHandler(t *testing.T) {
	log := logrus.New()
	log.SetOutput(&bytes.Buffer{})
	r := events.New(log, "1.0", nil)
	r.Ended(&sidecar.Result{Outcome: sidecar.Accepted}, spool.Done, "x")
	r.Rescanned(3, time.Minute, time.Millisecond)
	r.Paused(true, "the spool: disk", time.Second)
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		r.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	code, text := get("/metrics")
	for _, want := range []string{
		`idenfy_batch_folders_ended_total{outcome="accepted"} 1`, `idenfy_batch_folders_ended_total{outcome="unknown"} 0`,
		`idenfy_batch_folders{place="inbox"} 3`, "idenfy_batch_inbox_oldest_seconds 60", "idenfy_batch_rescans_total 1",
		`idenfy_batch_paused{reason="spool"} 1`, `idenfy_batch_build_info{version="1.0"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not among the metrics", want)
		}
	}
	if code != http.StatusOK {
		t.Errorf("metrics: %d", code)
	}
	if s := r.Summary(); s != "PAUSED (the spool: disk); 3 in the inbox, 0 being submitted, 0 waiting for another try; since the start 1 accepted, 0 failed, 0 held" {
		t.Error(s)
	}
	if code, text := get("/healthz"); code != http.StatusOK || !strings.Contains(text, `"paused":"the spool: disk"`) {
		t.Errorf("healthz: %d %s", code, text)
	}
}
