package report

import (
	"bytes"
	"context"
	"encoding/csv"

	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/sidecar"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var begin = time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC)

func at(t time.Time) sidecar.Time { return sidecar.Time{Time: t} }

// evil are names that would do something where they were taken for more than names.
var evil = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `</title></style></svg><script>alert(1)</script>`, `=HYPERLINK("http://x.example/";"y")`,
	"@SUM(1)", "+1", "-1", `javascript:alert(1)`, `{{.}}`, "\"\\u202efdp.exe\"", `a'b"c&d;e,f`, "&lt;b&gt;", "שלום", strings.Repeat("long-", 40),
}

// lives are n of all kinds.
func lives(n, days int) (list []journal.Counted) {
	random := rand.New(rand.NewPCG(1, 2))
	outcomes := []sidecar.Outcome{sidecar.Accepted, sidecar.Accepted, sidecar.Accepted, sidecar.Accepted, sidecar.Rejected, sidecar.Invalid, sidecar.Incomplete, sidecar.GaveUp, sidecar.Unknown, sidecar.Pending}
	places := map[sidecar.Outcome]string{sidecar.Accepted: "done", sidecar.Unknown: "hold", sidecar.Pending: "work"}
	for i := range n {
		taken := begin.Add(time.Duration(i) * time.Duration(days) * 24 * time.Hour / time.Duration(n))
		l := journal.Counted{
			ID: fmt.Sprintf("ID%06d", i), Inbox: []string{"inbox", "branch-1", "branch-2"}[random.IntN(3)], Folder: fmt.Sprintf("case-%d", i), Outcome: outcomes[random.IntN(len(outcomes))],
			Complete: at(taken.Add(-time.Second)), Claimed: at(taken), Attempts: 1, Submitted: at(taken.Add(time.Duration(random.IntN(1000*1000)) * time.Millisecond)), Finished: at(taken.Add(time.Hour)),
			Again: random.IntN(20) == 0,
		}
		if i < len(evil) {
			l.Folder, l.Outcome, l.Again = evil[i], sidecar.Unknown, false
		}
		l.Name, l.Place = l.Folder, places[l.Outcome]
		switch l.Outcome {
		case sidecar.Accepted:
			l.Accepted = l.Finished
			if l.Verdict = []string{"APPROVED", "APPROVED", "DENIED", "SUSPECTED", ""}[random.IntN(5)]; l.Verdict != "" {
				l.Final, l.Decided = true, at(l.Accepted.Add(time.Duration(random.IntN(100000))*time.Second))
			}
			l.Awaited = !l.Final
		case sidecar.Pending:
			l.Finished = sidecar.Time{}
		default:
			l.Reasons = []journal.Why{{Code: []string{"BAD_VALUE", "missing_value", "front_truncated", "<b>", "=1+1", "A_VERY_LONG_IDENTIFIER_OF_THE_API_THAT_HAS_NO_PLACE_TO_BREAK"}[random.IntN(6)], Source: sidecar.FromAPI}}
			l.Place = "failed"
			if l.Outcome == sidecar.Unknown {
				l.Place = "hold"
			}
		}
		if l.Place == "" {
			l.Place = "failed"
		}
		if i%7 == 0 && l.Place != "work" {
			l.Purges = []journal.Erased{{At: at(taken.Add(time.Hour)), Rule: sidecar.OfVerdicts, Files: 1, Bytes: 100}}
		}
		if i%14 == 0 && l.Place != "work" {
			l.Purges = append(l.Purges, journal.Erased{At: at(taken.Add(2 * time.Hour)), Rule: sidecar.OfList, By: &sidecar.Person{UID: 7, User: l.Folder}, Files: 3, Bytes: int64(i), Remote: []ledger.Remote{"", ledger.Erased, ledger.Kept}[i%3], Emptied: true})
		}
		list = append(list, l)
	}
	return list
}

func head() Head {
	return Head{
		System: "idenfy-batch", Version: "1.0", Host: "host", Root: "/var/spool/idenfy-batch", Zone: "UTC", Location: time.UTC,
		By: sidecar.Person{UID: 1000, User: "<i>ann</i>"}, At: at(begin.AddDate(1, 0, 0)), Filters: Filters{From: at(begin), To: at(begin.AddDate(1, 0, 0))},
		Ledger: Ledger{Entries: 12345, Covers: 12340, Checkpoint: "idenfy-batch/ABCDEFGHIJKLMNOPQRSTUVWXYZ\n12340\nsha256HashOfTheTreeInBase64AAAAAAAAAAAAAAAAAAA=\n\n— idenfy-batch/ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz==\n"},
	}
}

