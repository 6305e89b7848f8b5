package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
)

// LockedError says that another process has a lock on the journal, and so keeps
// it from being written: whoever may read it, as its group may, can do that
// (fcntl(2), F_RDLCK).
type LockedError struct {
	PID  int    // 0: the kernel doesn't say whose the lock is
	File string // that is locked
	Err  error
}

// Who names the process.
func (e *LockedError) Who() string {
	if e.PID == 0 {
		return "a process"
	}
	return fmt.Sprintf("process %d", e.PID)
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("%s holds a lock on %s: %v", e.Who(), e.File, e.Err)
}
func (e *LockedError) Unwrap() error { return e.Err }

// isBusy reports whether SQLite was kept from its work by somebody's lock.
func isBusy(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	const busy, protocol = 5, 15
	return ok && (e.Code()&0xff == busy || e.Code()&0xff == protocol) || errors.Is(err, errReaders)
}

// shared is the file by whose locks processes share a database with a log. It
// stays open while this process has the database open: closing it would take
// away all locks that SQLite has on it in this process (fcntl(2)).
type shared struct {
	mu   sync.Mutex
	file *os.File
}

// Blame adds to an error of a lock which process it is that has it, if the
// kernel says so.
func (j *Journal) Blame(err error) error { return j.shared.blame(j.path, err) }

func (s *shared) blame(path string, err error) error {
	if !isBusy(err) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open(path+"-shm") != nil {
		return err
	}
	// Its bytes (sqlite.org, "WAL-mode File Format", 2.3.1): to write, to settle and
	// recover the log, to close; readers' come last, as they are no hindrance as a rule.
	for _, at := range [][2]int64{{120, 1}, {121, 2}, {128, 1}, {123, 5}} {
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: at[0], Len: at[1]}
		if unix.FcntlFlock(s.file.Fd(), unix.F_GETLK, &lock) == nil && lock.Type != unix.F_UNLCK {
			return &LockedError{PID: int(max(lock.Pid, 0)), File: s.file.Name(), Err: err}
		}
	}
	return err
}

// open opens the file, unless it is open. One that was replaced stays open: some
// connection may be at it still.
func (s *shared) open(path string) error {
	if s.file != nil {
		return nil
	}
	f, err := os.Open(path)
	if err == nil {
		s.file = f
	}
	return err
}

func (s *shared) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
