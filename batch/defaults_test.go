package batch_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"idenfy-batch/batch"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// byDefault is what a scanner's inbox has.
var byDefault = meta.Defaults{Country: "LT", DocumentType: "ID_CARD", SkipAnalysis: true, ByFolder: true, Optional: true}

func newScanner(t *testing.T) *bench {
	b := newBench(t, sandbox.Options{ManySessions: true})
	b.patience = time.Minute
	b.cfg.Defaults = map[string]meta.Defaults{"inbox": byDefault}
	return b
}

// scan makes a folder of images alone. Those of another n are others.
func (b *bench) scan(name string, n uint64) {
	b.t.Helper()
	must(b.t, sample.Write(filepath.Join(b.spool.Path(spool.Inbox), name), map[string][]byte{
		"FRONT.jpg": sample.Pad(front, len(front)+20, n), "BACK.jpg": back, "FACE.jpg": face,
	}))
	b.in <- b.arrival(name)
}

// is checks whose folder it was taken for.
func (b *bench) is(p spool.Place, name, clientID string) *sidecar.Result {
	b.t.Helper()
	r := b.result(p, name)
	if r.Session == nil || r.Session.ClientID != clientID || len(b.api.Sessions(clientID)) == 0 {
		b.t.Errorf("%s/%s is taken for %+v, want %s", p, name, r.Session, clientID)
	}
	return r
}

var no = sandbox.Step{Status: 400, Identifier: "VALIDATION_ERROR", Message: "no"}

func TestByDefault(t *testing.T) {
	b := newScanner(t)
	b.start()
	b.scan("case-7", 1)
	b.want("case-7 accepted done/case-7")
	r := b.is(spool.Done, "case-7", "case-7")
	if q := r.Request; q.Country != "LT" || q.DocumentType != "ID_CARD" || !q.SkipAnalysis || q.MetaSHA256 != "" || len(q.Images) != 3 {
		t.Errorf("%+v", q)
	}
	if want := []string{"country", "documentType", "skipAnalysis", "clientId", "meta"}; !slices.Equal(r.Defaults, want) {
		t.Errorf("by default: %v", r.Defaults)
	}
	// What meta.yaml says goes before them.
	b.send("given", "skipAnalysis: false")
	b.want("given accepted done/given")
	if r := b.result(spool.Done, "given"); r.Defaults != nil || r.Session != nil || r.Request.SkipAnalysis {
		t.Errorf("%+v", r)
	}
	must(t, sample.Write(filepath.Join(b.spool.Path(spool.Inbox), "partly"), map[string][]byte{
		"FRONT.jpg": front, "FACE.jpg": face, "meta.yaml": []byte("documentType: PASSPORT\ncountry: LV\n"),
	}))
	b.in <- b.arrival("partly")
	b.want("partly accepted done/partly")
	if r := b.is(spool.Done, "partly", "partly"); !slices.Equal(r.Defaults, []string{"skipAnalysis", "clientId"}) || r.Request.Country != "LV" || r.Request.MetaSHA256 == "" {
		t.Errorf("%+v", r)
	}
}

// What a life began with stays so, whatever becomes of the configuration until
// its end.
func TestDefaultsStay(t *testing.T) {
	for _, restart := range []bool{false, true} {
		for _, after := range []string{"the session", "an attempt"} {
			t.Run(fmt.Sprintf("after %s, restart %v", after, restart), func(t *testing.T) {
				b := newScanner(t)
				b.start()
				if after == "the session" {
					b.api.Always(&sandbox.Step{Status: 401, Identifier: "UNAUTHORIZED", Message: "no"})
				} else {
					b.api.Always(&sandbox.Step{Status: 503})
				}
				b.scan("case-7", 1)
				b.until("attempt case-7 1")
				b.cfg.Defaults = map[string]meta.Defaults{"inbox": {Country: "EE", DocumentType: "PASSPORT"}}
				if restart {
					b.end()
					b.start()
				} else {
					b.batch.Set(b.cfg)
				}
				b.api.Always(nil)
				b.batch.Set(b.cfg) // and with the account's gate shut, one tries at once
				b.want("case-7 accepted done/case-7")
				if q := b.is(spool.Done, "case-7", "case-7").Request; q.Country != "LT" || q.DocumentType != "ID_CARD" || !q.SkipAnalysis || len(b.api.Sessions("")) != 1 {
					t.Errorf("%+v", q)
				}
				// The next one is another matter.
				must(t, sample.Write(filepath.Join(b.spool.Path(spool.Inbox), "next"), map[string][]byte{
					"FRONT.jpg": front, "FACE.jpg": face, "meta.yaml": []byte("clientId: somebody\n"),
				}))
				b.in <- b.arrival("next")
				b.want("next accepted done/next")
				if q := b.is(spool.Done, "next", "somebody").Request; q.Country != "EE" || q.DocumentType != "PASSPORT" || q.SkipAnalysis {
					t.Errorf("%+v", q)
				}
			})
		}
	}
}

