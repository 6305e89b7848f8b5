package decision_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"idenfy-batch/internal/adopt"
	"idenfy-batch/internal/decision"
	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Every pair of a folder's past and a decision, without and with force.
func TestAllowed(t *testing.T) {
	statuses := map[string]idenfy.Taken{"": 0, "ACTIVE": idenfy.NotTaken, "REVIEWING": idenfy.WasTaken, "EXPIRED": idenfy.TokenExpired}
	for _, c := range []struct {
		from    spool.Place
		outcome sidecar.Outcome
		status  string // "": can't be asked
		action  sidecar.Action
		to      spool.Place // "": refused
		why     string
		forced  spool.Place // with force
	}{
		{"failed", "rejected", "", "requeued", "inbox", "", "inbox"},
		{"failed", "gave_up", "", "requeued", "inbox", "", "inbox"},
		{"failed", "accepted", "", "requeued", "", "it was accepted before", "inbox"},
		{"failed", "unknown", "", "requeued", "", "may have been accepted", "inbox"},
		{"done", "accepted", "", "requeued", "", "it was accepted", "inbox"},
		{"hold", "unknown", "", "requeued", "", "idenfy-batch resolve case", ""},
		{"failed", "rejected", "", "accepted", "", "only what is in hold", "done"},
		{"done", "accepted", "", "accepted", "", "only what is in hold", "done"},
		{"hold", "unknown", "", "accepted", "done", "", "done"},
		{"hold", "unknown", "", "rejected", "failed", "", "failed"},
		{"hold", "unknown", "", "resubmit", "", "no scanRef", "inbox"},
		{"hold", "unknown", "ACTIVE", "accepted", "", "ACTIVE, so the documents were not taken", "done"},
		{"hold", "unknown", "ACTIVE", "rejected", "failed", "", "failed"},
		{"hold", "unknown", "ACTIVE", "resubmit", "inbox", "", "inbox"},
		{"hold", "unknown", "REVIEWING", "accepted", "done", "", "done"},
		{"hold", "unknown", "REVIEWING", "rejected", "", "REVIEWING, so the documents were taken", "failed"},
		{"hold", "unknown", "REVIEWING", "resubmit", "", "were taken", "inbox"},
		{"hold", "unknown", "EXPIRED", "resubmit", "", "new token", "inbox"},
		{"hold", "unknown", "EXPIRED", "rejected", "failed", "", "failed"},
	} {
		for _, force := range []bool{false, true} {
			paths := spool.Paths{}
			for _, p := range spool.Places() {
				paths[p] = filepath.Join(t.TempDir(), string(p))
				must(t, os.Mkdir(paths[p], 0o700))
			}
			dir := filepath.Join(paths[c.from], "case")
			must(t, os.Mkdir(dir, 0o700))
			text := "authToken: TOKEN-0123456789\ncountry: LT\ndocumentType: PASSPORT\n"
			if c.status != "" {
				text += "scanRef: 328c6766-934e-11ed-bb9b-025ad99a18e7\n"
			}
			must(t, os.WriteFile(filepath.Join(dir, "meta.yaml"), []byte(text), 0o600))
			root, err := os.OpenRoot(dir)
			must(t, err)
			id := spool.NewID()
			must(t, sidecar.Write(root, &sidecar.Result{ID: id, Folder: "case", Outcome: c.outcome}))
			j := known(t, root, c.from)
			must(t, root.Close())
			desk := decision.Desk{Paths: paths, Journal: j, InWork: paths.Has, Status: func(context.Context, string) (idenfy.Taken, string, error) {
				return statuses[c.status], c.status, nil
			}}
			to, name, err := desk.Make(t.Context(), string(c.from)+"/case", decision.Decision{
				Action: c.action, By: sidecar.Person{UID: 7, User: "u"}, Force: force, Comment: "x",
			})
			want := c.to
			if force {
				want = c.forced
			}
			if want == "" {
				var refused *decision.RefusedError
				if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.why) {
					t.Errorf("%+v, force %v: %v", c, force, err)
				}
				if _, err := os.Stat(dir); err != nil {
					t.Error(err)
				}
				continue
			}
			if err != nil || to != want || name != "case" {
				t.Errorf("%+v, force %v: in %s/%s, %v", c, force, to, name, err)
				continue
			}
			root, err = os.OpenRoot(filepath.Join(paths[to], name))
			must(t, err)
			res, err := sidecar.Read(root)
			must(t, err)
			must(t, root.Close())
			if len(res.Decisions) != 1 {
				t.Fatalf("decisions %+v", res.Decisions)
			}
			d := res.Decisions[0]
			if d.Action != c.action || d.Forced != force || d.Result != id || d.Outcome != c.outcome || d.By.User != "u" || d.At.IsZero() || d.Comment != "x" {
				t.Errorf("recorded: %+v", d)
			}
			final := map[sidecar.Action]sidecar.Outcome{sidecar.Confirmed: sidecar.Accepted, sidecar.Denied: sidecar.Rejected}
			if o, ok := final[c.action]; ok && res.Outcome != o {
				t.Errorf("outcome %s", res.Outcome)
			}
			if (res.Decided(sidecar.Requeued) || res.Decided(sidecar.Resubmit)) != (to == spool.Inbox) {
				t.Error("Again")
			}
		}
	}
}

