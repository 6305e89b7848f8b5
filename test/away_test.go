package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// A folder that somebody took out of work by hand is named until a person says
// what became of it, wherever it lies.
func TestTakenOutOfWork(t *testing.T) {
	l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}")
	l.inboxReady()
	l.api.Always(&sandbox.Step{Fault: sandbox.Stall})
	away := t.TempDir()
	for name, to := range map[string]string{"a": l.path("done", "a"), "b": filepath.Join(away, "b"), "c": l.path("failed")} {
		l.start()
		l.put(name, files(name))
		l.until(name+" is sent", func() bool { return l.api.Token(token(name)).Requests > 0 })
		l.kill()
		work := l.names(spool.Work)
		if len(work) != 1 {
			t.Fatalf("in work: %v", work)
		}
		if name == "c" { // with the name that it had
			to = filepath.Join(to, work[0])
		}
		must(t, os.Rename(l.path("work", work[0]), to))
	}
	l.api.Always(nil)
	l.start()
	l.until("all are missed", func() bool { return strings.Count(l.logged(), "took it out of work") == 3 })
	for _, running := range []bool{true, false} {
		code, out := l.output("status")
		for _, want := range []string{"taken out of work by hand", "  a (submission ", "  b (submission ", "  c (submission ", "it lies in done/a now", "may have been accepted"} {
			if code != 0 || !strings.Contains(out, want) {
				t.Errorf("running %v: %d, no %q in %s", running, code, want, out)
			}
		}
		if running {
			must(t, l.stop())
		}
	}
	code, out := l.output("status", "--json")
	var s struct {
		Away []struct{ ID, Folder string } `json:"taken_out"`
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != 0 || len(s.Away) != 3 {
		t.Fatalf("%d, %v, %s", code, err, out)
	}
	l.start()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"b", "--resubmit"}, exitsFailed, "not in the spool"},
		{[]string{"b", "--rejected"}, 0, "recorded; its folder is not in the spool"},
		{[]string{"a", "--resubmit"}, exitsFailed, "no scanRef"},
		{[]string{"a", "--accepted"}, 0, "now in done/a"},
		{[]string{"c", "--rejected"}, 0, "now in failed/c."},
		{[]string{"b", "--rejected"}, exitsFailed, "no such folder"},
	} {
		if code, out := l.output(append([]string{"resolve"}, c.args...)...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("resolve %v: %d, %s", c.args, code, out)
		}
	}
	if r := l.result(spool.Done, "a"); r.Outcome != sidecar.Accepted {
		t.Errorf("a is %s", r.Outcome)
	}
	if _, out := l.output("status"); strings.Contains(out, "taken out") {
		t.Error(out)
	}
	must(t, l.stop())
}

// What somebody planted reaches no terminal as it is, and an error is one in
// JSON as well.
func TestStatusIsPlain(t *testing.T) {
	l := newLab(t)
	l.inboxReady()
	l.start()
	l.until("started", func() bool { return strings.Contains(l.logged(), "watching the inbox") })
	must(t, l.stop())
	dir := l.path("hold", "x")
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "result.json"), []byte(`{"schema":"`+sidecar.Schema+`","request":{"token_hint":"\u009b31m"},"reasons":[{"message":"\u001b]0;x\u0007\u009b2J"}]}`), 0o600))
	for _, args := range [][]string{{"status"}, {"status", "--json"}} {
		if code, out := l.output(args...); code != 0 || strings.ContainsAny(out, "\x1b\x07\u009b") || strings.Contains(out, `"\u001b`) || !strings.Contains(out, "x1b") {
			t.Errorf("%v: %d, %q", args, code, out)
		}
	}
	must(t, os.Remove(l.path("work", ".journal")))
	must(t, os.RemoveAll(l.path("work")))
	must(t, os.Symlink("work", l.path("work"))) // so that whether a daemon runs can't be told
	for _, args := range [][]string{{"status"}, {"status", "--json"}} {
		if code, out := l.output(args...); code != exitsFailed {
			t.Errorf("%v: %d, %s", args, code, out)
		}
	}
}
