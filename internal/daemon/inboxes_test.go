package daemon_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/sidecar"
)

// inbox makes a directory, and returns it as an inbox of that name.
func inbox(t *testing.T, name string) config.Inbox {
	t.Helper()
	return config.Inbox{Name: name, Path: filepath.Join(t.TempDir(), name)}
}

// newInboxes is newLab with some inboxes, which lie on the mount of the spool.
func newInboxes(t *testing.T, change func(*config.Config), names ...string) (*lab, []config.Inbox) {
	t.Helper()
	var list []config.Inbox
	for _, name := range names {
		in := inbox(t, name)
		must(t, os.Mkdir(in.Path, 0o700))
		list = append(list, in)
	}
	return newLab(t, func(c *config.Config) {
		c.Inboxes = list
		if change != nil {
			change(c)
		}
	}), list
}

// drop puts a folder with a token into a directory, whole at once.
func drop(t *testing.T, dir, name, token string) {
	t.Helper()
	made := filepath.Join(dir, ".making-"+name)
	must(t, sample.Write(made, map[string][]byte{
		"FRONT.jpg": sample.Front(), "FACE.jpg": sample.Face(), "meta.yaml": []byte(sample.Meta(token, "LT", "PASSPORT")), ".ready": nil,
	}))
	must(t, os.Rename(made, filepath.Join(dir, name)))
}

// result reads the result of a folder in a final place.
func (l *lab) result(place, name string) (r sidecar.Result) {
	data, err := os.ReadFile(filepath.Join(l.root, place, name, sidecar.Name))
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	must(l.t, err)
	return r
}

// client calls the daemon.
func (l *lab) client() *control.Client {
	l.t.Helper()
	c, err := control.Dial(l.root)
	must(l.t, err)
	l.t.Cleanup(c.Close)
	return c
}

// trouble returns what the daemon says is wrong with each inbox.
func (l *lab) trouble() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	wrong := map[string]string{}
	for _, e := range l.seen {
		switch e := e.(type) {
		case events.InboxTrouble:
			if delete(wrong, e.Inbox); e.Err != nil {
				wrong[e.Inbox] = e.Err.Error()
			}
		case events.InboxLeft:
			delete(wrong, e.Inbox)
		}
	}
	return wrong
}

// Two folders of one name, in two inboxes at one time, are two folders: each
// result names its inbox, and so do the lists.
func TestInboxesOfOneName(t *testing.T) {
	l, in := newInboxes(t, nil, "branch-1", "branch-2")
	for _, i := range in {
		drop(t, i.Path, "case-7", token(i.Name))
	}
	drop(t, filepath.Join(l.root, "inbox"), "case-7", token("nowhere")) // which the others took the place of
	l.until("done", func() bool { return len(l.names("done")) == 2 })
	came := map[string]string{}
	for _, name := range l.names("done") {
		r := l.result("done", name)
		came[r.Inbox] = r.Folder
	}
	if len(came) != 2 || came["branch-1"] != "case-7" || came["branch-2"] != "case-7" {
		t.Errorf("%v", came)
	}
	for _, i := range in {
		list, err := l.client().List(t.Context(), journal.Query{Most: 9, Inbox: i.Name})
		if err != nil || len(list) != 1 || list[0].Inbox != i.Name || list[0].Folder != "case-7" {
			t.Errorf("%s: %+v, %v", i.Name, list, err)
		}
	}
	if got := l.names("inbox"); !slices.Equal(got, []string{"case-7"}) {
		t.Errorf("in the inbox that is not watched: %v", got)
	}
}

