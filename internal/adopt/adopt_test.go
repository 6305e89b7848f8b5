package adopt_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"idenfy-batch/internal/adopt"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// old is a spool of a version without a journal.
type old struct {
	t     *testing.T
	paths spool.Paths
	where journal.Where
	j     *journal.Journal
}

func newOld(t *testing.T) *old {
	t.Helper()
	root := t.TempDir()
	o := &old{t: t, paths: spool.Paths{}}
	for _, p := range spool.Places() {
		o.paths[p] = filepath.Join(root, string(p))
		must(t, os.Mkdir(o.paths[p], 0o700))
	}
	o.where = journal.Where{Dir: filepath.Join(root, "journal"), Mark: o.paths[spool.Work]}
	o.fresh()
	t.Cleanup(func() { must(t, o.j.Close()) })
	return o
}

// fresh begins with a new journal.
func (o *old) fresh() {
	o.t.Helper()
	if o.j != nil {
		must(o.t, o.j.Close())
		_, err := journal.SetAside(o.where)
		must(o.t, err)
	}
	j, err := journal.Create(o.where)
	must(o.t, err)
	o.j = j
}

func metaText(token string) string {
	return "authToken: " + token + "\ncountry: LT\ndocumentType: PASSPORT\n"
}

func sum(token string) string { return (&meta.Meta{AuthToken: token}).TokenSHA256() }

// result is one as the old version wrote it: no hash, of nothing.
func result(o sidecar.Outcome, token string, attempts ...sidecar.Attempt) *sidecar.Result {
	now := sidecar.Now()
	return &sidecar.Result{
		ID: spool.NewID(), Outcome: o, Request: sidecar.Request{TokenHint: sidecar.TokenHint(token)},
		Attempts: attempts, Times: sidecar.Times{Claimed: now, Finished: now},
	}
}

func attempt(s sidecar.State, status int) sidecar.Attempt {
	return sidecar.Attempt{N: 1, Started: sidecar.Now(), State: s, HTTPStatus: status}
}

// put makes a folder with a token and results, the oldest first.
func (o *old) put(p spool.Place, name, token string, results ...*sidecar.Result) string {
	o.t.Helper()
	dir := filepath.Join(o.paths[p], name)
	must(o.t, os.Mkdir(dir, 0o700))
	must(o.t, os.WriteFile(filepath.Join(dir, "meta.yaml"), []byte(metaText(token)), 0o600))
	root, err := os.OpenRoot(dir)
	must(o.t, err)
	for i, r := range results {
		if i > 0 {
			must(o.t, sidecar.Rotate(root, sidecar.Name))
		}
		r.Folder = name
		must(o.t, sidecar.Write(root, r))
	}
	must(o.t, root.Close())
	return dir
}

func (o *old) adopt() int {
	o.t.Helper()
	unread, err := adopt.Spool(o.t.Context(), o.paths, o.j, true, func(int, int) {})
	must(o.t, err)
	return unread
}

func (o *old) life(id string) *journal.Life {
	o.t.Helper()
	l, err := o.j.Load(o.t.Context(), id)
	must(o.t, err)
	if l == nil {
		o.t.Fatalf("%s is not known", id)
	}
	return l
}

// asks is what a new life would be told.
func (o *old) asks(token string, prior ...string) journal.Answer {
	o.t.Helper()
	id := spool.NewID()
	must(o.t, o.j.Claim(id, "inbox", "new"))
	a, err := o.j.Begin(journal.Question{Only: true, Life: &journal.Life{ID: id, Prior: prior, Token: sum(token), Result: &sidecar.Result{ID: id}}})
	must(o.t, err)
	must(o.t, o.j.Gone(id))
	return a
}

