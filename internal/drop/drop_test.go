package drop_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/drop"
)

func none(drop.Entry) bool { return false }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// folder makes a folder with two files, and returns its path and root.
func folder(t *testing.T) (string, *os.Root) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "case")
	must(t, os.Mkdir(path, 0o700))
	must(t, os.WriteFile(filepath.Join(path, "a"), []byte("aaa"), 0o600))
	must(t, os.WriteFile(filepath.Join(path, "b"), []byte("bbb"), 0o600))
	root, err := os.OpenRoot(path)
	must(t, err)
	t.Cleanup(func() { must(t, root.Close()) })
	return path, root
}

func TestOpenOnlyFolders(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	must(t, os.Symlink("folder", filepath.Join(dir, "link")))
	must(t, os.Symlink("/etc", filepath.Join(dir, "outside")))
	parent, err := os.OpenRoot(dir)
	must(t, err)
	defer parent.Close()
	for name, want := range map[string]error{
		"folder": nil, "file": syscall.ENOTDIR, "fifo": syscall.ENOTDIR, "link": syscall.ENOTDIR, "outside": syscall.ENOTDIR, "nothing": fs.ErrNotExist,
	} {
		root, err := drop.Open(parent, name)
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
		if err == nil {
			must(t, root.Close())
		}
	}
}

func TestFingerprint(t *testing.T) {
	path, root := folder(t)
	list := func() drop.Listing {
		t.Helper()
		l, err := drop.List(root, 10, none)
		must(t, err)
		return l
	}
	before := list()
	if again := list(); again.Full != before.Full || again.Content != before.Content {
		t.Fatal("two looks at the same folder differ")
	}
	for _, change := range []struct {
		name string
		do   func() error
	}{
		{"append", func() error {
			f, err := os.OpenFile(filepath.Join(path, "a"), os.O_APPEND|os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteString("x")
			return errors.Join(err, f.Close())
		}},
		{"same size", func() error { return os.WriteFile(filepath.Join(path, "b"), []byte("BBB"), 0o600) }},
		{"chmod", func() error { return os.Chmod(filepath.Join(path, "a"), 0o640) }},
		{"new file", func() error { return os.WriteFile(filepath.Join(path, "c"), nil, 0o600) }},
		{"rename", func() error { return os.Rename(filepath.Join(path, "c"), filepath.Join(path, "d")) }},
		{"remove", func() error { return os.Remove(filepath.Join(path, "d")) }},
	} {
		must(t, change.do())
		after := list()
		if after.Content == before.Content || after.Full == before.Full {
			t.Errorf("%s does not show", change.name)
		}
		before = after
	}
	must(t, os.Chmod(path, 0o750))
	if after := list(); after.Full == before.Full || after.Content != before.Content {
		t.Error("a chmod of the folder has to show in Full only")
	}
	// A move changes the folder's own ctime, and nothing inside.
	before = list()
	must(t, os.Rename(path, path+"-moved"))
	if after := list(); after.Content != before.Content {
		t.Error("a move changes Content")
	}
	if l, err := drop.List(root, 1, none); err != nil || !l.More || len(l.Entries) != 1 {
		t.Errorf("with a limit of 1: %+v, %v", l, err)
	}
}

func TestOpenFile(t *testing.T) {
	path, root := folder(t)
	must(t, unix.Mkfifo(filepath.Join(path, "fifo"), 0o600))
	must(t, os.Symlink("a", filepath.Join(path, "link")))
	l, err := drop.List(root, 10, none)
	must(t, err)
	get := func(name string) drop.Entry {
		t.Helper()
		e, ok := l.Find(name)
		if !ok {
			t.Fatalf("%s is not listed", name)
		}
		return e
	}
	for _, name := range []string{"fifo", "link"} {
		if _, err := drop.OpenFile(root, get(name)); err == nil {
			t.Errorf("%s was opened", name)
		}
	}
	a, b := get("a"), get("b")
	f, err := drop.OpenFile(root, a)
	must(t, err)
	must(t, drop.Unchanged(f, a))
	must(t, os.WriteFile(filepath.Join(path, "a"), []byte("longer"), 0o600))
	if err := drop.Unchanged(f, a); !errors.Is(err, drop.ErrChanged) {
		t.Errorf("a file that grew: %v", err)
	}
	must(t, f.Close())
	// Put in place of b between the look and the open.
	for _, swap := range []struct {
		name string
		do   func(string) error
	}{
		{"link to a file of the folder", func(p string) error { return os.Symlink("a", p) }},
		{"link to outside", func(p string) error { return os.Symlink("/etc/passwd", p) }},
		{"link to nothing", func(p string) error { return os.Symlink("nowhere", p) }},
		{"socket", func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o600, 0) }},
		{"directory", func(p string) error { return os.Mkdir(p, 0o700) }},
		{"fifo", func(p string) error { return unix.Mkfifo(p, 0o600) }},
		{"another file", func(p string) error { return os.WriteFile(p, []byte("bbb"), 0o600) }},
		{"nothing", func(string) error { return nil }},
	} {
		p := filepath.Join(path, "b")
		must(t, os.Remove(p))
		must(t, swap.do(p))
		f, err := drop.OpenFile(root, b)
		if !errors.Is(err, drop.ErrChanged) {
			t.Errorf("%s in place of the file: %v, and not ErrChanged", swap.name, err)
		}
		if err == nil {
			must(t, f.Close())
		}
		if swap.name == "nothing" {
			break
		}
	}
}

