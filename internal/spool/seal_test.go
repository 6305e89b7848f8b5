package spool_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"idenfy-batch/internal/spool"
)

// other is a user and a group that are not the tests'; as root they own what
// is uploaded.
const other = 12345

func give(t *testing.T, path string) {
	t.Helper()
	if os.Geteuid() == 0 {
		must(t, os.Lchown(path, other, other))
	}
}

// claim puts a folder with these files into work.
func claim(t *testing.T, s *spool.Spool, files ...string) (work, dir string) {
	t.Helper()
	drop(t, s, "case")
	at := filepath.Join(s.Path(spool.Inbox), "case")
	for _, f := range files {
		path := filepath.Join(at, f)
		must(t, os.MkdirAll(filepath.Dir(path), 0o777))
		must(t, os.WriteFile(path, []byte(f), 0o666))
		must(t, os.Chmod(path, 0o666))
		give(t, path)
		for d := filepath.Dir(path); d != s.Path(spool.Inbox); d = filepath.Dir(d) {
			must(t, os.Chmod(d, 0o777))
			give(t, d)
		}
	}
	work, err := s.Paths().Claim(spool.Inbox, "case", spool.NewID())
	must(t, err)
	return work, filepath.Join(s.Path(spool.Work), work)
}

// tree tells of each file: kind and mode, and with root's rights the owner.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		must(t, err)
		info, err := e.Info()
		must(t, err)
		st := info.Sys().(*syscall.Stat_t)
		rel, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&b, "%s %s", rel, info.Mode())
		if os.Geteuid() == 0 {
			fmt.Fprintf(&b, " %d:%d", st.Uid, st.Gid)
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

// owned is text with the owners that root's tests have, or without.
func owned(text string) string {
	if os.Geteuid() == 0 {
		return text
	}
	text = strings.ReplaceAll(text, " 0:0", "")
	return strings.ReplaceAll(text, fmt.Sprintf(" %d:%d", other, other), "")
}

// sealed seals a folder, and returns what is left.
func sealed(t *testing.T, s *spool.Spool, work string, first []string, copies spool.Copies) []string {
	t.Helper()
	left, err := s.Seal(t.Context(), work, first, copies, false)
	must(t, err)
	if left.More > 0 {
		t.Errorf("%d more are left", left.More)
	}
	return left.Names
}

func TestSeal(t *testing.T) {
	s := open(t)
	work, dir := claim(t, s, "FRONT.jpg", "originals/deep/p1.tif", "originals/p2.tif")
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	must(t, os.Symlink(secret, filepath.Join(dir, "link")))
	must(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	for range 2 { // it may be done again
		sealed(t, s, work, nil, spool.Copies{Bytes: 1000, Files: 64})
		want := owned(`. drwxr-x--- 0:0
FRONT.jpg -r--r----- 0:0
fifo prw------- 0:0
link Lrwxrwxrwx 0:0
originals drwxr-x--- 0:0
originals/deep drwxr-x--- 0:0
originals/deep/p1.tif -r--r----- 0:0
originals/p2.tif -r--r----- 0:0
`)
		if got := tree(t, dir); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if info, err := os.Stat(secret); err != nil || info.Mode() != 0o600 {
		t.Errorf("a link was followed: %v, %v", info, err)
	}
	must(t, s.Paths().Unseal(spool.Work, work, spool.Inbox, other, other))
	if os.Geteuid() != 0 {
		return // nobody else can be given anything
	}
	if got, want := tree(t, dir), `. drwxrwx--- 12345:12345
FRONT.jpg -rw-rw---- 12345:12345
fifo prw------- 0:0
link Lrwxrwxrwx 0:0
originals drwxrwx--- 12345:12345
originals/deep drwxrwx--- 12345:12345
originals/deep/p1.tif -rw-rw---- 12345:12345
originals/p2.tif -rw-rw---- 12345:12345
`; got != want {
		t.Errorf("given back: %s, want %s", got, want)
	}
}

// What a link kept outside would change is a copy afterwards; and the other
// file, which may be anybody's, stays as it was.
func TestSealBreaksLinks(t *testing.T) {
	s := open(t)
	work, dir := claim(t, s, "FRONT.jpg", "sub/BACK.jpg", "large")
	outside := t.TempDir()
	for _, name := range []string{"FRONT.jpg", "sub/BACK.jpg", "large"} {
		must(t, os.Link(filepath.Join(dir, name), filepath.Join(outside, filepath.Base(name))))
	}
	must(t, os.WriteFile(filepath.Join(dir, "large"), make([]byte, 2000), 0))
	before := tree(t, outside)
	stamp, err := os.Stat(filepath.Join(dir, "FRONT.jpg"))
	must(t, err)
	if left := sealed(t, s, work, nil, spool.Copies{Bytes: 1000, Files: 64}); !slices.Equal(left, []string{"large"}) {
		t.Errorf("left: %q", left)
	}
	if info, err := os.Stat(filepath.Join(dir, "large")); err != nil || info.Sys().(*syscall.Stat_t).Nlink != 2 {
		t.Errorf("more was copied than was allowed: %v", err)
	}
	if got := tree(t, outside); got != before {
		t.Errorf("outside: %s, want %s", got, before)
	}
	for _, name := range []string{"FRONT.jpg", "sub/BACK.jpg"} {
		must(t, os.WriteFile(filepath.Join(outside, filepath.Base(name)), []byte("forged"), 0))
		got, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		if string(got) != name {
			t.Errorf("%s is %q", name, got)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "FRONT.jpg"))
	must(t, err)
	if !info.ModTime().Equal(stamp.ModTime()) || info.Mode() != 0o440 {
		t.Errorf("the copy: %v, %v", info.ModTime(), info.Mode())
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 3 {
		t.Errorf("there are %v", entries)
	}
}

// What somebody has open for writing is a copy afterwards, where the folder does
// not go back for that: he writes elsewhere. What there is no room for is named.
func TestSealCopiesOpen(t *testing.T) {
	for _, also := range []bool{true, false} {
		s := open(t)
		files := []string{"FRONT.jpg", "sub/deep/log", "large", "read"}
		work, dir := claim(t, s, files...)
		must(t, os.Truncate(filepath.Join(dir, "large"), 2000))
		held := map[string]*os.File{}
		for i, name := range files {
			f, err := os.OpenFile(filepath.Join(dir, name), []int{os.O_RDWR, os.O_WRONLY, os.O_RDWR, os.O_RDONLY}[i], 0)
			must(t, err)
			defer f.Close()
			held[name] = f
		}
		stamp, err := held["FRONT.jpg"].Stat()
		must(t, err)
		want, sameWant := []string{"large"}, map[string]bool{"large": true, "read": true}
		if !also {
			want, sameWant = nil, map[string]bool{"FRONT.jpg": true, "sub/deep/log": true, "large": true, "read": true}
		}
		copies := spool.Copies{Bytes: 1000, Files: 64, Open: func(string) bool { return also }}
		if left := sealed(t, s, work, []string{"FRONT.jpg"}, copies); !slices.Equal(left, want) {
			t.Errorf("left: %q, want %q", left, want)
		}
		for name, f := range held {
			was, err := f.Stat()
			must(t, err)
			is, err := os.Stat(filepath.Join(dir, name))
			must(t, err)
			if os.SameFile(was, is) != sameWant[name] || is.Mode() != 0o440 {
				t.Errorf("%v %s: it is the same: %v, %v", also, name, os.SameFile(was, is), is.Mode())
			}
		}
		if got, err := os.ReadFile(filepath.Join(dir, "FRONT.jpg")); err != nil || string(got) != "FRONT.jpg" {
			t.Errorf("the copy is %q, %v", got, err)
		}
		if is, err := os.Stat(filepath.Join(dir, "FRONT.jpg")); err != nil || !is.ModTime().Equal(stamp.ModTime()) {
			t.Errorf("%v, %v", is.ModTime(), err)
		}
	}
}

// Of many names for one file only so many become copies as were allowed.
func TestSealCopiesFew(t *testing.T) {
	s := open(t)
	work, dir := claim(t, s, "file")
	outside := filepath.Join(t.TempDir(), "file")
	must(t, os.Link(filepath.Join(dir, "file"), outside))
	for i := range 100 {
		must(t, os.Link(outside, filepath.Join(dir, fmt.Sprint(i))))
	}
	sealed(t, s, work, nil, spool.Copies{Bytes: 1 << 20, Files: 64})
	info, err := os.Stat(outside)
	must(t, err)
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Nlink != 102-64 {
		t.Errorf("%d names of the file are left, want %d", st.Nlink, 102-64)
	}
}

// A link to a file of somebody else is not a file of this folder: it is neither
// taken nor copied.
func TestSealLeavesForeignLinks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("without root everything is this user's, and is copied")
		return
	}
	s := open(t)
	work, dir := claim(t, s, "a")
	theirs := filepath.Join(t.TempDir(), "theirs")
	must(t, os.WriteFile(theirs, []byte("x"), 0o600))
	must(t, os.Chown(theirs, other+1, other+1))
	must(t, os.Link(theirs, filepath.Join(dir, "link")))
	before := tree(t, theirs)
	if left := sealed(t, s, work, nil, spool.Copies{Bytes: 1000, Files: 64}); !slices.Equal(left, []string{"link"}) {
		t.Errorf("left: %q", left)
	}
	a, err := os.Stat(theirs)
	must(t, err)
	b, err := os.Stat(filepath.Join(dir, "link"))
	must(t, err)
	if tree(t, theirs) != before || !os.SameFile(a, b) {
		t.Errorf("it is %s, was %s", tree(t, theirs), before)
	}
}

// A tree that is too deep to walk is closed where the walk ends.
func TestSealDeep(t *testing.T) {
	s := open(t)
	deep := strings.Repeat("d/", 199) + "x"
	work, dir := claim(t, s, deep)
	if left := sealed(t, s, work, nil, spool.Copies{Bytes: 1000, Files: 64}); !slices.Equal(left, []string{strings.Repeat("d/", 64)}) {
		t.Errorf("left: %q", left)
	}
	info, err := os.Stat(filepath.Join(dir, strings.Repeat("d/", 64)))
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the last directory is %v", info.Mode())
	}
}

func TestMend(t *testing.T) {
	s := open(t)
	drop(t, s, "case")
	dir := filepath.Join(s.Path(spool.Inbox), "case")
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "sub", "a"), nil, 0o600))
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.WriteFile(outside, nil, 0o600))
	must(t, os.Symlink(outside, filepath.Join(dir, "link")))
	must(t, os.WriteFile(filepath.Join(dir, "theirs"), nil, 0o600))
	give(t, filepath.Join(dir, "theirs")) // as root: another's than the folder
	must(t, s.Mend(t.Context(), spool.Inbox, "case"))
	for name, want := range map[string]fs.FileMode{".": 0o770, "sub": 0o770, "sub/a": 0o640, "theirs": 0o640} {
		if name == "theirs" && os.Geteuid() == 0 {
			want = 0o600
		}
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if info.Mode().Perm() != want {
			t.Errorf("%s is %v", name, info.Mode())
		}
	}
	if info, err := os.Stat(outside); err != nil || info.Mode() != 0o600 {
		t.Errorf("a link was followed: %v", info.Mode())
	}
	if err := s.Mend(t.Context(), spool.Inbox, "case"); err == nil {
		t.Error("there was nothing to mend")
	}
}

