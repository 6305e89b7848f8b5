package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// The daemon is killed at random instants while it works, and started again
// each time, while folders come in. Each is in one place at every look,
// and whole; none is processed twice, nor sent again unless its journal said
// that an attempt was under way; none lies in a final place without a final
// result.
func TestKill(t *testing.T) {
	t.Parallel()
	kills := 60 // and as many folders
	switch {
	case inLab:
		kills = 200
	case testing.Short():
		kills = 20
	}
	l := newLab(t, "completeness: {settle: 100ms, rescan: 100ms}", "concurrency: 8")
	l.inboxReady()
	l.api.Always(&sandbox.Step{Latency: 20 * time.Millisecond})
	name := func(n int) string { return fmt.Sprintf("case%03d", n) }
	within := map[spool.Place]int{} // what the kills met
	for n := range kills {
		f := files(name(n))
		if n%3 != 0 { // some are taken at once, some when they are quiet
			f[".ready"] = nil
		}
		if n%2 == 0 {
			ref := sandbox.NewScanRef()
			f["meta.yaml"] = append(f["meta.yaml"], "scanRef: "+ref+"\n"...)
			l.api.Issue(token(name(n)), ref)
		}
		l.put(name(n), f)
		l.start()
		// From before the start-up is over to after some submissions.
		most := 60 * time.Millisecond
		if n%2 == 0 {
			most = 300 * time.Millisecond
		}
		time.Sleep(time.Duration(rand.Int64N(int64(most))))
		l.kill()
		l.forgive()
		if n%10 == 9 {
			if found := l.altered(); len(found) > 0 {
				t.Fatalf("after kill %d ledger verify finds %v", n, found)
			}
		}
		for i := range n + 1 {
			within[l.place(name(i))]++
		}
		if n := len(l.names(spool.Failed)); n > 0 || within[""] > 0 {
			t.Fatalf("%d folders failed, %d are lost", n, within[""])
		}
	}
	if within[spool.Work] == 0 || within[spool.Inbox] == 0 || within[spool.Done] == 0 {
		t.Fatalf("the kills met no folder in work, or none before or after: %v", within)
	}
	t.Logf("what %d kills met, summed up: %v", kills, within)
	l.start()
	l.until("all have ended", func() bool { return len(l.names(spool.Work))+len(l.names(spool.Inbox)) == 0 })
	must(t, l.stop())
	if code, out := l.output("ledger", "verify"); code != 0 {
		t.Errorf("ledger verify: %d, %s", code, out)
	}

	held := 0
	for n := range kills {
		p := l.place(name(n))
		if !p.Final() {
			t.Errorf("%s is in %q", name(n), p)
			continue
		}
		for file := range files(name(n)) {
			if _, err := os.Stat(l.path(string(p), name(n), file)); err != nil {
				t.Error(err)
			}
		}
		r := l.result(p, name(n))
		processed := l.api.Token(token(name(n))).Processed
		switch {
		case !r.Outcome.Final(), processed != 1, (p == spool.Done) != (r.Outcome == sidecar.Accepted):
			t.Errorf("%s in %s: %s, %d times processed", name(n), p, r.Outcome, processed)
		case p == spool.Hold:
			held++
		}
	}
	left, err := filepath.Glob(l.path("*", "*", ".idenfy-batch.*"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
	report := l.api.Report()
	if len(report.Violations) > 0 || report.Processed != kills {
		t.Errorf("%d processed, violations: %v", report.Processed, report.Violations)
	}
	t.Logf("%d kills, %d folders: 0 lost, 0 twice, %d for a person to decide; %d requests, %d of them repeats", kills, kills, held, report.Requests, report.Repeats)
}

// lives returns what the journal says of the folders in work, by their names
// there. No daemon may run.
func (l *lab) lives() map[string]*journal.Life {
	l.t.Helper()
	lives := map[string]*journal.Life{}
	where := journal.Where{Dir: l.path("journal"), Mark: l.path("work")}
	if there, err := where.Exists(); err != nil || !there {
		must(l.t, err)
		return lives // it was killed before it had made one
	}
	j, err := journal.Open(where)
	must(l.t, err)
	defer func() { must(l.t, j.Close()) }()
	for _, work := range l.names(spool.Work) {
		_, id, _ := spool.Split(work)
		life, err := j.Load(l.t.Context(), id)
		must(l.t, err)
		if life != nil {
			lives[work] = life
		}
	}
	return lives
}

// forgive allows one more request with the tokens of which the journal says
// that an attempt is under way: the daemon that was killed may not have read
// the answer. All others must not be sent again.
func (l *lab) forgive() {
	l.t.Helper()
	for _, life := range l.lives() {
		r := life.Result
		if r.Outcome == sidecar.Pending && r.LastAttempt() != nil && r.LastAttempt().State == sidecar.Sending {
			tok := l.tokens[r.Folder]
			if tok == "" {
				tok = token(r.Folder)
			}
			l.api.Forgive(tok)
		}
	}
}
