package journal_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// all reads what is counted, in pages of a size.
func all(t *testing.T, j *journal.Journal, s journal.Span) (list []journal.Counted) {
	t.Helper()
	for {
		page, err := j.Reader().Count(t.Context(), s)
		must(t, err)
		list = append(list, page...)
		if len(page) < s.Most {
			return list
		}
		last := page[len(page)-1]
		s.After = &journal.Cursor{ID: last.ID, Claimed: last.Claimed}
	}
}

// Each life is counted once, in pages too, and of a folder that came again the
// last one is told from those before, as a list does.
func TestCount(t *testing.T) {
	_, j := create(t)
	for i := range 20 {
		name := fmt.Sprint("case", i)
		lived(t, j, i/3, ended(name, "done", name, sidecar.Accepted))
	}
	again := ended("case3", "failed", "case3", sidecar.Rejected) // the same directory
	again.Result.Reasons = []sidecar.Reason{{Code: "BAD_VALUE", Message: `a "times":{"complete":"no"} in a text`, Source: sidecar.FromAPI}, {Code: "b", Source: sidecar.FromDaemon}}
	lived(t, j, 50, again)
	claimed(t, j, "now")
	list := all(t, j, journal.Span{Most: 4})
	var folders, ids, came []string
	for _, l := range list {
		ids = append(ids, l.ID)
		if l.Again {
			came = append(came, l.Folder)
		} else {
			folders = append(folders, l.Folder)
		}
		if l.Outcome == sidecar.Rejected && (len(l.Reasons) != 2 || l.Reasons[0] != journal.Why{Code: "BAD_VALUE", Source: sidecar.FromAPI}) {
			t.Errorf("%+v", l.Reasons)
		}
	}
	slices.Sort(ids)
	if len(list) != 22 || len(slices.Compact(ids)) != 22 || !slices.Equal(came, []string{"case3"}) {
		t.Errorf("%d lives, %d ids; came again: %v", len(list), len(ids), came)
	}
	want := strings.Fields(listed(t, j, journal.Query{}))
	slices.Sort(want)
	slices.Sort(folders)
	if !slices.Equal(folders, want) {
		t.Errorf("%v\nlisted %v", folders, want)
	}
	span := journal.Span{Since: day.Add(time.Hour), Until: day.Add(3 * time.Hour), Most: 100}
	e, err := j.Reader().Extent(t.Context(), span)
	must(t, err)
	if n := len(all(t, j, span)); n != 6 || e.Outside != len(list)-n {
		t.Errorf("%d in the time, %+v", n, e)
	}
}

// What a report says of a life is what its folder's own records say.
func TestCountTimes(t *testing.T) {
	_, j := create(t)
	begin := day
	id := spool.NewID()
	after := func(d time.Duration) sidecar.Time { return sidecar.Time{Time: begin.Add(d)} }
	l := &journal.Life{
		ID: id, State: journal.Filed, Fate: journal.Taken, Took: true, Token: "token", ScanRef: "328c6766-934e-11ed-bb9b-025ad99a18e7", Place: "done", Name: "case",
		Result: &sidecar.Result{
			ID: id, Folder: "case", Outcome: sidecar.Accepted, Reasons: []sidecar.Reason{},
			Attempts: []sidecar.Attempt{{N: 1, Started: after(3 * time.Second), State: sidecar.NoAnswer}, {N: 2, Started: after(9 * time.Second), State: sidecar.Answered, HTTPStatus: 200}},
			Times:    sidecar.Times{FirstSeen: after(0), Complete: after(time.Second), Claimed: after(2 * time.Second), Finished: after(10 * time.Second)},
		},
	}
	must(t, j.Adopt([]journal.Adopted{{Lives: []*journal.Life{l}}}))
	for i, word := range []string{"REVIEWING", "DENIED", "APPROVED"} {
		_, err := j.Hear(journal.Event{ScanRef: l.ScanRef, Said: sidecar.VerdictEvent{
			Received: after(time.Duration(i+1) * time.Minute), Said: sidecar.Said{Overall: word, Final: word != "REVIEWING"}, SHA256: strings.Repeat(strconv.Itoa(i), 64),
		}})
		must(t, err)
	}
	c := all(t, j, journal.Span{Most: 10})[0]
	if c.Verdict != "APPROVED" || !c.Final || c.Awaited || !c.Contradicted || c.Attempts != 2 || len(c.Reasons) != 0 {
		t.Errorf("%+v", c)
	}
	for what, pair := range map[string][2]sidecar.Time{
		"complete": {c.Complete, after(time.Second)}, "taken": {c.Claimed, after(2 * time.Second)}, "submitted": {c.Submitted, after(3 * time.Second)},
		"finished": {c.Finished, after(10 * time.Second)}, "accepted": {c.Accepted, after(10 * time.Second)}, "decided": {c.Decided, after(2 * time.Minute)},
	} {
		if !pair[0].Equal(pair[1].Time) {
			t.Errorf("%s: %s, not %s", what, pair[0], pair[1])
		}
	}
	ends, err := j.Reader().FinalSince(t.Context(), begin.Add(150*time.Second))
	must(t, err)
	if len(ends) != 1 || ends["APPROVED"] != 1 {
		t.Errorf("since the second minute: %v", ends)
	}
	hours, err := j.Reader().Hours(t.Context(), begin.Add(-time.Hour))
	must(t, err)
	if want := (journal.Hour{N: 1, Outcome: sidecar.Accepted, Lives: 1}); len(hours) != 1 || hours[0] != want {
		t.Errorf("%+v", hours)
	}
}

