package test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// accept has folders accepted, and returns when all lie in done.
func (l *lab) accept(names ...string) {
	l.t.Helper()
	for _, name := range names {
		f := small(name)
		f["note.txt"], f[".ready"] = []byte("of a person"), nil
		l.put(name, f)
	}
	l.until("all are accepted", func() bool {
		for _, name := range names {
			if _, err := l.tryResult(spool.Done, name); err != nil {
				return false
			}
		}
		return true
	})
	l.untilAll("all are noted as filed", func(s *journal.Standing) bool { return s.State == journal.Filed || s.Folder == "" })
}

// purging returns what is wrong with the purges of folders in done: something is
// gone without a record in the journal, the ledger and result.json; or, where it
// is settled, something is on record as deleted, and there.
func (l *lab) purging(names []string, settled bool) (wrong []string) {
	l.t.Helper()
	j, err := journal.Open(journal.Where{Dir: l.path("journal"), Mark: l.path("work")})
	must(l.t, err)
	defer func() { must(l.t, j.Close()) }()
	for _, name := range names {
		bad := func(format string, args ...any) { wrong = append(wrong, name+": "+fmt.Sprintf(format, args...)) }
		r, err := l.tryResult(spool.Done, name)
		if err != nil {
			bad("without a result: %v", err)
			continue
		}
		life, err := j.Load(l.t.Context(), r.ID)
		must(l.t, err)
		rows, err := j.Reader().Entries(l.t.Context(), journal.Entries{Life: r.ID, Most: 10})
		must(l.t, err)
		entered := slices.ContainsFunc(rows, func(e journal.Row) bool { return strings.Contains(e.Line, `"kind":"purged"`) })
		known, said := deletedOf(life.Result), deletedOf(r)
		gone := 0
		for _, file := range []string{"FRONT.png", "FACE.png", "meta.yaml", "note.txt"} {
			_, err := os.Lstat(l.path("done", name, file))
			there := err == nil
			if !there {
				gone++
			}
			if !there && (!known[file] || !said[file] || !entered) {
				bad("%s is gone; journal %v, result %v, ledger %v", file, known[file], said[file], entered)
			}
			if settled && there && (known[file] || said[file]) {
				bad("%s is recorded as deleted, and there", file)
			}
		}
		if settled && gone != 0 && gone != 4 {
			bad("%d of 4 files are gone", gone)
		}
		if settled && entered != (gone == 4) {
			bad("%d are gone, ledger %v", gone, entered)
		}
	}
	return wrong
}

func deletedOf(r *sidecar.Result) map[string]bool {
	all := map[string]bool{}
	for _, p := range r.Purges {
		for _, d := range p.Files {
			all[d.File] = true
		}
	}
	return all
}

func numbered(prefix string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s%d", prefix, i))
	}
	return names
}

