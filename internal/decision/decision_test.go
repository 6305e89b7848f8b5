package decision_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"idenfy-batch/internal/decision"
	"idenfy-batch/internal/idenfy"
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
		{"hold", "unknown", "", "accepted", "", "no scanRef", "done"},
		{"hold", "unknown", "", "rejected", "", "no scanRef", "failed"},
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
			must(t, root.Close())
			desk := decision.Desk{Paths: paths, Status: func(context.Context, string) (idenfy.Taken, string, error) {
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
			if res.Again() != (to == spool.Inbox) {
				t.Error("Again")
			}
		}
	}
}

// A crash between the record and the move: the second try ends it, with one
// decision in the record.
func TestAfterACrash(t *testing.T) {
	paths := spool.Paths{}
	for _, p := range spool.Places() {
		paths[p] = filepath.Join(t.TempDir(), string(p))
		must(t, os.Mkdir(paths[p], 0o700))
	}
	dir := filepath.Join(paths[spool.Hold], "case")
	must(t, os.Mkdir(dir, 0o700))
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	must(t, sidecar.Write(root, &sidecar.Result{
		ID: "X", Outcome: sidecar.Accepted,
		Decisions: []sidecar.Decision{{Action: sidecar.Confirmed, Result: "X"}},
	}))
	desk := decision.Desk{Paths: paths}
	if to, _, err := desk.Make(t.Context(), "case", decision.Decision{Action: sidecar.Confirmed, Force: true}); err != nil || to != spool.Done {
		t.Errorf("in %s, %v", to, err)
	}
	res, err := sidecar.Read(root)
	must(t, err)
	if len(res.Decisions) != 1 {
		t.Errorf("decisions %+v", res.Decisions)
	}
}
