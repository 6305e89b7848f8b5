package watcher_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/sample"
	"idenfy-batch/watcher"
)

// hints is a source that the test feeds. Which folders are watched is noted.
type hints struct {
	c       chan watcher.Hint
	mu      sync.Mutex
	watched map[string]bool
	most    int // folders that are watched at once; zero: any number
	fail    atomic.Pointer[error]
	slow    atomic.Int64 // what a watch takes, in nanoseconds
	asked   atomic.Int64 // how often a folder was to be watched
}

func (h *hints) Hints() <-chan watcher.Hint { return h.c }

func (h *hints) Unwatch(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watched, name)
}

// names returns which folders are watched.
func (h *hints) names() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(h.watched)), func(name string) bool { return name == "" })
}

func (h *hints) Watch(name string) error {
	if name != "" {
		h.asked.Add(1)
		time.Sleep(time.Duration(h.slow.Load()))
	}
	if err := h.fail.Load(); err != nil && name != "" {
		return *err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.most > 0 && name != "" && len(h.watched) > h.most { // the inbox is one of them
		return watcher.ErrNoWatch
	}
	h.watched[name] = true
	return nil
}

// notes keeps what the watcher reports.
type notes struct {
	mu      sync.Mutex
	list    []string
	lacks   []string
	ignored []events.Ignored
}

func (n *notes) add(format string, args ...any) {
	n.list = append(n.list, fmt.Sprintf(format, args...))
}

// all returns what was reported so far.
func (n *notes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.list)
}

// take is an events.Sink.
func (n *notes) take(e events.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch e := e.(type) {
	case events.FolderWaits:
		n.add("%s waits for %s: %s", e.Folder, e.Age.Round(time.Second), e.Reasons[0].Code)
	case events.WatchModeChanged:
		n.add("mode %s", e.Mode)
	case events.Overflowed:
		n.add("lost")
	case events.InboxTrouble:
		n.add("trouble %v", e.Err != nil)
	case events.FolderLacks:
		codes := make([]string, len(e.Reasons))
		for i := range e.Reasons {
			codes[i] = e.Reasons[i].Code
		}
		n.lacks = append(n.lacks, fmt.Sprintf("%s: %s", e.Folder, strings.Join(codes, ", ")))
	case events.Ignored:
		n.ignored = append(n.ignored, e)
	}
}

var (
	front = sample.Pad(sample.Front(), 40_000, 1)
	face  = sample.Face()
)

const metaText = "authToken: 3FA5TFPA2ZE3LMPGGS1EGOJNJE\ncountry: LT\ndocumentType: PASSPORT\n"

// inbox runs a watcher in a bubble of fake time, over real files.
type inbox struct {
	t   *testing.T
	dir string
	src *hints
	out chan drop.Arrival
	ev  *notes
	got []drop.Arrival

	settings watcher.Settings
	changes  chan watcher.Settings
}

func bubble(t *testing.T, change func(*watcher.Config), test func(*inbox)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{
			t: t, dir: dir, ev: &notes{}, out: make(chan drop.Arrival),
			src:     &hints{c: make(chan watcher.Hint, 100), watched: map[string]bool{}},
			changes: make(chan watcher.Settings),
		}
		cfg := watcher.Config{
			Dir: dir, Changes: in.changes, Settings: watcher.Settings{
				Settle: 5 * time.Second, Rescan: 15 * time.Second, WarnAfter: time.Hour, FailAfter: 24 * time.Hour,
				Limits: meta.Limits{Request: 20_000_000, Files: 64, Marker: ".ready"},
			},
		}
		if change != nil {
			change(&cfg)
		}
		in.settings = cfg.Settings
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := watcher.Run(ctx, cfg, in.src, in.out, in.ev.take); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		test(in)
		cancel()
		<-done
	})
}

func (in *inbox) write(folder, name string, data []byte) {
	in.t.Helper()
	if err := os.MkdirAll(filepath.Join(in.dir, folder), 0o770); err != nil {
		in.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(in.dir, folder, name), data, 0o660); err != nil {
		in.t.Fatal(err)
	}
}