// Beside a working daemon it is the daemon that purges: by the kernel's word of
// who asks, once, however many ask, while it takes folders.
func TestPurgeBeside(t *testing.T) {
	t.Parallel()
	l := newLab(t, "completeness: {settle: 100ms, rescan: 100ms}", "retention: {done: 1825d}")
	l.inboxReady()
	l.start()
	names := numbered("p", 6)
	refs := map[string]string{}
	for _, name := range names[:2] {
		refs[name] = sandbox.NewScanRef()
		l.api.Issue(token(name), refs[name])
	}
	for _, name := range names[:2] {
		f := small(name)
		f["meta.yaml"] = append(f["meta.yaml"], "scanRef: "+refs[name]+"\n"...)
		f["note.txt"], f[".ready"] = nil, nil
		l.put(name, f)
	}
	l.accept(names[2:]...)
	l.until("those with a scanRef too", func() bool { return l.place(names[0]) == spool.Done && l.place(names[1]) == spool.Done })
	l.untilAll("they are noted as filed", func(s *journal.Standing) bool { return s.State == journal.Filed || s.Folder == "" })
	if code, out := l.output("purge", "--yes"); code != 0 || !strings.Contains(out, "nothing was deleted") {
		t.Errorf("young ones: %d, %s", code, out)
	}
	list := filepath.Join(t.TempDir(), "list")
	must(t, os.WriteFile(list, []byte(strings.Join(names, "\n")), 0o600))
	if code, out := l.output("purge", "--list", list); code != 0 || !strings.Contains(out, "of 6 folders") {
		t.Errorf("a look: %d, %s", code, out)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if out, err := l.command("purge", "--list", list, "--yes").CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	more := numbered("q", 4)
	l.accept(more...)
	all.Wait()
	for _, name := range names {
		r := l.result(spool.Done, name)
		if len(r.Purges) != 1 || r.Purges[0].By == nil || int(r.Purges[0].By.UID) != os.Getuid() {
			t.Errorf("%s: %+v", name, r.Purges)
		}
	}
	l.api.ScriptDeletions(sandbox.Step{Status: 400, Identifier: "PARTNER_ERROR", Message: "Token has not expired yet."})
	if code, out := l.output("purge", "--list", list, "--yes", "--remote"); code != exitsFailed || !strings.Contains(out, "asked to delete 2 sessions, and deleted 1") || !strings.Contains(out, "PARTNER_ERROR") {
		t.Errorf("remote: %d, %s", code, out)
	}
	if _, out := l.output("purge", "--list", list, "--yes", "--remote"); !strings.Contains(out, "asked to delete 1 sessions, and deleted 1") {
		t.Errorf("remote, again: %s", out)
	}
	if n := l.api.Report().Deleted; n != 2 {
		t.Errorf("%d sessions were deleted", n)
	}
	if found := l.altered(); len(found) > 0 {
		t.Errorf("verify: %v", found)
	}
	if log := l.logged(); strings.Contains(log, "FRONT") || strings.Count(log, "were deleted; the results stay") != 6 {
		t.Errorf("%d purges are in the log", strings.Count(log, "were deleted; the results stay"))
	}
	must(t, l.stop())
	if wrong := l.purging(names, true); len(wrong) > 0 {
		t.Errorf("%q", wrong)
	}
	if wrong := l.purging(more, true); len(wrong) > 0 || len(l.names(spool.Done)) != 10 {
		t.Errorf("the others: %q", wrong)
	}
}

// purgeUntil has a purge of all that lies in done begin, and ends it at a random
// instant by stop.
func (l *lab) purgeUntil(list string, names []string, stop func()) {
	l.t.Helper()
	must(l.t, os.WriteFile(list, []byte(strings.Join(names, "\n")), 0o600))
	cmd := l.command("purge", "--list", list, "--yes")
	must(l.t, cmd.Start())
	time.Sleep(time.Duration(rand.Int64N(int64(150 * time.Millisecond))))
	stop()
	_ = cmd.Process.Kill()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		l.t.Fatal(err)
	}
}

// The daemon is killed while it purges: the next start finishes what was begun,
// and nothing is gone without a record, at no instant.
func TestKillPurge(t *testing.T) {
	t.Parallel()
	l := newLab(t, "completeness: {settle: 100ms, rescan: 100ms}")
	l.inboxReady()
	list := filepath.Join(t.TempDir(), "list")
	var all []string
	kills := 6
	if inLab {
		kills = 40
	}
	l.start()
	for n := range kills {
		names := numbered(fmt.Sprintf("k%d-", n), 8)
		all = append(all, names...)
		l.accept(names...)
		l.purgeUntil(list, names, l.kill)
		if wrong := l.purging(all, false); len(wrong) > 0 {
			t.Fatalf("after kill %d: %q", n+1, wrong)
		}
		l.start()
	}
	l.settled()
	purged := l.purgedOf(all)
	t.Logf("%d kills in purges, %d of %d folders purged: 0 deleted without a record, 0 records of what is there", kills, purged, len(all))
}

// settled waits until what was cut off is finished.
func (l *lab) settled() {
	l.t.Helper()
	l.untilAll("what was cut off is finished", func(s *journal.Standing) bool { return !s.Purging })
}

