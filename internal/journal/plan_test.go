package journal

import (
	"database/sql"
	"errors"
	"strings"
	"testing"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Whether a folder came again is found at once, also in a case of thousands of
// lives.
func TestListPlan(t *testing.T) {
	j, err := Create(Where{Dir: t.TempDir(), Mark: t.TempDir()})
	check(t, err)
	defer j.Close()
	rows, err := j.reads.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+selectFolders, 0, 1, 0, "", "", "", true, 500, "", "", "")
	check(t, err)
	defer rows.Close()
	looks := 0
	for rows.Next() {
		var a, b, c int
		var step string
		check(t, rows.Scan(&a, &b, &c, &step))
		if strings.Contains(step, " next ") {
			looks++
			if !strings.Contains(step, "(dir=? AND claimed>?)") && !strings.Contains(step, "(folder=? AND kase=? AND claimed>?)") {
				t.Error(step)
			}
		}
	}
	check(t, rows.Err())
	if looks != 3 {
		t.Errorf("%d looks for a later life", looks)
	}
}

// The folders of a clientId, and those of an inbox, are found by it, in their
// order.
func TestListOfOnePlan(t *testing.T) {
	j, err := Create(Where{Dir: t.TempDir(), Mark: t.TempDir()})
	check(t, err)
	defer j.Close()
	for query, by := range map[string]string{selectOfClient: "INDEX life_client (client_id=?", selectOfInbox: "INDEX life_inbox (inbox=?"} {
		rows, err := j.reads.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, 0, 1, 0, "", "", "", true, 500, "", "client-7", "branch-1")
		check(t, err)
		found := false
		for rows.Next() {
			var a, b, c int
			var step string
			check(t, rows.Scan(&a, &b, &c, &step))
			found = found || strings.Contains(step, by+" AND claimed>? AND claimed<?)")
			if strings.Contains(step, "TEMP") {
				t.Error(step)
			}
		}
		check(t, rows.Err())
		check(t, rows.Close())
		if !found {
			t.Errorf("it isn't found by %s", by)
		}
	}
}