func (in *inbox) fill(folder string) {
	in.t.Helper()
	in.write(folder, "FRONT.jpg", front)
	in.write(folder, "FACE.jpg", face)
	in.write(folder, "meta.yaml", []byte(metaText))
}

func (in *inbox) hint(folder string) { in.src.c <- watcher.Hint{Name: folder} }

// after lets time pass, and returns what was handed on meanwhile. What is
// handed on is taken out of the inbox, as the batch does.
func (in *inbox) after(d time.Duration) []string {
	in.t.Helper()
	var names []string
	end := time.After(d)
	for {
		select {
		case a := <-in.out:
			in.got = append(in.got, a)
			names = append(names, a.Name)
			if err := os.RemoveAll(filepath.Join(in.dir, a.Name)); err != nil {
				in.t.Fatal(err)
			}
		case <-end:
			synctest.Wait()
			return names
		}
	}
}

func (in *inbox) want(what string, got []string, want ...string) {
	in.t.Helper()
	if !slices.Equal(got, want) {
		in.t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

const tick = 20 * time.Millisecond

func TestSettle(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		in.fill("case")
		in.hint("case")
		in.want("before it is quiet", in.after(5*time.Second-tick))
		in.want("when it is", in.after(2*tick), "case")
		if a := in.got[0]; a.Expired || a.Complete.Sub(a.FirstSeen) != 5*time.Second {
			t.Errorf("arrival %+v", a)
		}
	})
}

func TestEachChangeBeginsTheWaitAnew(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		in.fill("case")
		for range 20 {
			in.hint("case")
			in.want("while it changes", in.after(3*time.Second))
			in.write("case", "note.txt", []byte("x"))
		}
		in.hint("case")
		in.want("soon after the last change", in.after(5*time.Second-tick))
		in.want("after settle", in.after(2*tick), "case")
	})
}

// Without any event the scan finds everything, and a change that it didn't see
// happen counts from when it was seen.
func TestWithoutEvents(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		in.fill("case")
		in.want("before two scans", in.after(15*time.Second))
		in.want("after settle", in.after(5*time.Second+tick), "case")
	})
}

// A rescan that costs much takes a twentieth of the time while it goes on, lest
// those wait for it that became ready meanwhile; but not when events were lost.
func TestRescanLeavesRoom(t *testing.T) {
	const folders = 200
	bubble(t, nil, func(in *inbox) {
		denied := fs.ErrPermission // each look at a folder tries to watch it again
		in.src.fail.Store(&denied)
		in.src.slow.Store(int64(10 * time.Millisecond))
		for n := range folders {
			in.write(fmt.Sprintf("case%d", n), "note.txt", nil)
		}
		in.after(2 * time.Minute) // a scan, and the wait for quiet
		looks := func(d time.Duration) int64 {
			before := in.src.asked.Load()
			in.after(d)
			return in.src.asked.Load() - before
		}
		first := looks(time.Second)
		for ; first == 0; first = looks(time.Second) {
		}
		ten := looks(10 * time.Second)
		if ten > 100 { // a tenth of those that there could be
			t.Errorf("%d looks in ten seconds", ten)
		}
		if all := first + ten + looks(40*time.Second); all != folders {
			t.Errorf("%d looks, and not one at each of %d folders", all, folders)
		}
		in.src.c <- watcher.Hint{All: true, Err: errors.New("lost")}
		if n := looks(10 * time.Second); n != folders {
			t.Errorf("%d looks soon after events were lost", n)
		}
	})
}