// What a result of before tells of its life, in each place.
func TestFates(t *testing.T) {
	const token = "TOKEN-0123456789"
	for name, c := range map[string]struct {
		place spool.Place
		r     *sidecar.Result
		fate  journal.Fate
		asks  journal.Verdict // of its token, and by its id
	}{
		"accepted":        {spool.Done, result(sidecar.Accepted, token, attempt(sidecar.Answered, 200)), journal.Taken, journal.Before},
		"rejected":        {spool.Failed, result(sidecar.Rejected, token, attempt(sidecar.Answered, 400)), journal.Refused, journal.Send},
		"invalid":         {spool.Failed, result(sidecar.Invalid, token), journal.Unsent, journal.Send},
		"incomplete":      {spool.Failed, result(sidecar.Incomplete, token), journal.Unsent, journal.Send},
		"gave up, 5xx":    {spool.Failed, result(sidecar.GaveUp, token, attempt(sidecar.Answered, 502)), journal.Unsettled, journal.Send},
		"gave up, 429":    {spool.Failed, result(sidecar.GaveUp, token, attempt(sidecar.Answered, 429)), journal.Refused, journal.Send},
		"unknown":         {spool.Hold, result(sidecar.Unknown, token, attempt(sidecar.NoAnswer, 0)), journal.Unsettled, journal.Maybe},
		"moved to failed": {spool.Failed, result(sidecar.Unknown, token, attempt(sidecar.NoAnswer, 0)), journal.Unsettled, journal.Maybe},
		"moved to inbox":  {spool.Inbox, result(sidecar.Accepted, token, attempt(sidecar.Answered, 200)), journal.Taken, journal.Before},
		"changed in work": {spool.Failed, result(sidecar.Invalid, token, attempt(sidecar.NoAnswer, 0)), journal.Unsettled, journal.Maybe},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOld(t)
			o.put(c.place, "case", token, c.r)
			if n := o.adopt(); n != 0 {
				t.Errorf("%d could not be read", n)
			}
			l := o.life(c.r.ID)
			if l.Fate != c.fate || l.Token != sum(token) || l.Place != string(c.place) || l.Name != "case" || l.State != journal.Filed || l.Took != (len(c.r.Attempts) > 0) {
				t.Errorf("%+v", l)
			}
			if a := o.asks(token); a.Verdict != c.asks || a.Own {
				t.Errorf("by the token: %+v", a)
			}
			want := c.asks
			if c.fate == journal.Unsettled {
				want = journal.Maybe // with another token, always
			}
			if a := o.asks("OTHER-0123456789", c.r.ID); a.Verdict != want || !a.Own {
				t.Errorf("by the id: %+v", a)
			}
			if yes, err := o.j.Adopted(t.Context()); err != nil || !yes {
				t.Error(yes, err)
			}
		})
	}
}

// Lives before the last count, and the token is theirs whose hint it is.
func TestEarlierLives(t *testing.T) {
	o := newOld(t)
	first := result(sidecar.Accepted, "FIRST-0123456789", attempt(sidecar.Answered, 200))
	second := result(sidecar.Invalid, "")
	third := result(sidecar.Rejected, "THIRD-0123456789", attempt(sidecar.Answered, 400))
	o.put(spool.Failed, "case", "THIRD-0123456789", first, second, third)
	o.adopt()
	if a := o.asks("NEW-0123456789", third.ID); a.Verdict != journal.Before || a.Other.ID != first.ID {
		t.Errorf("%+v", a)
	}
	if a := o.asks("THIRD-0123456789"); a.Verdict != journal.Before {
		t.Errorf("%+v", a)
	}
	if l := o.life(first.ID); l.Token != "" || l.Place != "" {
		t.Errorf("%+v", l)
	}
	if l := o.life(third.ID); l.Token != sum("THIRD-0123456789") {
		t.Errorf("%+v", l)
	}
}