// known returns a journal that knows the folder.
func known(t *testing.T, dir *os.Root, at spool.Place) *journal.Journal {
	t.Helper()
	j, err := journal.Create(journal.Where{Dir: filepath.Join(t.TempDir(), "journal"), Mark: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { must(t, j.Close()) })
	f, err := adopt.Folder(dir, at, "case")
	must(t, err)
	must(t, j.Adopt([]journal.Adopted{f}))
	return j
}

// desk returns one with a folder in a place, with a result and meta.yaml.
func newDesk(t *testing.T, at spool.Place, res *sidecar.Result, more string) (*decision.Desk, *os.Root) {
	t.Helper()
	paths := spool.Paths{}
	for _, p := range spool.Places() {
		paths[p] = filepath.Join(t.TempDir(), string(p))
		must(t, os.Mkdir(paths[p], 0o700))
	}
	dir := filepath.Join(paths[at], "case")
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "meta.yaml"), []byte("authToken: TOKEN-0123456789\ncountry: LT\ndocumentType: PASSPORT\n"+more), 0o600))
	root, err := os.OpenRoot(dir)
	must(t, err)
	t.Cleanup(func() { must(t, root.Close()) })
	must(t, sidecar.Write(root, res))
	return &decision.Desk{Paths: paths, Journal: known(t, root, at), InWork: paths.Has}, root
}

// A crash between the record and the move: the second try ends it, with one
// decision in the record.
func TestAfterACrash(t *testing.T) {
	desk, root := newDesk(t, spool.Hold, &sidecar.Result{ID: spool.NewID(), Folder: "case", Outcome: sidecar.Unknown}, "")
	hold := desk.Paths[spool.Hold]
	for range 2 {
		if to, _, err := desk.Make(t.Context(), "case", decision.Decision{Action: sidecar.Confirmed}); err != nil || to != spool.Done {
			t.Fatalf("in %s, %v", to, err)
		}
		res, err := sidecar.Read(root)
		must(t, err)
		if len(res.Decisions) != 1 || len(res.Reasons) != 1 {
			t.Errorf("decisions %+v, reasons %+v", res.Decisions, res.Reasons)
		}
		// As if it had not been moved.
		if _, err := os.Stat(filepath.Join(hold, "case")); err == nil {
			t.Fatal("it was not moved")
		}
		must(t, os.Rename(filepath.Join(desk.Paths[spool.Done], "case"), filepath.Join(hold, "case")))
	}
}

