package spool_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/spool"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func paths(root string) spool.Paths {
	p := spool.Paths{}
	for _, place := range spool.Places() {
		p[place] = filepath.Join(root, string(place))
	}
	return p
}

func open(t *testing.T) *spool.Spool {
	t.Helper()
	s, err := spool.Open(paths(t.TempDir()))
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func drop(t *testing.T, s *spool.Spool, name string) {
	t.Helper()
	must(t, os.Mkdir(filepath.Join(s.Path(spool.Inbox), name), 0o700))
}

// What an error of the disk tells goes into the log, with no name of a folder.
func TestBrief(t *testing.T) {
	p := paths("/spool")
	name := "/spool/done/jane.doe/FRONT.jpg"
	for _, err := range []error{
		&os.PathError{Op: "open", Path: name, Err: unix.EIO},
		&os.LinkError{Op: "renameat2", Old: name, New: "/spool/hold/jane.doe", Err: unix.EIO},
		fmt.Errorf("writing jane.doe: %w", &os.LinkError{Op: "rename", Old: "jane.doe", New: "jane.doe", Err: unix.EIO}),
		errors.Join(&os.PathError{Op: "sync", Path: "jane.doe", Err: unix.EIO}, &os.LinkError{Op: "link", Old: name, New: name, Err: unix.ENOSPC}),
	} {
		got := p.Brief(err)
		if strings.Contains(got.Error(), "jane") || !errors.Is(got, unix.EIO) {
			t.Errorf("%v is told as %v", err, got)
		}
	}
}

func TestMoves(t *testing.T) {
	s := open(t)
	for n, want := range []string{"case-7", "case-7.2", "case-7.3"} {
		drop(t, s, "case-7")
		id := spool.NewID()
		work, err := s.Paths().Claim(spool.Inbox, "case-7", id)
		must(t, err)
		if name, got, ok := spool.Split(work); name != "case-7" || got != id || !ok {
			t.Fatalf("%s is split into %s, %s, %v", work, name, got, ok)
		}
		name, err := s.Paths().Finish(work, spool.Done, "case-7")
		must(t, err)
		if name != want {
			t.Errorf("folder %d is called %s, want %s", n+1, name, want)
		}
	}
	drop(t, s, "case-8")
	work, err := s.Paths().Claim(spool.Inbox, "case-8", spool.NewID())
	must(t, err)
	drop(t, s, "case-8") // a new one meanwhile
	name, err := s.Paths().Release(work, spool.Inbox, "case-8")
	must(t, err)
	if name != "case-8.2" {
		t.Errorf("released as %s", name)
	}
	if _, err := s.Paths().Claim(spool.Inbox, "nothing", spool.NewID()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("claim of nothing: %v", err)
	}
	if _, err := s.Paths().Finish(work, spool.Inbox, "x"); err == nil {
		t.Error("the inbox is taken for a final place")
	}
	done, err := s.List(spool.Done)
	must(t, err)
	if len(done) != 3 {
		t.Errorf("done holds %v", done)
	}
}

func TestLongNames(t *testing.T) {
	s := open(t)
	long := strings.Repeat("ä", 127) // 254 bytes
	for range 2 {
		drop(t, s, long)
		work, err := s.Paths().Claim(spool.Inbox, long, spool.NewID())
		must(t, err)
		name, _, ok := spool.Split(work)
		if !ok || !strings.HasPrefix(long, name) {
			t.Fatalf("%q is not made of the name", work)
		}
		final, err := s.Paths().Finish(work, spool.Done, long)
		must(t, err)
		if len(final) > 255 || !strings.HasPrefix(final, strings.Repeat("ä", 100)) {
			t.Errorf("final name %q", final)
		}
	}
}

func TestSplit(t *testing.T) {
	for _, name := range []string{"", "case", "case.2", ".ABCDEFGHIJKLMNOPQRSTUVWXYZ", "x.abcdefghijklmnopqrstuvwxyz", "x-ABCDEFGHIJKLMNOPQRSTUVWXYZ"} {
		if got, _, ok := spool.Split(name); ok || got != name {
			t.Errorf("%q is taken for a name of work", name)
		}
	}
}

func TestLock(t *testing.T) {
	p := paths(t.TempDir())
	s, err := spool.Open(p)
	must(t, err)
	if _, err := spool.Open(p); !errors.Is(err, spool.ErrLocked) {
		t.Errorf("a second one: %v", err)
	}
	if locked, err := spool.Locked(p); !locked || err != nil {
		t.Errorf("locked: %v, %v", locked, err)
	}
	must(t, spool.Check(p))
	must(t, s.Close())
	if locked, err := spool.Locked(p); locked || err != nil {
		t.Errorf("locked after close: %v, %v", locked, err)
	}
	s, err = spool.Open(p)
	must(t, err)
	must(t, s.Close())
}

func TestOpenExplains(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T, p spool.Paths)
		want []string
	}{
		{"parent missing", func(_ *testing.T, p spool.Paths) { p[spool.Done] = "/nowhere/at/all/done" }, []string{"done: the directory /nowhere/at/all does not exist", "mkdir -p /nowhere/at/all"}},
		{"a file", func(t *testing.T, p spool.Paths) { must(t, os.WriteFile(p[spool.Hold], nil, 0o600)) }, []string{"hold: ", "is not a directory"}},
		{"another file system", func(t *testing.T, p spool.Paths) {
			dir, err := os.MkdirTemp("/dev/shm", "idenfy-batch-test-")
			if err != nil {
				t.Skip("there is no second file system here")
			}
			t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
			p[spool.Done] = dir
		}, []string{"are not on one mount", "ReadWritePaths="}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := paths(t.TempDir())
			c.make(t, p)
			s, err := spool.Open(p)
			if err == nil {
				must(t, s.Close())
				t.Fatal("it opened")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %v", want, err)
				}
			}
		})
	}
}