func TestProofSkipsSettle(t *testing.T) {
	sum := func(data []byte) string { s := sha256.Sum256(data); return hex.EncodeToString(s[:]) }
	proof := metaText + "sha256:\n  FRONT: " + sum(front) + "\n  FACE: " + sum(face) + "\n"
	bubble(t, nil, func(in *inbox) {
		in.write("hashed", "meta.yaml", []byte(proof))
		in.write("hashed", "FRONT.jpg", front)
		in.write("hashed", "FACE.jpg", face[:len(face)-1])
		in.hint("hashed")
		in.want("one byte short", in.after(time.Second))
		in.write("hashed", "FACE.jpg", face)
		in.hint("hashed")
		in.want("with the last byte", in.after(tick), "hashed")

		in.fill("marked")
		in.write("marked", "FACE.jpg", face[:100])
		in.write("marked", ".ready", nil)
		in.hint("marked")
		in.want("marked and not whole", in.after(time.Minute))
		in.write("marked", "FACE.jpg", face)
		in.hint("marked")
		in.want("marked and whole", in.after(tick), "marked")

		// A part of the hashes proves nothing.
		in.fill("partly")
		in.write("partly", "meta.yaml", []byte(metaText+"sha256:\n  FRONT: "+sum(front)+"\n"))
		in.hint("partly")
		in.want("partly hashed", in.after(5*time.Second-tick))
		in.want("partly hashed and quiet", in.after(2*tick), "partly")

		// A wrong hash is never quiet enough.
		in.fill("wrong")
		in.write("wrong", "meta.yaml", []byte(strings.Replace(proof, sum(face), sum(front), 1)))
		in.hint("wrong")
		in.want("a wrong hash", in.after(time.Hour))
	})
}

func TestNotComplete(t *testing.T) {
	for name, spoil := range map[string]func(*inbox){
		"no meta.yaml":          func(in *inbox) { in.remove("meta.yaml") },
		"empty meta.yaml":       func(in *inbox) { in.write("case", "meta.yaml", nil) },
		"zeros for meta.yaml":   func(in *inbox) { in.write("case", "meta.yaml", make([]byte, 90)) },
		"an image missing":      func(in *inbox) { in.remove("FACE.jpg") },
		"an image cut off":      func(in *inbox) { in.write("case", "FACE.jpg", face[:len(face)-2]) },
		"an empty image":        func(in *inbox) { in.write("case", "FACE.jpg", nil) },
		"zeros for an image":    func(in *inbox) { in.write("case", "FACE.jpg", make([]byte, 9000)) },
		"a temporary name":      func(in *inbox) { in.write("case", "scan2.jpg.filepart", []byte("x")) },
		"a temporary of rsync":  func(in *inbox) { in.write("case", ".FACE.jpg.x9Fq2z", face) },
		"bad and still coming":  func(in *inbox) { in.write("case", "meta.yaml", []byte("x: y\n")); in.write("case", "a.part", nil) },
		"bad and perhaps a cut": func(in *inbox) { in.write("case", "meta.yaml", []byte(metaText[:40])) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(in *inbox) {
				in.fill("case")
				spoil(in)
				in.hint("case")
				in.want("not complete", in.after(59*time.Second))
				for _, junk := range []string{"scan2.jpg.filepart", ".FACE.jpg.x9Fq2z", "a.part"} {
					_ = os.Remove(filepath.Join(in.dir, "case", junk))
				}
				in.fill("case")
				in.hint("case")
				in.want("mended", in.after(5*time.Second+tick), "case")
			})
		})
	}
}

func (in *inbox) remove(name string) {
	in.t.Helper()
	if err := os.Remove(filepath.Join(in.dir, "case", name)); err != nil {
		in.t.Fatal(err)
	}
}

// Somebody who has a file open for writing is waited for; there is no event
// for its end.
func TestOpenForWriting(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		in.fill("case")
		f, err := os.OpenFile(filepath.Join(in.dir, "case", "FACE.jpg"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		in.hint("case")
		in.want("open", in.after(time.Minute))
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		in.want("closed", in.after(16*time.Second), "case")

		// With proof, the end is noticed within milliseconds.
		in.fill("case")
		in.write("case", ".ready", nil)
		f, err = os.OpenFile(filepath.Join(in.dir, "case", "FACE.jpg"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		in.hint("case")
		in.want("open with proof", in.after(10*time.Millisecond))
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		in.want("closed with proof", in.after(50*time.Millisecond), "case")
	})
}

func TestInvalidIsHandedOnWhenQuiet(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		in.fill("case")
		in.write("case", "meta.yaml", []byte(metaText+"colour: red\n"))
		in.write("case", ".ready", nil) // proves completeness, not badness
		in.hint("case")
		in.want("before it is quiet", in.after(5*time.Second-tick))
		in.want("when it is", in.after(2*tick), "case")
	})
}

