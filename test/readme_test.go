package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// readme is what README.md gives to copy.
type readme struct {
	demo     string   // what the demo says
	install  []string // commands of an installation without a package, run by TestLabReadme
	tree     []string // the files of a folder
	meta     string   // its meta.yaml
	person   string   // that of one for whom a session is opened
	defaults string   // a line of a configuration
	commands []string // all others
}

var (
	fenced   = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```\n")
	indented = regexp.MustCompile(`(?m)^(?:(?: {4}|\t).*\n)+`)
)

// readReadme fails the test at a block of which it can't tell what it is.
func readReadme(t *testing.T) (r readme) {
	t.Helper()
	data, err := os.ReadFile("../README.md")
	must(t, err)
	text := string(data)
	for _, m := range fenced.FindAllStringSubmatch(text, -1) {
		switch language, body := m[1], m[2]; {
		case language == "" && strings.HasPrefix(body, "$ idenfy-batch demo\n") && r.demo == "":
			r.demo = body
		case language == "sh":
			r.install = append(r.install, body)
		case language == "yaml" && strings.HasPrefix(body, "clientId:") && r.person == "":
			r.person = body
		case language == "yaml" && strings.HasPrefix(body, "defaults:") && r.defaults == "":
			r.defaults = body
		case language == "yaml" && r.meta == "":
			r.meta = body
		default:
			t.Errorf("a block that no test runs:\n%s", m[0])
		}
	}
	rest := fenced.ReplaceAllString(text, "")
	if strings.Contains(rest, "```") || strings.Contains(rest, "~~~") || strings.Contains(rest, "<pre") {
		t.Error("there are blocks in a form that this test doesn't read")
	}
	for _, body := range indented.FindAllString(rest, -1) {
		lines := strings.Split(strings.TrimSpace(body), "\n")
		if lines[0] == "case-7/" {
			for _, l := range lines[1:] {
				r.tree = append(r.tree, command(l))
			}
			continue
		}
		for _, l := range lines {
			r.commands = append(r.commands, strings.TrimSpace(l))
		}
	}
	return r
}

// command is the line without its comment.
func command(line string) string {
	line, _, _ = strings.Cut(line, " #")
	return strings.TrimSpace(line)
}

// The commands of README.md: what has to be there before, and what each says.
var readmeCommands = map[string]struct {
	before func(l *lab)
	says   string
	stays  bool // until it is ended
}{
	"go run ./cmd/idenfy-batch demo": {says: "Each of the 5 folders ended where it should."},
	"go test ./...":                  {}, // this is it
	"idenfy-batch check":             {before: (*lab).once, says: "✓ connection to "},
	"idenfy-batch run":               {says: "watching the inbox", stays: true},
	"idenfy-batch report --from 2026-01-01 --to 2026-01-31 --html january.html --csv january.csv": {before: (*lab).once},
	"idenfy-batch report --from 7d": {before: (*lab).once, says: "  folders\n"},
	"idenfy-batch reload": {says: "✓ the new configuration is in force", before: func(l *lab) {
		l.start()
		l.until("the daemon answers", func() bool { return strings.Contains(l.logged(), "watching the inbox") })
	}},
	"idenfy-batch validate ./case-7": {says: "✓ ./case-7: LT ID_CARD"},
	"idenfy-batch status": {says: "a file FACE.jpg", before: func(l *lab) {
		half := files("half")
		delete(half, "FACE.jpg")
		l.put("half", half)
	}},
	"idenfy-batch list --since 24h":              {before: (*lab).failedCase, says: "failed  invalid     case-7"},
	"idenfy-batch show case-7":                   {before: (*lab).failedCase, says: "case-7: invalid, in failed/case-7"},
	"idenfy-batch requeue case-7":                {before: (*lab).failedCase, says: "✓ case-7: now in inbox/case-7"},
	"idenfy-batch requeue -m 'new photo' case-7": {before: (*lab).failedCase, says: "✓ case-7: now in inbox/case-7"},
	"idenfy-batch resolve case-7 --accepted":     {before: (*lab).heldCase, says: "✓ case-7: now in done/case-7"},
	"idenfy-batch resolve case-7 --rejected":     {before: (*lab).heldCase, says: "✓ case-7: now in failed/case-7"},
	"idenfy-batch resolve case-7 --resubmit": {says: "✓ case-7: now in inbox/case-7", before: func(l *lab) {
		l.heldCase()
		ref := sandbox.NewScanRef()
		l.api.Issue(token("case-7"), ref)
		must(l.t, os.WriteFile(l.path("hold", "case-7", "meta.yaml"), files("case-7", "scanRef: "+ref)["meta.yaml"], 0o640))
	}},
	"idenfy-batch ledger verify":                   {before: (*lab).failedCase, says: "✓ nothing was altered: 2 entries, 1 folders"},
	"idenfy-batch ledger checkpoint":               {before: (*lab).failedCase, says: "verifier key: idenfy-batch/"},
	"idenfy-batch ledger prove case-7":             {before: (*lab).failedCase, says: "c2sp.org/tlog-proof@v1"},
	"idenfy-batch sandbox --listen 127.0.0.1:8080": {says: "http://127.0.0.1:", stays: true},
}

