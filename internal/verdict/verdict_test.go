package verdict

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"idenfy-batch/internal/adopt"
	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/record"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/verify"
	"idenfy-batch/sidecar"
)

const testKey = "webhook-key-one"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// office is a spool with a journal, a receiver and a clerk.
type office struct {
	t     testing.TB
	paths spool.Paths
	where journal.Where
	j     *journal.Journal
	r     *Receiver
	clerk *Clerk
	sent  int

	adopted bool // the journal was made anew from the folders

	mu   sync.Mutex
	seen []events.Event
}

func newOffice(t testing.TB) *office {
	t.Helper()
	o := &office{t: t, paths: spool.Paths{}}
	root := t.TempDir()
	for _, p := range spool.Places() {
		o.paths[p] = filepath.Join(root, string(p))
		must(t, os.Mkdir(o.paths[p], 0o700))
	}
	o.where = journal.Where{Dir: filepath.Join(root, "journal"), Mark: o.paths[spool.Work]}
	var err error
	o.j, err = journal.Create(o.where)
	must(t, err)
	t.Cleanup(func() { _ = o.j.Close() }) // it may be closed by then
	t.Cleanup(o.unaltered)
	o.begin()
	return o
}

// unaltered holds all that was written against each other.
func (o *office) unaltered() {
	o.t.Helper()
	if o.adopted { // the ledger of the new journal is begun by the daemon
		return
	}
	ctx := context.Background()                //nolint:usetesting // a test's ends before its cleanup
	r, err := journal.OpenReader(ctx, o.where) // the test may have closed its own
	must(o.t, err)
	defer r.Close()
	_, err = verify.All(ctx, verify.Options{
		Paths: o.paths, Reader: r, Told: func(int, int) {}, Found: func(f verify.Finding) { o.t.Errorf("found %+v", f) },
	})
	if err != nil {
		o.t.Error(err)
	}
}

func (o *office) begin() {
	o.clerk = NewClerk(o.j, o.paths, o.see)
	o.r = NewReceiver(o.j, o.see, o.clerk.Wake)
	o.r.Set(Settings{Path: "/idenfy", Keys: []string{"another-key", testKey}})
}

// restart is a crash, and a start.
func (o *office) restart() {
	o.t.Helper()
	must(o.t, o.j.Close())
	var err error
	o.j, err = journal.Open(o.where)
	must(o.t, err)
	o.begin()
}

func (o *office) see(e events.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, e)
}

func (o *office) came() (list []events.VerdictCame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.seen {
		if v, ok := e.(events.VerdictCame); ok {
			list = append(list, v)
		}
	}
	return list
}

// life makes a life of a folder that lies in work, with a session.
func (o *office) life(name, ref string) *journal.Life {
	o.t.Helper()
	id := spool.NewID()
	must(o.t, o.j.Claim(id, "inbox", name))
	l, err := o.j.Load(o.t.Context(), id)
	must(o.t, err)
	l.State, l.Fate, l.Took, l.ScanRef, l.Token = journal.Pending, journal.Unsettled, true, ref, hash(ref)
	l.Dir = "dir-" + name
	l.Result.Attempts = []sidecar.Attempt{{N: 1, Started: sidecar.Now(), State: sidecar.Sending}}
	must(o.t, o.j.Put(l))
	must(o.t, os.Mkdir(filepath.Join(o.paths[spool.Work], name+"."+id), 0o700))
	return l
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// end ends a life, in a place.
func (o *office) end(l *journal.Life, outcome sidecar.Outcome, p spool.Place) {
	o.t.Helper()
	name := l.Result.Folder
	work := filepath.Join(o.paths[spool.Work], name+"."+l.ID)
	l.State, l.Place, l.Name = journal.Ended, string(p), name
	l.Result.Outcome, l.Result.Times.Finished = outcome, sidecar.Now()
	if outcome == sidecar.Accepted {
		l.Fate = journal.Taken
	}
	dir, err := os.OpenRoot(work)
	must(o.t, err)
	defer dir.Close()
	must(o.t, record.Write(dir, l))
	must(o.t, o.j.End(l))
	must(o.t, os.Rename(work, filepath.Join(o.paths[p], name)))
	o.j.Filed(l.ID, string(p), name)
	must(o.t, o.j.Unclaim("x")) // a commit after it
}

// send posts a body with a signature and returns the status.
func (o *office) send(body []byte, signature string) int {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "/idenfy", bytes.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Idenfy-Signature", signature)
	w := &answer{header: http.Header{}}
	o.r.ServeHTTP(w, req)
	return w.status
}

type answer struct {
	header http.Header
	status int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(p []byte) (int, error) { return len(p), nil }
func (a *answer) WriteHeader(status int)      { a.status = status }

func (o *office) says(ref, overall string, final bool) []byte {
	o.t.Helper()
	o.sent++ // no two are the same
	body := append(sandbox.HookBody(ref, overall, final), strings.Repeat("\n", o.sent)...)
	if status := o.send(body, sandbox.Sign(body, testKey)); status != http.StatusOK {
		o.t.Fatalf("%s: %d", overall, status)
	}
	return body
}

// look has the clerk do what there is to do.
func (o *office) look() {
	o.t.Helper()
	for range 3 {
		o.clerk.round(o.t.Context())
	}
}

func (o *office) verdict(p spool.Place, name string) *sidecar.Verdict {
	o.t.Helper()
	dir, err := os.OpenRoot(filepath.Join(o.paths[p], name))
	must(o.t, err)
	defer dir.Close()
	v, _, err := sidecar.ReadVerdict(dir)
	must(o.t, err)
	return v
}

func (o *office) exists(parts ...string) bool {
	_, err := os.Stat(filepath.Join(append([]string{filepath.Dir(o.paths[spool.Work])}, parts...)...))
	return err == nil
}

func (o *office) ledger(kind ledger.Kind) (list []ledger.Entry) {
	o.t.Helper()
	rows, err := o.j.Reader().Entries(o.t.Context(), journal.Entries{Most: journal.MostEntries})
	must(o.t, err)
	for _, row := range rows {
		e, err := ledger.Parse([]byte(row.Line))
		must(o.t, err)
		if e.Kind == kind {
			list = append(list, e)
		}
	}
	return list
}

func saidWords(v *sidecar.Verdict) (list []string) {
	for i := range v.Events {
		list = append(list, fmt.Sprintf("%s %v", v.Events[i].Overall, v.Events[i].Final))
	}
	return list
}

const ref = "328c6766-934e-11ed-bb9b-025ad99a18e7"

// What is not signed, or not posted where it belongs, leaves nothing; what is
// signed by one of the keys is on the disk before it is answered.
func TestReceive(t *testing.T) {
	o := newOffice(t)
	body := sandbox.HookBody(ref, "APPROVED", true)
	good := sandbox.Sign(body, testKey)
	for name, status := range map[string]int{"": 401, "x": 401, strings.Repeat("00", 32): 401, sandbox.Sign(body, "no-key-of-ours"): 401} {
		if got := o.send(body, name); got != status {
			t.Errorf("signature %.10q: %d", name, got)
		}
	}
	if got := o.send(append(slices.Clone(body), ' '), good); got != 401 {
		t.Errorf("an altered body: %d", got)
	}
	large := bytes.Repeat([]byte("x"), maxBody+1)
	if got := o.send(large, sandbox.Sign(large, testKey)); got != 413 {
		t.Errorf("a large body: %d", got)
	}
	for _, c := range []struct {
		method, path string
		status       int
	}{{"GET", "/idenfy", 405}, {"POST", "/", 404}, {"POST", "/idenfy/x", 404}} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, c.path, bytes.NewReader(body))
		must(t, err)
		req.Header.Set("Idenfy-Signature", good)
		w := &answer{header: http.Header{}}
		if o.r.ServeHTTP(w, req); w.status != c.status {
			t.Errorf("%s %s: %d", c.method, c.path, w.status)
		}
	}
	if v, err := o.j.Reader().Verdicts(t.Context()); err != nil || v.Strays != 0 {
		t.Errorf("something was left: %+v, %v", v, err)
	}
	for range 2 { // the same twice is one
		if got := o.send(body, good); got != 200 {
			t.Errorf("%d", got)
		}
	}
	if got := o.send(body, strings.ToUpper(good)); got != 200 {
		t.Errorf("%d", got)
	}
	full := bytes.Repeat([]byte(" "), maxBody-len(body))
	full = append(full, sandbox.HookBody(ref, "DENIED", true)[:len(body)-2]...) // no JSON
	if got := o.send(full, sandbox.Sign(full, testKey)); got != 200 {
		t.Errorf("the largest body, which can't be read: %d", got)
	}
	if v, err := o.j.Reader().Verdicts(t.Context()); err != nil || v.Strays != 2 {
		t.Errorf("%+v, %v", v, err)
	}
	o.restart()
	if v, err := o.j.Reader().Verdicts(t.Context()); err != nil || v.Strays != 2 {
		t.Errorf("after a restart: %+v, %v", v, err)
	}
	if n, err := o.j.Forget(time.Now().Add(strayAge - time.Hour)); err != nil || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := o.j.Forget(time.Now().Add(strayAge + time.Hour)); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
}

