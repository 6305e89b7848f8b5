package test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// evilNames are folders' names that would do something where they were taken for
// more than names.
var evilNames = []string{
	"<img src=x onerror=alert(1)>", "<script>alert(1)", "\"><svg onload=alert(1)>", "=1+1", "@SUM(A1)", "-rf", "+1", "a \"b\", 'c'; d & e", "\u202efdp.exe", "ä\x1b[31m\t\n", "שלום", "{{.}}", "&lt;b&gt;",
	strings.Repeat("no-end-", 30) + "x", strings.Repeat("x", 200),
}

// reported is a spool with folders of all kinds, and a daemon at work on it.
func reported(t *testing.T) *lab {
	hooks, metrics := freeAddress(t), freeAddress(t)
	l := newLab(t, "completeness: {settle: 100ms, rescan: 200ms}", "verdict: {listen: '"+hooks+"', check_after: 0s}", "metrics: {listen: '"+metrics+"'}")
	l.metrics = metrics
	t.Setenv("IDENFY_WEBHOOK_KEY", webhookKey)
	words := map[string]string{}
	l.api.Webhook(sandbox.Webhooks{URL: "http://" + hooks + "/idenfy", Key: webhookKey, Tries: 1000, Every: 100 * time.Millisecond, Script: func(ref string) []sandbox.Hook {
		if words[ref] == "" {
			return nil
		}
		return []sandbox.Hook{{Overall: words[ref], Final: words[ref] != "REVIEWING"}}
	}})
	l.inboxReady()
	put := func(name, word string, more ...string) {
		if word != "" {
			ref := sandbox.NewScanRef()
			l.api.Issue(token(name), ref)
			more = append(more, "scanRef: "+ref)
			if words[ref] = word; word == "none" {
				words[ref] = ""
			}
		}
		l.put(name, files(name, more...))
	}
	for n := range 12 {
		put(fmt.Sprint("verdict-", n), []string{"APPROVED", "DENIED", "SUSPECTED", "REVIEWING", "APPROVED", "none"}[n%6])
	}
	for n := range 3 {
		put(fmt.Sprint("good-", n), "")
		put(fmt.Sprint("invalid-", n), "", "country: XX", "colour: red")
		l.api.Script(token(fmt.Sprint("rejected-", n)), sandbox.Step{Status: 400, Identifier: "BAD_VALUE", Message: "no"})
		put(fmt.Sprint("rejected-", n), "")
	}
	for _, name := range evilNames {
		l.api.Script(token(name), sandbox.Step{Fault: sandbox.LoseAnswer})
		put(name, "")
	}
	waiting := files("waiting")
	delete(waiting, "FACE.jpg")
	l.put("waiting", waiting)
	l.start()
	const all = 12 + 3*3
	l.until("all have ended", func() bool {
		return len(l.names(spool.Done))+len(l.names(spool.Failed))+len(l.names(spool.Hold)) == all+len(evilNames)
	})
	for _, args := range [][]string{{"requeue", "--force", "rejected-0", "rejected-1"}, {"resolve", "hold/=1+1", "--accepted", "--comment", "<b>seen</b> in the dashboard"}} {
		if code, out := l.output(args...); code != 0 {
			t.Fatalf("%v: %d, %s", args, code, out)
		}
	}
	l.until("what was requeued has ended", func() bool { return len(l.names(spool.Inbox)) == 1 && len(l.names(spool.Work)) == 0 })
	list := filepath.Join(t.TempDir(), "list")
	must(t, os.WriteFile(list, []byte("good-0\ngood-1\nverdict-0\ninvalid-0\n"), 0o644)) // whoever reads it
	if code, out := l.output("purge", "--list", list, "--yes"); code != 0 {
		t.Fatalf("purge: %d, %s", code, out)
	}
	l.until("the verdicts came", func() bool {
		n := 0
		for _, name := range l.names(spool.Done) {
			if _, err := os.Stat(l.path("done", name, sidecar.VerdictName)); err == nil {
				n++
			}
		}
		return n == 10
	})
	return l
}

// report is what the test reads of a report.
type report struct {
	Head   struct{ Filters any }
	Totals struct {
		Submissions int `json:"submissions"`
		Again       int `json:"came_again"`
		Folders     int `json:"folders"`
		Lines       int `json:"lines_of_the_csv"`
	} `json:"control_totals"`
	Outcomes, Verdicts []struct {
		Name    string
		Folders int
	}
	Days []struct {
		Day, Inbox string
		Outcomes   map[string]int
		Verdicts   map[string]int
	}
	Reasons []struct {
		Code    string
		Folders int
	}
	Attempts  struct{ All int }
	Decisions struct{ All, Forced int }
	Person    int `json:"for_a_person_all"`
	Deletions struct {
		Folders, Files, Bytes int
		Rules                 []struct {
			Name                string
			Times, Files, Bytes int
		} `json:"by_rule"`
	}
}

// numbers are the report's.
func (r *report) numbers() map[string]int {
	n := map[string]int{"folders": r.Totals.Folders, "attempts": r.Attempts.All, "for a person": r.Person}
	for _, s := range r.Outcomes {
		n["outcome "+s.Name] = s.Folders
	}
	for _, s := range r.Verdicts {
		n["verdict "+s.Name] = s.Folders
	}
	for _, g := range r.Days {
		for o, k := range g.Outcomes {
			n["day "+g.Day+" "+g.Inbox+" "+o] = k
		}
	}
	for _, s := range r.Reasons {
		n["reason "+s.Code] = s.Folders
	}
	n["purged"], n["purged files"], n["purged bytes"] = r.Deletions.Folders, r.Deletions.Files, r.Deletions.Bytes
	for _, d := range r.Deletions.Rules {
		n["purged by "+d.Name] = d.Times
	}
	return n
}