// A meta.yaml without a line break at its end may have been cut off, so it has
// to be quiet for longer.
func TestDoubt(t *testing.T) {
	for name, text := range map[string]string{"valid": metaText, "invalid": metaText + "colour: red\n"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(in *inbox) {
				in.fill("case")
				in.write("case", "meta.yaml", []byte(strings.TrimSpace(text)))
				in.hint("case")
				in.want("in doubt", in.after(60*time.Second-tick))
				in.want("after a minute", in.after(2*tick), "case")
			})
		})
	}
}

// Where no meta.yaml is needed, one may still be on its way: images alone have to
// be quiet for longer, unless they are marked, and one that comes counts.
func TestNoMetaNeeded(t *testing.T) {
	optional := func(cfg *watcher.Config) {
		cfg.Limits.Defaults = meta.Defaults{Country: "LT", DocumentType: "PASSPORT", ByFolder: true, Optional: true}
	}
	images := func(in *inbox) {
		in.write("case", "FRONT.jpg", front)
		in.hint("case")
		in.want("one image", in.after(time.Hour))
		in.write("case", "FACE.jpg", face)
		in.hint("case")
	}
	bubble(t, optional, func(in *inbox) {
		images(in)
		in.want("in doubt", in.after(60*time.Second-tick))
		in.want("after a minute", in.after(2*tick), "case")
	})
	bubble(t, optional, func(in *inbox) {
		images(in)
		in.want("in doubt", in.after(59*time.Second))
		in.write("case", "meta.yaml", []byte("clientId: other\n"))
		in.hint("case")
		in.want("with it", in.after(5*time.Second-tick))
		in.want("when it was quiet", in.after(2*tick), "case")
	})
	bubble(t, optional, func(in *inbox) {
		images(in)
		in.want("in doubt", in.after(59*time.Second))
		in.write("case", "note.txt", []byte("x"))
		in.hint("case")
		in.want("another file", in.after(60*time.Second-tick))
		in.want("after a minute", in.after(2*tick), "case")
	})
	bubble(t, optional, func(in *inbox) {
		images(in)
		in.want("in doubt", in.after(10*time.Second))
		in.write("case", ".ready", nil)
		in.hint("case")
		in.want("marked", in.after(50*time.Millisecond), "case")
	})
	bubble(t, optional, func(in *inbox) { // a reload says that one is needed
		images(in)
		in.want("in doubt", in.after(10*time.Second))
		in.settings.Limits.Defaults.Optional = false
		in.changes <- in.settings
		in.want("needed", in.after(time.Hour))
		in.settings.Limits.Defaults.Optional = true
		in.changes <- in.settings
		in.want("not needed again", in.after(time.Second), "case")
	})
}

func TestAge(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		in.fill("case")
		in.remove("FACE.jpg")
		in.hint("case")
		in.want("young", in.after(time.Hour-time.Minute))
		if len(in.ev.all()) != 1 {
			t.Errorf("reports: %v", in.ev.all())
		}
		in.want("an hour old", in.after(2*time.Minute))
		in.want("nearly a day old", in.after(23*time.Hour-3*time.Minute))
		if want := []string{"mode events", "case waits for 1h0m0s: missing_file"}; len(in.ev.all()) != 2 || in.ev.all()[0] != want[0] || !strings.HasPrefix(in.ev.all()[1], "case waits for 1h0m") {
			t.Errorf("reports: %v, want %v", in.ev.all(), want)
		}
		in.want("a day old", in.after(3*time.Minute), "case")
		if !in.got[0].Expired {
			t.Error("it is not marked as expired")
		}
	})
}

func TestJunkIsLeftAlone(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		for _, name := range []string{".hidden", "@eaDir", "lost+found", "Thumbs.db"} {
			in.fill(name)
		}
		in.write("sub", "x", nil)
		if err := os.WriteFile(filepath.Join(in.dir, "loose.jpg"), front, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("sub", filepath.Join(in.dir, "link")); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{".hidden", "@eaDir", "loose.jpg", "link", "nothing"} {
			in.hint(name)
		}
		in.want("junk", in.after(time.Hour))
	})
}

