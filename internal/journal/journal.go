// Package journal owns the daemon's own memory: which folders were claimed,
// what was sent for them, in all their lives, and what people decided. It lies
// where no uploader can reach it, and it alone says what may be sent.
//
// It is an embedded SQLite database in WAL mode with synchronous=FULL: what a
// method has returned nil for is on the disk (sqlite.org, "Write-Ahead
// Logging", "PRAGMA synchronous"). All SQL of the program is in this package.
package journal

import (
	"context"
	"crypto/rand"
	"database/sql"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	_ "modernc.org/sqlite" // the driver

	"idenfy-batch/internal/durable"
)

// Name is the database's file in the journal's directory.
const Name = "journal.db"

// version is the schema's (PRAGMA user_version). A newer program brings an
// older one up to date; an older program refuses a newer one.
const version = 9

// upgrades are what brings a schema of each version to the next one.
var upgrades = map[int]string{1: schema2, 2: schema3, 3: schema4, 4: schema5, 5: schema6, 6: schema7, 7: schema8, 8: schema9}

//go:embed schema2.sql
var schema2 string

//go:embed schema3.sql
var schema3 string

//go:embed schema4.sql
var schema4 string

//go:embed schema5.sql
var schema5 string

//go:embed schema6.sql
var schema6 string

//go:embed schema7.sql
var schema7 string

//go:embed schema8.sql
var schema8 string

//go:embed schema9.sql
var schema9 string

//go:embed schema.sql
var schema string

// UnfitError says why a journal can't be worked with, and what to do. It is no
// fault that passes by itself.
type UnfitError struct{ Why string }

func (e *UnfitError) Error() string { return e.Why }

func unfit(format string, args ...any) error { return &UnfitError{fmt.Sprintf(format, args...)} }

const mend = "; nothing is sent until that is mended: bring the newest journal back, or make a new one from the folders and their results with idenfy-batch adopt (with a backup: idenfy-batch adopt --backup FILE)"

// Journal is an open journal. Its methods are safe for concurrent use.
type Journal struct {
	path string
	id   string
	mark *mark

	reads *sql.DB
	ops   chan *op
	ended chan struct{}
	once  sync.Once

	guarding  sync.WaitGroup
	stopGuard context.CancelFunc          // nil: none was begun
	unsound   atomic.Pointer[UnfitError]  // what guard found
	trouble   atomic.Pointer[func(error)] // hears why guard could not look

	w writer // of the goroutine that writes

	shared shared
}

// Where says where a journal lies: its directory, and the directory of the
// mark that tells which journal belongs to a spool, and how far it had come.
type Where struct {
	Dir  string // of the database
	Mark string // work, which is the daemon's alone
}

func (w Where) path() string { return filepath.Join(w.Dir, Name) }

