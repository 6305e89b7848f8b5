package journal_test

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

const vkey = "idenfy-batch/JJJJJJJJJJJJJJJJJJJJJJJJJJ+01234567+AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// entries returns what is in the ledger, and fails the test when its tree does
// not fit it.
func entries(t *testing.T, w journal.Where) (list []ledger.Entry) {
	t.Helper()
	d, err := sql.Open("sqlite", "file:"+db(w)+"?mode=ro&_pragma=busy_timeout(5000)")
	must(t, err)
	defer d.Close()
	rows, err := d.Query("SELECT n, coalesce(life, ''), line, hashes FROM entry ORDER BY n")
	must(t, err)
	defer rows.Close()
	var a ledger.Audit
	for rows.Next() {
		var n int
		var life string
		var line, hashes []byte
		must(t, rows.Scan(&n, &life, &line, &hashes))
		must(t, a.Next(line, hashes))
		e, err := ledger.Parse(line)
		must(t, err)
		if n != len(list) || life != e.ID {
			t.Errorf("entry %d, of %q: %s", n, life, line)
		}
		list = append(list, e)
	}
	must(t, rows.Err())
	return list
}

// says is an entry in short.
func says(e ledger.Entry) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s %s %v", e.Kind, e.Outcome, e.Place, e.Action, e.SHA256 != ""))
}

func wants(t *testing.T, w journal.Where, want ...string) []ledger.Entry {
	t.Helper()
	list := entries(t, w)
	var got []string
	for _, e := range list {
		got = append(got, says(e))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q; want %q", got, want)
	}
	return list
}

// ending begins a life that may be ended.
func ending(t *testing.T, j *journal.Journal, name string) *journal.Life {
	t.Helper()
	id := claimed(t, j, name)
	l, err := j.Load(t.Context(), id)
	must(t, err)
	l.State, l.Result.Outcome = journal.Pending, sidecar.Rejected
	must(t, j.Put(l))
	l.State, l.Place, l.Name = journal.Ended, "failed", name
	return l
}

// Each fact is entered once, however often the step is made.
func TestEntries(t *testing.T) {
	w, j := create(t)
	for range 2 {
		must(t, j.Started("1.2\n\"3", vkey, true))
	}
	l := ending(t, j, "a")
	for range 2 {
		must(t, j.End(l))
	}
	j.Filed(l.ID, "failed", "a.2")
	gone := ending(t, j, "b")
	for range 2 {
		must(t, j.Gone(gone.ID))
	}
	l.State = journal.Filed
	l.Place = "inbox"
	d := sidecar.Decision{At: sidecar.Now(), Action: sidecar.Requeued, Result: l.ID, Outcome: sidecar.Rejected}
	l.Result.Decisions = append(l.Result.Decisions, d)
	must(t, j.Decide(l, l.Fate, d, "", nil))
	must(t, j.Redecided(l, d)) // nothing is new
	l.Result.Decisions = append(l.Result.Decisions, d)
	for range 2 {
		must(t, j.Redecided(l, d)) // it is written in another way now
	}
	must(t, j.Started("1.2", vkey, true))
	must(t, j.Started("1.2", vkey, false))
	list := wants(t, w, "started    false", "ended rejected failed  true", "ended rejected   false",
		"decided rejected inbox requeued true", "decided rejected inbox requeued true", "started    false", "started    false")
	sum, err := sidecar.Sum(l.Result)
	must(t, err)
	if list[0].Version != "1.2??3" || list[4].SHA256 != sum || list[3].SHA256 == sum {
		t.Errorf("%+v", list)
	}
	// A folder that left work, and lies there again, ends again.
	back := gone
	back.State = journal.Pending
	must(t, j.Put(back))
	back.State, back.Place = journal.Ended, "hold"
	must(t, j.End(back))
	// So does one that had been filed.
	j.Filed(back.ID, "hold", "b")
	for range 2 {
		must(t, j.End(back))
	}
	// One that is nowhere is decided about, without a result.
	away := ending(t, j, "c")
	away.Result.Outcome, away.State = sidecar.Pending, journal.Pending
	must(t, j.Put(away))
	must(t, j.Gone(away.ID))
	away.State, away.Place, away.Name, away.Result.Outcome = journal.Filed, "", "", sidecar.Accepted
	must(t, j.Decide(away, away.Fate, sidecar.Decision{At: sidecar.Now(), Action: sidecar.Confirmed, Forced: true, Result: away.ID}, journal.Taken, nil))
	rest := entries(t, w)[len(list):]
	for n, want := range []string{"ended rejected hold  true", "ended rejected hold  true", "ended unknown   false", "decided accepted  accepted false"} {
		if len(rest) != 4 || says(rest[n]) != want {
			t.Errorf("%+v; want %s", rest, want)
		}
	}
}

// A step whose commit fails enters nothing if it was not made, and nothing
// twice if it was.
func TestEntriesWithFaults(t *testing.T) {
	for _, applied := range []bool{false, true} {
		w, j := create(t)
		l := ending(t, j, "a")
		fails := errors.New("injected")
		held, letGo := hold(t, db(w), func(n int64, do func() error) error {
			switch {
			case n != 1:
				return do()
			case applied:
				return errors.Join(do(), fails)
			default:
				return fails
			}
		})
		go func() { <-held; close(letGo) }()
		if err := j.End(l); (err == nil) != applied {
			t.Errorf("applied %v: %v", applied, err)
		}
		must(t, j.End(l))
		wants(t, w, "ended rejected failed  true")
	}
}

// What is in the ledger can't be changed by a mistake.
func TestAppendOnly(t *testing.T) {
	w, j := create(t)
	must(t, j.Started("1", vkey, false))
	d, err := sql.Open("sqlite", "file:"+db(w)+"?_pragma=busy_timeout(5000)")
	must(t, err)
	defer d.Close()
	for _, text := range []string{"DELETE FROM entry", "UPDATE entry SET line = 'x'", "UPDATE entry SET n = 7"} {
		if _, err := d.Exec(text); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// The end of what was submitted without the daemon is entered once it is known.
func TestOutsideIsEntered(t *testing.T) {
	w, j := create(t)
	l := &journal.Life{ID: spool.NewID(), Fate: journal.Unsettled, Token: "hash", Result: &sidecar.Result{Outcome: sidecar.Pending, Attempts: []sidecar.Attempt{{N: 1, State: sidecar.Sending}}}}
	l.Result.ID = l.ID
	_, err := j.Outside(l)
	must(t, err)
	wants(t, w)
	l.Fate, l.Result.Outcome = journal.Taken, sidecar.Accepted
	l.Result.Attempts[0].State = sidecar.Answered
	for range 2 {
		_, err = j.Outside(l)
		must(t, err)
	}
	wants(t, w, "ended accepted   false")
}

// What is decided between the move of a folder and the note of that stands: the
// note comes late, and says where the folder was.
func TestFiledAfterDecision(t *testing.T) {
	_, j := create(t)
	l := ending(t, j, "a")
	must(t, j.End(l))
	d := sidecar.Decision{At: sidecar.Now(), Action: sidecar.Requeued, Result: l.ID, Outcome: sidecar.Rejected}
	l.State, l.Place = journal.Filed, "inbox"
	must(t, j.Decide(l, l.Fate, d, "", nil))
	j.Filed(l.ID, "failed", "a.2")
	claimed(t, j, "b") // in a commit after it
	is, err := j.Load(t.Context(), l.ID)
	must(t, err)
	if is.State != journal.Filed || is.Place != "inbox" || is.Name != "a" {
		t.Errorf("it is %s, %s/%s", is.State, is.Place, is.Name)
	}
}
