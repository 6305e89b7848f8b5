// Package hostile owns the folders that somebody may drop with intent, or by
// misfortune, to harm the daemon or other people's folders, and says where each
// of them may end. They are for the test of the whole and for the benchmark.
package hostile

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
)

// Yard is where hostile folders are made, as their uploader's: by a user of his
// own, if the process is root's. Create it with NewYard.
type Yard struct {
	Inbox string // where they are dropped
	Known string // the id of a submission that was accepted

	uid, gid int    // who uploads; uid 0: the process itself
	outside  string // what no folder may change
	kept     string // the uploader's own, outside of the inbox

	folders []*Folder                    // made so far
	attacks []func(stop <-chan struct{}) // not begun yet
	stop    chan struct{}
	all     sync.WaitGroup
	undo    []func() error
	before  map[string]string // what lay outside
}

// uploader and stranger are users that nobody is.
const (
	uploader = 1234
	stranger = 4242
)

// NewYard prepares what lies outside the inbox below dir, on the inbox's file
// system. Where the process is root's, group is that of the inbox.
func NewYard(inbox, dir string, group int) (*Yard, error) {
	y := &Yard{
		Inbox: inbox, outside: filepath.Join(dir, "outside"), kept: filepath.Join(dir, "kept"),
		gid: group, stop: make(chan struct{}),
	}
	if os.Getuid() == 0 {
		y.uid = uploader
	}
	for _, d := range []string{dir, y.outside, y.kept} {
		// Open to all: who follows a link there is to succeed, and be seen.
		if err := errors.Join(os.MkdirAll(d, 0o700), os.Chmod(d, 0o777)); err != nil {
			return nil, err
		}
	}
	err := sample.Write(filepath.Join(y.outside, "folder"), whole(Token("outside")))
	for name, data := range map[string][]byte{"secret.jpg": secret, "meta.yaml": whole(Token("outside"))["meta.yaml"], "stranger.png": photo, "text": []byte("nothing of yours\n")} {
		path := filepath.Join(y.outside, name)
		err = errors.Join(err, os.WriteFile(path, data, 0o600), os.Chmod(path, 0o666))
	}
	if y.uid != 0 {
		err = errors.Join(err, os.Chown(filepath.Join(y.outside, "stranger.png"), stranger, stranger))
	}
	return y, err
}

// Case is a hostile folder.
type Case struct {
	Name string
	// Ends are the words of where it may end: an outcome, in its place; inbox
	// or work, where status explains it; alone, where it is no drop; gone.
	Ends []string
	Says string // is among what explains it, unless it is accepted

	make   func(*Folder) error
	answer func(n int) sandbox.Step // to its n-th request; nil: faithful
	rooted bool                     // root's help is needed to make it
	after  func(f *Folder, place, path string) error
}

// Folder is one that was made.
type Folder struct {
	Case  Case
	Token string
	Dirs  []uint64 // inodes of the directories that stand for it

	y    *Yard
	dir  string
	file *os.File // of a hook's own
}

// Token is a fresh one for each name.
func Token(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "H" + hex.EncodeToString(sum[:12])
}

// Put drops a folder as its uploader does, with what a group shares.
func (y *Yard) Put(name string, files map[string][]byte) error {
	return y.as(func() error { return y.write(filepath.Join(y.Inbox, name), files) })
}

func (y *Yard) write(dir string, files map[string][]byte) error {
	if err := sample.Write(dir, files); err != nil {
		return err
	}
	var err error
	for name := range maps.Keys(files) {
		err = errors.Join(err, os.Chmod(filepath.Join(dir, name), 0o660))
	}
	return errors.Join(err, os.Chmod(dir, fs.ModeSetgid|0o770))
}

// as does something as the uploader.
func (y *Yard) as(do func() error) error {
	if y.uid == 0 {
		return do()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: a thread with another user ends with its goroutine
		if err := errors.Join(unix.Setfsgid(y.gid), unix.Setfsuid(y.uid)); err != nil {
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
}

// asRoot does something as the process's own user, out of as.
func asRoot(do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	return <-done
}

// Make makes those of cases that can be made here. None of them attacks before
// Begin.
func (y *Yard) Make(cases []Case) (made []*Folder, err error) {
	for i := range cases {
		c := &cases[i]
		if c.rooted && os.Getuid() != 0 {
			continue
		}
		f := &Folder{Case: *c, Token: Token(c.Name), y: y, dir: filepath.Join(y.Inbox, c.Name)}
		err := y.as(func() error { return c.make(f) })
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", c.Name, err)
		}
		if info, err := os.Lstat(f.dir); err == nil {
			f.stands(info)
		}
		made = append(made, f)
	}
	y.folders = append(y.folders, made...)
	if y.before == nil {
		y.before, err = census(y.outside)
	}
	return made, err
}

func (f *Folder) stands(info fs.FileInfo) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		f.Dirs = append(f.Dirs, st.Ino)
	}
}

