package report

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"time"

	"idenfy-batch/internal/journal"
	"idenfy-batch/sidecar"
)

// Overview is what the overview page shows: names of folders, and nothing of a
// person.
type Overview struct {
	Version, Host, Root string
	Zone                string
	Location            *time.Location
	At, Since           sidecar.Time // now; and of the daemon
	Places              []Sum
	Gates               []Gate // that are shut
	Receipts            []Gate // inboxes whose receipts can't be written; nothing is paused by it
	Waits               []Wait
	AwaitedAll          int // for a verdict
	Ends                []journal.Line
	Midnight            time.Time
	Hours               []journal.Hour // since then
	Final               map[string]int // verdicts of today
}

// Gate tells why all of an owner waits, or all of an inbox.
type Gate struct {
	Owner, Inbox, Reason, Mend string
	Since, Next                sidecar.Time
	Tries                      int
}

// Wait is a folder that waits.
type Wait struct {
	Folder, Place, For string
	Since              sidecar.Time
}

// Trouble reports whether a person should look.
func (o *Overview) Trouble() bool { return len(o.Gates)+len(o.Receipts) > 0 }

// Render makes the page.
func (o *Overview) Render() ([]byte, error) {
	sum := map[string]int{}
	for _, h := range o.Hours {
		sum[string(h.Outcome)] += h.Lives
	}
	data := struct {
		*Overview
		HourChart, OutcomeChart, VerdictChart *chart
		Outcomes, Verdicts                    []Sum
	}{Overview: o, Outcomes: sums(sum, outcomes, nil), Verdicts: sums(o.Final, firstVerdicts, nil)}
	data.HourChart = ofHours(o.Hours, o.Midnight, int(o.At.Sub(o.Midnight)/time.Hour)+1)
	data.OutcomeChart = bars("outcomes", "Today, by outcome", "Bars: submissions begun today, by what became of them so far. The table below has the numbers.", barsOf(data.Outcomes))
	data.VerdictChart = bars("verdicts", "Final verdicts of today", "Bars: final verdicts that came today. The table below has the numbers.", barsOf(data.Verdicts))
	var page bytes.Buffer
	err := pages(o.Location).ExecuteTemplate(&page, "overview", data)
	return page.Bytes(), err
}

// Handler serves the overview page that get returns, to programs of this host
// only: a page of elsewhere that has its own name resolved to this one's
// address (DNS rebinding) is told nothing.
func Handler(get func(context.Context) ([]byte, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r.Host) {
			http.Error(w, "ask for it by an address of loopback, such as http://127.0.0.1", http.StatusForbidden)
			return
		}
		for name, value := range map[string]string{
			"Content-Security-Policy": policy + "; frame-ancestors 'none'", "Content-Type": "text/html; charset=utf-8",
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			w.Header().Set(name, value)
		}
		page, err := get(r.Context())
		if err != nil {
			http.Error(w, "the journal can't be read; idenfy-batch status says more", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(page) // the reader is gone, which is his affair
	})
}

// loopback reports whether a request names this host by what can be nobody
// else's name.
func loopback(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	if len(name) > 2 && name[0] == '[' {
		name = name[1 : len(name)-1]
	}
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}
