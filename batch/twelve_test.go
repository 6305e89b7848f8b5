package batch_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"idenfy-batch/batch"
	"idenfy-batch/internal/decision"
	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Twelve ways to a second submission, or to an accepted folder that is filed as
// rejected. They were open while results in the folders were the only memory.

// whoever decides does so while the daemon is stopped, which then starts.
func (b *bench) decide(name string, action sidecar.Action, force bool) error {
	b.t.Helper()
	b.end()
	j, err := journal.Open(b.where)
	must(b.t, err)
	paths := spool.Paths{}
	for _, p := range spool.Places() {
		paths[p] = b.spool.Path(p)
	}
	desk := decision.Desk{Paths: paths, Journal: j, InWork: paths.Has}
	_, _, err = desk.Make(b.t.Context(), name, decision.Decision{Action: action, Force: force})
	must(b.t, j.Close())
	b.start()
	return err
}

// decided is decide, and hands the folder on.
func (b *bench) decided(name string, action sidecar.Action, force bool) {
	b.t.Helper()
	must(b.t, b.decide(name, action, force))
	b.in <- b.arrival(filepath.Base(name))
}

// refused checks that a decision is refused.
func (b *bench) refused(name string, action sidecar.Action, why string) {
	b.t.Helper()
	err := b.decide(name, action, false)
	if _, ok := errors.AsType[*decision.RefusedError](err); !ok || !strings.Contains(err.Error(), why) {
		b.t.Errorf("%s %s: %v, want %q", name, action, err, why)
	}
}

// fresh puts another token into a folder.
func (b *bench) fresh(p spool.Place, name, other string) {
	b.t.Helper()
	path := filepath.Join(b.spool.Path(p), name, "meta.yaml")
	must(b.t, os.Chmod(path, 0o600)) // it is sealed
	must(b.t, os.WriteFile(path, []byte(text(other)), 0o600))
}

// never checks that a token was not sent.
func (b *bench) never(name string) {
	b.t.Helper()
	if n := b.api.Token(token(name)).Requests; n != 0 {
		b.t.Errorf("%s was sent in %d requests", token(name), n)
	}
}

// stopped checks that a folder was not sent because it was sent before.
func (b *bench) stopped(p spool.Place, name, code string) {
	b.t.Helper()
	if r := b.result(p, name); !slices.Contains(codes(r), code) || len(r.Attempts) != 0 {
		b.t.Errorf("%s/%s: reasons %v, attempts %v", p, name, codes(r), states(r))
	}
}

var tokenRefused = sandbox.Step{Status: 400, Identifier: "TOKEN_NOT_VALID", Message: "Token is not valid"}

// An accepted folder comes back with a new token, and each step of the disk
// fails on the way: its evidence is in the journal, and not in the folder alone.
func TestWay01EvidenceLost(t *testing.T) {
	run := func(t *testing.T, p *plan) {
		b := newBench(t)
		b.patience = time.Minute
		b.cfg.DiskRetry, b.cfg.Grace = 2*time.Millisecond, 0
		b.start()
		b.send("a")
		b.want("a accepted done/a")
		b.end()
		must(t, os.Rename(filepath.Join(b.spool.Path(spool.Done), "a"), filepath.Join(b.spool.Path(spool.Inbox), "a")))
		b.fresh(spool.Inbox, "a", "fresh")
		root := filepath.Dir(b.spool.Path(spool.Inbox)) + "/"
		disks.Store(root, p)
		defer disks.Delete(root)
		b.start()
		ended := func() bool { return b.ev.has("ended") }
		b.offer("a", func() bool { return p.dead.Load() || ended() })
		if p.dead.Load() {
			b.end()
			p.dead.Store(false)
			b.start()
			names, err := b.spool.List(spool.Failed)
			must(t, err)
			b.offer("a", func() bool { return len(names) > 0 || ended() })
		}
		b.end()
		failed, _ := p.failed.Load().(string)
		if b.whole() != spool.Failed {
			t.Errorf("%s: it lies elsewhere", failed)
		}
		b.stopped(spool.Failed, "a", sidecar.SentBefore)
		b.never("fresh")
	}
	clean := &plan{}
	run(t, clean)
	n := clean.calls.Load()
	if n < 10 {
		t.Fatalf("only %d steps are seen", n)
	}
	t.Run("all", func(t *testing.T) {
		for i := range n {
			for _, p := range []*plan{{n: i + 1}, {n: i + 1, crash: true}, {n: i + 1, crash: true, applied: true}} {
				if testing.Short() && i%5 != 0 {
					continue
				}
				t.Run(fmt.Sprintf("%d,%v,%v", i+1, p.crash, p.applied), func(t *testing.T) {
					t.Parallel()
					run(t, p)
				})
			}
		}
	})
}

