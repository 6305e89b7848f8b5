package retention_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/adopt"
	"idenfy-batch/internal/decision"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/record"
	"idenfy-batch/internal/retention"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/verdict"
	"idenfy-batch/sidecar"
)

func (a *archive) decide(name string, action sidecar.Action, force bool) (spool.Place, error) {
	desk := decision.Desk{Paths: a.paths, Journal: a.j, InWork: a.paths.Has}
	to, _, err := desk.Make(a.t.Context(), name, decision.Decision{Action: action, By: *clerk, Force: force})
	return to, err
}

// A purged folder is not sent again, by force neither; a held one can still be
// said how it ended, and keeps its record.
func TestDecideAboutPurged(t *testing.T) {
	a := newArchive(t)
	a.fold(spool.Failed, "failed")
	a.fold(spool.Hold, "held")
	a.pass(retention.Ask{Rules: retention.Rules{Failed: over, Hold: over}, Yes: true})
	for _, force := range []bool{false, true} {
		for name, action := range map[string]sidecar.Action{"failed": sidecar.Requeued, "held": sidecar.Resubmit} {
			_, err := a.decide(name, action, force)
			if _, refused := errors.AsType[*decision.RefusedError](err); !refused || !strings.Contains(err.Error(), "were deleted on") {
				t.Errorf("%s %s, force %v: %v", action, name, force, err)
			}
		}
	}
	if to, err := a.decide("held", sidecar.Denied, false); err != nil || to != spool.Failed {
		t.Fatalf("resolved: %v, %v", to, err)
	}
	must(t, a.j.SetAdopted())
	if r := a.result(spool.Failed, "held"); len(r.Purges) != 1 || len(r.Decisions) != 1 {
		t.Errorf("the result has %d purges, %d decisions", len(r.Purges), len(r.Decisions))
	}
	if found := a.verify(); len(found) > 0 {
		t.Errorf("verify: %v", found)
	}
	// One whose webhook bodies alone were deleted can be sent again.
	a.fold(spool.Failed, "whole")
	must(t, os.WriteFile(a.path(spool.Failed, "whole", sidecar.VerdictName), []byte(`{"schema": "idenfy-batch/verdict/v1", "events": [{"body": "`+body+`"}]}`), 0o600))
	must(t, os.WriteFile(a.path(spool.Failed, "whole", body), nil, 0o600))
	if r := a.pass(retention.Ask{Rules: retention.Rules{Verdicts: over}, Yes: true}); r.Total().Files != 1 {
		t.Errorf("%+v", r)
	}
	if to, err := a.decide("whole", sidecar.Requeued, false); err != nil || to != spool.Inbox {
		t.Errorf("requeued: %v, %v", to, err)
	}
}

// A folder that is decided about and purged, by many at once, is one or the
// other, whole.
func TestDecideMeanwhile(t *testing.T) {
	for range 20 {
		a := newArchive(t)
		a.fold(spool.Failed, "case")
		done := make(chan error, 2)
		go func() { _, err := a.decide("case", sidecar.Requeued, false); done <- err }()
		go func() {
			_, err := a.k.Pass(t.Context(), retention.Ask{Rules: retention.Rules{Failed: over}, Yes: true})
			done <- err
		}()
		for range 2 {
			err := <-done
			if _, refused := errors.AsType[*decision.RefusedError](err); err != nil && !refused {
				t.Error(err)
			}
		}
		place := spool.Failed
		if _, err := os.Lstat(a.path(spool.Inbox, "case")); err == nil {
			place = spool.Inbox
		}
		gone, entries := a.missing(place, "case"), len(a.entries(a.ids["case"], ledger.Purged))
		if whole := place == spool.Inbox || entries == 0; whole && len(gone) > 0 || !whole && len(gone) != len(uploaded) {
			t.Errorf("in %s, with %d entries, gone are %v", place, entries, gone)
		}
	}
}

