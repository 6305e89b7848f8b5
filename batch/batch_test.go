package batch_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/time/rate"

	"idenfy-batch/batch"
	"idenfy-batch/internal/decision"
	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

var (
	front, back, face = sample.Front(), sample.Back(), sample.Face()

	limits = meta.Limits{Request: 20_000_000, Files: 64, Marker: ".ready"}
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// notes keeps what the batch reports.
type notes struct {
	mu    sync.Mutex
	list  []string
	ended chan string // "folder outcome place"
	turns atomic.Int64

	inFlight atomic.Int64
	asked    atomic.Int64 // for how long the service wants to be left alone, by the newest gate that was shut
}

func (n *notes) add(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, fmt.Sprintf(format, args...))
}

func (n *notes) has(prefix string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(n.list, func(s string) bool { return strings.HasPrefix(s, prefix) })
}

func (n *notes) count(prefix string) (c int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.list {
		if strings.HasPrefix(s, prefix) {
			c++
		}
	}
	return c
}

// take is the sink of events.
func (n *notes) take(e events.Event) {
	switch e := e.(type) {
	case events.Recovered:
		n.add("recovered %d", e.Folders)
	case events.Claimed:
		n.add("claimed %s", e.Folder)
	case events.ClaimFailed:
		n.add("claim failed %s", e.Folder)
	case events.FolderStuck:
		n.add("stuck %s in %s: %s; %s", e.Folder, e.Place, e.Reason, e.Mend)
	case events.FolderFreed:
		n.add("freed %s in %s", e.Folder, e.Place)
	case events.Released:
		n.add("released %s: %s", e.Folder, e.Why)
	case events.Vanished:
		n.add("vanished %s", e.Folder)
	case events.Attempted:
		n.add("attempt %s %d %s", e.Folder, e.Attempt.N, e.Attempt.State)
	case events.SessionAsked:
		n.add("asked %s %d %s", e.Folder, e.Opening.N, e.Opening.State)
	case events.GateShut:
		n.add("shut %s, %d tries: %s; %s", e.Owner, e.Tries, e.Reason, e.Mend)
		n.asked.Store(int64(e.Asked))
	case events.GateOpened:
		n.add("opened %s", e.Owner)
	case events.Progress:
		n.inFlight.Store(int64(e.InFlight))
		n.turns.Add(1)
	case events.Ended:
		n.add("ended %s %s", e.Result.Folder, e.Result.Outcome)
		n.ended <- fmt.Sprintf("%s %s %s/%s", e.Result.Folder, e.Result.Outcome, e.Place, e.Name)
	}
}

// bench is a batch on a spool of its own, against a sandbox.
type bench struct {
	t     testing.TB
	spool *spool.Spool
	where journal.Where
	api   *sandbox.Sandbox
	cfg   batch.Settings
	once  bool
	ev    *notes
	batch *batch.Batch
	in    chan drop.Arrival
	done  chan batch.Left
	stop  context.CancelFunc
	url   string

	journal  *journal.Journal // while it runs
	ended    func(error)      // what Run returned, if that is not to be an error of the test
	patience time.Duration    // of the client; 0: little, so that stalls end soon
	before   int              // requests of earlier lives
}

// memory is a temporary directory in memory where there is one: what power cuts
// leave is for other tests, and these are many.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "idenfy-batch-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

func newBench(t testing.TB, of ...sandbox.Options) *bench {
	t.Helper()
	useDisks()
	paths := spool.Paths{}
	root := memory(t)
	for _, p := range spool.Places() {
		paths[p] = filepath.Join(root, string(p))
	}
	s, err := spool.Open(paths)
	must(t, err)
	b := &bench{t: t, spool: s, where: journal.Where{Dir: filepath.Join(root, "journal"), Mark: paths[spool.Work]}, api: sandbox.New(append(of, sandbox.Options{})[0]), cfg: batch.Settings{
		Concurrency: 3, Grace: 5 * time.Second, Limits: limits,
		Retry:  batch.Retry{First: 10 * time.Millisecond, Max: 50 * time.Millisecond, GiveUpAfter: time.Hour},
		Daemon: sidecar.Daemon{Version: "test", Host: "test"},

		SessionExpiry: time.Hour,
	}}
	newJournal(t, b.where)
	url, stop, err := b.api.Start()
	must(t, err)
	b.url = url
	t.Cleanup(func() {
		if b.stop != nil {
			b.end()
		}
		stop()
		must(t, s.Close())
		b.noTokens(false)
		if v := b.api.Report().Violations; len(v) > 0 {
			t.Errorf("violations: %v", v)
		}
	})
	return b
}

