package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// output runs the program to its end, and returns its exit code and all that
// it said.
func (l *lab) output(args ...string) (int, string) {
	l.t.Helper()
	cmd := l.command(args...)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		l.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// Other commands beside a running daemon: none takes a folder from it, or
// sends one that it has.
func TestBeside(t *testing.T) {
	l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}")
	l.inboxReady()
	l.start()
	l.until("started", func() bool { return strings.Contains(l.logged(), "watching the inbox") })
	for _, args := range [][]string{{"run"}, {"run", "--once"}} {
		if code, out := l.output(args...); code != exitsFailed || !strings.Contains(out, "another idenfy-batch already works on this spool") {
			t.Errorf("%v: %d, %s", args, code, out)
		}
	}
	l.put("a", files("a"))
	l.until("a is accepted", func() bool { return l.place("a") == spool.Done })

	// submit: a folder of its own, but none that the daemon has or had.
	own := t.TempDir()
	must(t, sample.Write(filepath.Join(own, "own"), files("own")))
	must(t, sample.Write(filepath.Join(own, "copy"), files("a")))
	if code, out := l.output("submit", filepath.Join(own, "own")); code != 0 {
		t.Errorf("submit: %d, %s", code, out)
	}
	for dir, why := range map[string]string{
		filepath.Join(own, "own"):  "was accepted",
		filepath.Join(own, "copy"): "was accepted already (done/a",
		l.path("done", "a"):        "it lies in the spool's done",
	} {
		if code, out := l.output("submit", dir); code != exitsFailed || !strings.Contains(out, why) {
			t.Errorf("submit %s: %d, %s", dir, code, out)
		}
	}

	// Many requeue the same folder at once: one of them moves it, and the
	// daemon submits it once.
	bad := files("b")
	bad["meta.yaml"] = []byte(sample.Meta(token("b"), "XX", "ID_CARD"))
	l.put("b", bad)
	l.until("b has failed", func() bool { return l.place("b") == spool.Failed })
	must(t, os.WriteFile(l.path("failed", "b", "meta.yaml"), files("b")["meta.yaml"], 0o640))
	var moved atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if out, err := l.command("requeue", "b").CombinedOutput(); err == nil {
				moved.Add(1)
			} else if !strings.Contains(string(out), "✗ b: ") {
				t.Errorf("requeue: %v, %s", err, out)
			}
		})
	}
	all.Wait()
	if moved.Load() != 1 {
		t.Errorf("%d of 8 requeued it", moved.Load())
	}
	l.until("b is accepted", func() bool { return l.place("b") == spool.Done })
	if r := l.result(spool.Done, "b"); len(r.Decisions) != 1 || r.Decisions[0].Action != sidecar.Requeued {
		t.Errorf("decisions %+v", r.Decisions)
	}

	// resolve --resubmit of a held folder, which the service says was not taken.
	ref := sandbox.NewScanRef()
	l.api.Issue(token("c"), ref)
	l.put("c", files("c", "scanRef: "+ref))
	l.api.Always(&sandbox.Step{Fault: sandbox.Stall})
	l.until("c is sent", func() bool { return l.api.Token(token("c")).Requests > 0 })
	l.kill()
	l.api.Always(nil)
	work := l.names(spool.Work)
	if len(work) != 1 {
		t.Fatalf("in work: %v", work)
	}
	must(t, os.Rename(l.path("work", work[0]), l.path("hold", "c")))
	text, err := os.ReadFile(l.path("hold", "c", "result.json"))
	must(t, err)
	must(t, os.WriteFile(l.path("hold", "c", "result.json"), []byte(strings.Replace(string(text), `"pending"`, `"unknown"`, 1)), 0o640))
	l.start()
	if code, out := l.output("resolve", "c", "--accepted"); code != exitsFailed || !strings.Contains(out, "ACTIVE") {
		t.Errorf("resolve --accepted: %d, %s", code, out)
	}
	if code, out := l.output("resolve", "c", "--resubmit", "-m", "token unused"); code != 0 {
		t.Errorf("resolve --resubmit: %d, %s", code, out)
	}
	l.until("c is accepted", func() bool { return l.place("c") == spool.Done })
	must(t, l.stop())
	if r := l.api.Report(); r.Processed != 4 || len(r.Violations) > 0 {
		t.Errorf("%+v", r)
	}
}

// A start that meets a command which has the spool waits for it; one that meets
// a daemon says so at once.
func TestStartBesideACommand(t *testing.T) {
	l := newLab(t)
	l.inboxReady()
	l.start()
	l.until("started", func() bool { return strings.Contains(l.logged(), "watching the inbox") })
	must(t, l.stop())
	lock, err := spool.Lock(spool.Paths{spool.Work: l.path("work")}) // as requeue does
	must(t, err)
	l.start()
	time.Sleep(300 * time.Millisecond) // it is waiting by then, or would have ended
	must(t, lock.Close())
	l.until("started again", func() bool { return strings.Count(l.logged(), "watching the inbox") == 2 })
	must(t, l.stop())
}