// Whatever instant a crash comes at, a folder that is being wrapped is found.
func TestWrap(t *testing.T) {
	p := paths(t.TempDir())
	s, err := spool.Open(p)
	must(t, err)
	work, dir := claim(t, s, "FRONT.jpg")
	fill := func(r *os.Root) error { return r.WriteFile("result.json", []byte("{}"), 0o600) }
	must(t, s.Wrap(work, "case", fill))
	for _, f := range []string{"result.json", "case/FRONT.jpg"} {
		if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
			t.Error(err)
		}
	}
	name, err := s.Paths().Finish(work, spool.Failed, "case")
	must(t, err)
	if _, err := os.Stat(filepath.Join(s.Path(spool.Failed), name, "case", "FRONT.jpg")); err != nil {
		t.Error(err)
	}
	// Made, and not more; and with the folder in it.
	work, dir = claim(t, s, "FRONT.jpg")
	_, id, _ := spool.Split(work)
	wrapper := filepath.Join(s.Path(spool.Work), "."+id)
	must(t, os.Mkdir(wrapper, 0o700))
	must(t, os.WriteFile(filepath.Join(wrapper, "result.json"), nil, 0o600))
	must(t, s.Close())
	s, err = spool.Open(p)
	must(t, err)
	if _, err := os.Stat(filepath.Join(dir, "FRONT.jpg")); err != nil {
		t.Error(err)
	}
	must(t, os.Mkdir(wrapper, 0o700))
	must(t, os.Rename(dir, filepath.Join(wrapper, "case")))
	if has, err := s.Has(id); !has || err != nil {
		t.Errorf("half wrapped it is not there: %v", err)
	}
	must(t, s.Close())
	s, err = spool.Open(p)
	must(t, err)
	defer s.Close()
	if _, err := os.Stat(filepath.Join(dir, "case", "FRONT.jpg")); err != nil {
		t.Error(err)
	}
}
