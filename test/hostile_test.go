package test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/hostile"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/spool"
)

var (
	hostileCases = flag.String("hostile", "", "only the cases of TestHostile whose names match this")
	goodOnes     = flag.Int("hostile.good", 200, "good folders among them")
)

const (
	daemonUser  = 65534
	sharedGroup = 4000
)

// Two hundred good folders, and all that an uploader can do, at once. Nothing
// that one folder is or does shuts a gate, keeps the others from being served,
// reaches out of its folder, or stays unexplained; the daemon neither ends, nor
// hangs, nor keeps files open.
//
// Root runs the daemon as another user than the uploader, once with the rights
// that the packaged unit gives, and once without any; others run it as
// themselves.
func TestHostile(t *testing.T) {
	kinds := map[string][]uintptr{"rights of the unit": unitRights(t), "no rights": nil}
	if os.Getuid() != 0 {
		kinds = map[string][]uintptr{"": nil}
	}
	for name, rights := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSiege(t, rights)
			s.begin()
			s.wave(s.yard.Cases(), *goodOnes)
			s.end()
			if *hostileCases == "" && len(s.folders) < 150 {
				t.Errorf("%d hostile folders", len(s.folders))
			}
		})
	}
	t.Run("answers", func(t *testing.T) {
		t.Parallel()
		s := newSiege(t, nil)
		s.begin()
		for two := range slices.Chunk(hostile.Answers(), 2) {
			s.wave(two, 10)
		}
		s.end()
	})
}

// unitRights returns the capabilities that the unit gives to the daemon.
func unitRights(t *testing.T) (rights []uintptr) {
	t.Helper()
	known := map[string]uintptr{"CAP_CHOWN": unix.CAP_CHOWN, "CAP_FOWNER": unix.CAP_FOWNER, "CAP_LEASE": unix.CAP_LEASE, "CAP_DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE, "CAP_DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH}
	unit, err := os.ReadFile("../systemd/idenfy-batch.service")
	must(t, err)
	for _, line := range regexp.MustCompile(`(?m)^AmbientCapabilities=(.*)$`).FindAllSubmatch(unit, -1) {
		for name := range strings.FieldsSeq(string(line[1])) {
			if known[name] == 0 && name != "CAP_CHOWN" { // which is number 0
				t.Fatalf("the unit gives %s, which this test does not know", name)
			}
			rights = append(rights, known[name])
		}
	}
	if len(rights) == 0 {
		t.Fatal("the unit gives no rights")
	}
	return rights
}

// siege is a daemon among hostile folders.
type siege struct {
	*lab
	yard    *hostile.Yard
	folders []*hostile.Folder
	open    []*hostile.Folder // of the last wave, not ended or explained yet
	good    int               // good ones dropped
	kept    int               // files open when nothing is under way
	why     map[*hostile.Folder]string
	shut    map[string]bool // signs of a shut gate, and of a hang
	output  map[string]bool // lines of status that hold what nobody may print
}

func newSiege(t *testing.T, rights []uintptr) *siege {
	t.Helper()
	port := freePort(t)
	l := newLab(t, "completeness: {settle: 300ms, rescan: 300ms, warn_after: 2s, fail_after: 5s}", "concurrency: 8", "shutdown_grace: 1s", "metrics: {listen: '127.0.0.1:"+port+"'}")
	l.metrics = "127.0.0.1:" + port
	config, err := os.ReadFile(l.config)
	must(t, err)
	quick := strings.NewReplacer("max: 500ms", "max: 500ms, give_up_after: 1s", "timeout: 5s", "timeout: 2s").Replace(string(config))
	must(t, os.WriteFile(l.config, []byte(quick), 0o600))
	outside := t.TempDir()
	l.inboxReady()
	if os.Getuid() == 0 {
		l.credential = &syscall.Credential{Uid: daemonUser, Gid: daemonUser, Groups: []uint32{sharedGroup}}
		l.rights = rights
		for _, dir := range []string{l.root, outside, filepath.Dir(l.config)} { // below a folder of the test's that only root enters
			must(t, os.Chmod(filepath.Dir(dir), 0o755))
			must(t, os.Chmod(dir, 0o755))
		}
		must(t, errors.Join(os.Chown(l.root, daemonUser, daemonUser), os.Chown(filepath.Dir(l.config), daemonUser, daemonUser), os.Chown(l.config, daemonUser, daemonUser), os.Chown(l.path("inbox"), daemonUser, sharedGroup)))
	}
	must(t, os.Chmod(l.path("inbox"), os.ModeSetgid|0o770))
	yard, err := hostile.NewYard(l.path("inbox"), outside, sharedGroup)
	must(t, err)
	t.Cleanup(func() { must(t, yard.Close(l.root)) })
	return &siege{lab: l, yard: yard, why: map[*hostile.Folder]string{}, shut: map[string]bool{}, output: map[string]bool{}}
}

