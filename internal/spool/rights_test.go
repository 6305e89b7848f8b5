package spool_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/spool"
)

// daemon and drops are the user that the tests make the daemon's, and the group
// that it shares with uploaders.
const daemon, drops = 12346, 12347

// asDaemon calls f on a thread with the rights of the packaged service, or with
// less of them: its user, the uploaders' group, and these capabilities alone.
// Without root there is nobody to become, and f is not called.
func asDaemon(t *testing.T, caps uint32, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Log("without root there is but one user")
		return
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with it
		done <- become(caps, f)
	}()
	must(t, <-done)
}

func become(caps uint32, f func()) error {
	groups := []uint32{drops}
	for _, call := range []func() error{
		func() error { return unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0) },
		func() error { return raw(unix.SYS_SETRESGID, daemon, daemon, daemon) },
		func() error { return setgroups(groups) },
		func() error { return raw(unix.SYS_SETRESUID, daemon, daemon, daemon) },
		func() error {
			head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			data := [2]unix.CapUserData{{Effective: caps, Permitted: caps}}
			return unix.Capset(&head, &data[0])
		},
	} {
		if err := call(); err != nil {
			return err
		}
	}
	f()
	return nil
}

const (
	chown  = 1 << unix.CAP_CHOWN
	fowner = 1 << unix.CAP_FOWNER
)

// served opens a spool as the packages set it up.
func served(t *testing.T) *spool.Spool {
	t.Helper()
	p := paths(t.TempDir())
	for d := filepath.Dir(p[spool.Work]); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755)) // the daemon has to get there
	}
	s, err := spool.Open(p)
	must(t, err)
	if os.Geteuid() == 0 {
		for place, path := range p {
			gid := daemon
			if place == spool.Inbox {
				gid = drops
			}
			must(t, os.Chown(path, daemon, gid))
		}
	}
	must(t, s.Close())
	s, err = spool.Open(p)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// upload makes a folder in the inbox, of the uploader and the shared group.
func upload(t *testing.T, s *spool.Spool, files ...string) string {
	t.Helper()
	dir := filepath.Join(s.Path(spool.Inbox), "case")
	own := func(path string, mode os.FileMode) {
		must(t, os.Chmod(path, mode))
		if os.Geteuid() == 0 {
			must(t, os.Chown(path, other, drops))
		}
	}
	must(t, os.Mkdir(dir, 0o770))
	own(dir, 0o770)
	for _, f := range files {
		must(t, os.WriteFile(filepath.Join(dir, f), []byte(f), 0o660))
		own(filepath.Join(dir, f), 0o660)
	}
	return dir
}

func stat(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return fmt.Sprintf("%o %d:%d", st.Mode&0o7777, st.Uid, st.Gid)
}

// An uploader doesn't get at a file by having the daemon take it, and give it
// back: root's, that he could move into his folder; nor into a directory.
func TestSealLeavesWhatCantBeRead(t *testing.T) {
	s := served(t)
	dir := upload(t, s, "FRONT.jpg", "theirs")
	must(t, os.WriteFile(filepath.Join(dir, "secret"), nil, 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "sub", "x"), nil, 0o666))
	if os.Geteuid() == 0 {
		must(t, os.Chown(filepath.Join(dir, "theirs"), other+5, drops))
	}
	asDaemon(t, chown|fowner, func() {
		work, err := s.Paths().Claim(spool.Inbox, "case", spool.NewID())
		if err == nil {
			_, err = s.Seal(context.Background(), work, nil, spool.Copies{Bytes: 1000, Files: 64}, false)
		}
		if err != nil {
			t.Error(err)
			return
		}
		at := filepath.Join(s.Path(spool.Work), work)
		for name, want := range map[string]string{
			".": "750 12346:12346", "FRONT.jpg": "440 12346:12346", "theirs": "440 12346:12346",
			"secret": "600 0:0", "sub": "700 0:0",
		} {
			if got := stat(t, filepath.Join(at, name)); got != want {
				t.Errorf("sealed, %s is %s, want %s", name, got, want)
			}
		}
		if err := s.Paths().Unseal(spool.Work, work, spool.Inbox, other, drops); err != nil {
			t.Error(err)
		}
		for name, want := range map[string]string{"FRONT.jpg": "660 12345:12347", "secret": "600 0:0", "sub": "700 0:0"} {
			if got := stat(t, filepath.Join(at, name)); got != want {
				t.Errorf("given back, %s is %s, want %s", name, got, want)
			}
		}
	})
}

