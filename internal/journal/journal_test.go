package journal_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"idenfy-batch/internal/durable"
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

func newWhere(t *testing.T) journal.Where {
	t.Helper()
	root := t.TempDir()
	w := journal.Where{Dir: filepath.Join(root, "journal"), Mark: filepath.Join(root, "work")}
	must(t, os.Mkdir(w.Mark, 0o700))
	return w
}

// create makes a journal that is closed at the end of the test.
func create(t *testing.T) (journal.Where, *journal.Journal) {
	t.Helper()
	w := newWhere(t)
	j, err := journal.Create(w)
	must(t, err)
	t.Cleanup(func() { _ = j.Close() }) // it may be closed by then
	return w, j
}

func db(w journal.Where) string { return filepath.Join(w.Dir, journal.Name) }

// claimed begins a life, and returns its id.
func claimed(t *testing.T, j *journal.Journal, folder string) string {
	t.Helper()
	id := spool.NewID()
	must(t, j.Claim(id, "inbox", folder))
	return id
}

// knows reports whether a life is in the journal.
func knows(t *testing.T, j *journal.Journal, id string) bool {
	t.Helper()
	l, err := j.Load(t.Context(), id)
	must(t, err)
	return l != nil
}

// query reads one number of the database file, aside of the journal.
func query(t *testing.T, path, text string) (n int64) {
	t.Helper()
	d, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	must(t, err)
	defer d.Close()
	must(t, d.QueryRow(text).Scan(&n))
	return n
}

// idOf is the id of a journal.
func idOf(t *testing.T, w journal.Where) (id string) {
	t.Helper()
	d, err := sql.Open("sqlite", "file:"+db(w)+"?_pragma=busy_timeout(5000)")
	must(t, err)
	defer d.Close()
	must(t, d.QueryRow("SELECT id FROM journal").Scan(&id))
	return id
}

// change changes the database file of a closed journal.
func change(t *testing.T, path, text string) {
	t.Helper()
	d, err := sql.Open("sqlite", "file:"+path)
	must(t, err)
	_, err = d.Exec(text)
	must(t, errors.Join(err, d.Close()))
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, data, 0o600))
}

// unfit checks that a journal is refused for good, with a text that says why
// and what to do.
func unfit(t *testing.T, w journal.Where, says, do string) {
	t.Helper()
	j, err := journal.Open(w)
	if err == nil {
		t.Errorf("it was opened, and should say %q", says)
		must(t, j.Close())
		return
	}
	if _, ok := errors.AsType[*journal.UnfitError](err); !ok || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), do) {
		t.Errorf("%v (%T); want %q, and %q", err, err, says, do)
	}
}

const adopted = "idenfy-batch adopt"

func TestCreateOpenClose(t *testing.T) {
	w := newWhere(t)
	if there, err := w.Exists(); err != nil || there {
		t.Error(there, err)
	}
	j, err := journal.Create(w)
	must(t, err)
	id := claimed(t, j, "case")
	if there, err := w.Exists(); err != nil || !there {
		t.Error(there, err)
	}
	if _, err := journal.Create(w); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second one was made: %v", err)
	}
	name := idOf(t, w)
	must(t, j.Close())
	if err := j.Claim(spool.NewID(), "inbox", "late"); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	j.Filed(id, "done", "late") // nobody waits for it, and nothing happens
	j, err = journal.Open(w)
	must(t, err)
	defer j.Close()
	if idOf(t, w) != name || !knows(t, j, id) {
		t.Errorf("it is another one, or forgot")
	}
	info, err := os.Stat(db(w))
	must(t, err)
	if info.Mode().Perm()&0o007 != 0 {
		t.Errorf("others may read it: %v", info.Mode())
	}
	must(t, os.Remove(db(w))) // the mark alone tells that there was one
	if there, err := w.Exists(); err != nil || !there {
		t.Error(there, err)
	}
	if yes, err := j.Adopted(t.Context()); err != nil || yes {
		t.Error(yes, err)
	}
	must(t, j.SetAdopted())
	if yes, err := j.Adopted(t.Context()); err != nil || !yes {
		t.Error(yes, err)
	}
}