func counted(list []journal.Counted) *Report {
	c := NewCounter(head())
	c.Extent(journal.Extent{Outside: 7, Entries: 12345})
	for i := range list {
		c.Add(&list[i])
	}
	for i, name := range evil {
		c.Judge(&journal.Judged{N: int64(i), Folder: name, Inbox: "inbox", Decision: sidecar.Decision{At: at(begin), Action: sidecar.Requeued, Outcome: sidecar.Rejected, Forced: i%3 == 0, Comment: name, By: sidecar.Person{UID: 0, User: name}}})
	}
	c.Judge(&journal.Judged{N: 99, Folder: "f", Inbox: "inbox", Decision: sidecar.Decision{At: at(begin), Action: sidecar.Resubmit, Comment: "\u202e\x1b[31m\x00 raw"}})
	return c.Report(0)
}

func render(t *testing.T, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	must(t, WriteHTML(&b, r))
	return b.String()
}

// The numbers of a report are those that a second, simpler way counts.
func TestTotals(t *testing.T) {
	list := lives(3000, 40)
	r := counted(list)
	want := map[string]int{}
	for i := range list {
		l := &list[i]
		if l.Again {
			want["again"]++
			continue
		}
		want["folders"]++
		want["outcome "+string(l.Outcome)]++
		want["day "+l.Claimed.Format(time.DateOnly)]++
		want["inbox "+l.Inbox+" "+string(l.Outcome)]++
		if l.Final {
			want["verdict "+l.Verdict]++
		}
		if l.Place == "hold" {
			want["hold"]++
		}
		for _, w := range l.Reasons {
			want["reason "+w.Code]++
		}
		if len(l.Purges) > 0 {
			want["purged"]++
		}
		for _, p := range l.Purges {
			want["purges"]++
			want["purged files"] += p.Files
			want["purged bytes"] += int(p.Bytes)
			for _, by := range []string{"rule " + string(p.Rule), "place " + l.Place} {
				want["purges by "+by]++
				want["bytes by "+by] += int(p.Bytes)
			}
			if p.By == nil {
				want["purges by the daemon"]++
			}
			if p.Emptied {
				want["emptied"]++
			}
			if p.Remote != "" {
				want["sessions "+string(p.Remote)]++
			}
		}
	}
	got := map[string]int{"folders": r.Totals.Folders, "again": r.Totals.Again, "hold": r.PersonAll}
	d := &r.Deletions
	got["purged"], got["emptied"], got["purges"], got["purged files"], got["purged bytes"] = d.Folders, d.Emptied, d.Times, d.Files, int(d.Bytes)
	for by, list := range map[string][]Deleted{"rule ": d.ByRule, "place ": d.ByPlace} {
		for _, s := range list {
			got["purges by "+by+s.Name], got["bytes by "+by+s.Name] = s.Times, int(s.Bytes)
		}
	}
	people := 0
	for _, s := range d.ByPerson {
		if people += s.Times; s.Name == "" {
			got["purges by the daemon"] = s.Times
		}
	}
	if people != d.Times || len(d.ByPerson) > mostWords+1 {
		t.Errorf("%d by %d people, of %d", people, len(d.ByPerson), d.Times)
	}
	for _, s := range d.Sessions {
		got["sessions "+s.Name] = s.Folders
	}
	for _, s := range r.Outcomes {
		got["outcome "+s.Name] = s.Folders
	}
	for _, s := range r.Verdicts {
		if strings.ToUpper(s.Name) == s.Name {
			got["verdict "+s.Name] = s.Folders
		}
	}
	for _, g := range r.Days {
		got["day "+g.Day] += g.Folders
	}
	for _, g := range r.Inboxes {
		for o, n := range g.Outcomes {
			got["inbox "+g.Inbox+" "+o] = n
		}
	}
	for _, w := range r.Reasons {
		got["reason "+w.Code] = w.Folders
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if !r.Totals.AddUp() || r.Totals.Submissions != len(list)+7 {
		t.Errorf("%+v", r.Totals)
	}
	for _, n := range []*int{&r.Totals.ByDay, &r.Totals.Outside, &r.Totals.ByVerdict} {
		*n++
		if r.Totals.AddUp() || !strings.Contains(render(t, r), `role="alert"`) {
			t.Error("a total that is wrong is not told")
		}
		*n--
	}
}

func TestFilters(t *testing.T) {
	list := lives(2000, 10)
	for _, f := range []Filters{{Inbox: "branch-1"}, {Outcome: sidecar.Rejected}, {Place: "hold"}, {Verdict: "DENIED"}, {Verdict: Waiting}, {Verdict: None}, {Client: "nobody"}, {Verdict: journal.Contradicted}} {
		h := head()
		h.Filters = f
		c := NewCounter(h)
		n := 0
		for i := range list {
			l := &list[i]
			in := !l.Again && (f.Inbox == "" || l.Inbox == f.Inbox) && (f.Outcome == "" || l.Outcome == f.Outcome) && (f.Place == "" || l.Place == f.Place) && f.Client == ""
			switch f.Verdict {
			case "":
			case Waiting:
				in = in && l.Awaited
			case None:
				in = in && !l.Awaited && l.Verdict == ""
			default:
				in = in && l.Final && l.Verdict == f.Verdict
			}
			if in {
				n++
			}
			if c.Add(l) != in {
				t.Fatalf("%+v: %+v", f, l)
			}
		}
		if r := c.Report(0); r.Totals.Folders != n || !r.Totals.AddUp() {
			t.Errorf("%+v: %+v, want %d", f, r.Totals, n)
		}
	}
}

// What is said of waiting times is right to within 2 %.
func TestWaits(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var d durations
	var list []time.Duration
	for range 5000 {
		v := time.Duration(random.ExpFloat64() * float64(time.Minute)).Round(time.Millisecond)
		list = append(list, v)
		d.add(v)
	}
	d.add(-time.Second) // the clock was set
	list = append(list, 0)
	slices.Sort(list)
	w := d.waits()
	for what, pair := range map[string][2]float64{
		"median": {w.Median, list[len(list)/2].Seconds()}, "95 %": {w.P95, list[len(list)*95/100].Seconds()}, "least": {w.Least, 0}, "most": {w.Most, list[len(list)-1].Seconds()},
	} {
		if got, want := pair[0], pair[1]; got < want*0.98-0.001 || got > want*1.02+0.001 {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	sum := 0
	for i, b := range w.Bars {
		sum += b.Folders
		n := 0
		for _, v := range list {
			if (b.UpTo == 0 || v.Seconds() <= b.UpTo) && (i == 0 || v > bounds[i-1]) {
				n++
			}
		}
		if n != b.Folders {
			t.Errorf("up to %v: %d, want %d", b.UpTo, b.Folders, n)
		}
	}
	if sum != len(list) || w.Folders != len(list) {
		t.Errorf("%d of %d", sum, len(list))
	}
	for s, want := range map[float64]string{0: "0 s", 0.05: "0.05 s", 9.999: "10 s", 61: "61 s", 600: "10 min", 3600 * 6: "6 h", 3600 * 72: "3 days"} {
		if got := Span(s); got != want {
			t.Errorf("%v: %q, want %q", s, got, want)
		}
	}
}

// elements reads a page strictly, as XML is read, and returns its elements and
// all text in it. What a browser would close by itself is closed first.
func elements(t *testing.T, page string) (names map[string]int, attributes, text string) {
	t.Helper()
	page = regexp.MustCompile(`<(meta|link)([^>]*)>`).ReplaceAllString(strings.TrimPrefix(strings.TrimSpace(page), "<!DOCTYPE html>"), "<$1$2/>")
	page = regexp.MustCompile(`(?s)<style>.*?</style>`).ReplaceAllString(page, "")
	d := xml.NewDecoder(strings.NewReader(page))
	d.Entity = xml.HTMLEntity
	names = map[string]int{}
	var attr, all strings.Builder
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return names, attr.String(), all.String()
		}
		if err != nil {
			t.Fatalf("%v, before %q", err, page[min(int(d.InputOffset()), len(page)):min(int(d.InputOffset())+80, len(page))])
		}
		switch token := token.(type) {
		case xml.StartElement:
			names[token.Name.Local]++
			for _, a := range token.Attr {
				fmt.Fprintf(&attr, "%s=%s\n", a.Name.Local, a.Value)
			}
		case xml.CharData:
			all.Write(token)
			all.WriteByte('\n')
		}
	}
}

// allowed are the elements and attributes of the pages: none of them runs or
// fetches anything.
var allowed = map[string][]string{
	"elements":   strings.Fields("html head meta link title body main h1 h2 p dl dt dd ul li b em code pre section div figure figcaption svg g rect line text desc table caption thead tbody tfoot tr th td bdi"),
	"attributes": strings.Fields(`lang http-equiv content charset name rel href class role aria-labelledby aria-hidden id scope data-label x y x1 x2 y1 y2 dy width height text-anchor`),
}

func safe(t *testing.T, page string) string {
	t.Helper()
	names, attributes, text := elements(t, page)
	for name := range names {
		if !slices.Contains(allowed["elements"], name) {
			t.Errorf("there is an element %s", name)
		}
	}
	for line := range strings.Lines(attributes) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if value != "" && !slices.Contains(allowed["attributes"], name) || name == "href" && value != "data:," {
			t.Errorf("there is an attribute %s=%s", name, value)
		}
	}
	return text
}

