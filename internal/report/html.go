package report

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"time"

	"idenfy-batch/sidecar"
)

//go:embed style.css
var style string

//go:embed parts.tmpl
var parts string

//go:embed report.tmpl
var reportText string

//go:embed overview.tmpl
var overviewText string

// policy lets a page have its own style, and nothing from anywhere: no script
// runs in it, and no request leaves it (W3C, Content Security Policy Level 3).
var policy = func() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; img-src data:; base-uri 'none'; form-action 'none'"
}()

// pages are the templates, of which each use has its own times.
func pages(zone *time.Location) *template.Template {
	at := func(layout string) func(sidecar.Time) string {
		return func(t sidecar.Time) string {
			if t.IsZero() {
				return "not known"
			}
			return t.In(zone).Format(layout)
		}
	}
	return template.Must(template.New("report").Funcs(template.FuncMap{
		"style":  func() template.CSS { return template.CSS(style) }, //nolint:gosec // it is this program's own
		"policy": func() string { return policy },
		"number": number, "number64": func(n int64) string { return number(int(n)) },
		"said": said, "show": show, "span": Span, "who": who, "filters": tellFilters(zone),
		"when": at(time.DateTime), "date": at(time.DateOnly), "clock": at(time.TimeOnly),
		"part": func(n, of int) string {
			if of == 0 {
				return ""
			}
			return fmt.Sprintf("%.1f %%", 100*float64(n)/float64(of))
		},
	}).Parse(parts + reportText + `{{define "overview"}}` + overviewText + `{{end}}`))
}

// who is a person as he is told.
func who(p sidecar.Person) string {
	name := fmt.Sprintf("uid %d", p.UID)
	if p.User != "" {
		name = show(p.User)
	}
	if p.LoginUID != nil && *p.LoginUID != p.UID {
		login := p.Login
		if login == "" {
			login = fmt.Sprintf("uid %d", *p.LoginUID)
		}
		name += ", logged in as " + show(login)
	}
	return name
}

// tellFilters says which folders are counted.
func tellFilters(zone *time.Location) func(f Filters) []string {
	return func(f Filters) []string {
		period := "folders taken"
		if !f.From.IsZero() {
			period += " from " + f.From.In(zone).Format(time.DateTime)
		} else {
			period += " from the beginning"
		}
		list := []string{period + " until before " + f.To.In(zone).Format(time.DateTime)}
		for _, c := range [][2]string{{"inbox", f.Inbox}, {"place", f.Place}, {"outcome", string(f.Outcome)}, {"verdict", f.Verdict}, {"clientId", f.Client}} {
			if c[1] != "" {
				list = append(list, "only "+c[0]+" "+show(c[1]))
			}
		}
		return list
	}
}

// sumTable and groupTable are tables of a page.
type sumTable struct {
	Caption, What, Of string
	List              []Sum
	All               int
}

type groupTable struct {
	Caption string
	Days    bool
	List    []Group
	Words   []Sum
	All     int
	by      func(*Group) map[string]int
}

// By is what a group is divided by.
func (t groupTable) By(g Group) map[string]int { return t.by(&g) }

type waitTable struct {
	Caption string
	W       *Waits
}

// page is a report with all that is drawn of it.
type page struct {
	*Report
	OutcomeChart, VerdictChart, DayOutcomes, DayVerdicts, InboxChart, ReasonChart, SubmitChart, VerdictWaitChart, AttemptChart *chart
	OutcomeTable, VerdictTable, AttemptTable                                                                                   sumTable
	DayTable, DayVerdictTable, InboxTable, InboxVerdictTable                                                                   groupTable
	SubmitTable, VerdictWaitTable                                                                                              waitTable
}

// WriteHTML writes the report as one file, without scripts and without anything
// from elsewhere.
func WriteHTML(w io.Writer, r *Report) error {
	all := r.Totals.Folders
	var boxes, attempts []bar
	for _, g := range r.Inboxes {
		boxes = append(boxes, bar{cmp.Or(g.Inbox, "none"), "blue", g.Folders})
	}
	for _, s := range r.Attempts.Folders {
		attempts = append(attempts, bar{s.Name, "blue", s.Folders})
	}
	words := func(of []Sum, by func(*Group) map[string]int) func(caption string, days bool, list []Group) groupTable {
		return func(caption string, days bool, list []Group) groupTable {
			return groupTable{caption, days, list, of, all, by}
		}
	}
	outcome, verdict := words(r.Outcomes, ofOutcomes), words(r.Verdicts, ofVerdicts)
	return pages(r.Head.zone()).Execute(w, page{
		Report:            r,
		OutcomeChart:      bars("outcomes", "Folders by outcome", "Bars: how many folders had each outcome. The table below has the numbers.", barsOf(r.Outcomes)),
		VerdictChart:      bars("verdicts", "Folders by verdict of iDenfy", "Bars: how many folders had each verdict. The table below has the numbers.", barsOf(r.Verdicts)),
		DayOutcomes:       byDay("days", "Folders by outcome, over time", r.Days, r.Outcomes, ofOutcomes),
		DayVerdicts:       byDay("dayv", "Folders by verdict, over time", r.Days, r.Verdicts, ofVerdicts),
		InboxChart:        bars("inboxes", "Folders by inbox", "Bars: how many folders came into each inbox. The table below has the numbers.", boxes),
		ReasonChart:       ofReasons(r.Reasons),
		SubmitChart:       ofWaits("submit", "From complete to its submission", &r.Submit),
		VerdictWaitChart:  ofWaits("verdict", "From acceptance to the final verdict", &r.Verdict),
		AttemptChart:      bars("attempts", "Folders by attempts", "Bars: how many folders took how many attempts. The table has the numbers.", attempts),
		OutcomeTable:      sumTable{"Folders by outcome", "outcome", "folders", r.Outcomes, all},
		VerdictTable:      sumTable{"Folders by verdict", "verdict", "folders", r.Verdicts, all},
		AttemptTable:      sumTable{"Folders by attempts", "attempts", "folders", r.Attempts.Folders, all},
		DayTable:          outcome("Outcomes by day and inbox", true, r.Days),
		DayVerdictTable:   verdict("Verdicts by day and inbox", true, r.Days),
		InboxTable:        outcome("Outcomes by inbox", false, r.Inboxes),
		InboxVerdictTable: verdict("Verdicts by inbox", false, r.Inboxes),
		SubmitTable:       waitTable{"From complete to the first byte of its submission", &r.Submit},
		VerdictWaitTable:  waitTable{"From acceptance to the first final verdict", &r.Verdict},
	})
}
