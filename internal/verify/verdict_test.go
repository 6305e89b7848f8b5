package verify_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/record"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

func scanRef(i int) string { return fmt.Sprintf("328c6766-934e-11ed-bb9b-%012d", i) }

// withVerdicts is an archive of n folders in done, with the verdicts of all but
// the last two: these have none.
func withVerdicts(t *testing.T, n int) *archive {
	a := newArchive(t, 0)
	j, err := journal.Open(a.where)
	must(t, err)
	for i := range n {
		a.change = func(r *sidecar.Result) {
			r.Session = &sidecar.Session{ScanRef: scanRef(i), By: sidecar.ByDaemon, ClientID: "c"}
		}
		a.fold(j, 5*i)
		if i < n-2 {
			a.hear(j, i, "REVIEWING", false)
			a.hear(j, i, "APPROVED", true)
			a.tell(j, i)
		}
	}
	a.sign(j)
	must(t, j.Close())
	return a
}

// hear has the journal hear of the session of a folder.
func (a *archive) hear(j *journal.Journal, i int, overall string, final bool) {
	a.t.Helper()
	body := []byte(fmt.Sprintf("%d %s", i, overall))
	e := journal.Event{ScanRef: scanRef(i), Body: body, Said: sidecar.VerdictEvent{
		SHA256: sum(string(body)), Received: sidecar.Now(), By: sidecar.ByWebhook, Type: "T", Finished: sidecar.Now(), Body: sidecar.BodyName(sum(string(body))),
		Said: sidecar.Said{Overall: overall, Final: final, AutoDocument: "A", ManualDocument: "B", AutoFace: "C", ManualFace: "D",
			FraudTags: []string{"F"}, MismatchTags: []string{"M"}, SuspicionReasons: []string{"S"}, DenyReasons: []string{"R"}},
	}}
	_, err := j.Hear(e)
	must(a.t, err)
}

// tell writes verdict.json, as the daemon does.
func (a *archive) tell(j *journal.Journal, i int) {
	a.t.Helper()
	h, err := j.Heard(a.t.Context(), scanRef(i))
	must(a.t, err)
	h.Verdict.ID = a.ids[name(5*i)]
	root, err := os.OpenRoot(a.path("done", name(5*i)))
	must(a.t, err)
	must(a.t, errors.Join(record.WriteVerdict(root, h.Verdict, h.Bodies), root.Close()))
	_, err = j.Written(h, true)
	must(a.t, err)
}

// Whatever is altered in a verdict.json is found: each field, and what is no
// field.
func TestEveryFieldOfVerdict(t *testing.T) {
	const n = 60
	a := withVerdicts(t, n+2)
	if found := a.byName(); len(found) > 0 {
		t.Fatalf("nothing was altered: %v", found)
	}
	what := map[string]string{}
	for i := 0; ; i++ {
		path := a.path("done", name(5*i), sidecar.VerdictName)
		was, err := os.ReadFile(path)
		must(t, err)
		altered := leaves(t, was)
		altered["a space"] = append(slices.Clone(was), ' ')
		altered["half of it"] = was[:len(was)/2]
		altered["nothing"] = nil
		altered["an event less"] = bytes.Replace(was, was[bytes.LastIndex(was, []byte(",\n    {")):bytes.LastIndex(was, []byte("\n  ]"))], nil, 1)
		altered["a field more"] = bytes.Replace(was, []byte(`"final"`), []byte(`"more": 1, "final"`), 1)
		if len(altered) < 40 {
			t.Fatalf("only %d fields", len(altered))
		}
		fields := slices.Sorted(maps.Keys(altered))
		if i == len(fields) {
			break
		}
		must(t, os.WriteFile(path, altered[fields[i]], 0o600))
		what[name(5*i)] = fields[i]
	}
	found := a.byName()
	for folder, field := range what {
		if list := found[folder]; len(list) != 1 || !strings.HasPrefix(list[0], "verdict_altered: ") && !strings.HasPrefix(list[0], "file_added: ") {
			t.Errorf("%s: %v", field, list)
		}
	}
	if len(found) != len(what) {
		t.Errorf("%d folders found, of %d", len(found), len(what))
	}
}

// verdictAlterations are of folders 0 to 5, which have a verdict, and 6 and 7,
// which have none.
var verdictAlterations = map[string]func(a *archive){
	"file_removed done/case000":    func(a *archive) { must(a.t, os.Remove(a.path("done", name(0), sidecar.VerdictName))) },
	"verdict_altered done/case005": func(a *archive) { a.write("1 DENIED", "done", name(5), sidecar.BodyName(sum("1 APPROVED"))) },
	"file_removed done/case010": func(a *archive) {
		must(a.t, os.Remove(a.path("done", name(10), sidecar.BodyName(sum("2 APPROVED")))))
	},
	"verdict_altered done/case015": func(a *archive) {
		path := a.path("done", name(15), sidecar.VerdictName)
		must(a.t, errors.Join(os.Remove(path), os.Mkdir(path, 0o700)))
	},
	"file_added done/case030": func(a *archive) { // another folder's
		data, err := os.ReadFile(a.path("done", name(20), sidecar.VerdictName))
		must(a.t, err)
		a.write(string(data), "done", name(30), sidecar.VerdictName)
	},
	"file_added done/case035": func(a *archive) { a.write(`{"overall": "APPROVED"}`, "done", name(35), sidecar.VerdictName) },
	"verdict_altered done/case020": func(a *archive) {
		a.alter("UPDATE event SET said = replace(said, '\"A\"', '\"X\"') WHERE sum = '" + sum("4 APPROVED") + "'")
	},
}

