package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// calls are the system calls by which a folder's life goes on, and which of
// them count.
var calls = map[string]struct {
	number uint64
	counts func(pid int, args [6]uint64) bool // nil: all
}{
	"renameat2":         {number: unix.SYS_RENAMEAT2},                                                           // claim, evidence, finish, and the probes at the start
	"renameat":          {number: unix.SYS_RENAMEAT},                                                            // result.json
	"openat, O_CREAT":   {unix.SYS_OPENAT, func(_ int, a [6]uint64) bool { return a[2]&unix.O_CREAT != 0 }},     // result.json
	"openat, a folder":  {unix.SYS_OPENAT, func(_ int, a [6]uint64) bool { return a[2]&unix.O_DIRECTORY != 0 }}, // to list it, and to sync it
	"write":             {number: unix.SYS_WRITE},                                                               // result.json, the request, the log
	"fsync":             {number: unix.SYS_FSYNC},                                                               // files and directories
	"fchmod":            {number: unix.SYS_FCHMOD},                                                              // result.json
	"unlinkat":          {number: unix.SYS_UNLINKAT},                                                            // what a crash left, and the probes
	"mkdirat":           {number: unix.SYS_MKDIRAT},                                                             // the probes
	"flock":             {number: unix.SYS_FLOCK},                                                               // the spool's lock
	"fcntl, F_SETLEASE": {unix.SYS_FCNTL, func(_ int, a [6]uint64) bool { return a[1] == unix.F_SETLEASE }},     // is somebody writing?
	"getdents64":        {number: unix.SYS_GETDENTS64},                                                          // the listings
	"connect":           {number: unix.SYS_CONNECT},                                                             // to the service
	"read, a socket":    {unix.SYS_READ, func(pid int, a [6]uint64) bool { return isSocket(pid, a[0]) }},        // the answer
	"write, a socket":   {unix.SYS_WRITE, func(pid int, a [6]uint64) bool { return isSocket(pid, a[0]) }},       // the request
	"pread64, an image": {unix.SYS_PREAD64, func(pid int, a [6]uint64) bool { return isImage(pid, a[0]) }},      // the journal's depend on its size
	"pwrite64":          {number: unix.SYS_PWRITE64},                                                            // the journal, and its mark
}

// isImage reports whether a descriptor is of an image.
func isImage(pid int, fd uint64) bool {
	target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	return err == nil && strings.HasSuffix(target, ".jpg")
}

func isSocket(pid int, fd uint64) bool {
	to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	return err == nil && strings.HasPrefix(to, "socket:")
}

// The real program is killed at the entry of the n-th call of each kind, over
// all its threads, for n from 1 until a run gets through, and started again.
func TestLabSweep(t *testing.T) {
	needsLab(t)
	t.Parallel()
	var kills atomic.Int64
	t.Run("calls", func(t *testing.T) {
		for name := range calls {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				n := sweep(t, name)
				t.Logf("%s: killed at each of %d calls", name, n)
				kills.Add(int64(n))
			})
		}
	})
	if !t.Failed() {
		t.Logf("kill sweep: %d kills at %d kinds of system calls, 0 lost, 0 twice", kills.Load(), len(calls))
	}
}

// sweep returns how many calls of a kind there are.
func sweep(t *testing.T, call string) int {
	l := newLab(t, "completeness: {settle: 100ms, rescan: 100ms}")
	l.inboxReady()
	through := 0
	for n := 1; ; n++ {
		names := []string{fmt.Sprintf("plain%d", n), fmt.Sprintf("known%d", n)}
		f := files(names[0])
		f[".ready"] = nil
		l.put(names[0], f)
		ref := sandbox.NewScanRef()
		l.api.Issue(token(names[1]), ref)
		f = files(names[1], "scanRef: "+ref)
		f["result.json"] = []byte("{}") // which becomes evidence
		f[".ready"] = nil
		l.put(names[1], f)
		if call != "pwrite64" { // each commit is whole or not, whatever is in it, and these are most of all
			names = append(names, fmt.Sprintf("person%d", n))
			l.put(names[2], person(names[2]))
		}

		killed := killAt(t, l.command("run", "--once"), call, n)
		for _, name := range names {
			l.isWhole(name)
		}
		l.noTokens(clientOf(names[len(names)-1]), false)
		l.forgive()
		l.orphaned()
		// A folder may wait for another try, and one that went back to the
		// inbox is judged by the next run.
		for tries := 0; slices.ContainsFunc(names, func(name string) bool { return !l.isWhole(name).Final() }); tries++ {
			if out, err := l.command("run", "--once").CombinedOutput(); err != nil && tries > 5 {
				t.Fatalf("call %d: %d starts later: %v: %s", n, tries, err, out)
			}
		}
		for i, name := range names {
			p := l.isWhole(name)
			processed := l.api.Token(token(name)).Processed
			for _, s := range l.api.Sessions(clientOf(name)) {
				processed += s.Processed
			}
			if p != spool.Done && (i > 0 || p != spool.Hold) || processed != 1 {
				t.Errorf("call %d: %s is in %s, %d times processed", n, name, p, processed)
			}
			if r := l.result(p, name); (r.Outcome == sidecar.Accepted) != (p == spool.Done) || !r.Outcome.Final() {
				t.Errorf("call %d: %s is %s in %s", n, name, r.Outcome, p)
			}
			must(t, os.RemoveAll(l.path(string(p), name))) // a start looks at all that is there, so the number of calls would grow
		}
		l.noTokens(clientOf(names[len(names)-1]), true)
		if n%20 == 0 || !killed {
			if found := l.altered(); len(found) > 0 {
				t.Errorf("call %d: ledger verify finds %v", n, found)
			}
		}
		if v := l.api.Report().Violations; len(v) > 0 {
			t.Fatalf("call %d: %v", n, v)
		}
		if killed {
			through = 0
		} else if through++; through == 2 { // their number differs a little from run to run
			return n - 2
		}
		if n > 2000 {
			t.Fatal("no run gets through")
		}
	}
}

