package batch_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"

	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/verify"
	"idenfy-batch/sidecar"
)

// witness has the database itself count the ends of lives, whatever code makes
// them: what the ledger is held against.
func (b *bench) witness() {
	b.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.where.Dir, journal.Name)+"?_pragma=busy_timeout(5000)")
	must(b.t, err)
	_, err = db.Exec(`CREATE TABLE witness (life TEXT NOT NULL, kind TEXT NOT NULL);
		CREATE TRIGGER witness_end AFTER UPDATE ON life WHEN old.state IN ('claimed', 'pending') AND new.state IN ('ended', 'filed', 'away')
			OR old.state IN ('filed', 'away') AND new.state = 'ended' OR old.state = 'ended' AND new.state <> 'ended' AND new.place = '' BEGIN INSERT INTO witness VALUES (new.id, 'ended'); END;
		CREATE TRIGGER witness_decision AFTER INSERT ON decision BEGIN INSERT INTO witness VALUES (new.life, 'decided'); END`)
	must(b.t, err)
	must(b.t, db.Close())
}

// ledgerHolds holds the ledger against its tree, and against what the database
// counted: nothing is missing, and nothing was entered twice.
func (b *bench) ledgerHolds() {
	b.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.where.Dir, journal.Name)+"?mode=ro&_pragma=busy_timeout(5000)")
	must(b.t, err)
	defer db.Close()
	newest, made := map[string]ledger.Entry{}, map[string]int{}
	b.audit(db, func(e ledger.Entry) {
		again := e.Kind == ledger.Decided && newest[e.ID].Kind == e.Kind && newest[e.ID].Action == e.Action && newest[e.ID].At == e.At
		if again && newest[e.ID].SHA256 == e.SHA256 {
			b.t.Errorf("a decision about %s is twice in the ledger", e.ID)
		}
		if !again {
			made[string(e.Kind)+" "+e.ID]++
		}
		newest[e.ID] = e
	})
	each(b.t, db, "SELECT kind || ' ' || life, count(*), '' FROM witness GROUP BY 1", func(fact string, n int, _ string) {
		if made[fact] != n {
			b.t.Errorf("%s: %d times, and %d times in the ledger", fact, n, made[fact])
		}
		delete(made, fact)
	})
	for fact := range made {
		b.t.Errorf("%s is in the ledger, and never happened", fact)
	}
	each(b.t, db, "SELECT id, 0, outcome || ' ' || place FROM life WHERE state IN ('ended', 'filed', 'away')", func(id string, _ int, is string) {
		if e := newest[id]; string(e.Outcome)+" "+e.Place != is {
			b.t.Errorf("%s is %s, and the ledger says %+v", id, is, e)
		}
	})
}

func each(t testing.TB, db *sql.DB, query string, do func(a string, n int, c string)) {
	t.Helper()
	rows, err := db.Query(query)
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var a, c string
		var n int
		must(t, rows.Scan(&a, &n, &c))
		do(a, n, c)
	}
	must(t, rows.Err())
}

func (b *bench) audit(db *sql.DB, do func(ledger.Entry)) {
	b.t.Helper()
	rows, err := db.Query("SELECT n, line, hashes FROM entry ORDER BY n")
	must(b.t, err)
	defer rows.Close()
	var audit ledger.Audit
	for next := 0; rows.Next(); next++ {
		var n int
		var line, hashes []byte
		must(b.t, rows.Scan(&n, &line, &hashes))
		e, err := ledger.Parse(line)
		must(b.t, err)
		if err := audit.Next(line, hashes); err != nil || n != next {
			b.t.Errorf("entry %d, in place of %d: %v", n, next, err)
		}
		do(e)
	}
	must(b.t, rows.Err())
}

// entered fails the test when a result is not as the ledger has it.
func (b *bench) entered(p spool.Place, name string) {
	b.t.Helper()
	path := filepath.Join(b.spool.Path(p), name, sidecar.Name)
	data, err := os.ReadFile(path)
	must(b.t, err)
	r := b.result(p, name)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.where.Dir, journal.Name)+"?mode=ro&_pragma=busy_timeout(5000)")
	must(b.t, err)
	defer db.Close()
	var line []byte
	must(b.t, db.QueryRow("SELECT line FROM entry WHERE life = ? ORDER BY n DESC LIMIT 1", r.ID).Scan(&line))
	e, err := ledger.Parse(line)
	must(b.t, err)
	sum := sha256.Sum256(data)
	if e.SHA256 != hex.EncodeToString(sum[:]) || e.Place != string(p) {
		b.t.Errorf("the result in %s/%s is not as it was entered: %s\n%s", p, name, line, data)
	}
}

// verified fails the test when ledger verify finds anything; but what somebody
// did to the folders of these ids is no finding.
func (b *bench) verified(meant func(verify.Finding) bool) {
	b.t.Helper()
	r, err := journal.OpenReader(context.Background(), b.where)
	must(b.t, err)
	defer r.Close()
	_, err = verify.All(context.Background(), verify.Options{Paths: b.spool.Paths(), Reader: r, Marker: limits.Marker, Settle: time.Millisecond, Told: func(int, int) {}, Found: func(f verify.Finding) {
		if !meant(f) {
			b.t.Errorf("ledger verify: %+v", f)
		}
	}})
	must(b.t, err)
}