// An accepted folder comes back with one photo too many, which is taken out
// again.
func TestWay02InvalidInBetween(t *testing.T) {
	b := newBench(t)
	b.patience = time.Minute
	b.start()
	b.send("a")
	b.want("a accepted done/a")
	extra := func(p spool.Place) string { return filepath.Join(b.spool.Path(p), "a", "FRONT.png") }
	must(t, os.WriteFile(extra(spool.Done), front, 0o600))
	b.fresh(spool.Done, "a", "fresh")
	b.again(spool.Done, "a")
	b.want("a invalid failed/a")
	if r := b.result(spool.Failed, "a"); !slices.Contains(codes(r), "ambiguous_file") {
		t.Errorf("reasons %v", codes(r))
	}
	must(t, os.Remove(extra(spool.Failed)))
	b.refused("a", sidecar.Requeued, "it was accepted before")
	b.again(spool.Failed, "a")
	b.want("a invalid failed/a")
	b.stopped(spool.Failed, "a", sidecar.SentBefore)
	b.never("fresh")
	// A person who means it is heard, and once.
	b.decided("a", sidecar.Requeued, true)
	b.want("a accepted done/a")
	b.fresh(spool.Done, "a", "third")
	b.again(spool.Done, "a")
	b.want("a invalid failed/a")
	b.never("third")
	if n := b.api.Token(token("fresh")).Processed; n != 1 {
		t.Errorf("%d times processed", n)
	}
}

// A folder that may have been accepted is sent again by force, and its token is
// refused: it is not rejected, and a new token doesn't help.
func TestWay03RefusedAfterItMayHaveBeenTaken(t *testing.T) {
	for name, c := range map[string]struct {
		steps []sandbox.Step
		first string
		then  func(b *bench) // by which it is sent again with the same token
	}{
		"resubmitted by force": {
			[]sandbox.Step{{Fault: sandbox.LoseAnswer}}, "h unknown hold/h",
			func(b *bench) { b.decided("h", sidecar.Resubmit, true) },
		},
		"given up, and requeued": {
			[]sandbox.Step{{Status: 502}, {Status: 502}, {Status: 502}, {Status: 502}, tokenRefused}, "h gave_up failed/h",
			func(b *bench) { b.decided("h", sidecar.Requeued, false) },
		},
		"given up, and moved": {
			[]sandbox.Step{{Status: 502}, {Status: 502}, {Status: 502}, {Status: 502}, tokenRefused}, "h gave_up failed/h",
			func(b *bench) { b.again(spool.Failed, "h") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.patience = time.Minute
			b.cfg.Retry.GiveUpAfter = time.Nanosecond
			b.start()
			b.api.Script(token("h"), c.steps...)
			b.send("h")
			b.want(c.first)
			before := b.api.Token(token("h")).Requests
			c.then(b)
			b.want("h unknown hold/h")
			if r := b.result(spool.Hold, "h"); !slices.Equal(codes(r), []string{"may_have_been_accepted"}) || r.LastAttempt().Identifier != "TOKEN_NOT_VALID" {
				t.Errorf("reasons %v, attempts %+v", codes(r), r.Attempts)
			}
			if n := b.api.Token(token("h")).Requests; n != before+1 {
				t.Errorf("%d requests more", n-before)
			}
			b.fresh(spool.Hold, "h", "fresh")
			b.refused("h", sidecar.Requeued, "it is held")
			b.refused("h", sidecar.Resubmit, "may have been accepted")
			b.again(spool.Hold, "h")
			b.want("h unknown hold/h")
			must(t, os.Rename(filepath.Join(b.spool.Path(spool.Hold), "h"), filepath.Join(b.spool.Path(spool.Failed), "h")))
			b.refused("h", sidecar.Requeued, "may have been accepted")
			b.again(spool.Failed, "h")
			b.want("h unknown hold/h")
			b.never("fresh")
			if n := b.api.Report().Processed; n > 1 {
				t.Errorf("%d processed", n)
			}
		})
	}
	t.Run("given up, and a new token", func(t *testing.T) {
		b := newBench(t)
		b.patience = time.Minute
		b.cfg.Retry.GiveUpAfter = time.Nanosecond
		b.start()
		b.api.Script(token("h"), slices.Repeat([]sandbox.Step{{Status: 502}}, 4)...)
		b.send("h")
		b.want("h gave_up failed/h")
		b.fresh(spool.Failed, "h", "fresh")
		b.refused("h", sidecar.Requeued, "may have been accepted")
		b.again(spool.Failed, "h")
		b.want("h unknown hold/h")
		b.never("fresh")
	})
}

