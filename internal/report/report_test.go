package report

import (
	"bytes"

	"encoding/json"
	"encoding/xml"
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
	return c.Report(0)
}

var (
	_ = bytes.NewReader
	_ = json.Valid
	_ = xml.NewDecoder
	_ = io.EOF
	_ = http.StatusOK
	_ = httptest.NewRecorder
	_ = regexp.MustCompile
	_ = slices.Sort[[]int]
)
