package test

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/spool"
)

// Who may look into the journal: root, the daemon's user, and a member of its
// group; beside the daemon, after its end, and after its death. Nobody leaves a
// file there that the daemon could not go on with, and a member of the group
// decides nothing.
func TestLabReaders(t *testing.T) {
	needsLab(t)
	t.Parallel()
	const daemonUser, auditor, stranger = 4100, 4101, 4102
	l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}")
	for _, dir := range []string{l.root, filepath.Dir(l.config)} { // below a folder of the test's that only root enters
		must(t, os.Chmod(filepath.Dir(dir), 0o755))
		must(t, os.Chmod(dir, 0o755))
	}
	must(t, os.Chown(l.root, daemonUser, daemonUser))
	must(t, os.Chmod(l.config, 0o644))
	users := map[string]*syscall.Credential{
		"root": nil, "daemon": {Uid: daemonUser, Gid: daemonUser}, "auditor": {Uid: auditor, Gid: auditor, Groups: []uint32{daemonUser}}, "stranger": {Uid: stranger, Gid: stranger},
	}
	// as runs a command as one of them, and looks at what is left of that.
	as := func(user string, args ...string) (int, string) {
		t.Helper()
		was := l.credential
		l.credential = users[user]
		defer func() { l.credential = was }()
		code, out := l.output(args...)
		entries, err := os.ReadDir(l.path("journal"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			var st unix.Stat_t
			must(t, unix.Lstat(l.path("journal", e.Name()), &st))
			if st.Uid != daemonUser || st.Gid != daemonUser {
				t.Errorf("%s %v: %s belongs to %d:%d", user, args, e.Name(), st.Uid, st.Gid)
			}
		}
		return code, out
	}
	read := func(when string, names ...string) {
		t.Helper()
		for _, user := range []string{"auditor", "daemon", "root", "auditor"} {
			for _, name := range names {
				if code, out := as(user, "show", name); code != 0 || !strings.Contains(out, name+": accepted, in done/"+name) {
					t.Errorf("%s, %s: show %s: %d, %s", when, user, name, code, out)
				}
			}
			if code, out := as(user, "list"); code != 0 || strings.Count(out, "done    accepted") != len(names) {
				t.Errorf("%s, %s: list: %d, %s", when, user, code, out)
			}
			if code, out := as(user, "ledger", "checkpoint", "--key"); code != 0 || !strings.HasPrefix(out, "idenfy-batch/") {
				t.Errorf("%s, %s: ledger checkpoint --key: %d, %s", when, user, code, out)
			}
			if code, out := as(user, "report"); code != 0 || !strings.Contains(out, fmt.Sprintf("%d  folders\n", len(names))) {
				t.Errorf("%s, %s: report: %d, %s", when, user, code, out)
			}
			if when == "beside the daemon" { // which signs each minute, and at its end
				continue
			}
			if code, out := as(user, "ledger", "prove", names[0]); code != 0 || !strings.HasPrefix(out, "c2sp.org/tlog-proof@v1") {
				t.Errorf("%s, %s: ledger prove: %d, %s", when, user, code, out)
			}
			if code, out := as(user, "ledger", "verify"); code != 0 || !strings.Contains(out, fmt.Sprintf(" %d folders,", len(names))) {
				t.Errorf("%s, %s: ledger verify: %d, %s", when, user, code, out)
			}
		}
		private := filepath.Join(filepath.Dir(l.config), "private") // where the daemon's user may not write
		must(t, os.MkdirAll(private, 0o700))
		if code, out := as("root", "report", "--html", filepath.Join(private, "r.html"), "--csv", filepath.Join(private, "r.csv")); code != 0 {
			t.Errorf("%s, root: report to a file: %d, %s", when, code, out)
		}
		if data, err := os.ReadFile(filepath.Join(private, "r.csv")); err != nil || strings.Count(string(data), "\r\n") != 1+len(names) {
			t.Errorf("%s: %s, %v", when, data, err)
		}
		for _, args := range [][]string{{"list"}, {"show", names[0]}, {"report"}, {"ledger", "checkpoint"}} {
			if code, out := as("stranger", args...); code != exitsFailed || !strings.Contains(out, "member of the journal's group") {
				t.Errorf("%s, stranger: %v: %d, %s", when, args, code, out)
			}
		}
	}
	if code, out := as("auditor", "list"); code != exitsFailed || !strings.Contains(out, "no journal below") {
		t.Errorf("before the first start: %d, %s", code, out)
	}
	l.credential = users["daemon"]
	taken := func(name string) {
		t.Helper()
		l.put(name, small(name))
		must(t, filepath.Walk(l.path("inbox", name), func(path string, _ os.FileInfo, err error) error {
			if err == nil {
				err = os.Chown(path, daemonUser, daemonUser)
			}
			return err
		}))
		l.until(name+" ends", func() bool { return l.place(name) == spool.Done })
	}
	l.start()
	l.until("it watches", func() bool { return strings.Contains(l.logged(), "watching the inbox") })
	taken("case-1")
	read("beside the daemon", "case-1")
	if code, out := as("auditor", "requeue", "--force", "case-1"); code != exitsFailed || !strings.Contains(out, "only root and the daemon's user may ask for that") {
		t.Errorf("an auditor decides: %d, %s", code, out)
	}
	must(t, l.stop())
	read("after its end", "case-1")
	if code, out := as("auditor", "requeue", "--force", "case-1"); code != exitsFailed {
		t.Errorf("an auditor decides alone: %d, %s", code, out)
	}

	l.start()
	l.until("it watches again", func() bool { return strings.Contains(l.logged()[l.begun:], "watching the inbox") })
	taken("case-2")
	l.kill()
	read("after its death", "case-1", "case-2")

	l.start()
	l.until("it goes on", func() bool { return strings.Contains(l.logged()[l.begun:], "watching the inbox") })
	taken("case-3")
	must(t, l.stop())
	for _, end := range []string{"-wal", "-shm"} { // as other programs of SQLite do
		must(t, os.Remove(l.path("journal", "journal.db"+end)))
	}
	if code, out := as("auditor", "list"); code != exitsFailed || !strings.Contains(out, "start it") {
		t.Errorf("without the log: %d, %s", code, out)
	}
	if code, out := as("root", "backup", filepath.Join(filepath.Dir(l.config), "copy.db")); code != 0 {
		t.Errorf("without the log: %d, %s", code, out)
	}
	for _, end := range []string{"-wal", "-shm"} {
		_ = os.Remove(l.path("journal", "journal.db"+end)) // it may be gone
	}
	if code, out := as("root", "list"); code != 0 {
		t.Errorf("without the log: %d, %s", code, out)
	}
	read("after that", "case-1", "case-2", "case-3")
	l.start()
	l.until("it goes on", func() bool { return strings.Contains(l.logged()[l.begun:], "watching the inbox") })
	taken("case-4")
	must(t, l.stop())
}

