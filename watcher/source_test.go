package watcher_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
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
	s = watcher.NewInotify(dir, new(watcher.Watches))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Watch(""); err != nil {
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
	await(t, s, func(h watcher.Hint) bool { return h.Name == name && !h.Gone }, append(but, name)...)
}

// gone waits likewise for a hint that tells of the folder's end.
func gone(t *testing.T, s *watcher.Inotify, name string, but ...string) {
	t.Helper()
	await(t, s, func(h watcher.Hint) bool { return h.Name == name && h.Gone }, append(but, name)...)
}

func await(t *testing.T, s *watcher.Inotify, what func(watcher.Hint) bool, but ...string) {
	t.Helper()
	for {
		select {
		case h := <-s.Hints():
			if what(h) {
				return
			}
			if h.All || !slices.Contains(but, h.Name) {
				t.Fatalf("a hint %+v, and none of %v", h, but)
			}
		case <-time.After(time.Minute):
			t.Fatalf("no hint of %v", but)
		}
	}
}

// Whatever happens in the inbox, and in a watched folder, gives a hint of that
// folder; and one that was renamed is watched under its new name, and another
// under the old one.
func TestInotify(t *testing.T) {
	s, dir := source(t)
	at := func(parts ...string) string { return filepath.Join(dir, filepath.Join(parts...)) }
	must(t, os.Mkdir(at("a"), 0o700))
	hinted(t, s, "a")
	must(t, s.Watch("a"))
	for what, do := range map[string]func() error{
		"create": func() error { return os.WriteFile(at("a", "f"), nil, 0o600) },
		"mode":   func() error { return os.Chmod(at("a"), 0o750) },
		"append": func() error { return os.WriteFile(at("a", "g"), []byte("x"), 0o600) },
	} {
		t.Log(what)
		must(t, do())
		hinted(t, s, "a", "a")
	}
	must(t, os.Rename(at("a"), at("b")))
	gone(t, s, "a")
	s.Unwatch("a")
	hinted(t, s, "b", "a")
	must(t, s.Watch("b"))
	must(t, os.Mkdir(at("a"), 0o700))
	hinted(t, s, "a", "a")
	must(t, s.Watch("a"))
	must(t, os.WriteFile(at("b", "h"), nil, 0o600))
	hinted(t, s, "b", "a")
	must(t, os.WriteFile(at("a", "h"), nil, 0o600))
	hinted(t, s, "a", "b")

	must(t, os.RemoveAll(at("b")))
	gone(t, s, "b", "a")
	s.Unwatch("b")
	s.Unwatch("a")
	must(t, os.Mkdir(at("c"), 0o700))
	hinted(t, s, "c", "a", "b")
	must(t, os.WriteFile(at("a", "i"), nil, 0o600))
	must(t, os.Mkdir(at("d"), 0o700))
	hinted(t, s, "d")
	if err := s.Watch("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("watch of nothing: %v", err)
	}
}

// No more than so many are watched, and none that was ended counts.
func TestInotifyMost(t *testing.T) {
	s, dir := source(t)
	must(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
	n := 0
	var err error
	for ; err == nil && n < 1_000_000; n++ {
		err = s.Watch("a")
	}
	if !errors.Is(err, watcher.ErrNoWatch) {
		t.Errorf("%v", err)
	}
	s.Unwatch("a")
	must(t, s.Watch("a"))
	if err := s.Watch("a"); !errors.Is(err, watcher.ErrNoWatch) {
		t.Errorf("%v", err)
	}
	must(t, s.Watch("")) // which doesn't count
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
	const folders, most = 5000, 400 // bytes each, with fsnotify's share
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
