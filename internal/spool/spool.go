// Package spool owns the spool's directories and the legal moves of a folder
// between them. It is the only package that moves folders.
//
//	inbox ─Claim─▶ work ─Finish─▶ done, failed or hold
//	  ▲             │
//	  └───Release───┘
//
// There may be several inboxes, which all else is shared by. Every move is one rename that replaces nothing, with both parents synced.
package spool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/durable"
)

// Place is one of the spool's directories. Of inboxes there may be several, see
// InboxNamed.
type Place string

// The places, see the package comment.
const (
	Inbox  Place = "inbox"  // drops: the inbox below the root
	Work   Place = "work"   // claimed folders
	Done   Place = "done"   // accepted by the API
	Failed Place = "failed" // not accepted
	Hold   Place = "hold"   // outcome unknown
)

// Places lists the places in the order of a folder's life, with one inbox.
func Places() []Place { return []Place{Inbox, Work, Done, Failed, Hold} }

// InboxNamed returns the inbox of a name; "inbox" is the one below the root, and
// so is the one without a name, as there was before others.
func InboxNamed(name string) Place {
	if name == "" || name == string(Inbox) {
		return Inbox
	}
	return Inbox + "/" + Place(name)
}

// InboxName is the name of an inbox; of another place there is none.
func (p Place) InboxName() string {
	if p == Inbox {
		return string(p)
	}
	name, _ := strings.CutPrefix(string(p), string(Inbox)+"/")
	if name == string(p) {
		return ""
	}
	return name
}

// Kind is p, or Inbox of each inbox.
func (p Place) Kind() Place {
	if p.IsInbox() {
		return Inbox
	}
	return p
}

// IsInbox reports whether p is an inbox.
func (p Place) IsInbox() bool { return p.InboxName() != "" }

// Final reports whether a folder in p has ended.
func (p Place) Final() bool { return p == Done || p == Failed || p == Hold }

// mode is what a missing directory is made with: uploaders share the inbox by
// its group, auditors read the final places by theirs, and nobody but the
// daemon enters work.
func (p Place) mode() fs.FileMode {
	switch p {
	case Inbox: // one with a name is made by whoever gave the name
		return fs.ModeSetgid | 0o770
	case Work:
		return 0o700
	default:
		return fs.ModeSetgid | 0o750
	}
}

// Paths says where each place is: absolute paths, on one mount.
type Paths map[Place]string

