package test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/spool"
)

// lab tests need root. Those that change what all on the machine share are
// called TestLabAlone…, and nothing else may run meanwhile; most of the others
// run at the same time.
func needsLab(t *testing.T) {
	t.Helper()
	if !inLab {
		t.Skip("set IDENFY_BATCH_LAB=1 to run it, as root")
	}
	if os.Getuid() != 0 {
		t.Fatal("the lab tests need root")
	}
}

// small is a whole folder of little size.
func small(name string) map[string][]byte {
	return map[string][]byte{"FRONT.png": tiny, "FACE.png": tiny, "meta.yaml": []byte(sample.Meta(token(name), "LT", "PASSPORT"))}
}

var tiny = sample.FacePNG()

// Folders as SFTP users leave them: what the daemon's user may not read or move
// stays, status names the mend, and once it is mended the folder goes on by
// itself.
func TestLabPermissions(t *testing.T) {
	needsLab(t)
	t.Parallel()
	const daemonUser, uploader, group = 65534, 4001, 4000
	port := freePort(t)
	l := newLab(t, "completeness: {settle: 200ms, rescan: 500ms}", "metrics: {listen: '127.0.0.1:"+port+"'}")
	l.metrics = "127.0.0.1:" + port
	l.credential = &syscall.Credential{Uid: daemonUser, Gid: daemonUser, Groups: []uint32{group}}
	for _, dir := range []string{l.root, filepath.Dir(l.config)} { // below a folder of the test's that only root enters
		must(t, os.Chmod(filepath.Dir(dir), 0o755))
		must(t, os.Chown(dir, daemonUser, daemonUser))
	}
	must(t, os.Chown(l.config, daemonUser, daemonUser))
	l.inboxReady()
	inbox := l.path("inbox")
	must(t, os.Chown(inbox, daemonUser, group))
	must(t, os.Chmod(inbox, os.ModeSetgid|0o770))
	put := func(name string, dir, file os.FileMode) {
		t.Helper()
		l.put(name, small(name))
		must(t, filepath.Walk(l.path("inbox", name), func(path string, info os.FileInfo, err error) error {
			mode := file
			if info.IsDir() {
				mode = dir
			}
			return errors.Join(err, os.Chown(path, uploader, group), os.Chmod(path, mode))
		}))
	}
	put("shared", os.ModeSetgid|0o770, 0o660)
	put("dir-0755", 0o755, 0o644)
	put("dir-0700", 0o700, 0o600)
	put("file-0600", os.ModeSetgid|0o770, 0o600)
	must(t, os.Chmod(l.path("inbox", "file-0600", "meta.yaml"), 0o640))
	l.start()
	l.until("the shared one ends", func() bool { return l.place("shared") == spool.Done })
	wants := map[string]string{
		"dir-0755":  "the daemon may not move it: fix with chmod g+rwx",
		"dir-0700":  "unreadable: fix with chmod g+rwx",
		"file-0600": "FRONT.png is unreadable for the daemon: fix with chmod g+r",
	}
	time.Sleep(2 * time.Second) // some rescans
	for _, command := range []string{"status", "check"} {
		out, _ := l.command(command).Output() // check exits 1
		for name, want := range wants {
			if p := l.place(name); p != spool.Inbox {
				t.Errorf("%s is in %s", name, p)
			}
			if !strings.Contains(string(out), want) || !strings.Contains(string(out), name) {
				t.Errorf("%s does not say %q of %s:\n%s", command, want, name, out)
			}
		}
	}
	if n := l.api.Report().Requests; n != 1 {
		t.Errorf("%d requests", n)
	}
	// The mends, as they are named.
	must(t, os.Chmod(l.path("inbox", "dir-0755"), 0o775))
	must(t, os.Chmod(l.path("inbox", "dir-0700"), 0o770))
	for _, name := range []string{"dir-0700", "file-0600"} {
		for _, file := range []string{"FRONT.png", "FACE.png", "meta.yaml"} {
			must(t, os.Chmod(l.path("inbox", name, file), 0o640))
		}
	}
	for name := range wants {
		l.until(name+" goes on by itself", func() bool { return l.place(name) == spool.Done })
	}
	// An inbox that may be read only.
	must(t, os.Chmod(inbox, 0o550))
	must(t, os.Chown(inbox, 0, group))
	put("stuck", 0o770, 0o660)
	time.Sleep(2 * time.Second)
	out, err := l.command("status").Output()
	must(t, err)
	if l.place("stuck") != spool.Inbox || strings.Count(string(out), "chmod g+rwx on the inbox") != 2 || !strings.Contains(string(out), "NOTHING CAN BE TAKEN FROM THE INBOX") {
		t.Errorf("status of a read-only inbox:\n%s", out)
	}
	if got := l.metric(`idenfy_batch_inbox_trouble{inbox="inbox"}`); got != "1" {
		t.Errorf("idenfy_batch_inbox_trouble is %s", got)
	}
	if code, body := l.health(); code != http.StatusServiceUnavailable || !strings.Contains(body, "chmod g+rwx on the inbox") {
		t.Errorf("/healthz says %d, %s", code, body)
	}
	if n := strings.Count(l.logged(), "nothing can be taken from the inbox; trying again"); n != 1 {
		t.Errorf("it is logged %d times", n)
	}
	must(t, os.Chmod(inbox, os.ModeSetgid|0o770))
	l.until("it goes on by itself", func() bool { return l.place("stuck") == spool.Done })
	l.until("/healthz and the metric say so", func() bool {
		code, _ := l.health()
		return code == http.StatusOK && l.metric(`idenfy_batch_inbox_trouble{inbox="inbox"}`) == "0"
	})
	must(t, l.stop())
}

