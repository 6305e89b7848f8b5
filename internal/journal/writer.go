package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"syscall"
	"time"

	"modernc.org/sqlite"

	"idenfy-batch/internal/durable"
)

// atOnce bounds how many steps share a commit.
const atOnce = 256

// op is a step that waits for its commit.
type op struct {
	do   func(*tx) error
	err  error
	done chan struct{} // nil: nobody waits
}

// ErrClosed is what a closed journal answers.
var ErrClosed = errors.New("the journal is closed")

// ErrNotWritten is in the error of each step of a commit that failed as a whole:
// it is the journal's, whatever the step was about.
var ErrNotWritten = errors.New("the journal")

// write has do made and committed, together with what others ask for at that
// time. nil means that it is on the disk; an error, that it is not in the
// journal, and will not be; an UncertainError, that this can't be told yet.
func (j *Journal) write(do func(*tx) error) error {
	o := &op{do: do, done: make(chan struct{})}
	if err := j.send(o); err != nil {
		return err
	}
	<-o.done
	return o.err
}

func (j *Journal) send(o *op) (err error) {
	defer func() {
		if recover() != nil { // of a send on the channel that Close has closed
			err = ErrClosed
		}
	}()
	j.ops <- o
	return nil
}

// patience is how long a step that nobody waits for waits for others.
const patience = 200 * time.Millisecond

// run is the one that writes.
func (j *Journal) run() {
	defer close(j.ended)
	for first := range j.ops {
		batch := []*op{first}
		if first.done == nil {
			select {
			case o, ok := <-j.ops:
				if ok {
					batch = append(batch, o)
				}
			case <-time.After(patience):
			}
		}
		runtime.Gosched() // who is about to ask shares the commit
		for len(batch) < atOnce {
			select {
			case o, ok := <-j.ops:
				if ok {
					batch = append(batch, o)
					continue
				}
			default:
			}
			break
		}
		j.commit(batch)
	}
}

// commit makes a batch of steps in one transaction. A step that fails by
// itself is taken back alone.
func (j *Journal) commit(batch []*op) {
	err := j.w.usable(j.path, j.id)
	if found := j.unsound.Load(); err == nil && found != nil {
		err = found
	}
	if err == nil {
		err = j.w.commit(func(t *tx) error {
			for _, o := range batch {
				if o.err = t.within(o.do); t.broken != nil {
					return t.broken
				}
			}
			t.exec("UPDATE journal SET seq = seq + 1")
			return t.err
		})
	}
	if err != nil {
		err = j.Blame(err)
		for _, o := range batch {
			o.err = fmt.Errorf("%w: %w", ErrNotWritten, inWords(err))
		}
	} else {
		j.mark.set(j.w.seq)
	}
	for _, o := range batch {
		if o.done != nil {
			close(o.done)
		}
	}
}

// writer is the connection that writes, and how far it came.
type writer struct {
	path  string
	id    string // of the journal; empty while it is being made
	db    *sql.DB
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	seq   int64
}

// escape makes a path fit for a URI (sqlite.org, "Uniform Resource
// Identifiers").
func escape(path string) string { return (&url.URL{Path: path}).EscapedPath() }

func (w *writer) open(path string) (err error) {
	w.path = path
	// What is deleted is overwritten: bodies of webhooks have the person's data.
	pragmas := "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=cache_size(-2000)&_pragma=temp_store(MEMORY)&_pragma=secure_delete(ON)&mode=rw"
	if w.db, err = sql.Open("sqlite", "file:"+escape(path)+pragmas); err != nil {
		return err
	}
	w.stmts = map[string]*sql.Stmt{}
	if w.conn, err = w.db.Conn(context.Background()); err != nil {
		return errors.Join(err, w.close())
	}
	return nil
}

func (w *writer) close() error {
	var errs []error
	for _, s := range w.stmts {
		errs = append(errs, s.Close())
	}
	if w.conn != nil {
		_, _ = w.conn.ExecContext(context.Background(), "ROLLBACK") // of what a failed commit left under way, if anything
		if w.id != "" {
			w.keepLog()
		}
		errs = append(errs, w.conn.Close())
	}
	if w.db != nil {
		errs = append(errs, w.db.Close())
	}
	w.db, w.conn, w.stmts = nil, nil, nil
	return errors.Join(errs...)
}

// keepLog has the files of the log stay when the database is closed, empty:
// who may read the journal and may not write beside it can't read it without
// them (sqlite.org, "Write-Ahead Logging", read-only databases). When that
// fails, such readers are told to start the daemon.
func (w *writer) keepLog() {
	_, _ = w.conn.ExecContext(context.Background(), "PRAGMA journal_size_limit = 0")
	_ = w.conn.Raw(func(c any) error {
		file, ok := c.(sqlite.FileControl)
		if !ok {
			return errors.ErrUnsupported
		}
		_, err := file.FileControlPersistWAL("main", 1)
		return err
	})
}