// Steps that are asked for at one time share commits, and each is there after
// its method has returned.
func TestGroupCommit(t *testing.T) {
	w, j := create(t)
	before := query(t, db(w), "SELECT seq FROM journal")
	const each, many = 10, 64
	ids := make([]string, each*many)
	var group sync.WaitGroup
	for n := range many {
		group.Go(func() {
			for i := range each {
				id := spool.NewID()
				if err := j.Claim(id, "inbox", "case"); err != nil {
					t.Error(err)
				}
				ids[n*each+i] = id
			}
		})
	}
	group.Wait()
	// As another process would find it, with nothing closed in order.
	if n := query(t, db(w), "SELECT count(*) FROM life"); n != each*many {
		t.Errorf("%d lives", n)
	}
	commits := query(t, db(w), "SELECT seq FROM journal") - before
	if commits < each || commits > each*many/2 {
		t.Errorf("%d steps took %d commits", each*many, commits)
	}
	must(t, j.Close())
	j, err := journal.Open(w)
	must(t, err)
	defer j.Close()
	for _, id := range ids {
		if !knows(t, j, id) {
			t.Fatalf("%s is not there", id)
		}
	}
	t.Logf("%d steps in %d commits", each*many, commits)
}

// hold keeps the first commit of the journal at path until it is let go, so
// that what is asked for meanwhile shares the next one.
func hold(t *testing.T, path string, then func(n int64, do func() error) error) (held, letGo chan struct{}) {
	t.Helper()
	held, letGo = make(chan struct{}), make(chan struct{})
	var n atomic.Int64
	durable.Inject(func(op durable.Op, at string, do func() error) error {
		if op != durable.OpCommit || at != path {
			return do()
		}
		k := n.Add(1)
		if k == 1 {
			close(held)
			<-letGo
		}
		return then(k, do)
	})
	t.Cleanup(func() { durable.Inject(nil) })
	return held, letGo
}

// A step that fails by itself is taken back alone: those that share its commit
// are done.
func TestFailsAlone(t *testing.T) {
	w, j := create(t)
	twice := claimed(t, j, "twice")
	held, letGo := hold(t, db(w), func(_ int64, do func() error) error { return do() })
	before := query(t, db(w), "SELECT seq FROM journal")
	errs := make([]error, 9)
	ids := make([]string, len(errs))
	var group sync.WaitGroup
	group.Go(func() { errs[0] = j.SetAdopted() })
	<-held
	for n := 1; n < len(errs); n++ {
		ids[n] = spool.NewID()
		if n == 4 {
			ids[n] = twice // it is there already
		}
		group.Go(func() { errs[n] = j.Claim(ids[n], "inbox", fmt.Sprint("case", n)) })
	}
	time.Sleep(100 * time.Millisecond) // they are on their way
	close(letGo)
	group.Wait()
	for n, err := range errs {
		if (err != nil) != (n == 4) {
			t.Errorf("step %d: %v", n, err)
		}
		if n > 0 && !knows(t, j, ids[n]) {
			t.Errorf("step %d is not there", n)
		}
	}
	if commits := query(t, db(w), "SELECT seq FROM journal") - before; commits > 5 {
		t.Errorf("they did not share: %d commits", commits)
	}
	l, err := j.Load(t.Context(), twice)
	must(t, err)
	if l.Result.Folder != "twice" {
		t.Errorf("what failed was done: %+v", l.Result)
	}
}