// Names, reasons, comments and people from outside are shown as they are, and
// nowhere alive.
func TestNothingIsAlive(t *testing.T) {
	page := render(t, counted(lives(100, 3)))
	text := safe(t, page)
	for _, name := range evil {
		if n := strings.Count(text, name); n < 4 { // in hold, of a decision, as a comment, as a person
			t.Errorf("%q is shown %d times", name, n)
		}
	}
	if strings.ContainsAny(page, "\u202e\x1b\x00") || !strings.Contains(text, `"\u202e\x1b[31m\x00 raw"`) {
		t.Error("characters that turn or colour the text are alive")
	}
	if !strings.Contains(page, "'sha256-") || strings.Contains(page, "http://") || strings.Contains(page, "https://") {
		if i := strings.Index(page, "http://"); i >= 0 && !strings.Contains(page[i:], "http://x.example") {
			t.Errorf("there is something of elsewhere: %s", page[i:i+60])
		}
	}
}

// Everything drawn is named, and lies within its drawing; all columns add up to
// the folders.
func TestCharts(t *testing.T) {
	for _, days := range []int{1, 10, 92, 300, 3000} {
		r := counted(lives(900, days))
		c := byDay("days", "x", r.Days, r.Outcomes, ofOutcomes)
		sum := 0
		for _, b := range c.Boxes {
			var n int
			_, err := fmt.Sscan(strings.ReplaceAll(b.Title[strings.LastIndex(b.Title, ": ")+2:], ",", ""), &n)
			must(t, err)
			sum += n
			var x, w, y, h float64
			_, err = fmt.Sscanf(b.X+b.W+b.Y+" "+b.H, "%f%%%f%%%f %f", &x, &w, &y, &h)
			must(t, err)
			if x < 0 || x+w > 100 || y < 0 || y+h > above+room+0.1 {
				t.Errorf("%d days: %+v is out of it", days, b)
			}
		}
		if sum != r.Totals.Folders {
			t.Errorf("%d days: %d drawn, of %d", days, sum, r.Totals.Folders)
		}
		page := render(t, r)
		if imgs, titles := strings.Count(page, `role="img"`), strings.Count(page, "<desc id="); imgs != titles || imgs < 8 {
			t.Errorf("%d drawings, %d with a description", imgs, titles)
		}
	}
	for n, want := range map[int]int{0: 1, 1: 1, 3: 4, 11: 20, 100: 100, 101: 200, 5001: 6000} {
		if got := nice(n); got != want {
			t.Errorf("%d: %d, want %d", n, got, want)
		}
	}
	safe(t, render(t, NewCounter(head()).Report(0))) // of no folder at all
}