// What lies in work is gone on with: from an attempt, or from before it.
func TestWork(t *testing.T) {
	o := newOld(t)
	pending := result(sidecar.Pending, "TOKEN-1-0123456789", attempt(sidecar.Sending, 0))
	o.put(spool.Work, "sent."+pending.ID, "TOKEN-1-0123456789", pending)
	parked := result(sidecar.Pending, "TOKEN-2-0123456789", attempt(sidecar.NotSent, 0))
	o.put(spool.Work, "parked."+parked.ID, "TOKEN-2-0123456789", parked)
	claimed := spool.NewID()
	o.put(spool.Work, "claimed."+claimed, "TOKEN-3-0123456789")
	again, before := spool.NewID(), result(sidecar.Accepted, "TOKEN-4-0123456789", attempt(sidecar.Answered, 200))
	o.put(spool.Work, "again."+again, "TOKEN-4-0123456789", before)
	ended := result(sidecar.Accepted, "TOKEN-5-0123456789", attempt(sidecar.Answered, 200))
	o.put(spool.Work, "ended."+ended.ID, "TOKEN-5-0123456789", ended)
	o.put(spool.Work, "byhand", "TOKEN-6-0123456789")
	o.adopt()
	for id, want := range map[string]journal.Life{
		pending.ID: {State: journal.Pending, Fate: journal.Unsettled, Took: true},
		parked.ID:  {State: journal.Pending, Fate: journal.Refused, Took: true},
		claimed:    {State: journal.Claimed, Fate: journal.Unsent},
		again:      {State: journal.Claimed, Fate: journal.Unsent},
		before.ID:  {State: journal.Filed, Fate: journal.Taken, Took: true},
		ended.ID:   {State: journal.Pending, Fate: journal.Taken, Took: true},
	} {
		if l := o.life(id); l.State != want.State || l.Fate != want.Fate || l.Took != want.Took {
			t.Errorf("%s: %s, %s, took %v; want %+v", l.Result.Folder, l.State, l.Fate, l.Took, want)
		}
	}
	if a := o.asks("TOKEN-1-0123456789"); a.Verdict != journal.Wait {
		t.Errorf("%+v", a)
	}
	if a := o.asks("TOKEN-4-0123456789", again); a.Verdict != journal.Before {
		t.Errorf("what was claimed again after it was accepted: %+v", a)
	}
	states, err := o.j.InWork(t.Context())
	must(t, err)
	if len(states) != 5 {
		t.Errorf("in work %v", states)
	}
}

// A result that is damaged, or larger than is read, says by its place what it
// was.
func TestDamaged(t *testing.T) {
	const token = "TOKEN-0123456789"
	for name, spoil := range map[string]func([]byte) []byte{
		"half":         func(data []byte) []byte { return data[:len(data)/2] },
		"zeros at end": func(data []byte) []byte { return append(data[:300], make([]byte, 200)...) },
		"large":        func(data []byte) []byte { return append(data, bytes.Repeat([]byte(" "), 65<<20)...) },
		"other schema": func(data []byte) []byte { return bytes.ReplaceAll(data, []byte("result/v1"), []byte("result/v9")) },
	} {
		t.Run(name, func(t *testing.T) {
			o := newOld(t)
			r := result(sidecar.Accepted, token, attempt(sidecar.Answered, 200))
			path := filepath.Join(o.put(spool.Done, "case", token, r), sidecar.Name)
			data, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, spoil(data), 0o600))
			o.adopt()
			if l := o.life(r.ID); l.Fate != journal.Taken || l.Outcome() != sidecar.Accepted || l.Place != "done" || l.Token == "" { // it lies in done
				t.Errorf("%+v", l)
			}
			if a := o.asks("OTHER-0123456789", r.ID); a.Verdict == journal.Send {
				t.Errorf("%+v", a)
			}
		})
	}
	// What has no id says nothing, and hinders nothing.
	o := newOld(t)
	for n, data := range []string{"", "{}", "null", `{"id":"short","schema":"idenfy-batch/result/v1"}`, "\x00"} {
		dir := o.put(spool.Failed, fmt.Sprint("junk", n), token)
		must(t, os.WriteFile(filepath.Join(dir, sidecar.Name), []byte(data), 0o600))
	}
	must(t, os.Mkdir(filepath.Join(o.put(spool.Failed, "dir", token), sidecar.Name), 0o700))
	must(t, os.Symlink("/dev/zero", filepath.Join(o.put(spool.Failed, "link", token), sidecar.Name)))
	must(t, syscall.Mkfifo(filepath.Join(o.put(spool.Inbox, "pipe", token), sidecar.Name), 0o600))
	must(t, os.WriteFile(filepath.Join(o.paths[spool.Inbox], "loose"), nil, 0o600))
	must(t, os.Symlink("/", filepath.Join(o.paths[spool.Inbox], "root")))
	good := result(sidecar.Accepted, "GOOD-0123456789", attempt(sidecar.Answered, 200))
	o.put(spool.Done, "good", "GOOD-0123456789", good)
	o.adopt()
	if a := o.asks(token); a.Verdict != journal.Send {
		t.Errorf("%+v", a)
	}
	if a := o.asks("GOOD-0123456789"); a.Verdict != journal.Before {
		t.Errorf("%+v", a)
	}
}

