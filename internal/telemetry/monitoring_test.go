package telemetry_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/telemetry"
	"idenfy-batch/sidecar"
)

// Every metric in the alert rules and in the dashboard exists, and each one
// that exists is shown in the dashboard.
func TestMonitoring(t *testing.T) {
	m := telemetry.NewMetrics("1.0")
	for _, e := range []events.Event{
		events.Rescanned{Folders: 1, Oldest: time.Minute, Took: time.Second},
		events.GateShut{Owner: events.Disk, Reason: "x", Wait: time.Second},
		events.WatchModeChanged{Inbox: "inbox", Mode: events.ByEvents},
		events.Attempted{Folder: "x", ID: "y", Attempt: sidecar.Attempt{State: sidecar.Answered}},
		events.Ended{Result: &sidecar.Result{Outcome: sidecar.Accepted}, Place: spool.Done, Name: "x"},
		events.Overflowed{Err: errors.New("x")},
		events.VerdictCame{Folder: "x", ID: "y", Overall: "APPROVED", Final: true, First: true, By: sidecar.ByWebhook, After: time.Minute},
		events.VerdictsCounted{Waiting: 1, Final: map[string]int{"APPROVED": 1}},
		events.Receipts{Inbox: "branch-1", Written: 1, Owed: 1},
		events.ReceiptTrouble{Inbox: "branch-1", Err: errors.New("x")},
		events.Ignored{Inbox: "branch-1", More: 1},
	} {
		m.Take(e)
	}
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	exists := map[string]bool{}
	for line := range strings.Lines(w.Body.String()) {
		if name := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" {\n", r) }); line[0] != '#' {
			exists[name[0]] = true
		}
	}
	name := regexp.MustCompile(`\b(idenfy_batch|process|go)_\w+`)
	shown := map[string]bool{}
	for _, path := range []string{"alerts.yaml", "dashboard.json"} {
		data, err := os.ReadFile("../../docs/monitoring/" + path)
		if err != nil {
			t.Fatal(err)
		}
		if path == "dashboard.json" && !json.Valid(data) {
			t.Error("dashboard.json is no JSON")
		}
		for _, m := range name.FindAllString(string(data), -1) {
			if !exists[m] {
				t.Errorf("%s: there is no metric %s", path, m)
			}
			shown[m] = true
		}
	}
	for m := range exists {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(m, "_bucket"), "_sum"), "_count")
		if strings.HasPrefix(m, "idenfy_batch_") && !shown[m] && !shown[base+"_bucket"] && !shown[base+"_sum"] {
			t.Errorf("%s is neither in the dashboard nor in an alert", m)
		}
	}
}