// What a crash left of a probe goes, whatever else lies under such a name
// stays, and is no hindrance.
func TestProbeLeavesNothing(t *testing.T) {
	s := open(t)
	const name = ".idenfy-batch.probe"
	must(t, os.Mkdir(filepath.Join(s.Path(spool.Done), name), 0o700)) // by a crash
	must(t, os.MkdirAll(filepath.Join(s.Path(spool.Inbox), name, "planted"), 0o700))
	must(t, s.Probe())
	for _, p := range spool.Places() {
		entries, err := os.ReadDir(s.Path(p))
		must(t, err)
		if want := p == spool.Inbox; (len(entries) == 1) != want || len(entries) > 1 {
			t.Errorf("%s holds %v", p, entries)
		}
	}
}

// A probe lists no place: done may hold a million folders. The kernel would
// tell of it (inotify(7), IN_ACCESS).
func TestProbeListsNoPlace(t *testing.T) {
	s := open(t)
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK)
	must(t, err)
	defer unix.Close(fd)
	for _, p := range spool.Places() {
		_, err := unix.InotifyAddWatch(fd, s.Path(p), unix.IN_ACCESS)
		must(t, err)
	}
	must(t, s.Probe())
	if n, err := unix.Read(fd, make([]byte, 4096)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a place was listed: %d bytes of events, %v", n, err)
	}
	_, err = s.List(spool.Done)
	must(t, err)
	if _, err := unix.Read(fd, make([]byte, 4096)); err != nil {
		t.Errorf("the kernel tells nothing: %v", err)
	}
}

// A start beside commands that only look, and beside check, goes on.
func TestOpenBesideOnlookers(t *testing.T) {
	p := paths(t.TempDir())
	s, err := spool.Open(p)
	must(t, err)
	must(t, s.Close())
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := spool.Locked(p); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	for range 100 {
		s, err := spool.Open(p)
		if err != nil {
			t.Error(err)
			break
		}
		must(t, s.Close())
	}
	close(stop)
	<-stopped
}

// check takes the lock for its renames, so that no start meets them.
func TestCheckBesideStarts(t *testing.T) {
	p := paths(t.TempDir())
	s, err := spool.Open(p)
	must(t, err)
	must(t, s.Close())
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				if err := spool.Check(p); err != nil {
					t.Errorf("check: %v", err)
				}
			}
		}
	}()
	for range 30 {
		s, err := spool.Open(p)
		if errors.Is(err, spool.ErrLocked) { // the daemon waits for that
			continue
		}
		must(t, err)
		must(t, s.Close())
	}
	close(stop)
	<-stopped
}
