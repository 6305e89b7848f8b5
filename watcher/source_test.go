package watcher_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/meta"
	"idenfy-batch/watcher"
)

// source returns the real source of a new inbox.
func source(t *testing.T) (s *watcher.Inotify, dir string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s = watcher.NewInotify(dir)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := s.Watch(""); err != nil {
		t.Skip(err) // no inotify here
	}
	return s, dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hinted waits for a hint of the name, which is the next but for repeated ones
// of those in but.
func hinted(t *testing.T, s *watcher.Inotify, name string, but ...string) {
	t.Helper()
	for {
		select {
		case h := <-s.Hints():
			if h.Name == name && !h.All {
				return
			}
			if h.All || !strings.Contains(strings.Join(but, "/"), h.Name) {
				t.Fatalf("a hint %+v in place of one of %s", h, name)
			}
		case <-time.After(time.Minute):
			t.Fatalf("no hint of %s", name)
		}
	}
}

// Whatever happens in the inbox, and in a watched folder, gives a hint of that
// folder; and a folder that was renamed is watched under its new name, in
// whatever order that becomes known.
func TestInotify(t *testing.T) {
	s, dir := source(t)
	at := func(parts ...string) string { return filepath.Join(dir, filepath.Join(parts...)) }
	must(t, os.Mkdir(at("a"), 0o700))
	hinted(t, s, "a")
	wd, err := s.Watch("a")
	must(t, err)
	for what, do := range map[string]func() error{
		"create": func() error { return os.WriteFile(at("a", "f"), nil, 0o600) },
		"mode":   func() error { return os.Chmod(at("a"), 0o750) },
		"append": func() error { return os.WriteFile(at("a", "g"), []byte("x"), 0o600) },
	} {
		t.Log(what)
		must(t, do())
		hinted(t, s, "a", "a")
	}
	for _, forgottenFirst := range []bool{false, true} {
		from, to := "a", "b"
		if forgottenFirst {
			from, to = to, from
		}
		must(t, os.Rename(at(from), at(to)))
		hinted(t, s, from, from)
		hinted(t, s, to, from)
		if forgottenFirst {
			s.Unwatch(from, wd)
		}
		now, err := s.Watch(to)
		must(t, err)
		s.Unwatch(from, wd)
		wd = now
		must(t, os.Remove(at(to, "f")))
		hinted(t, s, to)
		must(t, os.WriteFile(at(to, "f"), nil, 0o600))
		hinted(t, s, to)
	}
	must(t, os.RemoveAll(at("a")))
	hinted(t, s, "a", "a")
	s.Unwatch("a", wd)
	must(t, os.Mkdir(at("c"), 0o700))
	hinted(t, s, "c", "a")
	wd, err = s.Watch("c")
	must(t, err)
	s.Unwatch("c", wd)
	must(t, os.WriteFile(at("c", "f"), nil, 0o600))
	must(t, os.Mkdir(at("d"), 0o700))
	hinted(t, s, "d")

	must(t, os.Symlink("c", at("link")))
	if _, err := s.Watch("link"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("watch of a link: %v", err)
	}
	if _, err := s.Watch("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("watch of nothing: %v", err)
	}
}

// An inbox that is replaced has all looked at.
func TestInotifyReplaced(t *testing.T) {
	s, dir := source(t)
	must(t, os.Rename(dir, dir+".old"))
	select {
	case h := <-s.Hints():
		if !h.All || h.Err == nil {
			t.Errorf("%+v", h)
		}
	case <-time.After(time.Minute):
		t.Error("no hint")
	}
	must(t, os.Rename(dir+".old", dir)) // to be removed
}

// When more happens than the kernel keeps for a reader that is busy, all is
// looked at.
func TestInotifyOverflow(t *testing.T) {
	s, dir := source(t)
	kept, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	must(t, err)
	events, err := strconv.Atoi(strings.TrimSpace(string(kept)))
	must(t, err)
	if events > 100_000 {
		t.Skipf("the kernel keeps %d events here", events)
	}
	at := filepath.Join(dir, "case")
	for range events/2 + 5000 { // each makes two, and some thousand are read
		must(t, os.Mkdir(at, 0o700))
		must(t, os.Remove(at))
	}
	for {
		select {
		case h := <-s.Hints():
			if h.All && h.Err != nil {
				return
			}
			if h.Name != "case" {
				t.Fatalf("%+v", h)
			}
		case <-time.After(time.Minute):
			t.Fatal("nothing tells of it")
		}
	}
}

// A folder that waits costs little memory, its watch included.
func TestMemory(t *testing.T) {
	const folders, most = 5000, 300 // bytes each
	s, dir := source(t)
	for n := range folders {
		must(t, os.Mkdir(filepath.Join(dir, fmt.Sprintf("case-%d", n)), 0o700))
	}
	before := heap()
	scans := make(chan events.Rescanned, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- watcher.Run(ctx, watcher.Config{Dir: dir, Settings: watcher.Settings{
			Settle: time.Millisecond, Rescan: time.Second, Limits: meta.Limits{Request: 20_000_000, Files: 64},
		}}, s, make(chan drop.Arrival), func(e events.Event) {
			if e, ok := e.(events.Rescanned); ok {
				scans <- e
			}
		})
	}()
	for range 2 { // after the first they settle
		if e := <-scans; e.Folders != folders {
			t.Errorf("%+v", e)
		}
	}
	if each := (heap() - before) / folders; each > most {
		t.Errorf("%d bytes a folder, more than %d", each, most)
	} else {
		t.Logf("%d bytes a folder", each)
	}
	cancel()
	must(t, <-done)
}

func heap() int {
	runtime.GC()
	runtime.GC() // what has a finalizer takes two
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
