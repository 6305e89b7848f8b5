package batch_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"idenfy-batch/batch"
	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
)

// firewalls are what one before the service answers with.
var firewalls = map[string]sandbox.Step{
	"403":             {Status: 403, Body: "<html>blocked", ContentType: "text/html", Latency: time.Second},
	"400":             {Status: 400, Body: "<html>bad request", ContentType: "text/html", Latency: time.Second},
	"404":             {Status: 404, Latency: time.Second},
	"405":             {Status: 405, Body: "<html>blocked", ContentType: "text/html", Latency: time.Second},
	"429":             {Status: 429, Body: "<html>blocked", ContentType: "text/html", Latency: time.Second},
	"302":             {Status: 302, Body: "<html>blocked", ContentType: "text/html", Latency: time.Second},
	"of the contract": {Status: 400, Identifier: "PARTNER_CONTRACT_ERROR", Message: "no", Latency: time.Second},
}

// inFakeTime runs f with a batch and a sandbox in a bubble of fake time; first
// all folders are made.
func inFakeTime(t *testing.T, b *bench, folders []string, f func(t *testing.T, api *sandbox.Sandbox, arrivals map[string]drop.Arrival)) {
	t.Helper()
	arrivals := map[string]drop.Arrival{}
	for _, name := range folders {
		b.put(name)
		arrivals[name] = b.arrival(name)
	}
	synctest.Test(t, func(t *testing.T) {
		api := sandbox.New(sandbox.Options{})
		p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{}), down: func() error { return nil }}
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error)
		go func() { served <- api.Serve(ctx, p) }()
		b.t = t
		b.cfg.Concurrency = 4
		b.cfg.Retry.First, b.cfg.Retry.Max, b.cfg.Retry.GiveUpAfter = 2*time.Second, 10*time.Minute, time.Hour
		b.startWith(idenfy.Options{BaseURL: "http://pipe", Timeout: time.Minute, Dial: p.dial})
		b.ev.ended = make(chan string, len(folders))
		f(t, api, arrivals)
		b.end()
		if v := api.Report().Violations; len(v) > 0 {
			t.Error(v)
		}
		stop()
		close(p.closed)
		if err := <-served; err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
}

// Some folders that always meet a firewall, or an error of the contract, cost
// the good ones beside them next to nothing, and are given up in the end.
func TestFirewallBeforeSome(t *testing.T) {
	const good, more = 60, 130
	for name, step := range firewalls {
		for _, bad := range []int{0, 1, 5, 20} {
			if bad == 0 && name != "403" {
				continue
			}
			t.Run(fmt.Sprintf("%s, %d", name, bad), func(t *testing.T) {
				t.Parallel()
				var folders, later []string
				for n := range good {
					if n < bad {
						folders = append(folders, fmt.Sprintf("bad%d", n))
					}
					folders = append(folders, fmt.Sprintf("good%02d", n))
				}
				if bad == 1 && name == "403" {
					for n := range more {
						later = append(later, fmt.Sprintf("later%03d", n))
					}
				}
				b := newBench(t)
				inFakeTime(t, b, slices.Concat(folders, later), func(t *testing.T, api *sandbox.Sandbox, arrivals map[string]drop.Arrival) {
					api.Decide(func(tok string, _ int) sandbox.Step {
						if strings.HasPrefix(tok, "TOKEN-bad") {
							return step
						}
						return sandbox.Step{Latency: time.Second}
					})
					beside(t, b, folders, later, bad, arrivals)
				})
			})
		}
	}
}

func beside(t *testing.T, b *bench, folders, later []string, bad int, arrivals map[string]drop.Arrival) {
	t.Helper()
	begin := time.Now()
	go func() { // the watcher
		for _, name := range folders {
			b.in <- arrivals[name]
		}
	}()
	for range len(folders) - bad {
		if end := <-b.ev.ended; !strings.HasPrefix(end, "good") || !strings.Contains(end, "accepted") {
			t.Error(end)
		}
	}
	// 15 s at the best; each attempt of a bad one takes a place for a second.
	took := time.Since(begin)
	t.Logf("%d good folders took %s beside %d that meet a firewall", len(folders)-bad, took.Round(time.Second), bad)
	if took > time.Duration(20+bad/2)*time.Second { // each has an attempt or two, and some wait one at a time
		t.Errorf("the good ones took %s beside %d", took, bad)
	}
	if n := b.ev.count("shut"); n > 3+bad { // few: it is seen by the others' answers
		t.Errorf("%d pauses beside %d: %v", n, bad, b.ev.all())
	}
	for n, name := range later { // each minute one
		select {
		case end := <-b.ev.ended:
			if end != "bad0 gave_up failed/bad0" || n < 55 {
				t.Errorf("after %d minutes: %s", n, end)
			}
			return
		case <-time.After(time.Minute):
			b.in <- arrivals[name]
			if end := <-b.ev.ended; !strings.Contains(end, "accepted") {
				t.Error(end)
			}
		}
	}
	if len(later) > 0 {
		t.Errorf("not given up: %v", b.ev.all())
	}
}