const strayAge = 7 * 24 * time.Hour

// An event comes before its folder, while it is in work, in done, and in any
// order; a final one is not replaced by a later one that isn't, and one that
// contradicts is kept and told.
func TestJoin(t *testing.T) {
	o := newOffice(t)
	l := o.life("case-7", ref)
	o.says(ref, "REVIEWING", false)
	o.look()
	if o.exists("done", "case-7") || !o.exists("work", "case-7."+l.ID) || len(o.came()) != 1 {
		t.Errorf("in work: %v", o.came())
	}
	o.end(l, sidecar.Accepted, spool.Done)
	o.look()
	v := o.verdict(spool.Done, "case-7")
	if v.Overall != "REVIEWING" || v.Final || v.ID != l.ID || v.ScanRef != ref || v.AutoDocument != "DOC_VALIDATED" {
		t.Errorf("%+v", v)
	}
	same := o.says(ref, "APPROVED", true)
	o.look()
	if status := o.send(same, sandbox.Sign(same, testKey)); status != 200 {
		t.Error(status)
	}
	o.says(ref, "REVIEWING", false)
	o.look()
	v = o.verdict(spool.Done, "case-7")
	if got := saidWords(v); v.Overall != "APPROVED" || !v.Final || v.Contradicted || len(got) != 3 {
		t.Errorf("%+v", v)
	}
	o.restart()
	o.says(ref, "DENIED", true)
	o.look()
	v = o.verdict(spool.Done, "case-7")
	if v.Overall != "DENIED" || !v.Contradicted || len(v.Events) != 4 {
		t.Errorf("%+v", v)
	}
	var clashes []string
	for _, e := range o.came() {
		if e.First != (e.Overall == "APPROVED") {
			t.Errorf("the first final one: %+v", e)
		}
		if e.Clash != "" {
			clashes = append(clashes, e.Clash+" "+e.Overall)
		}
	}
	if !slices.Equal(clashes, []string{"APPROVED DENIED"}) || len(o.came()) != 4 {
		t.Errorf("%v of %v", clashes, o.came())
	}
	entered := o.ledger(ledger.Verdict)
	if len(entered) != 2 || entered[0].Verdict != "APPROVED" || entered[0].ID != l.ID || entered[0].SHA256 != hash(string(same)) {
		t.Errorf("%+v", entered)
	}
	data, err := os.ReadFile(filepath.Join(o.paths[spool.Done], "case-7", sidecar.VerdictName))
	must(t, err)
	for _, personal := range []string{"JANE-SAMPLE", "SAMPLE-0042", "192.0.2.7", "sample-client"} {
		if bytes.Contains(data, []byte(personal)) {
			t.Errorf("%s is in verdict.json", personal)
		}
	}
	n, err := o.j.Reader().Verdicts(t.Context())
	if err != nil || n.Waiting != 0 || n.Contradicted != 1 || n.Final["DENIED"] != 1 {
		t.Errorf("%+v, %v", n, err)
	}
	o.end(o.life("case-8", "waits-0123456789"), sidecar.Accepted, spool.Done)
	for word, want := range map[string]string{"DENIED": "case-7", "Denied": "case-7", "Contradicted": "case-7", "contradicted": "case-7", "WAITING": "case-8", "waiting": "case-8"} {
		list, err := o.j.Reader().List(t.Context(), journal.Query{Verdict: word, Most: 9})
		if err != nil || len(list) != 1 || list[0].Folder != want {
			t.Errorf("list of %s: %+v, %v", word, list, err)
		}
	}
}

// What a folder is called, as a rule for a person, is not told with an error of
// the disk.
func TestFailureIsNameless(t *testing.T) {
	o := newOffice(t)
	o.end(o.life("jane.doe", ref), sidecar.Unknown, spool.Hold)
	o.says(ref, "APPROVED", true)
	for n := 1; ; n++ {
		steps := 0
		durable.Inject(func(op durable.Op, _ string, do func() error) error {
			if op == durable.OpBegin || op == durable.OpCommit {
				return do()
			}
			if steps++; steps == n {
				return syscall.EIO
			}
			return do()
		})
		o.clerk.next = map[string]time.Time{}
		o.clerk.round(t.Context())
		durable.Inject(nil)
		if steps < n {
			break
		}
	}
	troubles := 0
	for _, e := range o.seen {
		if tr, is := e.(events.Trouble); is {
			if troubles++; strings.Contains(fmt.Sprint(tr), "jane") || !errors.Is(tr.Err, syscall.EIO) {
				t.Errorf("%v", tr)
			}
		}
	}
	if troubles == 0 {
		t.Error("nothing failed")
	}
}

// Events that came before anything was known of their folder are joined when it
// is filed.
func TestStrayJoins(t *testing.T) {
	o := newOffice(t)
	o.says(ref, "DENIED", true)
	o.restart()
	l := o.life("case-7", ref)
	o.end(l, sidecar.Accepted, spool.Done)
	o.look()
	if v := o.verdict(spool.Done, "case-7"); v.Overall != "DENIED" || len(o.came()) != 1 || len(o.ledger(ledger.Verdict)) != 1 {
		t.Errorf("%+v, %v", v, o.came())
	}
}

