package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// The daemon is killed at random instants while folders of persons come in, for
// whom it opens sessions. None is lost, none processed twice, each session that
// nobody has the token of is on record, and in the end no token is anywhere: not
// in the spool, its journal, or the log.
func TestKillSessions(t *testing.T) {
	kills := 40 // and as many folders
	switch {
	case inLab:
		kills = 150
	case testing.Short():
		kills = 15
	}
	l := newLab(t, "completeness: {settle: 100ms, rescan: 100ms}", "concurrency: 8")
	l.patience = 5 * time.Minute // what a killed daemon had sent may open a session later than it is looked for: that has to expire
	l.inboxReady()
	l.api.AlwaysSession(&sandbox.Step{Latency: 60 * time.Millisecond})
	l.api.Always(&sandbox.Step{Latency: 10 * time.Millisecond})
	name := func(n int) string { return fmt.Sprintf("case%03d", n) }
	for n := range kills {
		l.put(name(n), person(name(n)))
		l.start()
		most := 60 * time.Millisecond
		if n%2 == 0 {
			most = 300 * time.Millisecond
		}
		time.Sleep(time.Duration(rand.Int64N(int64(most))))
		l.kill()
		l.orphaned()
		if n := len(l.names(spool.Failed)) + len(l.names(spool.Hold)); n > 0 {
			t.Fatalf("%d folders failed, or are held", n)
		}
	}
	l.start()
	l.until("all have ended", func() bool { return len(l.names(spool.Work))+len(l.names(spool.Inbox)) == 0 })
	must(t, l.stop())
	orphans := 0
	for n := range kills {
		r := l.result(spool.Done, name(n))
		sessions, processed := l.api.Sessions(clientOf(name(n))), 0
		for _, s := range sessions {
			processed += s.Processed
		}
		nobodys := 0
		for _, o := range r.Sessions {
			if o.State == sidecar.NoAnswer {
				nobodys++
			}
		}
		for _, o := range r.Sessions {
			if o.ScanRef != "" {
				sessions = leftOf(sessions, o.ScanRef)
			}
		}
		orphans += len(sessions)
		if r.Outcome != sidecar.Accepted || processed != 1 || len(sessions) > nobodys {
			t.Errorf("%s: %s, %d times processed; on record are %+v, and beside these %d sessions", name(n), r.Outcome, processed, r.Sessions, len(sessions))
		}
	}
	l.noTokens(true)
	if report := l.api.Report(); len(report.Violations) > 0 || report.Processed != kills {
		t.Errorf("%d processed, violations: %v", report.Processed, report.Violations)
	}
	t.Logf("%d kills, %d folders: 0 lost, 0 twice; %d sessions, %d of them with a token that nobody has, all on record", kills, kills, l.api.Report().Opened, orphans)
}

// clientOf is the person of a folder.
func clientOf(name string) string { return "person-of-" + name }

// person are the files of a whole folder of a person, for whom the daemon opens
// the session.
func person(name string) map[string][]byte {
	f := files(name)
	f["meta.yaml"], f[".ready"] = []byte(sample.Person(clientOf(name), "LT", "ID_CARD", "firstName: Jonas")), nil
	return f
}

// The power is cut at random instants while sessions are opened: as above. What
// was kept of a session, or not, a cut may undo, and no token gets out of work.
func TestLabCutsSessions(t *testing.T) {
	needsLab(t)
	t.Parallel()
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c := newCutter(t, kind, "")
			c.patience = 5 * time.Minute
			c.api.AlwaysSession(&sandbox.Step{Latency: 20 * time.Millisecond})
			var names []string
			for n := range *cuts / 4 {
				for i := range 3 {
					name := fmt.Sprintf("p%d-%d", n, i)
					c.put(name, person(name))
					names = append(names, name)
				}
				c.disk.sync()
				asked := c.api.Report().Asked
				c.start()
				if n%4 > 0 { // also on a busy machine
					c.until("it asks for a session", func() bool { return c.api.Report().Asked > asked })
				}
				time.Sleep(time.Duration(rand.Int64N(int64(120 * time.Millisecond))))
				c.disk.cut()
				c.kill()
				c.disk.unmount()
				c.disk.mount()
				for _, name := range names {
					c.isWhole(name)
				}
				c.noTokens(false)
				c.orphaned()
			}
			c.start()
			c.until("all have ended", func() bool { return len(c.names(spool.Work))+len(c.names(spool.Inbox)) == 0 })
			must(t, c.stop())
			for _, name := range names {
				processed := 0
				for _, s := range c.api.Sessions(clientOf(name)) {
					processed += s.Processed
				}
				if p := c.isWhole(name); p != spool.Done || processed != 1 {
					t.Errorf("%s is in %s, %d times processed", name, p, processed)
				}
			}
			c.noTokens(true)
			if found := c.altered(); len(found) > 0 {
				t.Errorf("ledger verify finds %v", found)
			}
			r := c.api.Report()
			if len(r.Violations) > 0 {
				t.Errorf("violations: %v", r.Violations)
			}
			t.Logf("power cuts on %s with sessions: %d cuts, %d folders, %d sessions", kind, *cuts/4, len(names), r.Opened)
		})
	}
}

func leftOf(sessions map[string]sandbox.Seen, ref string) map[string]sandbox.Seen {
	for token, s := range sessions {
		if s.ScanRef == ref {
			delete(sessions, token)
		}
	}
	return sessions
}

// orphaned lets the sessions expire that nobody has the token of, and allows one
// more request with those that were being sent.
func (l *lab) orphaned() {
	l.t.Helper()
	known := map[string]bool{}
	for _, life := range l.lives() {
		last := life.Result.LastAttempt()
		known[life.Token] = last != nil && last.State == sidecar.Sending
	}
	for tok, s := range l.api.Sessions("") {
		sum := sha256.Sum256([]byte(tok))
		sending, is := known[hex.EncodeToString(sum[:])]
		switch {
		case sending:
			l.api.Forgive(tok)
		case !is && s.Processed == 0:
			l.api.SetStatus(tok, "EXPIRED")
		}
	}
}

// noTokens searches the spool, the configuration's directory and the log for the
// tokens of all sessions: they are nowhere but in files of their own in work, and
// in the end not there.
func (l *lab) noTokens(end bool) {
	l.t.Helper()
	sessions := l.api.Sessions("")
	look := func(where string, data []byte) {
		for token := range sessions {
			if bytes.Contains(data, []byte(token)) {
				l.t.Errorf("a token is in %s", where)
			}
		}
	}
	look("the log", []byte(l.logged()))
	for _, root := range []string{l.root, filepath.Dir(l.config)} {
		must(l.t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			if strings.Contains(e.Name(), ".token.") {
				if end || filepath.Dir(path) != l.path("work") {
					l.t.Errorf("%s is left", path)
				}
				return nil
			}
			data, err := os.ReadFile(path)
			look(path, data)
			return err
		}))
	}
}