// A verdict that comes for a purged folder is written into it.
func TestVerdictAfterPurge(t *testing.T) {
	a := newArchive(t)
	a.fold(spool.Done, "case", func(l *journal.Life) {
		l.ScanRef, l.Token = ref, sum("token")
		l.Result.Session = &sidecar.Session{ScanRef: ref, By: sidecar.ByProducer}
	})
	a.pass(retention.Ask{Rules: retention.Rules{Done: over}, Yes: true})
	_, err := a.j.Hear(journal.Event{ScanRef: ref, Said: sidecar.VerdictEvent{SHA256: sum("said"), Received: sidecar.Now(), By: sidecar.ByWebhook, Said: sidecar.Said{Overall: "APPROVED", Final: true}}})
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	clerk := verdict.NewClerk(a.j, a.paths, func(events.Event) {})
	ended := make(chan struct{})
	go func() { clerk.Run(ctx); close(ended) }()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Lstat(a.path(spool.Done, "case", sidecar.VerdictName)); err == nil || time.Now().After(end) {
			break
		}
	}
	stop()
	<-ended
	if is := a.files(spool.Done, "case"); len(is) != 2 {
		t.Errorf("in the folder are %v", is)
	}
	must(t, a.j.SetAdopted())
	if found := a.verify(); len(found) > 0 {
		t.Errorf("verify: %v", found)
	}
}

// A purged folder that is moved to the inbox by hand, and filed again without
// anything in it, is known; and what it came to is evidence.
func TestPurgedComesAgain(t *testing.T) {
	a := newArchive(t)
	first := a.fold(spool.Failed, "case")
	a.pass(retention.Ask{Rules: retention.Rules{Failed: over}, Yes: true})
	id := spool.NewID()
	must(t, a.j.Claim(id, "inbox", "case"))
	l, err := a.j.Load(t.Context(), id)
	must(t, err)
	l.Result.Outcome, l.Result.Times.Finished = sidecar.Incomplete, sidecar.Now()
	root, err := os.OpenRoot(a.path(spool.Failed, "case"))
	must(t, err)
	defer root.Close()
	must(t, record.End(root, l))
	l.State, l.Place, l.Name = journal.Ended, string(spool.Failed), "case"
	must(t, a.j.End(l))
	a.j.Filed(id, string(spool.Failed), "case")
	must(t, a.j.SetAdopted())
	if found := a.verify(); len(found) > 0 {
		t.Errorf("verify: %v", found)
	}
	if r := a.pass(retention.Ask{Listed: true, List: []string{id}, Yes: true}); len(r.Sums) > 0 || len(r.Told) > 0 {
		t.Errorf("%+v", r)
	}
	if is := a.files(spool.Failed, "case"); len(is) != 2 {
		t.Errorf("in the folder are %v", is)
	}
	if n := len(a.entries(first, ledger.Purged)); n != 1 {
		t.Errorf("%d entries", n)
	}
}

