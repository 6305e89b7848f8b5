package drop_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/drop"
)

func none(string) bool { return false }

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
		{"fifo", func(p string) error { return unix.Mkfifo(p, 0o600) }},
		{"another file", func(p string) error { return os.WriteFile(p, []byte("bbb"), 0o600) }},
		{"nothing", func(string) error { return nil }},
	} {
		p := filepath.Join(path, "b")
		must(t, os.Remove(p))
		must(t, swap.do(p))
		if f, err := drop.OpenFile(root, b); err == nil {
			t.Errorf("%s was opened in place of the file", swap.name)
			must(t, f.Close())
		}
		if swap.name == "nothing" {
			break
		}
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
	if drop.Holes(f, 64<<10) {
		t.Error("zeros that were written are called a hole")
	}
	must(t, f.Truncate(256<<10))
	if !drop.Holes(f, 256<<10) {
		t.Skip("this file system has no holes")
	}
	_, err = f.WriteAt([]byte("end"), 256<<10-3)
	must(t, err)
	if !drop.Holes(f, 256<<10) {
		t.Error("a hole in the middle is not seen")
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{
		"front.jpg.filepart", "FRONT.JPG.PART", "x.crdownload", "~$meta.yaml", ".front.jpg.Xk3f0a", ".meta.yaml.aBcDeF", ".~tmp~",
		"a.tmp", "b.TEMP", ".in.front.jpg", ".nfs0000000012", ".fuse_hidden0001", "x.swp", "x.aria2", ".goutputstream-ABCDEF",
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