// start runs the batch, as a daemon's start does.
func (b *bench) start() {
	b.t.Helper()
	b.startAt(b.url)
}

func (b *bench) startAt(url string) {
	b.startWith(idenfy.Options{BaseURL: url, Timeout: cmp.Or(b.patience, 400*time.Millisecond)})
}

func (b *bench) startWith(o idenfy.Options) {
	b.ev = &notes{ended: make(chan string, 100)}
	b.in = make(chan drop.Arrival)
	b.done = make(chan batch.Left, 1)
	o.Key, o.Secret, o.Conns = "k", "s", 3
	client := idenfy.New(o)
	j, err := journal.Open(b.where)
	must(b.t, err)
	b.journal = j
	b.cfg.API, b.cfg.Rate = client, rate.NewLimiter(rate.Inf, 1)
	b.batch = batch.New(b.cfg, b.spool, j, b.ev.take)
	ctx, stop := context.WithCancel(b.t.Context())
	b.stop = stop
	in, done := b.in, b.done
	go func() {
		left, err := b.batch.Run(ctx, in, b.once)
		client.Close()
		err = errors.Join(err, j.Close())
		if b.ended != nil {
			b.ended(err)
		} else if err != nil {
			b.t.Error(err)
		}
		done <- left
	}()
}

func (b *bench) end() batch.Left {
	b.stop()
	b.stop = nil
	left := <-b.done
	b.ledgerHolds()
	return left
}

func token(name string) string { return "TOKEN-" + name + "-0123456789" }

func text(name string, more ...string) string {
	return sample.Meta(token(name), "LT", "ID_CARD", more...)
}

// put makes a whole folder in the inbox.
func (b *bench) put(name string, more ...string) {
	b.t.Helper()
	must(b.t, sample.Write(filepath.Join(b.spool.Path(spool.Inbox), name), map[string][]byte{
		"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face, "meta.yaml": []byte(text(name, more...)),
	}))
}

// arrival is what the watcher would hand on.
func (b *bench) arrival(name string) drop.Arrival {
	b.t.Helper()
	a, err := b.look(name)
	must(b.t, err)
	return a
}

// look is arrival for a folder that may not be there.
func (b *bench) look(name string) (drop.Arrival, error) {
	b.t.Helper()
	parent, err := os.OpenRoot(b.spool.Path(spool.Inbox))
	must(b.t, err)
	defer parent.Close()
	root, err := drop.Open(parent, name)
	if err != nil {
		return drop.Arrival{}, err
	}
	defer root.Close()
	l, err := meta.List(root, limits)
	return drop.Arrival{Dir: b.spool.Path(spool.Inbox), Name: name, Content: l.Content, FirstSeen: time.Now(), Complete: time.Now()}, err
}

func (b *bench) send(name string, more ...string) {
	b.t.Helper()
	b.put(name, more...)
	b.in <- b.arrival(name)
}

// want waits for the next end of a folder.
func (b *bench) want(end string) {
	b.t.Helper()
	select {
	case got := <-b.ev.ended:
		if got != end {
			b.t.Fatalf("ended: %s, want %s", got, end)
		}
	case <-time.After(time.Minute):
		b.t.Fatalf("%s doesn't end; reports: %v", end, b.ev.list)
	}
}

// until waits for a report.
func (b *bench) until(prefix string) {
	b.t.Helper()
	for end := time.Now().Add(time.Minute); !b.ev.has(prefix); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("no report %q; there are: %v", prefix, b.ev.list)
		}
	}
}

var schema = sync.OnceValue(func() *jsonschema.Schema {
	return jsonschema.NewCompiler().MustCompile("../sidecar/result.schema.json")
})

func (b *bench) result(p spool.Place, name string) *sidecar.Result {
	b.t.Helper()
	root, err := os.OpenRoot(filepath.Join(b.spool.Path(p), name))
	must(b.t, err)
	defer root.Close()
	r, err := sidecar.Read(root)
	must(b.t, err)
	data, err := root.ReadFile(sidecar.Name)
	must(b.t, err)
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	must(b.t, err)
	if err := schema().Validate(value); err != nil {
		b.t.Errorf("%s/%s/%s is not as its schema demands: %v", p, name, sidecar.Name, err)
	}
	return r
}