// copied makes a new folder in the inbox of what lies in a final place, with a
// new token, and takes the old one away: only its result tells what it was.
func (b *bench) copied(p spool.Place, name, other string, result []byte) {
	b.t.Helper()
	must(b.t, os.RemoveAll(filepath.Join(b.spool.Path(p), name)))
	b.put(name)
	b.fresh(spool.Inbox, name, other)
	must(b.t, os.WriteFile(filepath.Join(b.spool.Path(spool.Inbox), name, sidecar.Name), result, 0o600))
	b.in <- b.arrival(name)
}

func (b *bench) raw(p spool.Place, name string) []byte {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.spool.Path(p), name, sidecar.Name))
	must(b.t, err)
	return data
}

// A result of the daemon's own that has grown beyond all bounds is known all
// the same; and it can't grow so by what an uploader or the service does.
func TestWay04ResultTooLarge(t *testing.T) {
	b := newBench(t)
	b.patience = time.Minute
	b.start()
	b.send("a")
	b.want("a accepted done/a")
	large := append(bytes.TrimSuffix(b.raw(spool.Done, "a"), []byte("}\n")), []byte(`,"decisions":[`+strings.Repeat(`{"action":"requeued"},`, 5<<20/22)+`{}]}`)...)
	b.copied(spool.Done, "a", "fresh", large)
	b.want("a invalid failed/a")
	b.stopped(spool.Failed, "a", sidecar.SentBefore)
	b.copied(spool.Failed, "a", "fresh", append(large, bytes.Repeat([]byte("\n"), 65<<20)...))
	b.want("a invalid failed/a")
	b.never("fresh")
	must(t, os.RemoveAll(filepath.Join(b.spool.Path(spool.Failed), "a")))

	b.put("bad")
	must(t, os.WriteFile(filepath.Join(b.spool.Path(spool.Inbox), "bad", "meta.yaml"), []byte(strings.Repeat("x: 1\ny: {\n", 63<<10/10)), 0o600))
	b.in <- b.arrival("bad")
	b.want("bad invalid failed/bad")
	b.put("worse")
	must(t, os.WriteFile(filepath.Join(b.spool.Path(spool.Inbox), "worse", "meta.yaml"), []byte(text("worse")+keys(62<<10)), 0o600))
	b.in <- b.arrival("worse")
	b.want("worse invalid failed/worse")
	b.cfg.Retry.First, b.cfg.Retry.Max = time.Microsecond, time.Microsecond
	b.batch.Set(b.cfg)
	const tries = 120
	b.api.Script(token("long"), slices.Repeat([]sandbox.Step{{Status: 503, Identifier: "X", Message: strings.Repeat("m", 50_000)}}, tries)...)
	b.send("long")
	b.want("long accepted done/long")
	if r := b.result(spool.Done, "long"); len(r.Attempts)+r.Omitted != tries+1 || len(r.Attempts) > 60 || r.LastAttempt().N != tries+1 {
		t.Errorf("%d attempts, and %d omitted", len(r.Attempts), r.Omitted)
	}
	for name, p := range map[string]spool.Place{"bad": spool.Failed, "worse": spool.Failed, "long": spool.Done} {
		if n := len(b.raw(p, name)); n > 500_000 {
			t.Errorf("%s: the result has %d bytes", name, n)
		}
	}
}