// A journal that isn't brought up to date yet can be listed, too.
func TestListOfOlder(t *testing.T) {
	db, err := sql.Open("sqlite", ":memory:")
	check(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	for v, schema := range []string{schema, schema2, schema3, schema4, schema5, schema6, schema7, schema8} {
		_, err := db.ExecContext(t.Context(), schema)
		check(t, err)
		if _, err := (&Reader{db, v + 1}).List(t.Context(), Query{Most: 9}); err != nil {
			t.Errorf("version %d: %v", v+1, err)
		}
		if list, err := (&Reader{db, v + 1}).List(t.Context(), Query{Most: 9, Client: "client-7"}); err != nil || len(list) > 0 {
			t.Errorf("version %d: %v, %v", v+1, list, err)
		}
		if list, err := (&Reader{db, v + 1}).List(t.Context(), Query{Most: 9, Inbox: "branch-1"}); err != nil || len(list) > 0 {
			t.Errorf("version %d: %v, %v", v+1, list, err)
		}
	}
}

// An upgrade makes no files in the system's directories for such: they may be
// on another file system, whose state is nothing to the journal.
func TestUpgradeSortsNothing(t *testing.T) {
	db, err := sql.Open("sqlite", ":memory:")
	check(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	before, rest, _ := strings.Cut(schema3, "INSERT INTO life3 ")
	copying, _, _ := strings.Cut(rest, ";")
	_, err = db.ExecContext(t.Context(), schema+schema2+before)
	check(t, err)
	rows, err := db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN INSERT INTO life3 "+copying)
	check(t, err)
	defer rows.Close()
	for rows.Next() {
		var a, b, c int
		var step string
		check(t, rows.Scan(&a, &b, &c, &step))
		if strings.Contains(step, "TEMP") {
			t.Error(step)
		}
	}
	check(t, rows.Err())

	j, err := Create(Where{Dir: t.TempDir(), Mark: t.TempDir()})
	check(t, err)
	defer j.Close()
	var writes, reads int
	check(t, j.w.conn.QueryRowContext(t.Context(), "PRAGMA temp_store").Scan(&writes))
	check(t, j.reads.QueryRowContext(t.Context(), "PRAGMA temp_store").Scan(&reads))
	if writes != 2 || reads != 2 { // in memory
		t.Errorf("temporary tables: %d, %d", writes, reads)
	}
}

// What is asked often, for verdicts each second or at each webhook, reads no
// table as a whole.
func TestPlans(t *testing.T) {
	j, err := Create(Where{Dir: t.TempDir(), Mark: t.TempDir()})
	check(t, err)
	t.Cleanup(func() { check(t, j.Close()) })
	for _, query := range []string{
		selectHeard,
		selectRival,
		selectOthers + ofSession,
		"SELECT scan_ref FROM verdict WHERE written < newest AND scan_ref > ?1 ORDER BY scan_ref LIMIT ?2",
		"SELECT scan_ref, asked, due FROM verdict WHERE final = 0 AND due > 0 AND asked = 1 AND due <= ?1 LIMIT ?2",
		"SELECT count(*), min(accepted) FROM verdict WHERE final = 0 AND accepted > 0 LIMIT ?1 + ?2",
		"SELECT count(*) FROM event WHERE joined = 0 AND at < ?1 LIMIT ?2",
		selectByID, selectByClient, selectByName, // for each line of a list
		"SELECT DISTINCT life FROM purge WHERE done = 0 AND ?1 < ?2 + ?3",
	} {
		rows, err := j.reads.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, "0", 1, 1, 1)
		check(t, err)
		for rows.Next() {
			var id, parent, unused int
			var detail string
			check(t, rows.Scan(&id, &parent, &unused, &detail))
			if strings.HasPrefix(detail, "SCAN") && !strings.Contains(detail, "verdict_") && !strings.Contains(detail, "purge_open") {
				t.Errorf("%s: %s", query, detail)
			}
		}
		check(t, errors.Join(rows.Err(), rows.Close()))
	}
}

// What is owed, and who waits, is found at once, however many receipts were
// written before.
func TestReceiptPlan(t *testing.T) {
	j, err := Create(Where{Dir: t.TempDir(), Mark: t.TempDir()})
	check(t, err)
	defer j.Close()
	for query, want := range map[string]string{
		selectOwed:    "INDEX receipt_due (inbox=? AND folder>?)",
		countOwed:     "INDEX receipt_due (inbox=?)",
		selectWaiting: "INDEX receipt_waits (inbox=? AND folder>?)",
	} {
		rows, err := j.reads.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, "branch-1", "", 64)
		if query == countOwed {
			rows, err = j.reads.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, "branch-1")
		}
		check(t, err)
		var steps []string
		for rows.Next() {
			var a, b, c int
			var step string
			check(t, rows.Scan(&a, &b, &c, &step))
			steps = append(steps, step)
		}
		check(t, errors.Join(rows.Err(), rows.Close()))
		if len(steps) != 1 || !strings.Contains(steps[0], want) {
			t.Errorf("%s: %q", query, steps)
		}
	}
}

// What a report and the overview ask reads no table as a whole, but what is
// counted, in its order.
func TestReportPlans(t *testing.T) {
	j, err := Create(Where{Dir: t.TempDir(), Mark: t.TempDir()})
	check(t, err)
	t.Cleanup(func() { check(t, j.Close()) })
	for _, query := range []string{
		selectCounted, selectEnds, selectPending, selectHeld, selectAwaited,
		"SELECT (claimed - ?1) / 3600000 AS hour, outcome, count(*) FROM life WHERE claimed >= ?1 GROUP BY hour, outcome LIMIT ?2 + ?3 + length(?4) + ?5",
	} {
		args := []any{int64(0), int64(1), int64(0), "", 10}
		for !strings.Contains(query, "?"+string(rune('0'+len(args)))) {
			args = args[:len(args)-1]
		}
		rows, err := j.reads.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
		check(t, err)
		for rows.Next() {
			var id, parent, unused int
			var step string
			check(t, rows.Scan(&id, &parent, &unused, &step))
			if strings.HasPrefix(step, "SCAN life") || strings.HasPrefix(step, "SCAN entry") || strings.HasPrefix(step, "SCAN event") || step == "SCAN verdict" {
				t.Errorf("%s\n%s", query, step)
			}
		}
		check(t, errors.Join(rows.Err(), rows.Close()))
	}
}