// A meta.yaml that somebody puts into a folder in work is not gone by.
func TestMetaPutIntoWork(t *testing.T) {
	for _, text := range []string{"country: LT\n", "clientId: case-7\ncountry: LT\ndocumentType: ID_CARD\nskipAnalysis: true\n"} {
		b := newScanner(t)
		b.api.Always(&sandbox.Step{Status: 503})
		b.start()
		b.scan("case-7", 1)
		b.until("attempt case-7 1")
		b.end()
		before := b.api.Report().Requests // a second try may have come before the end
		b.api.Always(nil)
		must(t, os.WriteFile(filepath.Join(b.spool.Path(spool.Work), b.inWork(), "meta.yaml"), []byte(text), 0o600))
		b.start()
		b.want("case-7 unknown hold/case-7")
		b.check(b.result(spool.Hold, "case-7"), slices.Repeat([]string{"answered"}, before), []string{"changed_in_work", "may_have_been_accepted"})
		if n := b.api.Report().Requests; n != before {
			t.Errorf("%d requests after it was put there", n-before)
		}
	}
}

// Whose a folder is, is told by the name that its uploader gave it, in all its
// lives; a copy is another one.
func TestNameOfLives(t *testing.T) {
	b := newScanner(t)
	b.start()
	b.api.ScriptSessions("case-7", no, no)
	b.scan("case-7", 1)
	b.want("case-7 rejected failed/case-7")
	b.scan("case-7", 2)
	b.want("case-7 rejected failed/case-7.2")
	failed, inbox := b.spool.Path(spool.Failed), b.spool.Path(spool.Inbox)
	must(t, exec.Command("cp", "-r", filepath.Join(failed, "case-7"), filepath.Join(inbox, "copy")).Run())

	b.api.ScriptSessions("case-7", no, no)
	b.decided("failed/case-7.2", sidecar.Requeued, false)
	b.want("case-7.2 rejected failed/case-7.2")
	must(t, os.Rename(filepath.Join(failed, "case-7.2"), filepath.Join(inbox, "renamed"))) // by hand
	b.in <- b.arrival("renamed")
	b.want("renamed rejected failed/renamed")
	must(t, os.RemoveAll(filepath.Join(failed, "renamed", sidecar.Name))) // it is known by itself
	must(t, os.RemoveAll(filepath.Join(failed, "renamed", "result.1.json")))
	must(t, os.RemoveAll(filepath.Join(failed, "renamed", "result.2.json")))
	must(t, os.Rename(filepath.Join(failed, "renamed"), filepath.Join(inbox, "again")))
	b.in <- b.arrival("again")
	b.want("again accepted done/again")
	b.is(spool.Done, "again", "case-7")

	b.in <- b.arrival("copy")
	b.want("copy accepted done/copy")
	b.is(spool.Done, "copy", "copy")
	// meta.yaml is how a person says that it is another one's.
	must(t, os.WriteFile(filepath.Join(failed, "case-7", "meta.yaml"), []byte("clientId: other\n"), 0o640))
	b.again(spool.Failed, "case-7")
	b.want("case-7 accepted done/case-7")
	b.is(spool.Done, "case-7", "other")
	if n := len(b.api.Sessions("case-7.2")) + len(b.api.Sessions("renamed")) + len(b.api.Sessions("again")); n != 0 {
		t.Errorf("%d sessions of nobody", n)
	}
}

// A folder whose name can't be a clientId is invalid, and a rename mends it.
func TestNameIsNoClient(t *testing.T) {
	b := newScanner(t)
	b.start()
	b.scan("Jürgen", 1)
	b.want("Jürgen invalid failed/Jürgen")
	b.check(b.result(spool.Failed, "Jürgen"), nil, []string{"bad_folder_name"})
	must(t, os.Rename(filepath.Join(b.spool.Path(spool.Failed), "Jürgen"), filepath.Join(b.spool.Path(spool.Failed), "juergen")))
	b.api.ScriptSessions("juergen", no)
	b.decided("failed/juergen", sidecar.Requeued, false)
	b.want("juergen rejected failed/juergen")
	must(t, os.Rename(filepath.Join(b.spool.Path(spool.Failed), "juergen"), filepath.Join(b.spool.Path(spool.Failed), "juergen.2")))
	b.again(spool.Failed, "juergen.2")
	b.want("juergen.2 accepted done/juergen.2")
	b.is(spool.Done, "juergen.2", "juergen")
}