// Treat says how the service is to treat requests, see sandbox.Decide.
func (y *Yard) Treat() func(token string, n int) sandbox.Step {
	answers := map[string]func(int) sandbox.Step{}
	for _, f := range y.folders {
		if f.Case.answer != nil {
			answers[f.Token] = f.Case.answer
		}
	}
	return func(token string, n int) sandbox.Step {
		if answer := answers[token]; answer != nil {
			return answer(n)
		}
		return sandbox.Step{}
	}
}

// Begin begins what goes on until Stop, or until its folder is out of reach.
func (y *Yard) Begin() {
	for _, attack := range y.attacks {
		y.all.Go(func() {
			_ = y.as(func() error { attack(y.stop); return nil }) // who can't become the uploader attacks nobody
		})
	}
	y.attacks = nil
}

// Stop ends what goes on.
func (y *Yard) Stop() {
	close(y.stop)
	y.all.Wait()
}

// Close takes away what would keep others from removing the folders below
// root.
func (y *Yard) Close(root string) error {
	var err error
	for _, undo := range slices.Backward(y.undo) {
		err = errors.Join(err, undo())
	}
	return errors.Join(err, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() { // before it is read
			return os.Chmod(path, 0o700)
		}
		return err
	}))
}

// Changed returns what differs outside from what lay there once all were made.
func (y *Yard) Changed() (changes []string, err error) {
	after, err := census(y.outside)
	for _, path := range slices.Sorted(maps.Keys(y.before)) {
		if was, is := y.before[path], after[path]; was != is {
			changes = append(changes, fmt.Sprintf("%s was %s, and is %s", path, was, is))
		}
	}
	for path, is := range after {
		if y.before[path] == "" {
			changes = append(changes, fmt.Sprintf("%s came to be: %s", path, is))
		}
	}
	return changes, err
}

// census describes all below a directory. The number of links, and the time of
// a change of the inode, which goes with it, are for the uploader to change.
func census(dir string) (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return errors.ErrUnsupported
		}
		all[path] = fmt.Sprintf("%s of %d:%d, %d bytes of %s", info.Mode(), st.Uid, st.Gid, info.Size(), info.ModTime().Format(time.RFC3339Nano))
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			all[path] += fmt.Sprintf(", %x", sha256.Sum256(data))
			return err
		}
		return nil
	})
	return all, err
}

// After looks at what only the case itself can tell, once it has ended.
func (f *Folder) After(place, path string) error {
	if f.Case.after == nil {
		return nil
	}
	return f.Case.after(f, place, path)
}

// What the makers are put together of. A path is below the folder.

func (f *Folder) path(elem ...string) string {
	return filepath.Join(append([]string{f.dir}, elem...)...)
}

type step func(*Folder) error

// all does one after the other.
func all(steps ...step) func(*Folder) error {
	return func(f *Folder) error {
		for _, s := range steps {
			if err := s(f); err != nil {
				return err
			}
		}
		return nil
	}
}

// good makes a folder that would be accepted, and then steps.
func good(steps ...step) func(*Folder) error {
	return all(append([]step{func(f *Folder) error { return f.y.write(f.dir, whole(f.Token)) }}, steps...)...)
}

// withLines is good with more lines in meta.yaml.
func withLines(lines ...string) func(*Folder) error {
	return func(f *Folder) error { return f.y.write(f.dir, whole(f.Token, lines...)) }
}

func remove(path string) step { return func(f *Folder) error { return os.Remove(f.path(path)) } }

func instead(path string, s func(string) step) step {
	return func(f *Folder) error { return errors.Join(remove(path)(f), s(path)(f)) }
}

func mkdir(path string) step {
	return func(f *Folder) error {
		for dir := f.path(path); dir != f.dir; dir = filepath.Dir(dir) {
			if err := os.MkdirAll(dir, 0o770); err != nil {
				return err
			}
			if err := os.Chmod(dir, fs.ModeSetgid|0o770); err != nil {
				return err
			}
		}
		return nil
	}
}

func file(path string, data []byte) step {
	return func(f *Folder) error {
		if dir := filepath.Dir(path); dir != "." {
			if err := mkdir(dir)(f); err != nil {
				return err
			}
		}
		return errors.Join(os.WriteFile(f.path(path), data, 0o660), os.Chmod(f.path(path), 0o660))
	}
}

func chmod(path string, mode fs.FileMode) step {
	return func(f *Folder) error { return os.Chmod(f.path(path), mode) }
}

