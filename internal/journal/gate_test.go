package journal_test

import (
	"database/sql"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/journal"
	"idenfy-batch/sidecar"
)

func TestKeepGate(t *testing.T) {
	w, j := create(t)
	gate := func() *journal.Gate {
		t.Helper()
		must(t, j.Unclaim()) // comes after what nobody waits for
		g, err := j.Reader().Gate(t.Context())
		must(t, err)
		return g
	}
	if g := gate(); g != nil {
		t.Errorf("%+v", g)
	}
	at := time.UnixMilli(time.Now().UnixMilli())
	want := journal.Gate{Reason: "x", Mend: "y", Since: at, Until: at.Add(time.Minute), Asked: 61 * time.Second, Tries: 3, Refusal: "A: b"}
	j.KeepGate(&journal.Gate{Reason: "first"})
	j.KeepGate(&want)
	must(t, j.Close())
	var err error
	j, err = journal.Open(w)
	must(t, err)
	t.Cleanup(func() { _ = j.Close() })
	if g := gate(); g == nil || *g != want {
		t.Errorf("%+v, want %+v", g, want)
	}
	j.KeepGate(nil)
	if g := gate(); g != nil {
		t.Errorf("%+v", g)
	}
}

// What was rejected since the last acceptance, the newest first; and how many
// were filed where.
func TestRefused(t *testing.T) {
	_, j := create(t)
	at, ids := time.Now().Add(-time.Hour), map[string]string{}
	end := func(folder string, o sidecar.Outcome, place string, a sidecar.Attempt) {
		t.Helper()
		at = at.Add(time.Second)
		a.N, a.Started = 1, sidecar.Time{Time: at}
		id := claimed(t, j, folder)
		ids[folder] = id
		must(t, j.Put(&journal.Life{ID: id, State: journal.Filed, Fate: journal.Refused, Took: true, Place: place, Name: folder, Result: &sidecar.Result{
			ID: id, Folder: folder, Outcome: o, Attempts: []sidecar.Attempt{a}, Times: sidecar.Times{Finished: sidecar.Time{Time: at}},
		}}))
	}
	no := sidecar.Attempt{State: sidecar.Answered, HTTPStatus: 400, Identifier: "BAD", Message: "no"}
	end("a", sidecar.Rejected, "failed", no)
	end("b", sidecar.Accepted, "done", sidecar.Attempt{State: sidecar.Answered, HTTPStatus: 200})
	end("c", sidecar.Rejected, "failed", no)
	end("d", sidecar.Unknown, "hold", sidecar.Attempt{State: sidecar.NoAnswer})
	end("e", sidecar.Rejected, "failed", sidecar.Attempt{State: sidecar.NoAnswer}) // a status settled it
	end("f", sidecar.Rejected, "failed", sidecar.Attempt{State: sidecar.Answered, HTTPStatus: 413})
	end("g", sidecar.Rejected, "failed", no)
	list, err := j.Refused(t.Context(), 100)
	must(t, err)
	if want := []journal.Refusal{{ID: ids["g"], Key: "BAD: no"}, {ID: ids["f"], Key: "HTTP 413"}, {ID: ids["c"], Key: "BAD: no"}}; !slices.Equal(list, want) {
		t.Errorf("%v, want %v", list, want)
	}
	if list, err := j.Refused(t.Context(), 1); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	in, err := j.Filings(t.Context())
	must(t, err)
	if in["done"] != 1 || in["failed"] != 5 || in["hold"] != 1 {
		t.Errorf("%v", in)
	}
}

// None of these is a scan of all lives.
func TestGateQueriesUseIndexes(t *testing.T) {
	w, j := create(t)
	must(t, j.Close())
	d, err := sql.Open("sqlite", "file:"+db(w))
	must(t, err)
	defer d.Close()
	for query, index := range map[string]string{
		"SELECT place, count(*) FROM life WHERE state = 'filed' GROUP BY place":                                       "life_place",
		"SELECT folder FROM life WHERE outcome IN ('accepted', 'rejected') AND took = 1 ORDER BY ended DESC LIMIT 20": "life_answered",
	} {
		rows, err := d.Query("EXPLAIN QUERY PLAN " + query)
		must(t, err)
		plan := ""
		for rows.Next() {
			var a, b, c int
			var text string
			must(t, rows.Scan(&a, &b, &c, &text))
			plan += text + "; "
		}
		must(t, errors.Join(rows.Err(), rows.Close()))
		if !strings.Contains(plan, index) || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("%s: %s", query, plan)
		}
	}
}
