package journal_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/journal"
)

// holding names the file that a process of this test's is to lock, see TestLocked.
const holding = "IDENFY_BATCH_TEST_HOLDS"

// keepLocked locks a byte as who may only read can, until its standard input ends.
func keepLocked(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: 120, Len: 1}))
	fmt.Println("locked")
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
}

// Who may only read the journal can keep it from being written. The process that
// does is named, and once it lets go all goes on.
func TestLocked(t *testing.T) {
	if path := os.Getenv(holding); path != "" {
		keepLocked(t, path)
		return
	}
	t.Parallel() // it takes as long as the journal is patient
	w, j := create(t)
	first := claimed(t, j, "first")
	_, err := j.Load(t.Context(), first) // who begins to read while it is locked has to wait, too
	must(t, err)
	holder := exec.Command(os.Args[0], "-test.run=^TestLocked$")
	holder.Env = append(os.Environ(), holding+"="+db(w)+"-shm")
	in, err := holder.StdinPipe()
	must(t, err)
	out, err := holder.StdoutPipe()
	must(t, err)
	must(t, holder.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "locked\n" {
		t.Fatalf("%q, %v", line, err)
	}
	err = j.Unclaim(first)
	e, ok := errors.AsType[*journal.LockedError](err)
	if !ok || e.PID != holder.Process.Pid || e.File != db(w)+"-shm" {
		t.Errorf("%v, want process %d", err, holder.Process.Pid)
	}
	if l, err := j.Load(t.Context(), first); err != nil || l == nil {
		t.Errorf("it can't be read: %v, %v", l, err)
	}
	must(t, in.Close())
	_ = holder.Wait() // it is a test that had not all of its output read
	must(t, j.Unclaim(first))
	if l, err := j.Load(t.Context(), first); err != nil || l != nil {
		t.Errorf("%v, %v", l, err)
	}
}