func codes(r *sidecar.Result) (list []string) {
	for _, reason := range r.Reasons {
		list = append(list, reason.Code)
	}
	return list
}

func states(r *sidecar.Result) (list []string) {
	for _, a := range r.Attempts {
		list = append(list, string(a.State))
	}
	return list
}

func (b *bench) check(r *sidecar.Result, wantStates, wantCodes []string) {
	b.t.Helper()
	if !slices.Equal(states(r), wantStates) || !slices.Equal(codes(r), wantCodes) {
		b.t.Errorf("%s: attempts %v, reasons %v; want %v and %v", r.Folder, states(r), codes(r), wantStates, wantCodes)
	}
}

func TestAccepted(t *testing.T) {
	b := newBench(t)
	b.start()
	b.put("case")
	must(t, os.WriteFile(filepath.Join(b.spool.Path(spool.Inbox), "case", "note.txt"), []byte("x"), 0o600))
	must(t, os.Mkdir(filepath.Join(b.spool.Path(spool.Inbox), "case", "sub"), 0o700))
	b.in <- b.arrival("case")
	b.want("case accepted done/case")
	r := b.result(spool.Done, "case")
	b.check(r, []string{"answered"}, nil)
	seen := b.api.Token(token("case"))
	for _, img := range r.Request.Images {
		if img.SHA256 == "" || img.SHA256 != seen.Sums[img.Step] || img.Width == 0 {
			t.Errorf("image %+v; the API got %v", img, seen.Sums)
		}
	}
	if !slices.Equal(r.ExtraFiles, []string{"note.txt", "sub/"}) || r.Request.TokenHint != "TOKE… (21 characters)" || len(r.Request.Images) != 3 {
		t.Errorf("result %+v", r)
	}
	data, err := os.ReadFile(filepath.Join(b.spool.Path(spool.Done), "case", "result.json"))
	must(t, err)
	if strings.Contains(string(data), token("case")) {
		t.Error("the token stands in the result")
	}
	// The same name again, and what came with the folder as evidence: of an id
	// that the journal doesn't know it says nothing.
	data = bytes.ReplaceAll(data, []byte(r.ID), []byte(spool.NewID()))
	b.put("case")
	must(t, os.WriteFile(filepath.Join(b.spool.Path(spool.Inbox), "case", "meta.yaml"), []byte(text("other")), 0o600))
	must(t, os.WriteFile(filepath.Join(b.spool.Path(spool.Inbox), "case", "result.json"), data, 0o600))
	b.in <- b.arrival("case")
	b.want("case accepted done/case.2")
	if old, err := os.ReadFile(filepath.Join(b.spool.Path(spool.Done), "case.2", "result.1.json")); err != nil || string(old) != string(data) {
		t.Errorf("the old result: %v", err)
	}
}

func TestRejectedAndRefused(t *testing.T) {
	b := newBench(t)
	b.start()
	b.send("no", "images: {FRONT: FRONT.jpg, FACE: FACE.jpg}")
	b.want("no rejected failed/no")
	r := b.result(spool.Failed, "no")
	b.check(r, []string{"answered"}, []string{"MISSING_VALUE"})
	if m := r.Reasons[0]; m.Message != "No image provided for step 'BACK'" || m.Source != sidecar.FromAPI {
		t.Errorf("reason %+v", m)
	}
	b.api.Script(token("undetected"), sandbox.Step{Status: 200, Identifier: "VALIDATION_ERROR", Message: "Document not detected"})
	b.send("undetected")
	b.want("undetected rejected failed/undetected")
	b.send("bad", "colour: red", "scanRef: '?'")
	b.want("bad invalid failed/bad")
	b.check(b.result(spool.Failed, "bad"), nil, []string{"unknown_key", "bad_value"})
	b.put("old")
	must(t, os.Remove(filepath.Join(b.spool.Path(spool.Inbox), "old", "BACK.jpg")))
	a := b.arrival("old")
	a.Expired = true
	b.in <- a
	b.want("old incomplete failed/old")
	b.check(b.result(spool.Failed, "old"), nil, []string{"missing_file"})
	// A token that was used before by somebody else.
	b.api.Issue(token("used"), "ref-used-1")
	b.api.SetStatus(token("used"), "APPROVED")
	b.send("used", "scanRef: ref-used-1")
	b.want("used rejected failed/used")
	b.check(b.result(spool.Failed, "used"), []string{"answered"}, []string{"TOKEN_NOT_VALID"})
}

