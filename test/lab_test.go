// Package test owns what is tried on the program as a whole: built as users
// run it, started, fed, stopped, killed, on real disks, beside real servers and
// clients, under systemd.
package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range programDirs {
		_ = os.RemoveAll(dir) // in the temporary folder
	}
	os.Exit(code)
}

// programDirs hold what build built.
var programDirs []string

// program builds the real program, once: tests that run it as a process of its
// own, and kill it, should meet what users run. checked is the one with the race
// detector, where the tests have it; faulty can be told to leave syncs out.
var (
	program = sync.OnceValues(func() (string, error) { return build() })
	checked = sync.OnceValues(func() (string, error) { return build(raceFlag()...) })
	faulty  = sync.OnceValues(func() (string, error) { return build("-tags", "faults") })
)

func raceFlag() []string {
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return []string{"-race"}
	}
	return nil
}

func build(args ...string) (string, error) {
	if err := lookAtSources(); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "idenfy-batch-test-")
	if err != nil {
		return "", err
	}
	programDirs = append(programDirs, dir)
	path := filepath.Join(dir, "idenfy-batch")
	out, err := exec.Command("go", slices.Concat([]string{"build", "-o", path}, args, []string{"../cmd/idenfy-batch"})...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
}

// lookAtSources looks at what the program is made of: go test gives an old
// result again while nothing has changed that the test looked at by itself.
func lookAtSources() error {
	for _, dir := range []string{"go.mod", "go.sum", "batch", "cmd", "internal", "sidecar", "watcher"} {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// The exit codes that users rely on.
const (
	exitsFailed = 1
	exitsConfig = 78
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The samples are drawn once.
var front, back, face = sample.Front(), sample.Back(), sample.Face()

// lab is a daemon, the real program as a process of its own, on a spool of its
// own, against a sandbox.
type lab struct {
	t      testing.TB
	root   string
	config string
	api    *sandbox.Sandbox
	cmd    *exec.Cmd
	mu     sync.Mutex
	log    bytes.Buffer
	exited chan error
	begun  int // where the log of the process begins

	credential *syscall.Credential // to run as; nil: as the test
	rights     []uintptr           // capabilities that it has then
	faults     string              // what the program is to leave out, see faults.go
	tokens     map[string]string   // of folders that don't have the one of their name
	metrics    string              // address, where it listens
	patience   time.Duration       // of until; 0: a minute
}

// newLab prepares one; more are further lines of its configuration.
func newLab(t testing.TB, more ...string) *lab {
	t.Helper()
	return newLabIn(t, t.TempDir(), more...)
}

// newLabIn prepares one whose spool is below root.
func newLabIn(t testing.TB, root string, more ...string) *lab {
	t.Helper()
	l := &lab{t: t, root: root, api: sandbox.New(sandbox.Options{Key: "key", Secret: "very-secret"})}
	url, stop, err := l.api.Start()
	must(t, err)
	t.Cleanup(stop)
	l.config = filepath.Join(t.TempDir(), "config.yaml")
	must(t, os.WriteFile(l.config, []byte(strings.Join(append([]string{
		"root: " + l.root,
		"api: {base_url: '" + url + "', timeout: 5s, session_expiry: 1m}",
		"rate: {per_hour: 0}",
		"retry: {first: 50ms, max: 500ms}",
		"log: {level: info}",
	}, more...), "\n")+"\n"), 0o600))
	t.Cleanup(func() {
		if l.cmd != nil {
			l.kill()
		}
		if t.Failed() {
			t.Logf("log of the daemon:\n%s", l.logged())
		}
	})
	return l
}

// Write keeps the daemon's log.
func (l *lab) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(p)
}

func (l *lab) logged() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.String()
}

// command is the program with arguments.
func (l *lab) command(args ...string) *exec.Cmd {
	l.t.Helper()
	path, err := program()
	if l.faults != "" {
		path, err = faulty()
	}
	must(l.t, err)
	cmd := exec.Command(path, append(args, "--config", l.config)...)
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Dir(l.config), "IDENFY_API_KEY=key", "IDENFY_API_SECRET=very-secret", "IDENFY_BATCH_FAULTS="+l.faults)
	if l.credential != nil {
		must(l.t, os.Chmod(filepath.Dir(path), 0o755))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: l.credential, AmbientCaps: l.rights}
	}
	return cmd
}

