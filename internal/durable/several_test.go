package durable_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/durable"
)

func inside(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Several files are replaced with one sync of the directory; one that can't be
// leaves the others alone, and nothing behind.
func TestReplaceAll(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	long := strings.Repeat("x", 255)
	must(t, os.Mkdir(filepath.Join(dir, "taken"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "old"), []byte("old"), 0o600))
	var dirs int
	durable.Inject(func(op durable.Op, _ string, do func() error) error {
		if op == durable.OpSyncDir {
			dirs++
		}
		return do()
	})
	defer durable.Inject(nil)
	files := []durable.File{
		{Name: "old", Data: []byte("new"), Group: os.Getgid()}, {Name: "taken", Data: []byte("x"), Group: os.Getgid()},
		{Name: long, Data: []byte("long"), Group: os.Getgid()},
	}
	must(t, durable.ReplaceAll(root, files, 0o640))
	if files[0].Err != nil || files[2].Err != nil || !errors.Is(files[1].Err, unix.EEXIST) && !errors.Is(files[1].Err, unix.EISDIR) {
		t.Errorf("%+v", files)
	}
	if got := inside(t, dir); !slices.Equal(got, []string{"old", "taken", long}) || dirs != 1 {
		t.Errorf("%q, %d syncs of the directory", got, dirs)
	}
	info, err := os.Stat(filepath.Join(dir, "old"))
	must(t, err)
	if data, err := os.ReadFile(filepath.Join(dir, "old")); err != nil || string(data) != "new" || info.Mode() != 0o640 {
		t.Errorf("%q, %v, %v", data, info.Mode(), err)
	}
}

// Whatever step fails, each file is the old or the new one, whole, and nothing
// else is left.
func TestReplaceAllFails(t *testing.T) {
	for _, op := range []durable.Op{durable.OpCreate, durable.OpWrite, durable.OpChmod, durable.OpSync, durable.OpRename, durable.OpSyncDir} {
		for _, done := range []bool{false, true} {
			dir := t.TempDir()
			root, err := os.OpenRoot(dir)
			must(t, err)
			for _, name := range []string{"a", "b"} {
				must(t, os.WriteFile(filepath.Join(dir, name), []byte("old"), 0o600))
			}
			durable.Inject(func(is durable.Op, _ string, do func() error) error {
				if is != op {
					return do()
				}
				if done {
					must(t, do())
				}
				return unix.ENOSPC
			})
			files := []durable.File{{Name: "a", Data: []byte("new")}, {Name: "b", Data: []byte("new")}}
			err = durable.ReplaceAll(root, files, 0o640)
			durable.Inject(nil)
			if !errors.Is(errors.Join(err, files[0].Err, files[1].Err), unix.ENOSPC) {
				t.Errorf("%s: %v", op, err)
			}
			if got := inside(t, dir); !slices.Equal(got, []string{"a", "b"}) {
				t.Errorf("%s, done %v: %q", op, done, got)
			}
			for _, name := range []string{"a", "b"} {
				if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != "old" && string(data) != "new" {
					t.Errorf("%s, done %v: %q, %v", op, done, data, err)
				}
			}
			root.Close()
		}
	}
}