// untilAll waits until all lives in the journal are so.
func (l *lab) untilAll(what string, so func(*journal.Standing) bool) {
	l.t.Helper()
	where := journal.Where{Dir: l.path("journal"), Mark: l.path("work")}
	l.until(what, func() bool {
		r, err := journal.OpenReader(l.t.Context(), where)
		if err != nil {
			return false
		}
		defer r.Close()
		for after := ""; ; {
			lives, err := r.Lives(l.t.Context(), journal.Lives{After: after, Most: journal.MostEntries})
			if err != nil || slices.ContainsFunc(lives, func(s journal.Standing) bool { return !so(&s) }) {
				return false
			}
			if len(lives) < journal.MostEntries {
				return true
			}
			after = lives[len(lives)-1].ID
		}
	})
}

// purgedOf stops the daemon, holds what was purged against what is on record, and
// counts it.
func (l *lab) purgedOf(names []string) (purged int) {
	l.t.Helper()
	must(l.t, l.stop())
	if wrong := l.purging(names, true); len(wrong) > 0 {
		l.t.Fatalf("at the end: %q", wrong)
	}
	if found := l.altered(); len(found) > 0 {
		l.t.Errorf("verify: %v", found)
	}
	for _, name := range names {
		if _, err := os.Lstat(l.path("done", name, "FRONT.png")); errors.Is(err, fs.ErrNotExist) {
			purged++
		}
	}
	return purged
}

// The power is cut while the daemon purges.
func TestLabCutsPurge(t *testing.T) {
	needsLab(t)
	t.Parallel()
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d := newDisk(t, kind, 512)
			l := newLabIn(t, d.dir, "completeness: {settle: 100ms, rescan: 100ms}")
			l.inboxReady()
			list := filepath.Join(t.TempDir(), "list")
			var all []string
			l.start()
			rounds := max(*cuts/10, 10)
			for n := range rounds {
				names := numbered(fmt.Sprintf("c%d-", n), 6)
				all = append(all, names...)
				l.accept(names...)
				d.sync()
				l.purgeUntil(list, names, func() { d.cut(); l.kill() })
				d.unmount()
				d.mount()
				if wrong := l.purging(all, false); len(wrong) > 0 {
					t.Fatalf("after cut %d: %q", n+1, wrong)
				}
				l.start()
				l.settled()
			}
			purged := l.purgedOf(all)
			t.Logf("power cuts in purges on %s: %d cuts, %d of %d folders purged, 0 deleted without a record, 0 records of what is there", kind, rounds, purged, len(all))
		})
	}
}

