package batch_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/verify"
	"idenfy-batch/sidecar"
)

var matrixPart = flag.Int("matrix", 5, "the part of the faults that is tried: 1 of these")

// disks holds the plan for each spool that is under test, by its root.
var disks sync.Map

var useDisks = sync.OnceFunc(func() {
	durable.Inject(func(op durable.Op, path string, do func() error) error {
		if err := refused(op, path); err != nil {
			return err
		}
		var p *plan
		disks.Range(func(root, v any) bool {
			if strings.HasPrefix(path, root.(string)) {
				p = v.(*plan)
			}
			return p == nil
		})
		if p == nil {
			return do()
		}
		return p.step(op, path, do)
	})
})

// refusals holds, by a part of the path, what the renaming of a file that was
// written fails with.
var refusals sync.Map

// unmoved holds likewise what tells the error of a move out of such a path,
// once.
var unmoved sync.Map

func refused(op durable.Op, path string) (err error) {
	if op == durable.OpMove {
		unmoved.Range(func(part, v any) bool {
			if strings.Contains(path, part.(string)) {
				unmoved.Delete(part)
				err = &os.PathError{Op: "step", Path: path, Err: v.(func() error)()}
			}
			return err == nil
		})
		return err
	}
	if op != durable.OpRename {
		return nil
	}
	refusals.Range(func(part, v any) bool {
		if strings.Contains(path, part.(string)) {
			err = &os.PathError{Op: "step", Path: path, Err: v.(error)}
		}
		return err == nil
	})
	return err
}

// plan says which step of the disk fails, and how.
type plan struct {
	n       int64 // counted from 1; 0: none
	more    int64 // so many after it fail, too
	applied bool  // it is done, and fails all the same
	crash   bool  // the process ends there: no later step is done

	calls   atomic.Int64
	dead    atomic.Bool
	mounted atomic.Bool  // something lies over work, so that no folder can be moved
	failed  atomic.Value // the step that did, as text
	kept    sync.Map     // files of which a sync went well, by name
}

var errInjected = fmt.Errorf("injected: %w", syscall.EIO)

func (p *plan) step(op durable.Op, path string, do func() error) error {
	if p.dead.Load() {
		return errInjected
	}
	if p.mounted.Load() && op == durable.OpMove && !sidecar.IsOwn(filepath.Base(path)) { // those stay in their folder
		return syscall.EXDEV
	}
	if n := p.calls.Add(1); n < p.n || n > p.n+p.more || p.n == 0 {
		err := do()
		if op == durable.OpSync && err == nil {
			p.kept.Store(filepath.Base(path), true)
		}
		return err
	}
	p.failed.Store(fmt.Sprintf("%s %s", op, filepath.Base(path)))
	if p.crash {
		p.dead.Store(true)
	}
	err := errInjected
	if p.applied {
		err = errors.Join(do(), err)
	}
	return err
}

// life is what a folder meets but for the fault.
type life struct {
	name  string
	meta  []string       // more lines of meta.yaml
	steps []sandbox.Step // how its requests are treated
	prior []sandbox.Step // how the requests of an earlier life were treated; nil: there was none
	was   string         // how that ended
	end   string         // "outcome place" without a fault
	risky bool           // a crash while it is sent may end in hold: nobody can ask

	person bool           // it has a clientId in the place of a token
	opens  []sandbox.Step // how its requests for a session are treated
}

const ref = "328c6766-934e-11ed-bb9b-025ad99a18e7"

