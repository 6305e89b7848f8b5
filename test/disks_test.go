package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/spool"
)

// tmpfs mounts one with options, and returns where.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, options))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // it may be gone
	return dir
}

// fill writes to a file until the file system is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 16
		}
	}
}

// The disk fails while folders wait to be taken: submission pauses, says so,
// loses nothing, and goes on by itself once the disk is mended.
func TestLabDisks(t *testing.T) {
	needsLab(t)
	t.Parallel()
	type trouble struct {
		mount  func(t *testing.T) string // where the spool is to be
		spoil  func(t *testing.T, l *lab)
		mend   func(t *testing.T, l *lab)
		reason string // of the pause, a regular expression
	}
	inject := func(what string) (spoil, mend func(t *testing.T, l *lab)) {
		var attached *exec.Cmd
		spoil = func(t *testing.T, l *lab) {
			t.Helper()
			attached = exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject="+what, "-p", fmt.Sprint(l.cmd.Process.Pid))
			must(t, attached.Start())
			l.until("strace is attached", func() bool {
				status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.cmd.Process.Pid))
				return err == nil && !strings.Contains(string(status), "TracerPid:\t0\n")
			})
		}
		mend = func(t *testing.T, _ *lab) {
			t.Helper()
			must(t, attached.Process.Signal(unix.SIGINT)) // it detaches
			_ = attached.Wait()                           // with the signal
		}
		return spoil, mend
	}
	ballast := func(_ *testing.T, l *lab) string { return l.path("ballast") }
	dir := func(t *testing.T) string { return t.TempDir() }
	ioSpoil, ioMend := inject("fsync:error=EIO")
	noSpoil, noMend := inject("fsync:error=ENOSPC")
	mvSpoil, mvMend := inject("renameat2:error=EIO")
	roSpoil, roMend := inject("pwrite64,renameat,renameat2,mkdirat,unlinkat,fchmod:error=EROFS")
	wrSpoil, wrMend := inject("renameat,fchmod:error=EDQUOT")
	for name, tr := range map[string]trouble{
		"no space": {
			mount:  func(t *testing.T) string { return tmpfs(t, "size=4m") },
			spoil:  func(t *testing.T, l *lab) { fill(t, ballast(t, l)) },
			mend:   func(t *testing.T, l *lab) { must(t, os.Remove(ballast(t, l))) },
			reason: "the disk is full",
		},
		"no inodes": {
			mount: func(t *testing.T) string { return tmpfs(t, "size=64m,nr_inodes=60") },
			spoil: func(t *testing.T, l *lab) {
				must(t, os.Mkdir(ballast(t, l), 0o700))
				for i := 0; os.WriteFile(filepath.Join(ballast(t, l), fmt.Sprint(i)), nil, 0o600) == nil; i++ {
				}
			},
			mend:   func(t *testing.T, l *lab) { must(t, os.RemoveAll(ballast(t, l))) },
			reason: "the disk is full",
		},
		"EIO at fsync":              {dir, ioSpoil, ioMend, "input/output error"},
		"ENOSPC at fsync":           {dir, noSpoil, noMend, "input/output error|the disk is full"}, // SQLite says no more of an fsync, if the journal meets it first
		"EIO at renameat2":          {dir, mvSpoil, mvMend, "input/output error"},
		"EDQUOT when it is renamed": {dir, wrSpoil, wrMend, "quota"},
		"read-only":                 {dir, roSpoil, roMend, "read-only"}, // a file system with an open journal can't be made so by mount(8), but by its own errors
		"another file system over done": {
			mount:  dir,
			spoil:  func(t *testing.T, l *lab) { must(t, unix.Mount("tmpfs", l.path("done"), "tmpfs", 0, "size=1m")) },
			mend:   func(t *testing.T, l *lab) { must(t, unix.Unmount(l.path("done"), 0)) },
			reason: "cross-device",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLabIn(t, tr.mount(t), "completeness: {settle: 2s, rescan: 200ms}")
			l.inboxReady()
			l.start()
			l.put("before", files("before"))
			l.until("the first is accepted", func() bool { return l.place("before") == spool.Done })
			const n = 4
			for i := range n {
				l.put(fmt.Sprint("case", i), files(fmt.Sprint("case", i)))
			}
			tr.spoil(t, l)
			l.until("submission is paused", func() bool { return strings.Contains(l.logged(), "submission is paused") })
			l.until("the reason is said", func() bool { return regexp.MustCompile(tr.reason).MatchString(l.logged()) })
			l.until("status tells it", func() bool {
				s := l.status()
				return s.Daemon != nil && slices.ContainsFunc(s.Daemon.Gates, func(g gate) bool { return g.Owner == "disk" && g.Mend != "" })
			})
			time.Sleep(2 * time.Second) // some tries in between
			for i := range n {
				if p := l.place(fmt.Sprint("case", i)); p != spool.Inbox && p != spool.Work && p != spool.Done {
					t.Errorf("case%d is in %s", i, p)
				}
			}
			tr.mend(t, l)
			l.until("all are accepted", func() bool { return len(l.names(spool.Done)) == n+1 })
			if r := l.api.Report(); r.Processed != n+1 || len(r.Violations) > 0 || r.Repeats > 0 {
				t.Errorf("the API saw %+v", r)
			}
			for i := range n {
				l.isWhole(fmt.Sprint("case", i))
			}
			must(t, l.stop())
			if !t.Failed() {
				t.Logf("disk, %s: paused, went on, 0 lost, 0 twice, 0 failed", name)
			}
		})
	}
}