// What an old folder waits for is told whenever that changes, and its end.
func TestLacks(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		lacks := func(what string, want ...string) {
			t.Helper()
			in.ev.mu.Lock()
			defer in.ev.mu.Unlock()
			in.want(what, in.ev.lacks, want...)
			in.ev.lacks = nil
		}
		for _, name := range []string{"case", "goes", "young"} {
			in.fill(name)
			if err := os.Remove(filepath.Join(in.dir, name, "FACE.jpg")); err != nil {
				t.Fatal(err)
			}
		}
		in.after(time.Hour - time.Minute)
		in.remove("../young/meta.yaml") // what is not old yet is not told
		lacks("young")
		if err := os.RemoveAll(filepath.Join(in.dir, "young")); err != nil {
			t.Fatal(err)
		}
		in.after(2 * time.Minute)
		in.ev.mu.Lock()
		slices.Sort(in.ev.lacks)
		in.ev.mu.Unlock()
		lacks("an hour old", "case: missing_file", "goes: missing_file")
		in.after(time.Hour)
		lacks("nothing changed")
		in.write("case", "FACE.jpg", face[:len(face)-2])
		in.hint("case")
		in.after(time.Minute)
		lacks("another reason", "case: truncated")
		for range 100 { // it keeps changing
			in.write("case", "note.txt", []byte(time.Now().String()))
			in.hint("case")
			in.after(2 * time.Second)
		}
		lacks("restless", "case: still_changing")
		in.after(time.Minute)
		lacks("at rest", "case: truncated")
		in.write("case", "FACE.jpg", face)
		in.hint("case")
		in.want("complete", in.after(time.Minute), "case")
		if err := os.RemoveAll(filepath.Join(in.dir, "goes")); err != nil {
			t.Fatal(err)
		}
		in.after(time.Minute)
		lacks("complete, and gone", "case: ", "goes: ")
	})
}

// What lies in the inbox and is no folder is told when it changes, whatever
// events say between.
func TestIgnored(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		told := func(what string, names, more int) (last events.Ignored) {
			t.Helper()
			in.ev.mu.Lock()
			defer in.ev.mu.Unlock()
			if len(in.ev.ignored) != 1 {
				t.Fatalf("%s: %+v", what, in.ev.ignored)
			}
			last = in.ev.ignored[0]
			if in.ev.ignored = nil; len(last.Loose) != names || last.More != more {
				t.Fatalf("%s: %+v", what, last)
			}
			return last
		}
		told("nothing, at the start", 0, 0)
		loose := func(name string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(in.dir, name), front, 0o600); err != nil {
				t.Fatal(err)
			}
			in.hint(name)
		}
		for _, name := range []string{"loose.jpg", ".hidden", "Thumbs.db", "upload.part"} {
			loose(name)
		}
		if err := errors.Join(os.Symlink("sub", filepath.Join(in.dir, "link")), syscall.Mkfifo(filepath.Join(in.dir, "fifo"), 0o600)); err != nil {
			t.Fatal(err)
		}
		in.fill("case")
		in.want("the folder goes on", in.after(time.Minute), "case")
		want := []events.Loose{{Name: "fifo", Kind: "special"}, {Name: "link", Kind: "link"}, {Name: "loose.jpg", Kind: "file"}}
		if got := told("three", 3, 0); !slices.Equal(got.Loose, want) {
			t.Errorf("%+v", got)
		}
		in.hint("loose.jpg")
		in.after(time.Hour)
		if err := os.Remove(filepath.Join(in.dir, "link")); err != nil {
			t.Fatal(err)
		}
		in.after(time.Minute)
		told("one less, and nothing in that hour", 2, 0)
		for n := range 150 {
			if err := os.WriteFile(filepath.Join(in.dir, fmt.Sprintf("p%03d.jpg", n)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		in.after(time.Minute)
		if got := told("very many", 100, 52); got.Loose[0].Name != "fifo" || got.Loose[99].Name != "p097.jpg" {
			t.Errorf("%+v", got)
		}
	})
}

// What was handed on and is still there could not be claimed: it is offered
// again, ever more seldom, and a change begins anew.
func TestOfferedAgain(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		in.fill("case")
		in.hint("case")
		var at []time.Duration
		begin := time.Now()
		for range 4 {
			<-in.out // and it stays
			at = append(at, time.Since(begin).Round(time.Second))
		}
		if want := []time.Duration{5 * time.Second, 11 * time.Second, 18 * time.Second, 27 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("offered at %v, want %v", at, want)
		}
	})
}

