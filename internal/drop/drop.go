// Package drop owns the safe view of one dropped folder: what lies in it, a
// fingerprint that tells whether anything changed, and its files opened
// without following links or waiting for anybody.
//
// The folder belongs to somebody else, who may change it at any moment and
// with intent. So every step goes through an os.Root, special files are never
// opened, and the number of entries that are looked at has a limit.
package drop

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Entry is one name in the folder, as lstat(2) tells it.
type Entry struct {
	Name  string
	Mode  fs.FileMode
	Size  int64 // bytes
	UID   uint32
	GID   uint32
	Links uint64
	dev   uint64
	ino   uint64
	mtime int64 // nanoseconds
	ctime int64 // nanoseconds
}

// Regular reports whether the entry is a plain file.
func (e Entry) Regular() bool { return e.Mode.IsRegular() }

// ChangeTime returns the entry's ctime in nanoseconds since 1970: by the clock
// of the host that holds the file, and not for the uploader to set.
func (e Entry) ChangeTime() int64 { return e.ctime }

// Listing is a folder at one moment.
type Listing struct {
	Dir     Entry   // the folder itself
	Entries []Entry // sorted by name, at most the limit
	More    bool    // there are more entries than the limit

	// Content changes when a name, kind, owner, size, mtime, ctime or inode
	// among the entries does. It compares only within this process.
	Content uint64
	// Full is Content and the folder's own mode, owner, mtime and ctime, which
	// a move to another place changes too. Only it tells of changes among
	// entries beyond the limit.
	Full uint64
}

// Find returns the entry called name.
func (l Listing) Find(name string) (Entry, bool) {
	i, ok := slices.BinarySearchFunc(l.Entries, name, func(e Entry, name string) int { return strings.Compare(e.Name, name) })
	if !ok {
		return Entry{}, false
	}
	return l.Entries[i], true
}

// Open opens the folder name in parent. A link or another kind of file under
// that name is syscall.ENOTDIR.
func Open(parent *os.Root, name string) (*os.Root, error) {
	before, err := parent.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOTDIR}
	}
	// "/." has name opened with O_DIRECTORY: a FIFO put in its place by now
	// is an error, not a wait for its other end.
	root, err := parent.OpenRoot(name + "/.")
	if err != nil {
		return nil, err
	}
	after, err := root.Stat(".")
	if err == nil && !os.SameFile(before, after) { // a link was put in its place
		err = &fs.PathError{Op: "open", Path: name, Err: syscall.ENOTDIR}
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

var seed = maphash.MakeSeed()

// List reads the folder, but no more than limit names, leaving out those that
// skip tells. Names that vanish while it reads are left out.
func List(root *os.Root, limit int, skip func(name string) bool) (Listing, error) {
	d, err := root.OpenFile(".", os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return Listing{}, err
	}
	defer d.Close()
	info, err := d.Stat()
	if err != nil {
		return Listing{}, err
	}
	l := Listing{Dir: entry(".", info)}
	var names []string
	for len(names) <= limit {
		batch, err := d.Readdirnames(min(limit+1, 128))
		for _, name := range batch {
			if !skip(name) {
				names = append(names, name)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Listing{}, err
		}
	}
	if len(names) > limit {
		names, l.More = names[:limit], true
	}
	slices.Sort(names)
	l.Entries = make([]Entry, 0, len(names))
	var h maphash.Hash
	h.SetSeed(seed)
	for _, name := range names {
		info, err := root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Listing{}, err
		}
		e := entry(name, info)
		l.Entries = append(l.Entries, e)
		maphash.WriteComparable(&h, e)
	}
	maphash.WriteComparable(&h, [2]uint64{l.Dir.dev, l.Dir.ino})
	l.Content = h.Sum64()
	maphash.WriteComparable(&h, l.Dir)
	l.Full = h.Sum64()
	return l, nil
}

func entry(name string, info fs.FileInfo) Entry {
	e := Entry{Name: name, Mode: info.Mode(), Size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		e.UID, e.GID, e.Links = st.Uid, st.Gid, uint64(st.Nlink) //nolint:unconvert // Nlink is narrower on some architectures
		e.dev, e.ino, e.ctime = st.Dev, st.Ino, st.Ctim.Nano()
	}
	return e
}

// ErrChanged says that the file under a name is no longer the one that was
// listed.
var ErrChanged = errors.New("the file changed")

// OpenFile opens the regular file e for reading. When the name now means
// another file, or a changed one, the error is ErrChanged. It never waits, and
// never opens what is not a regular file.
func OpenFile(root *os.Root, e Entry) (*os.File, error) {
	if !e.Regular() {
		return nil, &fs.PathError{Op: "open", Path: e.Name, Err: errors.New("not a regular file")}
	}
	f, err := root.OpenFile(e.Name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it is gone", ErrChanged)
	}
	if err != nil {
		return nil, err
	}
	if err := Unchanged(f, e); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ErrNotPlain says that a name is not one of a regular file of a sensible size.
var ErrNotPlain = errors.New("not a regular file, or too large")

// ReadFile reads the regular file name of at most limit bytes. It never waits,
// and never follows a link: a FIFO or a link put in its place just then can't
// hang or mislead the daemon.
func ReadFile(root *os.Root, name string, limit int64) ([]byte, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, ErrNotPlain
	}
	return readPlain(root, name, info, limit)
}

// ReadHead is ReadFile of at most the first limit bytes.
func ReadHead(root *os.Root, name string, limit int64) ([]byte, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	return readPlain(root, name, info, limit)
}

func readPlain(root *os.Root, name string, info fs.FileInfo, limit int64) ([]byte, error) {
	if !info.Mode().IsRegular() {
		return nil, ErrNotPlain
	}
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ELOOP) { // a link was put in its place
		return nil, ErrNotPlain
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if is, err := f.Stat(); err != nil || !os.SameFile(info, is) {
		return nil, errors.Join(err, ErrNotPlain)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// Identity names the directory itself, wherever it is moved to and whatever is
// in it: by its inode and the time of its birth (statx(2), STX_BTIME), since an
// inode's number is given again once it is free. It is empty where the file
// system keeps no time of birth.
func Identity(root *os.Root) (string, error) {
	d, err := root.Open(".")
	if err != nil {
		return "", err
	}
	defer d.Close()
	var st unix.Statx_t
	err = control(d, func(fd uintptr) error {
		return unix.Statx(int(fd), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st)
	})
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return "", err
	}
	return fmt.Sprintf("%d:%d.%09d", st.Ino, st.Btime.Sec, st.Btime.Nsec), nil
}

// Sum returns the SHA-256 of a file that was listed, in lower-case hex.
func Sum(root *os.Root, e Entry) (string, error) {
	f, err := OpenFile(root, e)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, e.Size)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Unchanged returns ErrChanged unless f is still as it was listed.
func Unchanged(f *os.File, e Entry) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	now := entry(e.Name, info)
	// The number of links may change without the file doing so, and takes
	// ctime along: a backup by hard links is no reason to start again, but
	// can't be told from a chmod. So it counts as a change, like in Content.
	if now != e {
		return ErrChanged
	}
	return nil
}

// Busy returns the name of a file that somebody on this host has open for
// writing, or "" when there is none, or when the kernel doesn't say: a read
// lease is refused with EAGAIN while the file is open for writing
// (fcntl(2), F_SETLEASE), but may be taken only on one's own files or with
// CAP_LEASE, and not on every file system.
func Busy(root *os.Root, l Listing) string {
	for _, e := range l.Entries {
		if !e.Regular() {
			continue
		}
		f, err := root.OpenFile(e.Name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY, 0)
		if err != nil {
			continue // whether it can be read is for others to tell
		}
		busy := openForWriting(f)
		_ = f.Close() // nothing was written
		if busy {
			return e.Name
		}
	}
	return ""
}

func openForWriting(f *os.File) bool {
	err := control(f, func(fd uintptr) error {
		_, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK)
		if err == nil {
			_, _ = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK) // closing f does it as well
		}
		return err
	})
	return errors.Is(err, unix.EAGAIN)
}

