package spool_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"idenfy-batch/internal/spool"
)

// elsewhere is a directory on another mount than the test's own.
func elsewhere(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "idenfy-batch-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	var a, b syscall.Stat_t
	must(t, syscall.Stat(dir, &a))
	must(t, syscall.Stat(t.TempDir(), &b))
	if a.Dev == b.Dev {
		t.Skip("there is no other mount")
	}
	return dir
}

// branches are paths with two inboxes that have names, which are made.
func branches(t *testing.T) spool.Paths {
	t.Helper()
	root := t.TempDir()
	p := paths(root)
	delete(p, spool.Inbox)
	for _, name := range []string{"branch-1", "branch-2"} {
		p[spool.InboxNamed(name)] = filepath.Join(root, name)
		must(t, os.Mkdir(filepath.Join(root, name), 0o770))
	}
	return p
}

func TestInboxNames(t *testing.T) {
	for name, want := range map[string]spool.Place{"inbox": spool.Inbox, "": spool.Inbox, "branch-1": "inbox/branch-1"} {
		if p := spool.InboxNamed(name); p != want || !p.IsInbox() || p.Kind() != spool.Inbox || name != "" && p.InboxName() != name {
			t.Errorf("%q: %s, %q", name, p, p.InboxName())
		}
	}
	for _, p := range []spool.Place{spool.Work, spool.Done, spool.Failed, spool.Hold, "", "inbox/", "inboxes"} {
		if p.IsInbox() || p.InboxName() != "" || p.Kind() != p {
			t.Errorf("%q is taken for an inbox, %q", p, p.InboxName())
		}
	}
	if got := branches(t).Places(); !slices.Equal(got, []spool.Place{"inbox/branch-1", "inbox/branch-2", spool.Work, spool.Done, spool.Failed, spool.Hold}) {
		t.Errorf("places: %v", got)
	}
}

// A folder goes from each inbox to work and back to where it was, under one name
// in both.
func TestMovesOfInboxes(t *testing.T) {
	p := branches(t)
	s, err := spool.Open(p)
	must(t, err)
	defer s.Close()
	for _, in := range p.Inboxes() {
		must(t, os.Mkdir(filepath.Join(p[in], "case"), 0o700))
		must(t, os.WriteFile(filepath.Join(p[in], "case", "from"), []byte(in), 0o600))
	}
	for _, in := range p.Inboxes() {
		work, err := p.Claim(in, "case", spool.NewID())
		must(t, err)
		name, err := p.Release(work, in, "case")
		must(t, err)
		data, err := os.ReadFile(filepath.Join(p[in], name, "from"))
		if must(t, err); name != "case" || string(data) != string(in) {
			t.Errorf("%s has %s of %s", in, name, data)
		}
	}
	work, err := p.Claim("inbox/branch-1", "case", spool.NewID())
	must(t, err)
	if _, err := p.Release(work, spool.Done, "case"); err == nil {
		t.Error("done is taken for an inbox")
	}
	if _, err := p.Release(work, spool.Inbox, "case"); err == nil {
		t.Error("one that is not there is taken for an inbox")
	}
}

// What is wrong with an inbox that has a name holds up a start only if no mend
// but another configuration helps. Nothing is left behind.
func TestOpenWithInboxes(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, path string)
		says  string
	}{
		"whole":   {func(*testing.T, string) {}, ""},
		"missing": {func(t *testing.T, path string) { must(t, os.Remove(path)) }, ""},
		"a file": {func(t *testing.T, path string) {
			must(t, errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)))
		}, ""},
		"a link to nothing": {func(t *testing.T, path string) {
			must(t, errors.Join(os.Remove(path), os.Symlink("/nowhere/at/all", path)))
		}, ""},
		"on another mount": {func(t *testing.T, path string) {
			must(t, errors.Join(os.Remove(path), os.Symlink(elsewhere(t), path)))
		}, "inbox/branch-2"},
	} {
		t.Run(name, func(t *testing.T) {
			p := branches(t)
			c.spoil(t, p["inbox/branch-2"])
			s, err := spool.Open(p)
			if err == nil {
				must(t, s.Close())
			}
			if (err != nil) != (c.says != "") || err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "branch-1") || spool.Passing(err)) {
				t.Errorf("open: %v", err)
			}
			err = spool.Check(p)
			if (err != nil) != (name != "whole") || err != nil && !strings.Contains(err.Error(), "branch-2") {
				t.Errorf("check: %v", err)
			}
			for _, place := range p.Places() {
				if left, _ := os.ReadDir(p[place]); len(left) > 0 {
					t.Errorf("left in %s: %v", place, left)
				}
			}
		})
	}
}