func TestVerdictAlterations(t *testing.T) {
	for want, alter := range verdictAlterations {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			a := withVerdicts(t, 8)
			alter(a)
			found, _, err := a.verify(nil)
			must(t, err)
			if !slices.Equal(found, []string{want}) {
				t.Errorf("found %v", found)
			}
		})
	}
}

// What is altered in the journal, or in the ledger with its tree, is found by
// the other one.
func TestFinalVerdicts(t *testing.T) {
	is := " WHERE sum = '" + sum("3 APPROVED") + "'"
	for name, query := range map[string]string{
		"the event":            "DELETE FROM event" + is,
		"its word":             "UPDATE event SET overall = 'DENIED'" + is,
		"its time":             "UPDATE event SET at = at + 1" + is,
		"that it is final":     "UPDATE event SET final = 0" + is,
		"whose it is":          "UPDATE event SET scan_ref = 'x'" + is,
		"the verdict":          "DELETE FROM verdict WHERE scan_ref = '" + scanRef(3) + "'",
		"how far it is joined": "UPDATE verdict SET newest = 1 WHERE scan_ref = '" + scanRef(3) + "'",
		"the verdict's word":   "UPDATE verdict SET overall = 'DENIED' WHERE scan_ref = '" + scanRef(3) + "'",
		"a contradiction":      "UPDATE verdict SET clash = 1 WHERE scan_ref = '" + scanRef(3) + "'",
		"the session":          "UPDATE life SET scan_ref = 'x' WHERE folder = 'case015'",
		"one more": "INSERT INTO event (sum, at, scan_ref, overall, final, said, joined) SELECT 'x', at, scan_ref, overall, final, said, 1 FROM event" + is +
			"; UPDATE verdict SET newest = (SELECT max(n) FROM event), written = (SELECT max(n) FROM event) WHERE scan_ref = '" + scanRef(3) + "'",
		"the entry":         "DELETE FROM entry WHERE life = (SELECT id FROM life WHERE folder = 'case015') AND line LIKE '%\"verdict\"%'",
		"the entry's word":  "UPDATE entry SET line = replace(line, 'APPROVED', 'DENIED') WHERE life = (SELECT id FROM life WHERE folder = 'case015')",
		"the life as whole": "DELETE FROM life WHERE folder = 'case015'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := withVerdicts(t, 8)
			a.alter(query)
			found, _, err := a.verify(nil)
			must(t, err)
			byWord := name == "the verdict's word" || name == "a contradiction"
			if want := map[bool]string{false: "journal_differs done/case015", true: "verdict_altered done/case015"}[byWord]; !slices.Contains(found, want) {
				t.Errorf("found %v", found)
			}
			for _, f := range found {
				if _, at, _ := strings.Cut(f, " "); at != "done/case015" && at != "" {
					t.Errorf("found %s", f)
				}
			}
		})
	}
}

// What isn't altered: verdicts that are still to be written, events that come
// while it looks, and of a folder that came again, of which there is none yet.
func TestVerdictNotAltered(t *testing.T) {
	a := withVerdicts(t, 8)
	j, err := journal.Open(a.where)
	must(t, err)
	a.hear(j, 0, "DENIED", true) // contradicts; and is not written yet
	a.hear(j, 6, "APPROVED", true)
	root, err := os.OpenRoot(a.path("done", name(5))) // came again, with another session
	must(t, err)
	must(t, sidecar.Rotate(root, sidecar.Name))
	id := spool.NewID()
	must(t, j.Claim(id, "inbox", name(5)))
	l, err := j.Load(t.Context(), id)
	must(t, err)
	l.ScanRef, l.Fate, l.State, l.Place, l.Name = scanRef(99), journal.Taken, journal.Ended, "done", name(5)
	l.Result.Outcome, l.Result.Session = sidecar.Accepted, &sidecar.Session{ScanRef: scanRef(99), By: "producer"}
	l.Result.Earlier, err = sidecar.Others(root, "")
	must(t, err)
	must(t, errors.Join(record.End(root, l), root.Close()))
	must(t, j.End(l))
	j.Filed(id, "done", name(5))
	done, ended := make(chan struct{}), sync.WaitGroup{}
	ended.Go(func() { // a daemon
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			default:
				a.hear(j, 3, fmt.Sprint("WORD", n), true)
				a.tell(j, 3)
			}
		}
	})
	for range 5 {
		found, _, err := a.verify(nil)
		if err != nil || len(found) > 0 {
			t.Errorf("%v, %v", found, err)
		}
	}
	close(done)
	ended.Wait()
	must(t, j.Close())
}