func (l *lab) start() {
	l.t.Helper()
	l.startAs(func(*exec.Cmd) {})
}

// startAs is start of a command that is changed before.
func (l *lab) startAs(change func(*exec.Cmd)) {
	l.t.Helper()
	l.begun = len(l.logged())
	l.cmd = l.command("run")
	change(l.cmd)
	l.cmd.Stdout, l.cmd.Stderr = l, l
	must(l.t, l.cmd.Start())
	exited := make(chan error, 1)
	l.exited = exited
	go func(cmd *exec.Cmd) { exited <- cmd.Wait() }(l.cmd)
}

// kill ends the daemon as a crash does.
func (l *lab) kill() {
	_ = l.cmd.Process.Kill() // it may have ended
	<-l.exited
	l.cmd = nil
}

// stop ends the daemon by SIGTERM, and returns how it exited.
func (l *lab) stop() error {
	l.t.Helper()
	l.until("it has started", func() bool { return strings.Contains(l.logged()[l.begun:], `"started"`) })
	must(l.t, l.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-l.exited:
		l.cmd = nil
		return err
	case <-time.After(30 * time.Second):
		l.t.Fatal("it does not stop")
		return nil
	}
}

func (l *lab) path(elem ...string) string { return filepath.Join(append([]string{l.root}, elem...)...) }

// token is a fresh one for each name.
func token(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "T" + hex.EncodeToString(sum[:12])
}

// files are those of a whole folder.
func files(name string, more ...string) map[string][]byte {
	return map[string][]byte{
		"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face,
		"meta.yaml": []byte(sample.Meta(token(name), "LT", "ID_CARD", more...)),
	}
}

func (l *lab) put(name string, files map[string][]byte) {
	l.t.Helper()
	must(l.t, sample.Write(l.path("inbox", name), files))
}

// inboxReady makes the inbox before the daemon does.
func (l *lab) inboxReady() {
	l.t.Helper()
	must(l.t, os.MkdirAll(l.path("inbox"), 0o770))
}

// until waits for a condition.
func (l *lab) until(what string, cond func() bool) {
	l.t.Helper()
	patience := max(l.patience, time.Minute)
	for end := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func (l *lab) names(p spool.Place) []string {
	l.t.Helper()
	names, err := (spool.Paths{p: l.path(string(p))}).List(p)
	if os.IsNotExist(err) {
		return nil
	}
	must(l.t, err)
	return names
}

// place returns where the folder is; more than one place fails the test. While
// a daemon runs, a folder may be met twice on its way, since the places are
// read one after the other.
func (l *lab) place(name string) spool.Place {
	l.t.Helper()
	var found spool.Place
	for _, p := range spool.Places() {
		for _, n := range l.names(p) {
			own := n
			if p == spool.Work {
				own, _, _ = spool.Split(n)
			}
			if own != name {
				continue
			}
			if found != "" && l.cmd == nil {
				l.t.Fatalf("%s is in %s and in %s", name, found, p)
			}
			found = p
		}
	}
	return found
}

func (l *lab) result(p spool.Place, name string) *sidecar.Result {
	l.t.Helper()
	r, err := l.tryResult(p, name)
	must(l.t, err)
	return r
}

func (l *lab) tryResult(p spool.Place, name string) (*sidecar.Result, error) {
	root, err := os.OpenRoot(l.path(string(p), name))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return sidecar.Read(root)
}

func TestScripts(t *testing.T) {
	path, err := checked()
	must(t, err)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(path)+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("IDENFY_API_KEY", "key")
			env.Setenv("IDENFY_API_SECRET", "secret")
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, "state"))
			s := sandbox.New(sandbox.Options{Key: "key", Secret: "secret"})
			url, stop, err := s.Start()
			if err != nil {
				return err
			}
			env.Defer(stop)
			env.Setenv("API", url)
			dir := filepath.Join(env.WorkDir, "samples")
			if err := sample.Write(dir, map[string][]byte{"front.jpg": front, "back.jpg": back, "face.jpg": face, "cut.jpg": face[:len(face)/2]}); err != nil {
				return err
			}
			config := fmt.Sprintf("root: %s/spool\napi: {base_url: '%s', timeout: 2s}\ncompleteness: {settle: 100ms, rescan: 200ms}\nretry: {first: 50ms, max: 100ms}\n", env.WorkDir, url)
			if err := os.WriteFile(filepath.Join(env.WorkDir, "down.yaml"), []byte(fmt.Sprintf("root: %s/spool\napi: {base_url: 'http://127.0.0.1:1'}\ncompleteness: {settle: 100ms, rescan: 200ms}\nretry: {first: 10ms, max: 10ms}\n", env.WorkDir)), 0o600); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(env.WorkDir, "keyfile.yaml"), []byte(fmt.Sprintf("root: %s/spool\napi: {key_file: %s/key}\n", env.WorkDir, env.WorkDir)), 0o600); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(env.WorkDir, "config.yaml"), []byte(config), 0o600)
		},
	})
}