// A held folder whose session iDenfy took ends as accepted by itself, whatever
// instant a crash comes at; one whose session expired stays.
func TestHoldEmpties(t *testing.T) {
	o := newOffice(t)
	l := o.life("case-7", ref)
	o.end(l, sidecar.Unknown, spool.Hold)
	other := o.life("case-8", "expired-0123456789")
	o.end(other, sidecar.Unknown, spool.Hold)
	o.says("expired-0123456789", "EXPIRED", true)
	o.says(ref, "REVIEWING", false)
	o.look()
	if !o.exists("done", "case-7", "verdict.json") || o.exists("hold", "case-7") || !o.exists("hold", "case-8", "verdict.json") {
		t.Fatal("not moved")
	}
	is, err := o.j.Load(t.Context(), l.ID)
	must(t, err)
	if is.Outcome() != sidecar.Accepted || is.Fate != journal.Taken || is.Place != "done" || is.State != journal.Filed {
		t.Errorf("%+v", is)
	}
	ended := o.ledger(ledger.Ended)
	if last := ended[len(ended)-1]; last.ID != l.ID || last.Outcome != sidecar.Accepted || last.Place != "done" || len(ended) != 3 {
		t.Errorf("%+v", ended)
	}
	if n, err := o.j.Reader().Verdicts(t.Context()); err != nil || n.Waiting != 1 {
		t.Errorf("it waits for its final verdict: %+v, %v", n, err)
	}
}

// What is said of a session goes to the folder whose it is for certain: the one
// for which the daemon opened it. Others that name it get nothing by it.
func TestSessionOfTheDaemon(t *testing.T) {
	o := newOffice(t)
	its := o.life("case-7", ref)
	its.ClientID, its.Result.Session = "client-7", &sidecar.Session{ScanRef: ref, By: sidecar.ByDaemon}
	its.Result.Sessions = []sidecar.Opening{{Attempt: sidecar.Attempt{N: 1, State: sidecar.Answered}, ScanRef: ref}}
	must(t, o.j.Put(its))
	for name, outcome := range map[string]sidecar.Outcome{"case-8": sidecar.Accepted, "case-9": sidecar.Unknown} {
		l := o.life(name, "stale-0123456789")
		l.ScanRef, l.Token = ref, hash(name)
		l.Result.Session = &sidecar.Session{ScanRef: ref, By: sidecar.ByProducer}
		must(t, o.j.Put(l))
		o.end(l, outcome, map[sidecar.Outcome]spool.Place{sidecar.Accepted: spool.Done, sidecar.Unknown: spool.Hold}[outcome])
	}
	o.says(ref, "APPROVED", true)
	o.look()
	o.end(its, sidecar.Accepted, spool.Done)
	o.look()
	o.says(ref, "REVIEWING", false)
	o.look()
	if v := o.verdict(spool.Done, "case-7"); v == nil || v.ID != its.ID || len(v.Events) != 2 {
		t.Errorf("%+v", v)
	}
	if o.exists("done", "case-8", "verdict.json") || !o.exists("hold", "case-9") || o.exists("hold", "case-9", "verdict.json") {
		t.Error("it went to a folder that only names the session")
	}
	if entered := o.ledger(ledger.Verdict); len(entered) != 1 || entered[0].ID != its.ID {
		t.Errorf("%+v", entered)
	}
	if got := o.shown(ref); !slices.Equal(got, []string{"case-7 APPROVED APPROVED", "case-8  ", "case-9  "}) {
		t.Errorf("%q", got)
	}
}