// The CSV is read back as it was written, by whoever reads RFC 4180, and has no
// cell that is a formula.
func TestCSV(t *testing.T) {
	list := lives(200, 5)
	var b bytes.Buffer
	table := NewTable(&b)
	for i := range list {
		must(t, table.Add(&list[i]))
	}
	n, err := table.End()
	must(t, err)
	if lf, crlf := strings.Count(b.String(), "\n"), strings.Count(b.String(), "\r\n"); lf != crlf || lf != n+1 {
		t.Errorf("%d lines, %d of them with CRLF, of %d folders", lf, crlf, n)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	must(t, err)
	column, purged := slices.Index(rows[0], "folder"), slices.Index(rows[0], "purged")
	for i, row := range rows[1:] {
		if p := list[i].Purges; (row[purged] != "") != (len(p) == 2) || len(p) == 2 && row[purged] != stamp(p[1].At) {
			t.Errorf("purged %q, of %+v", row[purged], p)
		}
		if got := strings.TrimPrefix(row[column], "'"); got != list[i].Folder {
			t.Errorf("%q, want %q", got, list[i].Folder)
		}
		for _, cell := range row {
			if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r") {
				t.Errorf("a formula: %q", cell)
			}
		}
	}
}

// The JSON form is read back without a loss.
func TestJSON(t *testing.T) {
	r := counted(lives(300, 5))
	data, err := json.Marshal(r)
	must(t, err)
	var back Report
	must(t, json.Unmarshal(data, &back))
	again, err := json.Marshal(&back)
	must(t, err)
	if !bytes.Equal(data, again) || back.Schema != Schema || !back.Totals.AddUp() {
		t.Errorf("%s\n%s", data[:200], again[:200])
	}
	if strings.Contains(string(data), ":null") {
		t.Error("a list is null")
	}
}

