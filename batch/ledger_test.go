package batch_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/verify"
	"idenfy-batch/sidecar"
)

// template holds the files of a new journal, and of its mark, by their names:
// making one anew for each of so many spools would be most of their work.
var template = sync.OnceValue(func() map[string][]byte {
	dir, err := os.MkdirTemp("", "idenfy-batch-test-")
	check(err)
	where := journal.Where{Dir: dir, Mark: dir}
	j, err := journal.Create(where)
	check(err)
	check(j.Close())
	witness(where)
	files := map[string][]byte{}
	names, err := os.ReadDir(dir)
	check(err)
	for _, e := range names {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		check(err)
		files[e.Name()] = data
	}
	check(os.RemoveAll(dir))
	return files
})

// check is for what belongs to no test.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

// newJournal puts a new journal where it belongs.
func newJournal(t testing.TB, w journal.Where) {
	t.Helper()
	must(t, os.Mkdir(w.Dir, 0o750))
	for name, data := range template() {
		dir := w.Dir
		if !strings.HasPrefix(name, journal.Name) {
			dir = w.Mark
		}
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o640))
	}
}

// witness has the database itself count the ends of lives, whatever code makes
// them: what the ledger is held against.
func witness(w journal.Where) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(w.Dir, journal.Name))
	check(err)
	_, err = db.Exec(`CREATE TABLE witness (life TEXT NOT NULL, kind TEXT NOT NULL);
		CREATE TRIGGER witness_end AFTER UPDATE ON life WHEN old.state IN ('claimed', 'pending') AND new.state IN ('ended', 'filed', 'away')
			OR old.state IN ('filed', 'away') AND new.state = 'ended' OR old.state = 'ended' AND new.state <> 'ended' AND new.place = '' BEGIN INSERT INTO witness VALUES (new.id, 'ended'); END;
		CREATE TRIGGER witness_decision AFTER INSERT ON decision BEGIN INSERT INTO witness VALUES (new.life, 'decided'); END`)
	check(errors.Join(err, db.Close()))
}

// ledgerHolds holds the ledger against its tree, and against what the database
// counted: nothing is missing, and nothing was entered twice.
func (b *bench) ledgerHolds() {
	b.t.Helper()
	db := b.database()
	defer db.Close()
	newest, made := map[string]ledger.Entry{}, map[string]int{}
	b.audit(db, func(e ledger.Entry) {
		if e.Kind == ledger.Verdict { // of what iDenfy said
			return
		}
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

// database opens the journal's database, to read.
func (b *bench) database() *sql.DB {
	b.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.where.Dir, journal.Name)+"?mode=ro&_pragma=busy_timeout(5000)")
	must(b.t, err)
	db.SetMaxOpenConns(1)
	return db
}

// attempted calls do for each life in work, with the hash of its token, the name
// of its folder and the state of its last attempt.
func (b *bench) attempted(do func(token, folder string, s sidecar.State)) {
	b.t.Helper()
	db := b.database()
	defer db.Close()
	rows, err := db.Query(`SELECT coalesce(token, ''), folder, attempt.state FROM life JOIN attempt ON life = id AND n = (SELECT max(n) FROM attempt WHERE life = id)
		WHERE life.state NOT IN ('filed', 'away')`)
	must(b.t, err)
	defer rows.Close()
	for rows.Next() {
		var tok, folder string
		var s sidecar.State
		must(b.t, rows.Scan(&tok, &folder, &s))
		do(tok, folder, s)
	}
	must(b.t, rows.Err())
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
func (b *bench) entered(j *journal.Reader, p spool.Place, name string) {
	b.t.Helper()
	path := filepath.Join(b.spool.Path(p), name, sidecar.Name)
	data, err := os.ReadFile(path)
	must(b.t, err)
	rows, err := j.Entries(context.Background(), journal.Entries{Life: b.result(p, name).ID, Most: 1})
	must(b.t, err)
	if len(rows) == 0 {
		b.t.Fatalf("the result in %s/%s was not entered", p, name)
	}
	e, err := ledger.Parse([]byte(rows[0].Line))
	must(b.t, err)
	if e.SHA256 != sha(data) || e.Place != string(p) {
		b.t.Errorf("the result in %s/%s is not as it was entered: %s\n%s", p, name, rows[0].Line, data)
	}
}

// verified fails the test when ledger verify finds anything; but what somebody
// did to the folders of these ids is no finding.
func (b *bench) verified(j *journal.Reader, meant func(verify.Finding) bool) {
	b.t.Helper()
	_, err := verify.All(context.Background(), verify.Options{Paths: b.spool.Paths(), Reader: j, Marker: limits.Marker, Told: func(int, int) {}, Found: func(f verify.Finding) {
		if !meant(f) {
			b.t.Errorf("ledger verify: %+v", f)
		}
	}})
	must(b.t, err)
}
