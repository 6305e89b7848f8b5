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
		f := files(name(n))
		f["meta.yaml"] = []byte(sample.Person("person-of-"+name(n), "LT", "ID_CARD", "firstName: Jonas"))
		f[".ready"] = nil
		l.put(name(n), f)
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
		sessions, processed := l.api.Sessions("person-of-"+name(n)), 0
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
	l.noTokens()
	if report := l.api.Report(); len(report.Violations) > 0 || report.Processed != kills {
		t.Errorf("%d processed, violations: %v", report.Processed, report.Violations)
	}
	t.Logf("%d kills, %d folders: 0 lost, 0 twice; %d sessions, %d of them with a token that nobody has, all on record", kills, kills, l.api.Report().Opened, orphans)
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
// tokens of all sessions.
func (l *lab) noTokens() {
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
				l.t.Errorf("%s is left", path)
			}
			data, err := os.ReadFile(path)
			look(path, data)
			return err
		}))
	}
}