// Where folders with different tokens name a session, and the daemon opened it
// for none, it is nobody's: it is told once, and nobody waits for it, or asks.
func TestSessionOfNobody(t *testing.T) {
	o := newOffice(t)
	first := o.life("case-7", ref)
	first.Result.Session = &sidecar.Session{ScanRef: ref, By: sidecar.ByProducer}
	o.end(first, sidecar.Accepted, spool.Done)
	o.says(ref, "REVIEWING", false) // as long as nobody else names it
	o.look()
	held := o.life("case-8", "stale-0123456789")
	held.ScanRef, held.Result.Session = ref, first.Result.Session
	must(t, o.j.Put(held))
	o.end(held, sidecar.Unknown, spool.Hold)
	for range 2 {
		o.says(ref, "APPROVED", true)
		o.look()
	}
	if v := o.verdict(spool.Done, "case-7"); len(v.Events) != 1 || v.Overall != "REVIEWING" {
		t.Errorf("%+v", v)
	}
	if !o.exists("hold", "case-8") || len(o.ledger(ledger.Verdict)) != 0 {
		t.Error("it went to one of them")
	}
	if got := o.shown(ref); !slices.Equal(got, []string{"case-7 REVIEWING REVIEWING", "case-8  "}) {
		t.Errorf("%q", got)
	}
	n, err := o.j.Reader().Verdicts(t.Context())
	if err != nil || n.Waiting != 0 || n.Strays != 2 {
		t.Errorf("%+v, %v", n, err)
	}
	due, err := o.j.ToAsk(t.Context(), time.Now().Add(time.Hour), time.Now().Add(time.Hour), 9)
	if err != nil || slices.ContainsFunc(due, func(d journal.Due) bool { return d.ScanRef == ref }) {
		t.Errorf("%v, %v", due, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var told []events.Event
	for _, e := range o.seen {
		if d, ok := e.(events.Disputed); ok {
			told = append(told, d)
		}
	}
	if fmt.Sprint(told) != "[{"+ref+" [done/case-7 hold/case-8]}]" {
		t.Errorf("%v", told)
	}
}

// shown returns the folders that name a session, with the verdicts that list and
// show give them.
func (o *office) shown(ref string) (all []string) {
	o.t.Helper()
	list, err := o.j.Reader().List(o.t.Context(), journal.Query{Most: 9})
	must(o.t, err)
	stories, err := o.j.Reader().Show(o.t.Context(), journal.Search{Key: ref, Most: 9})
	must(o.t, err)
	for _, s := range stories.Stories {
		l := s.Lives[0]
		at := slices.IndexFunc(list, func(f journal.Folder) bool { return f.ID == l.Result.ID })
		word := ""
		if l.Verdict != nil {
			word = l.Verdict.Overall
		}
		all = append(all, l.Result.Folder+" "+list[at].Verdict+" "+word)
	}
	slices.Sort(all)
	return all
}

// A folder that is held because of an earlier life, which may have been taken,
// is accepted as well, and that life is settled; a person's rejection ends the
// questions.
func TestHoldOfAnEarlierLife(t *testing.T) {
	o := newOffice(t)
	first := o.life("case-7", ref)
	o.end(first, sidecar.GaveUp, spool.Failed)
	must(t, os.Rename(filepath.Join(o.paths[spool.Failed], "case-7"), filepath.Join(o.paths[spool.Inbox], "case-7")))
	again := o.life("case-7", ref)
	work := filepath.Join(o.paths[spool.Work], "case-7."+again.ID)
	must(t, os.Remove(work))
	must(t, os.Rename(filepath.Join(o.paths[spool.Inbox], "case-7"), work))
	again.Fate = journal.Unsent
	o.end(again, sidecar.Unknown, spool.Hold)
	other := o.life("case-8", "rejected-0123456789")
	o.end(other, sidecar.Unknown, spool.Hold)
	l, err := o.j.Load(t.Context(), other.ID)
	must(t, err)
	l.Fate, l.Result.Outcome = journal.Refused, sidecar.Rejected
	must(t, o.j.Decide(l, journal.Unsettled, sidecar.Decision{At: sidecar.Now(), Action: sidecar.Denied, Result: l.ID}, journal.Refused, nil))
	due, err := o.j.ToAsk(t.Context(), time.Now().Add(time.Hour), time.Now().Add(time.Hour), 9)
	if err != nil || len(due) != 1 || due[0].ScanRef != ref {
		t.Errorf("%v, %v", due, err)
	}
	o.says(ref, "APPROVED", true)
	o.look()
	if !o.exists("done", "case-7", "verdict.json") || o.exists("hold", "case-7") {
		t.Error("not moved")
	}
	if l, err := o.j.Load(t.Context(), first.ID); err != nil || l.Fate != journal.Taken {
		t.Errorf("%v, %v", l, err)
	}
}

// A person said that it was not taken, and iDenfy says later that it was: that is
// told aloud, and remembered, so that it isn't sent again by mistake.
func TestTakenAfterAll(t *testing.T) {
	o := newOffice(t)
	l := o.life("case-8", ref)
	o.end(l, sidecar.Unknown, spool.Hold)
	l, err := o.j.Load(t.Context(), l.ID)
	must(t, err)
	l.Fate, l.Result.Outcome = journal.Refused, sidecar.Rejected
	must(t, o.j.Decide(l, journal.Unsettled, sidecar.Decision{At: sidecar.Now(), Action: sidecar.Denied, Result: l.ID}, journal.Refused, nil))
	o.says(ref, "APPROVED", true)
	o.look()
	if l, err := o.j.Load(t.Context(), l.ID); err != nil || l.Fate != journal.Taken {
		t.Errorf("%+v, %v", l, err)
	}
	if came := o.came(); len(came) != 1 || came[0].Clash != "rejected" {
		t.Errorf("%+v", came)
	}
}

// Every step of the disk fails once, not done and done all the same, with a
// crash after it: the folder is in one place, with the verdict, in the end.
func TestHoldEmptiesOverCrashes(t *testing.T) {
	for n := 1; ; n++ {
		for _, done := range []bool{false, true} {
			o := newOffice(t)
			l := o.life("case-7", ref)
			o.end(l, sidecar.Unknown, spool.Hold)
			o.says(ref, "APPROVED", true)
			steps := 0
			durable.Inject(func(_ durable.Op, _ string, do func() error) error {
				if steps++; steps < n {
					return do()
				}
				if steps == n && done {
					_ = do()
				}
				return syscall.EIO // and all that comes after it: the process ends there
			})
			o.clerk.round(t.Context())
			durable.Inject(nil)
			o.restart()
			o.look()
			if !o.exists("done", "case-7", "verdict.json") || o.exists("hold", "case-7") {
				t.Fatalf("step %d, done %v: not moved", n, done)
			}
			v := o.verdict(spool.Done, "case-7")
			ended := o.ledger(ledger.Ended)
			if v.Overall != "APPROVED" || len(v.Events) != 1 || len(ended) != 2 || len(o.ledger(ledger.Verdict)) != 1 {
				t.Fatalf("step %d, done %v: %+v, %v", n, done, v, ended)
			}
			must(t, o.j.Close())
			if steps < n {
				t.Logf("%d steps", n-1)
				return
			}
		}
	}
}

// A journal that was made anew knows the verdicts that lie in the folders: it
// doesn't tell them again, doesn't ask, and loses none when another comes.
func TestAdopted(t *testing.T) {
	o := newOffice(t)
	l := o.life("case-7", ref)
	l.Result.Session, l.Result.Request.TokenSHA256 = &sidecar.Session{ScanRef: ref, By: "producer"}, l.Token
	o.end(l, sidecar.Accepted, spool.Done)
	o.says(ref, "APPROVED", true)
	o.look()
	was := o.verdict(spool.Done, "case-7")
	must(t, o.j.Close())
	_, err := journal.Replace(o.where, "")
	must(t, err)
	o.j, err = journal.Open(o.where)
	must(t, err)
	o.begin()
	o.seen, o.adopted = nil, true
	unread, err := adopt.Spool(t.Context(), o.paths, o.j, false, func(int, int) {})
	if err != nil || unread != 0 {
		t.Fatal(unread, err)
	}
	o.look()
	if len(o.came()) != 0 {
		t.Errorf("told again: %v", o.came())
	}
	if due, err := o.j.ToAsk(t.Context(), time.Now().Add(time.Hour), time.Now().Add(time.Hour), 9); err != nil || len(due) != 0 {
		t.Errorf("%v, %v", due, err)
	}
	o.says(ref, "DENIED", true)
	o.look()
	v := o.verdict(spool.Done, "case-7")
	if len(v.Events) != 2 || v.Events[0].SHA256 != was.Events[0].SHA256 || !v.Contradicted || o.exists("done", "case-7", "verdict.1.json") {
		t.Errorf("%+v", v)
	}
}

// What lies under the name verdict.json and is another's is kept; a folder that
// came again, as another life, has the verdict too, and a copy hasn't.
func TestWhereItIsWritten(t *testing.T) {
	o := newOffice(t)
	l := o.life("case-7", ref)
	o.end(l, sidecar.Accepted, spool.Done)
	must(t, os.WriteFile(filepath.Join(o.paths[spool.Done], "case-7", "verdict.json"), []byte(`{"overall":"APPROVED"}`), 0o600))
	copied := o.life("case-9", ref) // names the same session
	copied.Fate = journal.Unsent
	copied.Dir = "dir-9"
	o.end(copied, sidecar.Invalid, spool.Failed)
	o.says(ref, "DENIED", true)
	o.look()
	if v := o.verdict(spool.Done, "case-7"); v.Overall != "DENIED" || !o.exists("done", "case-7", "verdict.1.json") || o.exists("failed", "case-9", "verdict.json") {
		t.Errorf("%+v", v)
	}
	// By hand to the inbox, and again to done.
	must(t, os.Rename(filepath.Join(o.paths[spool.Done], "case-7"), filepath.Join(o.paths[spool.Inbox], "case-7")))
	o.says(ref, "APPROVED", true)
	o.look()
	again := o.life("case-7", ref)
	must(t, os.Remove(filepath.Join(o.paths[spool.Work], "case-7."+again.ID)))
	must(t, os.Rename(filepath.Join(o.paths[spool.Inbox], "case-7"), filepath.Join(o.paths[spool.Work], "case-7."+again.ID)))
	again.Fate = journal.Unsent
	again.Result.Outcome = sidecar.Accepted
	o.end(again, sidecar.Accepted, spool.Done)
	o.look()
	if v := o.verdict(spool.Done, "case-7"); v.Overall != "APPROVED" || len(v.Events) != 2 {
		t.Errorf("%+v", v)
	}
}

// Without verdict.keep full nothing of a person is kept of what can be read, also
// where it can't be told which session it is of. What can't be read is kept.
func TestKeepDecision(t *testing.T) {
	o := newOffice(t)
	const person = "JOHANNAMUSTERFRAU"
	for _, body := range []string{
		`{"scanRef":"` + ref + `","data":{"docFirstName":"` + person + `"}}`,
		`{"scanRef":null,"status":{"overall":"DENIED"},"data":{"docFirstName":"` + person + `"}}`,
		`{"scanRef":"` + strings.Repeat("a", 41) + `","data":{"docFirstName":"` + person + `"}}`,
		`{"data":{"docFirstName":"` + person + `"}}`,
	} {
		if status := o.send([]byte(body), sandbox.Sign([]byte(body), testKey)); status != 200 {
			t.Errorf("%s: %d", body, status)
		}
	}
	if v, err := o.j.Reader().Verdicts(t.Context()); err != nil || v.Strays != 4 {
		t.Errorf("%+v, %v", v, err)
	}
	has := func(what string) (is bool) {
		for _, end := range []string{"", "-wal"} {
			data, err := os.ReadFile(filepath.Join(o.where.Dir, journal.Name+end))
			must(t, err)
			is = is || bytes.Contains(data, []byte(what))
		}
		return is
	}
	if has(person) {
		t.Error("the person is in the journal")
	}
	for _, body := range []string{`["OF-NO-FORM"]`, `OF-NO-FORM {`} {
		body := []byte(body)
		if status := o.send(body, sandbox.Sign(body, testKey)); status != 200 || !has(string(body)) {
			t.Errorf("%s: %d", body, status)
		}
	}
}

// A folder that somebody gave another name, or place, is found by its directory;
// that is looked for once for all that are away, and not with each event.
func TestRenamed(t *testing.T) {
	o := newOffice(t)
	refs := []string{ref, "moved-0123456789", "taken-0123456789"}
	for i, ref := range refs {
		l := o.life(fmt.Sprint("case-", i), ref)
		dir, err := os.OpenRoot(filepath.Join(o.paths[spool.Work], l.Result.Folder+"."+l.ID))
		must(t, err)
		l.Dir, err = drop.Identity(dir)
		must(t, errors.Join(err, dir.Close()))
		if l.Dir == "" {
			t.Skip("this file system keeps no time of birth")
		}
		must(t, o.j.Put(l))
		o.end(l, sidecar.Accepted, spool.Done)
	}
	must(t, os.Mkdir(filepath.Join(o.paths[spool.Done], "case-10"), 0o700)) // somebody's
	done := func(name string) string { return filepath.Join(o.paths[spool.Done], name) }
	must(t, os.Rename(done("case-0"), done("Jansen & Söhne")))
	must(t, os.Rename(done("case-1"), filepath.Join(o.paths[spool.Failed], "for the boss")))
	must(t, os.Rename(done("case-2"), filepath.Join(t.TempDir(), "case-2")))
	for _, ref := range refs {
		o.says(ref, "REVIEWING", false)
	}
	o.look()
	if !o.exists("done", "Jansen & Söhne", "verdict.json") || !o.exists("failed", "for the boss", "verdict.json") {
		t.Error("not found")
	}
	if left, err := o.j.Unwritten(t.Context(), "", 9); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	o.says(ref, "APPROVED", true)
	if later := o.clerk.round(t.Context()); !later || len(o.verdict(spool.Done, "Jansen & Söhne").Events) != 1 {
		t.Error("looked for at once")
	}
	o.clerk.searched = time.Time{}
	o.look()
	if v := o.verdict(spool.Done, "Jansen & Söhne"); v.Overall != "APPROVED" {
		t.Errorf("%+v", v)
	}
	must(t, os.Remove(done("case-10")))
	must(t, os.Rename(done("Jansen & Söhne"), done("case-0")))
	must(t, os.Rename(filepath.Join(o.paths[spool.Failed], "for the boss"), done("case-1")))
	o.adopted = true // one was taken away
}

// verdict.keep full puts all that was sent beside it, and takes it out of the
// journal then.
func TestKeepFull(t *testing.T) {
	o := newOffice(t)
	o.r.Set(Settings{Path: "/idenfy", Keys: []string{testKey}, Full: true})
	l := o.life("case-7", ref)
	o.end(l, sidecar.Accepted, spool.Done)
	body := o.says(ref, "APPROVED", true)
	o.look()
	v := o.verdict(spool.Done, "case-7")
	path := filepath.Join(o.paths[spool.Done], "case-7", v.Events[0].Body)
	got, err := os.ReadFile(path)
	must(t, err)
	info, err := os.Stat(path)
	must(t, err)
	if !bytes.Equal(got, body) || info.Mode() != 0o640 {
		t.Errorf("%s, %v", got, info.Mode())
	}
	h, err := o.j.Heard(t.Context(), ref)
	if err != nil || len(h.Bodies) != 0 {
		t.Errorf("%v, %v", h, err)
	}
}

// With verdict.keep full all that was sent lies in the folder, also of more events
// than verdict.json lists, and more than are brought there at once.
func TestKeepFullOfMany(t *testing.T) {
	o := newOffice(t)
	o.end(o.life("case-7", ref), sidecar.Accepted, spool.Done)
	var bodies [][]byte
	var wait sync.WaitGroup
	for n := range journal.MostEvents + 20 {
		body := fmt.Appendf(nil, `{"scanRef":%q,"n":%d,"status":{"overall":"REVIEWING"},"pad":"%s"}`, ref, n, strings.Repeat("x", 40_000))
		bodies = append(bodies, body)
		wait.Go(func() {
			e := parse(body, "", true, time.Now())
			_, err := o.j.Hear(e)
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	o.look()
	for n, body := range bodies {
		got, err := os.ReadFile(filepath.Join(o.paths[spool.Done], "case-7", sidecar.BodyName(hash(string(body)))))
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("event %d: %v", n, err)
		}
	}
	if h, err := o.j.Heard(t.Context(), ref); err != nil || len(h.Bodies) != 0 || h.Verdict.Omitted != 20 {
		t.Errorf("%v, %v", h, err)
	}
	if left, err := o.j.Unwritten(t.Context(), "", 9); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// back has a folder that was filed come again, from the inbox, as another life.
func (o *office) back(name, ref string) {
	o.t.Helper()
	l := o.life(name, ref)
	work := filepath.Join(o.paths[spool.Work], name+"."+l.ID)
	must(o.t, os.Remove(work))
	must(o.t, os.Rename(filepath.Join(o.paths[spool.Inbox], name), work))
	o.end(l, sidecar.Accepted, spool.Done)
}

// A body that comes while the folder is in the inbox is kept until it is in the
// folder.
func TestKeepFullForALaterFolder(t *testing.T) {
	o := newOffice(t)
	o.r.Set(Settings{Path: "/idenfy", Keys: []string{testKey}, Full: true})
	o.end(o.life("case-7", ref), sidecar.Accepted, spool.Done)
	must(t, os.Rename(filepath.Join(o.paths[spool.Done], "case-7"), filepath.Join(o.paths[spool.Inbox], "case-7")))
	o.says(ref, "APPROVED", true)
	o.look()
	if left, err := o.j.Unwritten(t.Context(), "", 9); err != nil || len(left) > 0 {
		t.Errorf("still looked for: %v, %v", left, err)
	}
	o.back("case-7", ref)
	o.look()
	v := o.verdict(spool.Done, "case-7")
	if !o.exists("done", "case-7", v.Events[0].Body) {
		t.Errorf("verdict.json names %q, which is not there", v.Events[0].Body)
	}
	if h, err := o.j.Heard(t.Context(), ref); err != nil || len(h.Bodies) != 0 {
		t.Errorf("%v, %v", h, err)
	}
}

// A folder that comes to its place after it was looked for in vain, and before
// that is noted, gets its verdict.json.
func TestFiledBeforeWritten(t *testing.T) {
	o := newOffice(t)
	o.r.Set(Settings{Path: "/idenfy", Keys: []string{testKey}, Full: true})
	o.end(o.life("case-7", ref), sidecar.Accepted, spool.Done)
	must(t, os.Rename(filepath.Join(o.paths[spool.Done], "case-7"), filepath.Join(o.paths[spool.Inbox], "case-7")))
	o.says(ref, "APPROVED", true)
	h, err := o.j.Heard(t.Context(), ref)
	must(t, err)
	o.back("case-7", ref)
	for _, inFolder := range []bool{false, true} {
		_, err := o.j.Written(h, inFolder)
		must(t, err)
	}
	o.look()
	v := o.verdict(spool.Done, "case-7")
	if !o.exists("done", "case-7", v.Events[0].Body) {
		t.Errorf("verdict.json names %q, which is not there", v.Events[0].Body)
	}
}

// What was taken out of the journal is not in its files any more, nor what was
// dropped.
func TestNothingLeft(t *testing.T) {
	o := newOffice(t)
	o.r.Set(Settings{Path: "/idenfy", Keys: []string{testKey}, Full: true})
	o.end(o.life("case-7", ref), sidecar.Accepted, spool.Done)
	const person = "JOHANNAMUSTERFRAU"
	for _, ref := range []string{ref, "stray-0123456789"} { // on pages of its own, and within one
		for _, n := range []int{9000, 9} {
			pad := fmt.Appendf(nil, `{"secret":"%s","pad":"%s",`, person, strings.Repeat("x", n))
			body := bytes.Replace(sandbox.HookBody(ref, "APPROVED", true), []byte("{"), pad, 1)
			if s := o.send(body, sandbox.Sign(body, testKey)); s != http.StatusOK {
				t.Fatal(s)
			}
		}
	}
	o.look()
	if n, err := o.j.Forget(time.Now().Add(8 * 24 * time.Hour)); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	must(t, o.j.Close())
	for _, end := range []string{"", "-wal"} {
		data, err := os.ReadFile(filepath.Join(o.where.Dir, journal.Name+end))
		must(t, err)
		if bytes.Contains(data, []byte(person)) {
			t.Errorf("%s%s still has the person", journal.Name, end)
		}
	}
}

// A stop, or a journal that can't be written, is no fault of a folder: the
// journal is said once, and the folders are written into as soon as may be.
func TestNotTheFolders(t *testing.T) {
	o := newOffice(t)
	const folders = 9
	for i := range folders {
		ref := fmt.Sprintf("session-%d-0123456789", i)
		o.end(o.life(fmt.Sprint("case-", i), ref), sidecar.Accepted, spool.Done)
		o.says(ref, "APPROVED", true)
	}
	troubles := func() (n int) {
		for _, e := range o.seen {
			if _, is := e.(events.Trouble); is {
				n++
			}
		}
		return n
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	o.clerk.emit = func(e events.Event) {
		o.see(e)
		stop() // amid the first
	}
	o.clerk.round(ctx)
	o.clerk.emit = o.see
	if n := troubles(); n > 0 {
		t.Errorf("%d troubles of a stop", n)
	}
	durable.Inject(func(op durable.Op, _ string, do func() error) error {
		if op == durable.OpCommit {
			return syscall.EIO
		}
		return do()
	})
	o.clerk.round(t.Context())
	durable.Inject(nil)
	if n := troubles(); n != 1 {
		t.Errorf("%d troubles of a journal that can't be written", n)
	}
	o.look()
	for i := range folders {
		if !o.exists("done", fmt.Sprint("case-", i), sidecar.VerdictName) {
			t.Errorf("case-%d has to wait for its verdict", i)
		}
	}
}

// A commit that fails is no 200; the same sent again is one event.
func TestNotRecorded(t *testing.T) {
	o := newOffice(t)
	body := sandbox.HookBody(ref, "APPROVED", true)
	for _, done := range []bool{false, true} {
		durable.Inject(func(op durable.Op, _ string, do func() error) error {
			if op != durable.OpCommit {
				return do()
			}
			if done {
				_ = do()
			}
			return syscall.EIO
		})
		status := o.send(body, sandbox.Sign(body, testKey))
		durable.Inject(nil)
		if want := map[bool]int{false: 503, true: 200}[done]; status != want { // it is looked up whether it was made
			t.Errorf("done %v: %d", done, status)
		}
	}
	if status := o.send(body, sandbox.Sign(body, testKey)); status != 200 {
		t.Error(status)
	}
	if v, err := o.j.Reader().Verdicts(t.Context()); err != nil || v.Strays != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	must(t, o.j.Close())
	if status := o.send(append(body, '\n'), sandbox.Sign(append(body, '\n'), testKey)); status != 503 {
		t.Errorf("of a closed journal: %d", status)
	}
}

// A folder without a final verdict is asked for three times, each once, over
// restarts; one with a verdict never.
func TestAsk(t *testing.T) {
	o := newOffice(t)
	begin := time.Now()
	l := o.life("case-7", ref)
	o.end(l, sidecar.Accepted, spool.Done)
	held := o.life("case-8", "held-0123456789")
	o.end(held, sidecar.Unknown, spool.Hold)
	final := o.life("case-9", "final-0123456789")
	o.end(final, sidecar.Accepted, spool.Done)
	o.says("final-0123456789", "APPROVED", true)
	asked := map[string]int{}
	word := "REVIEWING"
	fault := &idenfy.Error{Class: idenfy.NotSent, Message: "refused"}
	var fails error = fault
	round := func(after time.Duration) {
		t.Helper()
		a := &Asker{Journal: o.j, Emit: o.see, Came: func() {}, Look: func(_ context.Context, scanRef string) (idenfy.Standing, error) {
			if fails != nil {
				return idenfy.Standing{}, fails
			}
			asked[scanRef]++
			return idenfy.Standing{Word: word, Body: fmt.Appendf(nil, `{"status":%q,"fraudTags":["X"]}`, word)}, nil
		}}
		now := begin.Add(after)
		for range 5 {
			due, err := o.j.ToAsk(t.Context(), now, now.Add(-time.Hour), 1)
			must(t, err)
			if len(due) == 0 {
				return
			}
			d := due[0]
			if !a.askAt(t.Context(), d, now) {
				return
			}
		}
		t.Fatal("asked too often")
	}
	round(30 * time.Minute)
	round(2 * time.Hour) // nothing leaves, so it stays to be asked
	if len(asked) != 0 {
		t.Fatal(asked)
	}
	fails = nil
	for i, c := range []struct {
		after time.Duration
		times int
	}{{59 * time.Minute, 0}, {61 * time.Minute, 1}, {2 * time.Hour, 1}, {11 * time.Hour, 1}, {13 * time.Hour, 2}, {40 * time.Hour, 2}, {50 * time.Hour, 3}, {90 * 24 * time.Hour, 3}} {
		round(c.after)
		o.restart()
		if asked[ref] != c.times || asked["final-0123456789"] != 0 {
			t.Errorf("%d: %v: %v", i, c.after, asked)
		}
		o.look()
	}
	// The first answer told that the held one was taken.
	if !o.exists("done", "case-8") {
		t.Error("not out of hold")
	}
	v := o.verdict(spool.Done, "case-7")
	if len(v.Events) != 1 || v.Events[0].By != sidecar.ByStatus || v.Events[0].Overall != "REVIEWING" || !slices.Equal(v.FraudTags, []string{"X"}) {
		t.Errorf("%+v", v)
	}
}

// A session that meets another fault each time gets its three requests, and
// keeps nobody else from theirs; what is the account's, or never left, is no
// request of a session.
func TestAskOverFaults(t *testing.T) {
	for _, c := range []struct {
		fault *idenfy.Error
		times [2]int // that the faulty one and the other are asked for
	}{
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 403, Identifier: "PERMISSIONS_ERROR"}, [2]int{3, 1}},
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 404}, [2]int{3, 1}},
		{&idenfy.Error{Class: idenfy.ServerError, Status: 500}, [2]int{3, 1}},
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 401}, [2]int{9, 0}},
		{&idenfy.Error{Class: idenfy.ServiceFault, Status: 429}, [2]int{9, 0}},
		{&idenfy.Error{Class: idenfy.NotSent}, [2]int{9, 0}},
	} {
		o := newOffice(t)
		at := time.Now()
		for _, ref := range []string{"aaaa-0123456789", "bbbb-0123456789"} {
			o.end(o.life(ref[:4], ref), sidecar.Accepted, spool.Done)
		}
		var asked [2]int
		a := &Asker{Journal: o.j, Emit: o.see, Came: func() {}, Look: func(_ context.Context, ref string) (idenfy.Standing, error) {
			if ref[0] == 'a' {
				asked[0]++
				return idenfy.Standing{}, c.fault
			}
			asked[1]++
			return idenfy.Standing{Word: "APPROVED", Body: []byte(`{"status":"APPROVED"}`)}, nil
		}}
		for day := range 9 {
			now := at.Add(time.Duration(day+1) * 48 * time.Hour)
			for well := true; well; {
				due, err := o.j.ToAsk(t.Context(), now, now, 1)
				must(t, err)
				well = len(due) > 0 && a.askAt(t.Context(), due[0], now)
			}
		}
		if asked != c.times {
			t.Errorf("%v: asked %v times", c.fault, asked)
		}
	}
}