// countFolders counts the same from what lies in the folders.
func (l *lab) countFolders() map[string]int {
	l.t.Helper()
	n := map[string]int{}
	for _, p := range []spool.Place{spool.Done, spool.Failed, spool.Hold} {
		for _, name := range l.names(p) {
			r := l.result(p, name)
			n["folders"]++
			n["attempts"] += len(r.Attempts)
			n["outcome "+string(r.Outcome)]++
			n["day "+r.Times.Claimed.Local().Format(time.DateOnly)+" inbox "+string(r.Outcome)]++
			if p == spool.Hold {
				n["for a person"]++
			}
			if len(r.Purges) > 0 {
				n["purged"]++
			}
			for _, p := range r.Purges {
				n["purged by "+string(p.Rule)]++
				n["purged files"] += len(p.Files)
				for _, f := range p.Files {
					n["purged bytes"] += int(f.Bytes)
				}
			}
			seen := map[string]bool{}
			for _, reason := range r.Reasons {
				if !seen[reason.Code] {
					n["reason "+reason.Code]++
				}
				seen[reason.Code] = true
			}
			var v struct {
				Overall string
				Final   bool
			}
			data, err := os.ReadFile(l.path(string(p), name, sidecar.VerdictName))
			if err == nil {
				must(l.t, json.Unmarshal(data, &v))
			}
			switch {
			case v.Final:
				n["verdict "+v.Overall]++
			case r.Outcome == sidecar.Accepted && r.Session != nil && r.Session.ScanRef != "":
				n["verdict waiting"]++
			default:
				n["verdict none"]++
			}
		}
	}
	return n
}

// The numbers of a report are those that lie in the folders, beside a daemon and
// without one, and its three forms have the same.
func TestReport(t *testing.T) {
	l := reported(t)
	dir := t.TempDir()
	read := func(when string) (r report) {
		t.Helper()
		cmd := l.command("report", "--json", "--csv", filepath.Join(dir, "r.csv"), "--html", filepath.Join(dir, "r.html"))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		must(t, err)
		must(t, json.Unmarshal(out, &r))
		if want := l.countFolders(); fmt.Sprint(r.numbers()) != fmt.Sprint(want) {
			t.Errorf("%s:\n got %v\nwant %v", when, r.numbers(), want)
		}
		if r.Totals.Again != 2 || r.Totals.Submissions != r.Totals.Folders+2 || r.Totals.Lines != r.Totals.Folders || r.Decisions.All != 3 {
			t.Errorf("%s: %+v, %+v", when, r.Totals, r.Decisions)
		}
		return r
	}
	read("beside the daemon")
	page := l.get("/")
	elsewhere, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.metrics+"/", nil)
	must(t, err)
	elsewhere.Host = "somebody.example:9187" // whose name was made to lead here
	answer, err := http.DefaultClient.Do(elsewhere)
	must(t, err)
	if must(t, answer.Body.Close()); answer.StatusCode != http.StatusForbidden {
		t.Errorf("by another host's name: %s", answer.Status)
	}
	must(t, l.stop())
	r := read("without it")

	data, err := os.ReadFile(filepath.Join(dir, "r.csv"))
	must(t, err)
	rows, err := csv.NewReader(strings.NewReader(string(data))).ReadAll()
	must(t, err)
	if len(rows)-1 != r.Totals.Folders {
		t.Errorf("%d lines of %d folders", len(rows)-1, r.Totals.Folders)
	}
	for _, row := range rows[1:] {
		for _, cell := range row {
			if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r") {
				t.Errorf("a formula: %q", cell)
			}
		}
	}
	file, err := os.ReadFile(filepath.Join(dir, "r.html"))
	must(t, err)
	for what, text := range map[string]string{"the report": string(file), "the overview": page} {
		for _, bad := range []string{"<img", "<script", "<svg onload", "\u202e", "\x1b", "<b>seen"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s has %q", what, bad)
			}
		}
		for _, want := range evilNames {
			if !strings.ContainsAny(want, "\u202e\x1b") && !strings.Contains(html.UnescapeString(text), want+"</bdi>") {
				t.Errorf("%s doesn't show %s", what, want)
			}
		}
	}
	if !strings.Contains(html.UnescapeString(page), `"\u202efdp.exe"`) {
		t.Error("the overview doesn't show a name that turns the text around")
	}
	if _, waits, _ := strings.Cut(page, "waiting</bdi>"); !strings.Contains(waits[:min(len(waits), 200)], "FACE") {
		t.Errorf("the overview doesn't say what waits in the inbox, and for what: %.300s", waits)
	}
	if code, out := l.output("report"); code != 0 || !strings.Contains(out, fmt.Sprintf("%d  folders\n", r.Totals.Folders)) {
		t.Errorf("%d, %s", code, out)
	}
	for _, args := range [][]string{{"--json", "--csv", "-"}, {"--from", "1d", "--to", "2d"}, {"--outcome", "good"}, {"--from", "soon"}} {
		if code, out := l.output(append([]string{"report"}, args...)...); code != 2 {
			t.Errorf("%v: %d, %s", args, code, out)
		}
	}
}

// get fetches a page of the daemon's.
func (l *lab) get(path string) string {
	l.t.Helper()
	resp, err := http.Get("http://" + l.metrics + path)
	must(l.t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	must(l.t, err)
	if resp.StatusCode != http.StatusOK {
		l.t.Fatalf("%s: %s, %s", path, resp.Status, data)
	}
	return string(data)
}