// Plain folders go first, and odd ones don't wait for them for ever.
func TestPlainFirst(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		odd := []string{"extra", "link", "odd\nname", "sub", "wrong"}
		for _, name := range odd {
			in.fill(name)
		}
		in.write("extra", "note.txt", []byte("x"))
		in.write("sub/below", "p1.tif", nil)
		in.write("wrong", "meta.yaml", []byte(metaText+"colour: red\n"))
		if err := os.Link(filepath.Join(in.dir, "link", "FACE.jpg"), filepath.Join(in.dir, ".kept")); err != nil {
			t.Fatal(err)
		}
		for _, name := range odd {
			in.hint(name)
		}
		time.Sleep(5 * time.Second)
		for _, name := range []string{"plain", "marked"} {
			in.fill(name)
		}
		in.write("marked", ".ready", nil)
		in.hint("plain")
		in.hint("marked")
		time.Sleep(9 * time.Second) // nobody takes any
		in.fill("late")
		in.hint("late")
		time.Sleep(61 * time.Second)
		got := in.after(tick)
		if len(got) != 8 || !slices.Equal(got[:2], []string{"marked", "plain"}) || got[7] != "late" {
			t.Errorf("handed on: %q", got)
		}
	})
}

// While nobody takes folders, what is known of them stays true.
func TestChangesWhileQueued(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		in.fill("a")
		in.fill("b")
		time.Sleep(time.Minute) // both are ready, and nobody listens
		in.write("a", "FACE.jpg", face[:50])
		in.hint("a")
		time.Sleep(tick)
		synctest.Wait()
		in.want("a is being written again", in.after(time.Minute), "b")
	})
}

func TestLostEventsAndModes(t *testing.T) {
	bubble(t, func(c *watcher.Config) { c.Rescan = time.Hour }, func(in *inbox) {
		in.fill("case")
		in.want("no event, no scan", in.after(time.Minute))
		full := errors.New("no watch left")
		in.src.fail.Store(&full)
		in.src.c <- watcher.Hint{All: true, Err: errors.New("overflow")}
		in.want("after the loss", in.after(5*time.Second+tick), "case")
		in.src.fail.Store(nil)
		in.src.c <- watcher.Hint{All: true, Err: errors.New("overflow")}
		in.want("nothing left", in.after(time.Second))
		if want := []string{"mode events", "lost", "mode partial", "lost", "mode events"}; !slices.Equal(in.ev.all(), want) {
			t.Errorf("reports: %v, want %v", in.ev.all(), want)
		}
	})
}

// Where more folders wait than can be watched, those that came or changed last
// are, and rescans find the others.
func TestMoreThanWatched(t *testing.T) {
	bubble(t, func(c *watcher.Config) { c.Rescan = time.Hour }, func(in *inbox) {
		in.src.most = 2
		watched := func(want ...string) {
			t.Helper()
			if got := in.src.names(); !slices.Equal(got, want) {
				t.Errorf("%v are watched, and not %v", got, want)
			}
		}
		for _, name := range []string{"a", "b", "c", "d"} {
			in.write(name, "FRONT.jpg", front)
			in.hint(name)
			in.after(time.Minute) // it is quiet, and waits
		}
		watched("c", "d")
		in.write("a", "note.txt", nil)
		in.after(time.Hour) // with a rescan
		watched("a", "d")
		in.fill("a")
		in.hint("a")
		in.want("its event tells", in.after(5*time.Second+tick), "a")
		in.fill("b")
		in.want("a rescan finds it", in.after(time.Hour+time.Minute), "b")
		if !slices.Contains(in.ev.all(), "mode partial") {
			t.Errorf("reports: %v", in.ev.all())
		}
	})
}

// One that takes the name of another is watched, too.
func TestNameTakenAgain(t *testing.T) {
	bubble(t, func(c *watcher.Config) { c.Rescan = time.Hour }, func(in *inbox) {
		in.write("a", "FRONT.jpg", front)
		in.hint("a")
		in.after(time.Minute)
		must(t, os.Rename(filepath.Join(in.dir, "a"), filepath.Join(in.dir, "b")))
		in.write("a", "FRONT.jpg", front)
		asked := in.src.asked.Load()
		in.src.c <- watcher.Hint{Name: "a", Gone: true}
		in.hint("b")
		in.hint("a")
		in.after(time.Minute)
		if n := in.src.asked.Load() - asked; n != 2 {
			t.Errorf("%d asked for, watched: %v", n, in.src.names())
		}
	})
}