// A commit that fails is looked up: nil only if it is there after a start from
// the files, an error only if it isn't.
func TestCommitFails(t *testing.T) {
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprintf("applied %v", applied), func(t *testing.T) {
			w, j := create(t)
			first := claimed(t, j, "first")
			fails := errors.New("injected")
			held, letGo := hold(t, db(w), func(n int64, do func() error) error {
				switch {
				case n != 2:
					return do()
				case applied:
					return errors.Join(do(), fails)
				default:
					return fails
				}
			})
			var group sync.WaitGroup
			group.Go(func() {
				if err := j.SetAdopted(); err != nil {
					t.Error(err)
				}
			})
			<-held
			errs, ids := make([]error, 5), make([]string, 5)
			for n := range errs {
				ids[n] = spool.NewID()
				group.Go(func() { errs[n] = j.Claim(ids[n], "inbox", "case") })
			}
			time.Sleep(50 * time.Millisecond)
			close(letGo)
			group.Wait()
			failed := 0
			for _, err := range errs {
				if err != nil {
					failed++
				}
				if _, uncertain := errors.AsType[*journal.UncertainError](err); uncertain || err != nil && !errors.Is(err, fails) {
					t.Error(err)
				}
			}
			if applied != (failed == 0) {
				t.Errorf("%d of %d failed", failed, len(errs))
			}
			after := claimed(t, j, "after") // it goes on
			must(t, j.Close())
			j, err := journal.Open(w)
			must(t, err)
			defer j.Close()
			for n, err := range errs {
				if (err == nil) != knows(t, j, ids[n]) {
					t.Errorf("%v, and it is there: %v", err, err != nil)
				}
			}
			if !knows(t, j, first) || !knows(t, j, after) {
				t.Error("others were lost")
			}
		})
	}
}

// A commit of which nobody can say what became of it is said to be uncertain;
// what the journal tells later is the truth.
func TestUncertain(t *testing.T) {
	w, j := create(t)
	aside := db(w) + ".aside"
	var once atomic.Bool
	durable.Inject(func(op durable.Op, at string, do func() error) error {
		if op != durable.OpCommit || at != db(w) || once.Swap(true) {
			return do()
		}
		err := do()
		return errors.Join(err, os.Rename(db(w), aside), errors.New("injected")) // it can't be looked at
	})
	t.Cleanup(func() { durable.Inject(nil) })
	id := spool.NewID()
	err := j.Claim(id, "inbox", "case")
	if _, ok := errors.AsType[*journal.UncertainError](err); !ok {
		t.Errorf("%v (%T)", err, err)
	}
	if err := j.Claim(spool.NewID(), "inbox", "next"); err == nil {
		t.Error("it went on without its file")
	}
	must(t, os.Rename(aside, db(w)))
	next := claimed(t, j, "next")
	must(t, j.Close())
	if j, err = journal.Open(w); err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if !knows(t, j, next) {
		t.Error("the one after it is not there")
	}
}

// What is not the journal of this spool, as it was, is refused with a word that
// says what to do; nothing is made in its place.
func TestUnfit(t *testing.T) {
	for name, c := range map[string]struct {
		spoil    func(t *testing.T, w journal.Where)
		says, do string
	}{
		"missing":   {func(t *testing.T, w journal.Where) { must(t, os.Remove(db(w))) }, "is missing", adopted},
		"empty":     {func(t *testing.T, w journal.Where) { must(t, os.Truncate(db(w), 0)) }, "is damaged", adopted},
		"zeros":     {func(t *testing.T, w journal.Where) { overwrite(t, db(w), 0, 1<<20) }, "is damaged", adopted},
		"truncated": {func(t *testing.T, w journal.Where) { cut(t, db(w)) }, "is damaged", adopted},
		"damaged":   {func(t *testing.T, w journal.Where) { overwrite(t, db(w), 100, 8000) }, "is damaged", adopted},
		"other spool's": {func(t *testing.T, w journal.Where) {
			other, j := create(t)
			for range 30 {
				claimed(t, j, "case")
			}
			must(t, j.Close())
			copyFile(t, db(other), db(w))
		}, "another spool", adopted},
		"an empty database": {func(t *testing.T, w journal.Where) {
			must(t, os.Remove(db(w)))
			change(t, db(w), "CREATE TABLE x (y)")
		}, "was replaced", adopted},
		"no mark":      {func(t *testing.T, w journal.Where) { must(t, os.Remove(filepath.Join(w.Mark, ".journal"))) }, "has no mark", "mount the right file system"},
		"newer schema": {func(t *testing.T, w journal.Where) { change(t, db(w), "PRAGMA user_version = 1000") }, "newer idenfy-batch", "install that one again"},
	} {
		t.Run(name, func(t *testing.T) {
			w, j := create(t)
			for range 20 {
				claimed(t, j, "case")
			}
			must(t, j.Close())
			c.spoil(t, w)
			unfit(t, w, c.says, c.do)
			unfit(t, w, c.says, c.do) // nor the second time
		})
	}
}