// A link in a folder to a file of the daemon's own does not give that away.
func TestUnsealLeavesLinks(t *testing.T) {
	s := open(t)
	work, dir := claim(t, s, "FRONT.jpg")
	kept := filepath.Join(s.Path(spool.Done), "kept")
	must(t, os.WriteFile(kept, nil, 0o440))
	sealed(t, s, work, nil, spool.Copies{Bytes: 1000, Files: 64})
	must(t, os.Link(kept, filepath.Join(dir, "link")))
	before := stat(t, kept)
	must(t, s.Paths().Unseal(spool.Work, work, spool.Inbox, other, other))
	if got := stat(t, kept); got != before {
		t.Errorf("it is %s, was %s", got, before)
	}
}

// A folder whose uploader's group is not the daemon's can be moved all the
// same; also one that was given back as it was recorded.
func TestUnsealForeignGroup(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		s := served(t)
		upload(t, s, "FRONT.jpg")
		asDaemon(t, chown|fowner, func() {
			work, err := s.Paths().Claim(spool.Inbox, "case", spool.NewID())
			if err == nil {
				_, err = s.Seal(context.Background(), work, nil, spool.Copies{Bytes: 1000, Files: 64}, false)
			}
			at := filepath.Join(s.Path(spool.Work), work)
			if stuck {
				for _, f := range []string{"FRONT.jpg", "."} {
					err = errors.Join(err, os.Chown(filepath.Join(at, f), other, other))
				}
			}
			err = errors.Join(err, s.Paths().Unseal(spool.Work, work, spool.Inbox, other, other))
			if _, moved := s.Paths().Release(work, spool.Inbox, "case"); err != nil || moved != nil {
				t.Errorf("stuck %t: %v, %v", stuck, err, moved)
			}
			back := filepath.Join(s.Path(spool.Inbox), "case")
			if got := stat(t, back); err == nil && !strings.HasSuffix(got, " 12345:12347") {
				t.Errorf("stuck %t: it is %s", stuck, got)
			}
		})
	}
}

// Without CAP_CHOWN a folder keeps the modes by which the daemon gets into it.
func TestSealWithoutChown(t *testing.T) {
	s := served(t)
	upload(t, s, "FRONT.jpg")
	asDaemon(t, fowner, func() {
		work, err := s.Paths().Claim(spool.Inbox, "case", spool.NewID())
		if err == nil {
			_, err = s.Seal(context.Background(), work, nil, spool.Copies{Bytes: 1000, Files: 64}, false)
		}
		at := filepath.Join(s.Path(spool.Work), work)
		err = errors.Join(err, os.WriteFile(filepath.Join(at, "result.json"), nil, 0o600))
		if _, moved := s.Paths().Finish(work, spool.Failed, "case"); err != nil || moved != nil {
			t.Errorf("%v, %v", err, moved)
		}
	})
}

// One file that can't be mended does not end it.
func TestMendGoesOn(t *testing.T) {
	s := served(t)
	dir := upload(t, s, "a", "b")
	for _, f := range []string{"a", "b"} {
		must(t, os.Chmod(filepath.Join(dir, f), 0o600))
		if os.Geteuid() == 0 {
			must(t, os.Chown(filepath.Join(dir, f), other, other))
		}
	}
	must(t, os.Chmod(dir, 0o700))
	asDaemon(t, fowner, func() { // the group of a and b can't be changed
		if err := s.Mend(context.Background(), spool.Inbox, "case"); err != nil {
			t.Error(err)
		}
		if err := s.Mend(context.Background(), spool.Inbox, "case"); !errors.Is(err, spool.ErrNotMended) {
			t.Errorf("once more: %v", err)
		}
	})
}

// Mend leaves a link to what may lie anywhere.
func TestMendLeavesLinks(t *testing.T) {
	s := open(t)
	dir := upload(t, s, "a")
	if os.Geteuid() == 0 {
		must(t, os.Chown(dir, 0, 0))
	}
	must(t, os.Chmod(dir, 0o700))
	kept := filepath.Join(t.TempDir(), "kept")
	must(t, os.WriteFile(kept, nil, 0o600))
	must(t, os.Link(kept, filepath.Join(dir, "link")))
	must(t, s.Mend(t.Context(), spool.Inbox, "case"))
	if got := stat(t, kept); !strings.HasPrefix(got, "600 ") {
		t.Errorf("it is %s", got)
	}
}

// descriptors counts those of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}

