package durable_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"idenfy-batch/internal/durable"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	// What a crash left, or somebody put there, is no hindrance.
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, ".idenfy-batch.r.json.tmp")))
	for _, text := range []string{"one", "two"} {
		must(t, durable.WriteFile(root, "r.json", []byte(text), 0o640))
		got, err := os.ReadFile(filepath.Join(dir, "r.json"))
		must(t, err)
		info, err := os.Lstat(filepath.Join(dir, "r.json"))
		must(t, err)
		if string(got) != text || info.Mode() != 0o640 {
			t.Errorf("got %q, mode %v", got, info.Mode())
		}
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("something was left: %v", entries)
	}
	if !durable.IsTemp(".idenfy-batch.r.json.tmp") || durable.IsTemp("r.json") {
		t.Error("IsTemp")
	}
	// A target that can't be replaced leaves all as it was.
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
	if err := durable.WriteFile(root, "d", nil, 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	if _, err := os.Lstat(filepath.Join(dir, ".idenfy-batch.d.tmp")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a temporary file was left: %v", err)
	}
}

func TestRenameReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"a/x", "b/x"} { // an empty directory would be replaced by rename(2)
		must(t, os.MkdirAll(filepath.Join(dir, p), 0o700))
	}
	must(t, os.WriteFile(filepath.Join(dir, "a/x/mine"), nil, 0o600))
	a, err := os.Open(filepath.Join(dir, "a"))
	must(t, err)
	defer a.Close()
	b, err := os.Open(filepath.Join(dir, "b"))
	must(t, err)
	defer b.Close()
	if err := durable.Rename(a, "x", b, "x"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a taken name: %v", err)
	}
	must(t, durable.Rename(a, "x", b, "y"))
	if _, err := os.Stat(filepath.Join(dir, "b/y/mine")); err != nil {
		t.Error(err)
	}
	must(t, durable.Rename(b, "y", b, "z"))
	if err := durable.Rename(a, "x", b, "q"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("from a name that is gone: %v", err)
	}
}

func TestMkdir(t *testing.T) {
	dir := t.TempDir()
	must(t, durable.Mkdir(dir, "d", fs.ModeSetgid|0o770))
	info, err := os.Stat(filepath.Join(dir, "d"))
	must(t, err)
	if info.Mode() != fs.ModeDir|fs.ModeSetgid|0o770 {
		t.Errorf("mode %v", info.Mode())
	}
	if err := durable.Mkdir(dir, "d", 0o700); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a taken name: %v", err)
	}
}

// upload writes n files of 400 kB, and opens them for reading.
func upload(t testing.TB, dir string, n int) (files []*os.File) {
	t.Helper()
	for i := range n {
		name := filepath.Join(dir, string(rune('a'+i)))
		err := os.WriteFile(name, bytes.Repeat([]byte{byte(i + 1)}, 400_000), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// All write-backs begin before the first sync, each file is synced whatever
// becomes of the others, and each error comes back.
func TestKeepAll(t *testing.T) {
	must(t, durable.KeepAll(nil))
	files := upload(t, t.TempDir(), 3)
	defer closeAll(files)
	must(t, durable.KeepAll(files))
	t.Cleanup(func() { durable.Inject(nil) })
	all := []string{
		"sync_file_range a", "sync_file_range b", "sync_file_range c",
		"fsync a", "fsync b", "fsync c",
	}
	for _, fails := range [][]string{{}, {"fsync a"}, {"fsync b"}, {"sync_file_range c"}, {"sync_file_range a", "fsync c"}, all} {
		var mu sync.Mutex
		var steps []string
		durable.Inject(func(op durable.Op, path string, do func() error) error {
			at := string(op) + " " + filepath.Base(path)
			mu.Lock()
			steps = append(steps, at)
			mu.Unlock()
			if slices.Contains(fails, at) {
				return &os.PathError{Op: at, Path: path, Err: syscall.EIO}
			}
			return do()
		})
		err := durable.KeepAll(files)
		slices.Sort(steps[min(len(steps), len(files)):]) // the syncs are made at the same time
		if !slices.Equal(steps, all) {
			t.Errorf("%q fail: the steps were %q", fails, steps)
		}
		if (err == nil) != (len(fails) == 0) {
			t.Errorf("%q fail: %v", fails, err)
		}
		for _, at := range fails {
			if !bytes.Contains([]byte(err.Error()), []byte(at)) {
				t.Errorf("%q fail: %s is not in %v", fails, at, err)
			}
		}
	}
	// A single file has nothing to wait for.
	var steps []durable.Op
	durable.Inject(func(op durable.Op, _ string, do func() error) error { steps = append(steps, op); return do() })
	must(t, durable.KeepAll(files[:1]))
	if !slices.Equal(steps, []durable.Op{durable.OpSync}) {
		t.Errorf("one file: %q", steps)
	}
	durable.Inject(nil)
	// What was to be kept is what was written, also when it is not a file.
	for i, f := range files {
		got, err := os.ReadFile(f.Name())
		must(t, err)
		if !bytes.Equal(got, bytes.Repeat([]byte{byte(i + 1)}, 400_000)) {
			t.Errorf("%s was changed", f.Name())
		}
	}
	dir, err := os.Open(t.TempDir())
	must(t, err)
	defer dir.Close()
	must(t, durable.KeepAll([]*os.File{dir, files[0]}))
	must(t, files[1].Close())
	if err := durable.KeepAll(files); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed file: %v", err)
	}
}

// BenchmarkKeep is a folder of four files that was uploaded just now, alone
// and with seven others: one file after another, and all at once.
func BenchmarkKeep(b *testing.B) {
	oneByOne := func(files []*os.File) error {
		for _, f := range files {
			if err := durable.Keep(f); err != nil {
				return err
			}
		}
		return nil
	}
	for _, how := range []struct {
		name string
		keep func([]*os.File) error
	}{{"one by one", oneByOne}, {"all", durable.KeepAll}} {
		for _, folders := range []int{1, 8} {
			b.Run(how.name+"/"+string(rune('0'+folders)), func(b *testing.B) {
				dir := b.TempDir()
				for b.Loop() {
					b.StopTimer()
					sets := make([][]*os.File, folders)
					for i := range sets {
						sub := filepath.Join(dir, string(rune('a'+i)))
						if err := os.Mkdir(sub, 0o700); err != nil {
							b.Fatal(err)
						}
						sets[i] = upload(b, sub, 4)
					}
					b.StartTimer()
					var all sync.WaitGroup
					for _, files := range sets {
						all.Go(func() {
							if err := how.keep(files); err != nil {
								b.Error(err)
							}
						})
					}
					all.Wait()
					b.StopTimer()
					for _, files := range sets {
						closeAll(files)
						if err := os.RemoveAll(filepath.Dir(files[0].Name())); err != nil {
							b.Fatal(err)
						}
					}
					b.StartTimer()
				}
			})
		}
	}
}
