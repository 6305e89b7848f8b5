package journal_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// day is when the lives of these tests begin.
var day = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// lived enters a life that has ended, an hour after the one before.
func lived(t *testing.T, j *journal.Journal, n int, l journal.Life) string {
	t.Helper()
	l.ID = spool.NewID()
	l.State = journal.Filed
	at := sidecar.Time{Time: day.Add(time.Duration(n) * time.Hour)}
	r := *l.Result
	r.ID, r.Times = l.ID, sidecar.Times{Claimed: at, Finished: at}
	l.Result = &r
	must(t, j.Adopt([]journal.Adopted{{Lives: []*journal.Life{&l}}}))
	return l.ID
}

func ended(folder, place, dir string, outcome sidecar.Outcome) journal.Life {
	return journal.Life{Place: place, Name: folder, Dir: dir, Fate: journal.Refused, Result: &sidecar.Result{Folder: folder, Outcome: outcome}}
}

func listed(t *testing.T, j *journal.Journal, q journal.Query) string {
	t.Helper()
	if q.Most == 0 {
		q.Most = 100
	}
	list, err := j.Reader().List(t.Context(), q)
	must(t, err)
	var names []string
	for _, f := range list {
		names = append(names, f.Folder)
	}
	return strings.Join(names, " ")
}

func TestList(t *testing.T) {
	_, j := create(t)
	must(t, j.Reserve([]string{spool.NewID()})) // for a folder that is still to come
	lived(t, j, 0, ended("a", "failed", "1", sidecar.Rejected))
	lived(t, j, 1, ended("b", "hold", "2", sidecar.Unknown))
	again := ended("a", "done", "1", sidecar.Accepted) // the same directory
	again.Fate, again.Token = journal.Taken, "token"
	lived(t, j, 2, again)
	copied := ended("copy", "failed", "3", sidecar.Invalid) // of the same case, and another folder
	copied.Token, copied.ClientID = "token", "client-7"
	lived(t, j, 3, copied)
	claimed(t, j, "now")
	for _, c := range []struct {
		q    journal.Query
		want string
	}{
		{journal.Query{}, "now copy a b"},
		{journal.Query{Place: "failed"}, "copy"},
		{journal.Query{Place: "work"}, "now"},
		{journal.Query{Outcome: sidecar.Unknown}, "b"},
		{journal.Query{Outcome: sidecar.Rejected}, ""},
		{journal.Query{Since: day.Add(time.Hour), Until: day.Add(3 * time.Hour)}, "a b"},
		{journal.Query{Most: 2}, "now copy"},
		{journal.Query{Client: "client-7"}, "copy"},
		{journal.Query{Client: "client-7", Place: "done"}, ""},
		{journal.Query{Client: "CLIENT-7"}, ""},
	} {
		if got := listed(t, j, c.q); got != c.want {
			t.Errorf("%+v: %q, want %q", c.q, got, c.want)
		}
	}
}