// What list prints is the same beside a daemon and without one, and can be
// read by programs, whatever the names are.
func TestListForPrograms(t *testing.T) {
	l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}")
	l.inboxReady()
	for _, name := range []string{"=1+1", "a \"b\", c", "ä\x1b[31m", "-rf"} {
		l.put(name, files(name))
	}
	l.start()
	l.until("all have ended", func() bool { return len(l.names(spool.Done)) == 3 && len(l.names(spool.Failed)) == 1 })
	var beside [3]string
	forms := [][]string{{"list"}, {"list", "--json"}, {"list", "--csv"}}
	for i, args := range forms {
		code, out := l.output(args...)
		if code != 0 {
			t.Fatal(out)
		}
		beside[i] = out
	}
	must(t, l.stop())
	for i, args := range forms {
		if _, out := l.output(args...); out != beside[i] {
			t.Errorf("%v: beside the daemon %s\nwithout %s", args, beside[i], out)
		}
	}
	if strings.ContainsRune(beside[0], '\x1b') || !strings.Contains(beside[0], `"ä\x1b[31m"`) {
		t.Errorf("%q", beside[0])
	}
	n := 0
	for line := range strings.Lines(beside[1]) {
		var f struct{ ID, Folder, Outcome string }
		must(t, json.Unmarshal([]byte(line), &f))
		if len(f.ID) != 26 || f.Folder == "" || f.Outcome != "accepted" && f.Outcome != "invalid" {
			t.Errorf("%s", line)
		}
		n++
	}
	rows, err := csv.NewReader(strings.NewReader(beside[2])).ReadAll()
	must(t, err)
	if n != 4 || len(rows) != 5 || !strings.Contains(beside[2], "\r\n") {
		t.Errorf("%d objects, %d rows", n, len(rows))
	}
	seen := map[string]bool{}
	for _, r := range rows {
		seen[r[1]] = true
	}
	for _, cell := range []string{"'=1+1", `a "b", c`, "'-rf", `"ä\x1b[31m"`} {
		if !seen[cell] {
			t.Errorf("no cell %s in %v", cell, rows)
		}
	}
}