var lives = []life{
	{name: "accepted", end: "accepted done", risky: true},
	{name: "accepted, with scanRef", meta: []string{"scanRef: " + ref}, end: "accepted done"},
	{name: "rejected", steps: []sandbox.Step{{Status: 400, Identifier: "BAD_VALUE", Message: "no"}, {Status: 400, Identifier: "BAD_VALUE", Message: "no"}}, end: "rejected failed"},
	{name: "invalid", meta: []string{"colour: red"}, end: "invalid failed"},
	{name: "on the second attempt", steps: []sandbox.Step{{Status: 503}}, end: "accepted done", risky: true},
	{name: "the answer is lost", meta: []string{"scanRef: " + ref}, steps: []sandbox.Step{{Fault: sandbox.LoseAnswer}}, end: "accepted done"},
	{name: "the answer is lost, nobody to ask", steps: []sandbox.Step{{Fault: sandbox.LoseAnswer}}, end: "unknown hold", risky: true},
	{name: "again after accepted", prior: []sandbox.Step{{}}, was: "case accepted done/case", end: "accepted done"},
	{name: "again after unknown", prior: []sandbox.Step{{Fault: sandbox.LoseAnswer}}, was: "case unknown hold/case", end: "unknown hold"},
	{name: "again after unknown, with scanRef", meta: []string{"scanRef: " + ref}, prior: []sandbox.Step{{Fault: sandbox.LoseAnswer}}, was: "case accepted done/case", end: "accepted done"},
	{name: "again after rejected", prior: []sandbox.Step{{Status: 400, Identifier: "BAD_VALUE", Message: "no"}}, was: "case rejected failed/case", end: "accepted done", risky: true},
	{name: "again after gave_up", prior: slices.Repeat([]sandbox.Step{{Status: 503}}, 4), was: "case gave_up failed/case", end: "accepted done", risky: true},
	{name: "of a person", person: true, end: "accepted done"},
	{name: "of a person, the second session", person: true, opens: []sandbox.Step{{Fault: sandbox.LoseAnswer}, {Status: 503}}, end: "accepted done"},
	{name: "of a person, no session", person: true, opens: slices.Repeat([]sandbox.Step{{Status: 400, Identifier: "VALIDATION_ERROR", Message: "no"}}, 3), end: "rejected failed"},
	{name: "of a person, the answer is lost", person: true, steps: []sandbox.Step{{Fault: sandbox.LoseAnswer}}, end: "accepted done"},
	{name: "of a person, again after accepted", person: true, prior: []sandbox.Step{{}}, was: "case accepted done/case", end: "accepted done"},
	{name: "of a person, again after rejected", person: true, prior: []sandbox.Step{{Status: 400, Identifier: "BAD_VALUE", Message: "no"}}, was: "case rejected failed/case", end: "accepted done"},
	{name: "again after invalid", meta: []string{"colour: red"}, prior: []sandbox.Step{{}}, was: "case invalid failed/case", end: "invalid failed"},
}