// A list that is read in pages has each folder once, those of one moment too.
func TestListInPages(t *testing.T) {
	_, j := create(t)
	var want []string
	for i := range 30 {
		name := fmt.Sprintf("case%02d", i)
		lived(t, j, i/7, ended(name, "done", name, sidecar.Accepted))
		want = append(want, name)
	}
	var got []string
	q := journal.Query{Most: 4}
	for {
		page, err := j.Reader().List(t.Context(), q)
		must(t, err)
		for _, f := range page {
			got = append(got, f.Folder)
		}
		if len(page) < q.Most {
			break
		}
		last := page[len(page)-1]
		q.After = &journal.Cursor{ID: last.ID, Claimed: last.Claimed}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestShow(t *testing.T) {
	_, j := create(t)
	first := lived(t, j, 0, ended("a", "inbox", "1", sidecar.Rejected))
	again := ended("a", "done", "1", sidecar.Accepted)
	again.ScanRef, again.Name, again.Fate = "328c6766-934e-11ed-bb9b-025ad99a18e7", "a.2", journal.Taken
	second := lived(t, j, 1, again)
	other := lived(t, j, 2, ended("a", "failed", "2", sidecar.Invalid))
	l, err := j.Load(t.Context(), first)
	must(t, err)
	must(t, j.Decide(l, l.Fate, sidecar.Decision{At: sidecar.Time{Time: day}, Action: sidecar.Requeued, Result: first, Comment: "why"}, "", nil))
	both := [][]string{{first, second}, {other}}
	for key, want := range map[string][][]string{
		"a": both, first: both[:1], strings.ToLower(second): both[:1], other: both[1:], "a.2": both[:1], "done/a.2": both[:1], "done/a.2/": both[:1], "failed/a": both[1:],
		"328c6766-934e-11ed-bb9b-025ad99a18e7": both[:1], "328C6766-934E-11ED-BB9B-025AD99A18E7": both[:1],
		"": nil, "b": nil, "hold/a": nil, "%": nil, "\x00": nil,
	} {
		all, err := j.Reader().Show(t.Context(), journal.Search{Key: key, Most: 10})
		must(t, err)
		var got [][]string
		for _, s := range all.Stories {
			var ids []string
			for _, l := range s.Lives {
				ids = append(ids, l.Result.ID)
			}
			got = append(got, ids)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || all.Total != len(want) {
			t.Errorf("%q: %v, want %v", key, got, want)
		}
	}
	all, err := j.Reader().Show(t.Context(), journal.Search{Key: "a", Most: 1})
	must(t, err)
	if all.Total != 2 || len(all.Stories) != 1 || all.Stories[0].Lives[0].Result.ID != other {
		t.Errorf("the newest only: %+v", all)
	}
	all, err = j.Reader().Show(t.Context(), journal.Search{Key: first, Most: 1})
	must(t, err)
	s := all.Stories[0]
	if s.Lives[0].Next != second || s.Lives[1].Next != "" || len(s.Decisions) != 1 || s.Decisions[0].Comment != "why" || s.Lives[1].Result.Decisions != nil {
		t.Errorf("%+v", s)
	}
}

func TestNames(t *testing.T) {
	_, j := create(t)
	for i, name := range []string{"case-1", "case-2", "case-2", "čase", "other"} {
		lived(t, j, i, ended(name, "done", fmt.Sprint(i), sidecar.Accepted))
	}
	for begin, want := range map[string]string{"case": "case-1 case-2", "": "case-1 case-2 other čase", "č": "čase", "x": "", "case-1x": ""} {
		got, err := j.Reader().Names(t.Context(), journal.Search{Key: begin, Most: 10})
		must(t, err)
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", begin, got, want)
		}
	}
	for wrong, want := range map[string]string{"case-77": "case-1 case-2", "oter": "other", "xyz": ""} {
		all, err := j.Reader().Show(t.Context(), journal.Search{Key: wrong, Most: 10})
		must(t, err)
		if strings.Join(all.Near, " ") != want {
			t.Errorf("near %q: %q, want %q", wrong, all.Near, want)
		}
	}
}

// A reader beside the journal writes nothing, and reads it also once it is
// closed, when the files of the log stay for those who could not make them.
func TestReader(t *testing.T) {
	w, j := create(t)
	claimed(t, j, "case")
	look := func(when string) {
		t.Helper()
		r, err := journal.OpenReader(t.Context(), w)
		must(t, err)
		list, err := r.List(t.Context(), journal.Query{Most: 10})
		must(t, errors.Join(err, r.Close()))
		if len(list) != 1 || list[0].Folder != "case" {
			t.Errorf("%s: %+v", when, list)
		}
	}
	look("open")
	must(t, j.Close())
	for end, size := range map[string]int64{"-wal": 0, "-shm": 32768} {
		if info, err := os.Stat(db(w) + end); err != nil || info.Size() != size || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: %v, %v", end, info, err)
		}
	}
	look("closed")
	change(t, db(w), "PRAGMA user_version = 1000")
	if _, err := journal.OpenReader(t.Context(), w); err == nil || !strings.Contains(err.Error(), "newer idenfy-batch") {
		t.Errorf("newer: %v", err)
	}
	must(t, os.Remove(db(w)))
	if _, err := journal.OpenReader(t.Context(), w); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// first makes a journal of the first version, with these rows.
func first(t *testing.T, rows string) journal.Where {
	t.Helper()
	w := newWhere(t)
	must(t, os.Mkdir(w.Dir, 0o750))
	schema, err := os.ReadFile("schema.sql")
	must(t, err)
	d, err := sql.Open("sqlite", "file:"+db(w)+"?_pragma=journal_mode(WAL)")
	must(t, err)
	_, err = d.Exec(string(schema) + "; PRAGMA user_version = 1; INSERT INTO journal VALUES (1, 'JJJJJJJJJJJJJJJJJJJJJJJJJJ', 7, 1);" + rows)
	must(t, errors.Join(err, d.Close()))
	must(t, os.WriteFile(filepath.Join(w.Mark, ".journal"), fmt.Appendf(nil, "idenfy-batch/mark/v1 %-26s %20d\n", "JJJJJJJJJJJJJJJJJJJJJJJJJJ", 7), 0o640))
	return w
}

// What is left of a Retry-After that only its folder waited for is the
// account's after an upgrade.
func TestUpgradeGate(t *testing.T) {
	now := time.Now()
	row := func(n, status, retryAfter int, ago time.Duration) string {
		at := now.Add(-ago).UnixMilli()
		return fmt.Sprintf("INSERT INTO attempt VALUES ('AAAAAAAAAAAAAAAAAAAAAAAAAA', %d, %d, %d, 'answered', %d, '', '', 5, %d);", n, at, at, status, retryAfter)
	}
	for name, test := range map[string]struct {
		rows string
		ends time.Duration // from now on; 0: it is open
	}{
		"none":           {row(1, 200, 0, time.Hour) + row(2, 429, 0, time.Minute) + row(3, 503, 600, time.Second), 0},
		"over":           {row(1, 429, 60, time.Hour), 0},
		"newest":         {row(1, 429, 3600, time.Minute) + row(2, 429, 600, time.Second) + row(3, 200, 0, time.Hour), 599 * time.Second},
		"answered since": {row(1, 429, 3600, time.Minute) + row(2, 200, 0, time.Second), 0},
	} {
		t.Run(name, func(t *testing.T) {
			life := "INSERT INTO life VALUES ('AAAAAAAAAAAAAAAAAAAAAAAAAA', 1, 'pending', 'pending', 'unsent', 1, 0, 'old', 'hash', 'ref', '1', 'work', '', 1, 0, 0, 1000, 0, '{}');"
			j, err := journal.Open(first(t, life+test.rows))
			must(t, err)
			defer j.Close()
			g, err := j.Reader().Gate(t.Context())
			must(t, err)
			switch {
			case test.ends == 0 && g != nil:
				t.Errorf("%+v", g)
			case test.ends > 0 && (g == nil || g.Until.Sub(now.Add(test.ends)).Abs() > time.Second || g.Asked != 600*time.Second || g.Tries != 1 || g.Mend == ""):
				t.Errorf("%+v, want until %s", g, now.Add(test.ends))
			}
		})
	}
}

// After an upgrade the verdicts are awaited of what was accepted within the last
// three days.
func TestUpgradeAwaits(t *testing.T) {
	now := time.Now()
	rows := ""
	for i, c := range []struct {
		fate, ref string
		ago       time.Duration
	}{
		{"taken", "'named-0123456789'", time.Hour}, {"refused", "'named-0123456789'", 80 * time.Hour}, // with another token
		{"taken", "'late-0123456789'", time.Hour}, {"taken", "'twice-0123456789'", 70 * time.Hour}, {"taken", "'twice-0123456789'", 71 * time.Hour},
		{"taken", "'early-0123456789'", 73 * time.Hour}, {"refused", "'refused-0123456789'", time.Hour}, {"taken", "NULL", time.Hour},
	} {
		at := now.Add(-c.ago).UnixMilli()
		rows += fmt.Sprintf(`INSERT INTO life VALUES ('%s', %d, 'filed', 'accepted', '%s', 1, 0, 'old', 'hash of %s', %s, '1', 'done', 'old', 0, 0, 0, %d, %d, '{}');`, strings.Repeat(string(rune('A'+i)), 26), i, c.fate, c.fate, c.ref, at, at)
	}
	j, err := journal.Open(first(t, rows))
	must(t, err)
	defer j.Close()
	v, err := j.Reader().Verdicts(t.Context())
	must(t, err)
	if want := now.Add(-70 * time.Hour).UnixMilli(); v.Waiting != 2 || v.Oldest.UnixMilli() != want {
		t.Errorf("%+v", v)
	}
	due, err := j.ToAsk(t.Context(), now, now, 9)
	must(t, err)
	if len(due) != 2 || due[0].ScanRef != "twice-0123456789" || due[1].ScanRef != "late-0123456789" {
		t.Errorf("%+v", due)
	}
}

// A journal of the first version is brought up to date when it is opened, with
// all that is in it; a reader reads it before that as well.
func TestUpgrade(t *testing.T) {
	w := first(t, `INSERT INTO life VALUES ('AAAAAAAAAAAAAAAAAAAAAAAAAA', 1, 'filed', 'accepted', 'taken', 1, 0, 'old', 'hash', 'ref', '1', 'done', 'old', 1, 0, 0, 1000, 2000, '{"id":"AAAAAAAAAAAAAAAAAAAAAAAAAA","folder":"old"}');
		INSERT INTO attempt VALUES ('AAAAAAAAAAAAAAAAAAAAAAAAAA', 1, 1000, 2000, 'answered', 200, '', '', 5, 0)`)
	backup := filepath.Join(t.TempDir(), "backup")
	must(t, journal.BackupFile(t.Context(), w, backup))
	check := func(r *journal.Reader) {
		t.Helper()
		all, err := r.Show(t.Context(), journal.Search{Key: "old", Most: 1})
		must(t, err)
		if len(all.Stories) != 1 || len(all.Stories[0].Lives[0].Result.Attempts) != 1 || all.Stories[0].Lives[0].Fate != journal.Taken {
			t.Errorf("%+v", all)
		}
	}
	r, err := journal.OpenReader(t.Context(), w)
	must(t, err)
	check(r)
	if _, err := r.Entries(t.Context(), journal.Entries{Most: 1}); err == nil || !strings.Contains(err.Error(), "next start of the daemon") {
		t.Error(err)
	}
	must(t, r.Close())
	for range 2 {
		j, err := journal.Open(w)
		must(t, err)
		check(j.Reader())
		if known, err := j.Reader().WithToken(t.Context(), "hash"); err != nil || len(known) != 1 {
			t.Errorf("%v, %v", known, err)
		}
		must(t, j.Close())
	}
	if seq := query(t, db(w), "SELECT seq FROM journal"); seq != 8 {
		t.Errorf("%d commits", seq)
	}
	entered(t, w)
	_, err = journal.Replace(w, backup)
	must(t, err)
	entered(t, w)

	// It has all indexes that the schemas name.
	files, err := filepath.Glob("schema*.sql")
	must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		for _, m := range regexp.MustCompile(`CREATE INDEX (\w+)`).FindAllStringSubmatch(string(text), -1) {
			if query(t, db(w), "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND name = '"+m[1]+"'") != 1 {
				t.Errorf("%s: the index %s is not there", file, m[1])
			}
		}
	}
}

// entered brings what is in an upgraded journal into its ledger.
func entered(t *testing.T, w journal.Where) {
	t.Helper()
	j, err := journal.Open(w)
	must(t, err)
	if yes, err := j.Entered(t.Context()); err != nil || yes {
		t.Error(yes, err)
	}
	list, err := j.ToEnter(t.Context(), "", 9)
	must(t, err)
	for range 2 {
		must(t, j.EnterAdopted([]journal.Found{{ID: list[0].ID, SHA256: strings.Repeat("a", 64)}, {ID: spool.NewID()}}))
	}
	must(t, j.SetEntered())
	must(t, j.Close())
	wants(t, w, "adopted accepted done  true")
}

// Whoever may read may ask anything, and gets a bounded answer.
func TestBounds(t *testing.T) {
	_, j := create(t)
	ids := make([]string, 1200)
	for i := range ids {
		ids[i] = spool.NewID()
	}
	must(t, j.Reserve(ids))
	must(t, j.Claim(spool.NewID(), "inbox", "a"))
	must(t, j.Claim(spool.NewID(), "inbox", "b"))
	if list, err := j.Reader().List(t.Context(), journal.Query{Most: -1}); err != nil || len(list) != 1 {
		t.Errorf("%d, %v", len(list), err)
	}
	long := journal.Search{Key: strings.Repeat("z", 2000), Most: 1}
	if _, err := j.Reader().Show(t.Context(), long); err == nil || !strings.Contains(err.Error(), "2000 bytes") {
		t.Error(err)
	}
	if _, err := j.Reader().Names(t.Context(), long); err == nil {
		t.Error("names of what is too long")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := j.Reader().Show(ctx, journal.Search{Key: "a"}); err == nil || strings.Contains(err.Error(), "transaction has already") {
		t.Error(err)
	}
}

// A life of before there were several inboxes came from the only one, also when
// it is written anew; each later one has its own.
func TestListOfInbox(t *testing.T) {
	w := first(t, `INSERT INTO life VALUES ('AAAAAAAAAAAAAAAAAAAAAAAAAA', 1, 'filed', 'rejected', 'refused', 1, 0, 'old', 'hash', 'ref', '1', 'failed', 'old', 0, 0, 0, 1000, 2000, '{"id":"AAAAAAAAAAAAAAAAAAAAAAAAAA","folder":"old"}')`)
	j, err := journal.Open(w)
	must(t, err)
	defer j.Close()
	list := func(q journal.Query) (names string) {
		t.Helper()
		q.Most = 9
		folders, err := j.Reader().List(t.Context(), q)
		must(t, err)
		for _, f := range folders {
			names += f.Folder + "@" + f.Inbox + " "
		}
		return names
	}
	if got := list(journal.Query{Inbox: "inbox"}); got != "old@inbox " {
		t.Errorf("of before: %s", got)
	}
	old, err := j.Load(t.Context(), "AAAAAAAAAAAAAAAAAAAAAAAAAA")
	must(t, err)
	must(t, j.Put(old))
	life := func(folder, inbox string) *journal.Life {
		id := spool.NewID()
		must(t, j.Reserve([]string{id}))
		l := &journal.Life{ID: id, State: journal.Claimed, Fate: journal.Unsent, Place: "work", Result: &sidecar.Result{
			ID: id, Folder: folder, Inbox: inbox, Outcome: sidecar.Pending, Times: sidecar.Times{Claimed: sidecar.Now()},
		}}
		must(t, j.Put(l))
		return l
	}
	life("one", "branch-1")
	two := life("two", "inbox")
	two.State, two.Place, two.Name = journal.Filed, "inbox/branch-2", "two"
	must(t, j.Put(two))
	for want, q := range map[string]journal.Query{
		"two@inbox old@inbox ": {Inbox: "inbox"},
		"one@branch-1 ":        {Inbox: "branch-1"},
		"":                     {Inbox: "branch-2"},
		"two@inbox ":           {Place: "inbox"}, // wherever of these it was put
		"old@inbox ":           {Place: "failed", Inbox: "inbox"},
	} {
		if got := list(q); got != want {
			t.Errorf("%+v: %q, want %q", q, got, want)
		}
	}
	all, err := j.Reader().Show(t.Context(), journal.Search{Key: "inbox/branch-2/two", Most: 1})
	if err != nil || len(all.Stories) != 1 || all.Stories[0].Lives[0].Result.Inbox != "inbox" {
		t.Errorf("%+v, %v", all, err)
	}
}
