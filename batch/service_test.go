package batch_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
)

// What is the service's fault pauses submission, keeps the folders, and passes
// by itself.
func TestServiceFaults(t *testing.T) {
	strange := httptest.NewTLSServer(http.NotFoundHandler()) // its certificate is nobody's
	strange.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(strange.Close)
	faults := map[string]struct {
		step *sandbox.Step
		url  string
		says string // in the reason of the pause
	}{
		"refused":             {url: "http://127.0.0.1:1", says: "refuses the connection"},
		"DNS failing":         {url: "http://idenfy.invalid", says: "idenfy.invalid"},
		"TLS wrong":           {url: strange.URL, says: "certificate"},
		"401":                 {step: &sandbox.Step{Status: 401, Identifier: "UNAUTHORIZED", Message: "no"}, says: "UNAUTHORIZED"},
		"403":                 {step: &sandbox.Step{Status: 403, Identifier: "PERMISSIONS_ERROR", Message: "no"}, says: "PERMISSIONS_ERROR"},
		"contract error":      {step: &sandbox.Step{Status: 400, Identifier: "PARTNER_CONTRACT_ERROR", Message: "no"}, says: "PARTNER_CONTRACT_ERROR"},
		"429":                 {step: &sandbox.Step{Status: 429, Identifier: "TOO_MANY_REQUESTS", Message: "no"}, says: "TOO_MANY_REQUESTS"},
		"429 by a proxy":      {step: &sandbox.Step{Status: 429, Body: "slow down", ContentType: "text/plain"}, says: "429"},
		"500":                 {step: &sandbox.Step{Status: 500, Identifier: "INTERNAL_ERROR", Message: "no"}, says: "3 folders in a row"},
		"503 without a body":  {step: &sandbox.Step{Status: 503}, says: "3 folders in a row"},
		"HTML, 404":           {step: &sandbox.Step{Status: 404, Body: "<html>", ContentType: "text/html"}, says: "proxy"},
		"HTML, 200":           {step: &sandbox.Step{Status: 200, Body: "<html>log in</html>", ContentType: "text/html"}, says: "proxy"},
		"HTML, 502":           {step: &sandbox.Step{Status: 502, Body: "<html>", ContentType: "text/html"}, says: "proxy"},
		"a redirect":          {step: &sandbox.Step{Status: 302}, says: "302"},
		"reset before a body": {step: &sandbox.Step{Fault: sandbox.ResetBeforeBody}, says: "in a row"},
		"reset in the body":   {step: &sandbox.Step{Fault: sandbox.ResetInBody}, says: "in a row"},
		"stalls in the body":  {step: &sandbox.Step{Fault: sandbox.StallInBody}, says: "no progress"},
		"stalls":              {step: &sandbox.Step{Fault: sandbox.Stall}, says: "no progress"},
		"speaks no HTTP":      {step: &sandbox.Step{Fault: sandbox.Garbage}, says: "in a row"},
	}
	t.Run("all", func(t *testing.T) {
		for name, fault := range faults {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				const folders = 5
				if !strings.HasPrefix(name, "stalls") {
					b.patience = time.Minute
				}
				b.api.Always(fault.step)
				b.start()
				if fault.url != "" {
					b.end()
					b.startAt(fault.url)
				}
				for n := range 3 {
					b.send(fmt.Sprintf("case%d", n))
				}
				for range 5 { // probes
					b.until("shut")
					for n, end := b.ev.count("shut"), time.Now().Add(20*time.Second); b.ev.count("shut") == n; time.Sleep(time.Millisecond) {
						if time.Now().After(end) {
							t.Fatalf("no probe: %v", b.ev.list)
						}
					}
				}
				if b.ev.has("ended") {
					t.Errorf("something ended: %v", b.ev.list)
				}
				if !slices.ContainsFunc(b.ev.all(), func(s string) bool { return strings.HasPrefix(s, "shut") && strings.Contains(s, fault.says) }) {
					t.Errorf("no pause because of %q: %v", fault.says, b.ev.all())
				}
				left := b.end()
				if left.InWork+b.inbox() != 3 || left.Paused == "" {
					t.Errorf("left %+v, %d in the inbox", left, b.inbox())
				}
				b.patience = time.Minute
				b.start() // a restart changes nothing
				b.api.Always(nil)
				for n := 3; n < folders; n++ {
					b.send(fmt.Sprintf("case%d", n))
				}
				for n := range 3 { // what was claimed and not sent when it stopped
					if name := fmt.Sprintf("case%d", n); b.inInbox(name) {
						b.in <- b.arrival(name)
					}
				}
				for range folders {
					if end := <-b.ev.ended; !strings.Contains(end, "accepted") {
						t.Error(end)
					}
				}
				if r := b.api.Report(); r.Processed != folders {
					t.Errorf("%+v", r)
				}
			})
		}
	})
	t.Logf("%d faults of the service: the inbox did not drain, 0 lost, 0 twice", len(faults))
}