// Of many attempts the first and the last are taken over, and their number; all
// of them tell whether something is open.
func TestManyAttempts(t *testing.T) {
	o := newOld(t)
	r := result(sidecar.GaveUp, "TOKEN-0123456789")
	for n := range 5000 {
		a := attempt(sidecar.Answered, 429)
		if n == 2000 {
			a.HTTPStatus = 502
		}
		a.N = n + 1
		r.Attempts = append(r.Attempts, a)
	}
	o.put(spool.Failed, "case", "TOKEN-0123456789", r)
	o.adopt()
	l := o.life(r.ID)
	if kept := l.Result.Attempts; len(kept) != 50 || l.Result.Omitted != 4950 || kept[9].N != 10 || kept[10].N != 4961 || kept[49].N != 5000 || l.Fate != journal.Unsettled {
		t.Errorf("%d kept, %d omitted, %s", len(kept), l.Result.Omitted, l.Fate)
	}
}

// A decision that stands in a result of before lets nothing be sent: who put it
// there can't be told.
func TestPlantedDecision(t *testing.T) {
	const token = "TOKEN-0123456789"
	for _, p := range []spool.Place{spool.Done, spool.Inbox, spool.Failed} {
		o := newOld(t)
		r := result(sidecar.Accepted, token, attempt(sidecar.Answered, 200))
		r.Decisions = []sidecar.Decision{{At: sidecar.Now(), Action: sidecar.Requeued, Forced: true, Result: r.ID, Outcome: r.Outcome}}
		o.put(p, "case", token, r)
		o.adopt()
		if a := o.asks("OTHER-0123456789", r.ID); a.Verdict != journal.Before || a.Forced {
			t.Errorf("%s: %+v", p, a)
		}
		if l := o.life(r.ID); len(l.Result.Decisions) != 1 {
			t.Errorf("%s: the record of it is gone: %+v", p, l.Result.Decisions)
		}
	}
}

// A copy in the inbox, in which somebody wrote that it was rejected, doesn't
// settle what is held; a record where uploaders don't reach does.
func TestForgedCopy(t *testing.T) {
	const token = "TOKEN-0123456789"
	for p, want := range map[spool.Place]journal.Fate{spool.Inbox: journal.Unsettled, spool.Failed: journal.Refused} {
		for _, second := range []bool{false, true} { // in result.1.json
			if second && p == spool.Failed {
				continue
			}
			o := newOld(t)
			r := result(sidecar.Unknown, token, attempt(sidecar.NoAnswer, 0))
			o.put(spool.Hold, "case", token, r)
			o.adopt()
			forged := *r
			forged.Outcome, forged.Attempts = sidecar.Rejected, nil
			results := []*sidecar.Result{&forged}
			if second {
				results = append(results, result(sidecar.Invalid, ""))
			}
			o.put(p, "copy", token, results...)
			o.adopt()
			if l := o.life(r.ID); l.Fate != want {
				t.Errorf("%s: %+v", p, l)
			}
		}
	}
}

