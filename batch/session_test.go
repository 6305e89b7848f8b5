package batch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"idenfy-batch/batch"
	"idenfy-batch/internal/decision"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// putPerson makes a whole folder of a person in the inbox.
func (b *bench) putPerson(name, clientID string, more ...string) {
	b.t.Helper()
	must(b.t, sample.Write(filepath.Join(b.spool.Path(spool.Inbox), name), map[string][]byte{
		"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face, "meta.yaml": []byte(sample.Person(clientID, "LT", "ID_CARD", more...)),
	}))
}

func (b *bench) sendPerson(name, clientID string, more ...string) {
	b.t.Helper()
	b.putPerson(name, clientID, more...)
	b.in <- b.arrival(name)
}

// noTokens searches the whole spool, the journal with it, for the tokens of all
// sessions that were opened: they are nowhere but in files of their own in work,
// and, with none, nowhere at all.
func (b *bench) noTokens(none bool) {
	b.t.Helper()
	sessions := b.api.Sessions("")
	if len(sessions) == 0 {
		return
	}
	root := filepath.Dir(b.spool.Path(spool.Inbox))
	must(b.t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		own := filepath.Dir(path) == b.spool.Path(spool.Work) && strings.Contains(e.Name(), ".token.")
		if own {
			info, err := e.Info()
			if err != nil {
				return err
			}
			if none || info.Mode().Perm() != 0o600 {
				b.t.Errorf("%s is there, with mode %v", path, info.Mode())
			}
			return nil
		}
		data, err := os.ReadFile(path)
		for token := range sessions {
			if bytes.Contains(data, []byte(token)) {
				b.t.Errorf("a token is in %s", path)
			}
		}
		return err
	}))
}

// processed is how often the person of the samples was.
func (b *bench) processed() int { return b.api.Persons()[sum(face)] }

func openings(r *sidecar.Result) (list []string) {
	for _, o := range r.Sessions {
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s %d %s", o.State, o.HTTPStatus, o.Identifier)))
	}
	return list
}

func TestSession(t *testing.T) {
	b := newBench(t)
	b.start()
	b.sendPerson("case", "client-7", "firstName: Jonas", "dateOfBirth: 1990-02-03")
	b.want("case accepted done/case")
	r := b.result(spool.Done, "case")
	b.check(r, []string{"answered"}, nil)
	s := r.Session
	if s == nil || s.By != sidecar.ByDaemon || s.ClientID != "client-7" || s.Expires.Sub(s.Opened.Time) != b.cfg.SessionExpiry || !slices.Equal(openings(r), []string{"answered 201"}) {
		t.Fatalf("session %+v, asked for %v", s, openings(r))
	}
	for token, seen := range b.api.Sessions("client-7") {
		if seen.Processed != 1 || seen.ScanRef != s.ScanRef || seen.Reference != r.ID || r.Request.TokenSHA256 != hash(token) || r.Request.TokenHint != sidecar.TokenHint(token) {
			t.Errorf("the service saw %+v, the result has %+v", seen, r.Request)
		}
	}
	b.noTokens(true)
	l, err := b.journal.Load(t.Context(), r.ID)
	if must(t, err); l.ScanRef != s.ScanRef || l.ClientID != "client-7" || len(l.Result.Sessions) != 1 {
		t.Errorf("the journal has %+v", l)
	}
	// Again: the folder itself is the one that was accepted.
	b.again(spool.Done, "case")
	b.want("case accepted done/case")
	b.check(b.result(spool.Done, "case"), nil, []string{sidecar.SentBefore})
	// The same once more, without any result.
	b.sendPerson("same", "client-7")
	b.want("same invalid failed/same")
	b.check(b.result(spool.Failed, "same"), nil, []string{"content_used"})
	if r := b.api.Report(); r.Opened != 1 || r.Asked != 1 {
		t.Errorf("%+v", r)
	}
	// The same person with another photo, and somebody else with the same files.
	b.putPerson("photo", "client-7")
	must(t, os.WriteFile(filepath.Join(b.spool.Path(spool.Inbox), "photo", "FACE.jpg"), sample.Pad(face, len(face)+20, 1), 0o600))
	b.in <- b.arrival("photo")
	b.want("photo accepted done/photo")
	b.sendPerson("else", "client-8")
	b.want("else accepted done/else")
	// Only a person sends it twice.
	b.refused("done/case", sidecar.Requeued, "accepted before")
	b.end()
	b.start()
	b.decided("done/case", sidecar.Requeued, true)
	b.want("case accepted done/case")
	if n := len(b.api.Sessions("client-7")); n != 3 {
		t.Errorf("%d sessions", n)
	}
	b.noTokens(true)
}

