package journal_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/journal"
	"idenfy-batch/sidecar"
)

// lose makes the index of tokens forget its only entry, as a lost write does:
// the table has it.
func lose(t *testing.T, w journal.Where) {
	t.Helper()
	change(t, db(w), `PRAGMA writable_schema = ON;
		CREATE TABLE kept AS SELECT * FROM sqlite_schema WHERE name = 'life_token';
		DELETE FROM sqlite_schema WHERE name = 'life_token'`)
	change(t, db(w), "UPDATE life SET token = NULL WHERE token IS NOT NULL")
	change(t, db(w), "UPDATE life SET token = '"+hash("a")+"'")
	change(t, db(w), `PRAGMA writable_schema = ON; INSERT INTO sqlite_schema SELECT * FROM kept`)
	change(t, db(w), `DROP TABLE kept`)
}

// sentOnce is a closed journal with one life that was taken.
func sentOnce(t *testing.T, token string) journal.Where {
	t.Helper()
	w, j := create(t)
	q, _ := enter(t, j, token)
	_, err := j.Begin(q)
	must(t, err)
	l, err := j.Load(t.Context(), q.Life.ID)
	must(t, err)
	l.State, l.Fate, l.Result.Outcome = journal.Filed, journal.Taken, sidecar.Accepted
	must(t, j.Put(l))
	must(t, j.Close())
	return w
}

// An index that has lost an entry is found: of a small journal before it is
// worked with, of a large one beside the work.
func TestIndexLost(t *testing.T) {
	w := sentOnce(t, "b")
	lose(t, w)
	if _, err := journal.Open(w); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("small: %v", err)
	}

	w = sentOnce(t, "b")
	change(t, db(w), "UPDATE life SET record = json_set(record, '$.pad', hex(zeroblob(17000000)))")
	lose(t, w)
	j, err := journal.Open(w)
	must(t, err)
	defer j.Close()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := j.SetAdopted()
		if _, unfit := errors.AsType[*journal.UnfitError](err); unfit && strings.Contains(err.Error(), "index life_token") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("large: it is written to: %v", err)
		}
	}
}

// A backup that isn't sound changes nothing.
func TestReplaceByDamaged(t *testing.T) {
	w := sentOnce(t, "a")
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole")
	must(t, journal.BackupFile(t.Context(), w, whole))
	data, err := os.ReadFile(whole)
	must(t, err)
	for name, bad := range map[string][]byte{
		"cut": data[:len(data)/2], "zeros": append(data[:100:100], make([]byte, len(data)-100)...), "empty": nil,
		"text": []byte("no database"), "other": bytes.ReplaceAll(data, []byte("CREATE TABLE journal"), []byte("CREATE TABLE jouRnax")),
	} {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, bad, 0o600))
		if _, err := journal.Replace(w, path); err == nil {
			t.Errorf("%s was put in its place", name)
		}
		j, err := journal.Open(w)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		must(t, j.Close())
	}
	lost := sentOnce(t, "b")
	lose(t, lost)
	if _, err := journal.Replace(w, db(lost)); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a lost index: %v", err)
	}
}

// A replacement is cut off at each of its steps: there is always a journal, it
// is the old one or refused, and the same again ends it.
func TestReplaceCut(t *testing.T) {
	defer durable.Inject(nil)
	for _, from := range []string{"", "backup"} {
		for n, done := 1, false; !done; n++ {
			w := sentOnce(t, "a")
			if from != "" {
				from = filepath.Join(t.TempDir(), "copy")
				must(t, journal.BackupFile(t.Context(), w, from))
				change(t, from, "UPDATE life SET folder = 'of the backup'")
			}
			step := 0
			durable.Inject(func(_ durable.Op, path string, do func() error) error {
				if !strings.HasPrefix(path, filepath.Dir(w.Dir)) {
					return do()
				}
				if step++; step < n {
					return do()
				}
				return errors.Join(map[bool]func() error{true: do, false: func() error { return nil }}[step == n && n%2 == 0](), errors.New("cut off"))
			})
			_, err := journal.Replace(w, from)
			durable.Inject(nil)
			done = err == nil
			if _, err := os.Stat(db(w)); err != nil {
				t.Fatalf("step %d: there is no journal: %v", n, err)
			}
			if !done {
				j, err := journal.Open(w)
				switch _, unfit := errors.AsType[*journal.UnfitError](err); {
				case err == nil:
					complete := query(t, db(w), "SELECT count(*) FROM life WHERE folder = 'case' AND fate = 'taken'") == 1
					adopted, err := j.Adopted(t.Context())
					must(t, errors.Join(err, j.Close()))
					if !complete && adopted {
						t.Errorf("step %d: it is neither the old one nor to be completed", n)
					}
				case !unfit:
					t.Errorf("step %d: %v", n, err)
				}
				if _, err := journal.Replace(w, from); err != nil {
					t.Errorf("step %d: again: %v", n, err)
				}
			}
			j, err := journal.Open(w)
			if err != nil {
				t.Fatalf("step %d: %v", n, err)
			}
			if complete, err := j.Adopted(t.Context()); err != nil || complete {
				t.Errorf("step %d: %v, %v", n, complete, err)
			}
			must(t, j.Close())
			if lives := query(t, db(w), "SELECT count(*) FROM life WHERE folder = 'of the backup'"); (lives == 1) != (from != "") {
				t.Errorf("step %d: %d lives of the backup", n, lives)
			}
			if _, err := os.Stat(db(w) + ".new"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("step %d: a half one is left: %v", n, err)
			}
		}
	}
}