// Other inboxes are taken if all that is new of them can be had.
func TestAdmits(t *testing.T) {
	p := branches(t)
	s, err := spool.Open(p)
	must(t, err)
	defer s.Close()
	more := func(path string) spool.Paths {
		next := spool.Paths{"inbox/third": path}
		maps.Copy(next, p)
		return next
	}
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, bad := range []string{"/nowhere/at/all", file, elsewhere(t)} {
		if err := s.Admits(more(bad)); err == nil || !strings.Contains(err.Error(), "inbox/third") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	third := t.TempDir()
	must(t, s.Admits(more(third)))
	must(t, os.Remove(p["inbox/branch-1"])) // what was had before is not asked for again
	must(t, s.Admits(more(third)))
	swapped := more(third)
	swapped["inbox/branch-1"], swapped["inbox/branch-2"] = swapped["inbox/branch-2"], swapped["inbox/branch-1"]
	if err := s.Admits(swapped); err == nil || !strings.Contains(err.Error(), "inbox/branch-2") {
		t.Errorf("a missing one elsewhere: %v", err)
	}
	if s.Path("inbox/third") != "" {
		t.Error("it was taken by asking")
	}
	s.SetInboxes(spool.Paths{"inbox/third": third, spool.Done: "/nowhere"})
	if got := s.Paths().Inboxes(); !slices.Equal(got, []spool.Place{"inbox/third"}) || s.Path(spool.Done) != p[spool.Done] {
		t.Errorf("%v, done is %s", got, s.Path(spool.Done))
	}
	if err := s.Takes("inbox/branch-2"); !errors.Is(err, spool.ErrNotConfigured) {
		t.Errorf("one that was taken out: %v", err)
	}
	if left, _ := os.ReadDir(third); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// One inbox is told from the disk.
func TestAlone(t *testing.T) {
	p := branches(t)
	s, err := spool.Open(p)
	must(t, err)
	defer s.Close()
	bad := p["inbox/branch-1"]
	if s.Alone("inbox/branch-1") {
		t.Error("nothing is wrong with it")
	}
	must(t, os.Remove(bad))
	if !s.Alone("inbox/branch-1") || s.Alone("inbox/branch-2") || s.Alone(spool.Hold) {
		t.Error("a missing one")
	}
	must(t, os.Symlink(elsewhere(t), bad))
	if !s.Alone("inbox/branch-1") {
		t.Error("one on another mount")
	}
	must(t, os.Remove(p[spool.Done]))
	if s.Alone("inbox/branch-1") {
		t.Error("nothing can be moved anywhere")
	}
}

// What goes back to an inbox is for that one's group.
func TestUnsealForInbox(t *testing.T) {
	p := branches(t)
	groups := map[spool.Place]int{"inbox/branch-1": os.Getegid(), "inbox/branch-2": os.Getegid()}
	if os.Geteuid() == 0 { // others can't give them any
		groups["inbox/branch-1"], groups["inbox/branch-2"] = 4711, 4712
	}
	for in, gid := range groups {
		must(t, os.Chown(p[in], -1, gid))
	}
	s, err := spool.Open(p)
	must(t, err)
	defer s.Close()
	for in, gid := range groups {
		must(t, os.Mkdir(filepath.Join(p[in], "case"), 0o750))
		work, err := p.Claim(in, "case", spool.NewID())
		must(t, err)
		_, err = s.Seal(t.Context(), work, nil, spool.Copies{}, false)
		must(t, err)
		must(t, p.Unseal(spool.Work, work, in, uint32(os.Geteuid()), 0))
		info, err := os.Stat(filepath.Join(p[spool.Work], work))
		must(t, err)
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Gid) != gid || info.Mode().Perm() != 0o770 {
			t.Errorf("%s: group %d, want %d, mode %v", in, st.Gid, gid, info.Mode())
		}
	}
}
