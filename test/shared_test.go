package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Daemon and submit know what the other one sent, whether the daemon runs at
// that time or not.
func TestSubmitAndDaemonShare(t *testing.T) {
	for _, running := range []bool{true, false} {
		l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}")
		l.inboxReady()
		own := t.TempDir()
		start := func() {
			l.start()
			l.until("started", func() bool { return strings.Contains(l.logged(), "watching the inbox") })
		}
		submit := func(name string) (int, string) {
			if !running {
				must(t, l.stop())
				defer start()
			}
			return l.output("submit", filepath.Join(own, name))
		}
		write := func(name, as string) { must(t, sample.Write(filepath.Join(own, name), files(as))) }
		start()

		// submit sent it; then it is dropped, as it is and with a new token.
		for name, c := range map[string]struct {
			fresh bool
			place spool.Place
		}{"as-it-is": {false, spool.Done}, "fresh": {true, spool.Failed}} {
			write(name, name)
			if code, out := submit(name); code != 0 {
				t.Fatalf("submit %s: %d, %s", name, code, out)
			}
			if c.fresh {
				must(t, os.WriteFile(filepath.Join(own, name, "meta.yaml"), files("other")["meta.yaml"], 0o600))
				must(t, os.Remove(filepath.Join(own, name, "result.json"))) // the directory tells
			}
			must(t, os.Rename(filepath.Join(own, name), l.path("inbox", name)))
			l.until(name+" has ended", func() bool { return l.place(name) == c.place })
			r := l.result(c.place, name)
			if !slices.ContainsFunc(r.Reasons, func(r sidecar.Reason) bool { return r.Code == sidecar.SentBefore }) || len(r.Attempts) > 0 {
				t.Errorf("%s: %+v", name, r)
			}
		}

		// submit got no answer: the daemon doesn't send that one either.
		write("open", "open")
		l.api.Script(token("open"), sandbox.Step{Fault: sandbox.LoseAnswer})
		if code, out := submit("open"); code != exitsFailed {
			t.Errorf("submit open: %d, %s", code, out)
		}
		must(t, os.WriteFile(filepath.Join(own, "open", "meta.yaml"), files("open2")["meta.yaml"], 0o600))
		must(t, os.Rename(filepath.Join(own, "open"), l.path("inbox", "open")))
		l.until("open is held", func() bool { return l.place("open") == spool.Hold })

		// The daemon sent it; submit has a copy with a new token, and a result
		// that says that it was rejected.
		l.put("sent", files("sent"))
		l.until("sent is accepted", func() bool { return l.place("sent") == spool.Done })
		write("copy", "sent")
		text, err := os.ReadFile(l.path("done", "sent", "result.json"))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(own, "copy", "result.json"), []byte(strings.ReplaceAll(string(text), `"accepted"`, `"rejected"`)), 0o600))
		must(t, os.WriteFile(filepath.Join(own, "copy", "meta.yaml"), files("copy")["meta.yaml"], 0o600))
		if code, out := submit("copy"); code != exitsFailed || !strings.Contains(out, "was accepted already (done/sent") {
			t.Errorf("submit copy: %d, %s", code, out)
		}
		must(t, l.stop())
		if r := l.api.Report(); r.Processed != 4 || len(r.Violations) > 0 {
			t.Errorf("running %v: %+v", running, r)
		}
	}
}