// The name that a folder has in work is nobody's, also in its second life.
func TestNameOfWork(t *testing.T) {
	b := newScanner(t)
	b.start()
	name := "case-7." + spool.NewID()
	b.api.ScriptSessions("case-7", no)
	b.scan(name, 1)
	b.want(name + " rejected failed/" + name)
	b.again(spool.Failed, name)
	b.want(name + " accepted done/" + name)
	b.is(spool.Done, name, "case-7")
}

// A folder that goes back to the inbox gets no other name there, which would be
// another person's: it waits in work until its own is free.
func TestReleasedUnderItsName(t *testing.T) {
	b := newScanner(t)
	b.cfg.DiskRetry = 10 * time.Millisecond
	for n, name := range []string{"case-7", "case-8"} { // as after a crash: one of ours, and one that somebody put there
		must(t, sample.Write(filepath.Join(b.spool.Path(spool.Inbox), name), map[string][]byte{"FRONT.jpg": sample.Pad(front, len(front)+20, uint64(n)), "BACK.jpg": back, "FACE.jpg": face}))
	}
	j, err := journal.Open(b.where)
	must(t, err)
	id := spool.NewID()
	must(t, j.Claim(id, "inbox", "case-7"))
	_, err = b.spool.Paths().Claim(spool.Inbox, "case-7", id)
	must(t, err)
	must(t, j.Close())
	must(t, os.Rename(filepath.Join(b.spool.Path(spool.Inbox), "case-8"), filepath.Join(b.spool.Path(spool.Work), "case-8")))
	b.start()
	b.until("released case-7: ")
	b.until("released case-8: ")
	b.end()

	j, err = journal.Open(b.where)
	must(t, err)
	id = spool.NewID()
	must(t, j.Claim(id, "inbox", "case-7"))
	_, err = b.spool.Paths().Claim(spool.Inbox, "case-7", id)
	must(t, err)
	must(t, j.Close())
	inbox := b.spool.Path(spool.Inbox)
	must(t, sample.Write(filepath.Join(inbox, "case-7"), map[string][]byte{"FRONT.jpg": sample.Pad(front, len(front)+20, 9), "BACK.jpg": back, "FACE.jpg": face}))
	b.start()
	b.until("stuck case-7 in work: it can't go back to the inbox (the daemon ended before it sent anything): another folder of its name is there; it goes there when that one was taken")
	b.in <- b.arrival("case-7")
	b.want("case-7 accepted done/case-7")
	b.until("released case-7: ")
	b.in <- b.arrival("case-7")
	b.want("case-7 accepted done/case-7.2")
	b.is(spool.Done, "case-7.2", "case-7")
	b.is(spool.Done, "case-7", "case-7")
	if n := len(b.api.Sessions("")); n != 2 {
		t.Errorf("%d sessions", n)
	}
}

// Submit goes by the defaults as the daemon does, and by those of before where it
// goes on.
func TestSubmitByDefault(t *testing.T) {
	b := newScanner(t)
	dir := filepath.Join(t.TempDir(), "case-7")
	must(t, sample.Write(dir, map[string][]byte{"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face}))
	client := idenfy.New(idenfy.Options{BaseURL: b.url, Key: "k", Secret: "s", Timeout: time.Minute})
	defer client.Close()
	j, err := journal.Open(b.where)
	must(t, err)
	defer j.Close()
	b.cfg.API, b.cfg.Rate = client, rate.NewLimiter(rate.Inf, 1)
	state := t.TempDir()
	submit := func(d meta.Defaults) (*sidecar.Result, error) {
		root, err := os.OpenRoot(dir)
		must(t, err)
		defer root.Close()
		b.cfg.Defaults = map[string]meta.Defaults{"inbox": d}
		one := batch.New(b.cfg, nil, j, func(events.Event) {})
		must(t, one.KeepTokens(t.Context(), state))
		return one.Submit(t.Context(), root, filepath.Base(dir))
	}
	b.api.Always(&sandbox.Step{Status: 503})
	if res, err := submit(byDefault); err == nil || res == nil || res.Outcome.Final() {
		t.Fatalf("%+v, %v", res, err)
	}
	b.api.Always(nil)
	must(t, os.Rename(dir, dir+"-renamed"))
	dir += "-renamed"
	res, err := submit(meta.Defaults{})
	if must(t, err); res.Outcome != sidecar.Accepted || res.Session.ClientID != "case-7" || res.Request.Country != "LT" || len(b.api.Sessions("case-7")) != 1 {
		t.Fatalf("%+v", res)
	}
}
