package spool

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/drop"
)

// Bounds of a walk. A folder with as much in it is invalid anyway
// (limits.files, drop.MaxDepth).
const (
	maxDepth = 64
	maxNames = 20_000
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

// foreignLink is that of the entry.
func (n node) foreignLink(owner uint32) bool {
	return n.regular() && drop.Entry{UID: n.st.Uid, Links: uint64(n.st.Nlink)}.ForeignLink(owner) //nolint:unconvert // Nlink is narrower on some architectures
}

// path leads to the very file, whatever its name means by now (proc(5)).
func (n node) path() string { return "/proc/self/fd/" + strconv.Itoa(n.fd) }

// lets tells whether the daemon may do that with it, by the owner and the modes
// that it has now.
func (n node) lets(how uint32) bool {
	return unix.Faccessat(unix.AT_FDCWD, n.path(), how, unix.AT_EACCESS) == nil
}

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

// openForWriting reports whether somebody has it open for writing, or holds a
// lease on it, as far as the kernel says.
func (n node) openForWriting() bool {
	f, err := os.OpenFile(n.path(), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return errors.Is(err, unix.EWOULDBLOCK)
	}
	defer f.Close()
	return drop.OpenForWriting(f)
}

// openDir is drop.Dir of a path.
func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
}

func (n node) sync() error {
	d, err := openDir(n.path())
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// errEnough ends a walk that has met maxNames.
var errEnough = errors.New("there are too many names")

// tree is one walk over the tree of a folder.
type tree struct {
	ctx  context.Context
	seen int // names
}

// each calls f for each file and directory in dir, held by a descriptor. Links,
// special files and mounts are left out. What lies there may change meanwhile;
// a name may come twice. An error that is the folder's own ends nothing; one
// that is returned is the machine's, the context's, or errEnough.
func (t *tree) each(dir node, f func(name string, e node) error) error {
	d, err := openDir(dir.path())
	if err != nil {
		return machines(err)
	}
	defer d.Close()
	for {
		const n = 256
		names, err := d.Readdirnames(n)
		for _, name := range names {
			if t.seen++; t.seen > maxNames {
				return errEnough
			}
			if err := t.ctx.Err(); err != nil {
				return err
			}
			if err := t.one(dir, name, f); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) < n {
			return nil
		}
		if err != nil {
			return machines(err)
		}
	}
}

// one is each of one name.
func (t *tree) one(dir node, name string, f func(name string, e node) error) error {
	e, err := at(dir.fd, name)
	if err != nil {
		return machines(err)
	}
	defer e.close()
	// Files of an overlay are on another device than their directories.
	if !e.regular() && (!e.dir() || e.st.Dev != dir.st.Dev) {
		return nil
	}
	return machines(f(name, e))
}

// machines is err if it is not the folder's own.
func machines(err error) error {
	if drop.Own(err) {
		return nil
	}
	return err
}

// shared is the group that the uploaders of an inbox and the daemon share: the
// inbox's. in are the daemon's groups.
func (paths Paths) shared(inbox Place) (gid int, in []int, err error) {
	var st unix.Stat_t
	if err := unix.Stat(paths[inbox], &st); err != nil {
		return 0, nil, &os.PathError{Op: "stat", Path: paths[inbox], Err: err}
	}
	in, err = os.Getgroups()
	return int(st.Gid), slices.Concat(in, []int{os.Getegid()}), err
}