func seen() *Overview {
	o := &Overview{
		Version: "1.0", Host: "host", Root: "/var/spool/idenfy-batch", Zone: "UTC", Location: time.UTC, At: at(begin.Add(9 * time.Hour)), Since: at(begin), Midnight: begin.Add(-8 * time.Hour),
		Places: []Sum{{"inbox", 3}, {"work", 2}, {"done", 12345}, {"failed", 234}, {"hold", 14}}, AwaitedAll: 12,
		Gates:    []Gate{{Owner: "account", Reason: "iDenfy takes no more requests for now: HTTP 429", Mend: "it passes", Since: at(begin), Next: at(begin.Add(time.Hour)), Tries: 3}, {Inbox: "the inbox", Reason: "<b>", Since: at(begin)}},
		Receipts: []Gate{{Inbox: "inbox branch-1", Reason: "no space <left>", Since: at(begin)}},
		Hours:    []journal.Hour{{N: 0, Outcome: sidecar.Accepted, Lives: 3}, {N: 16, Outcome: sidecar.Rejected, Lives: 2}, {N: 99, Outcome: sidecar.Accepted, Lives: 2}, {N: -1, Outcome: sidecar.Accepted, Lives: 2}},
		Final:    map[string]int{"APPROVED": 40, "<i>": 3},
	}
	for _, name := range evil {
		o.Waits = append(o.Waits, Wait{name, "hold", "a person", at(begin)})
		o.Ends = append(o.Ends, journal.Line{Folder: name, Place: "done", Name: name, Outcome: sidecar.Accepted, At: at(begin), Verdict: "APPROVED", Codes: []journal.Why{{Code: name}}})
	}
	return o
}

func TestOverview(t *testing.T) {
	page, err := seen().Render()
	must(t, err)
	text := safe(t, string(page))
	if !strings.Contains(text, "Receipts of inbox branch-1 can't be written") || !strings.Contains(text, "no space <left>") {
		t.Error("it doesn't tell of receipts that can't be written")
	}
	for _, name := range evil {
		if n := strings.Count(text, name); n < 3 {
			t.Errorf("%q is shown %d times", name, n)
		}
	}
	for _, want := range []string{"12,345", "What mends it: it passes", "HTTP 429", "not final", "Submission is paused: account", "Nothing can be taken from the inbox"} {
		if !strings.Contains(text, want) {
			t.Errorf("it doesn't say %q", want)
		}
	}
	empty, err := (&Overview{Location: time.UTC, At: at(begin), Midnight: begin}).Render()
	must(t, err)
	safe(t, string(empty))
}

// Only who asks by an address of this host's own is answered, with nothing
// allowed to what he gets.
func TestHandler(t *testing.T) {
	h := Handler(func(context.Context) ([]byte, error) { return []byte("page"), nil })
	for host, want := range map[string]int{
		"127.0.0.1:9187": 200, "localhost:9187": 200, "[::1]:9187": 200, "127.0.0.1": 200, "localhost": 200, "[::1]": 200, "127.1.2.3:1": 200,
		"evil.example:9187": 403, "evil.example": 403, "192.168.0.7:9187": 403, "0.0.0.0:9187": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example:9187": 403, "": 403, "[": 403, "[]": 403, "2130706433": 403,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want || want == 200 != (w.Body.String() == "page") {
			t.Errorf("%q: %d, %s", host, w.Code, w.Body)
		}
		if csp := w.Header().Get("Content-Security-Policy"); want == 200 && (!strings.HasPrefix(csp, "default-src 'none'; style-src 'sha256-") || !strings.Contains(csp, "frame-ancestors 'none'")) {
			t.Errorf("policy: %s", csp)
		}
	}
}
