package test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/c2sp"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
)

// Proofs and checkpoints of a working daemon are those that another
// implementation takes, and none that was altered is.
func TestProofsElsewhere(t *testing.T) {
	l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}")
	l.inboxReady()
	l.start()
	const folders = 9
	for n := range folders {
		l.put(fmt.Sprintf("case%d", n), files(fmt.Sprintf("case%d", n)))
	}
	l.until("all are accepted", func() bool { return len(l.names(spool.Done)) == folders })
	must(t, l.stop()) // which signs
	l.start()
	run := func(args ...string) string {
		t.Helper()
		out, err := l.command(args...).Output()
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("%v: %s", args, e.Stderr)
		}
		must(t, err)
		return string(out)
	}
	vkey := strings.TrimSpace(run("ledger", "checkpoint", "--key"))
	checkpoint := run("ledger", "checkpoint")
	if signed, err := c2sp.Note(checkpoint, vkey); err != nil || len(signed) != 3 || signed[1] != strconv.Itoa(folders+1) {
		t.Errorf("%v: %q", err, signed)
	}
	for n := range folders {
		name := fmt.Sprintf("case%d", n)
		proof := run("ledger", "prove", name)
		data, err := c2sp.Proof(proof, vkey)
		must(t, err)
		result, err := os.ReadFile(l.path("done", name, "result.json"))
		must(t, err)
		sum := sha256.Sum256(result)
		var e struct{ Kind, ID, Outcome, Place, SHA256 string }
		must(t, json.Unmarshal(data, &e))
		if e.Kind != "ended" || e.Outcome != "accepted" || e.Place != "done" || e.SHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: %s", name, data)
		}
		if strings.Contains(string(data), name) {
			t.Errorf("the folder's name is in the ledger: %s", data)
		}
		altered := strings.Replace(proof, "index ", "index 1", 1)
		if _, err := c2sp.Proof(altered, vkey); err == nil {
			t.Error("an altered proof is taken")
		}
	}
}

// Beside a working daemon, and beside people who requeue and resolve, verify
// finds nothing; and then each of some alterations by its folder.
func TestVerifyBesideDaemon(t *testing.T) {
	l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}")
	l.inboxReady()
	l.api.Script(token("case7"), sandbox.Step{Status: 400, Identifier: "BAD_VALUE", Message: "no"})
	for _, name := range []string{"case3", "case5", "case9"} {
		l.api.Script(token(name), sandbox.Step{Fault: sandbox.LoseAnswer})
	}
	l.start()
	l.until("it watches", func() bool { return strings.Contains(l.logged(), "watching the inbox") })
	const folders = 80
	put := make(chan struct{})
	go func() {
		defer close(put)
		for n := range folders {
			name := fmt.Sprintf("case%d", n)
			l.put(name, small(name))
			time.Sleep(20 * time.Millisecond) // the pace of the uploads, and nothing is waited for
		}
	}()
	runs := 0
	for working := true; working; runs++ {
		select {
		case <-put:
			working = len(l.names(spool.Done)) < folders
		default:
		}
		if runs%5 == 4 && len(l.names(spool.Failed)) == 1 {
			_, _ = l.output("requeue", "case7")
		}
		if held := l.names(spool.Hold); len(held) > 0 {
			if code, out := l.output("resolve", held[0], "--accepted"); code != 0 {
				t.Errorf("resolve %s: %d, %s", held[0], code, out)
			}
		}
		if code, out := l.output("ledger", "verify"); code != 0 || !strings.Contains(out, "✓ nothing was altered") {
			t.Fatalf("run %d: %d, %s", runs, code, out)
		}
	}
	t.Logf("%d runs", runs)
	must(t, os.RemoveAll(l.path("done", "case1")))
	must(t, os.Rename(l.path("done", "case2"), l.path("failed", "case2")))
	must(t, os.Chmod(l.path("done", "case3", "FRONT.png"), 0o600))
	f, err := os.OpenFile(l.path("done", "case3", "FRONT.png"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("x")
	must(t, errors.Join(err, f.Close()))
	for _, running := range []bool{true, false} {
		code, out := l.output("ledger", "verify")
		for _, want := range []string{"✗ done/case1: the folder was removed", "✗ failed/case2: the folder was put into done, and somebody moved it to failed", "✗ done/case3: FRONT.png (FRONT) is not as it was: it has", "3 alterations were found"} {
			if code != exitsFailed || !strings.Contains(out, want) {
				t.Errorf("running %v: %d, no %q in %s", running, code, want, out)
			}
		}
		if strings.Count(out, "✗") != 3 {
			t.Errorf("running %v: %s", running, out)
		}
		if running {
			must(t, l.stop())
		}
	}
}

// altered returns what ledger verify finds, but for folders that the test
// itself took away.
func (l *lab) altered() (found []string) {
	l.t.Helper()
	code, out := l.output("ledger", "verify")
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "✗") && !strings.Contains(line, "the folder was removed") {
			found = append(found, line)
		}
	}
	// The power may be cut before the first start has made one.
	none := strings.Contains(out, "there is no journal") && len(l.names(spool.Done))+len(l.names(spool.Failed))+len(l.names(spool.Hold)) == 0
	if code != 0 && !none && !strings.Contains(out, "alterations were found") {
		found = append(found, out)
	}
	return found
}