// Of ptrace(2); what package unix doesn't have.
const (
	getSyscallInfo = 0x420e // PTRACE_GET_SYSCALL_INFO
	syscallEntry   = 1      // PTRACE_SYSCALL_INFO_ENTRY
	exitKill       = 0x00100000
)

// syscallInfo is struct ptrace_syscall_info.
type syscallInfo struct {
	Op     uint8
	_      [3]uint8
	_      uint32
	_, _   uint64
	Number uint64
	Args   [6]uint64
}

// killAt runs a program and kills it when it enters the n-th call of a kind,
// which then isn't made. It returns false when there are fewer.
//
// strace(1) can inject a signal at the n-th call too, but counts for each
// thread by itself, and a Go program's work moves between threads.
func killAt(t *testing.T, cmd *exec.Cmd, call string, n int) (killed bool) {
	t.Helper()
	runtime.LockOSThread() // a tracee belongs to the thread that began it
	defer runtime.UnlockOSThread()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Ptrace, cmd.SysProcAttr.Setpgid = true, true
	must(t, cmd.Start())
	pid := cmd.Process.Pid
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || !status.Stopped() {
		t.Fatalf("the program doesn't stop at its start: %v, %v", err, status)
	}
	must(t, unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|exitKill))
	must(t, unix.PtraceSyscall(pid, 0))
	for seen := 0; ; {
		tid, err := unix.Wait4(-pid, &status, unix.WALL|unix.WNOTHREAD, nil) // its group: other children are other tests'
		if err != nil {
			t.Fatalf("wait4: %v", err)
		}
		signal := 0
		switch {
		case status.Exited() || status.Signaled():
			if tid != pid {
				continue
			}
			_ = cmd.Process.Release() // it was waited for
			if !killed && status.ExitStatus() != 0 {
				t.Fatalf("%s, call %d: it was not killed, and ended with %d", call, n, status.ExitStatus())
			}
			return killed
		case !status.Stopped():
			continue
		case status.StopSignal() == unix.SIGTRAP|0x80: // a system call
			var info syscallInfo
			_, _, errno := unix.Syscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
			c := calls[call]
			if errno == 0 && info.Op == syscallEntry && info.Number == c.number && !killed && (c.counts == nil || c.counts(pid, info.Args)) {
				if seen++; seen == n {
					killed = true
					must(t, unix.Kill(pid, unix.SIGKILL))
				}
			}
		case status.StopSignal() == unix.SIGTRAP || status.StopSignal() == unix.SIGSTOP: // a new thread
		default:
			signal = int(status.StopSignal())
		}
		_ = unix.PtraceSyscall(tid, signal) // it may be dead by now
	}
}

// isWhole returns the one place of the folder, and fails the test when there
// is none, or when a file of it is not as it was.
func (l *lab) isWhole(name string) spool.Place {
	l.t.Helper()
	p := l.place(name)
	if p == "" {
		l.t.Fatalf("%s is lost", name)
	}
	dir := name
	if p == spool.Work {
		for _, n := range l.names(p) {
			if own, _, _ := spool.Split(n); own == name {
				dir = n
			}
		}
	}
	for file, want := range map[string][]byte{"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face} {
		got, err := os.ReadFile(filepath.Join(l.path(string(p), dir), file))
		if err != nil || string(got) != string(want) {
			l.t.Fatalf("%s of %s in %s is not whole: %v", file, name, p, err)
		}
	}
	meta, err := os.ReadFile(filepath.Join(l.path(string(p), dir), "meta.yaml"))
	if err != nil || !strings.Contains(string(meta), token(name)) && !strings.Contains(string(meta), clientOf(name)) {
		l.t.Fatalf("meta.yaml of %s in %s is not whole: %v", name, p, err)
	}
	if p.Final() {
		if r := l.result(p, dir); !r.Outcome.Final() {
			l.t.Fatalf("%s is %s in %s", name, r.Outcome, p)
		}
	}
	return p
}