// keys is a text of as many unknown keys as fit.
func keys(size int) string {
	var s strings.Builder
	for n := 0; s.Len() < size; n++ {
		fmt.Fprintf(&s, "k%d: 1\n", n)
	}
	return s.String()
}

// A result that can't be read, or is none any more, takes nothing away from
// what is known of its folder.
func TestWay05ResultUnreadable(t *testing.T) {
	for name, spoil := range map[string]func(path string, data []byte) error{
		"gone":        func(path string, _ []byte) error { return os.Remove(path) },
		"damaged":     func(path string, _ []byte) error { return os.WriteFile(path, []byte("{"), 0o600) },
		"empty":       func(path string, _ []byte) error { return os.Truncate(path, 0) },
		"half":        func(path string, data []byte) error { return os.Truncate(path, int64(len(data)/2)) },
		"no rights":   func(path string, _ []byte) error { return os.Chmod(path, 0) },
		"a directory": func(path string, _ []byte) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"a link":      func(path string, _ []byte) error { return errors.Join(os.Remove(path), os.Symlink("/dev/zero", path)) },
		"a pipe":      func(path string, _ []byte) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) },
		"another's": func(path string, _ []byte) error {
			return os.WriteFile(path, []byte(`{"id": "`+spool.NewID()+`"}`), 0o600)
		},
		"damaged further": func(path string, data []byte) error { return os.WriteFile(path, append(data[:200], 0, 0, 0), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.patience = time.Minute
			b.start()
			b.send("a")
			b.want("a accepted done/a")
			root, err := b.spool.Paths().OpenFolder(spool.Done, "a")
			must(t, err)
			id, err := drop.Identity(root)
			must(t, errors.Join(err, root.Close()))
			if id == "" && name != "half" && name != "damaged further" {
				t.Skip("the file system keeps no time of birth")
			}
			must(t, spoil(filepath.Join(b.spool.Path(spool.Done), "a", sidecar.Name), b.raw(spool.Done, "a")))
			b.fresh(spool.Done, "a", "fresh")
			b.again(spool.Done, "a")
			b.want("a invalid failed/a")
			b.stopped(spool.Failed, "a", sidecar.SentBefore)
			b.never("fresh")
		})
	}
	// Of a new directory only the result tells; its head does.
	for _, keep := range []int{300, 2000} {
		b := newBench(t)
		b.patience = time.Minute
		b.start()
		b.send("a")
		b.want("a accepted done/a")
		data := b.raw(spool.Done, "a")
		b.copied(spool.Done, "a", "fresh", data[:min(keep, len(data)-2)])
		b.want("a invalid failed/a")
		b.never("fresh")
	}
}

