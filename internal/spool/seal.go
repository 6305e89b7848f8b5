package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/drop"
)

// Modes of what is sealed, and of what its uploader is to work on again. The
// setgid bit is left out: the service may not set it (RestrictSUIDSGID=).
const (
	sealedDir, sealedFile = 0o750, 0o440
	givenDir, givenFile   = 0o770, 0o660
	closedDir             = 0o700 // while it is being sealed
)

// Bounds of a walk. What lies deeper than maxDepth is out of everybody's reach
// once the directory above is closed.
const (
	maxDepth  = 64
	maxMended = 4096 // names
)

// node is a file or directory, held by a descriptor that nobody can turn into
// another file's, and that opens nothing (open(2), O_PATH).
type node struct {
	fd int
	st unix.Stat_t
}

// at opens what is called name in the directory at the descriptor parent,
// without following a link.
func at(parent int, name string) (node, error) {
	fd, err := unix.Openat(parent, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return node{}, &os.PathError{Op: "open", Path: name, Err: err}
	}
	n := node{fd: fd}
	if err := n.look(); err != nil {
		n.close()
		return node{}, err
	}
	return n, nil
}

// folder is at of a folder in a place.
func (paths Paths) folder(p Place, name string) (node, error) {
	fd, err := unix.Open(paths[p], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return node{}, &os.PathError{Op: "open", Path: paths[p], Err: err}
	}
	defer node{fd: fd}.close()
	n, err := at(fd, name)
	if err == nil && !n.dir() {
		n.close()
		err = &os.PathError{Op: "open", Path: name, Err: unix.ENOTDIR}
	}
	return n, err
}

func (n node) close() { _ = unix.Close(n.fd) } // nothing was opened by it

func (n *node) look() error { return unix.Fstat(n.fd, &n.st) }

func (n node) dir() bool     { return n.st.Mode&unix.S_IFMT == unix.S_IFDIR }
func (n node) regular() bool { return n.st.Mode&unix.S_IFMT == unix.S_IFREG }
func (n node) mode() uint32  { return n.st.Mode &^ unix.S_IFMT }

// path leads to the very file, whatever its name means by now (proc(5)).
func (n node) path() string { return "/proc/self/fd/" + strconv.Itoa(n.fd) }

func (n node) chown(uid, gid int) error {
	return unix.Fchownat(n.fd, "", uid, gid, unix.AT_EMPTY_PATH)
}

// chmod sets the mode, and nothing but the mode has a say: access lists go.
func (n node) chmod(mode uint32) error {
	for _, list := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
		if list == "system.posix_acl_default" && !n.dir() {
			continue
		}
		switch err := unix.Removexattr(n.path(), list); err {
		case nil, unix.ENODATA, unix.EOPNOTSUPP, unix.EPERM: // EPERM says chmod as well
		default:
			return err
		}
	}
	return unix.Chmod(n.path(), mode)
}

