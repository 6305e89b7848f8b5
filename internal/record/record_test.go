package record_test

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/record"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newLife() *journal.Life {
	id := spool.NewID()
	return &journal.Life{ID: id, State: journal.Pending, Result: &sidecar.Result{ID: id, Folder: "case", Outcome: sidecar.Pending}}
}

// What lies under the name result.json, and isn't this life's, is kept once;
// what is this life's is replaced.
func TestKeep(t *testing.T) {
	mine, other := newLife(), newLife()
	encoded := func(l *journal.Life) []byte {
		data, err := sidecar.Encode(l.Result)
		must(t, err)
		return data
	}
	for name, c := range map[string]struct {
		plant func(path string) error
		kept  bool
	}{
		"nothing":           {func(string) error { return nil }, false},
		"own":               {func(p string) error { return os.WriteFile(p, encoded(mine), 0o600) }, false},
		"own, damaged":      {func(p string) error { return os.WriteFile(p, encoded(mine)[:200], 0o600) }, false},
		"empty":             {func(p string) error { return os.WriteFile(p, nil, 0o600) }, false},
		"another life's":    {func(p string) error { return os.WriteFile(p, encoded(other), 0o600) }, true},
		"another, damaged":  {func(p string) error { return os.WriteFile(p, encoded(other)[:150], 0o600) }, true},
		"no id in it":       {func(p string) error { return os.WriteFile(p, []byte("mine!"), 0o600) }, true},
		"a directory":       {func(p string) error { return os.MkdirAll(filepath.Join(p, "sub"), 0o700) }, true},
		"a link":            {func(p string) error { return os.Symlink("/etc/passwd", p) }, true},
		"a link to nothing": {func(p string) error { return os.Symlink("nowhere", p) }, true},
		"a FIFO":            {func(p string) error { return syscall.Mkfifo(p, 0o600) }, true},
	} {
		for how, write := range map[string]func(*os.Root, *journal.Life) error{"Write": record.Write, "Show": record.Show} {
			t.Run(name+", "+how, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, sidecar.Name)
				must(t, c.plant(path))
				before, planted := os.Lstat(path)
				root, err := os.OpenRoot(dir)
				must(t, err)
				defer root.Close()
				for range 3 { // kept once, however often it is written
					must(t, write(root, mine))
				}
				res, err := sidecar.Read(root)
				must(t, err)
				if res.ID != mine.ID {
					t.Errorf("it tells of %s", res.ID)
				}
				want := []string{sidecar.Name}
				if c.kept {
					want = []string{"result.1.json", sidecar.Name}
				}
				names, err := sidecar.Files(root)
				must(t, err)
				if !slices.Equal(names, want) {
					t.Errorf("there are %v", names)
				}
				if c.kept {
					after, err := os.Lstat(filepath.Join(dir, "result.1.json"))
					if err != nil || planted != nil || !os.SameFile(before, after) {
						t.Errorf("it was not kept as it was: %v", err)
					}
				}
			})
		}
	}
}

// A verdict.json that lies in a folder at its end is no verdict on what was
// submitted, whatever it is.
func TestKeepVerdict(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"a file":      func(p string) error { return os.WriteFile(p, []byte(`{"overall":"APPROVED"}`), 0o600) },
		"a directory": func(p string) error { return os.MkdirAll(filepath.Join(p, "sub"), 0o700) },
		"a link":      func(p string) error { return os.Symlink("/etc/passwd", p) },
	} {
		dir := t.TempDir()
		must(t, plant(filepath.Join(dir, sidecar.VerdictName)))
		root, err := os.OpenRoot(dir)
		must(t, err)
		l := newLife()
		must(t, record.End(root, l))
		must(t, record.End(root, l)) // once more, after a crash
		must(t, root.Close())
		_, err = os.Lstat(filepath.Join(dir, sidecar.VerdictName))
		_, kept := os.Lstat(filepath.Join(dir, "verdict.1.json"))
		if !os.IsNotExist(err) || kept != nil {
			t.Errorf("%s: %v, %v", name, err, kept)
		}
	}
}

// Each life's result is kept, in order.
func TestLives(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	must(t, err)
	defer root.Close()
	var ids []string
	for range 12 {
		l := newLife()
		must(t, record.Show(root, l))
		l.Result.Outcome = sidecar.Rejected
		must(t, record.Write(root, l))
		ids = append(ids, l.ID)
	}
	got, err := sidecar.IDs(root)
	must(t, err)
	if !slices.Equal(got, ids) {
		t.Errorf("%v, want %v", got, ids)
	}
}

// A folder that was taken out of work is found in the same place by all who
// look: of two copies, that in hold.
func TestFind(t *testing.T) {
	paths, id := spool.Paths{}, spool.NewID()
	for _, p := range spool.Places() {
		paths[p] = t.TempDir()
	}
	if _, _, found := record.Find(paths, id, "case"); found {
		t.Error("it is nowhere")
	}
	for _, c := range []struct {
		place spool.Place
		name  string
	}{{spool.Failed, "case"}, {spool.Done, "case." + id}, {spool.Hold, "other"}} {
		dir := filepath.Join(paths[c.place], c.name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if err := sidecar.Write(root, &sidecar.Result{ID: id, Folder: "case"}); err != nil {
			t.Fatal(err)
		}
		if p, name, found := record.Find(paths, id, "other", "case"); !found || p != c.place || name != c.name {
			t.Errorf("%s/%s, %v", p, name, found)
		}
	}
}