// gate is one that is shut.
type gate struct {
	Owner  string    `json:"owner"`
	Reason string    `json:"reason"`
	Mend   string    `json:"mend"`
	Since  time.Time `json:"since"`
	Next   time.Time `json:"next_try"`
}

// status is what scripts read of idenfy-batch status --json.
type status struct {
	Daemon *struct {
		Gates []gate `json:"gates"`
	} `json:"daemon"`
	Places []struct {
		Folders int   `json:"folders"`
		Oldest  int64 `json:"oldest_seconds"`
	} `json:"places"`
	Work []struct {
		Attempts int `json:"attempts"`
	} `json:"work"`
	Waiting []struct {
		Folder   string   `json:"folder"`
		WaitsFor []string `json:"waits_for"`
		Defaults []string `json:"defaults"`
	} `json:"inbox"`
}

func (l *lab) status() (s status) {
	l.t.Helper()
	out, err := l.command("status", "--json").Output()
	must(l.t, err)
	must(l.t, json.Unmarshal(out, &s))
	return s
}

// Status tells with a running daemon what each folder waits for, and why it is
// paused.
func TestStatusJSON(t *testing.T) {
	l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}")
	l.inboxReady()
	half := files("half")
	delete(half, "FACE.jpg")
	l.put("half", half)
	l.put("odd\x1b[31m.part", map[string][]byte{})
	l.start()
	l.api.Always(&sandbox.Step{Status: 401, Identifier: "UNAUTHORIZED", Message: "no"})
	l.put("whole", files("whole"))
	var s status
	l.until("paused, as status tells", func() bool {
		s = l.status()
		return s.Daemon != nil && len(s.Daemon.Gates) == 1
	})
	if g := s.Daemon.Gates[0]; g.Owner != "account" || !strings.Contains(g.Reason, "iDenfy refuses the key: HTTP 401, UNAUTHORIZED") || !strings.Contains(g.Mend, "reload") || g.Since.IsZero() || g.Next.IsZero() {
		t.Errorf("gates: %+v", s.Daemon.Gates)
	}
	if len(s.Places) != 5 || s.Places[1].Folders != 1 {
		t.Errorf("places: %+v", s.Places)
	}
	// Its age is that since its claim, however often it is tried.
	paused := time.Now()
	l.until("some more tries", func() bool {
		s = l.status()
		return len(s.Work) == 1 && s.Work[0].Attempts >= 3 && time.Since(paused) > 2*time.Second
	})
	if age := time.Duration(s.Places[1].Oldest) * time.Second; age < time.Since(paused)-1500*time.Millisecond {
		t.Errorf("it is %s old, %s after its first try", age, time.Since(paused))
	}
	waits := map[string]string{}
	for _, w := range s.Waiting {
		waits[w.Folder] = strings.Join(w.WaitsFor, "; ")
	}
	if !strings.Contains(waits["half"], "FACE (a file FACE.jpg") || !strings.Contains(waits[`"odd\x1b[31m.part"`], "control character") {
		t.Errorf("waits: %v", waits)
	}
	out, err := l.command("status").Output()
	must(t, err)
	if text := string(out); !strings.Contains(text, "SUBMISSION IS PAUSED") || !strings.Contains(text, "to mend it: see that API key") || strings.Contains(text, "\x1b") {
		t.Errorf("status:\n%s", text)
	}
	if err := l.command("run").Run(); err == nil || err.(*exec.ExitError).ExitCode() != exitsFailed { //nolint:errorlint // of Run
		t.Errorf("a second daemon: %v", err)
	}
	l.api.Always(nil)
	l.until("accepted", func() bool { return l.place("whole") == spool.Done })
	must(t, l.stop())
	if _, err := os.Stat(l.path("work", ".state.json")); !os.IsNotExist(err) {
		t.Errorf("the state is left: %v", err)
	}
}