func TestReleased(t *testing.T) {
	b := newBench(t)
	b.start()
	inbox := b.spool.Path(spool.Inbox)
	back := func(name, why string) {
		t.Helper()
		b.until("released " + name + ": " + why)
		if _, err := os.Stat(filepath.Join(inbox, name, "meta.yaml")); err != nil {
			t.Error(err)
		}
	}
	b.put("changed")
	a := b.arrival("changed")
	must(t, os.WriteFile(filepath.Join(inbox, "changed", "more.txt"), nil, 0o600))
	b.in <- a
	back("changed", "it changed")

	b.put("open")
	f, err := os.OpenFile(filepath.Join(inbox, "open", "FACE.jpg"), os.O_WRONLY, 0)
	must(t, err)
	b.in <- b.arrival("open")
	back("open", "somebody has")
	must(t, f.Close())

	b.put("partly")
	must(t, os.Truncate(filepath.Join(inbox, "partly", "FACE.jpg"), 100))
	b.in <- b.arrival("partly")
	back("partly", "it is not complete")

	b.in <- drop.Arrival{Dir: b.spool.Path(spool.Inbox), Name: "gone"}
	must(t, os.Symlink("/etc", filepath.Join(inbox, "link")))
	b.in <- drop.Arrival{Dir: b.spool.Path(spool.Inbox), Name: "link"}
	b.until("released link")
	if target, err := os.Readlink(filepath.Join(inbox, "link")); err != nil || target != "/etc" {
		t.Error(target, err)
	}
	if n := b.api.Report().Requests; n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestUnanswered(t *testing.T) {
	b := newBench(t)
	b.start()
	// Not taken: the same token again.
	b.api.Script(token("reset"), sandbox.Step{Fault: sandbox.ResetInBody})
	b.send("reset")
	b.want("reset accepted done/reset")
	b.check(b.result(spool.Done, "reset"), []string{"no_answer", "answered"}, nil)
	// Taken, and nothing to ask by: a person decides.
	b.api.Script(token("lost"), sandbox.Step{Fault: sandbox.LoseAnswer})
	b.send("lost")
	b.want("lost unknown hold/lost")
	b.check(b.result(spool.Hold, "lost"), []string{"no_answer", "answered"}, []string{"may_have_been_accepted"})
	// A server error may have been taken as well.
	b.api.Script(token("five"), sandbox.Step{Status: 502}, sandbox.Step{Status: 400, Identifier: "TOKEN_NOT_VALID", Message: "Token is not valid"})
	b.send("five")
	b.want("five unknown hold/five")
	// With a scanRef one question settles it.
	for status, end := range map[string]string{
		"REVIEWING": "accepted done", "DENIED": "accepted done", "EXPIRED": "rejected failed",
	} {
		name := "ref-" + status
		b.api.Issue(token(name), name)
		b.api.Script(token(name), sandbox.Step{Fault: sandbox.Stall})
		b.api.SetStatus(token(name), status)
		before := b.api.Report()
		b.send(name, "scanRef: "+name)
		b.want(fmt.Sprintf("%s %s/%s", name, end, name))
		after := b.api.Report()
		if after.Status != before.Status+1 || after.Requests != before.Requests+1 {
			t.Errorf("%s: %d questions, %d requests", status, after.Status-before.Status, after.Requests-before.Requests)
		}
	}
	b.api.Issue(token("active"), "ref-active")
	b.api.Script(token("active"), sandbox.Step{Fault: sandbox.Garbage})
	b.send("active", "scanRef: ref-active")
	b.want("active accepted done/active")
	b.check(b.result(spool.Done, "active"), []string{"no_answer", "answered"}, nil)
	// The session is not known: the token decides.
	b.api.Script(token("stranger"), sandbox.Step{Fault: sandbox.LoseAnswer})
	b.send("stranger", "scanRef: not-of-this-account")
	b.want("stranger unknown hold/stranger")
}

func (b *bench) inWork() string {
	b.t.Helper()
	names, err := b.spool.List(spool.Work)
	must(b.t, err)
	if len(names) != 1 {
		b.t.Fatalf("in work: %v", names)
	}
	return names[0]
}

// A pause without a folder to probe with costs nothing, and ends with the next.
func TestPauseWithNothingToDo(t *testing.T) {
	b := newBench(t)
	b.start()
	b.api.Always(&sandbox.Step{Status: 401, Identifier: "UNAUTHORIZED", Message: "no", Latency: 20 * time.Millisecond})
	b.send("taken")
	b.until("shut")
	for range 100 { // somebody takes it away between two probes
		if names, err := b.spool.List(spool.Work); err == nil && len(names) == 1 {
			_ = os.RemoveAll(filepath.Join(b.spool.Path(spool.Work), names[0])) // a probe may be writing in it
		}
		time.Sleep(5 * time.Millisecond)
	}
	before := b.ev.turns.Load()
	time.Sleep(500 * time.Millisecond)
	if turns := b.ev.turns.Load() - before; turns > 20 {
		t.Errorf("%d turns within half a second of waiting", turns)
	}
	b.api.Always(nil)
	b.send("next")
	b.want("next accepted done/next")
	b.until("opened")
}

func TestRetryAfterIsHonoured(t *testing.T) {
	b := newBench(t)
	b.start()
	b.api.Script(token("a"), sandbox.Step{Status: 429, Identifier: "TOO_MANY_REQUESTS", Message: "slow", RetryAfter: "1"})
	begin := time.Now()
	b.send("a")
	b.want("a accepted done/a")
	if took := time.Since(begin); took < time.Second {
		t.Errorf("it was sent again after %s", took)
	}
}

// One folder that always fails doesn't stop the others, and is given up.
func TestPoison(t *testing.T) {
	b := newBench(t)
	b.cfg.Retry.GiveUpAfter = 100 * time.Millisecond
	b.start()
	b.api.Decide(func(tok string, _ int) sandbox.Step {
		if tok == token("poison") {
			return sandbox.Step{Status: 500, Identifier: "INTERNAL_ERROR", Message: "oops"}
		}
		return sandbox.Step{}
	})
	b.send("poison")
	for n := range 5 {
		b.send(fmt.Sprintf("good%d", n))
	}
	var ends []string
	for range 6 {
		ends = append(ends, <-b.ev.ended)
	}
	slices.Sort(ends)
	if ends[0] != "good0 accepted done/good0" || ends[4] != "good4 accepted done/good4" || ends[5] != "poison gave_up failed/poison" {
		t.Errorf("ended: %v", ends)
	}
	if b.ev.has("shut") {
		t.Errorf("paused: %v", b.ev.list)
	}
	// Attempts without an answer may have been taken, so giving up is for a person.
	b.api.Decide(func(string, int) sandbox.Step { return sandbox.Step{Fault: sandbox.ResetBeforeBody} })
	b.send("mute")
	b.want("mute unknown hold/mute")
}

// A stop parks what is in flight; the next start goes on with it.
func TestStopAndStart(t *testing.T) {
	b := newBench(t)
	b.cfg.Grace = 50 * time.Millisecond
	b.start()
	b.api.Script(token("slow"), sandbox.Step{Fault: sandbox.Stall})
	b.send("slow")
	for b.api.Token(token("slow")).Requests == 0 {
		time.Sleep(time.Millisecond)
	}
	if left := b.end(); left.InWork != 1 || left.Paused != "" {
		t.Errorf("left %+v", left)
	}
	b.check(b.result(spool.Work, b.inWork()), []string{"no_answer"}, nil)
	b.start()
	b.want("slow accepted done/slow")
	// A submission that ends within the grace is finished.
	b.end()
	b.cfg.Grace = 10 * time.Second
	b.start()
	b.api.Script(token("brief"), sandbox.Step{Latency: 100 * time.Millisecond})
	b.send("brief")
	for b.api.Token(token("brief")).Requests == 0 {
		time.Sleep(time.Millisecond)
	}
	if left := b.end(); left.InWork != 0 {
		t.Errorf("left %+v", left)
	}
	b.want("brief accepted done/brief")
}

// Every state that a crash can leave in work is gone on with.
func TestRecovery(t *testing.T) {
	b := newBench(t)
	j, err := journal.Open(b.where)
	must(t, err)
	claim := func(name string, l *journal.Life) string {
		t.Helper()
		b.put(name)
		id := spool.NewID()
		if l != nil {
			must(t, j.Claim(id, "inbox", name))
		}
		_, err := b.spool.Paths().Claim(spool.Inbox, name, id)
		must(t, err)
		if l == nil || l.State == journal.Claimed {
			return id
		}
		l.ID, l.Place = id, "work"
		l.Result.ID, l.Result.Folder = id, name
		for _, step := range []string{"FRONT", "BACK", "FACE"} {
			l.Result.Request.Images = append(l.Result.Request.Images, sidecar.Image{Step: step, File: step + ".jpg", Format: "jpeg"})
		}
		must(t, j.Put(l))
		return id
	}
	now := sidecar.Now()
	life := func(s journal.State, f journal.Fate, o sidecar.Outcome, attempts ...sidecar.Attempt) *journal.Life {
		return &journal.Life{State: s, Fate: f, Took: len(attempts) > 0, Result: &sidecar.Result{Outcome: o, Attempts: attempts}}
	}
	claim("claimed", life(journal.Claimed, "", ""))
	claim("sending", life(journal.Pending, journal.Unsettled, sidecar.Pending, sidecar.Attempt{N: 1, Started: now, State: sidecar.Sending}))
	claim("accepted", life(journal.Pending, journal.Taken, sidecar.Accepted, sidecar.Attempt{N: 1, Started: now, State: sidecar.Answered, HTTPStatus: 200}))
	claim("notsent", life(journal.Pending, journal.Unsent, sidecar.Pending, sidecar.Attempt{N: 1, Started: now, Finished: now, State: sidecar.NotSent}))
	ended := life(journal.Pending, journal.Taken, sidecar.Accepted, sidecar.Attempt{N: 1, Started: now, State: sidecar.Answered, HTTPStatus: 200})
	claim("ended", ended)
	ended.State, ended.Place = journal.Ended, "done"
	must(t, j.End(ended))
	// An id that the journal doesn't know may have been sent.
	claim("stranger", nil)
	must(t, os.Mkdir(filepath.Join(b.spool.Path(spool.Work), "byhand"), 0o700))
	// Lives whose folders are not there any more.
	must(t, j.Claim(spool.NewID(), "inbox", "never"))
	gone := spool.NewID()
	must(t, j.Claim(gone, "inbox", "gone"))
	must(t, j.Put(&journal.Life{ID: gone, State: journal.Pending, Fate: journal.Unsettled, Took: true, Result: &sidecar.Result{ID: gone, Folder: "gone", Outcome: sidecar.Pending}}))
	must(t, j.Close())

	b.start()
	b.until("recovered 7")
	b.until("vanished gone")
	var got []string
	for range 5 {
		got = append(got, <-b.ev.ended)
	}
	slices.Sort(got)
	want := []string{"accepted accepted done/accepted", "ended accepted done/ended", "notsent accepted done/notsent", "sending accepted done/sending", "stranger unknown hold/stranger"}
	if !slices.Equal(got, want) {
		t.Errorf("ended: %v", got)
	}
	for _, name := range []string{"claimed", "byhand"} {
		b.until("released " + name)
		if _, err := os.Stat(filepath.Join(b.spool.Path(spool.Inbox), name)); err != nil {
			t.Error(err)
		}
	}
	if r := b.result(spool.Done, "sending"); !slices.Equal(states(r), []string{"no_answer", "answered"}) {
		t.Errorf("attempts %v", states(r))
	}
	if n := b.api.Token(token("accepted")).Requests + b.api.Token(token("ended")).Requests + b.api.Token(token("stranger")).Requests; n != 0 {
		t.Errorf("%d requests that should not be", n)
	}
}

// A folder that somebody changes while it is in work is not sent on.
func TestChangedInWork(t *testing.T) {
	b := newBench(t)
	b.start()
	for name, end := range map[string]string{"lost": "unknown hold", "refused": "invalid failed"} {
		step := sandbox.Step{Fault: sandbox.LoseAnswer, Latency: 200 * time.Millisecond}
		if name == "refused" {
			step = sandbox.Step{Status: 429, Identifier: "TOO_MANY_REQUESTS", Message: "x", Latency: 200 * time.Millisecond}
		}
		b.api.Script(token(name), step)
		b.put(name)
		path := filepath.Join(b.spool.Path(spool.Inbox), name)
		dir, err := os.OpenRoot(path) // by which the folder is reached wherever it is
		must(t, err)
		b.in <- b.arrival(name)
		for b.api.Token(token(name)).Requests == 0 {
			time.Sleep(time.Millisecond)
		}
		must(t, dir.Chmod("FACE.jpg", 0o600)) // it is sealed
		must(t, dir.WriteFile("FACE.jpg", back, 0o600))
		must(t, dir.Close())
		b.want(fmt.Sprintf("%s %s/%s", name, end, name))
	}
	if n := b.api.Report().Processed; n != 1 {
		t.Errorf("%d processed", n)
	}
}

// The file is changed while it is being read to be sent: the request is left
// unfinished.
func TestChangedWhileSent(t *testing.T) {
	b := newBench(t)
	big := sample.Pad(front, 6_000_000, 1)
	b.api.Always(&sandbox.Step{Fault: sandbox.StallInBody})
	b.start()
	b.put("case")
	path := filepath.Join(b.spool.Path(spool.Inbox), "case")
	must(t, os.WriteFile(filepath.Join(path, "FACE.jpg"), big, 0o600))
	dir, err := os.OpenRoot(path)
	must(t, err)
	defer dir.Close()
	b.in <- b.arrival("case")
	b.until("claimed case")
	for b.api.Report().Requests == 0 {
		time.Sleep(time.Millisecond)
	}
	must(t, dir.Chmod("FACE.jpg", 0o600))                // it is sealed
	must(t, dir.WriteFile("FACE.jpg", big[:100], 0o600)) // the rest can't be read any more
	b.want("case invalid failed/case")
	if r := b.result(spool.Failed, "case"); !slices.Contains(codes(r), "changed_in_work") {
		t.Errorf("reasons %v", codes(r))
	}
	if n := b.api.Report().Processed; n != 0 {
		t.Errorf("%d processed", n)
	}
}

func TestOnce(t *testing.T) {
	b := newBench(t)
	b.once = true
	b.start()
	b.send("a")
	b.send("b", "colour: red")
	close(b.in)
	if left := <-b.done; left.InWork != 0 || left.Paused != "" {
		t.Errorf("left %+v", left)
	}
	b.stop = nil
	if b.ev.count("ended") != 2 {
		t.Errorf("reports %v", b.ev.list)
	}
}

func TestManyAtOnce(t *testing.T) {
	b := newBench(t)
	b.start()
	b.api.Always(&sandbox.Step{Latency: 20 * time.Millisecond})
	for n := range 30 {
		b.send(fmt.Sprintf("case%02d", n))
	}
	for range 30 {
		if end := <-b.ev.ended; !strings.Contains(end, "accepted") {
			t.Error(end)
		}
	}
	if r := b.api.Report(); r.Processed != 30 || r.Requests != 30 || r.MostAtOnce != b.cfg.Concurrency {
		t.Errorf("%+v", r)
	}
}

func TestSubmitInPlace(t *testing.T) {
	b := newBench(t)
	dir := filepath.Join(t.TempDir(), "case")
	must(t, sample.Write(dir, map[string][]byte{"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face, "meta.yaml": []byte(text("x"))}))
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	client := idenfy.New(idenfy.Options{BaseURL: b.url, Key: "k", Secret: "s", Timeout: time.Second})
	defer client.Close()
	j, err := journal.Open(b.where)
	must(t, err)
	defer j.Close()
	b.cfg.API, b.cfg.Rate = client, rate.NewLimiter(rate.Inf, 1)
	one := batch.New(b.cfg, nil, j, func(events.Event) {})
	b.api.Script(token("x"), sandbox.Step{Fault: sandbox.ResetInBody}, sandbox.Step{Status: 401})
	for n := range 2 {
		if res, err := one.Submit(t.Context(), root, "case"); err == nil {
			t.Fatalf("attempt %d ended: %+v", n+1, res)
		}
	}
	res, err := one.Submit(t.Context(), root, "case")
	if err != nil || res.Outcome != sidecar.Accepted || len(res.Attempts) != 3 {
		t.Fatalf("%+v, %v", res, err)
	}
	var refused *batch.RefusedError
	if _, err := one.Submit(t.Context(), root, "case"); !errors.As(err, &refused) {
		t.Errorf("once more: %v", err)
	}
	if n := b.api.Token(token("x")).Processed; n != 1 {
		t.Errorf("%d processed", n)
	}
	must(t, os.WriteFile(filepath.Join(dir, "meta.yaml"), []byte("{}\n"), 0o600))
	must(t, os.Remove(filepath.Join(dir, "result.json")))
	res, err = one.Submit(t.Context(), root, "case")
	if err != nil || res.Outcome != sidecar.Invalid {
		t.Errorf("invalid: %+v, %v", res, err)
	}
}

// done/ is missing for a while: the folder stays in work, and is filed when it
// is there again.
func TestTargetMissing(t *testing.T) {
	b := newBench(t)
	b.cfg.DiskRetry = 10 * time.Millisecond
	done := b.spool.Path(spool.Done)
	must(t, os.Rename(done, done+".away"))
	b.start()
	b.send("case")
	b.until("shut")
	must(t, os.Rename(done+".away", done))
	b.want("case accepted done/case")
	if n := b.api.Token(token("case")).Requests; n != 1 {
		t.Errorf("%d requests", n)
	}
}

// A folder that somebody takes out of work while the service has it, is decided
// about when its attempt has ended: what that says is not lost, nor is the
// decision.
func TestDecidedWhileSent(t *testing.T) {
	b := newBench(t)
	b.start()
	b.api.Script(token("case"), sandbox.Step{Latency: 200 * time.Millisecond})
	b.put("case")
	b.in <- b.arrival("case")
	for b.api.Token(token("case")).Requests == 0 {
		time.Sleep(time.Millisecond)
	}
	must(t, os.Rename(filepath.Join(b.spool.Path(spool.Work), b.inWork()), filepath.Join(b.spool.Path(spool.Hold), "case")))
	paths := b.spool.Paths()
	desk := decision.Desk{Paths: paths, Journal: b.journal, InWork: b.batch.InWork}
	dec := decision.Decision{Action: sidecar.Denied, Force: true}
	_, _, err := desk.Make(t.Context(), "case", dec)
	if _, ok := errors.AsType[*decision.RefusedError](err); !ok {
		t.Errorf("decided while it was being sent: %v", err)
	}
	for dec.Force = false; err != nil && strings.Contains(err.Error(), "is in work"); time.Sleep(time.Millisecond) {
		_, _, err = desk.Make(t.Context(), "case", dec)
	}
	if err == nil || !strings.Contains(err.Error(), "it was accepted") {
		t.Errorf("rejected, though it was accepted: %v", err)
	}
	dec.Action = sidecar.Confirmed
	if p, _, err := desk.Make(t.Context(), "case", dec); p != spool.Done {
		t.Error(p, err)
	}
	b.end()
	if n := b.api.Token(token("case")).Requests; n != 1 {
		t.Errorf("%d requests", n)
	}
}

// A person's decision that could not be written into the folder is written when
// that comes to work by hand.
func TestDecisionOnlyInJournal(t *testing.T) {
	b := newBench(t)
	b.start()
	b.api.Script(token("case"), sandbox.Step{Fault: sandbox.LoseAnswer})
	b.send("case")
	b.want("case unknown hold/case")
	before, id := b.raw(spool.Hold, "case"), b.result(spool.Hold, "case").ID
	must(t, b.decide("case", sidecar.Confirmed, false))
	b.end()
	done := filepath.Join(b.spool.Path(spool.Done), "case")
	must(t, os.Remove(filepath.Join(done, sidecar.Name)))
	must(t, os.WriteFile(filepath.Join(done, sidecar.Name), before, 0o640))
	must(t, os.Rename(done, filepath.Join(b.spool.Path(spool.Work), "case."+id)))
	b.start()
	b.want("case accepted done/case")
	b.end()
	if r := b.result(spool.Done, "case"); r.Outcome != sidecar.Accepted {
		t.Errorf("it is %s: %v", r.Outcome, codes(r))
	}
	j, err := journal.OpenReader(t.Context(), b.where)
	must(t, err)
	defer j.Close()
	b.entered(j, spool.Done, "case")
}

// A folder that somebody takes out of work, alters and drops again, before that was
// noticed, is held against what was sent of it.
func TestTakenFromWorkUnnoticed(t *testing.T) {
	b := newBench(t)
	b.cfg.Retry.First, b.cfg.Retry.Max = 1000*time.Hour, 1000*time.Hour // its next try never comes
	b.api.Always(&sandbox.Step{Status: 503})
	b.start()
	b.send("case")
	b.until("attempt case 1")
	inbox := filepath.Join(b.spool.Path(spool.Inbox), "case")
	must(t, os.Rename(filepath.Join(b.spool.Path(spool.Work), b.inWork()), inbox))
	must(t, os.WriteFile(filepath.Join(inbox, "meta.yaml"), []byte("contry: LT\n"), 0o600))
	b.in <- b.arrival("case")
	b.want("case unknown hold/case")
	b.check(b.result(spool.Hold, "case"), nil, []string{"missing_key", "missing_key", "missing_key", "unknown_key", "may_have_been_accepted"})
}