func overwrite(t *testing.T, path string, at, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	info, err := f.Stat()
	must(t, err)
	_, err = f.WriteAt(make([]byte, min(n, int(info.Size())-at)), int64(at))
	must(t, errors.Join(err, f.Close()))
}

func cut(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	must(t, os.Truncate(path, info.Size()-4096))
}

// An older copy, put back later, and a journal whose log was deleted, are known
// by the mark.
func TestOlder(t *testing.T) {
	for _, name := range []string{"older copy", "log deleted"} {
		t.Run(name, func(t *testing.T) {
			w, j := create(t)
			claimed(t, j, "first")
			must(t, j.Close()) // now all is in the one file
			j, err := journal.Open(w)
			must(t, err)
			if name == "older copy" {
				copyFile(t, db(w), db(w)+".copy")
			}
			last := claimed(t, j, "last")
			if name == "log deleted" { // as a crash leaves it
				copyFile(t, db(w), db(w)+".copy")
				copyFile(t, db(w)+"-wal", db(w)+".copy-wal")
			}
			must(t, j.Close())
			must(t, os.Rename(db(w)+".copy", db(w)))
			unfit(t, w, "older than it was", adopted)
			if name == "log deleted" { // with it, all is well
				must(t, os.Rename(db(w)+".copy-wal", db(w)+"-wal"))
				j, err := journal.Open(w)
				must(t, err)
				defer j.Close()
				if !knows(t, j, last) {
					t.Error("the last step is not there")
				}
			}
		})
	}
}

// A file that is put in the journal's place while it is open is met at the
// latest after the first failure.
func TestReplacedWhileOpen(t *testing.T) {
	w, j := create(t)
	claimed(t, j, "case")
	other, k := create(t)
	must(t, k.Close())
	copyFile(t, db(other), db(w)+".other")
	var once atomic.Bool
	durable.Inject(func(op durable.Op, at string, do func() error) error {
		if op != durable.OpCommit || at != db(w) || once.Swap(true) {
			return do()
		}
		return errors.Join(errors.New("injected"), os.Remove(db(w)+"-wal"), os.Remove(db(w)+"-shm"), os.Rename(db(w)+".other", db(w)))
	})
	t.Cleanup(func() { durable.Inject(nil) })
	for n := range 3 {
		if err := j.Claim(spool.NewID(), "inbox", "case"); err == nil {
			t.Errorf("step %d went into another spool's journal", n)
		}
	}
}

// What a full disk or a crash leaves of a journal that was being made is no
// journal, and the next try makes one.
func TestCreateFails(t *testing.T) {
	w := newWhere(t)
	durable.Inject(func(op durable.Op, at string, do func() error) error {
		if op != durable.OpCommit || !strings.HasPrefix(at, w.Dir) {
			return do()
		}
		return errors.New("injected")
	})
	t.Cleanup(func() { durable.Inject(nil) })
	if _, err := journal.Create(w); err == nil {
		t.Fatal("it was made")
	}
	if there, err := w.Exists(); err != nil || there {
		t.Error("something is taken for a journal", err)
	}
	durable.Inject(nil)
	j, err := journal.Create(w)
	must(t, err)
	must(t, j.Close())
}

// A crash between making a journal and its mark leaves an empty one, which is
// taken up; a mark that can't be read is mended by the next commit.
func TestMark(t *testing.T) {
	w, j := create(t)
	must(t, j.Close())
	path := filepath.Join(w.Mark, ".journal")
	must(t, os.Remove(path))
	j, err := journal.Open(w)
	must(t, err)
	must(t, os.WriteFile(path, []byte("?"), 0o600))
	must(t, j.Close())
	j, err = journal.Open(w)
	must(t, err)
	claimed(t, j, "case")
	must(t, j.Close())
	data, err := os.ReadFile(path)
	must(t, err)
	if !strings.HasPrefix(string(data), "idenfy-batch/mark/v1 "+idOf(t, w)) {
		t.Errorf("the mark: %q", data)
	}
}