// A decision that a crash kept from being carried out, while more was decided
// about the folder, is carried out with a result that is in the ledger.
func TestEnteredAsWritten(t *testing.T) {
	desk, root := newDesk(t, spool.Hold, &sidecar.Result{ID: spool.NewID(), Folder: "case", Outcome: sidecar.Unknown}, "")
	dec := decision.Decision{Action: sidecar.Confirmed}
	durable.Inject(func(op durable.Op, path string, do func() error) error {
		if op == durable.OpCommit || !strings.Contains(path, sidecar.Name) {
			return do()
		}
		return errors.New("injected")
	})
	defer durable.Inject(nil)
	if _, _, err := desk.Make(t.Context(), "case", dec); err == nil {
		t.Fatal("it was carried out")
	}
	durable.Inject(nil)
	id, err := sidecar.ID(root, sidecar.Name)
	must(t, err)
	l, err := desk.Journal.Load(t.Context(), id)
	must(t, err)
	more := l.Result.Decisions[0]
	more.Comment = "another one in between"
	must(t, desk.Journal.Decide(l, l.Fate, more, "", nil))
	if _, _, err := desk.Make(t.Context(), "case", dec); err != nil {
		t.Fatal(err)
	}
	data, err := root.ReadFile(sidecar.Name)
	must(t, err)
	sum := sha256.Sum256(data)
	list, err := desk.Journal.Reader().Entries(t.Context(), journal.Entries{Life: id, Most: 9})
	must(t, err)
	if len(list) != 3 || !strings.Contains(list[0].Line, hex.EncodeToString(sum[:])) {
		t.Errorf("%+v; the result is %x", list, sum)
	}
}