// A walk over a folder with very many names ends, and keeps nothing open; what
// is in a folder by name comes first.
func TestManyNames(t *testing.T) {
	s := open(t)
	dir := upload(t, s)
	name := func(n int) string { return filepath.Join(dir, fmt.Sprint(n)) }
	must(t, os.WriteFile(name(0), nil, 0o600))
	for n := 1; n < 20_100; n++ {
		must(t, os.WriteFile(name(n), nil, 0o600))
	}
	if os.Geteuid() == 0 {
		must(t, os.Chown(dir, 0, 0))
	}
	before := descriptors(t)
	must(t, s.Mend(t.Context(), spool.Inbox, "case"))
	if now := descriptors(t); now > before {
		t.Errorf("%d descriptors are open, were %d", now, before)
	}
	work, err := s.Paths().Claim(spool.Inbox, "case", spool.NewID())
	must(t, err)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.Seal(stopped, work, nil, spool.Copies{Bytes: 1000, Files: 64}, false); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	list, err := os.ReadDir(filepath.Join(s.Path(spool.Work), work))
	must(t, err)
	last := list[len(list)-1].Name()
	sealed(t, s, work, []string{last}, spool.Copies{Bytes: 1000, Files: 64})
	dir = filepath.Join(s.Path(spool.Work), work)
	sealed := 0
	for n := range 20_100 {
		if strings.HasPrefix(stat(t, name(n)), "440 ") {
			sealed++
		}
	}
	if sealed < 20_000 || sealed > 20_001 || !strings.HasPrefix(stat(t, filepath.Join(dir, last)), "440 ") || !strings.HasPrefix(stat(t, dir), "700 ") {
		t.Errorf("%d are sealed; %s is %s, the folder %s", sealed, last, stat(t, filepath.Join(dir, last)), stat(t, dir))
	}
	must(t, s.Paths().Unseal(spool.Work, work, spool.Inbox, other, other))
	if now := descriptors(t); now > before {
		t.Errorf("%d descriptors are open, were %d", now, before)
	}
}

// What is sent is copied before what travels along.
func TestSealCopiesFirst(t *testing.T) {
	s := open(t)
	work, dir := claim(t, s, "a", "b", "c", "d", "FRONT.jpg")
	outside := t.TempDir()
	for _, f := range []string{"a", "b", "c", "d", "FRONT.jpg"} {
		must(t, os.Link(filepath.Join(dir, f), filepath.Join(outside, f)))
		must(t, os.WriteFile(filepath.Join(outside, f), make([]byte, 800), 0))
	}
	sealed(t, s, work, []string{"FRONT.jpg"}, spool.Copies{Bytes: 1000, Files: 64})
	if info, err := os.Stat(filepath.Join(dir, "FRONT.jpg")); err != nil || info.Sys().(*syscall.Stat_t).Nlink != 1 {
		t.Error("the image has its link still")
	}
}

// An uploader who removes a probe from the inbox does not make the inbox one
// that takes nothing.
func TestProbeRemoved(t *testing.T) {
	s := open(t)
	inbox := s.Path(spool.Inbox)
	durable.Inject(func(op durable.Op, path string, do func() error) error {
		if op == durable.OpMove && strings.HasPrefix(path, inbox) {
			must(t, os.Remove(path))
		}
		return do()
	})
	t.Cleanup(func() { durable.Inject(nil) })
	must(t, s.Takes(spool.Inbox))
	must(t, s.Probe())
	for _, p := range []spool.Place{spool.Work, spool.Inbox} {
		if left, err := os.ReadDir(s.Path(p)); err != nil || len(left) > 0 {
			t.Errorf("%s holds %v, %v", p, left, err)
		}
	}
	must(t, os.Rename(inbox, inbox+"x"))
	if err := s.Takes(spool.Inbox); err == nil {
		t.Error("an inbox that is not there takes folders")
	}
	must(t, os.Rename(inbox+"x", inbox))
}

// The disk fails between the two renames of Wrap, and the daemon lives on.
func TestRewrap(t *testing.T) {
	s := open(t)
	work, dir := claim(t, s, "FRONT.jpg")
	_, id, _ := spool.Split(work)
	fill := func(r *os.Root) error { return r.WriteFile("result.json", []byte("{}"), 0o600) }
	durable.Inject(func(op durable.Op, path string, do func() error) error {
		if op == durable.OpMove && strings.HasSuffix(path, "/."+id) {
			return syscall.EIO
		}
		return do()
	})
	t.Cleanup(func() { durable.Inject(nil) })
	if err := s.Wrap(work, "case", fill); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	durable.Inject(nil)
	must(t, s.Wrap(work, "case", fill))
	if _, err := os.Stat(filepath.Join(dir, "case", "FRONT.jpg")); err != nil {
		t.Error(err)
	}
}

func raw(call, a, b, c uintptr) error {
	if _, _, errno := syscall.RawSyscall(call, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

func setgroups(list []uint32) error {
	return raw(unix.SYS_SETGROUPS, uintptr(len(list)), uintptr(unsafe.Pointer(&list[0])), 0)
}