// A disk that takes writes and loses them, and says so only at fsync: what
// could not be synced is not taken for done when a second try works, as a
// power cut shows.
func TestLabLyingSync(t *testing.T) {
	needsLab(t)
	back := tmpfs(t, "size=24m") // too small for the file system's promises
	d := &disk{t: t, image: filepath.Join(back, "image"), dir: filepath.Join(t.TempDir(), "mnt")}
	must(t, os.Mkdir(d.dir, 0o755))
	f, err := os.Create(d.image)
	must(t, err)
	must(t, f.Truncate(256<<20))
	must(t, f.Close())
	d.command("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,nodiscard", "-J", "size=4", d.image)
	d.mount()
	t.Cleanup(func() { _ = unix.Unmount(d.dir, unix.MNT_DETACH) }) // it may not be mounted
	l := newLabIn(t, d.dir, "completeness: {settle: 1s, rescan: 200ms}")
	l.inboxReady()
	l.start()
	l.put("before", files("before"))
	l.until("the first is accepted", func() bool { return l.place("before") == spool.Done })
	fill(t, filepath.Join(back, "ballast"))
	const n = 6
	for i := range n { // in memory; the disk has no room for them
		l.put(fmt.Sprint("case", i), files(fmt.Sprint("case", i)))
	}
	l.until("submission is paused", func() bool { return strings.Contains(l.logged(), "submission is paused") })
	must(t, os.Remove(filepath.Join(back, "ballast")))
	// The file system may have given up by now; then it takes a mount.
	time.Sleep(3 * time.Second)
	l.kill()
	d.unmount()
	d.mount()
	l.forgive()
	sent := 0
	for i := range n {
		name := fmt.Sprint("case", i)
		if l.api.Token(token(name)).Requests > 0 {
			sent++
			l.isWhole(name)
		}
	}
	l.start()
	for i := range n { // those that were lost on the way to the disk come again
		if name := fmt.Sprint("case", i); l.api.Token(token(name)).Requests == 0 {
			l.put(name, files(name))
		}
	}
	l.until("all are accepted", func() bool { return len(l.names(spool.Work))+len(l.names(spool.Inbox)) == 0 })
	for i := range n {
		l.isWhole(fmt.Sprint("case", i))
		if p := l.api.Token(token(fmt.Sprint("case", i))).Processed; p != 1 {
			t.Errorf("case%d was processed %d times", i, p)
		}
	}
	must(t, l.stop())
	if !t.Failed() {
		t.Logf("disk that fails at fsync only: %d of %d folders were sent, all that were are whole, 0 lost, 0 twice", sent, n)
	}
}

// A full disk at the start is no fault of the configuration: systemd is to try
// again.
func TestLabFullAtStart(t *testing.T) {
	needsLab(t)
	t.Parallel()
	l := newLabIn(t, tmpfs(t, "size=1m,nr_inodes=30"))
	must(t, os.Mkdir(l.path("ballast"), 0o700))
	for i := 0; os.WriteFile(l.path("ballast", fmt.Sprint(i)), nil, 0o600) == nil; i++ {
	}
	if code, out := l.output("run"); code != exitsFailed || !strings.Contains(out, "no space left") {
		t.Errorf("exit code %d: %s", code, out)
	}
	must(t, os.RemoveAll(l.path("ballast")))
	l.start()
	must(t, l.stop())
}
