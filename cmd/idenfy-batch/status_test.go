package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"idenfy-batch/internal/config"
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
		Waiting: []waitStatus{{Folder: "case-7", Complete: true}, {Folder: "case-8", Complete: true}},
		Work:    []openStatus{{Folder: "case-8", id: "2"}, {Folder: "case-7", id: "3"}},
	}
	s.markStuck()
	if w := s.Waiting; w[0].Stuck == nil || w[0].Complete || w[1].Stuck != nil || !w[1].Complete {
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