func (n *notes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.list)
}

func (b *bench) inbox() int {
	b.t.Helper()
	names, err := b.spool.List(spool.Inbox)
	must(b.t, err)
	return len(names)
}

func (b *bench) inInbox(name string) bool {
	_, err := os.Stat(filepath.Join(b.spool.Path(spool.Inbox), name))
	return err == nil
}

// Each phase of a request breaks, and the process lives on, or ends at that
// moment and starts anew.
func TestPhases(t *testing.T) {
	phases := map[string]struct {
		step  sandbox.Step
		taken bool // the service has processed it
	}{
		"reset before the body": {sandbox.Step{Fault: sandbox.ResetBeforeBody}, false},
		"reset in the body":     {sandbox.Step{Fault: sandbox.ResetInBody}, false},
		"stalled in the body":   {sandbox.Step{Fault: sandbox.StallInBody}, false},
		"stalled at its end":    {sandbox.Step{Fault: sandbox.Stall}, false},
		"the answer is lost":    {sandbox.Step{Fault: sandbox.LoseAnswer}, true},
		"half an answer":        {sandbox.Step{Fault: sandbox.HalfAnswer}, true},
		"the answer is stalled": {sandbox.Step{Fault: sandbox.StallAnswer}, true},
		"no HTTP":               {sandbox.Step{Fault: sandbox.Garbage}, false},
		"a server error":        {sandbox.Step{Status: 502}, false},
		"refused for good":      {sandbox.Step{Status: 401, Identifier: "UNAUTHORIZED", Message: "no"}, false},
	}
	runs := 0
	t.Run("all", func(t *testing.T) {
		for name, phase := range phases {
			for _, crash := range []bool{false, true} {
				for _, known := range []bool{false, true} {
					runs++
					t.Run(fmt.Sprintf("%s, crash %v, scanRef %v", name, crash, known), func(t *testing.T) {
						t.Parallel()
						b := newBench(t)
						b.cfg.Grace = 0
						b.patience = 2 * time.Second
						p := &plan{}
						root := filepath.Dir(b.spool.Path(spool.Inbox)) + "/"
						disks.Store(root, p)
						defer disks.Delete(root)
						var more []string
						if known {
							b.api.Issue(token("case"), ref)
							more = []string{"scanRef: " + ref}
						}
						b.api.Always(&phase.step)
						b.start()
						b.send("case", more...)
						for b.api.Report().Requests == 0 || phase.taken && b.api.Report().Processed == 0 {
							time.Sleep(100 * time.Microsecond)
						}
						if crash {
							p.dead.Store(true)
							b.end()
							place := b.whole()
							b.forgive()
							for b.api.Report().InFlight > 0 && phase.step.Fault != sandbox.StallInBody { // what was on its way meets the fault as well
								time.Sleep(100 * time.Microsecond)
							}
							p.dead.Store(false)
							b.api.Always(nil)
							if place.Final() { // it ended before the crash came
								b.ev.ended <- fmt.Sprintf("case %s %s/case", b.result(place, "case").Outcome, place)
							} else {
								b.start()
							}
						} else {
							b.until("attempt case 1")
							b.api.Always(nil)
						}
						want := "case accepted done/case"
						if phase.taken && !known {
							want = "case unknown hold/case"
						}
						b.want(want)
						if n := b.api.Token(token("case")).Processed; n != 1 {
							t.Errorf("%d times processed", n)
						}
						if r := b.api.Report(); known && r.Status > 1+r.Requests {
							t.Errorf("%d status requests", r.Status)
						}
					})
				}
			}
		}
	})
	t.Logf("%d broken phases of a request: 0 lost, 0 twice", runs)
}