// once lets the daemon empty the inbox.
func (l *lab) once() {
	l.t.Helper()
	if code, out := l.output("run", "--once"); code > exitsFailed {
		l.t.Fatalf("exit code %d: %s", code, out)
	}
}

// failedCase makes a case-7 that has failed.
func (l *lab) failedCase() {
	l.t.Helper()
	bad := files("case-7")
	bad["meta.yaml"] = []byte(sample.Meta(token("case-7"), "XX", "ID_CARD"))
	l.put("case-7", bad)
	l.once()
}

// heldCase makes a case-7 of which nobody knows whether it was taken.
func (l *lab) heldCase() {
	l.t.Helper()
	l.api.Script(token("case-7"), sandbox.Step{Fault: sandbox.ResetInBody}, sandbox.Step{Status: 400, Identifier: "TOKEN_NOT_VALID"})
	l.put("case-7", files("case-7"))
	l.start()
	l.until("case-7 is held", func() bool { return l.place("case-7") == spool.Hold })
	must(l.t, l.stop())
}

// What README.md gives to copy works, as it stands there.
func TestReadme(t *testing.T) {
	r := readReadme(t)
	if len(r.install) == 0 || r.meta == "" || r.person == "" || r.defaults == "" || r.demo == "" || len(r.tree) == 0 {
		t.Fatalf("not all is found: %+v", r)
	}
	place := t.TempDir()
	case7 := map[string][]byte{"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face, "meta.yaml": []byte(r.meta)}
	for _, name := range r.tree {
		if case7[name] == nil {
			t.Fatalf("the tree has %s", name)
		}
		must(t, sample.Write(filepath.Join(place, "case-7"), map[string][]byte{name: case7[name]}))
	}

	seen := map[string]bool{}
	for _, line := range r.commands {
		name := command(line)
		known, ok := readmeCommands[name]
		if !ok {
			t.Errorf("a command that no test runs: %s", line)
			continue
		}
		seen[name] = true
		if known.says == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}")
			l.inboxReady()
			if known.before != nil {
				known.before(l)
			}
			dir := place
			if strings.HasPrefix(line, "go ") {
				dir = ".."
			}
			out := l.shell(dir, line, known.says, known.stays)
			if strings.HasSuffix(name, " demo") {
				sameDemo(t, r.demo, out)
			}
		})
	}
	for name := range readmeCommands {
		if !seen[name] {
			t.Errorf("README.md has no more: %s", name)
		}
	}

	t.Run("meta.yaml", func(t *testing.T) { wholeMeta(t, r.meta) })
	t.Run("meta.yaml with clientId", func(t *testing.T) { wholePerson(t, r.person) })
	t.Run("no meta.yaml", func(t *testing.T) {
		l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}", strings.TrimSpace(r.defaults))
		l.inboxReady()
		delete(case7, "meta.yaml")
		l.put("case-7", case7)
		l.once()
		if r := l.result(spool.Done, "case-7"); r.Session.ClientID != "case-7" {
			t.Errorf("%+v", r)
		}
	})
}

// shell runs a line in a shell, in which idenfy-batch is the program with the
// lab's configuration, and returns what it said. stays says that it is one that
// runs until it is told to end.
func (l *lab) shell(dir, line, says string, stays bool) string {
	l.t.Helper()
	bin := l.t.TempDir()
	path, err := program()
	must(l.t, err)
	must(l.t, os.WriteFile(filepath.Join(bin, "idenfy-batch"), fmt.Appendf(nil, `#!/bin/sh
case $1 in
sandbox) exec %[1]s "$@" ;;
*) exec %[1]s "$@" --config %[2]s ;;
esac
`, path, l.config), 0o755))
	// The port may be somebody's.
	cmd := exec.Command("sh", "-c", "exec "+strings.Replace(line, "127.0.0.1:8080", "127.0.0.1:0", 1))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "XDG_STATE_HOME="+bin, "IDENFY_API_KEY=key", "IDENFY_API_SECRET=very-secret")
	begun := len(l.logged())
	cmd.Stdout, cmd.Stderr = l, l
	must(l.t, cmd.Start())
	if stays {
		l.until(says, func() bool { return strings.Contains(l.logged()[begun:], says) })
		must(l.t, cmd.Process.Signal(syscall.SIGTERM))
	}
	err = cmd.Wait()
	out := l.logged()[begun:]
	if err != nil || !strings.Contains(out, says) {
		l.t.Errorf("%s: %v, and %q is wanted in:\n%s", line, err, says, out)
	}
	return out
}

// changing is what each run of the demo has of its own.
var changing = regexp.MustCompile(`(?m)^ +[0-9.]+s|idenfy-batch-demo-\d+|127\.0\.0\.1:\d+|"id": "\w+"`)

// sameDemo holds each line that README.md shows of the demo against a real one.
func sameDemo(t *testing.T, shown, said string) {
	t.Helper()
	said = changing.ReplaceAllString(said, "·")
	for line := range strings.Lines(changing.ReplaceAllString(shown, "·")) {
		if line = strings.TrimRight(line, "\n"); line == "$ idenfy-batch demo" || line == "  …" {
			continue
		}
		if !strings.Contains(said+"\n", line+"\n") {
			t.Errorf("the demo doesn't say %q", line)
		}
	}
}