// The only folder, and it meets a firewall: nobody can tell whose fault that
// is, so the folder is kept, and tried now and then, for as long as it lasts.
func TestFirewallBeforeTheOnlyOne(t *testing.T) {
	for name, step := range firewalls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			inFakeTime(t, b, []string{"case", "next"}, func(t *testing.T, api *sandbox.Sandbox, arrivals map[string]drop.Arrival) {
				api.Always(&step)
				b.in <- arrivals["case"]
				time.Sleep(5 * time.Hour)
				if n := api.Report().Requests; n < 20 || n > 100 || b.ev.has("ended") || !b.ev.has("shut account") {
					t.Errorf("after five hours: %d requests, %v", n, b.ev.all())
				}
				api.Always(nil)
				begin := time.Now()
				b.in <- arrivals["next"] // it need not wait for the other's delay
				if end := <-b.ev.ended; end != "next accepted done/next" || time.Since(begin) > 5*time.Second {
					t.Errorf("%s, after %s", end, time.Since(begin))
				}
				if end := <-b.ev.ended; end != "case accepted done/case" {
					t.Error(end)
				}
			})
		})
	}
}

// Two that fail by themselves, each in its own way, and no others: nobody can
// tell whose fault that is, and they are tried no more often than one is.
func TestFirewallAndServerErrors(t *testing.T) {
	b := newBench(t)
	inFakeTime(t, b, []string{"wall", "oops", "good"}, func(t *testing.T, api *sandbox.Sandbox, arrivals map[string]drop.Arrival) {
		api.Decide(func(tok string, _ int) sandbox.Step {
			switch tok {
			case token("wall"):
				return firewalls["403"]
			case token("oops"):
				return sandbox.Step{Status: 503, Latency: time.Second}
			}
			return sandbox.Step{Latency: time.Second}
		})
		b.in <- arrivals["wall"]
		b.in <- arrivals["oops"]
		time.Sleep(5 * time.Hour)
		if n := api.Report().Requests; n < 40 || n > 200 || b.ev.has("ended") || !b.ev.has("shut account") {
			t.Errorf("after five hours: %d requests, %v", n, b.ev.all())
		}
		begin := time.Now()
		b.in <- arrivals["good"]
		if end := <-b.ev.ended; end != "good accepted done/good" || time.Since(begin) > 5*time.Second {
			t.Errorf("%s, after %s", end, time.Since(begin))
		}
	})
}

// A firewall before one folder, while the answers to the others take long, is
// nothing to call a person for.
func TestFirewallNobodyIsCalled(t *testing.T) {
	for name, step := range firewalls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			inFakeTime(t, b, []string{"wall", "good0", "good1"}, func(t *testing.T, api *sandbox.Sandbox, arrivals map[string]drop.Arrival) {
				api.Decide(func(tok string, _ int) sandbox.Step {
					if tok == token("wall") {
						return step
					}
					return sandbox.Step{Latency: 50 * time.Second}
				})
				for _, name := range []string{"good0", "wall", "good1"} {
					b.in <- arrivals[name]
				}
				for range 2 {
					if end := <-b.ev.ended; !strings.Contains(end, "accepted") {
						t.Error(end)
					}
				}
				if b.ev.has("shut") {
					t.Error(b.ev.all())
				}
			})
		})
	}
}

// A folder whose answer comes byte by byte, and never ends, holds nobody up for
// longer than one without an answer, also when it is the one that probes.
func TestDripProbes(t *testing.T) {
	b := newBench(t)
	inFakeTime(t, b, []string{"wall", "drip", "good"}, func(t *testing.T, api *sandbox.Sandbox, arrivals map[string]drop.Arrival) {
		api.Decide(func(tok string, _ int) sandbox.Step {
			switch tok {
			case token("wall"):
				return firewalls["403"]
			case token("drip"):
				return sandbox.Step{Fault: sandbox.Drip}
			}
			return sandbox.Step{}
		})
		b.in <- arrivals["wall"]
		time.Sleep(1100 * time.Millisecond)
		begin := time.Now()
		b.in <- arrivals["drip"]
		b.in <- arrivals["good"]
		if end := <-b.ev.ended; end != "good accepted done/good" || time.Since(begin) > 65*time.Second {
			t.Errorf("%s, after %s", end, time.Since(begin))
		}
	})
}

