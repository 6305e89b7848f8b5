package test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

var (
	soakTime    = flag.Duration("soak", 20*time.Second, "how long TestLabSoak breaks things")
	soakFolders = flag.Int("soak.folders", 400, "how many folders come in meanwhile")
)

// soak is a daemon on a disk of its own, and all that befalls it.
type soak struct {
	*lab
	disk   *disk
	outage atomic.Pointer[sandbox.Step]
	count  map[string]int // what was done, by kind
}

// treat decides about one request: mostly well, at times each in its own bad
// way, and in an outage all in the same.
func (s *soak) treat(string, int) sandbox.Step {
	if step := s.outage.Load(); step != nil {
		return *step
	}
	ways := []sandbox.Step{
		{Status: 400, Identifier: "BAD_VALUE", Message: "no"},
		{Status: 200, Identifier: "BAD_VALUE", Message: "no document was detected"},
		{Status: 500, Identifier: "INTERNAL_ERROR", Message: "no"},
		{Status: 502, Body: "<html>", ContentType: "text/html"},
		{Status: 429, Identifier: "TOO_MANY_REQUESTS", Message: "no"},
		{Fault: sandbox.ResetInBody}, {Fault: sandbox.LoseAnswer}, {Fault: sandbox.HalfAnswer}, {Fault: sandbox.Garbage},
	}
	if n := rand.IntN(100); n < len(ways) {
		return ways[n]
	}
	return sandbox.Step{Latency: time.Duration(rand.Int64N(int64(20 * time.Millisecond)))}
}

// stage makes folders beside the inbox and brings them to the disk.
func (s *soak) stage(from, to int) {
	s.t.Helper()
	for i := from; i < to; i++ {
		name := fmt.Sprintf("case%05d", i)
		tok := token(name)
		f := small(name)
		if i%30 == 7 { // a copy of one that came before
			tok = s.tokens[fmt.Sprintf("case%05d", i-3)]
			f["meta.yaml"] = []byte(sample.Meta(tok, "LT", "PASSPORT"))
		}
		if i%40 == 11 {
			f["meta.yaml"] = []byte(sample.Meta(tok, "XX", "PASSPORT"))
		}
		if i%2 == 0 {
			ref := sandbox.NewScanRef()
			f["meta.yaml"] = append(f["meta.yaml"], "scanRef: "+ref+"\n"...)
			s.api.Issue(tok, ref)
		}
		if i%5 != 0 {
			f[".ready"] = nil
		}
		s.tokens[name] = tok
		must(s.t, sample.Write(filepath.Join(s.disk.dir, "staged", name), f))
	}
	s.disk.sync()
}

// drop moves what is staged into the inbox. What a power cut undid is moved
// again: it is looked up, not remembered.
func (s *soak) drop() {
	names, err := os.ReadDir(filepath.Join(s.disk.dir, "staged"))
	must(s.t, err)
	for _, n := range names {
		_ = os.Rename(filepath.Join(s.disk.dir, "staged", n.Name()), s.path("inbox", n.Name())) // next time, if the disk is in trouble
	}
}

func (s *soak) again() {
	s.forgive()
	s.start()
}

// harm does one bad thing. gentle leaves the process alive.
func (s *soak) harm(gentle bool) {
	s.t.Helper()
	pause := func() { time.Sleep(time.Duration(rand.Int64N(int64(2 * time.Second)))) }
	kinds := []string{"outage", "outage", "outage", "no space", "read-only", "reload", "stopped and continued", "requeue", "resolve"}
	if !gentle {
		kinds = append(kinds, "kill", "kill", "kill", "kill", "kill", "kill", "power cut", "power cut", "stop")
	}
	kind := kinds[rand.IntN(len(kinds))]
	s.count[kind]++
	switch kind {
	case "outage":
		ways := []sandbox.Step{
			{Status: 401, Identifier: "UNAUTHORIZED", Message: "no"}, {Status: 403, Identifier: "PERMISSIONS_ERROR", Message: "no"},
			{Status: 400, Identifier: "PARTNER_CONTRACT_ERROR", Message: "no"}, {Status: 503}, {Status: 200, Body: "<html>", ContentType: "text/html"},
			{Fault: sandbox.ResetInBody}, {Fault: sandbox.Stall}, {Fault: sandbox.LoseAnswer}, {Fault: sandbox.StallAnswer},
		}
		s.outage.Store(&ways[rand.IntN(len(ways))])
		pause()
		s.outage.Store(nil)
	case "no space":
		fill(s.t.(*testing.T), filepath.Join(s.disk.dir, "ballast"))
		pause()
		must(s.t, os.Remove(filepath.Join(s.disk.dir, "ballast")))
	case "read-only":
		if unix.Mount("", s.disk.dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "") == nil { // not while a file is being written
			pause()
			must(s.t, unix.Mount("", s.disk.dir, "", unix.MS_REMOUNT, ""))
		}
	case "reload":
		_ = s.cmd.Process.Signal(syscall.SIGHUP) // it may not be up yet, and die of it
	case "stopped and continued":
		must(s.t, s.cmd.Process.Signal(syscall.SIGSTOP))
		pause()
		must(s.t, s.cmd.Process.Signal(syscall.SIGCONT))
	case "requeue":
		if names := s.names(spool.Failed); len(names) > 0 {
			_ = s.command("requeue", names[rand.IntN(len(names))]).Run() // refused, or the disk is in trouble
		}
	case "resolve":
		for i, name := range s.names(spool.Hold) {
			// A person looks it up.
			word := []string{"--resubmit", "--force"}
			if s.api.Token(s.tokens[ownName(name)]).Processed > 0 {
				word = []string{"--accepted"}
			}
			_ = s.command(append([]string{"resolve", name}, word...)...).Run() // likewise
			if i == 5 {
				break
			}
		}
	case "kill":
		s.kill()
		s.again()
	case "stop":
		if strings.Contains(s.logged()[s.begun:], `"started"`) {
			must(s.t, s.stop())
		} else {
			s.kill()
		}
		s.again()
	case "power cut":
		s.disk.cut()
		s.kill()
		s.disk.unmount()
		s.disk.mount()
		s.again()
	}
	select {
	case err := <-s.exited: // it refuses to start on a full or read-only disk
		s.exited <- err
		s.kill()
		s.count["did not start"]++
		s.again()
	default:
	}
}