// fill makes more folders than share a commit.
func (o *old) fill(n int) (ids []string) {
	for i := range n {
		token := fmt.Sprintf("TOKEN-%d-0123456789", i)
		r := result(sidecar.Accepted, token, attempt(sidecar.Answered, 200))
		r.Decisions = []sidecar.Decision{{At: sidecar.Now(), Action: sidecar.Confirmed, Result: r.ID}}
		o.put(spool.Done, fmt.Sprintf("case%04d", i), token, r)
		ids = append(ids, r.ID)
	}
	return ids
}

// What was cut off is begun anew, and what is there already is not entered
// twice.
func TestInterruptedAndRepeated(t *testing.T) {
	o := newOld(t)
	ids := o.fill(450)
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	_, err := adopt.Spool(ctx, o.paths, o.j, true, func(done, total int) {
		if calls++; calls == 1 {
			cancel()
		}
		if done > total || total != len(ids) {
			t.Errorf("%d of %d", done, total)
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if yes, err := o.j.Adopted(t.Context()); err != nil || yes {
		t.Error("it is not complete", err)
	}
	for range 2 {
		o.adopt()
	}
	for _, id := range ids {
		if l := o.life(id); l.Fate != journal.Taken || len(l.Result.Attempts) != 1 || len(l.Result.Decisions) != 1 {
			t.Fatalf("%+v, %d attempts, %d decisions", l, len(l.Result.Attempts), len(l.Result.Decisions))
		}
	}
	if yes, err := o.j.Adopted(t.Context()); err != nil || !yes {
		t.Error(yes, err)
	}
}

// Records that know less than the journal take nothing away from it.
func TestKnowsLess(t *testing.T) {
	const token = "TOKEN-0123456789"
	o := newOld(t)
	r := result(sidecar.Accepted, token, attempt(sidecar.Answered, 200))
	dir := o.put(spool.Done, "case", token, r)
	o.adopt()
	for _, outcome := range []sidecar.Outcome{sidecar.Rejected, sidecar.Invalid, sidecar.Pending} {
		r.Outcome, r.Attempts = outcome, nil
		root, err := os.OpenRoot(dir)
		must(t, err)
		must(t, errors.Join(sidecar.Write(root, r), root.Close()))
		o.adopt()
		if l := o.life(r.ID); l.Fate != journal.Taken || l.Outcome() != sidecar.Accepted {
			t.Errorf("%s: %+v", outcome, l)
		}
	}
}

// A result that was written by a daemon with a journal tells that this is no
// spool of before.
func TestHadJournal(t *testing.T) {
	for _, p := range []spool.Place{spool.Done, spool.Failed, spool.Hold, spool.Work} {
		o := newOld(t)
		o.put(spool.Done, "before", "BEFORE-0123456789", result(sidecar.Accepted, "BEFORE-0123456789"))
		r := result(sidecar.Rejected, "TOKEN-0123456789")
		r.Request.MetaSHA256 = strings.Repeat("0", 64)
		o.put(p, "case."+r.ID, "TOKEN-0123456789", r)
		if _, err := adopt.Spool(t.Context(), o.paths, o.j, true, func(int, int) {}); !errors.Is(err, adopt.ErrHadJournal) {
			t.Errorf("%s: %v", p, err)
		}
		if yes, err := o.j.Adopted(t.Context()); err != nil || yes {
			t.Error(yes, err)
		}
		if _, err := adopt.Spool(t.Context(), o.paths, o.j, false, func(int, int) {}); err != nil { // who asks for it gets it
			t.Error(err)
		}
	}
}

// The daemon's own result says its token by the hash, and needs no meta.yaml.
func TestWithoutMeta(t *testing.T) {
	const token = "TOKEN-0123456789"
	o := newOld(t)
	r := result(sidecar.Accepted, token, attempt(sidecar.Answered, 200))
	r.Request.TokenSHA256 = sum(token)
	r.Session = &sidecar.Session{ScanRef: "328c6766-934e-11ed-bb9b-025ad99a18e7", By: "producer"}
	must(t, os.Remove(filepath.Join(o.put(spool.Done, "case", token, r), "meta.yaml")))
	o.adopt()
	if l := o.life(r.ID); l.Token != sum(token) || l.ScanRef != r.Session.ScanRef {
		t.Errorf("%+v", l)
	}
	if a := o.asks(token); a.Verdict != journal.Before {
		t.Errorf("%+v", a)
	}
}

// A session that the daemon had opened is known again, with what it took to open
// it, and whose it was.
func TestSession(t *testing.T) {
	const token = "TOKEN-0123456789"
	o := newOld(t)
	r := result(sidecar.Accepted, token, attempt(sidecar.Answered, 200))
	r.Request.TokenSHA256 = sum(token)
	r.Session = &sidecar.Session{ScanRef: "328c6766-934e-11ed-bb9b-025ad99a18e7", ClientID: "client-7", Opened: sidecar.Now(), Expires: sidecar.Now(), By: sidecar.ByDaemon}
	r.Sessions = []sidecar.Opening{
		{Attempt: sidecar.Attempt{N: 1, Started: sidecar.Now(), State: sidecar.NoAnswer}},
		{Attempt: sidecar.Attempt{N: 2, Started: sidecar.Now(), State: sidecar.Answered, HTTPStatus: 201}, ScanRef: r.Session.ScanRef},
	}
	dir := o.put(spool.Done, "case", token, r)
	must(t, os.WriteFile(filepath.Join(dir, "meta.yaml"), []byte("clientId: client-7\ncountry: LT\ndocumentType: PASSPORT\n"), 0o600))
	o.adopt()
	l := o.life(r.ID)
	if l.Token != sum(token) || l.ScanRef != r.Session.ScanRef || l.ClientID != "client-7" || l.Fate != journal.Taken {
		t.Errorf("%+v", l)
	}
	if got := l.Result.Sessions; len(got) != 2 || got[1].ScanRef != r.Session.ScanRef || got[0].State != sidecar.NoAnswer || l.Result.Session.By != sidecar.ByDaemon {
		t.Errorf("%+v", got)
	}
}

// Everything that a result tells stands in it again when the journal writes it.
func TestNothingIsLost(t *testing.T) {
	o := newOld(t)
	r := result(sidecar.Rejected, "TOKEN-0123456789", attempt(sidecar.Answered, 400))
	r.Reasons = []sidecar.Reason{{Code: "BAD", Message: "no", Source: sidecar.FromAPI}}
	r.ExtraFiles, r.Uploader, r.Daemon = []string{"x"}, sidecar.Uploader{UID: 7, GID: 8, User: "u"}, sidecar.Daemon{Version: "1", Host: "h"}
	r.Request.Images = []sidecar.Image{{Step: "FRONT", File: "f.jpg", Bytes: 5, SHA256: strings.Repeat("a", 64), Format: "jpeg"}}
	dir := o.put(spool.Failed, "case", "TOKEN-0123456789", r)
	o.adopt()
	was, err := os.ReadFile(filepath.Join(dir, sidecar.Name))
	must(t, err)
	is, err := sidecar.Encode(o.life(r.ID).Result)
	must(t, err)
	var a, b map[string]any
	must(t, errors.Join(json.Unmarshal(was, &a), json.Unmarshal(is, &b)))
	if !bytes.Equal(was, is) && fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("was %s\nis %s", was, is)
	}
	names, err := o.paths.List(spool.Failed)
	must(t, err)
	if !slices.Equal(names, []string{"case"}) {
		t.Errorf("%v", names)
	}
}

// What is in work when a journal is made anew may have been sent, whatever its
// folder tells: only a life that the backup knows as sending goes on as that.
func TestInWorkIsInDoubt(t *testing.T) {
	o := newOld(t)
	none, stale := spool.NewID(), spool.NewID()
	o.put(spool.Work, "none."+none, "NONE-0123456789")
	r := result(sidecar.Pending, "STALE-0123456789", attempt(sidecar.NotSent, 0))
	r.ID = stale
	o.put(spool.Work, "stale."+stale, "STALE-0123456789", r)
	_, err := adopt.Spool(t.Context(), o.paths, o.j, false, func(int, int) {})
	must(t, err)
	for _, id := range []string{none, stale} {
		if l := o.life(id); l == nil || l.Fate != journal.Unsettled || l.Outcome() != sidecar.Unknown || l.State != journal.Pending || l.Token == "" {
			t.Errorf("%+v", l)
		}
	}
	sending := o.life(stale)
	sending.Result.Outcome, sending.Took, sending.Result.Reasons = sidecar.Pending, true, nil
	must(t, o.j.Put(sending))
	_, err = adopt.Spool(t.Context(), o.paths, o.j, false, func(int, int) {})
	must(t, err)
	if l := o.life(stale); l.Outcome() != sidecar.Pending || !l.Took || l.Fate != journal.Unsettled {
		t.Errorf("%+v", l)
	}
}

// A folder in done or hold of which no result can be understood may have been
// taken, with the token of its meta.yaml.
func TestUnintelligible(t *testing.T) {
	o := newOld(t)
	for name, spoil := range map[string]func(path string) error{
		"none":  func(string) error { return nil },
		"empty": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"dir":   func(path string) error { return os.Mkdir(path, 0o700) },
		"cut": func(path string) error {
			return os.WriteFile(path, []byte(`{"schema": "idenfy-batch/result/v1", "id": "AAAAAAAAAAAAAAAAAAAAAAAAAA", "outc`), 0o600)
		},
	} {
		dir := o.put(spool.Done, name, "TOKEN-"+name+"-0123456789")
		must(t, spoil(filepath.Join(dir, "result.json")))
	}
	o.adopt()
	o.adopt() // once more changes nothing
	for _, name := range []string{"none", "empty", "dir", "cut"} {
		known, err := o.j.Reader().WithToken(t.Context(), sum("TOKEN-"+name+"-0123456789"))
		must(t, err)
		if len(known) != 1 || known[0].Fate != journal.Taken {
			t.Errorf("%s: %+v", name, known)
		}
		if a := o.asks("TOKEN-" + name + "-0123456789"); a.Verdict != journal.Before {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// Folders in several inboxes are taken over too. What a result that lies there
// says of its inbox is anybody's word; one that can't be read is left out.
func TestSeveralInboxes(t *testing.T) {
	o := newOld(t)
	delete(o.paths, spool.Inbox)
	want := map[string]string{}
	for _, name := range []string{"branch-1", "branch-2"} {
		p := spool.InboxNamed(name)
		o.paths[p] = filepath.Join(filepath.Dir(o.paths[spool.Work]), name)
		res := result(sidecar.Rejected, "TOKEN-0123456789-"+name, sidecar.Attempt{N: 1, State: sidecar.Answered, HTTPStatus: 400})
		res.Folder, res.Inbox = "case", "another"
		dir := filepath.Join(o.paths[p], "case")
		must(t, os.MkdirAll(dir, 0o700))
		must(t, os.WriteFile(filepath.Join(dir, meta.Name), []byte(metaText("TOKEN-0123456789-"+name)), 0o600))
		root, err := os.OpenRoot(dir)
		must(t, err)
		must(t, errors.Join(sidecar.Write(root, res), root.Close()))
		want[res.ID] = name
	}
	o.paths[spool.InboxNamed("gone")] = "/nowhere/at/all"
	if unread, err := adopt.Spool(t.Context(), o.paths, o.j, true, func(int, int) {}); err != nil || unread > 0 {
		t.Fatalf("%d, %v", unread, err)
	}
	for id, inbox := range want {
		l, err := o.j.Load(t.Context(), id)
		if must(t, err); l == nil || l.Result.Inbox != inbox || l.Place != "inbox/"+inbox || l.Name != "case" {
			t.Errorf("%s: %+v", inbox, l)
		}
	}
}