func TestDemo(t *testing.T) {
	path, err := checked()
	must(t, err)
	begin := time.Now()
	out, err := exec.Command(path, "demo").Output()
	if err != nil || !strings.Contains(string(out), "Each of the 5 folders ended where it should.") {
		t.Errorf("%v:\n%s", err, out)
	}
	t.Logf("took %s", time.Since(begin))
}

// SIGHUP: a good configuration comes into force, a bad one doesn't.
func TestReload(t *testing.T) {
	l := newLab(t, "completeness: {settle: 1h}")
	l.start()
	l.until("started", func() bool { return strings.Contains(l.logged(), "watching the inbox") })
	l.put("case", files("case"))
	old, err := os.ReadFile(l.config)
	must(t, err)
	must(t, os.WriteFile(l.config, []byte("root: relative\n"), 0o600))
	must(t, l.cmd.Process.Signal(syscall.SIGHUP))
	l.until("refused", func() bool { return strings.Contains(l.logged(), "the old one stays") })
	must(t, os.WriteFile(l.config, bytes.Replace(old, []byte("settle: 1h"), []byte("settle: 100ms, rescan: 100ms"), 1), 0o600))
	if l.place("case") != spool.Inbox {
		t.Error("taken too early")
	}
	must(t, l.cmd.Process.Signal(syscall.SIGHUP))
	l.until("accepted after the reload", func() bool { return l.place("case") == spool.Done })
	must(t, l.stop())
}

// A second signal ends at once, and the next start goes on.
func TestSecondSignal(t *testing.T) {
	l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}", "shutdown_grace: 1h")
	l.api.Script(token("case"), sandbox.Step{Fault: sandbox.Stall})
	l.inboxReady()
	l.put("case", files("case"))
	l.start()
	l.until("in flight", func() bool { return l.api.Token(token("case")).Requests == 1 })
	must(t, l.cmd.Process.Signal(syscall.SIGTERM))
	l.until("stopping", func() bool { return strings.Contains(l.logged(), "stopping") })
	must(t, l.cmd.Process.Signal(syscall.SIGTERM))
	if err := <-l.exited; err == nil {
		t.Error("it claims a clean end")
	}
	l.cmd = nil
	l.start()
	l.until("accepted", func() bool { return l.place("case") == spool.Done })
	r := l.result(spool.Done, "case")
	if len(r.Attempts) != 2 || r.Attempts[0].State != sidecar.NoAnswer {
		t.Errorf("attempts %+v", r.Attempts)
	}
	must(t, l.stop())
}
