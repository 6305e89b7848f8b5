package daemon_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/telemetry"
)

// A shut gate is told to whoever asks: a monitor, Prometheus, and commands over
// the socket. Nothing of that is in a file of the spool.
func TestGateIsTold(t *testing.T) {
	address := free(t)
	l := newLab(t, func(c *config.Config) {
		c.Metrics.Listen = address
		must(t, os.MkdirAll(filepath.Join(c.Root, "hold", "of-before"), 0o700)) // held before a crash
		must(t, os.MkdirAll(filepath.Join(c.Root, "work"), 0o700))
		must(t, os.WriteFile(filepath.Join(c.Root, "work", ".state.json"), []byte("{}"), 0o600))
	})
	l.until("it is counted", func() bool {
		_, text := get(address, "/metrics")
		return strings.Contains(text, `idenfy_batch_folders{inbox="",place="hold"} 1`)
	})
	if _, err := os.Stat(filepath.Join(l.root, "work", ".state.json")); !os.IsNotExist(err) {
		t.Errorf("what an earlier version left is there: %v", err)
	}
	if code, text := get(address, "/healthz"); code != http.StatusOK {
		t.Errorf("%d %s", code, text)
	}
	l.api.Always(&sandbox.Step{Status: 401, Identifier: "UNAUTHORIZED", Message: "no"})
	l.put("case")
	l.until("it is unhealthy", func() bool {
		code, text := get(address, "/healthz")
		return code == http.StatusServiceUnavailable && strings.Contains(text, "iDenfy refuses the key") && strings.Contains(text, `"stalled":false`)
	})
	if _, text := get(address, "/metrics"); !strings.Contains(text, `idenfy_batch_paused{owner="account"} 1`) || !strings.Contains(text, `idenfy_batch_paused{owner="disk"} 0`) {
		t.Errorf("metrics:\n%s", text)
	}
	c, err := control.Dial(l.root)
	must(t, err)
	defer c.Close()
	var s telemetry.State
	must(t, c.State(t.Context(), &s))
	if len(s.Gates) != 1 || s.Gates[0].Owner != "account" || !strings.Contains(s.Gates[0].Mend, "reload") || s.PID != os.Getpid() {
		t.Errorf("%+v", s)
	}
	l.api.Always(nil)
	l.until("it is healthy", func() bool {
		code, text := get(address, "/healthz")
		return code == http.StatusOK && strings.Contains(text, `"gates":[]`)
	})
	must(t, c.State(t.Context(), &s))
	if len(s.Gates) != 0 {
		t.Errorf("%+v", s)
	}
	l.until("done", func() bool { return len(l.names("done")) == 1 })
}