// sysctl sets a value of inotify(7) for the test's time.
func sysctl(t *testing.T, name, value string) {
	t.Helper()
	path := "/proc/sys/fs/inotify/" + name
	old, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte(value), 0o644))
	t.Cleanup(func() { must(t, os.WriteFile(path, old, 0o644)) })
}

// health asks /healthz.
func (l *lab) health() (code int, body string) {
	l.t.Helper()
	resp, err := http.Get("http://" + l.metrics + "/healthz")
	must(l.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(l.t, err)
	return resp.StatusCode, string(text)
}

// metric reads one from the daemon.
func (l *lab) metric(name string) string {
	l.t.Helper()
	resp, err := http.Get("http://" + l.metrics + "/metrics")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(l.t, err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return "none"
}

func newTroubleLab(t *testing.T, more ...string) *lab {
	t.Helper()
	needsLab(t)
	port := freePort(t)
	l := newLab(t, append(more, "metrics: {listen: '127.0.0.1:"+port+"'}", "concurrency: 8")...)
	l.metrics = "127.0.0.1:" + port
	l.inboxReady()
	return l
}

// The kernel's queue overflows while the daemon is not looking: a rescan takes
// the events' place at once, though the next is an hour off.
func TestLabAloneEventOverflow(t *testing.T) {
	l := newTroubleLab(t, "completeness: {settle: 200ms, rescan: 1h}")
	sysctl(t, "max_queued_events", "16")
	l.start()
	l.until("started", func() bool { return strings.Contains(l.logged(), "watching the inbox") })
	must(t, l.cmd.Process.Signal(syscall.SIGSTOP))
	const n = 300
	for i := range n {
		l.put(fmt.Sprintf("case%d", i), small(fmt.Sprint("overflow", i)))
	}
	must(t, l.cmd.Process.Signal(syscall.SIGCONT))
	l.until("all found", func() bool { return len(l.names(spool.Done)) == n })
	if !strings.Contains(l.logged(), "file events were lost; rescanning") || l.metric("idenfy_batch_event_overflows_total") == "0" {
		t.Error("the loss is not told")
	}
	must(t, l.stop())
}

// No watch is left for most folders, and then no instance at all: rescans find
// them, and log and metric say so.
func TestLabAloneWatchesExhausted(t *testing.T) {
	for _, c := range []struct{ sysctl, value, mode string }{
		{"max_user_watches", "4", "partial"},
		{"max_user_instances", "0", "rescans"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			l := newTroubleLab(t, "completeness: {settle: 200ms, rescan: 300ms}")
			const n = 50
			half := small("half")
			delete(half, "FACE.png")
			for i := range 10 { // these keep what watches there are
				l.put(fmt.Sprintf("half%d", i), half)
			}
			sysctl(t, c.sysctl, c.value)
			l.start()
			l.until("the mode is told", func() bool { return l.metric(`idenfy_batch_watch_mode{inbox="inbox",mode="`+c.mode+`"}`) == "1" })
			for i := range n {
				l.put(fmt.Sprintf("case%d", i), small(fmt.Sprint(c.mode, i)))
			}
			l.until("all found", func() bool { return len(l.names(spool.Done)) == n })
			if !strings.Contains(l.logged(), "rescans find them") || !strings.Contains(l.logged(), "fs.inotify.max_user_") {
				t.Error("the log does not name the mend")
			}
			must(t, l.stop())
		})
	}
}

// The inbox is moved away, and another put in its place.
func TestLabInboxReplaced(t *testing.T) {
	t.Parallel()
	l := newTroubleLab(t, "completeness: {settle: 200ms, rescan: 500ms}")
	l.start()
	l.put("before", small("before"))
	l.until("before", func() bool { return l.place("before") == spool.Done })
	must(t, os.Rename(l.path("inbox"), l.path("away")))
	l.until("told", func() bool { return strings.Contains(l.logged(), "nothing can be taken from the inbox") })
	must(t, os.Mkdir(l.path("inbox"), 0o770))
	l.put("after", small("after"))
	l.until("after", func() bool { return l.place("after") == spool.Done })
	must(t, l.stop())
}

// The spool is unmounted under the daemon, and comes back.
func TestLabUnmounted(t *testing.T) {
	t.Parallel()
	l := newTroubleLab(t, "completeness: {settle: 200ms, rescan: 500ms}")
	disk := t.TempDir() // keeps the file system while it is away
	must(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"))
	t.Cleanup(func() { must(t, unix.Unmount(disk, unix.MNT_DETACH)) })
	mount := func() { t.Helper(); must(t, unix.Mount(disk, l.root, "", unix.MS_BIND, "")) }
	mount()
	l.inboxReady()
	l.start()
	l.put("before", small("before"))
	l.until("before", func() bool { return l.place("before") == spool.Done })
	half := small("half")
	face := half["FACE.png"]
	half["FACE.png"] = face[:100]
	l.put("half", half)

	must(t, unix.Unmount(l.root, unix.MNT_DETACH))
	must(t, os.RemoveAll(filepath.Join(l.root, "inbox"))) // what the mount had covered
	l.until("told", func() bool { return strings.Contains(l.logged(), "nothing can be taken from the inbox") })
	mount()
	l.until("told again", func() bool { return strings.Contains(l.logged(), "the inbox is in order again") })
	must(t, os.WriteFile(l.path("inbox", "half", "FACE.png"), face, 0o600))
	l.put("after", small("after"))
	for _, name := range []string{"half", "after"} {
		l.until(name, func() bool { return l.place(name) == spool.Done })
	}
	must(t, l.stop())
	must(t, unix.Unmount(l.root, unix.MNT_DETACH))
	if r := l.api.Report(); r.Processed != 3 || r.Requests != 3 {
		t.Errorf("the API saw %+v", r)
	}
}

// Twenty thousand folders at once: none is missed.
func TestLabBurst(t *testing.T) {
	l := newTroubleLab(t, "completeness: {settle: 1s, rescan: 5s}")
	n := 20_000
	l.start()
	l.until("started", func() bool { return l.metric(`idenfy_batch_watch_mode{inbox="inbox",mode="events"}`) == "1" })
	begin := time.Now()
	for i := range n {
		l.put(fmt.Sprintf("case%05d", i), small(fmt.Sprint("burst", i)))
	}
	put := time.Since(begin)
	l.patience = 15 * time.Minute
	l.until("all found", func() bool {
		time.Sleep(500 * time.Millisecond)
		return len(l.names(spool.Done)) == n
	})
	r := l.api.Report()
	if r.Processed != n || r.Requests != n || len(r.Violations) > 0 {
		t.Errorf("the API saw %d requests, %d processed, violations %v", r.Requests, r.Processed, r.Violations)
	}
	t.Logf("%d folders dropped within %s, all in done after %s, event overflows: %s", n, put.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond), l.metric("idenfy_batch_event_overflows_total"))
	must(t, l.stop())
}

// Uploaders with intent, all at once, while good folders come in: none is
// submitted wrongly, none stops the others, and nothing from outside a folder
// gets into a request.
func TestLabHostileDrops(t *testing.T) {
	l := newTroubleLab(t, "completeness: {settle: 100ms, rescan: 200ms}")
	secret := sample.Pad(face, 50_000, 99)
	outside := filepath.Join(t.TempDir(), "secret.jpg")
	must(t, os.WriteFile(outside, secret, 0o600))
	l.start()

	stop := make(chan struct{})
	halt := sync.OnceFunc(func() { close(stop) })
	attack := func(f func(i int) error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					_ = f(i) // the daemon may have moved what it attacks
				}
			}
		}()
		t.Cleanup(func() { halt(); <-done })
	}
	in := func(elem ...string) string { return l.path(append([]string{"inbox"}, elem...)...) }
	// A link to a file outside takes turns with the file.
	attack(func(i int) error {
		time.Sleep(200 * time.Microsecond) // thousands of folders are enough
		name := fmt.Sprintf("link%d", i/50)
		if i%50 == 0 {
			f := files(name)
			f[".ready"] = nil
			if err := sample.Write(in(name), f); err != nil {
				return err
			}
		}
		temp := in(name, "swap")
		if i%2 == 0 {
			if err := os.Symlink(outside, temp); err != nil {
				return err
			}
		} else if err := os.WriteFile(temp, face, 0o600); err != nil {
			return err
		}
		return os.Rename(temp, in(name, "FACE.jpg"))
	})
	// A folder takes turns with a link to a folder outside, and with a FIFO.
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	must(t, sample.Write(elsewhere, map[string][]byte{"FRONT.jpg": secret, "BACK.jpg": secret, "FACE.jpg": secret, "meta.yaml": []byte(sample.Meta(token("elsewhere"), "LT", "ID_CARD")), ".ready": nil}))
	attack(func(i int) error {
		switch i % 3 {
		case 0:
			return errors.Join(os.RemoveAll(in("turn")), os.Symlink(elsewhere, in("turn")))
		case 1:
			return errors.Join(os.Remove(in("turn")), syscall.Mkfifo(in("turn"), 0o600))
		default:
			return errors.Join(os.Remove(in("turn")), os.Mkdir(in("turn"), 0o700))
		}
	})
	// A folder is renamed all the time.
	must(t, sample.Write(in("name0"), files("name")))
	attack(func(i int) error { return os.Rename(in(fmt.Sprint("name", i)), in(fmt.Sprint("name", i+1))) })
	// A file grows for ever, up to what the test may use.
	must(t, sample.Write(in("grows"), files("grows")))
	attack(func(int) error {
		time.Sleep(time.Millisecond)
		f, err := os.OpenFile(in("grows", "FACE.jpg"), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(make([]byte, 1000))
		return errors.Join(err, f.Close())
	})
	// A tree two hundred deep, and a million entries.
	deep := in("deep")
	must(t, sample.Write(deep, files("deep")))
	for range 200 {
		deep = filepath.Join(deep, "d")
	}
	must(t, os.MkdirAll(deep, 0o700))
	must(t, sample.Write(in("million"), files("million")))
	entries := make(chan error, 1)
	go func() {
		for i := range 1_000_000 {
			// Links to one empty file are quicker to make than files.
			name := in("million", fmt.Sprint("z", i/30_000))
			if i%30_000 == 0 {
				if err := os.WriteFile(name, nil, 0o600); err != nil {
					entries <- err
					return
				}
				continue
			}
			if err := os.Link(name, in("million", fmt.Sprint("e", i))); err != nil {
				entries <- nil // it was moved to failed, where it belongs
				return
			}
		}
		entries <- nil
	}()
	// Good ones meanwhile, one after the other.
	for i := range 100 {
		name := fmt.Sprint("good", i)
		l.put(name, files(name))
		l.until(name+" is served", func() bool { return l.place(name) == spool.Done })
	}
	must(t, <-entries)
	halt()
	l.until("the million ended", func() bool { return l.place("million") == spool.Failed })
	l.until("the deep one ended", func() bool { return l.place("deep") == spool.Failed })
	for i := range 100 {
		if sums := l.api.Token(token(fmt.Sprint("good", i))).Sums; sums["FACE"] != sumOf(face) {
			t.Errorf("good%d: %v", i, sums)
		}
	}
	for i := range 10_000 {
		seen := l.api.Token(token(fmt.Sprint("link", i)))
		if seen.Requests > 1 || seen.Processed > 0 && seen.Sums["FACE"] != sumOf(face) {
			t.Errorf("link%d: %+v", i, seen)
		}
	}
	for _, name := range []string{"elsewhere", "grows", "million"} {
		if n := l.api.Token(token(name)).Requests; n != 0 && name != "grows" {
			t.Errorf("%s: %d requests", name, n)
		}
	}
	if r := l.api.Report(); len(r.Violations) > 0 {
		t.Errorf("violations: %v", r.Violations)
	}
	must(t, l.stop())
}
