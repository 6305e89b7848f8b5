package durable

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// place names a directory, whatever its path is.
type place struct{ dev, ino uint64 }

// shares holds a share for each directory that Rename has synced: the few of a
// spool.
var shares sync.Map

// share has those that want a directory synced at the same time share one
// fsync(2): a sync that begins after a rename covers it, whoever asked.
type share struct {
	syncing sync.Mutex // held by the one that syncs

	mu   sync.Mutex
	next *round // that those who come now are part of; nil: there is none yet
}

// round is one sync and those who wait for it.
type round struct {
	done chan struct{}
	err  error
}

// syncShared syncs a directory, together with others who ask for it. When that
// fails it has failed for all of them.
func syncShared(d *os.File) error {
	var st unix.Stat_t
	conn, err := d.SyscallConn()
	if err != nil {
		return err
	}
	var statErr error
	if err := conn.Control(func(fd uintptr) { statErr = unix.Fstat(int(fd), &st) }); err != nil {
		return err
	}
	if statErr != nil {
		return statErr
	}
	made, _ := shares.LoadOrStore(place{st.Dev, st.Ino}, &share{})
	s, _ := made.(*share)
	s.mu.Lock()
	if r := s.next; r != nil {
		s.mu.Unlock()
		<-r.done
		return r.err
	}
	r := &round{done: make(chan struct{})}
	s.next = r
	s.mu.Unlock()
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	s.next = nil // whoever comes from here on may come too late for this one
	s.mu.Unlock()
	r.err = syncDir(d)
	close(r.done)
	return r.err
}
