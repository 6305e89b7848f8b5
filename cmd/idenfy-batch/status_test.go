package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/telemetry"
)

// What the daemon says of a stuck folder stands at that folder, in both forms;
// no other takes it for its own.
func TestStatusOfStuck(t *testing.T) {
	s := spoolStatus{
		Daemon: &telemetry.State{Stuck: telemetry.Stuck{Folders: 2, Newest: []telemetry.StuckFolder{
			{Place: spool.Inbox, Folder: "case-7", ID: "1", Reason: "it can't be taken", Mend: "chattr -i"},
			{Place: spool.Work, Folder: "case-8", ID: "2", Reason: "it can't be worked on", Mend: "see to \x1b[31m"},
		}}},
		Waiting: []waitStatus{{Inbox: "inbox", Folder: "case-7", Complete: true}, {Inbox: "inbox", Folder: "case-8", Complete: true}, {Inbox: "branch-1", Folder: "case-7", Complete: true}},
		Work:    []openStatus{{Folder: "case-8", id: "2"}, {Folder: "case-7", id: "3"}},
	}
	s.markStuck()
	if w := s.Waiting; w[0].Stuck == nil || w[0].Complete || w[1].Stuck != nil || !w[1].Complete || w[2].Stuck != nil || !w[2].Complete {
		t.Errorf("inbox: %+v", w)
	}
	if s.Work[0].Stuck == nil || s.Work[1].Stuck != nil {
		t.Errorf("work: %+v", s.Work)
	}
	var text bytes.Buffer
	s.print(&text, &config.Config{}, false)
	for _, want := range []string{"2 folders are stuck", "it can't be taken", "to mend it: chattr -i", "it can't be worked on", `see to \x1b[31m`} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in:\n%s", want, text.String())
		}
	}
	out, err := json.Marshal(s)
	if err != nil || !strings.Contains(string(out), `"stuck":{"place":"inbox","folder":"case-7"`) {
		t.Errorf("%s, %v", out, err)
	}
}

// What is said of a reload is true: what the service asked for it doesn't shorten.
func TestStatusOfGates(t *testing.T) {
	now := time.Now()
	for want, g := range map[string]telemetry.Gate{
		"(3 tries so far); idenfy-batch reload has it try at once\n":            {Next: now.Add(time.Minute)},
		"; iDenfy asked for that, and idenfy-batch reload doesn't shorten it\n": {Next: now.Add(time.Minute), Asked: now.Add(time.Minute)},
		"; idenfy-batch reload has it try at " + now.Add(30*time.Second).Format(time.DateTime) + ", before which iDenfy asked for no request\n": {
			Next: now.Add(time.Minute), Asked: now.Add(30 * time.Second),
		},
	} {
		g.Owner, g.Reason, g.Mend, g.Since, g.Tries = events.Account, "why", "mend", now, 3
		var out strings.Builder
		(&spoolStatus{Daemon: &telemetry.State{Gates: []telemetry.Gate{g}}}).print(&out, &config.Config{}, false)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s does not say %q", out.String(), want)
		}
	}
}