// Two folders with one token are decided to be sent again, and come at once:
// asking whether the token is free and taking it are one step.
func TestWay06TwoFoldersOneToken(t *testing.T) {
	for round := range 6 {
		b := newBench(t)
		b.cfg.Retry.GiveUpAfter = time.Nanosecond
		b.patience = time.Minute
		b.start()
		b.api.Script(token("one"), slices.Repeat([]sandbox.Step{{Fault: sandbox.Garbage}}, 4)...)
		b.send("one")
		b.want("one unknown hold/one")
		b.putAs("two", "one")
		b.in <- b.arrival("two")
		b.want("two invalid failed/two")
		b.stopped(spool.Failed, "two", "token_undecided")
		before := b.api.Token(token("one")).Requests
		b.refused("two", sidecar.Requeued, "may have been accepted")
		b.end()
		b.start()
		must(t, b.decide("one", sidecar.Resubmit, true))
		must(t, b.decide("two", sidecar.Requeued, true))
		b.api.Always(&sandbox.Step{Latency: 30 * time.Millisecond})
		names := []string{"one", "two"}
		if round > 2 {
			slices.Reverse(names)
		}
		arrivals := []drop.Arrival{b.arrival(names[0]), b.arrival(names[1])}
		for _, a := range arrivals {
			b.in <- a
		}
		ends := map[string]bool{<-b.ev.ended: true, <-b.ev.ended: true}
		first, second := ends["one accepted done/one"] && ends["two invalid failed/two"], ends["two accepted done/two"] && len(ends) == 2
		if !first && !second {
			t.Errorf("ends %v", slices.Collect(maps.Keys(ends)))
		}
		if n := b.api.Token(token("one")); n.Requests != before+1 || n.Processed != 1 {
			t.Errorf("%d requests, %d processed", n.Requests-before, n.Processed)
		}
	}
}

// The token is changed in work after an attempt without an answer.
func TestWay07TokenChangedInWork(t *testing.T) {
	for _, step := range []sandbox.Step{{Fault: sandbox.LoseAnswer}, {Status: 502}} {
		for _, restart := range []bool{false, true} {
			for _, known := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %d, restart %v, scanRef %v", step.Fault, step.Status, restart, known), func(t *testing.T) {
					b := newBench(t)
					b.patience = time.Minute
					b.cfg.Retry.First, b.cfg.Retry.Max = 400*time.Millisecond, 400*time.Millisecond
					b.start()
					b.api.Script(token("a"), step)
					var more []string
					want, place := "a unknown hold/a", spool.Hold
					if known {
						b.api.Issue(token("a"), ref)
						if step.Fault == "" { // else the service says so by itself
							b.api.SetStatus(token("a"), "REVIEWING")
						}
						more, want, place = []string{"scanRef: " + ref}, "a accepted done/a", spool.Done
					}
					b.put("a", more...)
					dir, err := os.OpenRoot(filepath.Join(b.spool.Path(spool.Inbox), "a"))
					must(t, err)
					defer dir.Close()
					b.in <- b.arrival("a")
					if restart {
						b.until("attempt a 1")
						b.end()
					} else {
						for b.api.Token(token("a")).Requests == 0 {
							time.Sleep(time.Millisecond)
						}
					}
					must(t, dir.Chmod("meta.yaml", 0o600)) // it is sealed
					must(t, dir.WriteFile("meta.yaml", []byte(text("fresh")), 0o600))
					if restart {
						b.start()
					}
					b.want(want)
					b.never("fresh")
					if r := b.result(place, "a"); !known && !slices.Contains(codes(r), "changed_in_work") {
						t.Errorf("reasons %v", codes(r))
					}
					if n := b.api.Token(token("a")).Requests; n != 1 {
						t.Errorf("%d requests", n)
					}
				})
			}
		}
	}
}

