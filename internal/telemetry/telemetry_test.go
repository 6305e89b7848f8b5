package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/telemetry"
	"idenfy-batch/sidecar"
)

// Each event is one line with fixed fields, and what is secret or personal in
// a result is in none of them.
func TestLines(t *testing.T) {
	var out bytes.Buffer
	log := telemetry.NewLog(&out, "debug", "json")
	private := "PRIVATE"
	res := &sidecar.Result{
		ID: "ID", Folder: "case-7", Outcome: sidecar.Rejected,
		Reasons:    []sidecar.Reason{{Code: "BAD_VALUE", Message: private, Field: private}},
		Request:    sidecar.Request{TokenHint: private, Images: []sidecar.Image{{File: private}}},
		Attempts:   []sidecar.Attempt{{N: 1, State: sidecar.Answered, HTTPStatus: 400, Identifier: "BAD_VALUE", Message: private, DurationMS: 12}},
		ExtraFiles: []string{private}, Uploader: sidecar.Uploader{User: private},
	}
	for _, step := range []struct {
		e    events.Event
		want map[string]any
	}{
		{events.Claimed{Folder: "case-7", ID: "ID"}, map[string]any{"folder": "case-7", "id": "ID"}},
		{events.Attempted{Folder: "case-7", ID: "ID", Attempt: res.Attempts[0]}, map[string]any{"attempt": 1.0, "http_status": 400.0, "identifier": "BAD_VALUE", "duration_ms": 12.0}},
		{events.Ended{Result: res, Place: spool.Failed, Name: "case-7.2"}, map[string]any{"outcome": "rejected", "place": "failed/case-7.2", "level": "warning"}},
		{events.Released{Folder: "a\nb", ID: "ID", Why: "why"}, map[string]any{"folder": `"a\nb"`, "why": "why"}},
		{events.Vanished{Folder: "x", ID: "ID"}, map[string]any{"folder": "x", "level": "warning"}},
		{events.FolderStuck{Place: spool.Inbox, Folder: "x", ID: "ID", Reason: "no", Mend: "chattr"}, map[string]any{"folder": "x", "place": "inbox", "reason": "no", "mend": "chattr", "level": "warning"}},
		{events.FolderFreed{Place: spool.Work, Folder: "x", ID: "ID"}, map[string]any{"folder": "x", "id": "ID", "place": "work", "level": "info"}},
		{events.ClaimFailed{Folder: "x", Err: errors.New("no")}, map[string]any{"error": "no", "level": "warning"}},
		{events.FolderWaits{Folder: "x", Age: time.Hour, Reasons: []meta.Reason{{Code: "truncated", Message: private}}}, map[string]any{"age": "1h0m0s"}},
		{events.Recovered{Folders: 2}, map[string]any{"folders": 2.0}},
		{events.GateShut{Owner: events.Account, Reason: "refused", Mend: "see to the key", Wait: time.Second, Tries: 2}, map[string]any{"owner": "account", "reason": "refused", "mend": "see to the key", "next_try": "1s", "tries": 2.0, "level": "error"}},
		{events.GateShut{Owner: events.Disk, Reason: "full"}, map[string]any{"owner": "disk", "reason": "full", "level": "error"}},
		{events.GateOpened{Owner: events.Disk}, map[string]any{"owner": "disk", "level": "info"}},
		{events.WatchModeChanged{Mode: events.Partial, Err: errors.New("no watch")}, map[string]any{"mode": "partial", "error": "no watch", "level": "warning"}},
		{events.WatchModeChanged{Mode: events.ByEvents}, map[string]any{"mode": "events", "level": "info"}},
		{events.Overflowed{Err: errors.New("overflow")}, map[string]any{"error": "overflow"}},
		{events.InboxTrouble{Err: errors.New("gone")}, map[string]any{"level": "error"}},
		{events.InboxTrouble{}, map[string]any{"level": "info"}},
		{events.Started{Version: "1", Root: "/r", Endpoint: "e"}, map[string]any{"version": "1", "root": "/r", "endpoint": "e"}},
		{events.Stopping{Grace: time.Minute}, map[string]any{"grace": "1m0s"}},
		{events.Stopped{InWork: 3}, map[string]any{"in_work": 3.0}},
		{events.Reloaded{Note: "note"}, map[string]any{"note": "note", "level": "info"}},
		{events.ReloadRefused{Err: errors.New("bad")}, map[string]any{"error": "bad", "level": "error"}},
		{events.Decided{Folder: "x", ID: "ID", Action: sidecar.Requeued, Forced: true, Place: spool.Inbox, Name: "x.2"}, map[string]any{"action": "requeued", "forced": true, "place": "inbox/x.2"}},
		{events.Decided{Folder: "x", Action: sidecar.Requeued, Err: errors.New("no")}, map[string]any{"error": "no"}},
		{events.Adopted{Folders: 5, Total: 9}, map[string]any{"folders": 5.0, "total": 9.0}},
		{events.Adopted{Folders: 9, Total: 9, Done: true, Ledger: true}, map[string]any{"msg": "entering into the ledger what ended before there was one", "total": 9.0}},
		{events.Asked{N: 2, Fault: "rejected", HTTPStatus: 400, Identifier: "BAD_VALUE"}, map[string]any{"request": 2.0, "fault": "rejected", "http_status": 400.0, "identifier": "BAD_VALUE", "level": "warning"}},
		{events.Asked{N: 1, Fault: "not sent"}, map[string]any{"request": 1.0, "fault": "not sent", "http_status": nil, "identifier": nil}},
		{events.Asked{N: 1}, map[string]any{"request": 1.0, "fault": nil, "level": "debug"}},
		{events.Trouble{What: "it could not be done", Err: errors.New("no")}, map[string]any{"msg": "it could not be done", "error": "no", "level": "warning"}},
	} {
		out.Reset()
		log.Take(step.e)
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
}

// Level and format change while lines are written.
func TestLogSet(t *testing.T) {
	var out bytes.Buffer
	log := telemetry.NewLog(&out, "error", "json")
	log.Take(events.GateOpened{Owner: events.Account})
	if out.Len() > 0 {
		t.Errorf("below its level: %s", out.String())
	}
	log.Set("info", "text")
	log.Take(events.GateOpened{Owner: events.Account})
	if !strings.Contains(out.String(), `msg="submission goes on"`) {
		t.Errorf("no text: %s", out.String())
	}
}

// The state has each gate that is shut, once.
func TestState(t *testing.T) {
	k := telemetry.NewKeeper()
	since := time.Now().Add(-time.Hour)
	shut := func(o events.Owner, reason string) events.GateShut {
		return events.GateShut{Owner: o, Reason: reason, Mend: "mend", Since: since, Wait: time.Minute, Tries: 3}
	}
	for _, e := range []events.Event{
		shut(events.Account, "first"), shut(events.Disk, "full"), shut(events.Account, "second"),
		events.WatchModeChanged{Inbox: "inbox", Mode: events.Partial, Err: errors.New("why")},
		events.WatchModeChanged{Inbox: "branch-1", Mode: events.ByEvents},
		events.Rescanned{Inbox: "branch-1", Folders: 7},
	} {
		k.Take(e)
	}
	s := k.State()
	if len(s.Gates) != 2 || s.Gates[0].Reason != "full" || s.Gates[1].Reason != "second" || !s.Gates[1].Since.Equal(since) || s.Gates[1].Tries != 3 || time.Until(s.Gates[1].Next) < 50*time.Second {
		t.Errorf("%+v", s.Gates)
	}
	if in := s.Inboxes; len(in) != 2 || in[0].Name != "branch-1" || in[0].Mode != "events" || in[0].Folders != 7 ||
		in[1].Name != "inbox" || in[1].Mode != "partial" || in[1].ModeReason != "why" || s.PID == 0 {
		t.Errorf("%+v", s)
	}
	k.Take(events.InboxLeft{Inbox: "branch-1"})
	if now := k.State(); len(now.Inboxes) != 1 || now.Inboxes[0].Name != "inbox" || s.Inboxes[0].Name != "branch-1" {
		t.Errorf("left: %+v; before: %+v", now.Inboxes, s.Inboxes)
	}
	k.Take(events.GateOpened{Owner: events.Disk})
	if now := k.State(); len(now.Gates) != 1 || now.Gates[0].Owner != events.Account || len(s.Gates) != 2 {
		t.Errorf("opened: %+v; before: %+v", now.Gates, s.Gates)
	}
}

// An inbox from which nothing can be taken is told of until it is in order, by
// its name.
func TestInboxTrouble(t *testing.T) {
	m, k := telemetry.NewMetrics("1.0"), telemetry.NewKeeper()
	take := events.Fan(m.Take, k.Take)
	look := func() (code int, body, metrics string) {
		w := httptest.NewRecorder()
		k.Health().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
		v := httptest.NewRecorder()
		m.Handler().ServeHTTP(v, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return w.Code, w.Body.String(), v.Body.String()
	}
	take(events.WatchModeChanged{Inbox: "branch-2", Mode: events.ByEvents})
	var since time.Time
	for i, step := range []struct {
		err  error
		code int
		says string
	}{
		{nil, http.StatusOK, `{"name":"branch-1","folders":0,"watch_mode":"","trouble":null}`},
		{errors.New("chmod it"), http.StatusServiceUnavailable, `"trouble":{"reason":"chmod it","since":"`},
		{errors.New("mount it"), http.StatusServiceUnavailable, `"trouble":{"reason":"mount it","since":"`},
		{nil, http.StatusOK, `{"name":"branch-1","folders":0,"watch_mode":"","trouble":null}`},
	} {
		take(events.InboxTrouble{Inbox: "branch-1", Err: step.err})
		code, body, metrics := look()
		value := "0"
		if step.err != nil {
			value = "1"
		}
		if code != step.code || !strings.Contains(body, step.says) || !strings.Contains(body, `{"name":"branch-2","folders":0,"watch_mode":"events","trouble":null}`) {
			t.Errorf("step %d: %d, %s", i, code, body)
		}
		if !strings.Contains(metrics, "\nidenfy_batch_inbox_trouble{inbox=\"branch-1\"} "+value+"\n") || !strings.Contains(metrics, "\nidenfy_batch_inbox_trouble{inbox=\"branch-2\"} 0\n") {
			t.Errorf("step %d: %s", i, metrics)
		}
		if now := k.State().Inboxes[0].Trouble; now != nil {
			if !since.IsZero() && !now.Since.Equal(since) {
				t.Errorf("step %d: it began at %s, and before at %s", i, now.Since, since)
			}
			since = now.Since
		}
		if strings.Contains(k.Summary(), "NOTHING CAN BE TAKEN FROM INBOX BRANCH-1") != (step.err != nil) {
			t.Errorf("step %d: %s", i, k.Summary())
		}
	}
	take(events.InboxTrouble{Inbox: "branch-1", Err: errors.New("gone")})
	take(events.InboxLeft{Inbox: "branch-1"})
	if code, body, metrics := look(); code != http.StatusOK || strings.Contains(body, "branch-1") || strings.Contains(metrics, `inbox_trouble{inbox="branch-1"}`) {
		t.Errorf("of one that is not watched any more: %d, %s", code, body)
	}
}

// All that are stuck are counted, and the newest are told of; what was given
// out before stays as it was.
func TestStuck(t *testing.T) {
	m, k := telemetry.NewMetrics("1.0"), telemetry.NewKeeper()
	take := events.Fan(m.Take, k.Take)
	const n = 250
	for i := range n {
		take(events.FolderStuck{Place: spool.Inbox, Folder: fmt.Sprint("case\n", i), ID: fmt.Sprint(i), Reason: "reason", Mend: "mend", Since: time.Now()})
	}
	s := k.State().Stuck
	if s.Folders != n || len(s.Newest) != 200 || s.Newest[199].Folder != `"case\n249"` || s.Newest[199].Mend != "mend" {
		t.Errorf("%d, %d newest, %+v", s.Folders, len(s.Newest), s.Newest[len(s.Newest)-1])
	}
	take(events.FolderFreed{Place: spool.Work, Folder: "case\n249", ID: "another"})
	take(events.FolderStuck{Place: spool.Work, Folder: "y", ID: "y"})
	take(events.FolderFreed{Place: spool.Inbox, Folder: "case\n249", ID: "249"})
	take(events.FolderFreed{Place: spool.Inbox, Folder: "case\n0", ID: "0"})
	now := k.State().Stuck
	if now.Folders != n-2 || len(now.Newest) != 199 || s.Newest[199].Folder != `"case\n249"` {
		t.Errorf("%d, %d newest", now.Folders, len(now.Newest))
	}
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if !strings.Contains(w.Body.String(), `idenfy_batch_folders_stuck{inbox="inbox",place="inbox"} 248`) {
		t.Error("the gauge is wrong")
	}
	w = httptest.NewRecorder()
	k.Health().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusOK || strings.Contains(w.Body.String(), "case") || !strings.Contains(w.Body.String(), `"stuck":{"folders":248}`) {
		t.Errorf("healthz: %d %s", w.Code, w.Body.String())
	}
}

func TestHandler(t *testing.T) {
	m, k := telemetry.NewMetrics("1.0"), telemetry.NewKeeper()
	take := events.Fan(m.Take, k.Take)
	take(events.Ended{Result: &sidecar.Result{Outcome: sidecar.Accepted}, Place: spool.Done, Name: "x"})
	take(events.Rescanned{Inbox: "inbox", Folders: 2, Oldest: time.Minute, Took: time.Millisecond})
	take(events.Rescanned{Inbox: "branch-1", Folders: 1, Oldest: time.Hour, Took: time.Millisecond})
	take(events.Counted{Folders: map[spool.Place]int{spool.Hold: 2, spool.Done: 7}})
	take(events.GateShut{Owner: events.Account, Reason: "key"})
	take(events.GateOpened{Owner: events.Account})
	take(events.GateShut{Owner: events.Disk, Reason: "the disk is full", Wait: time.Second})
	get := func(h http.Handler) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		return w.Code, w.Body.String()
	}
	code, text := get(m.Handler())
	for _, want := range []string{
		`idenfy_batch_folders_ended_total{outcome="accepted"} 1`, `idenfy_batch_folders_ended_total{outcome="unknown"} 0`,
		`idenfy_batch_folders{inbox="inbox",place="inbox"} 2`, `idenfy_batch_inbox_oldest_seconds{inbox="inbox"} 60`, `idenfy_batch_rescans_total{inbox="inbox"} 1`,
		`idenfy_batch_folders{inbox="branch-1",place="inbox"} 1`, `idenfy_batch_inbox_oldest_seconds{inbox="branch-1"} 3600`, `idenfy_batch_rescans_total{inbox="branch-1"} 1`,
		`idenfy_batch_paused{owner="disk"} 1`, `idenfy_batch_paused{owner="account"} 0`,
		`idenfy_batch_folders{inbox="",place="hold"} 2`, `idenfy_batch_folders{inbox="",place="done"} 7`, `idenfy_batch_build_info{version="1.0"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not among the metrics", want)
		}
	}
	if code != http.StatusOK {
		t.Errorf("metrics: %d", code)
	}
	if s := k.Summary(); s != "PAUSED (the disk is full); 3 in the inbox, 0 being submitted, 0 waiting for another try; since the start 1 accepted, 0 failed, 0 held" {
		t.Error(s)
	}
	if code, text := get(k.Health()); code != http.StatusServiceUnavailable || !strings.Contains(text, `"reason":"the disk is full"`) {
		t.Errorf("healthz: %d %s", code, text)
	}
	take(events.GateOpened{Owner: events.Disk})
	if code, text := get(k.Health()); code != http.StatusOK || !strings.Contains(text, `"gates":[]`) {
		t.Errorf("healthz: %d %s", code, text)
	}
}