// check reads what the journal says of itself.
func (w *writer) check(id *string) error {
	var v int
	ctx := context.Background()
	if err := w.conn.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
		return err
	}
	if v == 0 {
		return unfit("the journal is empty: it was replaced by another file%s", mend)
	}
	if v > version {
		return newer(v)
	}
	return w.conn.QueryRowContext(ctx, "SELECT id, seq FROM journal").Scan(id, &w.seq)
}

// upgrade brings the schema up to this program's version, in one commit.
func (w *writer) upgrade() error {
	var v int
	if err := w.conn.QueryRowContext(context.Background(), "PRAGMA user_version").Scan(&v); err != nil || v == version {
		return err
	}
	return w.commit(func(t *tx) error {
		for ; v < version; v++ {
			t.script(upgrades[v])
		}
		t.script(fmt.Sprintf("PRAGMA user_version = %d", version))
		t.exec("UPDATE journal SET seq = seq + 1")
		return t.err
	})
}

// bearable is the size up to which all of a database is looked at before it is
// worked with, in bytes: that takes some 6 ms a MiB, and twice that when none of it is in
// memory. For a larger one see guard.
const bearable = 32 << 20

func (w *writer) large() (bool, error) {
	info, err := os.Stat(w.path)
	return err == nil && info.Size() > bearable, err
}

// integrity looks for damage, in the indices as well (sqlite.org, "PRAGMA
// integrity_check"). name is what the database is called for people.
func (w *writer) integrity(name string) error {
	var says string
	if err := w.conn.QueryRowContext(context.Background(), "PRAGMA integrity_check(1)").Scan(&says); err != nil {
		return err
	}
	if says != "ok" {
		return unfit("%s is damaged (%s)%s", name, says, mend)
	}
	return nil
}

// guardAfter leaves the disk to the first folders after a start.
const guardAfter = 5 * time.Second

// guardAgain is how long guard waits when it could not look.
const guardAgain = 10 * time.Minute

// guard looks at all of a large database beside the work: 200,000 lives, which
// are 1 GB, take 6 s, and 13 s when none of it is in memory. When it is
// damaged nothing is written any more, and so nothing is sent: an index that
// has lost a life would let it be sent again. What keeps it from looking is
// told, and it looks again.
func (j *Journal) guard(ctx context.Context) {
	for wait := guardAfter; ; wait = guardAgain {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		says, err := lookAtAll(ctx, j.path)
		switch {
		case ctx.Err() != nil:
			return
		case corrupt(err):
			says = err.Error()
		case err != nil:
			if told := j.trouble.Load(); told != nil {
				(*told)(inWords(err))
			}
			continue
		}
		if says != "ok" {
			j.unsound.Store(&UnfitError{fmt.Sprintf("%s is damaged (%s)%s", j.path, says, mend)})
		}
		return
	}
}

// lookAtAll has a connection of its own: the others are for questions.
func lookAtAll(ctx context.Context, path string) (says string, err error) {
	db, err := openReads(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&says)
	return says, err
}

// Tell has trouble told why a large database could not be looked at for damage;
// that is tried again.
func (j *Journal) Tell(trouble func(error)) { j.trouble.Store(&trouble) }

// usable opens the database again after a failure.
func (w *writer) usable(path, id string) error {
	if w.conn != nil {
		return nil
	}
	if err := sound(path); err != nil {
		return err
	}
	if err := w.open(path); err != nil {
		return err
	}
	was := w.seq
	var is string
	err := w.settle()
	if err == nil {
		err = w.check(&is)
	}
	if err == nil && (is != id || w.seq < was) {
		err = unfit("the journal was replaced by another file while the daemon ran%s", mend)
	}
	if err != nil {
		w.seq = was
		return errors.Join(err, w.close())
	}
	return nil
}

// settle makes what the log holds a part of the database, by writing it there
// anew and syncing that: the sync of a log that failed once proves nothing
// when it is repeated (fsync(2)).
func (w *writer) settle() error {
	var busy, logged, moved int
	row := w.conn.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint(TRUNCATE)")
	if err := row.Scan(&busy, &logged, &moved); err != nil {
		return err
	}
	if busy != 0 {
		return errReaders
	}
	return nil
}

var errReaders = errors.New("somebody reads the database for long, so that its log can't be settled")

// commit makes do in a transaction. When the commit fails, the database is
// opened again to see what became of it: it is never taken for done, nor for
// undone, without looking.
func (w *writer) commit(do func(*tx) error) error {
	ctx := context.Background()
	t := &tx{w: w}
	if t.exec("BEGIN IMMEDIATE"); t.err != nil {
		return errors.Join(t.err, w.close())
	}
	if err := do(t); err != nil {
		_, _ = w.conn.ExecContext(ctx, "ROLLBACK") // closing does it as well
		return errors.Join(err, w.close())
	}
	err := durable.Commit(w.path, func() error {
		t.exec("COMMIT")
		return t.err
	})
	if err != nil {
		return w.look(err)
	}
	w.seq++
	return nil
}

