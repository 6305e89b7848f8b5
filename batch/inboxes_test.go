package batch_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

const branch spool.Place = "inbox/branch-1"

// withBranch makes the spool one with a second inbox, and returns that.
func (b *bench) withBranch() (dir string) {
	b.t.Helper()
	dir = filepath.Join(filepath.Dir(b.spool.Path(spool.Work)), "branch-1")
	must(b.t, os.Mkdir(dir, 0o770))
	paths := maps.Clone(b.spool.Paths())
	paths[branch] = dir
	b.spool.SetInboxes(paths)
	return dir
}

// putAt makes a whole folder in a directory, and returns what its watcher would
// hand on.
func (b *bench) putAt(inbox, dir, name string) drop.Arrival {
	b.t.Helper()
	must(b.t, sample.Write(filepath.Join(dir, name), map[string][]byte{"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face, "meta.yaml": []byte(text(name))}))
	parent, err := os.OpenRoot(dir)
	must(b.t, err)
	defer parent.Close()
	root, err := drop.Open(parent, name)
	must(b.t, err)
	defer root.Close()
	l, err := meta.List(root, limits)
	must(b.t, err)
	return drop.Arrival{Inbox: inbox, Dir: dir, Name: name, Content: l.Content, FirstSeen: time.Now(), Complete: time.Now()}
}

func (b *bench) lies(path ...string) bool {
	_, err := os.Lstat(filepath.Join(path...))
	return err == nil
}

// A folder of each inbox is taken from there, and one that changed goes back
// there; one that was handed on where the inbox was before is left alone.
func TestEachToItsInbox(t *testing.T) {
	b := newBench(t)
	dir := b.withBranch()
	b.start()
	b.in <- b.putAt("branch-1", dir, "good")
	if got := <-b.ev.ended; got != "good accepted done/good" {
		t.Error(got)
	}
	root, err := os.OpenRoot(filepath.Join(b.spool.Path(spool.Done), "good"))
	must(t, err)
	defer root.Close()
	if r, err := sidecar.Read(root); err != nil || r.Inbox != "branch-1" {
		t.Errorf("%+v, %v", r, err)
	}
	changed := b.putAt("branch-1", dir, "changed")
	changed.Content++
	b.in <- changed
	b.until("released changed: it changed before the claim")
	if !b.lies(dir, "changed") {
		t.Error("it did not go back where it came from")
	}
	moved := b.putAt("branch-1", dir, "moved")
	moved.Dir, moved.Changing, moved.Expired = dir+".before", ".", true // which would be taken whatever it holds
	b.in <- moved
	b.in <- b.arrivalOf("other")
	<-b.ev.ended
	if !b.lies(dir, "moved") || b.ev.has("claimed moved") {
		t.Error("one that was handed on from elsewhere was taken")
	}
}

// arrivalOf makes a whole folder in the first inbox.
func (b *bench) arrivalOf(name string) drop.Arrival {
	return b.putAt("inbox", b.spool.Path(spool.Inbox), name)
}

// An inbox that lies on another mount by now holds up itself, and neither the
// disk's gate nor a folder in it is at fault.
func TestInboxOnAnotherMount(t *testing.T) {
	b := newBench(t)
	dir := b.withBranch()
	other := t.TempDir()
	a, err := os.Stat(other)
	must(t, err)
	if here, err := os.Stat(dir); err != nil || device(a) == device(here) {
		t.Skip("there is no other mount")
	}
	must(t, os.Remove(dir))
	must(t, os.Symlink(other, dir))
	b.start()
	b.in <- b.putAt("branch-1", dir, "there")
	b.until("claim failed there")
	b.in <- b.arrivalOf("here")
	if got := <-b.ev.ended; got != "here accepted done/here" {
		t.Error(got)
	}
	if b.ev.has("shut") || b.ev.has("stuck") || !b.lies(dir, "there") {
		t.Errorf("%v", b.ev.list)
	}
}

// What can't go back, since its inbox isn't one any more, waits in work by itself
// and says so, until it can.
func TestInboxGoneFromConfiguration(t *testing.T) {
	b := newBench(t)
	b.cfg.DiskRetry = 50 * time.Millisecond
	dir := b.withBranch()
	with := b.spool.Paths()
	without := maps.Clone(with)
	delete(without, branch)
	must(t, os.RemoveAll(filepath.Join(dir, "case")))
	b.putAt("branch-1", dir, "case")
	id := spool.NewID()
	j, err := journal.Open(b.where)
	must(t, err)
	must(t, j.Claim(id, "branch-1", "case"))
	_, err = with.Claim(branch, "case", id) // and there it ended
	must(t, err)
	must(t, j.Close())
	b.spool.SetInboxes(without)
	b.start()
	b.until("stuck case in work: it can't go back to the inbox that it came from (branch-1;")
	if b.ev.has("shut") {
		t.Error("all is paused")
	}
	b.ev.mu.Lock()
	told := strings.Join(b.ev.list, "\n")
	b.ev.mu.Unlock()
	if !strings.Contains(told, "put that inbox back into inboxes: in the configuration") {
		t.Errorf("no mend in:\n%s", told)
	}
	b.in <- b.arrivalOf("other")
	if got := <-b.ev.ended; got != "other accepted done/other" {
		t.Error(got)
	}
	b.spool.SetInboxes(with)
	b.until("released case")
	if !b.lies(dir, "case") {
		t.Error("it is not where it came from")
	}
}

func device(info os.FileInfo) uint64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Dev
}