func truncate(path string, size int64) step {
	return func(f *Folder) error {
		err := file(path, nil)(f)
		for err == nil {
			if err = os.Truncate(f.path(path), size); errors.Is(err, syscall.EFBIG) {
				size, err = size/2, nil // as much as the file system allows
				continue
			}
			break
		}
		return err
	}
}

// link makes a symbolic link. A target that begins with @ is outside.
func link(target string) func(string) step {
	return func(path string) step {
		return func(f *Folder) error {
			if out, ok := cutAt(target); ok {
				return os.Symlink(filepath.Join(f.y.outside, out), f.path(path))
			}
			return os.Symlink(target, f.path(path))
		}
	}
}

func cutAt(target string) (string, bool) {
	if len(target) > 0 && target[0] == '@' {
		return target[1:], true
	}
	return target, false
}

func fifo(path string) step {
	return func(f *Folder) error {
		return errors.Join(unix.Mkfifo(f.path(path), 0o660), os.Chmod(f.path(path), 0o660))
	}
}

// fed is a FIFO with somebody at its other end who never writes.
func fed(path string) step {
	return func(f *Folder) error {
		if err := fifo(path)(f); err != nil {
			return err
		}
		return f.hold(f.path(path), os.O_RDWR)
	}
}

func socket(path string) step {
	return func(f *Folder) error {
		err := asRoot(func() error { return unix.Mknod(f.path(path), unix.S_IFSOCK|0o660, 0) })
		if errors.Is(err, fs.ErrPermission) {
			return errors.ErrUnsupported
		}
		return err
	}
}

func device(path string) step {
	return func(f *Folder) error {
		err := asRoot(func() error { return unix.Mknod(f.path(path), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) })
		if errors.Is(err, fs.ErrPermission) {
			return errors.ErrUnsupported
		}
		return err
	}
}

// hold keeps a file open until the end.
func (f *Folder) hold(path string, flag int) error {
	file, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return err
	}
	f.file = file
	f.y.undo = append(f.y.undo, func() error {
		if err := file.Close(); !errors.Is(err, os.ErrClosed) {
			return err
		}
		return nil
	})
	return nil
}

func writing(path string) step {
	return func(f *Folder) error { return f.hold(f.path(path), os.O_WRONLY|os.O_APPEND) }
}

// leased holds a write lease, as Samba does for a client (fcntl(2),
// F_SETLEASE): others that open the file would wait until it is given up. A
// time of 0 is for ever.
func leased(path string, d time.Duration) step {
	return func(f *Folder) error {
		if err := f.hold(f.path(path), os.O_RDWR); err != nil {
			return err
		}
		held := f.file
		if _, err := unix.FcntlInt(held.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
			return errors.ErrUnsupported // not on every file system
		}
		if d > 0 {
			f.y.attacks = append(f.y.attacks, func(stop <-chan struct{}) {
				select {
				case <-stop:
				case <-time.After(d):
				}
				_ = held.Close() // which ends the lease
			})
		}
		return nil
	}
}

// Attributes (ioctl_iflags(2)).
const (
	immutable  = 0x10
	appendOnly = 0x20
)

// flags sets attributes as chattr(1) does, until the end.
func flags(path string, add int) step {
	return func(f *Folder) error {
		return asRoot(func() error {
			file, err := os.Open(f.path(path))
			if err != nil {
				return err
			}
			old, err := unix.IoctlGetInt(int(file.Fd()), unix.FS_IOC_GETFLAGS)
			if err == nil {
				err = unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, old|add)
			}
			if err != nil {
				return errors.Join(errors.ErrUnsupported, file.Close())
			}
			f.y.undo = append(f.y.undo, func() error {
				return errors.Join(unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, old), file.Close())
			})
			return nil
		})
	}
}

// hard makes a hard link in the folder to a file outside.
func hard(path, outside string) step {
	return func(f *Folder) error { return os.Link(filepath.Join(f.y.outside, outside), f.path(path)) }
}

// again does something over and over, until its folder is out of reach.
func again(every time.Duration, do func(f *Folder, i int) error) step {
	return func(f *Folder) error {
		f.y.attacks = append(f.y.attacks, func(stop <-chan struct{}) {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for i := 0; do(f, i) == nil; i++ {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
			}
		})
		return nil
	}
}

// grow appends to a file.
func grow(path string) step {
	return again(20*time.Millisecond, func(f *Folder, _ int) error {
		file, err := os.OpenFile(f.path(path), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = io.WriteString(file, "more")
		return errors.Join(err, file.Close())
	})
}

// swap has two makers take turns in the place of a file.
func swap(path string, makers ...func(string) step) step {
	return again(2*time.Millisecond, func(f *Folder, i int) error {
		if err := makers[i%len(makers)](".swap")(f); err != nil {
			return err
		}
		return os.Rename(f.path(".swap"), f.path(path))
	})
}