// Without a daemon requeue gives a folder to its uploader again as well, run by
// root, who becomes the daemon's user for it.
func TestLabRequeueAlone(t *testing.T) {
	needsLab(t)
	const daemonUser, uploader = 4100, 4103
	l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}")
	for _, dir := range []string{l.root, filepath.Dir(l.config)} { // below a folder of the test's that only root enters
		must(t, os.Chmod(filepath.Dir(dir), 0o755))
		must(t, os.Chown(dir, daemonUser, daemonUser))
	}
	must(t, os.Chmod(l.config, 0o644))
	daemon := &syscall.Credential{Uid: daemonUser, Gid: daemonUser}
	once := func() {
		t.Helper()
		l.credential, l.rights = daemon, []uintptr{unix.CAP_CHOWN, unix.CAP_FOWNER, unix.CAP_LEASE}
		defer func() { l.credential, l.rights = nil, nil }()
		if code, out := l.output("run", "--once"); code != 0 {
			t.Fatalf("run --once: %d, %s", code, out)
		}
	}
	once()
	l.put("bad", files("bad", "country: ZZ"))
	must(t, filepath.Walk(l.path("inbox", "bad"), func(path string, _ os.FileInfo, err error) error {
		return errors.Join(err, os.Chown(path, uploader, daemonUser), os.Chmod(path, 0o770))
	}))
	owners := func(place string) string {
		t.Helper()
		var list []string
		for _, name := range []string{".", "FRONT.jpg", "meta.yaml"} {
			var st unix.Stat_t
			must(t, unix.Lstat(l.path(place, "bad", name), &st))
			list = append(list, fmt.Sprintf("%d:%d %o", st.Uid, st.Gid, st.Mode&0o7777))
		}
		return strings.Join(list, ", ")
	}
	for range 2 {
		once()
		if got, want := owners("failed"), "4100:4100 750, 4100:4100 440, 4100:4100 440"; got != want {
			t.Fatalf("sealed it is %s, want %s", got, want)
		}
		if code, out := l.output("requeue", "bad"); code != 0 {
			t.Fatalf("requeue: %d, %s", code, out)
		}
		if got, want := owners("inbox"), "4103:4100 770, 4103:4100 660, 4103:4100 660"; got != want {
			t.Errorf("given back it is %s, want %s", got, want)
		}
		var st unix.Stat_t
		if must(t, unix.Lstat(l.path("inbox", "bad", "result.json"), &st)); st.Uid != uploader {
			t.Errorf("result.json is %d's", st.Uid)
		}
	}
}