// ownName is a folder's name without the suffix of a taken one.
func ownName(name string) string { return name[:len("case00000")] }

// size is what a process uses: resident memory in KiB, descriptors, goroutines.
func (s *soak) size() (rss, fds, goroutines int) {
	s.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	must(s.t, err)
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	rss, err = strconv.Atoi(strings.Fields(after)[0])
	must(s.t, err)
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	must(s.t, err)
	goroutines, err = strconv.Atoi(s.metric("go_goroutines"))
	must(s.t, err)
	return rss, len(open), goroutines
}

// Everything at once: folders come in while the service fails in every way,
// the disk fills up, turns read-only and loses its power, people decide, and
// the daemon is killed every few seconds. At the end each folder is in one
// place, whole, and was processed at most once; and a daemon that lived through
// the last quarter is no larger than it was in the beginning.
func TestLabSoak(t *testing.T) {
	needsLab(t)
	port := freePort(t)
	d := newDisk(t, "ext4", 512+int64(*soakFolders)/8)
	s := &soak{disk: d, count: map[string]int{}}
	s.lab = newLabIn(t, d.dir, "completeness: {settle: 200ms, rescan: 1s}", "concurrency: 8", "metrics: {listen: '127.0.0.1:"+port+"'}")
	s.tokens = map[string]string{}
	s.metrics, s.patience = "127.0.0.1:"+port, 5*time.Minute
	s.inboxReady()
	must(t, os.Mkdir(filepath.Join(d.dir, "staged"), 0o755))
	s.api.Decide(s.treat)
	s.start()
	begin, made := time.Now(), 0
	var rss, fds, goroutines int
	for elapsed := time.Duration(0); elapsed < *soakTime; elapsed = time.Since(begin) {
		// As many folders as the time that has passed is worth.
		due := min(int(float64(*soakFolders)*min(float64(elapsed)/float64(*soakTime)+0.01, 1)), *soakFolders)
		s.stage(made, due)
		made = due
		s.drop()
		gentle := elapsed > *soakTime*3/4
		if gentle && rss == 0 {
			s.until("metrics", func() bool { return strings.Contains(s.logged()[s.begun:], "watching the inbox") })
			time.Sleep(time.Second)
			rss, fds, goroutines = s.size()
		}
		s.harm(gentle)
		time.Sleep(time.Duration(rand.Int64N(int64(time.Second))))
	}
	s.stage(made, *soakFolders)
	s.drop()
	s.until("all have ended", func() bool {
		time.Sleep(100 * time.Millisecond)
		return len(s.names(spool.Work))+len(s.names(spool.Inbox)) == 0
	})
	endRSS, endFDs, endGoroutines := s.size()
	must(t, s.stop())
	if code, out := s.output("ledger", "verify"); code != 0 {
		t.Errorf("ledger verify: %d, %s", code, out)
	}

	where, ends := map[string]int{}, map[sidecar.Outcome]int{}
	accepted := map[string]int{}
	for _, p := range []spool.Place{spool.Done, spool.Failed, spool.Hold} {
		for _, name := range s.names(p) {
			where[ownName(name)]++
			r := s.result(p, name)
			ends[r.Outcome]++
			if (p == spool.Done) != (r.Outcome == sidecar.Accepted) || !r.Outcome.Final() {
				t.Errorf("%s is %s in %s", name, r.Outcome, p)
			}
			if p == spool.Done {
				accepted[s.tokens[ownName(name)]]++
			}
			for _, file := range []string{"FRONT.png", "FACE.png"} {
				if data, err := os.ReadFile(s.path(string(p), name, file)); err != nil || string(data) != string(tiny) {
					t.Errorf("%s of %s is not whole: %v", file, name, err)
				}
			}
		}
	}
	lost, twice := 0, 0
	for name, tok := range s.tokens {
		if where[name] != 1 {
			lost++
			t.Errorf("%s is in %d places", name, where[name])
		}
		if n := s.api.Token(tok).Processed; n > 1 || accepted[tok] > n {
			twice++
			t.Errorf("%s: %d times processed, %d times in done", name, n, accepted[tok])
		}
	}
	r := s.api.Report()
	if len(r.Violations) > 0 {
		t.Errorf("%d violations, such as %v", len(r.Violations), r.Violations[:min(5, len(r.Violations))])
	}
	t.Logf("soak of %s: %d folders, %d lost, %d twice; ends %v; requests %d, processed %d, repeats %d; done to it: %v",
		time.Since(begin).Round(time.Second), len(s.tokens), lost, twice, ends, r.Requests, r.Processed, r.Repeats, s.count)
	t.Logf("the daemon of the last quarter, at its beginning and its end: RSS %d and %d KiB, descriptors %d and %d, goroutines %d and %d",
		rss, endRSS, fds, endFDs, goroutines, endGoroutines)
	if endFDs > fds+12 || endGoroutines > goroutines+24 || endRSS > rss*3/2+8192 {
		t.Error("it has grown")
	}
}