// Inboxes returns the inboxes, by their names.
func (paths Paths) Inboxes() (list []Place) {
	for p := range paths {
		if p.IsInbox() {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return list
}

// Places returns all places, in the order of a folder's life.
func (paths Paths) Places() []Place { return append(paths.Inboxes(), Work, Done, Failed, Hold) }

// Spool is an opened and locked spool.
type Spool struct {
	paths   atomic.Pointer[Paths] // another one when the inboxes change
	lock    *os.File
	group   int        // of done: who may read what has ended
	probing sync.Mutex // one probe at a time
}

// maxName is Linux's NAME_MAX, in bytes (limits.h(0p)).
const maxName = 255

// idLength is the length of an id made by NewID.
const idLength = 26

// NewID returns a new identifier of a submission: 26 base32 characters with at
// least 128 random bits. It is made before the claim and is part of the
// folder's name in work, so a result.json that somebody else put into the
// folder can't be mistaken for the daemon's own.
func NewID() string { return rand.Text() }

// ErrLocked says that another process works on the spool.
var ErrLocked = errors.New("another idenfy-batch already works on this spool; stop it first (systemctl stop idenfy-batch), or give this one a root of its own")

// ErrNotConfigured says that an inbox is not, or no longer, one of the spool's.
var ErrNotConfigured = errors.New("there is no such inbox in the configuration")

// Open makes the places that are missing (their parents must exist), proves
// with real renames that a folder can go wherever it may have to, and takes
// the spool's lock, which the kernel drops when the process ends, however it
// ends.
//
// An inbox with a name is somebody else's to make and to keep in order: what is
// wrong with one holds up nothing else, so it is an error only if it takes
// another configuration, for it lies on another mount.
//
// All problems are reported at once, each with its mend.
func Open(paths Paths) (*Spool, error) {
	if err := prepare(paths.own()); err != nil {
		return nil, err
	}
	lock, err := takeLock(paths[Work])
	if err != nil {
		return nil, err
	}
	s := &Spool{lock: lock}
	s.paths.Store(&paths)
	err = errors.Join(s.Probe(), s.misplaced())
	if err == nil {
		err = s.rewrap()
	}
	var done unix.Stat_t
	if err == nil {
		err = unix.Stat(paths[Done], &done)
		s.group = int(done.Gid)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Passing reports whether an error of Open is one of the disk that may pass by
// itself, or that a person mends without a word to the daemon: full, failing,
// out of descriptors. All others take a change of configuration or of rights.
func Passing(err error) bool {
	for _, e := range []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Close gives the lock back.
func (s *Spool) Close() error { return s.lock.Close() }

// Path returns the directory of p.
func (s *Spool) Path(p Place) string { return s.Paths()[p] }

// Paths returns where each place is now. The map is for reading only.
func (s *Spool) Paths() Paths { return *s.paths.Load() }

// SamePaths reports whether the spool was opened with these paths, inboxes
// aside.
func (s *Spool) SamePaths(paths Paths) bool {
	for _, p := range []Place{Work, Done, Failed, Hold} {
		if s.Path(p) != paths[p] {
			return false
		}
	}
	return true
}

// Admits returns why the inboxes can't become those of paths, or nil: each that
// is new, or elsewhere than before, has to be a directory that can be read, and
// that a folder can be moved from and to.
func (s *Spool) Admits(paths Paths) error {
	var errs []error
	for _, p := range paths.Inboxes() {
		if paths[p] == s.Path(p) {
			continue
		}
		err := prepare(Paths{p: paths[p]})
		if err == nil {
			var dir *os.File
			if dir, err = os.Open(paths[p]); err == nil {
				err = errors.Join(dir.Close(), s.probe(paths, p))
			} else {
				err = fmt.Errorf("%s: %w; the daemon's user has to be able to read it", p, err)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// SetInboxes has the inboxes be those of paths from now on.
func (s *Spool) SetInboxes(paths Paths) {
	next := maps.Clone(paths)
	for _, p := range []Place{Work, Done, Failed, Hold} {
		next[p] = s.Path(p)
	}
	s.paths.Store(&next)
}

// Intact returns an error when work is no longer the directory that was locked
// at the start: a file system was mounted over it, or unmounted. What is in
// work is hidden then, not gone.
func (s *Spool) Intact() error {
	was, err := s.lock.Stat()
	if err != nil {
		return err
	}
	is, err := os.Stat(s.Path(Work))
	if err == nil && !os.SameFile(was, is) {
		err = fmt.Errorf("work: %s is another directory than at the start; was a file system mounted over it, or unmounted?", s.Path(Work))
	}
	return err
}

// Has reports whether the folder of the life id is in work.
func (s *Spool) Has(id string) (bool, error) {
	if err := s.Intact(); err != nil {
		return false, err
	}
	has, err := s.Paths().Has(id)
	if err == nil {
		err = s.Intact() // it may have been hidden meanwhile
	}
	return has, err
}

// Has is Spool.Has, of whatever directory is at work's path.
func (paths Paths) Has(id string) (bool, error) {
	// Between two looks at the names, for it may get out of its wrapper just
	// then.
	for range 2 {
		names, err := paths.List(Work)
		if err != nil || slices.ContainsFunc(names, func(name string) bool {
			_, is, _ := Split(name)
			return is == id
		}) {
			return err == nil, err
		}
		if _, err := os.Lstat(filepath.Join(paths[Work], wrapPrefix+id)); err == nil {
			return true, nil
		}
	}
	return false, nil
}

// OpenFolder opens a folder in a place, without following a link.
func (paths Paths) OpenFolder(p Place, name string) (*os.Root, error) {
	parent, err := os.OpenRoot(paths[p])
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	return drop.Open(parent, name)
}

// Brief is an error as it may stand in a log: with the places' paths, and
// without a name of a folder or of a file in it.
func (paths Paths) Brief(err error) error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range many.Unwrap() {
			all = append(all, paths.Brief(e))
		}
		return errors.Join(all...)
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s %s: %w", e.Op, paths.lead(e.Path), e.Err)
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return fmt.Errorf("%s %s %s: %w", e.Op, paths.lead(e.Old), paths.lead(e.New), e.Err)
	}
	return err
}

// lead names the place that a path leads into.
func (paths Paths) lead(path string) string {
	for _, at := range paths {
		if at != "" && (path == at || strings.HasPrefix(path, at+"/")) {
			return at
		}
	}
	return "in the folder"
}

// gaps is how many names in a row may be free before Find gives up: folders
// with the names between may have been taken away.
const gaps = 20

// Find returns the first of the names that Finish may have given to a folder
// which is the one, or "".
func (s *Spool) Find(p Place, name string, is func(name string) bool) string {
	for n, free := 1, 0; free < gaps; n++ {
		target := numbered(name, n)
		if _, err := os.Lstat(filepath.Join(s.Path(p), target)); err != nil {
			free++
			continue
		}
		if free = 0; is(target) {
			return target
		}
	}
	return ""
}

// numbered is the n-th name that is tried for a folder.
func numbered(name string, n int) string {
	if n == 1 {
		return fit(name, "")
	}
	return fit(name, "."+strconv.Itoa(n))
}

// Check is Open for somebody who only wants to know: it makes no place, and
// tries the renames, with the lock held for that moment, only when all places
// are there and no daemon runs, which has tried them itself.
func Check(paths Paths) error {
	var errs []error
	missing := false
	for _, p := range paths.Places() {
		info, err := os.Stat(paths[p])
		if errors.Is(err, fs.ErrNotExist) && p.IsInbox() && p != Inbox {
			err = notThere(paths[p])
		} else if errors.Is(err, fs.ErrNotExist) {
			missing, err = true, nil // the first start makes it
			if parent := filepath.Dir(paths[p]); unix.Access(parent, unix.W_OK|unix.X_OK) != nil {
				err = fmt.Errorf("%s does not exist, and this user can't make it in %s; make it, owned by the user that runs the daemon (install -d -o USER), and run this as that user", paths[p], parent)
			}
		} else if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a directory; move the file away or correct the configuration", paths[p])
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p, err))
		}
	}
	if len(errs) > 0 || missing {
		return errors.Join(errs...)
	}
	lock, err := takeLock(paths[Work])
	switch {
	case errors.Is(err, ErrLocked):
		return nil
	case err != nil:
		return fmt.Errorf("%w; run this as the user that the daemon runs as", err)
	}
	// A daemon that starts meanwhile waits for the lock.
	return errors.Join((&Spool{lock: lock}).probe(paths, ways(paths)...), lock.Close())
}

// notThere is the error of an inbox that has a name and is missing.
func notThere(path string) error {
	return fmt.Errorf("%s does not exist; make it, for the group that its uploaders and the daemon share (install -d -m 2770 -g GROUP %s), or take it out of inboxes in the configuration", path, path)
}

// prepare makes what is missing of paths, but for inboxes that have a name.
func prepare(paths Paths) error {
	var errs []error
	for _, p := range paths.Places() {
		path, is := paths[p]
		if !is {
			continue
		}
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && p.IsInbox() && p != Inbox:
			errs = append(errs, fmt.Errorf("%s: %w", p, notThere(path)))
		case errors.Is(err, fs.ErrNotExist):
			if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("%s: the directory %s does not exist; make it (mkdir -p %s), mount it, or correct root or paths.%s in the configuration", p, filepath.Dir(path), filepath.Dir(path), p))
				continue
			}
			if err := durable.Mkdir(filepath.Dir(path), filepath.Base(path), p.mode()); err != nil {
				errs = append(errs, fmt.Errorf("%s: can't make the directory: %w; make it yourself, owned by the user that runs the daemon", p, err))
			}
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", p, err))
		case !info.IsDir():
			errs = append(errs, fmt.Errorf("%s: %s is not a directory; move the file away or correct the configuration", p, path))
		}
	}
	return errors.Join(errs...)
}

// Lock takes the lock of a spool that nobody works on, for a command that
// changes what the daemon relies on: ErrLocked while a daemon runs.
func Lock(paths Paths) (io.Closer, error) {
	lock, err := takeLock(paths[Work])
	if errors.Is(err, fs.ErrPermission) {
		return nil, errors.New("this user may not work on the spool; run this as root or as the daemon's user")
	}
	if err != nil {
		return nil, err
	}
	return lock, nil
}

func takeLock(work string) (*os.File, error) {
	// The directory itself is locked, not a file in it: there is no file that
	// a clean-up could delete from under a running daemon.
	f, err := os.Open(work)
	if err != nil {
		return nil, fmt.Errorf("work: %w; the daemon needs to own it (chown)", err)
	}
	if err := TryLock(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", work, err), f.Close())
	}
	return f, nil
}

// TryLock takes the kernel's lock on an open directory: ErrLocked when another
// process has it. It is held until dir is closed.
//
// Somebody who only looks whether it is taken (Locked) has it shared for an
// instant. That is waited for, and nothing else: a start beside a status
// command goes on.
func TryLock(dir *os.File) error {
	for {
		err := flock(dir, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if err := flock(dir, unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
			return ErrLocked
		} else if err != nil {
			return err
		}
		// Not kept: two starts would wait for each other.
		if err := flock(dir, unix.LOCK_UN); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// LockFolder keeps two from deciding about one folder, or submitting it, at
// once: ErrLocked when another process is at it.
func LockFolder(dir *os.Root) (unlock func(), err error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	if err := TryLock(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // it was read only
}

func flock(f *os.File, how int) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var lockErr error
	if err := conn.Control(func(fd uintptr) { lockErr = unix.Flock(int(fd), how) }); err != nil {
		return err
	}
	return lockErr
}

// Locked reports whether a daemon works on the spool with these paths.
func Locked(paths Paths) (bool, error) {
	f, err := os.Open(paths[Work])
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = flock(f, unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// probeName begins with a dot, so the watcher leaves a probe alone. It is
// always the same: what a crash left of one is found without reading a place
// that may hold a million folders.
const probeName = ".idenfy-batch.probe"

// Probe moves an empty directory along every way that a folder may have to
// go, but for inboxes that have a name. Only a real rename tells: two mounts of
// one file system, which even bind mounts make, refuse it (rename(2), EXDEV), as
// do permissions of every kind. Only who has the lock may do that.
func (s *Spool) Probe() error {
	paths := s.Paths()
	return s.probe(paths, ways(paths.own())...)
}

// own leaves out the inboxes that have a name.
func (paths Paths) own() Paths {
	own := maps.Clone(paths)
	maps.DeleteFunc(own, func(p Place, _ string) bool { return p.IsInbox() && p != Inbox })
	return own
}

// ways are the places that a folder may go to from work.
func ways(paths Paths) []Place { return append(paths.Inboxes(), Done, Failed, Hold) }

// misplaced returns which of the inboxes that have a name can't be had as they
// are configured, whatever becomes of them.
func (s *Spool) misplaced() error {
	var errs []error
	for _, p := range s.Paths().Inboxes() {
		if p == Inbox {
			continue
		}
		if err := s.Takes(p); errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Takes proves with a real rename that a folder can go from work to p and back:
// what a folder met on its way there is its own then.
func (s *Spool) Takes(p Place) error { return s.probe(s.Paths(), p) }

// Alone reports whether an inbox is at fault by itself: no folder can be moved
// between it and work, and between work and done one can.
func (s *Spool) Alone(p Place) bool {
	return p.IsInbox() && s.Takes(p) != nil && s.Takes(Done) == nil
}

func (s *Spool) probe(paths Paths, ways ...Place) error {
	s.probing.Lock()
	defer s.probing.Unlock()
	for _, p := range ways {
		if paths[p] == "" {
			return fmt.Errorf("%w: %s", ErrNotConfigured, p)
		}
	}
	for _, p := range append([]Place{Work}, ways...) { // of a probe that was cut off; an empty directory, or nothing happens
		_ = unix.Rmdir(filepath.Join(paths[p], probeName))
	}
	name, err := makeProbe(paths)
	if err != nil {
		return fmt.Errorf("work: can't make a directory: %w; the daemon's user needs to own it (chown), and it has to be below ReadWritePaths= of the service", err)
	}
	var errs []error
	for _, to := range ways {
		there, err := paths.moveFree(Work, name, to, probeName)
		if there == "" {
			errs = append(errs, paths.explainMove(Work, to, err))
			continue
		}
		back, backErr := paths.moveFree(to, there, Work, probeName)
		if back == "" && !paths.removed(to, there, backErr) || back != "" && errors.Join(err, backErr) != nil {
			errs = append(errs, paths.explainMove(to, Work, errors.Join(err, backErr)))
		}
		if name = back; name != "" {
			continue
		}
		_ = unix.Rmdir(filepath.Join(paths[to], there)) // it can't be moved, and may not be removed either
		if name, err = makeProbe(paths); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	if err := os.Remove(filepath.Join(paths[Work], name)); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// removed tells whether a probe that was to come back is gone, from a place
// that is there: an uploader may remove what lies in an inbox.
func (paths Paths) removed(from Place, name string, err error) bool {
	if !from.IsInbox() || !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, there := os.Stat(paths[from])
	_, probe := os.Lstat(filepath.Join(paths[from], name))
	_, work := os.Stat(paths[Work])
	return there == nil && work == nil && errors.Is(probe, fs.ErrNotExist)
}

// makeProbe makes a directory under the first name for it that is free.
func makeProbe(paths Paths) (name string, err error) {
	for n := 1; ; n++ {
		name = numbered(probeName, n)
		if err = os.Mkdir(filepath.Join(paths[Work], name), 0o700); !errors.Is(err, fs.ErrExist) {
			return name, err
		}
	}
}

func (paths Paths) explainMove(from, to Place, err error) error {
	switch {
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("%s (%s) and %s (%s) are not on one mount, so a folder can't be moved between them in one step; put all of the spool below one mount point, and in the service below one ReadWritePaths= (two bind mounts of one file system do not do): %w", from, paths[from], to, paths[to], unix.EXDEV)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s (%s): its file system can't rename without replacing (RENAME_NOREPLACE); use a local file system such as ext4, xfs or btrfs for the spool: %w", to, paths[to], unix.EINVAL)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return fmt.Errorf("%s: the daemon's user can't move a directory from %s to %s: %w; it needs to own them or share a group that may write (chown, chmod g+rwx), and they have to be below ReadWritePaths= of the service", to, paths[from], paths[to], err)
	default:
		return fmt.Errorf("%s: can't move a directory from %s to %s: %w", to, paths[from], paths[to], err)
	}
}

// move moves a folder. When that was done but is not durable, it is taken
// back, so that the whole of it can be tried again: a second sync would prove
// nothing. there tells that the folder is at its target all the same, with or
// without an error: it could not even be taken back.
func (paths Paths) move(from Place, oldName string, to Place, newName string) (there bool, err error) {
	f, err := openDir(paths[from])
	if err != nil {
		return false, err
	}
	defer f.Close()
	t, err := openDir(paths[to])
	if err != nil {
		return false, err
	}
	defer t.Close()
	err = durable.Rename(f, oldName, t, newName)
	if !notDurable(err) {
		return err == nil, err
	}
	back := durable.Rename(t, newName, f, oldName)
	return back != nil && !notDurable(back), errors.Join(err, back)
}

func notDurable(err error) bool {
	_, ok := errors.AsType[*durable.SyncError](err)
	return ok
}

// Claim moves the folder name from an inbox to work, and returns its name
// there, which ends with id. With an error the folder is still in the inbox,
// and the name is empty; or it has got a name, and lies in work, but may not
// survive a power cut there.
func (paths Paths) Claim(from Place, name, id string) (string, error) {
	workName := fit(name, "."+id)
	there, err := paths.move(from, name, Work, workName)
	if !there {
		return "", err
	}
	return workName, err
}

// Split parts a name in work into the folder's own name, of which the end may
// be left out, and its id. It is not ok for a name that Claim did not make.
func Split(workName string) (name, id string, ok bool) {
	cut := len(workName) - idLength - 1
	if cut < 1 || workName[cut] != '.' {
		return workName, "", false
	}
	name, id = workName[:cut], workName[cut+1:]
	if strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return workName, "", false
	}
	return name, id, true
}

// Dropped is the name that a folder was dropped with: its name, without what Claim
// added to it, should somebody have taken it out of work by hand.
func Dropped(name string) string {
	name, _, _ = Split(name)
	return name
}

// Release moves a claimed folder back to an inbox under the name that it was
// dropped with, and returns that, or one with a suffix when it is taken by now.
// With an error it is still in work, and the name is empty; or it has got a
// name, and the move may not survive a power cut.
func (paths Paths) Release(workName string, to Place, name string) (string, error) {
	if !to.IsInbox() {
		return "", fmt.Errorf("spool: %s is no inbox", to)
	}
	return paths.moveFree(Work, workName, to, name)
}

// ReleaseExactly is Release under that very name: fs.ErrExist when it is taken.
func (paths Paths) ReleaseExactly(workName string, to Place, name string) (string, error) {
	if !to.IsInbox() {
		return "", fmt.Errorf("spool: %s is no inbox", to)
	}
	there, err := paths.move(Work, workName, to, numbered(name, 1))
	if !there {
		return "", err
	}
	return numbered(name, 1), err
}

// Finish moves a claimed folder to its final place under the name that it was
// dropped with, and returns the name that it has there: with a suffix
// (case-7.2) when that one is taken. Errors are as those of Release.
func (paths Paths) Finish(workName string, to Place, name string) (string, error) {
	if !to.Final() {
		return "", fmt.Errorf("spool: %s is not a final place", to)
	}
	return paths.moveFree(Work, workName, to, name)
}

// moveFree moves a folder to the first free name.
func (paths Paths) moveFree(from Place, oldName string, to Place, name string) (string, error) {
	for n := 1; ; n++ {
		target := numbered(name, n)
		there, err := paths.move(from, oldName, to, target)
		switch {
		case there:
			return target, err
		case !errors.Is(err, fs.ErrExist):
			return "", err
		}
	}
}

// Revise moves a folder out of a final place, as a person decided: back to an
// inbox, or to another final place. The daemon looks at neither, so it may run
// meanwhile. Errors are as those of Release.
func (paths Paths) Revise(from Place, name string, to Place) (string, error) {
	if !from.Final() || to == Work {
		return "", fmt.Errorf("spool: no decision moves a folder from %s to %s", from, to)
	}
	return paths.moveFree(from, name, to, name)
}

// List returns the names of the folders in p that are not hidden, in no
// certain order.
func (s *Spool) List(p Place) ([]string, error) { return s.Paths().List(p) }

// List is Spool.List without an opened spool.
func (paths Paths) List(p Place) ([]string, error) {
	entries, err := os.ReadDir(paths[p])
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// fit returns name+suffix, with as much of name's end left out as the file
// system's limit demands.
func fit(name, suffix string) string {
	if room := maxName - len(suffix); len(name) > room {
		for room > 0 && !utf8.RuneStart(name[room]) {
			room--
		}
		name = name[:room]
	}
	return name + suffix
}
