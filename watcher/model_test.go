package watcher_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/meta"
	"idenfy-batch/watcher"
)

var modelSteps = flag.Int("model.steps", 10_000, "steps of the model test")

// model is the rule of completeness, written down a second time and as simply
// as it can be: for one folder of which all changes are known at once.
type model struct {
	dir     string // the inbox
	name    string
	want    map[string][]byte   // what a whole folder holds
	have    map[string][]byte   // what it holds now
	open    map[string]*os.File // open for writing
	changed time.Time           // last change
	opened  time.Time           // last time that a file was opened
}

func (m *model) path(file string) string { return filepath.Join(m.dir, m.name, file) }

// complete says whether the folder may be taken, were it quiet.
func (m *model) complete() bool {
	for file, data := range m.want {
		if string(m.have[file]) != string(data) {
			return false
		}
	}
	for _, name := range []string{"x.part", "originals/x.part", ".~tmp~/FACE.jpg"} {
		if _, temporary := m.have[name]; temporary {
			return false
		}
	}
	return len(m.open) == 0
}

// step makes one random change.
func (m *model) step(r *rand.Rand) error {
	files := []string{
		"FRONT.jpg", "FACE.jpg", "meta.yaml", "note.txt", "x.part", ".ready",
		"originals/p1.tif", "originals/x.part", "originals/raw/FRONT.jpg", ".~tmp~/FACE.jpg",
	}
	file := files[r.IntN(len(files))]
	if r.IntN(3) == 0 {
		file = files[r.IntN(3)]
	}
	data, named := m.want[file]
	if !named {
		data = []byte("x")
	}
	if err := os.Mkdir(filepath.Join(m.dir, m.name), 0o700); err == nil {
		m.changed = time.Now()
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if dir := filepath.Dir(file); dir != "." {
		// It goes with its last file, so that its name counts only while one is there.
		if _, err := os.Stat(m.path(dir)); err != nil {
			m.changed = time.Now()
		}
		if err := os.MkdirAll(m.path(dir), 0o700); err != nil {
			return err
		}
		defer m.tidy(dir)
	}
	put := func(data []byte) error {
		m.have[file], m.changed = data, time.Now()
		return os.WriteFile(m.path(file), data, 0o600)
	}
	// Whoever has a file open that was removed or replaced writes into nothing.
	forget := func() error {
		f := m.open[file]
		delete(m.open, file)
		if f == nil {
			return nil
		}
		return f.Close()
	}
	what := r.IntN(9)
	if _, there := m.have[file]; there && (strings.Contains(file, "x.part") || strings.Contains(file, "~tmp~")) {
		what = 4 // else hardly any folder is ever without
	}
	switch what {
	case 0, 1, 2: // whole, as most files are in the end
		return put(data)
	case 3: // cut off, but not in the middle of a line of meta.yaml
		if file == "meta.yaml" {
			return put(nil)
		}
		return put(data[:r.IntN(len(data))])
	case 4: // gone
		if _, there := m.have[file]; !there {
			return nil
		}
		delete(m.have, file)
		m.changed = time.Now()
		if err := forget(); err != nil {
			return err
		}
		return os.Remove(m.path(file))
	case 5: // renamed in
		m.have[file], m.changed = data, time.Now()
		return errors.Join(os.WriteFile(m.path(file+".tmp"), data, 0o600), os.Rename(m.path(file+".tmp"), m.path(file)), forget())
	case 6: // opened for writing; the content is as it was
		if _, there := m.have[file]; !there || m.open[file] != nil {
			return nil
		}
		opened, err := os.OpenFile(m.path(file), os.O_WRONLY, 0)
		m.open[file], m.opened = opened, time.Now()
		return err
	default: // closed
		return m.close()
	}
}

// tidy removes a sub-folder without files.
func (m *model) tidy(dir string) {
	for ; dir != "."; dir = filepath.Dir(dir) {
		if os.Remove(m.path(dir)) == nil {
			m.changed = time.Now()
		}
	}
}

// same looks at the folder as the batch does after the claim: is it still as
// it was judged, and has nobody opened a file of it since? One that was open
// before is the watcher's to see.
func (m *model) same(a drop.Arrival) bool {
	root, err := os.OpenRoot(filepath.Join(m.dir, m.name))
	if err != nil {
		return false
	}
	defer root.Close()
	l, err := meta.List(root, meta.Limits{Files: 64})
	return err == nil && l.Content == a.Content && (len(m.open) == 0 || m.opened.Before(a.Complete))
}

// close closes all that is open.
func (m *model) close() (err error) {
	for file, f := range m.open {
		err = errors.Join(err, f.Close())
		delete(m.open, file)
	}
	return err
}

// Random interleavings of create, write, cut, rename, delete, open and close,
// with and without events, with pauses around settle: whatever is handed on,
// and still is as it was judged, was complete by the model at that instant, and
// quiet or marked; and what is complete and stays so is handed on.
func TestModel(t *testing.T) {
	steps := *modelSteps
	if testing.Short() {
		steps = 5_000
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	taken, round := 0, 0
	for done := 0; done < steps; round++ {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			n, got := modelRound(t, r, dir)
			done += n
			taken += got
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d steps, %d folders handed on, none early, none missed", steps, taken)
	if taken < steps/1000 {
		t.Error("too few folders became complete for the test to show anything")
	}
}

func modelRound(t *testing.T, r *rand.Rand, dir string) (steps, taken int) {
	t.Helper()
	const settle = 5 * time.Second
	src := &hints{c: make(chan watcher.Hint, 10_000), watched: map[string]bool{}}
	out := make(chan drop.Arrival)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := watcher.Run(ctx, watcher.Config{
			Dir: dir, Settings: watcher.Settings{
				Settle: settle, Rescan: 15 * time.Second,
				Limits: meta.Limits{Request: 20_000_000, Files: 64, Marker: ".ready"},
			},
		}, src, out, (&notes{}).take)
		if err != nil {
			t.Error(err)
		}
	}()
	defer func() { cancel(); <-done }()
	m := &model{dir: dir, name: "case0", want: map[string][]byte{"FRONT.jpg": face, "FACE.jpg": face, "meta.yaml": []byte(metaText)}, have: map[string][]byte{}, open: map[string]*os.File{}}
	defer func() {
		if err := m.close(); err != nil {
			t.Error(err)
		}
	}()
	// take checks what is handed on while d passes.
	take := func(d time.Duration) bool {
		select {
		case a := <-out:
			if !m.same(a) {
				return false // the look after the claim sends it back
			}
			_, marked := m.have[".ready"]
			if quiet := time.Since(m.changed); a.Name != m.name || !m.complete() || !marked && quiet < settle {
				t.Errorf("after %d steps %s is handed on; complete by the model: %v, marked: %v, quiet for %s", steps, a.Name, m.complete(), marked, quiet)
			}
			taken++
			if err := os.RemoveAll(filepath.Join(dir, m.name)); err != nil {
				t.Error(err)
			}
			if err := m.close(); err != nil {
				t.Error(err)
			}
			m.name, m.have = fmt.Sprintf("case%d", taken), map[string][]byte{}
			return true
		case <-time.After(d):
			return false
		}
	}
	events := r.IntN(4) // 0: none at all
	for range 500 {
		steps++
		if err := m.step(r); err != nil {
			t.Error(err)
			return steps, taken
		}
		if events > 0 && r.IntN(4) < events {
			src.c <- watcher.Hint{Name: m.name}
		}
		for take([]time.Duration{0, time.Millisecond, time.Second, settle - time.Second, 2 * settle, 40 * time.Second}[r.IntN(6)]) {
			if t.Failed() {
				return steps, taken
			}
		}
	}
	// What is complete now, and stays so, is handed on.
	if m.complete() && !take(2*15*time.Second+settle) {
		t.Errorf("%s is complete and was missed", m.name)
	}
	return steps, taken
}