// Exists reports whether there is, or ever was, a journal there.
func (w Where) Exists() (bool, error) {
	for _, path := range []string{w.path(), filepath.Join(w.Mark, markName)} {
		_, err := os.Lstat(path)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// Create makes a journal where there is none. Whatever stands there of one
// that is not to be used any more has to be moved away first.
func Create(w Where) (*Journal, error) {
	if err := os.MkdirAll(w.Dir, 0o750); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(w.path()); err == nil {
		return nil, &fs.PathError{Op: "create", Path: w.path(), Err: fs.ErrExist}
	}
	id, err := w.make()
	if err == nil {
		err = os.Rename(w.made(), w.path())
	}
	if err == nil {
		err = durable.SyncDir(w.Dir)
	}
	if err == nil {
		err = createMark(w.Mark, id)
	}
	if err != nil {
		return nil, err
	}
	return Open(w)
}

// made is the name that a database has until it is whole: what a crash or a
// full disk leaves of it is not taken for a damaged journal.
func (w Where) made() string { return w.path() + ".new" }

// clear makes place for a database that is to be made.
func (w Where) clear() error {
	for _, end := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(w.made() + end); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// make makes an empty database, see made, and returns its id.
func (w Where) make() (id string, err error) {
	if err := w.clear(); err != nil {
		return "", err
	}
	f, err := os.OpenFile(w.made(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	id = rand.Text()
	return id, finish(w.made(), func(t *tx) error {
		t.script(schema)
		for v := 1; v < version; v++ {
			t.script(upgrades[v])
		}
		t.script(fmt.Sprintf("PRAGMA user_version = %d", version))
		t.exec("INSERT INTO journal (only, id, seq, adopted) VALUES (1, ?, 0, 0)", id)
		return t.err
	})
}

// finish changes a database that nobody else has, and brings all of it into
// its one file, synced: its log is not renamed along.
func finish(path string, do func(*tx) error) error {
	var w writer
	if err := w.open(path); err != nil {
		return err
	}
	err := w.commit(do)
	if err == nil {
		err = w.settle()
	}
	return errors.Join(err, w.close())
}

// Open opens the journal and holds it against its mark. A journal that is
// missing, damaged, of another spool, or older than it once was is an
// *UnfitError.
func Open(w Where) (*Journal, error) {
	if err := sound(w.path()); err != nil {
		return nil, err
	}
	j := &Journal{path: w.path(), ops: make(chan *op, atOnce), ended: make(chan struct{})}
	if err := j.w.open(j.path); err != nil {
		return nil, errors.Join(damaged(j.path, j.Blame(err)), j.shared.close())
	}
	if err := j.w.check(&j.id); err != nil {
		return nil, errors.Join(damaged(j.path, err), j.w.close())
	}
	j.w.id = j.id
	large, err := j.w.large()
	if err == nil && !large {
		err = j.w.integrity(j.path)
	}
	if err != nil {
		return nil, errors.Join(damaged(j.path, err), j.w.close())
	}
	m, err := openMark(w, j.id, j.w.seq)
	if err != nil {
		return nil, errors.Join(err, j.w.close())
	}
	j.mark = m
	if err := j.w.upgrade(); err != nil {
		return nil, errors.Join(damaged(j.path, err), j.w.close(), m.close())
	}
	if j.reads, err = openReads(j.path); err != nil {
		return nil, errors.Join(err, j.w.close(), m.close())
	}
	if large {
		ctx, stop := context.WithCancel(context.Background())
		j.stopGuard = stop
		j.guarding.Go(func() { j.guard(ctx) })
	}
	go j.run()
	return j, nil
}

// sound holds the size of the database against its own head: SQLite would
// take an empty file for a new database, and meet a cut one only where it
// reads (sqlite.org, "Database File Format", 1.3).
func sound(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return unfit("the journal %s is missing, though there has been one%s", path, mend)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var head [100]byte
	if _, err := io.ReadFull(f, head[:]); err != nil || string(head[:16]) != "SQLite format 3\x00" {
		return unfit("%s is damaged: it is not a database%s", path, mend)
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if log, err := os.Stat(path + "-wal"); err == nil && log.Size() > 0 {
		return nil // what is missing may be there: a full disk ends the moving half-way
	}
	page := int64(binary.BigEndian.Uint16(head[16:]))
	if page == 1 {
		page = 65536
	}
	if pages := int64(binary.BigEndian.Uint32(head[28:])); info.Size() < pages*page {
		return unfit("%s is damaged: it has %d bytes, and should have %d%s", path, info.Size(), pages*page, mend)
	}
	return nil
}

// damaged tells faults of the disk, which pass, from a damage, which doesn't.
func damaged(path string, err error) error {
	if _, known := errors.AsType[*UnfitError](err); known {
		return err
	}
	if !corrupt(err) {
		return inWords(err)
	}
	return unfit("%s is damaged (%v)%s", path, err, mend)
}

// openReads opens connections that can't write.
func openReads(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+escape(path)+"?mode=ro&_pragma=busy_timeout(5000)&_pragma=query_only(1)&_pragma=cache_size(-1000)&_pragma=temp_store(MEMORY)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(2)
	return db, nil
}

// Close ends the journal, once all that was asked of it is done. Without it
// nothing is lost.
func (j *Journal) Close() error {
	j.once.Do(func() { close(j.ops) })
	<-j.ended
	if j.stopGuard != nil {
		j.stopGuard()
		j.guarding.Wait()
	}
	return errors.Join(j.reads.Close(), j.w.close(), j.shared.close(), j.mark.close())
}

// Replace makes a new journal, from a backup if one is given, and puts it in
// the place of what there is of one, which is kept under the name that is
// returned, or "". Until the new one is whole and sound nothing is touched.
//
// A crash leaves the old journal as it was; or, once the mark is the new one's,
// one that doesn't fit its mark, which is refused until Replace is made again.
// At no time is there none, which a start might take for a spool of before.
func Replace(w Where, from string) (aside string, err error) {
	if err := os.MkdirAll(w.Dir, 0o750); err != nil {
		return "", err
	}
	var id string
	if from == "" {
		id, err = w.make()
	} else {
		id, err = w.restore(from)
	}
	if err != nil {
		return "", err
	}
	if err := createMark(w.Mark, id); err != nil {
		return "", err
	}
	if aside, err = keepAside(w); err != nil {
		return aside, err
	}
	if err := os.Rename(w.made(), w.path()); err != nil {
		return aside, err
	}
	return aside, durable.SyncDir(w.Dir)
}

// restore makes a database from a backup, see made. It is another journal from
// then on, so it gets another id, and what came after it is still to be entered.
func (w Where) restore(from string) (id string, err error) {
	if err := sound(from); err != nil {
		return "", err
	}
	if err := w.clear(); err != nil {
		return "", err
	}
	if err := backup(context.Background(), from, w.made()); err != nil {
		return "", damaged(from, err)
	}
	var copied writer
	if err := copied.open(w.made()); err != nil {
		return "", damaged(from, err)
	}
	err = copied.check(&id)
	if err == nil {
		err = copied.integrity(from)
	}
	if err == nil {
		err = copied.upgrade()
	}
	if err := errors.Join(err, copied.close()); err != nil {
		return "", damaged(from, err)
	}
	id = rand.Text()
	return id, finish(w.made(), func(t *tx) error {
		t.exec("UPDATE journal SET adopted = 0, entered = 0, id = ?", id)
		return t.err
	})
}

// keepAside gives what there is of a journal a second name, and takes its log
// along, which is not to be met by another one.
func keepAside(w Where) (aside string, err error) {
	suffix := ".aside-" + rand.Text()[:8]
	err = os.Link(w.path(), w.path()+suffix)
	if err == nil {
		aside = w.path() + suffix
	}
	for _, end := range []string{"-wal", "-shm"} {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = os.Rename(w.path()+end, w.path()+suffix+end)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = durable.SyncDir(w.Dir)
	}
	return aside, err
}

// SetAside renames what there is of a journal, so that a new one can be made.
// No data is deleted, only the mark. It returns the new name, or "" when there was nothing.
func SetAside(w Where) (string, error) {
	suffix := ".aside-" + rand.Text()[:8]
	moved := ""
	for _, end := range []string{"", "-wal", "-shm"} {
		err := os.Rename(w.path()+end, w.path()+suffix+end)
		if err == nil && end == "" {
			moved = w.path() + suffix
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return moved, err
		}
	}
	err := os.Remove(filepath.Join(w.Mark, markName))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return moved, err
}

// Adopted reports whether all that lay in the spool when the journal was made
// has been entered.
func (j *Journal) Adopted(ctx context.Context) (yes bool, err error) {
	err = j.reads.QueryRowContext(ctx, "SELECT adopted FROM journal").Scan(&yes)
	return yes, err
}

// Empty reports whether no life is known.
func (j *Journal) Empty(ctx context.Context) (yes bool, err error) {
	err = j.reads.QueryRowContext(ctx, "SELECT NOT EXISTS (SELECT 1 FROM life)").Scan(&yes)
	return yes, err
}

// SetAdopted notes that it has.
func (j *Journal) SetAdopted() error {
	return j.write(func(t *tx) error {
		t.exec("UPDATE journal SET adopted = 1")
		return t.err
	})
}

// BackupFile writes a consistent copy to the file at path, which must not
// exist. A daemon may have the journal open, and be at work meanwhile
// (sqlite.org, "VACUUM INTO").
func BackupFile(ctx context.Context, w Where, path string) error { return backup(ctx, w.path(), path) }

func backup(ctx context.Context, from, to string) (err error) {
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("%s: %w; choose another name", to, fs.ErrExist)
	}
	if _, err := os.Lstat(from); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", "file:"+escape(from)+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o640), f.Sync(), f.Close()); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(to))
}