// A directory on the way to a file, replaced by a link: to the same directory
// under another name, to outside, to nothing.
func TestOpenBelow(t *testing.T) {
	path, root := folder(t)
	sub := filepath.Join(path, "sub")
	must(t, os.Mkdir(sub, 0o700))
	must(t, os.WriteFile(filepath.Join(sub, "c"), []byte("ccc"), 0o600))
	l, err := drop.List(root, 10, none)
	must(t, err)
	c, _ := l.Find("sub/c")
	f, err := drop.OpenFile(root, c)
	must(t, err)
	must(t, f.Close())
	dir, _ := l.Find("sub")
	d, err := drop.OpenDir(root, dir)
	must(t, err)
	must(t, d.Close())
	must(t, os.Rename(sub, sub+".moved"))
	for _, to := range []string{"sub.moved", "/etc", "nowhere", "a"} {
		must(t, os.Symlink(to, sub))
		for what, open := range map[string]func() (*os.File, error){
			"file":      func() (*os.File, error) { return drop.OpenFile(root, c) },
			"directory": func() (*os.File, error) { return drop.OpenDir(root, dir) },
		} {
			f, err := open()
			if !errors.Is(err, drop.ErrChanged) {
				t.Errorf("%s through a link to %s: %v", what, to, err)
			}
			if err == nil {
				must(t, f.Close())
			}
		}
		must(t, os.Remove(sub))
	}
}

// What an uploader puts under the name of a record is told from it, and never
// waited for.
func TestReadFile(t *testing.T) {
	path, root := folder(t)
	must(t, os.Symlink("a", filepath.Join(path, "link")))
	must(t, os.Symlink("/etc/passwd", filepath.Join(path, "outside")))
	must(t, os.Symlink("nowhere", filepath.Join(path, "dangling")))
	must(t, os.Mkdir(filepath.Join(path, "directory"), 0o700))
	must(t, unix.Mknod(filepath.Join(path, "socket"), unix.S_IFSOCK|0o600, 0))
	must(t, unix.Mkfifo(filepath.Join(path, "fifo"), 0o600))
	writer, err := os.OpenFile(filepath.Join(path, "fifo"), os.O_RDWR, 0) // a FIFO with a writer never ends
	must(t, err)
	defer writer.Close()
	for name, want := range map[string]error{
		"a": nil, "link": drop.ErrNotPlain, "outside": drop.ErrNotPlain, "dangling": drop.ErrNotPlain, "directory": drop.ErrNotPlain,
		"socket": drop.ErrNotPlain, "fifo": drop.ErrNotPlain, "nothing": fs.ErrNotExist,
	} {
		for _, read := range []func(*os.Root, string, int64) ([]byte, error){drop.ReadFile, drop.ReadHead} {
			data, err := read(root, name, 100)
			if !errors.Is(err, want) || err == nil && string(data) != "aaa" {
				t.Errorf("%s: %q, %v", name, data, err)
			}
		}
	}
	if _, err := drop.ReadFile(root, "a", 2); !errors.Is(err, drop.ErrNotPlain) {
		t.Errorf("over the limit: %v", err)
	}
	if head, err := drop.ReadHead(root, "a", 2); err != nil || string(head) != "aa" {
		t.Errorf("the head: %q, %v", head, err)
	}
}

// A file that is exchanged for a FIFO with a writer, all the time.
func TestReadFileRace(t *testing.T) {
	path, root := folder(t)
	must(t, unix.Mkfifo(filepath.Join(path, "fifo"), 0o600))
	writer, err := os.OpenFile(filepath.Join(path, "fifo"), os.O_RDWR, 0)
	must(t, err)
	defer writer.Close()
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
		swapped := make(chan error)
		go func() {
			swapped <- unix.Renameat2(unix.AT_FDCWD, filepath.Join(path, "a"), unix.AT_FDCWD, filepath.Join(path, "fifo"), unix.RENAME_EXCHANGE)
		}()
		if _, err := drop.ReadFile(root, "a", 100); err != nil && !errors.Is(err, drop.ErrNotPlain) {
			t.Errorf("%v", err)
		}
		must(t, <-swapped)
	}
}