// What is no answer of a session, each with what comes of it.
func TestSessionRefused(t *testing.T) {
	b := newBench(t)
	b.patience = time.Minute
	b.start()
	b.sendPerson("bad", "client-1", "colour: red")
	b.want("bad invalid failed/bad")
	if n := b.api.Report().Asked; n != 0 {
		t.Fatalf("%d requests for an invalid folder", n)
	}
	b.api.ScriptSessions("client-2", sandbox.Step{Status: 400, Identifier: "VALIDATION_ERROR", Message: "Bad value for 'firstName'"})
	b.sendPerson("no", "client-2")
	b.want("no rejected failed/no")
	r := b.result(spool.Failed, "no")
	b.check(r, nil, []string{"VALIDATION_ERROR"})
	b.decided("no", sidecar.Requeued, false) // mended
	b.want("no accepted done/no")
	// No credits: the account's, and it passes.
	b.api.SetCredits(0)
	b.sendPerson("poor", "client-3")
	b.until("shut account")
	if !b.ev.has("shut account, 1 tries: the account has no credits left: HTTP 400, PERMISSIONS_ERROR; buy") {
		t.Errorf("%v", b.ev.all())
	}
	b.api.SetCredits(10)
	b.want("poor accepted done/poor")
	// The person has an active session: it waits by itself.
	b.api.ScriptSessions("client-4", slices.Repeat([]sandbox.Step{{Status: 409, Identifier: "VALIDATION_ERROR", Message: "active"}}, 5)...)
	b.sendPerson("busy", "client-4")
	b.sendPerson("other", "client-5")
	got := []string{<-b.ev.ended, <-b.ev.ended}
	if slices.Sort(got); !slices.Equal(got, []string{"busy accepted done/busy", "other accepted done/other"}) {
		t.Errorf("%v", got)
	}
	r = b.result(spool.Done, "busy")
	b.check(r, []string{"answered"}, nil)
	if len(r.Sessions) != 6 {
		t.Errorf("asked for %v", openings(r))
	}
	b.noTokens(true)
}

