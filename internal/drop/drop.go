// Package drop owns the safe view of one dropped folder: what lies in its whole
// tree, a fingerprint that tells whether anything changed, and its files opened
// without following links or waiting for anybody.
//
// The folder belongs to somebody else, who may change it at any moment and
// with intent. So every step begins at an os.Root, no link is followed, what is
// not a regular file is never read, and the number of entries that are looked
// at has a limit, as has their depth.
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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Entry is one name in the folder's tree, as lstat(2) tells it.
type Entry struct {
	Name  string // below the folder: "FRONT.jpg", "originals/p1.tif"
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

// ForeignLink reports whether the entry is a hard link to a file that is not
// the folder's owner's: somebody else's, wherever else it lies.
func (e Entry) ForeignLink(owner uint32) bool {
	return e.Regular() && e.Links > 1 && e.UID != owner
}

// ChangeTime returns the entry's ctime in nanoseconds since 1970: by the clock
// of the host that holds the file, and not for the uploader to set.
func (e Entry) ChangeTime() int64 { return e.ctime }

// Listing is a folder's tree at one moment.
type Listing struct {
	Dir     Entry   // the folder itself
	Entries []Entry // files, directories and all else, sorted by name; at most the limit
	Records []Entry // in the folder itself: what the caller of List knows for records of the daemon's
	More    bool    // there are more entries than the limit
	Deep    string  // a directory that lies too deep to be looked into; empty: there is none

	// Content changes when a name, kind, owner, size, mtime, ctime or inode
	// among the entries does. It compares only within this process.
	Content uint64
	// Full is Content and the folder's own mode, owner, mtime and ctime, which
	// a move to another place changes too. Only it tells of changes among
	// records, and among entries beyond the limit.
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

// Dir opens the directory of root itself. That it doesn't block, as no directory
// does, spares package os the trial whether it can be made so: four calls.
func Dir(root *os.Root) (*os.File, error) {
	return root.OpenFile(".", os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
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
		if now, gone := parent.Lstat(name); gone == nil && !now.IsDir() {
			err = &fs.PathError{Op: "open", Path: name, Err: syscall.ENOTDIR}
		}
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

// Newest returns the entry that changed last, or the folder itself.
func (l Listing) Newest() Entry {
	newest := l.Dir
	for _, e := range l.Entries {
		if e.ctime >= newest.ctime {
			newest = e
		}
	}
	return newest
}

var seed = maphash.MakeSeed()

// Bounds of a listing.
const (
	MaxDepth    = 16  // parts of the longest name; a directory there is not looked into
	mostRecords = 100 // more are entries like any other
)

// List reads the folder's tree, but no more than limit entries of it. Files of
// the folder itself that record tells are no entries, and don't count. Names
// that vanish while it reads are left out. A directory that can't be read is an
// error that names it.
func List(root *os.Root, limit int, record func(Entry) bool) (Listing, error) {
	info, err := root.Stat(".")
	if err != nil {
		return Listing{}, err
	}
	w := walk{l: Listing{Dir: entry(".", info)}, limit: limit, record: record}
	if err := w.dir(root, "", 1); err != nil {
		return Listing{}, err
	}
	l := w.l
	slices.SortFunc(l.Entries, byName)
	slices.SortFunc(l.Records, byName)
	var h maphash.Hash
	h.SetSeed(seed)
	for _, e := range l.Entries {
		maphash.WriteComparable(&h, e)
	}
	maphash.WriteComparable(&h, [2]uint64{l.Dir.dev, l.Dir.ino})
	l.Content = h.Sum64()
	for _, e := range l.Records {
		maphash.WriteComparable(&h, e)
	}
	maphash.WriteComparable(&h, l.Dir)
	l.Full = h.Sum64()
	return l, nil
}

func byName(a, b Entry) int { return strings.Compare(a.Name, b.Name) }

// walk is a listing on its way.
type walk struct {
	l      Listing
	limit  int
	record func(Entry) bool
}

// dir lists the directory d, whose names begin with prefix and have depth
// parts: first all that is in it, then what its own directories hold. So the
// folder itself is the last to go short when there are too many entries.
func (w *walk) dir(d *os.Root, prefix string, depth int) error {
	names, err := w.names(d)
	if err != nil {
		return at(prefix, err)
	}
	var dirs []string
	for _, name := range names {
		info, err := d.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return at(prefix, err)
		}
		e := entry(prefix+name, info)
		if depth == 1 && len(w.l.Records) < mostRecords && w.record(e) {
			w.l.Records = append(w.l.Records, e)
			continue
		}
		if len(w.l.Entries) == w.limit {
			w.l.More = true
			return nil
		}
		w.l.Entries = append(w.l.Entries, e)
		if e.Mode.IsDir() {
			dirs = append(dirs, name)
		}
	}
	for _, name := range dirs {
		if depth == MaxDepth {
			w.l.Deep = prefix + name
			return nil
		}
		if err := w.below(d, prefix, name, depth); err != nil || w.l.More {
			return err
		}
	}
	return nil
}

func (w *walk) below(d *os.Root, prefix, name string, depth int) error {
	sub, err := Open(d, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil // the next look finds what became of it
	}
	if err != nil {
		return at(prefix+name+"/", err)
	}
	defer sub.Close()
	return w.dir(sub, prefix+name+"/", depth+1)
}

// names reads the names in d, but not many more than may be listed.
func (w *walk) names(d *os.Root) ([]string, error) {
	f, err := Dir(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	most := w.limit - len(w.l.Entries) + mostRecords + 1
	var names []string
	for len(names) < most {
		n := min(most-len(names), 128)
		batch, err := f.Readdirnames(n)
		names = append(names, batch...)
		if errors.Is(err, io.EOF) || err == nil && len(batch) < n {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return names, nil
}

// BelowError says in which directory of the folder an error was met.
type BelowError struct {
	Dir string // its name in the listing
	Err error
}

func (e *BelowError) Error() string { return e.Dir + ": " + e.Err.Error() }
func (e *BelowError) Unwrap() error { return e.Err }

func at(prefix string, err error) error {
	if prefix == "" {
		return err
	}
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	return &BelowError{Dir: strings.TrimSuffix(prefix, "/"), Err: err}
}

func entry(name string, info fs.FileInfo) Entry {
	e := Entry{Name: name, Mode: info.Mode(), Size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		e.UID, e.GID, e.Links = st.Uid, st.Gid, uint64(st.Nlink) //nolint:unconvert // Nlink is narrower on some architectures
		e.dev, e.ino, e.ctime = st.Dev, st.Ino, st.Ctim.Nano()
	}
	return e
}

// Why a file that was listed can't be opened now.
var (
	ErrChanged = errors.New("the file changed")     // it is no longer the one that was listed
	ErrBusy    = errors.New("somebody has it open") // somebody else's lease is on it, as Samba makes them for its clients
)

// OpenFile opens the regular file e for reading. When the name now means
// another file, a link, or a changed file, the error is ErrChanged. It never
// waits: a file under somebody's lease is ErrBusy.
func OpenFile(root *os.Root, e Entry) (*os.File, error) {
	if !e.Regular() {
		return nil, &fs.PathError{Op: "open", Path: e.Name, Err: errors.New("not a regular file")}
	}
	return reopen(root, e, 0)
}

// OpenDir is OpenFile for the directory e.
func OpenDir(root *os.Root, e Entry) (*os.File, error) {
	return reopen(root, e, unix.O_DIRECTORY)
}

func reopen(root *os.Root, e Entry, flags int) (*os.File, error) {
	f, err := openAt(root, e.Name, flags)
	for _, gone := range []error{fs.ErrNotExist, syscall.ELOOP, syscall.ENOTDIR, syscall.ENXIO} {
		if errors.Is(err, gone) {
			return nil, fmt.Errorf("%w: something else is in its place", ErrChanged)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := Unchanged(f, e); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openAt opens the file called name below root for reading, following no link,
// not even one that stays inside, which os.Root would follow whatever the
// flags say. Nothing is waited for; what was opened has still to be looked at.
func openAt(root *os.Root, name string, flags int) (f *os.File, err error) {
	err = inside(root, func(at int) error {
		fd, err := openIn(at, name, flags)
		if err == nil {
			f = os.NewFile(uintptr(fd), root.Name()+"/"+name)
		}
		return err
	})
	return f, err
}

// inside calls f with a descriptor of the directory root. It opens nothing by
// itself (open(2), O_PATH), which spares package os what it does for files that
// are to be read.
func inside(root *os.Root, f func(at int) error) error {
	d, err := root.OpenFile(".", unix.O_PATH|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return control(d, func(fd uintptr) error { return f(int(fd)) })
}

// openIn opens name below the directory at the descriptor at, see openAt.
func openIn(at int, name string, flags int) (fd int, err error) {
	part, rest, more := strings.Cut(name, "/")
	how := flags | unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY
	if more {
		how = unix.O_PATH | unix.O_DIRECTORY
	}
	err = unix.ENOTDIR
	if part != ".." {
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			fd, err = unix.Openat(at, part, how|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err != nil {
		return -1, &fs.PathError{Op: "openat", Path: part, Err: err}
	}
	if !more {
		return fd, nil
	}
	defer unix.Close(fd)
	return openIn(fd, rest, flags)
}

// ErrNotPlain says that a name is not one of a regular file of a sensible size.
var ErrNotPlain = errors.New("not a regular file, or too large")

// ReadFile reads the regular file name of at most limit bytes. It never waits,
// and follows no link: neither a FIFO nor a link can hang or mislead the
// daemon, whenever it is put there.
func ReadFile(root *os.Root, name string, limit int64) ([]byte, error) {
	return readPlain(root, name, limit, false)
}

// ReadHead is ReadFile of at most the first limit bytes.
func ReadHead(root *os.Root, name string, limit int64) ([]byte, error) {
	return readPlain(root, name, limit, true)
}

func readPlain(root *os.Root, name string, limit int64, head bool) ([]byte, error) {
	f, err := openAt(root, name, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) { // a link, a socket
		return nil, ErrNotPlain
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || !head && info.Size() > limit {
		return nil, ErrNotPlain
	}
	data := make([]byte, min(info.Size()+1, limit))
	n, err := io.ReadFull(f, data)
	if err == nil && int64(n) < limit { // it grows
		more, err := io.ReadAll(io.LimitReader(f, limit-int64(n)))
		return append(data, more...), err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) { // its end, as a rule
		err = nil
	}
	return data[:n], err
}

// Identity names the directory itself, wherever it is moved to and whatever is
// in it: by its inode and the time of its birth (statx(2), STX_BTIME), since an
// inode's number is given again once it is free. It is empty where the file
// system keeps no time of birth.
func Identity(root *os.Root) (string, error) {
	d, err := Dir(root)
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

// Inode is that of the directory that Identity names; 0: it names none.
func Inode(identity string) uint64 {
	n, _, _ := strings.Cut(identity, ":")
	ino, err := strconv.ParseUint(n, 10, 64)
	if err != nil {
		return 0
	}
	return ino
}

// buffers are what Sum reads with.
var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// Sum returns the SHA-256 of a file that was listed, in lower-case hex.
func Sum(root *os.Root, e Entry) (string, error) {
	f, err := OpenFile(root, e)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	buf, _ := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	if _, err := io.CopyBuffer(h, io.NewSectionReader(f, 0, e.Size), *buf); err != nil {
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
// writing, or holds a lease on, or "" when there is none, or when the kernel
// doesn't say, see OpenForWriting.
func Busy(root *os.Root, l Listing) (name string) {
	// What can't be opened is for others to tell.
	_ = inside(root, func(at int) error {
		for _, e := range l.Entries {
			if e.Regular() && busy(at, e.Name) {
				name = e.Name
				break
			}
		}
		return nil
	})
	return name
}

func busy(at int, name string) bool {
	fd, err := openIn(at, name, 0)
	if err != nil {
		return errors.Is(err, ErrBusy)
	}
	err = lease(uintptr(fd))
	_ = unix.Close(fd) // ends the lease
	return errors.Is(err, unix.EAGAIN)
}

// lease takes a read lease, which ends when the file is closed.
func lease(fd uintptr) error {
	_, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK)
	return err
}

// OpenForWriting reports whether somebody has the file open for writing, or
// mapped so, as far as the kernel says: a read lease is refused with EAGAIN then
// (fcntl(2), F_SETLEASE), but may be taken only on one's own files or with
// CAP_LEASE, and not on every file system.
func OpenForWriting(f *os.File) bool {
	err := control(f, func(fd uintptr) error {
		err := lease(fd)
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

// Hole returns where in f, of that size, the first part begins that was never
// written, or size when there is none: a client has set the size first and
// fills the file in later, or a copying program left out zeros. File systems
// without holes tell that there are none.
func Hole(f *os.File, size int64) int64 {
	hole := size
	err := control(f, func(fd uintptr) (err error) {
		hole, err = unix.Seek(int(fd), 0, unix.SEEK_HOLE)
		return err
	})
	if _, back := f.Seek(0, io.SeekStart); err != nil || back != nil {
		return size
	}
	return min(hole, size)
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
	d, err := Dir(parent)
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

// Why an entry of a folder can't be removed, see Removable.
var (
	ErrImmutable = errors.New("it is immutable, or may only be appended to (chattr -i -a)")
	ErrMounted   = errors.New("something is mounted there (umount)")
	ErrSticky    = errors.New("it is somebody else's, in a sticky directory (chmod -t)")
)

// Removable returns nil when the process may remove what is called name in dir,
// as far as that can be told without doing it: else one of the errors above,
// ErrFolder, or that of the system.
func Removable(dir *os.Root, name string) error {
	return inside(dir, func(at int) error {
		switch err := unix.Faccessat(at, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); {
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
			return ErrFolder
		case err != nil:
			return &fs.PathError{Op: "access", Path: name, Err: err}
		}
		var in, is unix.Statx_t
		err := unix.Statx(at, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &in)
		if err == nil {
			err = unix.Statx(at, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &is)
		}
		const kept = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND
		me := uint32(os.Geteuid())
		switch {
		case err != nil:
			return &fs.PathError{Op: "statx", Path: name, Err: err}
		case (in.Attributes|is.Attributes)&kept != 0:
			return ErrImmutable
		case is.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0:
			return ErrMounted
		case in.Mode&unix.S_ISVTX != 0 && me != 0 && in.Uid != me && is.Uid != me:
			return ErrSticky
		}
		return nil
	})
}

// Arrival is a folder in an inbox that is ready to be taken.
type Arrival struct {
	Inbox     string // the inbox's name
	Dir       string // and where it was, when the folder was judged
	Name      string
	Content   uint64    // Listing.Content as it was judged; after the claim it has to be the same
	Expired   bool      // it never became complete
	Changing  string    // with Expired: what somebody writes to, or changes, all the time; "." is the folder itself
	FirstSeen time.Time // by this process
	Complete  time.Time // when it was judged
}
