package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/sidecar"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lab is a daemon in this process, and a sandbox.
type lab struct {
	t    *testing.T
	root string // the spool
	api  *sandbox.Sandbox
	log  *syncBuffer
	done chan error

	mu   sync.Mutex
	cfg  config.Config
	bad  error // of the next Load
	seen []events.Event
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns what was written so far.
func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newLab(t *testing.T, change func(*config.Config)) *lab {
	t.Helper()
	dir := t.TempDir()
	l := &lab{t: t, root: filepath.Join(dir, "spool"), api: sandbox.New(sandbox.Options{Key: "key", Secret: "secret"}), log: &syncBuffer{}, done: make(chan error, 1)}
	url, stopAPI, err := l.api.Start()
	must(t, err)
	l.cfg = config.Default()
	l.cfg.Root = l.root
	must(t, os.MkdirAll(filepath.Join(l.root, "inbox"), 0o700))
	l.cfg.API.BaseURL = url
	l.cfg.API.KeyFile, l.cfg.API.SecretFile = filepath.Join(dir, "key"), filepath.Join(dir, "secret")
	must(t, os.WriteFile(l.cfg.API.KeyFile, []byte("key"), 0o600))
	must(t, os.WriteFile(l.cfg.API.SecretFile, []byte("secret"), 0o600))
	l.cfg.Completeness.Settle, l.cfg.Completeness.Rescan = config.Duration(100*time.Millisecond), config.Duration(100*time.Millisecond)
	change(&l.cfg)
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, err := daemon.Run(ctx, daemon.Options{Load: l.load, Version: "test", Log: l.log, Screen: l.see})
		l.done <- err
	}()
	t.Cleanup(func() {
		stop()
		must(t, <-l.done)
		stopAPI()
		if v := l.api.Report().Violations; len(v) > 0 {
			t.Errorf("violations: %v", v)
		}
	})
	l.until("the daemon answers", func() bool {
		c, err := control.Dial(l.root)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return l
}

func (l *lab) load() (config.Config, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cfg, l.bad
}

func (l *lab) see(e events.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, e)
}

func (l *lab) until(what string, is func() bool) {
	l.t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("not within a minute: %s; log:\n%s", what, l.log)
		}
	}
}

func (l *lab) put(name string) {
	l.t.Helper()
	must(l.t, sample.Write(filepath.Join(l.root, "inbox", name), map[string][]byte{
		"FRONT.jpg": sample.Front(), "FACE.jpg": sample.Face(), "meta.yaml": []byte(sample.Meta(token(name), "LT", "PASSPORT")),
	}))
}

func token(name string) string { return "TOKEN-" + name + "-0123456789" }

// reload changes the configuration as it is read from then on, and asks the
// daemon to read it.
func (l *lab) reload(change func(*config.Config), bad error) error {
	l.t.Helper()
	l.mu.Lock()
	was := l.cfg
	if change != nil {
		change(&l.cfg)
	}
	l.bad = bad
	l.mu.Unlock()
	c, err := control.Dial(l.root)
	must(l.t, err)
	defer c.Close()
	_, err = c.Reload(l.t.Context())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad = nil
	if err != nil {
		l.cfg = was
	}
	return err
}

func (l *lab) names(place string) []string {
	entries, _ := os.ReadDir(filepath.Join(l.root, place))
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	return l.Addr().String()
}

func get(address, path string) (int, string) {
	res, err := http.Get("http://" + address + path)
	if err != nil {
		return 0, ""
	}
	defer res.Body.Close()
	data, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(data)
}

// 200 reloads, good and refused, while folders come in whose answers take
// longer than shutdown_grace: nothing is cut off, held or sent twice, and the
// daemon is healthy all the time.
func TestReloadStopsNothing(t *testing.T) {
	const reloads, folders = 200, 24
	address := free(t)
	l := newLab(t, func(c *config.Config) {
		c.ShutdownGrace = config.Duration(10 * time.Millisecond)
		c.Metrics.Listen = address
		c.Log.Level = "error"
	})
	l.api.Decide(func(string, int) sandbox.Step { return sandbox.Step{Latency: 1500 * time.Millisecond} })
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()

	var sick atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			if code, _ := get(address, "/healthz"); code != http.StatusOK {
				sick.Add(1)
			}
		}
	})
	group.Go(func() {
		for n := range folders {
			l.put(fmt.Sprintf("case%02d", n))
			time.Sleep(150 * time.Millisecond)
		}
	})
	l.reloadOften(reloads, taken.Addr().String())
	l.until("all are done", func() bool { return len(l.names("done")) == folders })
	stop()
	group.Wait()
	r := l.api.Report()
	if r.Requests != folders || r.Processed != folders || len(l.names("hold"))+len(l.names("failed"))+len(l.names("work")) > 0 {
		t.Errorf("%d requests, %d processed; hold %v, failed %v, work %v", r.Requests, r.Processed, l.names("hold"), l.names("failed"), l.names("work"))
	}
	if sick.Load() > 0 {
		t.Errorf("not healthy %d times", sick.Load())
	}
	l.calm(reloads)
}

