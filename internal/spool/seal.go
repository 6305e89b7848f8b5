package spool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Modes of what is sealed, and of what its uploader is to work on again. The
// setgid bit is left out: the service may not set it (RestrictSUIDSGID=).
const (
	sealedDir, sealedFile = 0o750, 0o440
	givenDir, givenFile   = 0o770, 0o660
	closedDir             = 0o700 // while it is being sealed
)

// sealer is a seal on its way.
type sealer struct {
	tree
	uid, gid int
	owner    uint32   // whose the folder was
	first    []string // in the folder itself
	room     Copies   // that may still be made
	left     Left
}

// Copies bounds the copies that a seal makes: each has to be brought to the
// disk.
type Copies struct {
	Bytes int64
	Files int
	// Open tells which files, by their path in the folder, are replaced by a
	// copy while somebody has them open for writing: those for which the folder
	// doesn't go back. Nil: none.
	Open func(path string) bool
}

// Left is what of a sealed folder somebody else may still change: paths in it,
// of directories with a slash ("./" is the folder itself), and how many more
// there are.
type Left struct {
	Names []string
	More  int
}

// Bounds of Left.
const (
	mostLeft    = 64
	longestLeft = 1024 // of a longer name the directories that it begins with are named
)

// add notes a name, unless a directory was that it lies in.
func (l *Left) add(name string) {
	if len(name) > longestLeft {
		name = name[:strings.LastIndexByte(name[:longestLeft], '/')+1]
	}
	for _, in := range l.Names {
		if in == name || in == "./" || strings.HasSuffix(in, "/") && strings.HasPrefix(name, in) {
			return
		}
	}
	if len(l.Names) == mostLeft {
		l.More++
		return
	}
	l.Names = append(l.Names, name)
}

// Seal makes the tree of a folder in work the daemon's: its user's and the
// final places' group's, directories 0750, files 0440. From then on nobody
// else can make, remove or alter anything in it. A file with another link to it
// is replaced by a copy, within the bounds of copies, since the other link
// would change it; the files called first come first. So is a file of
// copies.Open that somebody has open for writing from before, which a lease
// tells (drop.OpenForWriting): what he writes from then on goes nowhere.
//
// What is neither the folder's owner's nor the daemon's is left as it is, if
// the daemon could not read it before, or it has another link: it is no file of
// this folder, and its uploader is not to get it by way of the daemon.
//
// It goes from the folder down, and closes each directory before it reads it,
// by descriptors only; links and special files are left as they are. What lies
// beyond the bounds of a walk stays what it was, and the directories around it
// stay closed: nobody gets there but who has a descriptor of a directory below
// them. Again is for a folder that was sealed before: it is done with at a
// glance, unless a crash came between.
//
// It takes CAP_CHOWN and CAP_FOWNER. Without them it does what it can. What
// could not be sealed is returned, as far as it was looked for. An error is the
// machine's, or the context's.
func (s *Spool) Seal(ctx context.Context, workName string, first []string, copies Copies, again bool) (Left, error) {
	w := &sealer{tree: tree{ctx: ctx}, uid: os.Geteuid(), gid: s.group, first: first, room: copies}
	n, err := s.Paths().folder(Work, workName)
	if err != nil {
		return Left{}, machines(err)
	}
	defer n.close()
	w.owner = n.st.Uid
	if again && int(n.st.Uid) == w.uid && int(n.st.Gid) == w.gid && n.mode() == sealedDir {
		return Left{}, nil
	}
	err = machines(w.seal(n, "", 0))
	if errors.Is(err, errEnough) {
		return Left{Names: []string{"./"}}, nil // anywhere
	}
	return w.left, err
}

// Reseal takes a folder in a final place back that Unseal gave away, and that
// could not be moved then.
func (paths Paths) Reseal(p Place, name string) error {
	var place unix.Stat_t
	if err := unix.Stat(paths[p], &place); err != nil {
		return &os.PathError{Op: "stat", Path: paths[p], Err: err}
	}
	n, err := paths.folder(p, name)
	if err != nil {
		return err
	}
	defer n.close()
	w := &sealer{tree: tree{ctx: context.Background()}, uid: os.Geteuid(), gid: int(place.Gid), owner: n.st.Uid}
	w.room = Copies{Bytes: 64 << 20, Files: 64, Open: func(string) bool { return true }} // it was his for a moment
	if err := machines(w.seal(n, "", 0)); !errors.Is(err, errEnough) {
		return err
	}
	return nil
}

// mayTake tells whether e is to become the daemon's.
func (w *sealer) mayTake(e node) bool {
	if e.foreignLink(w.owner) {
		return false
	}
	how := uint32(unix.R_OK)
	if e.dir() {
		how |= unix.X_OK
	}
	return e.st.Uid == w.owner || int(e.st.Uid) == w.uid || e.lets(how)
}

// own makes n the daemon's. Where that is refused its mode stays as well: the
// daemon may need what it lets others do.
func (w *sealer) own(n *node, mode uint32) error {
	if int(n.st.Uid) != w.uid || int(n.st.Gid) != w.gid {
		if err := machines(n.chown(w.uid, w.gid)); err != nil {
			return err
		}
		if err := n.look(); err != nil || int(n.st.Uid) != w.uid {
			return err
		}
	}
	if err := machines(n.chmod(mode)); err != nil {
		return err
	}
	return n.look()
}