// A folder that can't be moved to the inbox stays evidence: nobody but the
// daemon may alter it.
func TestNotMovedIsSealed(t *testing.T) {
	desk, root := newDesk(t, spool.Failed, &sidecar.Result{ID: spool.NewID(), Folder: "case", Outcome: sidecar.Rejected}, "")
	durable.Inject(func(op durable.Op, _ string, do func() error) error {
		if op == durable.OpMove {
			return syscall.EACCES
		}
		return do()
	})
	defer durable.Inject(nil)
	if _, _, err := desk.Make(t.Context(), "case", decision.Decision{Action: sidecar.Requeued}); !errors.Is(err, syscall.EACCES) {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{".": 0o750, sidecar.Name: 0o440} {
		if info, err := root.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// What can't be asked is not decided without force: the session may say
// otherwise.
func TestNobodyToAsk(t *testing.T) {
	desk, _ := newDesk(t, spool.Hold, &sidecar.Result{ID: spool.NewID(), Folder: "case", Outcome: sidecar.Unknown}, "scanRef: 328c6766-934e-11ed-bb9b-025ad99a18e7\n")
	for _, status := range []func(context.Context, string) (idenfy.Taken, string, error){
		nil,
		func(context.Context, string) (idenfy.Taken, string, error) {
			return 0, "", &idenfy.Error{Class: idenfy.NotSent, Message: "refused"}
		},
		func(context.Context, string) (idenfy.Taken, string, error) {
			return idenfy.TakenUnknown, "DELETED", nil
		},
	} {
		desk.Status = status
		for _, action := range []sidecar.Action{sidecar.Confirmed, sidecar.Denied, sidecar.Resubmit} {
			var refused *decision.RefusedError
			if _, _, err := desk.Make(t.Context(), "case", decision.Decision{Action: action}); !errors.As(err, &refused) || !strings.Contains(err.Error(), "--force") {
				t.Errorf("%s: %v", action, err)
			}
		}
	}
	if to, _, err := desk.Make(t.Context(), "case", decision.Decision{Action: sidecar.Denied, Force: true}); err != nil || to != spool.Failed {
		t.Errorf("forced: %s, %v", to, err)
	}
}

// A token that was used up is not sent again, however much it is wanted.
func TestUsedUp(t *testing.T) {
	desk, _ := newDesk(t, spool.Done, &sidecar.Result{ID: spool.NewID(), Folder: "case", Outcome: sidecar.Accepted, Request: sidecar.Request{TokenHint: sidecar.TokenHint("TOKEN-0123456789")}}, "")
	if _, _, err := desk.Make(t.Context(), "done/case", decision.Decision{Action: sidecar.Requeued, Force: true}); err == nil || !strings.Contains(err.Error(), "put a new one into meta.yaml") {
		t.Error(err)
	}
	must(t, os.WriteFile(filepath.Join(desk.Paths[spool.Done], "case", "meta.yaml"), []byte("authToken: ANOTHER-0123456789\ncountry: LT\ndocumentType: PASSPORT\n"), 0o600))
	if _, _, err := desk.Make(t.Context(), "done/case", decision.Decision{Action: sidecar.Requeued}); err == nil || !strings.Contains(err.Error(), "it was accepted before") {
		t.Error(err)
	}
	if to, _, err := desk.Make(t.Context(), "done/case", decision.Decision{Action: sidecar.Requeued, Force: true}); err != nil || to != spool.Inbox {
		t.Errorf("%s, %v", to, err)
	}
}

// A folder of which the journal knows nothing is not decided about.
func TestNotKnown(t *testing.T) {
	desk, root := newDesk(t, spool.Failed, &sidecar.Result{ID: spool.NewID(), Folder: "case", Outcome: sidecar.Rejected}, "")
	must(t, sidecar.Write(root, &sidecar.Result{ID: spool.NewID(), Folder: "case", Outcome: sidecar.Rejected}))
	if _, _, err := desk.Make(t.Context(), "case", decision.Decision{Action: sidecar.Requeued}); err == nil || !strings.Contains(err.Error(), "nothing is known about it") {
		t.Error(err)
	}
}

// What may have been accepted is asked for by the reference that it was sent
// with, not by one that came into meta.yaml later, with another token.
func TestAsksTheOpenSession(t *testing.T) {
	id := spool.NewID()
	desk, root := newDesk(t, spool.Hold, &sidecar.Result{
		ID: id, Folder: "case", Outcome: sidecar.Unknown, Attempts: []sidecar.Attempt{{N: 1, State: sidecar.NoAnswer}},
		Request: sidecar.Request{TokenHint: sidecar.TokenHint("TOKEN-0123456789")},
	}, "")
	must(t, root.WriteFile("meta.yaml", []byte("authToken: OTHER-0123456789\ncountry: LT\ndocumentType: PASSPORT\nscanRef: 328c6766-934e-11ed-bb9b-025ad99a18e7\n"), 0o600))
	asked := 0
	desk.Status = func(context.Context, string) (idenfy.Taken, string, error) {
		asked++
		return idenfy.NotTaken, "ACTIVE", nil
	}
	if to, _, err := desk.Make(t.Context(), "case", decision.Decision{Action: sidecar.Confirmed}); err != nil || to != spool.Done || asked != 0 {
		t.Errorf("%s, %v, asked %d times", to, err, asked)
	}
}

// A copy of a held folder shares its submission, and is not decided in its
// place.
func TestCopyIsNotDecided(t *testing.T) {
	desk, _ := newDesk(t, spool.Hold, &sidecar.Result{ID: spool.NewID(), Folder: "case", Outcome: sidecar.Unknown}, "")
	must(t, os.CopyFS(filepath.Join(desk.Paths[spool.Hold], "copy"), os.DirFS(filepath.Join(desk.Paths[spool.Hold], "case"))))
	if _, _, err := desk.Make(t.Context(), "copy", decision.Decision{Action: sidecar.Denied}); err == nil || !strings.Contains(err.Error(), "it is a copy of hold/case") {
		t.Error(err)
	}
	if to, _, err := desk.Make(t.Context(), "case", decision.Decision{Action: sidecar.Denied}); err != nil || to != spool.Failed {
		t.Errorf("%s, %v", to, err)
	}
}

// What was accepted is not turned into rejected by moving it to hold.
func TestAcceptedInHold(t *testing.T) {
	desk, _ := newDesk(t, spool.Hold, &sidecar.Result{ID: spool.NewID(), Folder: "case", Outcome: sidecar.Accepted}, "")
	for _, action := range []sidecar.Action{sidecar.Denied, sidecar.Resubmit} {
		if _, _, err := desk.Make(t.Context(), "case", decision.Decision{Action: action}); err == nil || !strings.Contains(err.Error(), "it was accepted") {
			t.Errorf("%s: %v", action, err)
		}
	}
	if to, _, err := desk.Make(t.Context(), "case", decision.Decision{Action: sidecar.Confirmed}); err != nil || to != spool.Done {
		t.Errorf("%s, %v", to, err)
	}
}

// A folder that came with the result of another one that is held is decided
// alone: the other one has its own decision.
func TestStrangersResult(t *testing.T) {
	held := spool.NewID()
	desk, _ := newDesk(t, spool.Hold, &sidecar.Result{ID: held, Folder: "case", Outcome: sidecar.Unknown}, "")
	id := spool.NewID()
	must(t, desk.Journal.Claim(id, "inbox", "stranger"))
	_, err := desk.Journal.Begin(journal.Question{Only: true, Life: &journal.Life{ID: id, Prior: []string{held}, Fate: journal.Unsent, Result: &sidecar.Result{ID: id, Folder: "stranger"}}})
	must(t, err)
	must(t, desk.Journal.Put(&journal.Life{ID: id, State: journal.Filed, Fate: journal.Unsent, Place: "hold", Name: "stranger", Result: &sidecar.Result{ID: id, Folder: "stranger", Outcome: sidecar.Unknown}}))
	dir := filepath.Join(desk.Paths[spool.Hold], "stranger")
	must(t, os.Mkdir(dir, 0o700))
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	must(t, sidecar.Write(root, &sidecar.Result{ID: id, Folder: "stranger", Outcome: sidecar.Unknown}))
	if to, _, err := desk.Make(t.Context(), "stranger", decision.Decision{Action: sidecar.Denied}); err != nil || to != spool.Failed {
		t.Fatalf("%s, %v", to, err)
	}
	if l, err := desk.Journal.Load(t.Context(), held); err != nil || l.Fate != journal.Unsettled {
		t.Errorf("%+v, %v", l, err)
	}
}

// What was submitted without the daemon, and has no end, is resolved by its id;
// once it was said to be accepted it is not sent again.
func TestOpenOutside(t *testing.T) {
	for action, want := range map[sidecar.Action]journal.Verdict{sidecar.Confirmed: journal.Before, sidecar.Denied: journal.Send} {
		desk, _ := newDesk(t, spool.Hold, &sidecar.Result{ID: spool.NewID(), Folder: "case", Outcome: sidecar.Unknown}, "")
		life := func(id string) *journal.Life {
			return &journal.Life{ID: id, Token: "hash", Result: &sidecar.Result{ID: id, Folder: "outside", Outcome: sidecar.Pending, Attempts: []sidecar.Attempt{{N: 1, State: sidecar.Sending}}}}
		}
		ask := func(id string, want journal.Verdict) {
			t.Helper()
			if a, err := desk.Journal.Outside(life(id)); err != nil || a.Verdict != want {
				t.Errorf("%s: %+v, %v", action, a, err)
			}
		}
		first := spool.NewID()
		ask(first, journal.Send)
		ask(spool.NewID(), journal.Maybe)
		if _, _, err := desk.Make(t.Context(), first, decision.Decision{Action: sidecar.Resubmit}); err == nil || !strings.Contains(err.Error(), "idenfy-batch submit") {
			t.Errorf("resubmit: %v", err)
		}
		_, _, err := desk.Make(t.Context(), first, decision.Decision{Action: action})
		must(t, err)
		ask(first, want)
		if _, _, err := desk.Make(t.Context(), spool.NewID(), decision.Decision{Action: action}); err == nil {
			t.Error("one that nobody knows was resolved")
		}
	}
}

// Who uploaded a folder may hold its lock as well as another command.
func TestLockedBySomebody(t *testing.T) {
	desk, root := newDesk(t, spool.Hold, &sidecar.Result{ID: spool.NewID(), Folder: "case", Outcome: sidecar.Unknown}, "")
	unlock, err := spool.LockFolder(root)
	must(t, err)
	defer unlock()
	if _, _, err := desk.Make(t.Context(), "case", decision.Decision{Action: sidecar.Denied}); err == nil || !strings.Contains(err.Error(), "lsof") {
		t.Error(err)
	}
}