// Another file system lies over work for a while: what is in work is hidden,
// and neither it nor its token is forgotten.
func TestWay08WorkHidden(t *testing.T) {
	b := newBench(t)
	b.patience = time.Minute
	b.cfg.DiskRetry = 5 * time.Millisecond
	b.cfg.Retry.First, b.cfg.Retry.Max = 20*time.Millisecond, 20*time.Millisecond
	b.start()
	b.api.Script(token("first"), sandbox.Step{Status: 502}, sandbox.Step{Status: 502})
	work := b.spool.Path(spool.Work)
	hide := func() {
		must(t, os.Rename(work, work+".under"))
		must(t, os.Mkdir(work, 0o700))
	}
	show := func() {
		must(t, os.Remove(work)) // nothing was put into it
		must(t, os.Rename(work+".under", work))
	}
	b.send("first")
	b.until("attempt first 1")
	hide()
	b.putAs("copy", "first")
	b.in <- b.arrival("copy")
	b.until("claim failed copy")
	b.until("shut")
	time.Sleep(150 * time.Millisecond) // tries and probes
	if b.ev.has("vanished") || b.ev.has("ended") {
		t.Errorf("reports %v", b.ev.all())
	}
	show()
	b.offer("copy", func() bool { return b.ev.count("ended") == 2 })
	ends := []string{<-b.ev.ended, <-b.ev.ended}
	slices.Sort(ends)
	if !slices.Equal(ends, []string{"copy invalid failed/copy", "first accepted done/first"}) {
		t.Errorf("ends %v", ends)
	}
	b.stopped(spool.Failed, "copy", "token_used")
	if n := b.api.Token(token("first")); n.Processed != 1 || b.ev.has("vanished") {
		t.Errorf("%+v; reports %v", n, b.ev.all())
	}
}

// starve leaves this process n descriptors, until the returned function is
// called.
func starve(t *testing.T, n int) (feed func()) {
	t.Helper()
	var was syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was))
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	highest := 0
	for _, e := range entries {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err == nil {
			highest = max(highest, fd)
		}
	}
	// Below the highest one there may be gaps.
	var filled []*os.File
	for range highest - len(entries) + 2 {
		if f, err := os.Open("/dev/null"); err == nil {
			filled = append(filled, f)
		}
	}
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: uint64(highest + 1 + n), Max: was.Max}))
	return func() {
		must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was))
		for _, f := range filled {
			_ = f.Close()
		}
	}
}

// Without descriptors what is known can't be read: that delays, and nothing is
// sent as if it were new.
func TestWay09NoDescriptors(t *testing.T) {
	for n := range 14 {
		b := newBench(t)
		b.patience = time.Minute
		b.cfg.DiskRetry = 5 * time.Millisecond
		b.start()
		b.send("a")
		b.want("a accepted done/a")
		b.fresh(spool.Done, "a", "fresh")
		must(t, os.Rename(filepath.Join(b.spool.Path(spool.Done), "a"), filepath.Join(b.spool.Path(spool.Inbox), "a")))
		a := b.arrival("a")
		feed := starve(t, n)
		b.in <- a
		time.Sleep(60 * time.Millisecond)
		feed()
		b.offer("a", func() bool { return b.ev.count("ended") == 2 })
		b.want("a invalid failed/a")
		b.stopped(spool.Failed, "a", sidecar.SentBefore)
		b.never("fresh")
	}
	// At the start: it ends with an error, and nothing was done.
	b := newBench(t)
	b.patience = time.Minute
	b.cfg.Retry.First, b.cfg.Retry.Max = time.Hour, time.Hour
	b.start()
	b.api.Script(token("w"), sandbox.Step{Status: 502})
	b.send("w")
	b.until("attempt w 1")
	b.end()
	j, err := journal.Open(b.where)
	must(t, err)
	b.cfg.API, b.cfg.Rate = idenfy.New(idenfy.Options{BaseURL: b.url, Key: "k", Secret: "s", Timeout: time.Second}), rate.NewLimiter(rate.Inf, 1)
	one := batch.New(b.cfg, b.spool, j, func(events.Event) {})
	in := make(chan drop.Arrival)
	close(in)
	feed := starve(t, 0)
	_, err = one.Run(t.Context(), in, true)
	feed()
	b.cfg.API.Close()
	must(t, j.Close())
	if err == nil {
		t.Error("a start that can't read is none")
	}
	if b.inWork() == "" || b.api.Token(token("w")).Requests != 1 {
		t.Error("something was done")
	}
}