// What can't be removed leaves its folder whole, is told, keeps nobody else, and
// is tried again; and the others go.
func TestLabPurgeObstacles(t *testing.T) {
	needsLab(t)
	t.Parallel()
	d := newDisk(t, "ext4", 256)
	l := newLabIn(t, d.dir, "completeness: {settle: 100ms, rescan: 100ms}")
	l.inboxReady()
	l.start()
	names := []string{"file", "append", "dir", "below", "mounted", "good"}
	l.accept(names...)
	must(t, os.Mkdir(l.path("done", "below", "more"), 0o750))
	must(t, os.WriteFile(l.path("done", "below", "more", "x"), nil, 0o600))
	must(t, os.Mkdir(l.path("done", "mounted", "more"), 0o750))
	must(t, unix.Mount("tmpfs", l.path("done", "mounted", "more"), "tmpfs", 0, ""))
	chattr := func(how string) {
		d.command("chattr", how+"i", l.path("done", "file", "FRONT.png"))
		d.command("chattr", how+"a", l.path("done", "append", "FACE.png"))
		d.command("chattr", how+"i", l.path("done", "dir"))
		d.command("chattr", how+"i", l.path("done", "below", "more"))
	}
	chattr("+")
	mended := sync.OnceFunc(func() {
		chattr("-")
		must(t, unix.Unmount(l.path("done", "mounted", "more"), 0))
	})
	defer mended()
	list := filepath.Join(t.TempDir(), "list")
	must(t, os.WriteFile(list, []byte(strings.Join(names, "\n")), 0o600))
	code, out := l.output("purge", "--list", list, "--yes")
	if code != exitsFailed || !strings.Contains(out, "of 1 folders") || strings.Count(out, "✗ done/") != 5 {
		t.Errorf("%d, %s", code, out)
	}
	for _, name := range names[:5] {
		if r := l.result(spool.Done, name); len(r.Purges) > 0 {
			t.Errorf("%s: %+v", name, r.Purges)
		}
		if _, err := os.Lstat(l.path("done", name, "meta.yaml")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	mended()
	if code, out := l.output("purge", "--list", list, "--yes"); code != 0 || !strings.Contains(out, "of 5 folders") {
		t.Errorf("mended: %d, %s", code, out)
	}
	must(t, l.stop())
	if wrong := l.purging(names, true); len(wrong) > 0 {
		t.Errorf("%q", wrong)
	}
}

// Root purges as the daemon's user where no daemon runs, and nobody else may.
func TestLabPurgeAlone(t *testing.T) {
	needsLab(t)
	t.Parallel()
	const uid, other = 64123, 64124
	l := newLab(t, "completeness: {settle: 100ms, rescan: 100ms}")
	dir := t.TempDir()
	for _, path := range []string{l.root, dir, filepath.Dir(l.config)} { // below a folder of the test's that only root enters
		must(t, os.Chmod(filepath.Dir(path), 0o755))
		must(t, os.Chmod(path, 0o755))
	}
	must(t, os.Chown(l.root, uid, uid))
	must(t, os.Chmod(l.config, 0o644))
	l.credential = &syscall.Credential{Uid: uid, Gid: uid}
	l.rights = []uintptr{unix.CAP_CHOWN, unix.CAP_FOWNER, unix.CAP_LEASE}
	l.start()
	l.until("the inbox is there", func() bool { _, err := os.Stat(l.path("inbox")); return err == nil })
	for _, name := range []string{"a", "b"} {
		must(t, sample.Write(filepath.Join(l.root, "."+name), small(name)))
		must(t, filepath.Walk(filepath.Join(l.root, "."+name), func(path string, _ os.FileInfo, err error) error {
			return errors.Join(err, os.Chown(path, uid, uid), os.Chmod(path, 0o770))
		}))
		must(t, os.Rename(filepath.Join(l.root, "."+name), l.path("inbox", name)))
	}
	l.until("both are accepted", func() bool { return len(l.names(spool.Done)) == 2 })
	l.untilAll("both are noted as filed", func(s *journal.Standing) bool { return s.State == journal.Filed || s.Folder == "" })
	l.rights = nil
	for _, running := range []bool{true, false} {
		if !running {
			must(t, l.stop())
		}
		l.credential = &syscall.Credential{Uid: other, Gid: other}
		list := filepath.Join(dir, "list")
		must(t, os.WriteFile(list, []byte(map[bool]string{true: "a", false: "b"}[running]), 0o644))
		if code, out := l.output("purge", "--list", list, "--yes"); code != exitsFailed {
			t.Errorf("somebody else, running %v: %d, %s", running, code, out)
		}
		l.credential = nil // root
		if code, out := l.output("purge", "--list", list, "--yes"); code != 0 || !strings.Contains(out, "of 1 folders") {
			t.Errorf("root, running %v: %d, %s", running, code, out)
		}
	}
	for _, name := range []string{"a", "b"} {
		r := l.result(spool.Done, name)
		if len(r.Purges) != 1 || r.Purges[0].By.UID != 0 {
			t.Errorf("%s: %+v", name, r.Purges)
		}
		info, err := os.Stat(l.path("done", name, sidecar.Name))
		must(t, err)
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != uid {
			t.Errorf("%s is %d's", name, st.Uid)
		}
	}
}