// control calls a system call on f's descriptor.
func control(f *os.File, call func(fd uintptr) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	if err := conn.Control(func(fd uintptr) { callErr = call(fd) }); err != nil {
		return err
	}
	return callErr
}

// Holes reports whether parts of f were never written: a client has set the
// size first and fills the file in later. File systems without holes tell
// that there are none.
func Holes(f *os.File, size int64) bool {
	var hole int64
	err := control(f, func(fd uintptr) (err error) {
		hole, err = unix.Seek(int(fd), 0, unix.SEEK_HOLE)
		return err
	})
	if err != nil {
		return false
	}
	_, err = f.Seek(0, io.SeekStart)
	return err == nil && hole < size
}

// Why a folder can't be moved, see Movable.
var (
	ErrFolder = errors.New("the folder is not writable")
	ErrParent = errors.New("the directory around the folder is not writable")
)

// Movable returns nil when the process may move the folder name out of the
// directory parent, else ErrParent or ErrFolder: besides parent, the folder
// itself has to be writable, because its entry ".." changes (rename(2),
// EACCES).
func Movable(parent *os.Root, name string) error {
	d, err := parent.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return control(d, func(fd uintptr) error {
		for _, at := range []struct {
			path string
			err  error
		}{{".", ErrParent}, {name, ErrFolder}} {
			// A disk that can't be written at all is no question of rights: the
			// move will say it.
			if err := unix.Faccessat(int(fd), at.path, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil && !errors.Is(err, unix.EROFS) {
				return at.err
			}
		}
		return nil
	})
}

// Arrival is a folder in the inbox that is ready to be taken.
type Arrival struct {
	Name      string
	Content   uint64    // Listing.Content as it was judged; after the claim it has to be the same
	Expired   bool      // it never became complete
	FirstSeen time.Time // by this process
	Complete  time.Time // when it was judged
}
