package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