// A journal that is made anew from the folders knows what was purged, and
// finishes what was cut off.
func TestAdoptPurged(t *testing.T) {
	a := newArchive(t)
	a.fold(spool.Done, "case")
	a.fold(spool.Failed, "cut")
	a.pass(retention.Ask{Rules: retention.Rules{Done: over}, Yes: true})
	// What a crash leaves after the record.
	l, err := a.j.Load(t.Context(), a.ids["cut"])
	must(t, err)
	l.Result.Purges = []sidecar.Purge{{At: sidecar.Time{Time: time.Now().Truncate(time.Millisecond)}, Rule: sidecar.OfFailed, Files: []sidecar.Deleted{{File: "FRONT.jpg"}, {File: "more/deep/b.txt"}}}}
	must(t, a.j.Purge(l))
	root, err := os.OpenRoot(a.path(spool.Failed, "cut"))
	must(t, err)
	defer root.Close()
	must(t, record.Write(root, l))
	must(t, a.j.Close())
	_, err = journal.Replace(a.where, "")
	must(t, err)
	a.j, err = journal.Open(a.where)
	must(t, err)
	a.open()
	_, err = adopt.Spool(t.Context(), a.paths, a.j, false, func(int, int) {})
	must(t, err)
	must(t, adopt.Enter(t.Context(), a.paths, a.j, func(int, int) {}))
	must(t, a.k.Finish(t.Context()))
	is, err := a.j.Load(t.Context(), a.ids["case"])
	must(t, err)
	if len(is.Result.Purges) != 1 || is.Result.Emptied() == nil {
		t.Errorf("it knows %+v", is.Result.Purges)
	}
	for _, gone := range []string{"FRONT.jpg", "more/deep/b.txt"} {
		if _, err := os.Lstat(a.path(spool.Failed, "cut", gone)); err == nil {
			t.Errorf("%s is there", gone)
		}
	}
	if _, err := os.Lstat(a.path(spool.Failed, "cut", "FACE.jpg")); err != nil {
		t.Error(err)
	}
	if found := a.verify(); len(found) > 0 {
		t.Errorf("verify: %v", found)
	}
	// What an uploader drops as a record of that is nothing.
	must(t, os.CopyFS(a.path(spool.Inbox, "forged"), os.DirFS(a.path(spool.Done, "case"))))
	f, err := os.OpenRoot(a.path(spool.Inbox, "forged"))
	must(t, err)
	defer f.Close()
	forged, err := adopt.Folder(f, spool.Inbox, "forged")
	must(t, err)
	forged.Lives[0].ID, forged.Lives[0].Result.ID = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	must(t, a.j.Adopt([]journal.Adopted{forged}))
	is, err = a.j.Load(t.Context(), "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	must(t, err)
	if len(is.Result.Purges) > 0 {
		t.Errorf("of a dropped record it knows %+v", is.Result.Purges)
	}
}

// What is cut off is finished wherever the folder lies by then, in spite of a
// legal hold that came since, and without taking what came since.
func TestFinishElsewhere(t *testing.T) {
	a := newArchive(t)
	id := a.fold(spool.Failed, "case")
	l, err := a.j.Load(t.Context(), id)
	must(t, err)
	l.Result.Purges = []sidecar.Purge{{At: sidecar.Time{Time: time.Now().Truncate(time.Millisecond)}, Rule: sidecar.OfFailed, Files: []sidecar.Deleted{{File: "more/deep/b.txt"}, {File: "more/deep/"}, {File: "more/"}, {File: "FRONT.jpg"}, {File: "result.json"}}}}
	must(t, a.j.Purge(l))
	a.restart()
	must(t, os.WriteFile(a.path(spool.Failed, "case", "more", "new.txt"), nil, 0o600))
	must(t, os.WriteFile(a.path(spool.Failed, "case", ".keep"), nil, 0o600))
	must(t, os.Rename(a.path(spool.Failed, "case"), filepath.Join(a.root, "away")))
	must(t, a.k.Finish(t.Context()))
	if open, err := a.j.Purging(t.Context()); err != nil || len(open) != 1 || len(a.events) != 1 {
		t.Errorf("while it is away: %v, %v, %v", open, err, a.events)
	}
	must(t, os.Rename(filepath.Join(a.root, "away"), a.path(spool.Done, "renamed")))
	must(t, a.k.Finish(t.Context()))
	gone := a.missing(spool.Done, "renamed")
	if strings.Join(gone, " ") != "FRONT.jpg more/deep/b.txt" {
		t.Errorf("gone are %v", gone)
	}
	if _, err := os.Lstat(a.path(spool.Done, "renamed", "more", "new.txt")); err != nil {
		t.Error(err)
	}
	if open, err := a.j.Purging(t.Context()); err != nil || len(open) != 0 {
		t.Errorf("open is %v, %v", open, err)
	}
}