// A copy that is made while others write is a whole journal, and knows what was
// there when it began.
func TestBackup(t *testing.T) {
	w, j := create(t)
	first := claimed(t, j, "first")
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				id := spool.NewID()
				// Two rows that belong together.
				l := &journal.Life{ID: id, State: journal.Pending, Took: true, Fate: journal.Unsettled, Result: &sidecar.Result{ID: id, Attempts: []sidecar.Attempt{{N: 1, Started: sidecar.Now(), State: sidecar.Sending}}}}
				if err := errors.Join(j.Claim(id, "inbox", "case"), j.Put(l)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	copies := t.TempDir()
	path := filepath.Join(copies, "a")
	time.Sleep(20 * time.Millisecond)
	must(t, journal.BackupFile(t.Context(), w, path))
	must(t, journal.BackupFile(t.Context(), w, filepath.Join(copies, "b")))
	close(stop)
	group.Wait()
	if err := journal.BackupFile(t.Context(), w, path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("it was replaced: %v", err)
	}
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(copies, name)
		if n := query(t, path, "SELECT count(*) FROM life WHERE took = 1 AND NOT EXISTS (SELECT 1 FROM attempt WHERE life = id)"); n != 0 {
			t.Errorf("%d lives are half there", n)
		}
		if n := query(t, path, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"); n != 0 {
			t.Error("it is not sound")
		}
	}
	must(t, j.Close())
	aside, err := journal.Replace(w, path)
	must(t, err)
	if n := query(t, aside, "SELECT count(*) FROM life"); n == 0 {
		t.Error("the journal that was there is not kept")
	}
	j, err = journal.Open(w)
	must(t, err)
	defer j.Close()
	if !knows(t, j, first) {
		t.Error("the first is not in it")
	}
	// What came after the backup is adopted, and then it is complete again.
	if yes, err := j.Adopted(context.Background()); err != nil || yes {
		t.Error(yes, err)
	}
	later := spool.NewID()
	must(t, j.Adopt([]journal.Adopted{{Lives: []*journal.Life{
		{ID: first, State: journal.Filed, Fate: journal.Taken, Took: true, Place: "done", Name: "first", Result: &sidecar.Result{ID: first, Outcome: sidecar.Accepted}},
	}}, {Lives: []*journal.Life{
		{ID: later, State: journal.Filed, Fate: journal.Refused, Place: "failed", Name: "later", Result: &sidecar.Result{ID: later, Outcome: sidecar.Rejected}},
	}}}))
	l, err := j.Load(t.Context(), first)
	must(t, err)
	if l.Fate != journal.Taken || l.Place != "done" || !knows(t, j, later) {
		t.Errorf("%+v", l)
	}
}

// A thousand attempts are the first, the last, and a number.
func TestFolded(t *testing.T) {
	w, j := create(t)
	id := claimed(t, j, "case")
	l, err := j.Load(t.Context(), id)
	must(t, err)
	l.State = journal.Pending
	const all = 1000
	for n := range all {
		r := l.Result
		r.Attempts = append(r.Attempts, sidecar.Attempt{N: n + 1, Started: sidecar.Now(), State: sidecar.Sending})
		must(t, j.Put(l))
		r.LastAttempt().State = sidecar.NotSent
		must(t, j.Put(l))
		if n%100 == 50 { // as each visit does
			l, err = j.Load(t.Context(), id)
			must(t, err)
		}
	}
	l, err = j.Load(t.Context(), id)
	must(t, err)
	kept := l.Result.Attempts
	if rows := query(t, db(w), "SELECT count(*) FROM attempt"); rows != 50 || len(kept) != 50 || l.Result.Omitted != all-50 {
		t.Errorf("%d rows, %d kept, %d omitted", rows, len(kept), l.Result.Omitted)
	}
	if kept[0].N != 1 || kept[9].N != 10 || kept[10].N != all-39 || kept[49].N != all || kept[49].State != sidecar.NotSent {
		t.Errorf("kept %d, %d, %d … %d", kept[0].N, kept[9].N, kept[10].N, kept[49].N)
	}
}
