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

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver
)

// Name is the database's file in the journal's directory.
const Name = "journal.db"

// version is the schema's (PRAGMA user_version). A newer program brings an
// older one up to date; an older program refuses a newer one.
const version = 3

// upgrades are what brings a schema of each version to the next one.
var upgrades = map[int]string{2: schema3}

//go:embed schema3.sql
var schema3 string

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

	w writer // of the goroutine that writes
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
	j := &Journal{path: w.path(), id: rand.Text()}
	if err := j.create(); err != nil {
		return nil, err
	}
	if err := syncDir(w.Dir); err != nil {
		return nil, err
	}
	if err := createMark(w.Mark, j.id); err != nil {
		return nil, err
	}
	return Open(w)
}

// create makes the database under another name, and then renames it: what a
// crash or a full disk leaves of it is not taken for a damaged journal.
func (j *Journal) create() error {
	if _, err := os.Lstat(j.path); err == nil {
		return &fs.PathError{Op: "create", Path: j.path, Err: fs.ErrExist}
	}
	made := j.path + ".new"
	for _, end := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(made + end); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := os.OpenFile(made, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := j.w.open(made); err != nil {
		return err
	}
	err = j.w.commit(func(t *tx) error {
		t.exec(schema)
		for v := 1; v < version; v++ {
			t.exec(upgrades[v])
		}
		t.exec(fmt.Sprintf("PRAGMA user_version = %d", version))
		t.exec("INSERT INTO journal (only, id, seq, adopted) VALUES (1, ?, 0, 0)", j.id)
		return t.err
	})
	if err == nil {
		err = j.w.settle() // the log is not renamed along
	}
	if err := errors.Join(err, j.w.close()); err != nil {
		return err
	}
	return os.Rename(made, j.path)
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
		return nil, damaged(j.path, err)
	}
	if err := j.w.check(&j.id); err != nil {
		return nil, errors.Join(damaged(j.path, err), j.w.close())
	}
	j.w.id = j.id
	if err := j.w.quickCheck(); err != nil {
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
	db, err := sql.Open("sqlite", "file:"+escape(path)+"?mode=ro&_pragma=busy_timeout(5000)&_pragma=query_only(1)&_pragma=cache_size(-1000)")
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
	return errors.Join(j.reads.Close(), j.w.close(), j.mark.close())
}

// Restore makes the journal anew from a backup, where none is any more (see
// SetAside).
func Restore(w Where, from string) error {
	if err := sound(from); err != nil {
		return err
	}
	if err := os.MkdirAll(w.Dir, 0o750); err != nil {
		return err
	}
	if err := backup(context.Background(), from, w.path()); err != nil {
		return err
	}
	var copied writer
	var id string
	if err := copied.open(w.path()); err != nil {
		return err
	}
	err := copied.check(&id)
	if err == nil {
		err = copied.commit(func(t *tx) error { t.exec("UPDATE journal SET adopted = 0"); return t.err })
	}
	if err := errors.Join(err, copied.close()); err != nil {
		return damaged(from, err)
	}
	return createMark(w.Mark, id)
}

// SetAside renames what there is of a journal, so that a new one can be made.
// Nothing is deleted. It returns the new name, or "" when there was nothing.
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

// ID names this journal, for ever.
func (j *Journal) ID() string { return j.id }

// Backup writes a consistent copy to the file at path, which must not exist.
// The daemon may be at work meanwhile (sqlite.org, "VACUUM INTO").
func (j *Journal) Backup(ctx context.Context, path string) error { return backup(ctx, j.path, path) }

// BackupFile is Journal.Backup of a journal that another process may have
// open.
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
	return syncDir(filepath.Dir(to))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fsync(int(d.Fd())), d.Close())
}