// A result that somebody has written anew, with decisions and another end,
// opens nothing, and nothing of it is taken over.
func TestWay10ForgedResult(t *testing.T) {
	for _, past := range []struct {
		steps            []sandbox.Step
		first            string
		from             spool.Place
		again, held, why string
	}{
		{nil, "a accepted done/a", spool.Done, "a invalid failed/a", "failed/a", sidecar.SentBefore},
		{[]sandbox.Step{{Fault: sandbox.LoseAnswer}}, "a unknown hold/a", spool.Hold, "a unknown hold/a", "hold/a", "may_have_been_accepted"},
	} {
		b := newBench(t)
		b.patience = time.Minute
		b.start()
		b.api.Script(token("a"), past.steps...)
		b.send("a")
		b.want(past.first)
		r := b.result(past.from, "a")
		r.Outcome, r.Attempts, r.Reasons = sidecar.Rejected, nil, nil
		for _, action := range []sidecar.Action{sidecar.Requeued, sidecar.Resubmit} {
			r.Decisions = append(r.Decisions, sidecar.Decision{At: sidecar.Now(), Action: action, Forced: true, Result: r.ID, Outcome: r.Outcome})
		}
		dir, err := b.spool.Paths().OpenFolder(past.from, "a")
		must(t, err)
		must(t, errors.Join(sidecar.Write(dir, r), dir.Close()))
		b.fresh(past.from, "a", "fresh")
		if past.from == spool.Hold { // nor does it deceive who decides
			b.refused("hold/a", sidecar.Resubmit, "may have been accepted")
		} else {
			b.refused("done/a", sidecar.Requeued, "it was accepted before")
		}
		b.again(past.from, "a")
		b.want(past.again)
		place, name, _ := strings.Cut(past.held, "/")
		b.stopped(spool.Place(place), name, past.why)
		if again := b.result(spool.Place(place), name); len(again.Decisions) != 0 {
			t.Errorf("taken over: %+v", again.Decisions)
		}
		b.never("fresh")
	}
}

// A change of settings lets a submission that is slower than the grace come to
// its end.
func TestWay11ChangeOfSettings(t *testing.T) {
	b := newBench(t)
	b.patience = time.Minute
	b.cfg.Grace = time.Millisecond
	b.start()
	b.api.Script(token("slow"), sandbox.Step{Latency: 500 * time.Millisecond})
	b.send("slow")
	for b.api.Token(token("slow")).Requests == 0 {
		time.Sleep(time.Millisecond)
	}
	old := b.cfg.API
	for range 3 {
		b.cfg.API = idenfy.New(idenfy.Options{BaseURL: b.url, Key: "k", Secret: "s", Timeout: time.Minute})
		t.Cleanup(b.cfg.API.Close)
		b.cfg.Concurrency = 1
		b.batch.Set(b.cfg)
		time.Sleep(20 * time.Millisecond)
	}
	b.want("slow accepted done/slow")
	old.Close()
	if r := b.result(spool.Done, "slow"); len(r.Attempts) != 1 || b.api.Token(token("slow")).Requests != 1 {
		t.Errorf("attempts %v", states(r))
	}
}

// A read error that passes, on a folder that waits in work, is no change of it.
func TestWay12ReadErrorInWork(t *testing.T) {
	for n := range 12 {
		b := newBench(t)
		b.patience = time.Minute
		b.cfg.DiskRetry = 5 * time.Millisecond
		b.cfg.Retry.First, b.cfg.Retry.Max = 30*time.Millisecond, 30*time.Millisecond
		b.start()
		b.api.Script(token("a"), sandbox.Step{Status: 502})
		b.send("a")
		b.until("attempt a 1")
		var feed func()
		if face := filepath.Join(b.spool.Path(spool.Work), b.inWork(), "FACE.jpg"); n == 0 && os.Geteuid() != 0 {
			must(t, os.Chmod(face, 0)) // root could read it
			feed = func() { must(t, os.Chmod(face, 0o600)) }
		} else {
			feed = starve(t, n)
		}
		time.Sleep(80 * time.Millisecond)
		feed()
		b.want("a accepted done/a")
		if r := b.result(spool.Done, "a"); len(r.Reasons) != 0 {
			t.Errorf("%d: reasons %v", n, codes(r))
		}
	}
}

