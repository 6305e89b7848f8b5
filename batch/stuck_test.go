package batch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/spool"
)

// openSpool opens a spool of its own for a test.
func openSpool(t *testing.T) *spool.Spool {
	t.Helper()
	paths := spool.Paths{}
	root := t.TempDir()
	for _, p := range spool.Places() {
		paths[p] = filepath.Join(root, string(p))
	}
	s, err := spool.Open(paths)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// A folder that is stuck is told of once, however often it is tried, and again
// when it is stuck otherwise, goes on, or is gone.
func TestStuckOnce(t *testing.T) {
	s := openSpool(t)
	var told []string
	b := &Batch{spool: s, stuck: map[stuckKey]events.FolderStuck{}, emit: func(e events.Event) {
		switch e := e.(type) {
		case events.FolderStuck:
			told = append(told, "stuck "+string(e.Place)+" "+e.Reason+" "+e.Since.Format(time.TimeOnly))
		case events.FolderFreed:
			told = append(told, "freed "+string(e.Place))
		}
	}}
	if err := os.Mkdir(filepath.Join(s.Paths()[spool.Inbox], "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	arrival := task{id: "1", arrival: &drop.Arrival{Name: "x"}}
	at := func(p spool.Place, reason string) events.FolderStuck {
		return events.FolderStuck{Place: p, Folder: "x", Reason: reason}
	}
	for i, step := range []struct {
		e    end
		want []string
	}{
		{end{task: arrival}, nil},
		{end{task: arrival, stuck: at(spool.Inbox, "a")}, []string{"stuck inbox a 12:00:01"}},
		{end{task: arrival, stuck: at(spool.Inbox, "a")}, nil},
		{end{task: arrival, fault: fault{owner: disk}}, nil},
		{end{task: task{id: "2", work: "x.2"}}, nil}, // another of that name
		{end{task: arrival, stuck: at(spool.Inbox, "b")}, []string{"freed inbox", "stuck inbox b 12:00:01"}},
		{end{task: arrival, stuck: at(spool.Work, "c")}, []string{"stuck work c 12:00:06", "freed inbox"}},
		{end{task: task{id: "1", work: "x.1"}, stuck: at(spool.Work, "c")}, nil},
		{end{task: task{id: "1", work: "x.1"}}, []string{"freed work"}},
		{end{task: arrival, stuck: at(spool.Inbox, "a")}, []string{"stuck inbox a 12:00:09"}},
	} {
		told = nil
		b.noteStuck(&step.e, now.Add(time.Duration(i)*time.Second))
		if !slices.Equal(told, step.want) {
			t.Errorf("step %d: %q, want %q", i, told, step.want)
		}
	}
	told = nil
	b.freeGone(now)
	if len(told) > 0 {
		t.Errorf("it is there: %q", told)
	}
	if err := os.Remove(filepath.Join(s.Paths()[spool.Inbox], "x")); err != nil {
		t.Fatal(err)
	}
	if b.freeGone(now.Add(time.Second)); len(told) > 0 {
		t.Error("looked for too often")
	}
	if b.freeGone(now.Add(time.Minute)); !slices.Equal(told, []string{"freed inbox"}) || len(b.stuck) > 0 {
		t.Errorf("it is gone: %q, %v", told, b.stuck)
	}
}

// A folder that is stuck in work is tried ever more seldom, and at once after a
// reload.
func TestStuckRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Batch{}
		v := &visit{b: b, set: &Settings{}, name: "x", task: task{id: "1", work: "x.1"}}
		var waits []time.Duration
		for range 50 {
			e := v.later("a lease", syscall.EAGAIN)
			waits = append(waits, time.Until(e.again.due))
			v.task = *e.again
		}
		want := []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute}
		if !slices.Equal(waits[:len(want)], want) || waits[49] != 5*time.Minute {
			t.Errorf("it waits %v, want %v", waits, want)
		}
		b.queue.waiting = []task{v.task, {id: "2", due: time.Now().Add(time.Hour)}}
		b.hasten()
		if w := b.queue.waiting; time.Until(w[0].due) != 0 || time.Until(w[1].due) != time.Hour {
			t.Errorf("after a reload: %v, %v", time.Until(w[0].due), time.Until(w[1].due))
		}
		if again := v.come(time.Now()); again.stuck != 0 {
			t.Error("it is stuck no longer, and counts on")
		}
	})
}

func TestMendOf(t *testing.T) {
	for err, want := range map[error]string{
		syscall.EPERM: "chattr", syscall.EACCES: "chmod", syscall.EBUSY: "umount", syscall.EISDIR: "take that out",
		drop.ErrBusy: "lease", errors.New("another"): "idenfy-batch show",
	} {
		if got := mendOf(&fs.PathError{Op: "open", Path: "PRIVATE", Err: err}); !strings.Contains(got, want) || strings.Contains(got, "PRIVATE") {
			t.Errorf("%v: %s, want %q", err, got, want)
		}
	}
}