// The whole tree shows in the fingerprint, and counts.
func TestTree(t *testing.T) {
	path, root := folder(t)
	must(t, os.MkdirAll(filepath.Join(path, "sub", "deeper"), 0o700))
	must(t, os.WriteFile(filepath.Join(path, "sub", "deeper", "c"), []byte("ccc"), 0o600))
	list := func() drop.Listing {
		t.Helper()
		l, err := drop.List(root, 10, none)
		must(t, err)
		return l
	}
	names := func(l drop.Listing) string {
		var names []string
		for _, e := range l.Entries {
			names = append(names, e.Name)
		}
		return strings.Join(names, " ")
	}
	before := list()
	if got := names(before); got != "a b sub sub/deeper sub/deeper/c" {
		t.Fatalf("listed: %s", got)
	}
	c := filepath.Join(path, "sub", "deeper", "c")
	for name, change := range map[string]func() error{
		"append": func() error { return os.WriteFile(c, []byte("cccc"), 0o600) },
		"chmod":  func() error { return os.Chmod(c, 0o640) },
		"new":    func() error { return os.WriteFile(filepath.Join(path, "sub", "d"), nil, 0o600) },
	} {
		must(t, change())
		after := list()
		if after.Content == before.Content || after.Full == before.Full {
			t.Errorf("%s below does not show", name)
		}
		before = after
	}
	if l, err := drop.List(root, 3, none); err != nil || !l.More || len(l.Entries) != 3 || names(l) != "a b sub" {
		t.Errorf("with a limit of 3: %s, %v", names(l), err)
	}
	deep := path
	for range 200 {
		deep = filepath.Join(deep, "x")
	}
	must(t, os.MkdirAll(deep, 0o700))
	l, err := drop.List(root, 100, none)
	must(t, err)
	if l.Deep != strings.Repeat("x/", drop.MaxDepth-1)+"x" || l.More {
		t.Errorf("200 deep: %q", l.Deep)
	}
}

// Records are no entries, and don't count; but not any number of them.
func TestRecords(t *testing.T) {
	path, root := folder(t)
	record := func(e drop.Entry) bool { return strings.HasPrefix(e.Name, "result") }
	for i := range 90 {
		must(t, os.WriteFile(filepath.Join(path, "result"+strconv.Itoa(i)), nil, 0o600))
	}
	must(t, os.MkdirAll(filepath.Join(path, "sub"), 0o700))
	must(t, os.WriteFile(filepath.Join(path, "sub", "result"), nil, 0o600))
	l, err := drop.List(root, 4, record)
	must(t, err)
	if len(l.Records) != 90 || len(l.Entries) != 4 || l.More {
		t.Errorf("%d records, %d entries, more: %v", len(l.Records), len(l.Entries), l.More)
	}
	for i := range 5000 {
		must(t, os.WriteFile(filepath.Join(path, "result"+strconv.Itoa(i)), nil, 0o600))
	}
	l, err = drop.List(root, 4, record)
	must(t, err)
	if len(l.Records) != 100 || len(l.Entries) != 4 || !l.More {
		t.Errorf("%d records, %d entries, more: %v", len(l.Records), len(l.Entries), l.More)
	}
}

// A write lease, as a Samba server holds it for a client that has the file
// open: opening it is nothing to wait for.
func TestLease(t *testing.T) {
	path, root := folder(t)
	l, err := drop.List(root, 10, none)
	must(t, err)
	b, _ := l.Find("b")
	holder, err := os.OpenFile(filepath.Join(path, "b"), os.O_RDWR, 0)
	must(t, err)
	defer holder.Close()
	if _, err := unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("this file system has no leases: %v", err)
	}
	if _, err := drop.OpenFile(root, b); !errors.Is(err, drop.ErrBusy) {
		t.Errorf("opening: %v", err)
	}
	if _, err := drop.ReadFile(root, "b", 100); !errors.Is(err, drop.ErrBusy) {
		t.Errorf("reading: %v", err)
	}
	if name := drop.Busy(root, l); name != "b" {
		t.Errorf("busy: %q", name)
	}
}