// begin starts the daemon, and has it serve one.
func (s *siege) begin() {
	s.t.Helper()
	s.start()
	must(s.t, s.yard.Put(hostile.Before, photographs(hostile.Token(hostile.Before))))
	s.until("the first one is accepted", func() bool { return s.place(hostile.Before) == spool.Done })
	s.yard.Known = s.result(spool.Done, hostile.Before).ID
	s.kept = s.keptOpen()
}

// wave drops hostile ones and good ones together, and waits until all have
// ended or are explained.
func (s *siege) wave(cases []hostile.Case, good int) {
	t := s.t
	t.Helper()
	must(t, s.cmd.Process.Signal(syscall.SIGSTOP)) // so that all are dropped at once
	begin := time.Now()
	s.make(cases)
	s.drop(good)
	dropped := time.Since(begin)
	s.yard.Begin()
	begin = time.Now()
	must(t, s.cmd.Process.Signal(syscall.SIGCONT))
	for end := begin.Add(30 * time.Second); !s.served() && time.Now().Before(end); s.watch() {
		time.Sleep(5 * time.Millisecond)
	}
	served := time.Since(begin)
	if !s.served() {
		t.Errorf("after %s not all good ones are done", served)
	}
	for end := time.Now().Add(20 * time.Second); len(s.open) > 0 && time.Now().Before(end); {
		s.drop(1) // others go on being served
		s.watch()
		s.examine()
	}
	for _, f := range s.open {
		t.Errorf("%q: %s", f.Case.Name, s.why[f])
	}
	s.drop(1) // whose answer parts the faults of this wave from those of the next: three in a row would shut the account's gate
	s.until("a good one is served after them", s.served)
	t.Logf("%d hostile folders among %d good ones, dropped within %s: all good ones done after %s, all explained after %s",
		len(s.folders), s.good, dropped.Round(time.Millisecond), served.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
}

// end looks at what they left, and how the daemon goes on with it.
func (s *siege) end() {
	t := s.t
	t.Helper()
	s.until("all good ones are served", s.served)
	s.late("late")
	s.unsent()
	s.yard.Stop()
	s.until("no file of the spool is open", func() bool { return s.keptOpen() <= s.kept+most*len(s.names(spool.Work)) })
	s.verdicts()
	must(t, s.stop())
	s.start() // among what they left in work
	s.late("later")
	s.watch()
	must(t, s.stop())
	s.harmless()
}

// most is how many files the daemon may have open for a folder in work, which
// may be in flight.
const most = 8

// photographs are the files of a good folder.
func photographs(token string) map[string][]byte {
	return map[string][]byte{"FRONT.png": tiny, "FACE.png": tiny, "meta.yaml": []byte(sample.Meta(token, "LT", "PASSPORT"))}
}

func goodOne(i int) string { return fmt.Sprintf("good%03d", i) }

// make makes the hostile ones that were asked for.
func (s *siege) make(cases []hostile.Case) {
	s.t.Helper()
	only := regexp.MustCompile(*hostileCases)
	made, err := s.yard.Make(slices.DeleteFunc(cases, func(c hostile.Case) bool { return !only.MatchString(c.Name) }))
	must(s.t, err)
	s.folders, s.open = append(s.folders, made...), made
	s.api.Decide(s.yard.Treat())
}

// drop drops good ones.
func (s *siege) drop(n int) {
	s.t.Helper()
	for range n {
		must(s.t, s.yard.Put(goodOne(s.good), photographs(token(goodOne(s.good)))))
		s.good++
	}
}

func (s *siege) served() bool {
	done := s.names(spool.Done)
	for i := range s.good {
		if !slices.Contains(done, goodOne(i)) {
			return false
		}
	}
	return true
}

// late drops a good one among what the hostile ones left.
func (s *siege) late(name string) {
	s.t.Helper()
	must(s.t, s.yard.Put(name, photographs(token(name))))
	s.until(name+" is served", func() bool { return s.place(name) == spool.Done })
}

// watch looks for signs that all are held up: health, and the metric. The log
// is read at the end.
func (s *siege) watch() {
	client := http.Client{Timeout: 5 * time.Second}
	for _, path := range []string{"/healthz", "/metrics"} {
		resp, err := client.Get("http://" + s.metrics + path)
		if err != nil {
			s.shut[path+": "+err.Error()] = !strings.Contains(err.Error(), "refused") // not listening yet
			continue
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // it was read
		if err != nil || resp.StatusCode != http.StatusOK {
			s.shut[fmt.Sprintf("%s: %d %v %s", path, resp.StatusCode, err, text)] = true
		}
		for _, line := range regexp.MustCompile(`(?m)^idenfy_batch_paused\{.*\} 1$`).FindAllString(string(text), -1) {
			s.shut[line] = true
		}
	}
	select {
	case err := <-s.exited:
		s.cmd = nil
		s.t.Fatalf("the daemon ended: %v", err)
	default:
	}
}

// standing is where a directory is, and what status says of it.
type standing struct {
	place    spool.Place
	name     string
	explains string
}

// look finds all directories by their inodes, wherever they are.
func (s *siege) look() map[uint64]standing {
	s.t.Helper()
	said := s.explanations()
	all := map[uint64]standing{}
	for _, p := range spool.Places() {
		names, err := os.ReadDir(s.path(string(p)))
		must(s.t, err)
		for _, entry := range names {
			info, err := entry.Info()
			if err != nil {
				continue // it has moved on
			}
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				own := entry.Name()
				if p == spool.Work {
					own, _, _ = spool.Split(own)
				}
				all[st.Ino] = standing{p, entry.Name(), said[p][own]}
			}
		}
	}
	return all
}

// explanations asks status, and returns what it says of each folder that waits.
func (s *siege) explanations() map[spool.Place]map[string]string {
	s.t.Helper()
	text, err := s.command("status", "--all").CombinedOutput()
	must(s.t, err)
	s.legible("status", string(text))
	out, err := s.command("status", "--json").Output()
	must(s.t, err)
	s.legible("status --json", string(out))
	var status struct {
		Daemon map[string]any
		Inbox  []map[string]any
		Work   []map[string]any
	}
	must(s.t, json.Unmarshal(out, &status))
	if why, _ := status.Daemon["paused"].(string); why != "" {
		s.shut["status: paused: "+why] = true
	}
	said := map[spool.Place]map[string]string{spool.Inbox: {}, spool.Work: {}}
	for p, list := range map[spool.Place][]map[string]any{spool.Inbox: status.Inbox, spool.Work: status.Work} {
		for _, of := range list {
			folder, _ := of["folder"].(string)
			delete(of, "folder")
			delete(of, "token_hint")
			if unquoted, err := unquote(folder); err == nil {
				folder = unquoted
			}
			said[p][folder] = words(of)
		}
	}
	return said
}

// unquote takes back what meta.Show does to odd names.
func unquote(shown string) (string, error) {
	if !strings.HasPrefix(shown, `"`) || !strings.Contains(shown, `\`) {
		return shown, nil
	}
	var name string
	_, err := fmt.Sscanf(shown, "%q", &name)
	return name, err
}

// words joins all texts in a value of JSON.
func words(v any) string {
	var all []string
	switch v := v.(type) {
	case string:
		return v
	case []any:
		for _, e := range v {
			all = append(all, words(e))
		}
	case map[string]any:
		for _, e := range v {
			all = append(all, words(e))
		}
	}
	slices.Sort(all)
	return strings.TrimSpace(strings.Join(all, " "))
}

// legible notes lines with what a terminal would obey.
func (s *siege) legible(what, text string) {
	for line := range strings.Lines(text) {
		if strings.ContainsFunc(strings.TrimRight(line, "\n"), func(r rune) bool {
			return unicode.IsControl(r) && r != '\t' || r == unicode.ReplacementChar || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
		}) {
			s.output[fmt.Sprintf("%s: %q", what, line)] = true
		}
	}
}

// examine sees which folders have ended or are explained, as they may.
func (s *siege) examine() {
	s.t.Helper()
	now := s.look()
	s.open = slices.DeleteFunc(s.open, func(f *hostile.Folder) bool {
		s.why[f] = ""
		for _, dir := range f.Dirs {
			if wrong := s.judge(f, now[dir]); wrong != "" {
				s.why[f] = wrong
			}
		}
		return s.why[f] == ""
	})
}

// judge returns what is wrong with where a folder is.
func (s *siege) judge(f *hostile.Folder, at standing) string {
	var end string
	says := at.explains
	if at.place == "" { // the daemon may have put a copy in its place
		if p := s.place(f.Case.Name); p.Final() {
			at = standing{place: p, name: f.Case.Name}
		}
	}
	switch {
	case at.place == "":
		end = "gone"
	case at.place == spool.Inbox && (at.explains == "" && slices.Contains(f.Case.Ends, "alone") || strings.HasPrefix(at.name, ".")):
		end = "alone"
	case !at.place.Final():
		if end = string(at.place); at.explains == "" {
			return "it is in " + end + ", and status does not say why"
		}
	default:
		r, err := s.tryResult(at.place, at.name)
		if err != nil {
			return fmt.Sprintf("it is in %s, and its result: %v", at.place, err)
		}
		end = string(r.Outcome)
		for _, reason := range r.Reasons {
			says += " " + reason.Code + " " + reason.Message
		}
		if says == "" && end != "accepted" {
			return "its result has no reason"
		}
	}
	if !slices.Contains(f.Case.Ends, end) {
		return fmt.Sprintf("it is %s in %q: %s; may be %v", end, at.place, says, f.Case.Ends)
	}
	if end != "accepted" && end != "alone" && !strings.Contains(says, f.Case.Says) {
		return fmt.Sprintf("it is %s, and %q is not among: %s", end, f.Case.Says, says)
	}
	return ""
}

// verdicts reports all that is not as it may be.
func (s *siege) verdicts() {
	t := s.t
	t.Helper()
	now := s.look()
	for _, f := range s.folders {
		for _, dir := range f.Dirs {
			at := now[dir]
			if err := f.After(string(at.place), s.path(string(at.place), at.name)); err != nil {
				t.Errorf("%q, in %s: %v", f.Case.Name, at.place, err)
			}
		}
	}
	for i := range s.good {
		if seen := s.api.Token(token(goodOne(i))); seen.Requests != 1 || seen.Processed != 1 || s.result(spool.Done, goodOne(i)).Outcome != "accepted" {
			t.Errorf("%s: %d requests, %d times processed", goodOne(i), seen.Requests, seen.Processed)
		}
	}
	if r := s.api.Report(); len(r.Violations) > 0 {
		t.Errorf("violations: %v", r.Violations)
	}
	if n := s.api.Persons()[hostile.SecretSum()]; n > 0 {
		t.Errorf("what lay outside was sent %d times", n)
	}
}

// unsent reports what was sent of which nothing was to be. When all rests, some
// of it may be.
func (s *siege) unsent() {
	for _, f := range s.folders {
		sent := slices.ContainsFunc(f.Case.Ends, func(end string) bool { return slices.Contains(reached, end) })
		if n := s.api.Token(f.Token).Requests; n > 0 && !sent {
			s.t.Errorf("%q: %d requests, and nothing of it was to be sent", f.Case.Name, n)
		}
	}
}

// reached are the ends of what may have been sent.
var reached = []string{"accepted", "rejected", "gave_up", "unknown", "work"}

// harmless reports what reached beyond the folders.
func (s *siege) harmless() {
	t := s.t
	t.Helper()
	changes, err := s.yard.Changed()
	must(t, err)
	for _, change := range changes {
		t.Errorf("outside: %s", change)
	}
	for sign, is := range s.shut {
		if is {
			t.Errorf("all were held up: %s", sign)
		}
	}
	log := s.logged()
	s.legible("log", log)
	for line := range s.output {
		t.Errorf("printed: %s", line)
	}
	cries := map[string]int{}
	for line := range strings.Lines(log) {
		var fields struct{ Level, Msg, Reason, Error string }
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("no line of the log: %s", line)
		}
		if fields.Level == "error" { // calls people, whom no single folder may call
			cries[fields.Msg+": "+fields.Reason+fields.Error]++
		}
	}
	for what, n := range cries {
		t.Errorf("logged %d times: %s", n, what)
	}
	for _, f := range s.folders {
		if strings.Contains(log, f.Token) {
			t.Errorf("the token of %q stands in the log", f.Case.Name)
		}
	}
}

// keptOpen returns how many files of folders the daemon has open.
func (s *siege) keptOpen() (n int) {
	s.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid)
	open, err := os.ReadDir(dir)
	must(s.t, err)
	for _, fd := range open {
		path, err := os.Readlink(filepath.Join(dir, fd.Name()))
		if below, ok := strings.CutPrefix(path, s.root+"/"); err == nil && ok && !strings.HasPrefix(below, "journal/") {
			n++
		}
	}
	return n
}