// each calls f for each name in a directory. What lies there may change
// meanwhile; a name may come twice.
func (n node) each(f func(name string) error) error {
	d, err := os.Open(n.path())
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			if err := f(name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// walk is one walk over the tree of a folder.
type walk struct {
	uid, gid int
	owner    uint32 // whose the folder was
	room     Copies // that may still be made
	partly   bool   // something could not be done for lack of rights
}

// may takes note of an error of the folder's own, and lets the walk go on.
func (w *walk) may(err error) error {
	if err != nil && drop.Own(err) {
		w.partly = true
		return nil
	}
	return err
}

// Copies bounds the copies that a seal makes: each has to be brought to the
// disk, and a folder may have any number of names of one file.
type Copies struct {
	Bytes int64 // in all
	Files int
}

// Seal makes the tree of a folder in work the daemon's: its user's and the
// final places' group's, directories 0750, files 0440. From then on nobody
// else can make, remove or alter anything in it; whoever has a file open for
// writing from before is found by a lease (drop.Busy). A file with another link
// to it is replaced by a copy, for at most as many as copies allows, since the
// other link would change it. One that is not of the folder's owner is left as it is:
// it is no file of this folder.
//
// It goes from the folder down, and closes each directory before it reads it,
// by descriptors only; links and special files are left as they are. Again is
// for a folder that was sealed before: it is done with at a glance, unless a
// crash came between.
//
// It takes CAP_CHOWN and CAP_FOWNER. Without them it does what it can, and
// whole is false. An error is the machine's.
func (s *Spool) Seal(workName string, copies Copies, again bool) (whole bool, err error) {
	w := &walk{uid: os.Geteuid(), gid: s.group, room: copies}
	n, err := s.paths.folder(Work, workName)
	if err != nil {
		return false, w.may(err)
	}
	defer n.close()
	w.owner = n.st.Uid
	if again && int(n.st.Uid) == w.uid && int(n.st.Gid) == w.gid && n.mode() == sealedDir {
		return true, nil
	}
	err = w.seal(n, 0)
	return err == nil && !w.partly, err
}

// own makes n the daemon's.
func (w *walk) own(n *node, mode uint32) error {
	if int(n.st.Uid) != w.uid || int(n.st.Gid) != w.gid {
		if err := w.may(n.chown(w.uid, w.gid)); err != nil {
			return err
		}
	}
	if err := w.may(n.chmod(mode)); err != nil {
		return err
	}
	return n.look()
}

func (w *walk) seal(n node, depth int) error {
	if err := w.own(&n, closedDir); err != nil || depth >= maxDepth {
		return err
	}
	copied := false
	err := w.may(n.each(func(name string) error {
		e, err := at(n.fd, name)
		if err != nil {
			return w.may(err)
		}
		defer e.close()
		switch {
		case e.dir() && e.st.Dev == n.st.Dev:
			return w.seal(e, depth+1)
		case !e.regular():
			return nil
		}
		if e.st.Nlink > 1 && e.st.Uid != w.owner {
			w.partly = true
			return nil
		}
		if e.st.Nlink == 1 {
			if err := w.own(&e, sealedFile); err != nil || e.st.Nlink == 1 {
				return err
			}
		}
		copied = true
		return w.may(w.replace(n, name, e))
	}))
	if err == nil && copied {
		err = w.may(n.sync())
	}
	if err != nil {
		return err
	}
	return w.may(n.chmod(sealedDir))
}

func (n node) sync() error {
	d, err := os.Open(n.path())
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// copyName is the name of a copy that is being made: one that the daemon gives
// its own unfinished files (durable.IsTemp).
const copyName = ".idenfy-batch.copy.tmp"

// replace puts a copy in the place of a file that has other names.
func (w *walk) replace(dir node, name string, n node) (err error) {
	w.room.Bytes -= n.st.Size
	w.room.Files--
	if w.room.Bytes < 0 || w.room.Files < 0 {
		w.partly = true
		return nil
	}
	from, err := os.OpenFile(n.path(), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	_ = unix.Unlinkat(dir.fd, copyName, 0) // of a crash
	fd, err := unix.Openat(dir.fd, copyName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(fd), copyName)
	_, err = io.Copy(to, io.LimitReader(from, n.st.Size))
	if err == nil {
		err = to.Chmod(sealedFile)
	}
	if err == nil {
		err = w.may(to.Chown(-1, w.gid))
	}
	if err == nil {
		mtime := unix.NsecToTimespec(n.st.Mtim.Nano())
		err = unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), []unix.Timespec{mtime, mtime}, 0)
	}
	if err == nil {
		err = to.Sync()
	}
	if err = errors.Join(err, to.Close()); err == nil {
		err = unix.Renameat(dir.fd, copyName, dir.fd, name)
	}
	if err != nil {
		_ = unix.Unlinkat(dir.fd, copyName, 0) // else the next one does
	}
	return err
}

// Unseal gives a folder that the daemon has sealed to its uploader again, who
// may have to mend it: owner and group, directories 0770, files 0660. Without
// CAP_CHOWN, and of root, it stays the daemon's, for the inbox's group to work
// on, if the daemon is in it. A folder that is not the daemon's is left alone.
// A name that is gone is no error.
func (paths Paths) Unseal(p Place, name string, uid, gid uint32) error {
	var inbox unix.Stat_t
	if err := unix.Stat(paths[Inbox], &inbox); err != nil {
		return &os.PathError{Op: "stat", Path: paths[Inbox], Err: err}
	}
	n, err := paths.folder(p, name)
	if err != nil {
		return err
	}
	defer n.close()
	w := &walk{uid: int(uid), gid: int(gid)}
	if int(n.st.Uid) != os.Geteuid() {
		return nil
	}
	return w.unseal(n, int(inbox.Gid), 0)
}

// unseal goes from below up, so that the daemon gets everywhere.
func (w *walk) unseal(n node, shared, depth int) error {
	mode := uint32(givenFile)
	if n.dir() {
		mode = givenDir
		if err := w.may(n.chmod(mode)); err != nil {
			return err
		}
		if depth < maxDepth {
			err := w.may(n.each(func(name string) error {
				e, err := at(n.fd, name)
				if err != nil {
					return w.may(err)
				}
				defer e.close()
				if int(e.st.Uid) != os.Geteuid() || !e.dir() && !e.regular() {
					return nil
				}
				return w.unseal(e, shared, depth+1)
			}))
			if err != nil {
				return err
			}
		}
	} else if err := w.may(n.chmod(mode)); err != nil {
		return err
	}
	err := error(unix.EPERM)
	if w.uid != 0 { // root needs no rights on it, but the daemon does
		err = n.chown(w.uid, w.gid)
	}
	if errors.Is(err, unix.EPERM) {
		err = n.chown(-1, shared)
	}
	return w.may(err)
}

// ErrNotMended says that a folder's modes are as they should be, or that the
// daemon has not the rights to change them.
var ErrNotMended = errors.New("its modes can't be mended")

// Mend makes a folder in the inbox one that the daemon may read and move, where
// its uploader's program set modes that forbid it, as sftp's put -r and cp -r
// do: directories g+rwx, files g+r, and the inbox's group where the daemon is
// not in theirs. Only what belongs to the folder's owner is touched. It takes
// CAP_FOWNER, and for the group CAP_CHOWN. Nil: something was changed.
func (s *Spool) Mend(name string) error {
	var inbox unix.Stat_t
	if err := unix.Stat(s.paths[Inbox], &inbox); err != nil {
		return &os.PathError{Op: "stat", Path: s.paths[Inbox], Err: err}
	}
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	n, err := s.paths.folder(Inbox, name)
	if err != nil {
		return err
	}
	defer n.close()
	m := &mender{owner: n.st.Uid, shared: int(inbox.Gid), groups: append(groups, os.Getegid())}
	if err := m.mend(n, 0); err != nil {
		return err
	}
	if m.mended == 0 {
		return ErrNotMended
	}
	return nil
}

type mender struct {
	owner  uint32
	shared int   // the inbox's group
	groups []int // the daemon's

	seen, mended int
}

func (m *mender) mend(n node, depth int) error {
	m.seen++
	need := uint32(0o440)
	if n.dir() {
		need = 0o770
	}
	if !slices.Contains(m.groups, int(n.st.Gid)) {
		if err := n.chown(-1, m.shared); err != nil {
			return err
		}
		m.mended++
	}
	if n.mode()&need != need {
		// Bits above these would be refused, see RestrictSUIDSGID=.
		if err := unix.Chmod(n.path(), n.mode()&0o1777|need); err != nil {
			return err
		}
		m.mended++
	}
	if !n.dir() || depth >= maxDepth {
		return nil
	}
	return n.each(func(name string) error {
		e, err := at(n.fd, name)
		if errors.Is(err, unix.ENOENT) || m.seen >= maxMended {
			return nil
		}
		if err != nil {
			return err
		}
		defer e.close()
		// Files of an overlay are on another device than their directories.
		if e.st.Uid != m.owner || !e.regular() && (!e.dir() || e.st.Dev != n.st.Dev) {
			return nil
		}
		return m.mend(e, depth+1)
	})
}

// Takes proves with a real rename that a folder can go from work to p and back:
// what a folder met on its way there is its own then.
func (s *Spool) Takes(p Place) error { return s.probe(p) }

// wrapPrefix, with an id, is the hidden name of a wrapper that is being made.
const wrapPrefix = "."

// Wrap puts a folder in work into a directory of the daemon's own that takes
// its name there: it is for one in which the daemon can't write. fill writes
// what is to lie beside the folder; in it the folder is called name.
//
//	mkdir work/.ID, fill          the folder is where it was; a start removes the directory
//	rename the folder to .ID/name the folder is in .ID; a start goes on
//	rename .ID to the work name   done
func (s *Spool) Wrap(workName, name string, fill func(dir *os.Root) error) error {
	_, id, ok := Split(workName)
	if !ok {
		return fmt.Errorf("spool: %s is not a name of work", strconv.Quote(workName))
	}
	wrapper := filepath.Join(s.paths[Work], wrapPrefix+id)
	if err := os.Mkdir(wrapper, closedDir); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	dir, err := os.OpenRoot(wrapper)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := fill(dir); err != nil {
		return err
	}
	_ = os.Chown(wrapper, -1, s.group) // the daemon's own does as well, as a rule
	if err := os.Chmod(wrapper, sealedDir); err != nil {
		return err
	}
	inner := &Spool{paths: Paths{Work: s.paths[Work], Hold: wrapper}}
	if _, err := inner.move(Work, workName, Hold, fit(name, "")); err != nil {
		return err
	}
	_, err = s.move(Work, wrapPrefix+id, Work, workName)
	return err
}

// rewrap ends what a crash left of Wrap.
func (s *Spool) rewrap() error {
	names, err := os.ReadDir(s.paths[Work])
	if err != nil {
		return err
	}
	for _, e := range names {
		_, id, ok := Split("x" + e.Name())
		if !ok || e.Name() != wrapPrefix+id {
			continue
		}
		wrapper := filepath.Join(s.paths[Work], e.Name())
		in, err := os.ReadDir(wrapper)
		if err != nil {
			return err
		}
		inner := slices.IndexFunc(in, os.DirEntry.IsDir)
		if inner < 0 {
			if err := os.RemoveAll(wrapper); err != nil {
				return err
			}
			continue
		}
		if _, err := s.move(Work, e.Name(), Work, fit(in[inner].Name(), "."+id)); err != nil {
			return err
		}
	}
	return nil
}