func TestInboxReplaced(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		in.fill("old")
		in.hint("old")
		in.after(time.Second)
		if err := errors.Join(os.Rename(in.dir, in.dir+".away"), os.Mkdir(in.dir, 0o700)); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(in.dir + ".away")
		in.fill("new")
		in.src.c <- watcher.Hint{All: true, Err: errors.New("the inbox was replaced")}
		in.want("the new one", in.after(time.Minute), "new")
		if err := os.RemoveAll(in.dir); err != nil {
			t.Fatal(err)
		}
		in.want("none", in.after(time.Minute))
		if err := os.Mkdir(in.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		in.fill("again")
		in.want("one again", in.after(time.Minute), "again")
		if !slices.Contains(in.ev.all(), "trouble true") || !slices.Contains(in.ev.all(), "trouble false") {
			t.Errorf("reports: %v", in.ev.all())
		}
	})
}

// once runs a watcher until there is nothing left to hand on, and returns what
// it handed on and how long it took.
func once(t *testing.T, change func(*watcher.Config), fill func(*inbox)) (names []string, took time.Duration, err error) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{t: t, dir: dir, ev: &notes{}, out: make(chan drop.Arrival), src: &hints{c: make(chan watcher.Hint), watched: map[string]bool{}}}
		fill(in)
		cfg := watcher.Config{
			Dir: dir, Once: true, Settings: watcher.Settings{
				Settle: 5 * time.Second, Rescan: 15 * time.Second, WarnAfter: time.Hour, FailAfter: 24 * time.Hour,
				Limits: meta.Limits{Request: 20_000_000, Files: 64},
			},
		}
		if change != nil {
			change(&cfg)
		}
		begin := time.Now()
		go func() {
			defer close(in.out)
			err = watcher.Run(t.Context(), cfg, in.src, in.out, in.ev.take)
		}()
		for a := range in.out {
			if names = append(names, a.Name); a.Expired {
				names[len(names)-1] += " expired"
			}
			if err := os.RemoveAll(filepath.Join(dir, a.Name)); err != nil {
				t.Error(err)
			}
		}
		took = time.Since(begin)
		time.Sleep(time.Hour) // for what fill has begun
	})
	return names, took, err
}

func TestOnce(t *testing.T) {
	names, took, err := once(t, nil, func(in *inbox) {
		in.fill("whole")
		in.fill("partly")
		in.write("partly", "FACE.jpg", face[:100])
	})
	if !slices.Equal(names, []string{"whole"}) || err != nil || took < 5*time.Second || took > 30*time.Second {
		t.Errorf("handed on: %v, %v, after %s", names, err, took)
	}
}

// A meta.yaml without a line break at its end is waited for until it is beyond
// doubt: the next run would begin anew.
func TestOnceInDoubt(t *testing.T) {
	names, took, err := once(t, nil, func(in *inbox) {
		in.fill("case")
		in.write("case", "meta.yaml", []byte(strings.TrimSpace(metaText)))
	})
	if !slices.Equal(names, []string{"case"}) || err != nil || took != time.Minute {
		t.Errorf("handed on: %v, %v, after %s", names, err, took)
	}
}

// What is too old ends, though no run lasts that long. The bubble's clock stands
// at the year 2000, so these files are of the future: fail_after is nothing.
func TestOnceTooOld(t *testing.T) {
	names, _, err := once(t, func(c *watcher.Config) { c.WarnAfter, c.FailAfter = 0, time.Nanosecond }, func(in *inbox) {
		in.fill("case")
		in.write("case", "FACE.jpg", face[:100])
	})
	if !slices.Equal(names, []string{"case expired"}) || err != nil {
		t.Errorf("handed on: %v, %v", names, err)
	}
}