// seal seals the directory n, whose path in the folder is at, with a slash.
func (w *sealer) seal(n node, at string, depth int) error {
	if err := w.own(&n, closedDir); err != nil {
		return err
	}
	if depth >= maxDepth || int(n.st.Uid) != w.uid {
		w.left.add(cmp.Or(at, "./"))
	}
	if depth >= maxDepth {
		return nil
	}
	copied := false
	take := func(name string, e node) error {
		if e.dir() && w.mayTake(e) {
			return w.seal(e, at+name+"/", depth+1)
		}
		made, err := w.file(n, at+name, e)
		copied = copied || made
		return err
	}
	early := func(name string) bool { return depth == 0 && slices.Contains(w.first, name) }
	for _, name := range w.first {
		if early(name) && !strings.Contains(name, "/") {
			if err := w.one(n, name, take); err != nil {
				return err
			}
		}
	}
	err := w.each(n, func(name string, e node) error {
		if early(name) {
			return nil
		}
		return take(name, e)
	})
	if copied && (err == nil || errors.Is(err, errEnough)) {
		if err := machines(n.sync()); err != nil {
			return err
		}
	}
	if err != nil || int(n.st.Uid) != w.uid {
		return err
	}
	return n.chmod(sealedDir)
}

// file seals the file e, whose path in the folder is at, in the directory dir,
// and tells whether it put a copy in its place. A directory is one that is not
// to be taken.
func (w *sealer) file(dir node, at string, e node) (copied bool, err error) {
	if e.dir() {
		at += "/"
	}
	if !w.mayTake(e) {
		w.left.add(at)
		return false, nil
	}
	if e.st.Nlink == 1 {
		if err := w.own(&e, sealedFile); err != nil {
			return false, err
		}
	}
	if e.st.Nlink > 1 || w.room.Open != nil && w.room.Open(at) && e.openForWriting() {
		copied, err = w.replace(dir, path.Base(at), e)
	} else if int(e.st.Uid) == w.uid {
		return false, nil
	}
	if !copied {
		w.left.add(at)
	}
	return copied, err
}

// copyName is the name of a copy that is being made: one that the daemon gives
// its own unfinished files (durable.IsTemp).
const copyName = ".idenfy-batch.copy.tmp"

// replace puts a copy in the place of a file that somebody else could change,
// if there is room for it.
func (w *sealer) replace(dir node, name string, n node) (made bool, err error) {
	if n.st.Size > w.room.Bytes || w.room.Files == 0 {
		return false, nil
	}
	w.room.Bytes -= n.st.Size
	w.room.Files--
	from, err := os.OpenFile(n.path(), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return false, err
	}
	defer from.Close()
	_ = unix.Unlinkat(dir.fd, copyName, 0) // of a crash
	fd, err := unix.Openat(dir.fd, copyName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false, err
	}
	to := os.NewFile(uintptr(fd), copyName)
	_, err = io.Copy(to, io.LimitReader(from, n.st.Size))
	if err == nil {
		err = to.Chmod(sealedFile)
	}
	if err == nil {
		err = machines(to.Chown(-1, w.gid))
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
	return err == nil, err
}

// Unseal gives a folder that the daemon has sealed to its uploader again, who
// may have to mend it in the inbox: owner and group, directories 0770, files
// 0660. The group is the inbox's where the daemon is not in the uploader's, since it has to
// move the folder now, and to take it again. Without CAP_CHOWN, and of root, it
// stays the daemon's, for the inbox's group to work on, if the daemon is in it.
// A file with another link stays the daemon's: it may be one that lies
// elsewhere.
//
// A folder that is not the daemon's is left alone, but for modes that keep it
// from being moved. There is no context: it is done when the daemon stops, too.
func (paths Paths) Unseal(p Place, name string, inbox Place, uid, gid uint32) error {
	n, err := paths.folder(p, name)
	if err != nil {
		return err
	}
	defer n.close()
	ctx := context.Background()
	if int(n.st.Uid) != os.Geteuid() {
		if n.lets(unix.W_OK | unix.X_OK) {
			return nil
		}
		_, err := paths.mend(ctx, n, inbox)
		return err
	}
	u := &unsealer{tree: tree{ctx: ctx}, uid: int(uid), gid: int(gid)}
	var in []int
	if u.shared, in, err = paths.shared(inbox); err != nil {
		return err
	}
	if os.Geteuid() != 0 && !slices.Contains(in, u.gid) {
		u.gid = u.shared
	}
	return machines(u.unseal(n, 0))
}

type unsealer struct {
	tree
	uid, gid int
	shared   int
}

// unseal goes from below up, so that the daemon gets everywhere, and a folder
// that was left in between is the daemon's still.
func (u *unsealer) unseal(n node, depth int) error {
	mode := uint32(givenFile)
	if n.dir() {
		mode = givenDir
	}
	if err := machines(n.chmod(mode)); err != nil {
		return err
	}
	if n.dir() && depth < maxDepth {
		err := u.each(n, func(_ string, e node) error {
			if int(e.st.Uid) != os.Geteuid() || e.regular() && e.st.Nlink > 1 {
				return nil
			}
			return u.unseal(e, depth+1)
		})
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
	}
	err := error(unix.EPERM)
	if u.uid != 0 { // root needs no rights on it, but the daemon does
		err = n.chown(u.uid, u.gid)
	}
	if errors.Is(err, unix.EPERM) {
		err = n.chown(-1, u.shared)
	}
	return err
}