// run lets one folder live with one fault, and returns what failed.
func (l life) run(t *testing.T, p *plan) (failed string) {
	t.Helper()
	b := newBench(t, sandbox.Options{ManySessions: true})
	b.patience = time.Minute // nothing stalls here but a busy machine
	b.cfg.DiskRetry = 2 * time.Millisecond
	b.cfg.Retry.First, b.cfg.Retry.Max = 2*time.Millisecond, 5*time.Millisecond
	b.cfg.Grace = 0
	root := filepath.Dir(b.spool.Path(spool.Inbox)) + "/"
	const name = "case"
	if len(l.meta) > 0 && strings.HasPrefix(l.meta[0], "scanRef") {
		b.api.Issue(token(name), ref)
	}
	if l.person {
		b.putPerson(name, name)
	} else {
		b.put(name, l.meta...)
	}
	if l.prior != nil {
		b.earlier(name, l)
	}
	opened := b.api.Report().Opened
	b.script(l, l.steps)
	b.api.ScriptSessions(name, l.opens...)
	disks.Store(root, p)
	defer disks.Delete(root)
	b.start()
	ended := func() bool { return b.ev.has("ended") }
	b.offer(name, func() bool { return p.dead.Load() || ended() })
	if p.dead.Load() {
		b.end()
		place := b.whole() // at the instant of the crash
		b.forgive()
		p.dead.Store(false)
		b.start()
		b.offer(name, func() bool { return place.Final() || ended() })
	}
	b.end()
	place := b.whole()
	failed, _ = p.failed.Load().(string)
	what := fmt.Sprintf("%s; fails: step %d, %s, applied %v, crash %v", l.name, p.n, failed, p.applied, p.crash)
	r := b.result(place, name)
	j, err := journal.OpenReader(t.Context(), b.where)
	must(t, err)
	defer j.Close()
	b.entered(j, place, name)
	b.verified(j, func(verify.Finding) bool { return false })
	end := fmt.Sprintf("%s %s", r.Outcome, place)
	if end != l.end && (!p.crash || !l.risky || end != "unknown hold") {
		t.Errorf("%s: ended %s, want %s; reasons %v, attempts %v, reports %v", what, end, l.end, codes(r), states(r), b.ev.list)
	}
	if n := b.processed(); n > 1 || (r.Outcome == sidecar.Accepted) && n != 1 {
		t.Errorf("%s: %s, and %d times processed", what, r.Outcome, n)
	}
	for _, file := range []string{"FRONT.jpg", "BACK.jpg", "FACE.jpg", "meta.yaml"} {
		if _, kept := p.kept.Load(file); !kept && b.api.Report().Requests > b.before {
			t.Errorf("%s: %s was sent, and is not on the disk", what, file)
		}
	}
	b.noTokens(true)
	if n := b.api.Report().Opened - opened; n > 2+len(l.opens) {
		t.Errorf("%s: %d sessions", what, n)
	}
	if n := b.ev.count("ended"); !p.crash && n != 1 {
		t.Errorf("%s: %d ends were told", what, n)
	}
	return failed
}

// script sets how the next requests of the only folder are treated.
func (b *bench) script(l life, steps []sandbox.Step) {
	if !l.person { // else the token is still to be given
		b.api.Script(token("case"), steps...)
		return
	}
	b.api.Decide(func(string, int) sandbox.Step {
		if len(steps) == 0 {
			return sandbox.Step{}
		}
		s := steps[0]
		steps = steps[1:]
		return s
	})
}

// earlier lets a folder live before the faults begin, and moves it back to the
// inbox.
func (b *bench) earlier(name string, l life) {
	b.t.Helper()
	b.script(l, l.prior)
	giveUp := b.cfg.Retry.GiveUpAfter
	b.cfg.Retry.GiveUpAfter = time.Nanosecond
	b.start()
	b.in <- b.arrival(name)
	b.want(l.was)
	b.end()
	b.cfg.Retry.GiveUpAfter = giveUp
	place, _, _ := strings.Cut(strings.Fields(l.was)[2], "/")
	must(b.t, os.Rename(filepath.Join(b.spool.Path(spool.Place(place)), name), filepath.Join(b.spool.Path(spool.Inbox), name)))
	b.before = b.api.Report().Requests
}

// offer hands the folder on whenever it lies in the inbox, as the watcher does,
// until cond holds.
func (b *bench) offer(name string, cond func() bool) {
	b.t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); {
		if time.Now().After(end) {
			b.t.Fatalf("%s doesn't get there; reports: %v", name, b.ev.list)
		}
		if _, err := os.Stat(filepath.Join(b.spool.Path(spool.Inbox), name)); err != nil {
			time.Sleep(200 * time.Microsecond)
			continue
		}
		if a, err := b.look(name); err == nil { // else it went on just then
			select {
			case b.in <- a:
			case <-time.After(time.Millisecond):
			}
		}
	}
}