// reloadOften reloads n times, in all ways in turn; at the address taken
// somebody listens already.
func (l *lab) reloadOften(n int, taken string) {
	l.t.Helper()
	kinds := []struct {
		change func(n int, c *config.Config)
		bad    error
		says   string
	}{
		{func(n int, c *config.Config) { c.Concurrency = 3 + n%5 }, nil, ""},
		{nil, errors.New("colour: unknown key"), "colour"},
		{func(_ int, c *config.Config) { c.Metrics.Listen = taken }, nil, "address already in use"},
		{func(n int, c *config.Config) {
			c.Completeness.Settle = config.Duration(100+n%50) * config.Duration(time.Millisecond)
		}, nil, ""},
		{func(_ int, c *config.Config) { c.API.KeyFile = "/nowhere/key" }, nil, "/nowhere/key"},
		{func(_ int, c *config.Config) { c.Root += "/other" }, nil, "can't change"},
		{func(n int, c *config.Config) {
			c.Rate.PerHour, c.Completeness.ReadyMarker = n%2*9000, fmt.Sprint(".ready", n)
		}, nil, ""},
	}
	for n := range n {
		k := kinds[n%len(kinds)]
		err := l.reload(func(c *config.Config) {
			if k.change != nil {
				k.change(n, c)
			}
		}, k.bad)
		if (err != nil) != (k.says != "") || err != nil && !strings.Contains(err.Error(), k.says) {
			l.t.Fatalf("reload %d: %v, want %q", n, err, k.says)
		}
		time.Sleep(25 * time.Millisecond)
	}
}

// calm checks that so many reloads are all that happened besides folders that
// were answered at their first attempt.
func (l *lab) calm(reloads int) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	done, refused := 0, 0
	for _, e := range l.seen {
		switch e := e.(type) {
		case events.Reloaded:
			done++
		case events.ReloadRefused:
			refused++
		case events.Attempted:
			if e.Attempt.State != sidecar.Answered {
				l.t.Errorf("%s: attempt %+v", e.Folder, e.Attempt)
			}
		case events.GateShut, events.Released, events.Stopping, events.Stopped:
			l.t.Errorf("%T %+v", e, e)
		}
	}
	if done+refused != reloads || refused == 0 {
		l.t.Errorf("%d done, %d refused", done, refused)
	}
}

// The listener for metrics moves, goes and comes back; the counters go on.
func TestReloadMetrics(t *testing.T) {
	one, two := free(t), free(t)
	l := newLab(t, func(c *config.Config) { c.Metrics.Listen = one })
	l.put("case")
	l.until("done", func() bool { return len(l.names("done")) == 1 })
	counts := func(address string) bool {
		_, text := get(address, "/metrics")
		return strings.Contains(text, `idenfy_batch_folders_ended_total{outcome="accepted"} 1`)
	}
	l.until("counted", func() bool { return counts(one) })
	must(t, l.reload(func(c *config.Config) { c.Metrics.Listen = two }, nil))
	if !counts(two) || counts(one) {
		t.Error("it did not move")
	}
	must(t, l.reload(func(c *config.Config) { c.Metrics.Listen = "" }, nil))
	if counts(two) {
		t.Error("it is not off")
	}
	must(t, l.reload(func(c *config.Config) { c.Metrics.Listen = one }, nil))
	if !counts(one) {
		t.Error("it is not on again")
	}
}

// New keys mend a pause by the reload alone, and the level of the log changes.
func TestReloadKeys(t *testing.T) {
	l := newLab(t, func(c *config.Config) {
		c.Retry.First, c.Retry.Max = config.Duration(time.Hour), config.Duration(time.Hour)
	})
	must(t, os.WriteFile(l.cfg.API.KeyFile, []byte("wrong"), 0o600))
	must(t, l.reload(nil, nil))
	l.put("case")
	l.until("paused", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return slices.ContainsFunc(l.seen, func(e events.Event) bool { _, ok := e.(events.GateShut); return ok })
	})
	must(t, os.WriteFile(l.cfg.API.KeyFile, []byte("key"), 0o600))
	must(t, l.reload(func(c *config.Config) { c.Log.Level, c.Log.Format = "debug", "json" }, nil))
	l.until("done", func() bool { return len(l.names("done")) == 1 })
	if !strings.Contains(l.log.String(), `"level":"debug"`) {
		t.Errorf("no line of debug:\n%s", l.log)
	}
}

// A credential of systemd stays as it was at the start, and the reload says so.
func TestReloadCredential(t *testing.T) {
	l := newLab(t, func(*config.Config) {})
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	must(t, os.WriteFile(filepath.Join(dir, "idenfy-api-key"), []byte("key"), 0o600))
	must(t, l.reload(func(c *config.Config) { c.API.KeyFile = "" }, nil))
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.ContainsFunc(l.seen, func(e events.Event) bool {
		r, ok := e.(events.Reloaded)
		return ok && strings.Contains(r.Note, "systemctl restart")
	}) {
		t.Errorf("no note: %+v", l.seen)
	}
}

// A person's decision is made by the running daemon.
func TestDecide(t *testing.T) {
	l := newLab(t, func(*config.Config) {})
	l.api.Script(token("case"), sandbox.Step{Status: 400, Identifier: "BAD_VALUE", Message: "no"})
	l.put("case")
	l.until("failed", func() bool { return len(l.names("failed")) == 1 })
	l.api.Forgive(token("case"))
	c, err := control.Dial(l.root)
	must(t, err)
	defer c.Close()
	list, err := c.Decide(t.Context(), control.Decision{Names: []string{"case", "nobody"}, Action: sidecar.Requeued, By: control.Self()})
	if err != nil || len(list) != 2 || list[0].Place != "inbox" || list[0].Err != "" || !strings.Contains(list[1].Err, "no such folder") {
		t.Fatalf("%+v, %v", list, err)
	}
	l.until("done", func() bool { return len(l.names("done")) == 1 })
	n := 0
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.seen {
		if d, ok := e.(events.Decided); ok && (d.Err != nil) == (d.Folder == "nobody") {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d events of decisions", n)
	}
}