// A folder that is never quiet, and an inbox that can't be read, end it too.
func TestOnceEnds(t *testing.T) {
	_, took, err := once(t, nil, func(in *inbox) {
		in.fill("case")
		go func() {
			for n := range 1000 {
				in.write("case", "log.txt", fmt.Append(nil, n))
				time.Sleep(3 * time.Second)
			}
		}()
	})
	if err == nil || !strings.Contains(err.Error(), "1 folders in the inbox keep changing") || took > 5*time.Minute {
		t.Errorf("never quiet: %v, after %s", err, took)
	}
	for what, change := range map[string]func(*watcher.Config){
		"missing": func(c *watcher.Config) { c.Dir += "/nowhere" },
		"a file":  func(c *watcher.Config) { c.Dir += "/file" },
	} {
		_, took, err := once(t, change, func(in *inbox) {
			if err := os.WriteFile(filepath.Join(in.dir, "file"), nil, 0o600); err != nil {
				t.Error(err)
			}
		})
		if err == nil || !strings.Contains(err.Error(), "nothing can be taken from the inbox") || took > time.Minute {
			t.Errorf("%s: %v, after %s", what, err, took)
		}
	}
}

// The fingerprint that is handed on is that of what was judged.
func TestContentIsOfWhatWasJudged(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		in.fill("case")
		parent, err := os.OpenRoot(in.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer parent.Close()
		root, err := drop.Open(parent, "case")
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		l, err := meta.List(root, meta.Limits{Files: 64})
		if err != nil {
			t.Fatal(err)
		}
		in.hint("case")
		in.after(6 * time.Second)
		if in.got[0].Content != l.Content {
			t.Error("the fingerprint is another")
		}
	})
}

// New settings come into force at once, and what is known of the folders stays.
func TestChange(t *testing.T) {
	set := func(in *inbox, change func(*watcher.Settings)) {
		change(&in.settings)
		in.changes <- in.settings
	}
	t.Run("settle", func(t *testing.T) {
		bubble(t, func(c *watcher.Config) { c.Settle = time.Hour }, func(in *inbox) {
			in.fill("case")
			in.hint("case")
			in.want("an hour to go", in.after(30*time.Second))
			set(in, func(s *watcher.Settings) { s.Settle = time.Minute })
			in.want("half a minute to go", in.after(30*time.Second-tick))
			in.want("quiet for a minute in all", in.after(2*tick), "case")
		})
	})
	t.Run("marker", func(t *testing.T) {
		bubble(t, func(c *watcher.Config) { c.Settle = time.Hour }, func(in *inbox) {
			in.fill("case")
			in.write("case", "finished", nil)
			in.hint("case")
			in.want("not marked", in.after(time.Minute))
			set(in, func(s *watcher.Settings) { s.Limits.Marker = "finished" })
			in.want("marked", in.after(tick), "case")
		})
	})
	t.Run("limits", func(t *testing.T) {
		bubble(t, nil, func(in *inbox) {
			in.fill("case")
			time.Sleep(time.Minute) // it is ready, and nobody takes it
			set(in, func(s *watcher.Settings) { s.Limits.Marker = "other" })
			in.want("judged again, and still ready", in.after(tick), "case")
		})
	})
	t.Run("age", func(t *testing.T) {
		bubble(t, nil, func(in *inbox) {
			in.fill("case")
			in.remove("FACE.jpg")
			in.hint("case")
			in.want("young", in.after(30*time.Minute))
			set(in, func(s *watcher.Settings) { s.WarnAfter, s.FailAfter = time.Minute, 20*time.Minute })
			in.want("too old", in.after(tick), "case")
			if !in.got[0].Expired || !slices.ContainsFunc(in.ev.all(), func(s string) bool { return strings.HasPrefix(s, "case waits for 30m") }) {
				t.Errorf("arrival %+v, reports %v", in.got[0], in.ev.all())
			}
		})
	})
	t.Run("rescan", func(t *testing.T) {
		bubble(t, func(c *watcher.Config) { c.Rescan = time.Hour }, func(in *inbox) {
			in.fill("case")
			in.want("not seen", in.after(time.Minute))
			set(in, func(s *watcher.Settings) { s.Rescan = 10 * time.Second })
			in.want("seen", in.after(5*time.Second+tick), "case")
		})
	})
}