// Folders that get no answers don't take all places each time that they are
// tried: those that were not tried yet have theirs.
func TestStalledBesideGood(t *testing.T) {
	const bad, good = 40, 180
	b := newBench(t)
	var folders []string
	for n := range bad {
		folders = append(folders, fmt.Sprintf("bad%02d", n))
	}
	for n := range good {
		folders = append(folders, fmt.Sprintf("good%03d", n))
	}
	inFakeTime(t, b, folders, func(t *testing.T, api *sandbox.Sandbox, arrivals map[string]drop.Arrival) {
		api.Decide(func(tok string, _ int) sandbox.Step {
			if strings.HasPrefix(tok, "TOKEN-bad") {
				return sandbox.Step{Fault: sandbox.Stall}
			}
			return sandbox.Step{Latency: time.Second}
		})
		go func() {
			for _, name := range folders[:bad] {
				b.in <- arrivals[name]
			}
		}()
		time.Sleep(time.Minute)
		var total time.Duration
		for _, name := range folders[bad:] {
			begin := time.Now()
			b.in <- arrivals[name]
			for end := ""; end != name+" accepted done/"+name; {
				if end = <-b.ev.ended; strings.HasPrefix(end, "good") && !strings.Contains(end, name) {
					t.Error(end)
				}
			}
			total += time.Since(begin)
			time.Sleep(10 * time.Second)
		}
		if total > 20*good*time.Second {
			t.Errorf("a good one took %s", total/good)
		}
		t.Logf("a good one took %s, among %d that stall; %d pauses", total/good, bad, b.ev.count("shut"))
	})
}

// requests notes when requests come.
type requests struct {
	mu   sync.Mutex
	at   []time.Time
	step sandbox.Step
}

func (r *requests) decide(string, int) sandbox.Step {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = append(r.at, time.Now())
	return r.step
}

func (r *requests) set(step sandbox.Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.step = step
}

// gap is the time between the first request and the second.
func (r *requests) gap() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.at) < 2 {
		return 0
	}
	return r.at[1].Sub(r.at[0])
}

// What a service asked for is kept over a restart and a reload: nothing goes
// out before, neither what waits nor what is new.
func TestRetryAfterOutlives(t *testing.T) {
	for name, what := range map[string]func(*bench){
		"a restart": func(b *bench) { b.end(); b.start() },
		"a crash": func(b *bench) {
			b.cfg.Grace = 0
			b.end()
			b.start()
		},
		"a reload": func(b *bench) { b.batch.Set(b.cfg) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			r := &requests{step: sandbox.Step{Status: 429, Identifier: "TOO_MANY_REQUESTS", Message: "slow", RetryAfter: "2"}}
			b.api.Decide(r.decide)
			b.start()
			b.send("case")
			b.until("shut account")
			r.set(sandbox.Step{})
			if asked := time.Duration(b.ev.asked.Load()); asked <= 0 || asked > 2*time.Second {
				t.Errorf("it is told that the service asked for %s", asked)
			}
			what(b)
			b.put("new")
			a := b.arrival("new")
			go func() { b.in <- a }()
			ends := []string{<-b.ev.ended, <-b.ev.ended}
			slices.Sort(ends)
			if !slices.Equal(ends, []string{"case accepted done/case", "new accepted done/new"}) {
				t.Error(ends)
			}
			if gap := r.gap(); gap < 1900*time.Millisecond {
				t.Errorf("asked for 2 s, the next request came after %s", gap)
			}
		})
	}
}

// While the account's gate is shut, what is decided is filed all the same.
func TestFiledWhileTheAccountWaits(t *testing.T) {
	b := newBench(t)
	b.cfg.DiskRetry = 10 * time.Millisecond
	done := b.spool.Path(spool.Done)
	must(t, os.Rename(done, done+".away"))
	b.start()
	b.send("case") // it is accepted, and can't be filed
	b.until("shut disk")
	b.api.Always(&sandbox.Step{Status: 429, Identifier: "TOO_MANY_REQUESTS", Message: "slow", RetryAfter: "600"})
	b.send("other")
	b.until("shut account")
	must(t, os.Rename(done+".away", done))
	b.want("case accepted done/case")
	b.until("opened disk")
	if b.ev.has("opened account") {
		t.Error("it opened the account's gate")
	}
}

// What folders met as probes, while the gate was shut, is not theirs: after a
// long outage none is given up at its first failure.
func TestOutageIsNotCharged(t *testing.T) {
	b := newBench(t)
	b.patience = time.Minute
	// Before the gate shuts a folder fails once or twice, also on a busy machine:
	// what it fails by itself is too little to be given up for.
	b.cfg.Retry = batch.Retry{First: 300 * time.Millisecond, Max: 300 * time.Millisecond, GiveUpAfter: time.Millisecond}
	down := sandbox.Step{Status: 500, Identifier: "INTERNAL_ERROR", Message: "down"}
	b.api.Always(&down)
	names := []string{"a", "b", "c"}
	for _, name := range names {
		b.put(name)
	}
	b.start()
	for _, name := range names {
		b.in <- b.arrival(name)
	}
	b.until("shut account, 12 tries")
	for _, name := range names[1:] {
		b.api.Script(token(name), down)
	}
	b.api.Always(nil)
	for range names {
		if end := <-b.ev.ended; !strings.Contains(end, " accepted ") {
			t.Error(end)
		}
	}
}