// What a person decides while a session is asked for stays, though nothing of
// the request left; and before, it is not asked for.
func TestDecidedWhileAsked(t *testing.T) {
	o := newOffice(t)
	l := o.life("case-8", ref)
	o.end(l, sidecar.Unknown, spool.Hold)
	now := time.Now().Add(2 * time.Hour)
	due, err := o.j.ToAsk(t.Context(), now, now, 1)
	must(t, err)
	fails := &idenfy.Error{Class: idenfy.NotSent}
	a := &Asker{Journal: o.j, Emit: o.see, Look: func(context.Context, string) (idenfy.Standing, error) {
		return idenfy.Standing{}, errors.Join(o.j.Settle(l.ID, journal.Refused), fails)
	}}
	a.askAt(t.Context(), due[0], now)
	if due, err := o.j.ToAsk(t.Context(), now.Add(1000*time.Hour), now, 1); err != nil || len(due) > 0 {
		t.Errorf("asked again for what a person has decided: %v, %v", due, err)
	}
	l = o.life("case-9", "bbbb-0123456789")
	o.end(l, sidecar.Unknown, spool.Hold)
	due, err = o.j.ToAsk(t.Context(), now, now, 1)
	must(t, err)
	must(t, o.j.Settle(l.ID, journal.Refused))
	if may, err := o.j.Ask(due[0], now); may || err != nil {
		t.Errorf("asked for what a person has decided: %v", err)
	}
}