// A stop while the status request waits for its turn keeps that the token was
// refused, so that it is not sent once more.
func TestWay12StopBeforeTheQuestion(t *testing.T) {
	b := newBench(t)
	b.patience = time.Minute
	b.cfg.Grace = 0
	b.start()
	b.api.Issue(token("a"), ref)
	b.api.Script(token("a"), sandbox.Step{Status: 502}, tokenRefused)
	b.cfg.Rate = rate.NewLimiter(rate.Every(time.Hour), 2) // for the two attempts
	b.batch.Set(b.cfg)
	b.send("a", "scanRef: "+ref)
	b.until("attempt a 2")
	time.Sleep(20 * time.Millisecond)
	b.end()
	work := b.inWork()
	if r := b.result(spool.Work, work); r.LastAttempt().State != sidecar.Answered || r.LastAttempt().Identifier != "TOKEN_NOT_VALID" {
		t.Errorf("%+v", r.LastAttempt())
	}
	b.api.SetStatus(token("a"), "REVIEWING")
	b.start()
	b.want("a accepted done/a")
	r := b.result(spool.Done, "a")
	b.check(r, []string{"answered", "answered"}, []string{"settled_by_status"})
}

// A request that was cut off before its last byte was not processed, however it
// was cut off.
func TestWay12CutOffInTheBody(t *testing.T) {
	big := sample.Pad(front, 6_000_000, 1)
	put := func(b *bench) {
		b.put("a")
		must(t, os.WriteFile(filepath.Join(b.spool.Path(spool.Inbox), "a", "FACE.jpg"), big, 0o600))
		b.in <- b.arrival("a")
	}
	b := newBench(t)
	b.patience = 100 * time.Millisecond
	b.cfg.Retry.GiveUpAfter = time.Nanosecond
	b.api.Always(&sandbox.Step{Fault: sandbox.StallInBody})
	b.start()
	put(b)
	b.want("a gave_up failed/a")
	b.fresh(spool.Failed, "a", "fresh")
	b.api.Always(nil)
	b.patience = time.Minute
	b.decided("a", sidecar.Requeued, false) // any token will do
	b.want("a accepted done/a")

	b = newBench(t)
	b.patience, b.cfg.Grace = time.Minute, 0
	b.api.Always(&sandbox.Step{Fault: sandbox.StallInBody})
	b.start()
	put(b)
	for b.api.Report().Requests == 0 {
		time.Sleep(time.Millisecond)
	}
	b.end()
	_, id, _ := spool.Split(b.inWork())
	j, err := journal.Open(b.where)
	must(t, err)
	l, err := j.Load(t.Context(), id)
	must(t, errors.Join(err, j.Close()))
	if l.Fate != journal.Unsent || l.Result.LastAttempt().State != sidecar.NoAnswer {
		t.Errorf("%s, %+v", l.Fate, l.Result.LastAttempt())
	}
}

// An accepted folder is put into work by hand, under an id of nobody's, with
// another token: the submission that was accepted is known to be its own, so it
// is not rejected without force.
func TestPutIntoWork(t *testing.T) {
	b := newBench(t)
	b.start()
	b.send("a")
	b.want("a accepted done/a")
	before := b.result(spool.Done, "a").ID
	b.fresh(spool.Done, "a", "fresh")
	b.end()
	must(t, os.Rename(filepath.Join(b.spool.Path(spool.Done), "a"), filepath.Join(b.spool.Path(spool.Work), "a."+spool.NewID())))
	b.start()
	b.want("a unknown hold/a")
	b.refused("a", sidecar.Denied, "it was accepted ("+before+")")
	b.refused("a", sidecar.Resubmit, "it was accepted ("+before+")")
	b.never("fresh")
}