// One inbox that can't be had waits alone, and says so; the others go on. What
// is mended goes on by itself.
func TestInboxWaitsAlone(t *testing.T) {
	other, err := os.MkdirTemp("/dev/shm", "idenfy-batch-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(other) })
	type trouble struct{ make, mend func(path string) error }
	aside := func(path string) string { return path + ".aside" }
	away := func(path string) error { return os.Rename(path, aside(path)) }
	back := func(path string) error { return os.Rename(aside(path), path) }
	for name, do := range map[string]trouble{
		"removed": {away, back},
		"a file": {
			func(path string) error { _ = away(path); return os.WriteFile(path, nil, 0o600) },
			func(path string) error { _ = os.Remove(path); return back(path) },
		},
		"a link to nothing": {
			func(path string) error { _ = away(path); return os.Symlink("/nowhere/at/all", path) },
			func(path string) error { _ = os.Remove(path); return back(path) },
		},
		"a link to another mount": {
			func(path string) error { _ = away(path); return os.Symlink(other, path) },
			func(path string) error { _ = os.Remove(path); return back(path) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			address := free(t)
			l, in := newInboxes(t, func(c *config.Config) { c.Metrics.Listen = address }, "bad", "good")
			l.until("watched", func() bool { code, _ := get(address, "/healthz"); return code == http.StatusOK })
			bad, good := in[0].Path, in[1].Path
			must(t, do.make(bad))
			var st, root syscall.Stat_t
			if syscall.Stat(bad, &st) == nil && syscall.Stat(l.root, &root) == nil && st.Mode&syscall.S_IFDIR != 0 {
				if st.Dev == root.Dev {
					t.Skip("there is no other mount")
				}
				drop(t, bad, "case-1", token("one"))
			}
			l.until("it is told", func() bool { return l.trouble()["bad"] != "" })
			if code, body := get(address, "/healthz"); code != http.StatusServiceUnavailable || !strings.Contains(body, `"name":"bad"`) {
				t.Errorf("/healthz says %d, %s", code, body)
			}
			for n := range 5 {
				drop(t, good, fmt.Sprintf("case-2%d", n), token(fmt.Sprint("two", n)))
			}
			l.until("the other goes on", func() bool { return len(l.names("done")) == 5 })
			if l.trouble()["good"] != "" || l.trouble()["bad"] == "" {
				t.Errorf("%v", l.trouble())
			}
			must(t, do.mend(bad))
			drop(t, bad, "case-3", token("three"))
			l.until("it goes on by itself", func() bool { return len(l.names("done")) == 6 })
			l.until("it is told", func() bool { code, _ := get(address, "/healthz"); return code == http.StatusOK })
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, e := range l.seen {
				if g, shut := e.(events.GateShut); shut {
					t.Errorf("all was paused: %+v", g)
				}
			}
		})
	}
}

// An inbox that is missing at the start waits alone as well.
func TestInboxMissingAtStart(t *testing.T) {
	gone := inbox(t, "gone")
	l, in := newInboxes(t, func(c *config.Config) { c.Inboxes = append(c.Inboxes, gone) }, "here")
	drop(t, in[0].Path, "case-1", token("one"))
	l.until("done", func() bool { return len(l.names("done")) == 1 })
	l.until("told", func() bool { return l.trouble()["gone"] != "" })
	must(t, os.Mkdir(gone.Path, 0o700))
	drop(t, gone.Path, "case-2", token("two"))
	l.until("done", func() bool { return len(l.names("done")) == 2 })
}

// The folder of an inbox that a reload removes goes on in work. It is not
// requeued to where nobody looks, but where a person says.
func TestReloadRemovesInbox(t *testing.T) {
	l, in := newInboxes(t, func(c *config.Config) {
		c.Retry.First, c.Retry.Max = config.Duration(200*time.Millisecond), config.Duration(200*time.Millisecond)
	}, "branch-1", "branch-2")
	l.api.Script(token("case"), sandbox.Step{Status: 500}, sandbox.Step{Status: 500}, sandbox.Step{Status: 400, Identifier: "BAD_VALUE", Message: "no"})
	drop(t, in[0].Path, "case", token("case"))
	l.until("in work", func() bool { return len(l.names("work")) == 1 })
	must(t, l.reload(func(c *config.Config) { c.Inboxes = in[1:] }, nil))
	drop(t, in[0].Path, "late", token("late"))
	l.until("it ended", func() bool { return len(l.names("failed")) == 1 })
	if r := l.result("failed", "case"); r.Inbox != "branch-1" || r.Outcome != sidecar.Rejected {
		t.Errorf("%+v", r)
	}
	l.api.Forgive(token("case"))
	requeue := func(into string) control.Decided {
		list, err := l.client().Decide(t.Context(), control.Decision{Names: []string{"case"}, Action: sidecar.Requeued, Inbox: into, By: control.Self()})
		must(t, err)
		return list[0]
	}
	if d := requeue(""); !strings.Contains(d.Err, "branch-1") || !strings.Contains(d.Err, "--inbox") || !strings.Contains(d.Err, "branch-2") {
		t.Errorf("%+v", d)
	}
	if d := requeue("branch-3"); !strings.Contains(d.Err, "there is no inbox branch-3") {
		t.Errorf("%+v", d)
	}
	if d := requeue("branch-2"); d.Err != "" || d.Place != "inbox/branch-2" {
		t.Errorf("%+v", d)
	}
	l.until("done", func() bool { return len(l.names("done")) == 1 })
	if r := l.result("done", "case"); r.Inbox != "branch-2" {
		t.Errorf("%+v", r)
	}
	if _, err := os.Lstat(filepath.Join(in[0].Path, "late")); err != nil {
		t.Errorf("what lies in the one that was removed: %v", err)
	}
	must(t, l.reload(func(c *config.Config) { c.Inboxes = in }, nil))
	l.until("it is taken again", func() bool { return len(l.names("done")) == 2 })
}

// A folder goes back to the inbox that it came from.
func TestRequeueWhereItCameFrom(t *testing.T) {
	l, in := newInboxes(t, nil, "branch-1", "branch-2")
	for _, i := range in {
		l.api.Script(token(i.Name), sandbox.Step{Status: 400, Identifier: "BAD_VALUE", Message: "no"})
		drop(t, i.Path, "case", token(i.Name))
	}
	l.until("failed", func() bool { return len(l.names("failed")) == 2 })
	for _, i := range in {
		l.api.Forgive(token(i.Name))
	}
	for _, name := range l.names("failed") {
		want := "inbox/" + l.result("failed", name).Inbox
		list, err := l.client().Decide(t.Context(), control.Decision{Names: []string{name}, Action: sidecar.Requeued, By: control.Self()})
		if must(t, err); list[0].Err != "" || string(list[0].Place) != want {
			t.Errorf("%s: %+v, want %s", name, list[0], want)
		}
	}
	l.until("done", func() bool { return len(l.names("done")) == 2 })
}

// A reload renames an inbox, has two change places, and refuses what can't be
// had as a whole.
func TestReloadChangesInboxes(t *testing.T) {
	l, in := newInboxes(t, nil, "branch-1", "branch-2")
	n := 0
	through := func(path, name string) {
		t.Helper()
		n++
		folder := fmt.Sprintf("case-%d", n)
		drop(t, path, folder, token(folder))
		l.until(folder+" is done", func() bool { return len(l.names("done")) == n })
		if r := l.result("done", folder); r.Inbox != name {
			t.Errorf("%s came from %s, want %s", folder, r.Inbox, name)
		}
	}
	through(in[0].Path, "branch-1")
	must(t, l.reload(func(c *config.Config) {
		c.Inboxes = []config.Inbox{{Name: "branch-1", Path: in[1].Path}, {Name: "branch-2", Path: in[0].Path}}
	}, nil))
	through(in[0].Path, "branch-2")
	through(in[1].Path, "branch-1")
	must(t, l.reload(func(c *config.Config) { c.Inboxes = []config.Inbox{{Name: "third", Path: in[0].Path}, in[1]} }, nil))
	through(in[0].Path, "third")

	other, err := os.MkdirTemp("/dev/shm", "idenfy-batch-test-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(other) })
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, bad := range []string{"/nowhere/at/all", other, file} {
		err := l.reload(func(c *config.Config) {
			c.Concurrency = 1
			c.Inboxes = []config.Inbox{{Name: "branch-1", Path: in[0].Path}, {Name: "bad", Path: bad}}
		}, nil)
		if err == nil || !strings.Contains(err.Error(), "inbox/bad") {
			t.Errorf("%s: %v", bad, err)
		}
		through(in[0].Path, "third") // all is as it was
		through(in[1].Path, "branch-2")
	}
	// From the one below the root to others, and back.
	must(t, l.reload(func(c *config.Config) { c.Inboxes = nil }, nil))
	through(filepath.Join(l.root, "inbox"), "inbox")
	must(t, l.reload(func(c *config.Config) { c.Inboxes = in }, nil))
	through(in[1].Path, "branch-2")
	if wrong := l.trouble(); len(wrong) > 0 {
		t.Errorf("%v", wrong)
	}
}

// 200 reloads that remove inboxes, rename them, bring them back and have them
// change places, while folders come in through all of them: none is lost, none
// is sent twice, and nothing is paused.
func TestReloadInboxesOften(t *testing.T) {
	const reloads, folders = 200, 30
	l, in := newInboxes(t, func(c *config.Config) { c.Log.Level = "error" }, "one", "two", "three")
	var group sync.WaitGroup
	for _, i := range in {
		group.Go(func() {
			for n := range folders {
				drop(t, i.Path, fmt.Sprintf("case-%d", n), token(fmt.Sprintf("%s-%d", i.Name, n)))
				time.Sleep(30 * time.Millisecond)
			}
		})
	}
	swapped := func(a, b int) []config.Inbox {
		list := slices.Clone(in)
		list[a].Path, list[b].Path = list[b].Path, list[a].Path
		return list
	}
	for n := range reloads {
		next := [][]config.Inbox{in, in[:2], in[1:], swapped(0, 1), {{Name: "four", Path: in[2].Path}, in[0]}, swapped(1, 2), in[:1]}[n%7]
		must(t, l.reload(func(c *config.Config) { c.Inboxes = next }, nil))
		if n%10 == 0 {
			bad := append(slices.Clone(in), config.Inbox{Name: "bad", Path: "/nowhere/at/all"})
			if err := l.reload(func(c *config.Config) { c.Inboxes = bad }, nil); err == nil {
				t.Fatal("one that is not there was taken")
			}
		}
	}
	must(t, l.reload(func(c *config.Config) { c.Inboxes = in }, nil))
	group.Wait()
	l.until("all are done", func() bool { return len(l.names("done")) == len(in)*folders })
	r := l.api.Report()
	if r.Requests != len(in)*folders || r.Processed != len(in)*folders {
		t.Errorf("%d requests, %d processed", r.Requests, r.Processed)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.seen {
		switch e := e.(type) {
		case events.GateShut, events.FolderStuck, events.Vanished:
			t.Errorf("%T %+v", e, e)
		}
	}
}

// Folders that somebody moves from one inbox to another and back while they are
// watched, and taken, end once each, as of the inbox that they were taken from.
func TestMovedBetweenInboxes(t *testing.T) {
	const folders = 20
	l, in := newInboxes(t, func(c *config.Config) { c.Completeness.Settle = config.Duration(100 * time.Millisecond) }, "one", "two")
	var group sync.WaitGroup
	for n := range folders {
		name := fmt.Sprintf("case-%d", n)
		drop(t, in[n%2].Path, name, token(name))
		group.Go(func() { // until it is gone
			for from, to := in[n%2].Path, in[1-n%2].Path; os.Rename(filepath.Join(from, name), filepath.Join(to, name)) == nil; from, to = to, from {
				time.Sleep(time.Duration(n) * time.Millisecond)
			}
		})
	}
	l.until("all are done", func() bool { return len(l.names("done")) == folders })
	group.Wait()
	if r := l.api.Report(); r.Requests != folders || r.Processed != folders {
		t.Errorf("%d requests, %d processed", r.Requests, r.Processed)
	}
	took := map[string]string{}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.seen {
		switch e := e.(type) {
		case events.GateShut, events.InboxTrouble, events.Vanished:
			if trouble, ok := e.(events.InboxTrouble); !ok || trouble.Err != nil {
				t.Errorf("%T %+v", e, e)
			}
		case events.Ended:
			took[e.Result.Folder] = e.Result.Inbox
		}
	}
	for name, inbox := range took {
		if inbox != "one" && inbox != "two" {
			t.Errorf("%s came from %q", name, inbox)
		}
	}
}

// What was wrong with an inbox is not said of the directory that a reload puts in
// its place.
func TestReloadMendsInbox(t *testing.T) {
	l, in := newInboxes(t, nil, "branch-1", "branch-2")
	must(t, os.Remove(in[0].Path))
	l.until("told", func() bool { return l.trouble()["branch-1"] != "" })
	other := t.TempDir()
	must(t, l.reload(func(c *config.Config) { c.Inboxes = []config.Inbox{{Name: "branch-1", Path: other}, in[1]} }, nil))
	drop(t, other, "case", token("case"))
	l.until("done", func() bool { return len(l.names("done")) == 1 })
	if wrong := l.trouble(); len(wrong) > 0 {
		t.Errorf("%v", wrong)
	}
}