// look tells whether a commit that failed is in the database.
func (w *writer) look(failed error) error {
	before := w.seq
	failed = errors.Join(failed, w.close())
	if err := w.open(w.path); err != nil {
		return &UncertainError{errors.Join(failed, err)}
	}
	var id string
	err := errors.Join(w.settle(), w.check(&id))
	if err == nil && (w.id != "" && id != w.id || w.seq < before) {
		err = unfit("the journal was replaced by another file while the daemon ran%s", mend)
	}
	if err != nil {
		w.seq = before
		return &UncertainError{errors.Join(failed, err, w.close())}
	}
	if w.seq > before {
		return nil // it is there, and on the disk by now
	}
	return failed
}

// UncertainError says that a commit failed and that it can't be looked up yet
// whether it was made: whoever asked has to read the journal before it goes
// on.
type UncertainError struct{ Err error }

func (e *UncertainError) Error() string {
	return fmt.Sprintf("whether it was recorded can't be told yet: %v", e.Err)
}
func (e *UncertainError) Unwrap() error { return e.Err }

// inWords adds to an error of SQLite the system's error that it stands for, so
// that it is said, and known, like any other of the disk.
func inWords(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	const ioErr, readOnly, full, cantOpen = 10, 8, 13, 14
	for code, errno := range map[int]syscall.Errno{ioErr: syscall.EIO, readOnly: syscall.EROFS, full: syscall.ENOSPC, cantOpen: syscall.EIO} {
		if e.Code()&0xff == code {
			return fmt.Errorf("%w (%w)", errno, err)
		}
	}
	return err
}

// corrupt reports whether SQLite says that the file is no sound database
// (sqlite.org, "Result and Error Codes").
func corrupt(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	const corruptCode, notADB = 11, 26
	return ok && (e.Code()&0xff == corruptCode || e.Code()&0xff == notADB)
}

// cantOpen reports whether SQLite could not open the files beside a database
// that it could open: they are missing, or can't be made.
func cantOpen(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	const cantOpenCode, readOnly = 14, 8
	return ok && (e.Code()&0xff == cantOpenCode || e.Code()&0xff == readOnly)
}

// tx is a transaction under way. The first error stays.
type tx struct {
	w      *writer
	err    error
	broken error // of the transaction as a whole
}

// within makes one step so that it can be taken back alone.
func (t *tx) within(do func(*tx) error) error {
	t.exec("SAVEPOINT step")
	if t.broken = t.err; t.broken != nil {
		return t.broken
	}
	err := do(t)
	if err == nil {
		err = t.err
	}
	t.err = nil
	if err != nil {
		t.exec("ROLLBACK TO step")
	}
	t.exec("RELEASE step")
	t.broken = t.err
	return errors.Join(err, t.err)
}

// stmt returns a prepared statement, which lives as long as the connection.
func (t *tx) stmt(query string) *sql.Stmt {
	if s := t.w.stmts[query]; s != nil {
		return s
	}
	s, err := t.w.conn.PrepareContext(context.Background(), query)
	if err != nil {
		t.err = err
		return nil
	}
	t.w.stmts[query] = s
	return s
}

// exec makes one statement, and returns how many rows it changed.
func (t *tx) exec(query string, args ...any) (changed int64) {
	if t.err != nil {
		return 0
	}
	s := t.stmt(query)
	if s == nil {
		return 0
	}
	r, err := s.ExecContext(context.Background(), args...)
	if err == nil {
		changed, err = r.RowsAffected()
	}
	t.err = err
	return changed
}

// script makes several statements, of a schema as a rule, which are not kept
// prepared.
func (t *tx) script(queries string) {
	if t.err == nil {
		_, t.err = t.w.conn.ExecContext(context.Background(), queries)
	}
}

// row reads one row; found is false when there is none.
func (t *tx) row(query string, args []any, dest ...any) (found bool) {
	if t.err != nil {
		return false
	}
	s := t.stmt(query)
	if s == nil {
		return false
	}
	switch err := s.QueryRowContext(context.Background(), args...).Scan(dest...); {
	case err == nil:
		return true
	case !errors.Is(err, sql.ErrNoRows):
		t.err = err
	}
	return false
}

// each calls scan for each row.
func (t *tx) each(query string, args []any, scan func(*sql.Rows) error) {
	if t.err != nil {
		return
	}
	s := t.stmt(query)
	if s == nil {
		return
	}
	rows, err := s.QueryContext(context.Background(), args...)
	if err != nil {
		t.err = err
		return
	}
	for rows.Next() && err == nil {
		err = scan(rows)
	}
	t.err = errors.Join(err, rows.Err(), rows.Close())
}