// whole returns the one place of the only folder, and fails the test when it is in
// none or two, when a file of it is not as it was, or when its result says
// something that its place does not.
func (b *bench) whole() (place spool.Place) {
	b.t.Helper()
	var dir string
	for _, p := range spool.Places() {
		names, err := b.spool.List(p)
		must(b.t, err)
		for _, n := range names {
			if place != "" {
				b.t.Fatalf("in %s, and in %s as %s", place, p, n)
			}
			place, dir = p, filepath.Join(b.spool.Path(p), n)
		}
	}
	if place == "" {
		b.t.Fatal("the folder is lost")
	}
	for file, want := range map[string][]byte{"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face} {
		if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || !bytes.Equal(got, want) {
			b.t.Fatalf("%s in %s is not whole: %v", file, place, err)
		}
	}
	root, err := os.OpenRoot(dir)
	must(b.t, err)
	defer root.Close()
	r, err := sidecar.Read(root)
	switch {
	case err != nil && place.Final():
		b.t.Fatalf("in %s without a result: %v", place, err)
	case err == nil && place.Final() && r.Outcome == sidecar.Pending:
		b.t.Fatalf("%s in %s", r.Outcome, place)
	}
	return place
}

// forgive allows one more request with a token whose journal says that an
// attempt was under way at the crash.
func (b *bench) forgive() {
	b.t.Helper()
	b.attempted(func(hashed, folder string, s sidecar.State) {
		if s == sidecar.Sending {
			for tok := range b.api.Sessions("") {
				if hash(tok) == hashed {
					b.api.Forgive(tok)
				}
			}
			b.api.Forgive(token(folder))
		}
	})
}

// Each step of the disk in each life fails, once without having been done and
// once after it was, and the process lives on, or ends there and starts anew.
func TestMatrix(t *testing.T) {
	var faults atomic.Int64
	steps := &sync.Map{}
	t.Run("lives", func(t *testing.T) {
		for _, l := range lives {
			t.Run(l.name, func(t *testing.T) {
				t.Parallel()
				clean := &plan{}
				l.run(t, clean)
				n := clean.calls.Load()
				if n < 10 {
					t.Fatalf("only %d steps are seen", n)
				}
				variant := int(n)
				for i := range n {
					for _, applied := range []bool{false, true} {
						for _, crash := range []bool{false, true} {
							if variant++; variant%*matrixPart != 0 {
								continue
							}
							p := &plan{n: i + 1, applied: applied, crash: crash}
							t.Run(fmt.Sprintf("%d,%v,%v", i+1, applied, crash), func(t *testing.T) {
								if failed := l.run(t, p); failed != "" {
									op, _, _ := strings.Cut(failed, " ")
									steps.Store(op, true)
									faults.Add(1)
								}
							})
						}
					}
				}
			})
		}
	})
	var met []string
	steps.Range(func(op, _ any) bool { met = append(met, op.(string)); return true })
	slices.Sort(met)
	if want := []string{"commit", "fchmod", "fsync", "openat", "renameat", "renameat2", "sync_file_range", "unlinkat", "write"}; *matrixPart <= 5 && !slices.Equal(met, want) { // a small part may leave one out
		t.Errorf("failed were %v, want %v", met, want)
	}
	t.Logf("fault matrix: %d faults in %d lives, 0 lost, 0 twice", faults.Load(), len(lives))
}

// What is known and could not be recorded is not forgotten over a change of
// settings: nothing is sent again for want of a disk.
func TestUnrecordedIsKept(t *testing.T) {
	b := newBench(t)
	b.cfg.DiskRetry = 20 * time.Millisecond
	b.api.Script(token("case"), sandbox.Step{Latency: 100 * time.Millisecond})
	p := &plan{}
	root := filepath.Dir(b.spool.Path(spool.Inbox)) + "/"
	disks.Store(root, p)
	defer disks.Delete(root)
	b.start()
	b.send("case")
	for b.api.Token(token("case")).Requests == 0 {
		time.Sleep(time.Millisecond)
	}
	p.dead.Store(true) // from the intent on
	b.until("shut")
	b.batch.Set(b.cfg)
	p.dead.Store(false)
	b.want("case accepted done/case")
	if n := b.api.Token(token("case")).Requests; n != 1 {
		t.Errorf("%d requests", n)
	}
}