// wholeMeta takes the optional keys in, and lets the daemon take the folder, of
// which the hashes alone can say that it is whole.
func wholeMeta(t *testing.T, meta string) {
	t.Helper()
	optional := regexp.MustCompile(`(?m)^#((?: {2})?\w+:)`)
	if n := len(optional.FindAllString(meta, -1)); n != 10 {
		t.Errorf("%d lines of optional keys", n)
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("../internal/imagefile/testdata", name))
		must(t, err)
		return data
	}
	l := newLab(t, "completeness: {settle: 1h, rescan: 200ms}")
	l.put("case-7", map[string][]byte{
		"front.jpg": read("baseline.jpg"), "back.jpg": read("progressive.jpg"), "selfie.png": read("small.png"),
		"meta.yaml": optional.ReplaceAll([]byte(meta), []byte("$1")),
	})
	if code, out := l.output("validate", l.path("inbox", "case-7")); code != 0 {
		t.Errorf("validate: %s", out)
	}
	l.start()
	l.until("it has ended", func() bool { return l.place("case-7") == spool.Done })
	if r := l.result(spool.Done, "case-7"); r.Outcome != sidecar.Accepted || !r.Request.SkipAnalysis {
		t.Errorf("%+v", r)
	}
	must(t, l.stop())
}

// wholePerson submits a folder with all that may be said of a person.
func wholePerson(t *testing.T, meta string) {
	t.Helper()
	optional := regexp.MustCompile(`(?m)^#(\w+:)`)
	if n := len(optional.FindAllString(meta, -1)); n != 8 {
		t.Errorf("%d lines of optional keys", n)
	}
	l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}")
	f := files("case-8")
	f["meta.yaml"] = optional.ReplaceAll([]byte(meta), []byte("$1"))
	l.inboxReady()
	l.put("case-8", f)
	l.start()
	l.until("it has ended", func() bool { return l.place("case-8") == spool.Done })
	if r := l.result(spool.Done, "case-8"); r.Outcome != sidecar.Accepted || r.Session == nil || r.Session.By != sidecar.ByDaemon {
		t.Errorf("%+v", r)
	}
	must(t, l.stop())
	l.noTokens(true)
}

// From a clone to the first result without a package, in a Debian that systemd
// has booted: what README.md says, word by word.
func TestLabReadme(t *testing.T) {
	needsLab(t)
	t.Parallel()
	// The box has no network: the compiler and the modules are the host's.
	env, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE", "GOCACHE").Output()
	must(t, err)
	dirs := strings.Fields(string(env))
	b := newBox(t, "--bind-ro="+dirs[0], "--bind-ro="+dirs[1], "--bind="+dirs[2])
	b.t = t
	certificate(t, b.share)
	must(t, sample.Write(filepath.Join(b.share, "case"), map[string][]byte{"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face}))
	path, err := program()
	must(t, err)
	data, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(b.share, "idenfy-batch"), data, 0o755))
	b.startSandbox("/srv/share/idenfy-batch")

	clone := filepath.Join(b.share, "clone")
	must(t, os.Mkdir(clone, 0o755))
	cmd := exec.Command("sh", "-c", "git ls-files -z | xargs -0 cp --parents -t "+clone)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	settings := fmt.Sprintf("export PATH=$PATH:%s/bin GOMODCACHE=%s GOCACHE=%s GOPROXY=off GOTOOLCHAIN=local; cd /srv/share/clone\n", dirs[0], dirs[1], dirs[2])
	for _, c := range readReadme(t).install {
		input := ""
		switch {
		case strings.Contains(c, "api-key"):
			input = "the-api-key\n"
		case strings.Contains(c, "api-secret"):
			input = "the-api-secret\n"
		}
		b.runWith(input, settings+c)
	}
	if out := b.run("systemctl is-enabled idenfy-batch; systemctl is-active idenfy-batch"); out != "enabled\nactive\n" {
		t.Error(out)
	}
	if out := b.run("systemd-analyze verify --man=no idenfy-batch.service"); out != "" {
		t.Errorf("verify: %s", out)
	}
	b.run("cp -r --no-preserve=mode /srv/share/case case-7; printf 'authToken: TOKEN-0123456789\\ncountry: LT\\ndocumentType: ID_CARD\\n' >case-7/meta.yaml")
	b.run("useradd -m -G idenfy-drop uploader; cp -r case-7 /home/uploader/; su uploader -c 'umask 007; cp -r --no-preserve=mode ~/case-7 /var/spool/idenfy-batch/inbox/'")
	b.until("case-7 is done", func() bool { return b.count("done") == 1 })
	if r := b.report(); r.Processed != 1 {
		t.Errorf("%+v", r)
	}
	if got := bytes.TrimSpace([]byte(b.run("stat -c %G /var/spool/idenfy-batch/inbox"))); string(got) != "idenfy-drop" {
		t.Errorf("the inbox is %s's", got)
	}
}
