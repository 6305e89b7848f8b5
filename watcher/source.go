package watcher

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// Hint says where something may have changed.
type Hint struct {
	Name string // of a folder in the inbox
	Gone bool   // that folder was removed or renamed; another may have its name by now
	All  bool   // events were lost: anything may have changed
	Err  error  // why, with All
}

// Source gives hints. Inotify is the real one.
type Source interface {
	Hints() <-chan Hint
	// Watch begins hints for the folder name in the inbox, or with an empty
	// name for the inbox itself. It is ErrNoWatch that another would have to be
	// ended first.
	Watch(name string) error
	// Unwatch ends what one Watch began, whether or not the folder is there still.
	Unwatch(name string)
}

// ErrNoWatch is returned when as many folders are watched as may be.
var ErrNoWatch = errors.New("no inotify watch is left")

// watchesAtOnce is how many folders are watched at once, in all inboxes. Each
// takes some 200 bytes, beside what is remembered of the folder. Of these,
// kept is how many are divided evenly among the inboxes, so that one with many
// folders leaves some to each of the others.
const (
	watchesAtOnce = 20_000
	kept          = 5_000
)

// Watches counts the folders that are watched, of all sources that it was given
// to.
type Watches struct {
	mu             sync.Mutex
	total, sources int
}

// take counts one more, of a source that watches own, unless there are enough.
func (b *Watches) take(own int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	share := kept / max(b.sources, 1)
	if own >= share && b.total >= watchesAtOnce-(b.sources-1)*share {
		return false
	}
	b.total++
	return true
}

// change counts more, or less, sources and watches.
func (b *Watches) change(sources, watches int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sources += sources
	b.total += watches
}

var errEnough = fmt.Errorf("%w: %d folders are watched, and more would take too much memory", ErrNoWatch, watchesAtOnce)

// Inotify gives hints from the kernel's file events (inotify(7)). Its methods
// but Hints are for one goroutine.
type Inotify struct {
	dir   string
	hints chan Hint
	w     *fsnotify.Watcher
	done  chan struct{}
	count int // of watched folders
	all   *Watches
}

// NewInotify returns a source for the inbox dir, an absolute clean path, which
// shares the watches with others, until it is closed. Where the kernel has no
// instance left, Watch says so and tries again each time.
func NewInotify(dir string, all *Watches) *Inotify {
	all.change(1, 0)
	return &Inotify{dir: dir, hints: make(chan Hint, hintsAtOnce), all: all}
}

// Hints implements Source.
func (s *Inotify) Hints() <-chan Hint { return s.hints }

// Watch implements Source.
func (s *Inotify) Watch(name string) error {
	if name != "" && !s.all.take(s.count) {
		return errEnough
	}
	err := s.add(name)
	switch {
	case name == "":
	case err == nil:
		s.count++
	default:
		s.all.change(0, -1)
	}
	return err
}

func (s *Inotify) add(name string) error {
	if s.w == nil {
		w, err := fsnotify.NewWatcher()
		if err != nil {
			return explain(err)
		}
		s.w, s.done = w, make(chan struct{})
		go s.forward(w, s.done)
	}
	if err := s.w.Add(s.path(name)); err != nil {
		return explain(err)
	}
	if name == "" {
		return remote(s.dir)
	}
	return nil
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
		return fmt.Errorf("%w: %w; raise the sysctl fs.inotify.max_user_watches", ErrNoWatch, err)
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("no inotify instance or file descriptor is left: %w; raise the sysctl fs.inotify.max_user_instances or LimitNOFILE=", err)
	default:
		return err
	}
}

// Unwatch implements Source.
func (s *Inotify) Unwatch(name string) {
	if s.w != nil {
		_ = s.w.Remove(s.path(name)) // it may have ended with the folder
	}
	if name != "" {
		s.count--
		s.all.change(0, -1)
	}
}

func (s *Inotify) path(name string) string {
	if name == "" {
		return s.dir
	}
	return s.dir + "/" + name
}

// Close ends the source. Nobody may be using it.
func (s *Inotify) Close() error {
	s.all.change(-1, -s.count)
	s.count = 0
	if s.w == nil {
		return nil
	}
	close(s.done)
	return s.w.Close()
}

func (s *Inotify) forward(w *fsnotify.Watcher, done chan struct{}) {
	for {
		var h Hint
		select {
		case <-done:
			return
		case e, ok := <-w.Events:
			if !ok {
				return
			}
			rest, below := strings.CutPrefix(e.Name, s.dir+"/")
			if !below {
				// The inbox itself: removed or renamed.
				h = Hint{All: true, Err: errors.New("the inbox was replaced or removed")}
				if e.Has(fsnotify.Chmod) {
					continue
				}
				break
			}
			name, _, within := strings.Cut(rest, "/")
			h = Hint{Name: name, Gone: !within && e.Has(fsnotify.Remove|fsnotify.Rename)}
		case err, ok := <-w.Errors:
			if !ok {
				return
			}
			h = Hint{All: true, Err: err}
		}
		select {
		case s.hints <- h:
		case <-done:
			return
		}
	}
}