// A session that expires before the submission is replaced, unless that may have
// been taken.
func TestSessionExpires(t *testing.T) {
	b := newBench(t)
	b.patience = time.Minute
	b.cfg.Retry.First, b.cfg.Retry.Max = time.Millisecond, 5*time.Millisecond
	b.start()
	for name, steps := range map[string][]sandbox.Step{
		"refused": {{Status: 503}, {Status: 503}, {Status: 503}},
		"broken":  {{Fault: sandbox.ResetInBody}},
	} {
		asked := false
		b.api.Decide(func(string, int) sandbox.Step {
			if len(steps) == 0 {
				return sandbox.Step{}
			}
			if step := steps[0]; !asked {
				steps = steps[1:]
				if asked = len(steps) == 0; asked {
					step.Then = "EXPIRED"
				}
				return step
			}
			return sandbox.Step{}
		})
		b.putPerson(name, name)
		must(t, os.WriteFile(filepath.Join(b.spool.Path(spool.Inbox), name, "FACE.jpg"), sample.Pad(face, len(face)+20, uint64(len(name))), 0o600))
		b.in <- b.arrival(name)
		b.want(fmt.Sprintf("%s accepted done/%s", name, name))
		n := 0
		for _, s := range b.api.Sessions(name) {
			n += s.Processed
		}
		if r := b.result(spool.Done, name); n != 1 || len(r.Sessions) != 2 || r.Sessions[1].ScanRef != r.Session.ScanRef {
			t.Errorf("%d processed, asked for %v, attempts %v", n, openings(r), states(r))
		}
	}
	b.api.Decide(nil)
	// It was taken, and the answer lost: the session tells, and no other is opened.
	b.api.Decide(func(_ string, n int) sandbox.Step {
		return map[bool]sandbox.Step{true: {Fault: sandbox.LoseAnswer}}[n == 1]
	})
	b.sendPerson("lost", "lost")
	b.want("lost accepted done/lost")
	if n := len(b.api.Sessions("lost")); n != 1 {
		t.Errorf("%d sessions", n)
	}
	b.noTokens(true)
}

// What may have been taken gets no other session without a person's decision.
func TestSessionOfHeld(t *testing.T) {
	b := newBench(t)
	b.patience = time.Minute
	b.start()
	lose := func() {
		b.api.Decide(func(_ string, n int) sandbox.Step {
			step := sandbox.Step{Then: "DELETED"} // which tells nothing
			if n == 1 {
				step.Fault = sandbox.LoseAnswer
			}
			return step
		})
	}
	lose()
	b.sendPerson("case", "client-7")
	b.want("case unknown hold/case")
	b.noTokens(true)
	b.sendPerson("copy", "client-7")
	b.want("copy invalid failed/copy")
	b.check(b.result(spool.Failed, "copy"), nil, []string{"content_undecided"})
	b.again(spool.Hold, "case")
	b.want("case unknown hold/case")
	if n := b.api.Report().Asked; n != 1 {
		t.Fatalf("%d sessions were asked for", n)
	}
	b.api.Decide(nil)
	must(t, b.decide("hold/case", sidecar.Resubmit, true))
	b.in <- b.arrival("case")
	b.want("case accepted done/case")
	if n := b.api.Report().Asked; n != 2 {
		t.Errorf("%d sessions were asked for", n)
	}
	b.noTokens(true)
}

// A person who saw that the session is unused decides, and another one is opened.
func TestSessionResubmitted(t *testing.T) {
	b := newBench(t, sandbox.Options{ManySessions: true})
	b.patience = time.Minute
	b.start()
	b.api.Decide(func(string, int) sandbox.Step {
		return sandbox.Step{Fault: sandbox.Garbage, Then: "ARCHIVED"} // which tells nothing
	})
	b.cfg.Retry.GiveUpAfter = time.Nanosecond
	b.batch.Set(b.cfg)
	b.sendPerson("case", "client-7")
	b.want("case unknown hold/case")
	b.end()
	for tok := range b.api.Sessions("client-7") {
		b.api.SetStatus(tok, "ACTIVE")
	}
	b.api.Decide(nil)
	j, err := journal.Open(b.where)
	must(t, err)
	client := idenfy.New(idenfy.Options{BaseURL: b.url, Key: "k", Secret: "s", Timeout: time.Minute})
	defer client.Close()
	desk := decision.Desk{Paths: b.spool.Paths(), Journal: j, InWork: b.spool.Paths().Has, Status: client.Status}
	_, _, err = desk.Make(t.Context(), "hold/case", decision.Decision{Action: sidecar.Resubmit})
	must(t, errors.Join(err, j.Close()))
	b.start()
	b.in <- b.arrival("case")
	b.want("case accepted done/case")
	if n := len(b.api.Sessions("client-7")); n != 2 || b.processed() != 1 {
		t.Errorf("%d sessions, %d processed", n, b.processed())
	}
	b.noTokens(true)
}