// pipes is a listener whose connections are in memory, so that a bubble of
// fake time sees both ends wait.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	down   func() error // the error of a dial; nil: it works
	dials  atomic.Int64
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.dials.Add(1)
	if err := p.down(); err != nil {
		return nil, err
	}
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// An hour without the service, in fake time: the inbox stays as it is but for
// what probes take, probes are few, and when it is back they don't all come
// at once.
func TestOutage(t *testing.T) {
	for name, fault := range map[string]*sandbox.Step{
		"refused": nil,
		"503":     {Status: 503},
		"stalled": {Fault: sandbox.Stall},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t) // its own server is not used
			const folders = 60
			var arrivals []drop.Arrival
			for n := range folders {
				b.put(fmt.Sprintf("case%02d", n))
				arrivals = append(arrivals, b.arrival(fmt.Sprintf("case%02d", n)))
			}
			synctest.Test(t, func(t *testing.T) {
				api := sandbox.New(sandbox.Options{})
				begin := time.Now()
				out := func() bool { return time.Since(begin) < time.Hour }
				p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{}), down: func() error {
					if fault == nil && out() {
						return &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
					}
					return nil
				}}
				api.Decide(func(string, int) sandbox.Step {
					if fault != nil && out() {
						return *fault
					}
					return sandbox.Step{Latency: time.Second}
				})
				ctx, stop := context.WithCancel(t.Context())
				served := make(chan error)
				go func() { served <- api.Serve(ctx, p) }()
				b.t = t
				b.cfg.Concurrency = 4
				b.cfg.Retry.First, b.cfg.Retry.Max = 2*time.Second, 10*time.Minute
				b.startWith(idenfy.Options{BaseURL: "http://pipe", Timeout: time.Minute, Dial: p.dial})
				b.ev.ended = make(chan string, folders)
				go func() { // the watcher
					for _, a := range arrivals {
						select {
						case b.in <- a:
						case <-ctx.Done():
							return
						}
					}
				}()
				time.Sleep(time.Hour - time.Second)
				tries := int(p.dials.Load())
				if fault != nil {
					tries = api.Report().Requests
				}
				inbox := b.inbox()
				if tries < 5 || tries > 100 || inbox < folders/3 || b.ev.has("ended") {
					t.Errorf("after an hour: %d tries, %d of %d in the inbox", tries, inbox, folders)
				}
				var first time.Duration
				for n := range folders {
					if end := <-b.ev.ended; !strings.Contains(end, "accepted") {
						t.Error(end)
					}
					if n == 0 {
						first = time.Since(begin) - time.Hour
					}
				}
				most := 10*time.Minute + 3*time.Second
				if fault != nil && fault.Fault == sandbox.Stall {
					most += time.Minute // the last probe that was stalled
				}
				if first > most {
					t.Errorf("the first was accepted %s after the end", first)
				}
				t.Logf("outage of an hour, %s: %d tries, %d of %d folders stayed in the inbox; after its end the first was accepted in %s, all in %s, at most %d at once",
					name, tries, inbox, folders, first.Round(time.Second), (time.Since(begin) - time.Hour).Round(time.Second), api.Report().MostAtOnce)
				if r := api.Report(); r.Processed != folders || r.MostAtOnce > b.cfg.Concurrency || len(r.Violations) > 0 {
					t.Errorf("%+v", r)
				}
				left := b.end()
				if left.InWork != 0 || left.Paused != "" {
					t.Errorf("left %+v", left)
				}
				stop()
				close(p.closed)
				if err := <-served; err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			})
		})
	}
}