func TestBusy(t *testing.T) {
	path, root := folder(t)
	l, err := drop.List(root, 10, none)
	must(t, err)
	if name := drop.Busy(root, l); name != "" {
		t.Fatalf("%s is said to be open", name)
	}
	for _, flag := range []int{os.O_WRONLY, os.O_RDWR} {
		f, err := os.OpenFile(filepath.Join(path, "b"), flag, 0)
		must(t, err)
		if name := drop.Busy(root, l); name != "b" {
			t.Errorf("b is open for writing, and %q is said to be", name)
		}
		must(t, f.Close())
	}
	// A mapping outlives its descriptor.
	f, err := os.OpenFile(filepath.Join(path, "b"), os.O_RDWR, 0)
	must(t, err)
	m, err := unix.Mmap(int(f.Fd()), 0, 3, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	must(t, f.Close())
	if name := drop.Busy(root, l); name != "b" {
		t.Errorf("b is mapped for writing, and %q is said to be", name)
	}
	must(t, unix.Munmap(m))
	if name := drop.Busy(root, l); name != "" {
		t.Errorf("%s is said to be open after all", name)
	}
}

func TestHoles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	_, err = f.Write(make([]byte, 64<<10))
	must(t, err)
	must(t, f.Sync())
	if drop.Hole(f, 64<<10) != 64<<10 {
		t.Error("zeros that were written are called a hole")
	}
	must(t, f.Truncate(256<<10))
	if drop.Hole(f, 256<<10) == 256<<10 {
		t.Skip("this file system has no holes")
	}
	_, err = f.WriteAt([]byte("end"), 256<<10-3)
	must(t, err)
	if at := drop.Hole(f, 256<<10); at != 64<<10 {
		t.Errorf("a hole in the middle is seen at %d", at)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{
		"front.jpg.filepart", "FRONT.JPG.PART", "x.crdownload", "~$meta.yaml", ".front.jpg.Xk3f0a", ".meta.yaml.aBcDeF", ".~tmp~",
		"a.tmp", "b.TEMP", ".in.front.jpg", ".nfs0000000012", ".fuse_hidden0001", "x.swp", "x.aria2", ".goutputstream-ABCDEF", ".sftpgo-upload.cq1k2fh0g5v3l8q2m1g0.FRONT.jpg",
	} {
		if !drop.Temporary(name) {
			t.Errorf("%s is not called temporary", name)
		}
	}
	for _, name := range []string{"front.jpg", "meta.yaml", ".ready", ".DS_Store", "Thumbs.db", "part.jpg", "tmp", "front.jpg.bak", ".a.b-c_d!", "FACE.partial.jpg"} {
		if drop.Temporary(name) {
			t.Errorf("%s is called temporary", name)
		}
	}
	for _, name := range []string{".DS_Store", "@eaDir", "Thumbs.db", "lost+found", ".hidden", "System Volume Information"} {
		if !drop.Junk(name) {
			t.Errorf("%s is not called junk", name)
		}
	}
	for name, clean := range map[string]bool{"käse 7.jpg": true, "a\nb": false, "a\x1b[31mb": false, "\xff": false, "a\u202eb": false, "\u0646\u0627\u0645\u200c": true} {
		if (drop.CleanName(name) == "") != clean {
			t.Errorf("%q: clean is not %v", name, clean)
		}
	}
}

// A directory's identity goes with it wherever it is moved, whatever is in it,
// and is no other's, not even of one that gets its inode.
func TestIdentity(t *testing.T) {
	path, root := folder(t)
	id, err := drop.Identity(root)
	must(t, err)
	if id == "" {
		t.Skip("the file system keeps no time of birth")
	}
	must(t, os.Rename(path, path+".moved"))
	must(t, os.WriteFile(filepath.Join(path+".moved", "a"), []byte("other"), 0o600))
	must(t, os.Remove(filepath.Join(path+".moved", "b")))
	must(t, os.Chmod(path+".moved", 0o750))
	must(t, os.Chtimes(path+".moved", time.Unix(1, 0), time.Unix(1, 0)))
	moved, err := os.OpenRoot(path + ".moved")
	must(t, err)
	if is, err := drop.Identity(moved); err != nil || is != id {
		t.Errorf("moved: %q, was %q, %v", is, id, err)
	}
	must(t, moved.Close())
	must(t, os.RemoveAll(path+".moved"))
	seen := map[string]bool{id: true}
	for range 50 { // inodes come again
		must(t, os.Mkdir(path, 0o700))
		made, err := os.OpenRoot(path)
		must(t, err)
		is, err := drop.Identity(made)
		must(t, errors.Join(err, made.Close()))
		if is == "" || seen[is] {
			t.Errorf("another directory is %q too", is)
		}
		seen[is] = true
		must(t, os.Remove(path))
		time.Sleep(5 * time.Millisecond) // the file system's clock has ticks
	}
}
