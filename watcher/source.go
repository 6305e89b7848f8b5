package watcher

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Hint says where something may have changed.
type Hint struct {
	Name string // of a folder in the inbox
	All  bool   // events were lost: anything may have changed
	Err  error  // why, with All
}

// Source gives hints. Inotify is the real one.
type Source interface {
	Hints() <-chan Hint
	// Watch begins hints for the folder name in the inbox, or with an empty
	// name for the inbox itself. It returns what Unwatch needs, which is never
	// zero but with an error.
	Watch(name string) (wd int32, err error)
	// Unwatch ends them; what isn't watched any more is no error.
	Unwatch(name string, wd int32)
}

// Inotify gives hints from the kernel's file events (inotify(7)). Of each
// watched folder it keeps nothing but the name, which is the caller's string.
// Its methods but Hints are for one goroutine.
type Inotify struct {
	dir   string
	hints chan Hint
	queue *os.File // nil: there is none yet
	done  chan struct{}
	ended sync.WaitGroup

	mu    sync.Mutex
	names map[int32]string // by watch descriptor; empty: the inbox
}

// NewInotify returns a source for the inbox dir, an absolute clean path.
// Where the kernel has no instance left, Watch says so and tries again each
// time.
func NewInotify(dir string) *Inotify {
	return &Inotify{dir: dir, hints: make(chan Hint, hintsAtOnce), done: make(chan struct{}), names: map[int32]string{}}
}

// Hints implements Source.
func (s *Inotify) Hints() <-chan Hint { return s.hints }

// What is watched for: of the inbox its own end, too, which of a folder the
// inbox's events tell.
const (
	folderEvents = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_DELETE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_ATTRIB | unix.IN_ONLYDIR
	inboxGone    = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
)

// Watch implements Source.
func (s *Inotify) Watch(name string) (int32, error) {
	if s.queue == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return 0, explain(err)
		}
		s.queue = os.NewFile(uintptr(fd), "inotify")
		s.ended.Go(s.forward)
	}
	path, events := s.dir, uint32(folderEvents|inboxGone)
	if name != "" {
		path, events = s.dir+"/"+name, folderEvents|unix.IN_DONT_FOLLOW
	}
	// Held meanwhile, so that no event comes before the name is known.
	s.mu.Lock()
	defer s.mu.Unlock()
	wd, err := s.add(path, events)
	if err != nil {
		return 0, explain(err)
	}
	// A folder that was renamed has its watch still, under another name.
	s.names[wd] = name
	if name == "" {
		return wd, remote(s.dir)
	}
	return wd, nil
}

func (s *Inotify) add(path string, events uint32) (wd int32, err error) {
	err = s.control(func(fd int) error {
		n, err := unix.InotifyAddWatch(fd, path, events)
		wd = int32(n)
		return err
	})
	return wd, err
}

func (s *Inotify) control(f func(fd int) error) error {
	conn, err := s.queue.SyscallConn()
	if err != nil {
		return err
	}
	if failed := conn.Control(func(fd uintptr) { err = f(int(fd)) }); failed != nil {
		return failed
	}
	return err
}

// remote returns an error if dir lies on a file system where others can change
// files without events being made here. Those of local changes come all the
// same.
func remote(dir string) error {
	var st unix.Statfs_t
	_ = unix.Statfs(dir, &st) // the scan tells what is wrong with it
	switch int64(st.Type) {   //nolint:unconvert // it is narrower on some architectures
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC,
		unix.V9FS_MAGIC, unix.CEPH_SUPER_MAGIC, unix.CODA_SUPER_MAGIC, unix.AFS_SUPER_MAGIC, unix.OCFS2_SUPER_MAGIC:
		return errors.New("the inbox lies on a network or FUSE file system, which gives no events for what others do")
	}
	return nil
}

func explain(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("no inotify watch is left: %w; raise the sysctl fs.inotify.max_user_watches", err)
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("no inotify instance or file descriptor is left: %w; raise the sysctl fs.inotify.max_user_instances or LimitNOFILE=", err)
	default:
		return err
	}
}

// Unwatch implements Source.
func (s *Inotify) Unwatch(name string, wd int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, watched := s.names[wd]; !watched || now != name { // gone with the folder, or that of another name by now
		return
	}
	delete(s.names, wd)
	// It may be gone with the folder.
	_ = s.control(func(fd int) error { _, err := unix.InotifyRmWatch(fd, uint32(wd)); return err })
}

// Close ends the source. Nobody may be using it.
func (s *Inotify) Close() error {
	if s.queue == nil {
		return nil
	}
	close(s.done)
	err := s.queue.Close()
	s.ended.Wait()
	return err
}

// forward makes hints of the kernel's events until Close.
func (s *Inotify) forward() {
	buf := make([]byte, 64<<10)
	for {
		n, err := s.queue.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			s.send(Hint{All: true, Err: err})
			return // rescans go on
		}
		for rest := buf[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
			if h, ok := s.hint(rest[:size]); ok && !s.send(h) {
				return
			}
			rest = rest[size:]
		}
	}
}

// hint reads one event (struct inotify_event), and tells whether it is worth a
// hint.
func (s *Inotify) hint(event []byte) (Hint, bool) {
	wd, mask := int32(binary.NativeEndian.Uint32(event)), binary.NativeEndian.Uint32(event[4:])
	if mask&unix.IN_Q_OVERFLOW != 0 {
		return Hint{All: true, Err: errOverflow}, true
	}
	s.mu.Lock()
	name, watched := s.names[wd]
	if mask&unix.IN_IGNORED != 0 {
		delete(s.names, wd)
	}
	s.mu.Unlock()
	switch {
	case !watched, mask&(unix.IN_IGNORED|unix.IN_UNMOUNT) != 0:
		return Hint{}, false
	case name != "":
		return Hint{Name: name}, true
	case mask&inboxGone != 0:
		return Hint{All: true, Err: errors.New("the inbox was replaced or removed")}, true
	}
	in, _, _ := bytes.Cut(event[unix.SizeofInotifyEvent:], []byte{0})
	return Hint{Name: string(in)}, len(in) > 0 // its own mode is no matter here
}

var errOverflow = errors.New("the kernel's queue of file events overflowed")

func (s *Inotify) send(h Hint) bool {
	select {
	case s.hints <- h:
		return true
	case <-s.done:
		return false
	}
}