// Without a free descriptor nothing is lost, and it goes on when there are
// some again.
func TestDescriptorLimit(t *testing.T) {
	l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}")
	l.inboxReady()
	l.start()
	l.put("before", files("before"))
	l.until("the first is accepted", func() bool { return l.place("before") == spool.Done })
	limit := func(n uint64) {
		t.Helper()
		must(t, unix.Prlimit(l.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: 1024}, nil))
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", l.cmd.Process.Pid))
	must(t, err)
	for extra := range 12 { // each of them fails at another place
		limit(uint64(len(open) + extra))
		name := fmt.Sprint("case", extra)
		l.put(name, files(name))
		time.Sleep(150 * time.Millisecond)
		if p := l.place(name); p == spool.Failed || p == spool.Hold || p == "" {
			t.Errorf("%s is in %q", name, p)
		}
	}
	limit(1024)
	l.until("all are accepted", func() bool { return len(l.names(spool.Done)) == 13 })
	must(t, l.stop())
	if r := l.api.Report(); r.Processed != 13 || len(r.Violations) > 0 {
		t.Errorf("%+v", r)
	}
}

// The kernel's out-of-memory killer ends the daemon, which goes on afterwards.
func TestLabOutOfMemory(t *testing.T) {
	needsLab(t)
	t.Parallel()
	group, file := "/sys/fs/cgroup/memory/idenfy-batch-test", "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		group, file = "/sys/fs/cgroup/idenfy-batch-test", "memory.max"
	}
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skipf("there are no cgroups: %v", err)
	}
	t.Cleanup(func() {
		for end := time.Now().Add(10 * time.Second); unix.Rmdir(group) != nil && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
	})
	l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}", "concurrency: 8")
	l.inboxReady()
	l.api.Always(&sandbox.Step{Latency: 200 * time.Millisecond})
	const n = 20
	for i := range n {
		f := files(fmt.Sprint("case", i))
		f[".ready"] = nil
		l.put(fmt.Sprint("case", i), f)
	}
	l.start()
	l.until("some are sent", func() bool { return l.api.Report().Requests > 2 })
	must(t, os.WriteFile(filepath.Join(group, "cgroup.procs"), fmt.Append(nil, l.cmd.Process.Pid), 0o600))
	must(t, os.WriteFile(filepath.Join(group, file), []byte("1M"), 0o600))
	var exit *exec.ExitError
	select {
	case err := <-l.exited:
		if !errors.As(err, &exit) || exit.String() != "signal: killed" {
			t.Fatalf("it ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it is not killed")
	}
	l.cmd = nil
	l.forgive()
	l.api.Always(nil)
	l.start()
	l.until("all have ended", func() bool { return len(l.names(spool.Work))+len(l.names(spool.Inbox)) == 0 })
	must(t, l.stop())
	for i := range n {
		name := fmt.Sprint("case", i)
		if p := l.isWhole(name); p == spool.Failed || l.api.Token(token(name)).Processed != 1 {
			t.Errorf("%s is in %s, %d times processed", name, p, l.api.Token(token(name)).Processed)
		}
	}
	if v := l.api.Report().Violations; len(v) > 0 {
		t.Error(v)
	}
}

// The clock is set forward and back by two days while folders are incomplete,
// waiting for another try, and coming in: nothing is failed or given up too
// early, nothing waits for the clock.
func TestLabAloneClock(t *testing.T) {
	needsLab(t)
	// Whatever happens to this process, the machine's clock is put right.
	guard := exec.Command("bash", "-c", `read -r up _ </proc/uptime; now=$(date +%s.%N); read -r _
		read -r up2 _ </proc/uptime; date -s "@$(awk "BEGIN { printf \"%.3f\", $now + $up2 - $up }")"`)
	alive, err := guard.StdinPipe()
	must(t, err)
	must(t, guard.Start())
	time.Sleep(200 * time.Millisecond) // for it to have read the time
	t.Cleanup(func() {
		must(t, alive.Close())
		must(t, guard.Wait())
	})
	shift := func(by time.Duration) {
		t.Helper()
		var now unix.Timespec // time.Now is what the test itself goes by
		must(t, unix.ClockGettime(unix.CLOCK_REALTIME, &now))
		now.Sec += int64(by / time.Second)
		must(t, unix.ClockSettime(unix.CLOCK_REALTIME, &now))
	}
	const days = 48 * time.Hour
	l := newLab(t, "completeness: {settle: 200ms, rescan: 200ms}")
	l.inboxReady()
	l.start()
	half := files("half")
	whole := half["FACE.jpg"]
	half["FACE.jpg"] = whole[:len(whole)/2]
	l.put("half", half)
	l.api.Script(token("again"), sandbox.Step{Status: 503}, sandbox.Step{Status: 503}, sandbox.Step{Status: 503}, sandbox.Step{Status: 503}, sandbox.Step{Status: 503})
	l.put("again", files("again"))
	l.until("the first attempt", func() bool { return l.api.Token(token("again")).Requests > 0 })
	for i, by := range []time.Duration{days, -days, -days, days} {
		shift(by)
		name := fmt.Sprint("case", i)
		l.put(name, files(name))
		l.until(name+" is accepted", func() bool { return l.place(name) == spool.Done })
		if i%2 == 0 { // a start by another clock
			must(t, l.stop())
			l.start()
		}
		if p := l.place("half"); p != spool.Inbox {
			t.Errorf("half is in %s", p)
		}
	}
	must(t, os.WriteFile(l.path("inbox", "half", "FACE.jpg"), whole, 0o600))
	for _, name := range []string{"half", "again"} {
		l.until(name+" is accepted", func() bool { return l.place(name) == spool.Done })
	}
	must(t, l.stop())
	if r := l.api.Report(); r.Processed != 6 || len(r.Violations) > 0 {
		t.Errorf("%+v", r)
	}
}