// What is refused by its head is answered when its body is there: to a proxy that
// still sends that, an answer is an abort.
func TestRefusedByHead(t *testing.T) {
	o := newOffice(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := o.r.Server()
	go func() { _ = server.Serve(l) }() // it ends with the test
	t.Cleanup(func() { _ = server.Close() })
	body := strings.Repeat("x", usualBody)
	for head, want := range map[string]string{"POST /idenfy": "401 ", "POST /other": "404 ", "PUT /idenfy": "405 "} {
		c, err := net.Dial("tcp", l.Addr().String())
		must(t, err)
		_, err = fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", head, len(body), body[1:])
		must(t, err)
		must(t, c.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %d bytes of an answer before the body was sent, %v", head, n, err)
		}
		must(t, c.SetReadDeadline(time.Time{}))
		_, err = c.Write([]byte(body[:1]))
		must(t, err)
		said, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(said), "HTTP/1.1 "+want) {
			t.Errorf("%s: %q, %v", head, said, err)
		}
		must(t, c.Close())
	}
}

// Slow readers and a flood of what is not signed keep nobody out.
func TestFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	o := newOffice(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := o.r.Server()
	done := make(chan error, 1)
	go func() { done <- server.Serve(Limit(l)) }()
	defer func() {
		must(t, server.Close())
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	const slow = 200
	for range slow {
		c, err := net.Dial("tcp", l.Addr().String())
		must(t, err)
		defer c.Close()
		_, err = fmt.Fprintf(c, "POST /idenfy HTTP/1.1\r\nHost: x\r\nIdenfy-Signature: %s\r\nContent-Length: 100000\r\n\r\nxx", strings.Repeat("00", 32))
		must(t, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	url := "http://" + l.Addr().String() + "/idenfy"
	for range 4 {
		group.Go(func() {
			for ctx.Err() == nil {
				res, err := http.Post(url, "application/json", strings.NewReader("{}"))
				if err == nil {
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
			}
		})
	}
	var took []time.Duration
	for i := range 100 {
		body := sandbox.HookBody(fmt.Sprintf("session-%08d", i), "APPROVED", true)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
		must(t, err)
		req.Header.Set("Idenfy-Signature", sandbox.Sign(body, testKey))
		begin := time.Now()
		res, err := http.DefaultClient.Do(req)
		must(t, err)
		must(t, res.Body.Close())
		took = append(took, time.Since(begin))
		if res.StatusCode != http.StatusOK {
			t.Errorf("%d", res.StatusCode)
		}
	}
	stop()
	group.Wait()
	slices.Sort(took)
	t.Logf("beside %d slow readers and a flood: median %s, the slowest of 100 %s", slow, took[50], took[99])
}

// Of very many events the newest are listed, the others counted, and the newest
// final one says what is decided.
func TestManyEvents(t *testing.T) {
	o := newOffice(t)
	l := o.life("case-7", ref)
	o.end(l, sidecar.Accepted, spool.Done)
	var wait sync.WaitGroup
	hear := func(n int, overall string, final bool) {
		e := parse(fmt.Appendf(nil, `{"scanRef":%q,"n":%d,"final":%v,"status":{"overall":%q}}`, ref, n, final, overall), "", false, time.Now())
		if _, err := o.j.Hear(e); err != nil {
			t.Error(err)
		}
	}
	hear(0, "SUSPECTED", true)
	for n := range journal.MostEvents + 20 {
		wait.Go(func() { hear(n+1, "REVIEWING", false) })
	}
	wait.Wait()
	o.look()
	v := o.verdict(spool.Done, "case-7")
	if v.Overall != "SUSPECTED" || len(v.Events) != journal.MostEvents+1 || v.Omitted != 20 || v.Events[0].Overall != "SUSPECTED" {
		t.Errorf("%s, %d events, %d omitted", v.Overall, len(v.Events), v.Omitted)
	}
	hear(10_000, "APPROVED", true)
	o.look()
	if v = o.verdict(spool.Done, "case-7"); v.Overall != "APPROVED" || v.Omitted != 22 || o.exists("done", "case-7", "verdict.1.json") {
		t.Errorf("%s, %d events, %d omitted", v.Overall, len(v.Events), v.Omitted)
	}
}

// FuzzBody: whatever is signed is answered 200 and is in the journal, and what
// stands in verdict.json can be read by everybody.
func FuzzBody(f *testing.F) {
	for _, s := range []string{
		"", "{}", "null", "[]", `{"scanRef":null}`, `{"scanRef":"` + ref + `"}`, `{"scanRef":"` + ref + `","final":"true","status":null}`,
		`{"scanRef":"` + ref + `","final":true,"status":{"overall":"DENIED","fraudTags":"X","mismatchTags":[1,null,{}],"autoFace":7}}`,
		`{"scanRef":"` + ref + `","final":true,"status":{"overall":"\u0000\u001b[31m"}}`, `{"scanRef":"` + ref + `","finishTime":1e300}`,
		`{"scanRef":["` + ref + `"],"status":[]}`, "\xff\xfe", string(sandbox.HookBody(ref, "APPROVED", true)),
	} {
		f.Add([]byte(s), "IDENTIFICATION")
	}
	o := newOffice(f)
	l := o.life("case-7", ref)
	o.end(l, sidecar.Accepted, spool.Done)
	f.Fuzz(func(t *testing.T, body []byte, kind string) {
		e := parse(body, kind, false, time.Now())
		status := o.send(body, sandbox.Sign(body, testKey))
		if len(body) > maxBody {
			return
		}
		if status != 200 {
			t.Fatalf("%d", status)
		}
		heard, err := o.j.Hear(e) // the same once more
		known := heard.Known
		must(t, err)
		if known != (e.ScanRef == ref) {
			t.Errorf("%q is known: %v", e.ScanRef, known)
		}
		if e.ScanRef == "" {
			return
		}
		if known {
			h, err := o.j.Heard(t.Context(), e.ScanRef)
			must(t, err)
			if !slices.ContainsFunc(h.Verdict.Events, func(v sidecar.VerdictEvent) bool { return v.SHA256 == hash(string(body)) }) && h.Verdict.Omitted == 0 {
				t.Error("it is not among the events")
			}
		}
		data, err := sidecar.EncodeVerdict(&sidecar.Verdict{Events: []sidecar.VerdictEvent{e.Said}})
		must(t, err)
		var v sidecar.Verdict
		must(t, json.Unmarshal(data, &v))
		for _, w := range slices.Concat([]string{v.Events[0].Overall, v.Events[0].AutoFace}, v.Events[0].FraudTags) {
			if len([]rune(w)) > mostWord || strings.ContainsFunc(w, func(r rune) bool { return r < ' ' }) {
				t.Errorf("%q", w)
			}
		}
	})
}

// open gives a life another session.
func (o *office) open(l *journal.Life, ref string) {
	o.t.Helper()
	n := len(l.Result.Sessions) + 1
	l.Result.Sessions = append(l.Result.Sessions, sidecar.Opening{Attempt: sidecar.Attempt{N: n, Started: sidecar.Now(), State: sidecar.Answered, HTTPStatus: 201}, ScanRef: ref})
	l.Result.Session = &sidecar.Session{ScanRef: ref, ClientID: l.ClientID, By: sidecar.ByDaemon}
	l.ScanRef, l.Token = ref, hash(ref)
	isNew, err := o.j.Opened(l)
	if err != nil || !isNew {
		o.t.Fatalf("%v, %v", isNew, err)
	}
}

// What iDenfy says of a session in whose place another was opened, or whose token
// could not be kept, is known as that folder's, whenever it comes, and never the
// verdict on what was sent.
func TestReplacedSession(t *testing.T) {
	o := newOffice(t)
	ref := func(n int) string { return fmt.Sprintf("328c6766-934e-11ed-bb9b-%012d", n) }
	id := spool.NewID()
	must(t, o.j.Claim(id, "inbox", "case-7"))
	l, err := o.j.Load(t.Context(), id)
	must(t, err)
	l.State, l.ClientID, l.Dir = journal.Pending, "client-7", "dir-case-7"
	o.says(ref(3), "EXPIRED", true) // before it is known whose it is
	o.open(l, ref(1))
	o.says(ref(1), "EXPIRED", true) // while it is the life's own
	o.look()
	o.open(l, ref(2))
	o.says(ref(1), "EXPIRED", true) // and once more
	n := len(l.Result.Sessions) + 1 // one that nobody has the token of
	l.Result.Sessions = append(l.Result.Sessions, sidecar.Opening{Attempt: sidecar.Attempt{N: n, Started: sidecar.Now(), State: sidecar.NoAnswer}, ScanRef: ref(3)})
	must(t, o.j.Put(l))
	l.Fate = journal.Taken
	must(t, os.Mkdir(filepath.Join(o.paths[spool.Work], "case-7."+l.ID), 0o700))
	o.end(l, sidecar.Accepted, spool.Done)
	o.says(ref(2), "APPROVED", true)
	o.says(ref(1), "EXPIRED", true)
	o.look()
	o.restart()
	o.look()
	v := o.verdict(spool.Done, "case-7")
	if v.Overall != "APPROVED" || len(v.Events) != 1 || v.Contradicted || v.ScanRef != ref(2) {
		t.Errorf("%+v", v)
	}
	all, err := o.j.Reader().Verdicts(t.Context())
	must(t, err)
	if all.Strays != 0 || all.Waiting != 0 || len(all.Final) != 1 || all.Contradicted != 0 {
		t.Errorf("%+v", all)
	}
	show, err := o.j.Reader().Show(t.Context(), journal.Search{Key: "case-7", Most: 1})
	must(t, err)
	var said []string
	for _, e := range show.Stories[0].Lives[0].Others {
		said = append(said, e.ScanRef[35:]+" "+e.Overall)
	}
	if !slices.Equal(said, []string{"3 EXPIRED", "1 EXPIRED", "1 EXPIRED", "1 EXPIRED"}) {
		t.Errorf("%v", said)
	}
	if left, err := o.j.Unwritten(t.Context(), "", 9); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}