// What was deleted of a folder is told by a report and by a list, of one that has
// no reasons too.
func TestCountPurged(t *testing.T) {
	_, j := create(t)
	id := lived(t, j, 0, ended("case", "done", "case", sidecar.Accepted))
	lived(t, j, 1, ended("other", "done", "other", sidecar.Accepted))
	for i, p := range []sidecar.Purge{
		{Rule: sidecar.OfList, By: &sidecar.Person{UID: 7, User: "ann"}, Files: []sidecar.Deleted{{File: "FRONT.jpg", Bytes: 5}, {File: "meta.yaml", Bytes: 2}, {File: "more/"}}},
		{Rule: sidecar.OfVerdicts, Files: []sidecar.Deleted{{File: "verdict-1.json", Bytes: 9}}},
	} {
		l, err := j.Load(t.Context(), id)
		must(t, err)
		p.At = sidecar.Time{Time: day.Add(time.Duration(i+5) * time.Hour)}
		l.Result.Purges = append(l.Result.Purges, p)
		must(t, j.Purge(l))
		must(t, j.Purged(id))
	}
	for _, c := range all(t, j, journal.Span{Most: 10}) {
		switch {
		case c.ID != id:
			if c.Purges != nil {
				t.Errorf("%+v", c.Purges)
			}
		case len(c.Purges) != 2 || c.Purges[0].Files != 2 || c.Purges[0].Bytes != 7 || !c.Purges[0].Emptied || c.Purges[0].By.User != "ann" || c.Purges[1].Emptied || c.Purges[1].By != nil:
			t.Errorf("%+v", c.Purges)
		}
	}
	list, err := j.Reader().List(t.Context(), journal.Query{Most: 10})
	must(t, err)
	for _, f := range list {
		if f.ID == id != f.Purged.Equal(day.Add(5*time.Hour)) || f.ID != id && !f.Purged.IsZero() {
			t.Errorf("%s: %s", f.Folder, f.Purged)
		}
	}
}

// Decisions come by when they were made, in pages.
func TestJudged(t *testing.T) {
	_, j := create(t)
	for i := range 5 {
		id := lived(t, j, i, ended(fmt.Sprint("case", i), "failed", fmt.Sprint(i), sidecar.Rejected))
		l, err := j.Load(t.Context(), id)
		must(t, err)
		must(t, j.Decide(l, l.Fate, sidecar.Decision{At: sidecar.Time{Time: day.Add(time.Duration(i) * time.Hour)}, Action: sidecar.Requeued, Result: id, By: sidecar.Person{UID: 7}}, "", nil))
	}
	var got []string
	s := journal.Span{Since: day.Add(time.Hour), Until: day.Add(4 * time.Hour), Most: 2}
	for {
		page, err := j.Reader().Judged(t.Context(), s)
		must(t, err)
		for _, d := range page {
			got = append(got, d.Folder)
			if d.By.UID != 7 || d.Action != sidecar.Requeued || d.Inbox == "" {
				t.Errorf("%+v", d)
			}
		}
		if len(page) < s.Most {
			break
		}
		s.After = &journal.Cursor{ID: strconv.FormatInt(page[len(page)-1].N, 10)}
	}
	if want := []string{"case3", "case2", "case1"}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// What waits in work is told by its name, and what is only reserved is not told.
func TestWaiting(t *testing.T) {
	_, j := create(t)
	must(t, j.Reserve([]string{spool.NewID()}))
	claimed(t, j, "now")
	lived(t, j, 0, ended("kept", "hold", "1", sidecar.Unknown))
	lived(t, j, 1, ended("again", "hold", "2", sidecar.Unknown))
	lived(t, j, 2, ended("again", "done", "2", sidecar.Accepted))
	for want, ask := range map[string]func() ([]journal.Line, error){
		"now":  func() ([]journal.Line, error) { return j.Reader().InWork(t.Context(), 9) },
		"kept": func() ([]journal.Line, error) { return j.Reader().Held(t.Context(), 9) },
		"":     func() ([]journal.Line, error) { return j.Reader().Awaited(t.Context(), 9) },
	} {
		list, err := ask()
		must(t, err)
		var names []string
		for _, l := range list {
			names = append(names, l.Folder)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
