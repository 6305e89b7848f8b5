package adopt_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"idenfy-batch/internal/adopt"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// ledger returns what is in the ledger, by life, and how many entries there are.
func (o *old) ledger() (by map[string]ledger.Entry, n int) {
	o.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(o.where.Dir, journal.Name)+"?mode=ro&_pragma=busy_timeout(5000)")
	must(o.t, err)
	defer db.Close()
	rows, err := db.Query("SELECT line, hashes FROM entry ORDER BY n")
	must(o.t, err)
	defer rows.Close()
	by = map[string]ledger.Entry{}
	var a ledger.Audit
	for ; rows.Next(); n++ {
		var line, hashes []byte
		must(o.t, rows.Scan(&line, &hashes))
		must(o.t, a.Next(line, hashes))
		e, err := ledger.Parse(line)
		must(o.t, err)
		by[e.ID] = e
	}
	must(o.t, rows.Err())
	return by, n
}

func (o *old) enter() {
	o.t.Helper()
	must(o.t, adopt.Enter(o.t.Context(), o.paths, o.j, func(int, int) {}))
}

// What lay in the spool before there was a ledger is entered once, with its
// result as it lies there, whatever cuts that off.
func TestEnter(t *testing.T) {
	o := newOld(t)
	ids := o.fill(450)
	held := result(sidecar.Unknown, "TOKEN-held-0123456789", attempt(sidecar.NoAnswer, 0))
	o.put(spool.Hold, "held", "TOKEN-held-0123456789", held)
	planted := result("Max Mustermann", "TOKEN-planted-0123456789")
	o.put(spool.Inbox, "planted", "TOKEN-planted-0123456789", planted)
	working := result(sidecar.Pending, "TOKEN-working-0123456789", attempt(sidecar.NoAnswer, 0))
	o.put(spool.Work, "working."+working.ID, "TOKEN-working-0123456789", working)
	o.adopt()
	ctx, cancel := context.WithCancel(t.Context())
	err := adopt.Enter(ctx, o.paths, o.j, func(int, int) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if yes, err := o.j.Entered(t.Context()); err != nil || yes {
		t.Error("it is not complete", err)
	}
	for range 2 {
		o.enter()
	}
	by, n := o.ledger()
	if yes, err := o.j.Entered(t.Context()); err != nil || !yes || n != len(by) || n != 452 {
		t.Errorf("%v, %v, %d entries of %d lives", yes, err, n, len(by))
	}
	data, err := os.ReadFile(filepath.Join(o.paths[spool.Done], "case0007", sidecar.Name))
	must(t, err)
	sum := sha256.Sum256(data)
	if e := by[ids[7]]; e.Kind != ledger.Adopted || e.Place != "done" || e.Outcome != sidecar.Accepted || e.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("%+v", e)
	}
	if e := by[held.ID]; e.Place != "hold" || e.SHA256 == "" {
		t.Errorf("%+v", e)
	}
	if e := by[planted.ID]; e.Kind != ledger.Adopted || e.Outcome != sidecar.Unknown || e.SHA256 != "" {
		t.Errorf("%+v", e)
	}

	// After a backup, what came since is entered, and nothing else.
	backup := filepath.Join(t.TempDir(), "backup")
	must(t, journal.BackupFile(t.Context(), o.where, backup))
	held.Outcome = sidecar.Accepted
	must(t, os.RemoveAll(filepath.Join(o.paths[spool.Hold], "held")))
	o.put(spool.Done, "held", "TOKEN-held-0123456789", held)
	later := result(sidecar.Rejected, "TOKEN-later-0123456789", attempt(sidecar.Answered, 400))
	o.put(spool.Failed, "later", "TOKEN-later-0123456789", later)
	must(t, o.j.Close())
	_, err = journal.Replace(o.where, backup)
	must(t, err)
	was := o.j.ID()
	o.j, err = journal.Open(o.where)
	must(t, err)
	if o.j.ID() == was {
		t.Error("it is to be another ledger")
	}
	_, err = adopt.Spool(t.Context(), o.paths, o.j, false, func(int, int) {})
	must(t, err)
	o.enter()
	by, n = o.ledger()
	if by[held.ID].Outcome != sidecar.Accepted || by[held.ID].Place != "done" || by[later.ID].Place != "failed" {
		t.Errorf("%+v, %+v", by[held.ID], by[later.ID])
	}
	if n != 454 {
		t.Errorf("%d entries", n)
	}
}