// Submit opens one session, and goes on with it; a spool is told before.
func TestSubmitOpensSession(t *testing.T) {
	b := newBench(t)
	dir, state := filepath.Join(t.TempDir(), "case"), t.TempDir()
	must(t, sample.Write(dir, map[string][]byte{"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face, "meta.yaml": []byte(sample.Person("client-7", "LT", "ID_CARD"))}))
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	client := idenfy.New(idenfy.Options{BaseURL: b.url, Key: "k", Secret: "s", Timeout: time.Minute})
	defer client.Close()
	j, err := journal.Open(b.where)
	must(t, err)
	defer j.Close()
	b.cfg.API, b.cfg.Rate = client, rate.NewLimiter(rate.Inf, 1)
	submit := func() (*sidecar.Result, error) {
		one := batch.New(b.cfg, nil, j, func(events.Event) {})
		must(t, one.KeepTokens(t.Context(), state))
		one.Share(func(_ context.Context, l *journal.Life) error {
			if l.ClientID != "client-7" || l.Content == "" {
				t.Errorf("shared is %+v", l)
			}
			return nil
		})
		return one.Submit(t.Context(), root, "case")
	}
	b.api.Always(&sandbox.Step{Status: 401, Identifier: "UNAUTHORIZED", Message: "no"})
	if res, err := submit(); err == nil {
		t.Fatalf("%+v", res)
	}
	if kept, err := filepath.Glob(filepath.Join(state, ".token.*")); err != nil || len(kept) != 1 {
		t.Errorf("%v", kept)
	}
	b.api.Always(nil)
	res, err := submit()
	if err != nil || res.Outcome != sidecar.Accepted || len(res.Attempts) != 2 || len(b.api.Sessions("")) != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	if kept, err := filepath.Glob(filepath.Join(state, "*token*")); err != nil || len(kept) != 0 {
		t.Errorf("%v", kept)
	}
	if _, err := submit(); err == nil {
		t.Error("once more")
	}
}

// A token in work that is gone, or another one, is not sent; what a crash left
// of one goes with the next start.
func TestSessionTokenLost(t *testing.T) {
	b := newBench(t)
	b.patience = time.Minute
	b.api.Always(&sandbox.Step{Status: 401, Identifier: "UNAUTHORIZED", Message: "no"})
	b.start()
	b.sendPerson("case", "client-7")
	b.until("shut account")
	b.end()
	work := b.spool.Path(spool.Work)
	files, err := filepath.Glob(filepath.Join(work, ".token.*"))
	if must(t, err); len(files) != 1 {
		t.Fatalf("%v", files)
	}
	must(t, os.WriteFile(files[0], []byte("SOMEBODY-ELSES-0123456789"), 0o600))
	for _, left := range []string{".token." + spool.NewID(), ".idenfy-batch..token." + spool.NewID() + ".tmp"} {
		must(t, os.WriteFile(filepath.Join(work, left), []byte("LEFT-0123456789"), 0o600))
	}
	b.api.Always(nil)
	b.api.Expire("client-7") // else it has an active one
	b.start()
	b.want("case accepted done/case")
	if n := len(b.api.Sessions("client-7")); n != 2 || b.api.Token("SOMEBODY-ELSES-0123456789").Requests != 0 {
		t.Errorf("%d sessions", n)
	}
	b.noTokens(true)
}

// Where an attempt may have been taken and the token is gone, the session tells,
// or a person decides.
func TestSessionTokenLostAfterwards(t *testing.T) {
	for status, want := range map[string]string{"DELETED": "unknown hold", "ACTIVE": "unknown hold", "APPROVED": "accepted done", "EXPIRED": "accepted done"} {
		t.Run(status, func(t *testing.T) {
			b := newBench(t)
			b.patience = time.Minute
			b.api.Always(&sandbox.Step{Status: 503})
			b.start()
			b.sendPerson("case", "client-7")
			b.until("attempt case 2")
			b.end()
			b.api.Always(nil)
			files, err := filepath.Glob(filepath.Join(b.spool.Path(spool.Work), ".token.*"))
			if must(t, err); len(files) != 1 {
				t.Fatalf("%v", files)
			}
			must(t, os.Remove(files[0]))
			for tok := range b.api.Sessions("") {
				b.api.SetStatus(tok, status)
			}
			b.start()
			b.want("case " + want + "/case")
			sessions := 1
			if status == "EXPIRED" {
				sessions = 2
			}
			if n := len(b.api.Sessions("")); n != sessions {
				t.Errorf("%d sessions", n)
			}
			b.noTokens(true)
		})
	}
}

// What a status request told is not asked for again as long as nothing was sent
// since.
func TestSessionAskedForOnce(t *testing.T) {
	b := newBench(t)
	b.patience = time.Minute
	b.cfg.Retry.First, b.cfg.Retry.Max = time.Hour, time.Hour
	b.api.Always(&sandbox.Step{Fault: sandbox.LoseAnswer, Then: "DELETED"}) // which tells nothing
	b.start()
	b.sendPerson("case", "client-7")
	b.until("attempt case 1")
	b.end()
	files, err := filepath.Glob(filepath.Join(b.spool.Path(spool.Work), ".token.*"))
	if must(t, err); len(files) != 1 {
		t.Fatalf("%v", files)
	}
	must(t, os.Remove(files[0]))
	b.cfg.Retry.First, b.cfg.Retry.Max = time.Millisecond, time.Millisecond
	b.start()
	b.want("case unknown hold/case")
	if n := b.api.Report().Status; n != 1 {
		t.Errorf("%d status requests", n)
	}
}

// A token that was given before is not sent again.
func TestSessionTokenTwice(t *testing.T) {
	b := newBench(t)
	b.patience = time.Minute
	b.start()
	b.api.Issue(token("known"), ref)
	b.send("known")
	b.want("known accepted done/known")
	again := fmt.Sprintf(`{"authToken": %q, "scanRef": %q}`, token("known"), ref)
	b.api.ScriptSessions("client-7", sandbox.Step{Status: 201, Body: again, ContentType: "application/json"})
	b.sendPerson("case", "client-7")
	b.want("case accepted done/case")
	if r := b.result(spool.Done, "case"); !slices.Equal(openings(r), []string{"no_answer 201", "answered 201"}) || b.api.Token(token("known")).Requests != 1 {
		t.Errorf("asked for %v", openings(r))
	}
}

// Each phase of a request for a session breaks, and the process lives on, or
// ends at that moment and starts anew.
func TestSessionPhases(t *testing.T) {
	busy := sandbox.Step{Status: 409, Identifier: "VALIDATION_ERROR", Message: "active"}
	phases := map[string]struct {
		step   sandbox.Step
		opened bool   // there is a session that nobody has the token of
		end    string // empty: accepted
	}{
		"reset before the body":  {step: sandbox.Step{Fault: sandbox.ResetBeforeBody}},
		"stalled":                {step: sandbox.Step{Fault: sandbox.Stall}},
		"no HTTP":                {step: sandbox.Step{Fault: sandbox.Garbage}},
		"byte by byte":           {step: sandbox.Step{Fault: sandbox.Drip}},
		"the answer is lost":     {step: sandbox.Step{Fault: sandbox.LoseAnswer}, opened: true},
		"half an answer":         {step: sandbox.Step{Fault: sandbox.HalfAnswer}, opened: true},
		"the answer is stalled":  {step: sandbox.Step{Fault: sandbox.StallAnswer}, opened: true},
		"an active session":      {step: busy},
		"no credits":             {step: sandbox.Step{Status: 400, Identifier: "PERMISSIONS_ERROR", Message: "Partner reached token limit."}},
		"a wrong key":            {step: sandbox.Step{Status: 401, Identifier: "UNAUTHORIZED", Message: "no"}},
		"quota":                  {step: sandbox.Step{Status: 429, Identifier: "TOO_MANY_REQUESTS", Message: "no"}},
		"of the folder":          {step: sandbox.Step{Status: 400, Identifier: "VALIDATION_ERROR", Message: "no"}, end: "case rejected failed/case"},
		"a server error":         {step: sandbox.Step{Status: 502}},
		"an internal error":      {step: sandbox.Step{Status: 400, Identifier: "INTERNAL_ERROR", Message: "no"}},
		"an answer without it":   {step: sandbox.Step{Status: 201, Body: `{"message": "Token created successfully"}`, ContentType: "application/json"}},
		"an answer without end":  {step: sandbox.Step{Status: 201, Body: `{"authToken": "` + strings.Repeat("A", 100_000) + `"}`, ContentType: "application/json"}},
		"a page of a proxy, 200": {step: sandbox.Step{Status: 200, Body: "<html>", ContentType: "text/html"}},
	}
	runs := 0
	t.Run("all", func(t *testing.T) {
		for name, phase := range phases {
			for _, crash := range []bool{false, true} {
				runs++
				t.Run(fmt.Sprintf("%s, crash %v", name, crash), func(t *testing.T) {
					t.Parallel()
					b := newBench(t)
					b.cfg.Grace = 0
					b.patience = 2 * time.Second
					// A request may come late to the API, on a busy machine: after its client
					// was killed or lost patience, and after Expire. Its session ends by itself.
					b.cfg.SessionExpiry = 5 * time.Second
					p := &plan{}
					root := filepath.Dir(b.spool.Path(spool.Inbox)) + "/"
					disks.Store(root, p)
					defer disks.Delete(root)
					b.api.AlwaysSession(&phase.step)
					b.start()
					b.sendPerson("case", "client-7")
					for r := b.api.Report(); r.Asked == 0 || phase.opened && r.Opened == 0; r = b.api.Report() {
						time.Sleep(100 * time.Microsecond)
					}
					want := "case accepted done/case"
					if phase.end != "" {
						want = phase.end
					}
					if crash {
						p.dead.Store(true)
						b.end()
						place := b.whole()
						p.dead.Store(false)
						if place.Final() { // it ended before the crash came
							b.ev.ended <- fmt.Sprintf("case %s %s/case", b.result(place, "case").Outcome, place)
						} else {
							if phase.end == "" {
								b.api.AlwaysSession(nil)
								b.api.Expire("client-7")
							}
							b.start()
						}
					} else if phase.end == "" {
						b.until("asked case 1")
						b.api.AlwaysSession(nil)
						b.api.Expire("client-7")
					}
					b.want(want)
					place := b.whole()
					r := b.result(place, "case")
					lost, known := 0, map[string]bool{}
					for _, o := range r.Sessions {
						if known[o.ScanRef] = true; o.ScanRef == "" && o.HTTPStatus/100 != 4 {
							lost++
						}
					}
					nobodys := 0
					for _, s := range b.api.Sessions("client-7") {
						if !known[s.ScanRef] {
							nobodys++
						}
					}
					if n := b.processed(); n > 1 || n == 0 && phase.end == "" || nobodys > lost {
						t.Errorf("%d times processed, %d sessions that nobody has the token of, on record %v", n, nobodys, openings(r))
					}
					b.noTokens(true)
				})
			}
		}
	})
	t.Logf("%d broken phases of a request for a session: 0 lost, 0 twice, each session that was lost is on record", runs)
}

// A service that calls the token otherwise holds up the account, says what to set,
// and goes on when that is done.
func TestTokenField(t *testing.T) {
	b := newBench(t, sandbox.Options{TokenField: "token"})
	b.patience = time.Minute
	b.start()
	b.sendPerson("case", "client-7")
	b.until("shut account, 1 tries: iDenfy misses the field token of a submission: HTTP 400, MISSING_VALUE; set api.token_field: token in the configuration")
	client := idenfy.New(idenfy.Options{BaseURL: b.url, Key: "k", Secret: "s", Timeout: time.Minute, TokenField: "token"})
	defer client.Close()
	b.cfg.API = client
	b.batch.Set(b.cfg)
	b.want("case accepted done/case")
	if n := len(b.api.Sessions("client-7")); n != 1 {
		t.Errorf("%d sessions", n)
	}
	b.end()
}

// The journal's own words for a session: a scanRef, wherever it is asked by.
func TestSessionIsFound(t *testing.T) {
	b := newBench(t)
	b.start()
	b.sendPerson("case", "client-7")
	b.want("case accepted done/case")
	r := b.result(spool.Done, "case")
	for _, key := range []string{"client-7", r.Session.ScanRef, strings.ToUpper(r.Session.ScanRef), "case", r.ID} {
		all, err := b.journal.Reader().Show(t.Context(), journal.Search{Key: key, Most: 3})
		if must(t, err); all.Total != 1 || len(all.Stories[0].Lives[0].Result.Sessions) != 1 {
			t.Errorf("%s: %+v", key, all)
		}
	}
}

// What iDenfy said once stays true, whatever it says afterwards: a session that
// was taken is not replaced because its newest event is that it expired.
func TestSessionTakenAndExpired(t *testing.T) {
	for _, words := range [][]string{{"APPROVED", "EXPIRED"}, {"EXPIRED", "REVIEWING"}, {"REVIEWING", "EXPIRED"}} {
		b := newBench(t)
		b.patience = time.Minute
		b.cfg.Retry.First, b.cfg.Retry.Max = time.Hour, time.Hour
		b.start()
		b.api.Decide(func(_ string, n int) sandbox.Step {
			return map[bool]sandbox.Step{true: {Fault: sandbox.LoseAnswer, Then: "DELETED"}}[n == 1] // which tells nothing
		})
		b.sendPerson("case", "client-7")
		b.until("attempt case 1")
		for _, s := range b.api.Sessions("client-7") {
			for i, word := range words {
				_, err := b.journal.Hear(journal.Event{ScanRef: s.ScanRef, Said: sidecar.VerdictEvent{
					SHA256: strings.Repeat(string(rune('a'+i)), 64), Received: sidecar.Now(), By: sidecar.ByWebhook, Said: sidecar.Said{Overall: word, Final: true},
				}})
				must(t, err)
			}
		}
		b.end()
		b.cfg.Retry.First, b.cfg.Retry.Max = time.Millisecond, time.Millisecond
		b.start()
		b.want("case accepted done/case")
		if n := len(b.api.Sessions("client-7")); n != 1 {
			t.Errorf("%v: %d sessions", words, n)
		}
		b.end()
	}
}

// What an uploader puts under the name of a verdict is no verdict, nor is that
// of an earlier submission.
func TestPlantedVerdict(t *testing.T) {
	b := newBench(t)
	b.start()
	b.put("case")
	planted := []byte(`{"schema":"idenfy-batch/verdict/v1","overall":"APPROVED","final":true}`)
	must(t, os.WriteFile(filepath.Join(b.spool.Path(spool.Inbox), "case", sidecar.VerdictName), planted, 0o600))
	b.in <- b.arrival("case")
	b.want("case accepted done/case")
	dir := filepath.Join(b.spool.Path(spool.Done), "case")
	if _, err := os.Stat(filepath.Join(dir, sidecar.VerdictName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it stands as the daemon's: %v", err)
	}
	if kept, err := os.ReadFile(filepath.Join(dir, "verdict.1.json")); err != nil || !bytes.Equal(kept, planted) {
		t.Errorf("%s, %v", kept, err)
	}
	b.end()
}
