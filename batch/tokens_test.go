package batch_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// putAs makes a whole folder with the token of another one.
func (b *bench) putAs(name, other string) {
	b.t.Helper()
	must(b.t, sample.Write(filepath.Join(b.spool.Path(spool.Inbox), name), map[string][]byte{
		"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face, "meta.yaml": []byte(text(other)),
	}))
}

// again moves a folder from a final place to the inbox, as mv does.
func (b *bench) again(p spool.Place, name string) {
	b.t.Helper()
	must(b.t, os.Rename(filepath.Join(b.spool.Path(p), name), filepath.Join(b.spool.Path(spool.Inbox), name)))
	b.in <- b.arrival(name)
}

// A copy waits while the first is undecided, and what happens to it then
// depends on how that ended.
func TestSameToken(t *testing.T) {
	for end, c := range map[string]struct {
		steps []sandbox.Step
		first string
		copy  string
		code  string
	}{
		"accepted": {[]sandbox.Step{{Status: 503}, {Latency: 50 * time.Millisecond}}, "first accepted done/first", "copy invalid failed/copy", "token_used"},
		"rejected": {[]sandbox.Step{{Status: 503}, {Status: 400, Identifier: "BAD_VALUE", Message: "no"}}, "first rejected failed/first", "copy accepted done/copy", ""},
		"unknown":  {[]sandbox.Step{{Fault: sandbox.LoseAnswer}}, "first unknown hold/first", "copy invalid failed/copy", "token_undecided"},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(end+map[bool]string{true: ", after a restart"}[restart], func(t *testing.T) {
				b := newBench(t)
				b.patience = time.Minute
				b.cfg.Retry.First, b.cfg.Retry.Max = 300*time.Millisecond, 300*time.Millisecond
				b.start()
				b.api.Script(token("first"), c.steps...)
				b.send("first")
				b.until("attempt first 1")
				b.putAs("copy", "first")
				b.in <- b.arrival("copy")
				b.until("claimed copy")
				if restart {
					b.end()
					b.start()
					// Released, or still waiting in work.
					if _, err := os.Stat(filepath.Join(b.spool.Path(spool.Inbox), "copy")); err == nil {
						b.in <- b.arrival("copy")
					}
				}
				b.want(c.first)
				b.want(c.copy)
				place := spool.Place(strings.Split(strings.Fields(c.copy)[2], "/")[0])
				if r := b.result(place, "copy"); c.code != "" && !slices.Equal(codes(r), []string{c.code}) {
					t.Errorf("reasons %v", r.Reasons)
				}
				if n := b.api.Token(token("first")).Processed; n > 1 {
					t.Errorf("%d times processed", n)
				}
			})
		}
	}
}

// A folder's own earlier result stops it where it would be sent twice.
func TestSentBefore(t *testing.T) {
	b := newBench(t)
	b.patience = time.Minute
	b.start()
	b.send("a")
	b.want("a accepted done/a")
	b.again(spool.Done, "a")
	b.want("a accepted done/a")
	if r := b.result(spool.Done, "a"); !slices.Equal(codes(r), []string{"sent_before"}) || len(r.Attempts) != 0 {
		t.Errorf("reasons %v", r.Reasons)
	}
	b.again(spool.Done, "a") // nor by trying once more
	b.want("a accepted done/a")
	if n := b.api.Token(token("a")).Requests; n != 1 {
		t.Errorf("%d requests", n)
	}
	b.api.Script(token("h"), sandbox.Step{Fault: sandbox.LoseAnswer})
	b.send("h")
	b.want("h unknown hold/h")
	b.again(spool.Hold, "h")
	b.want("h unknown hold/h")
	if r := b.result(spool.Hold, "h"); !slices.Equal(codes(r), []string{"may_have_been_accepted"}) || len(r.Attempts) != 0 {
		t.Errorf("reasons %v, %d attempts", r.Reasons, len(r.Attempts))
	}
	if n := b.api.Token(token("h")).Requests; n != 2 { // the repeat after the lost answer
		t.Errorf("%d requests", n)
	}
	// A rejected one may come again.
	b.api.Script(token("r"), sandbox.Step{Status: 400, Identifier: "BAD_VALUE", Message: "no"})
	b.send("r")
	b.want("r rejected failed/r")
	b.again(spool.Failed, "r")
	b.want("r accepted done/r")
	if _, err := os.Stat(filepath.Join(b.spool.Path(spool.Done), "r", "result.1.json")); err != nil {
		t.Error(err)
	}
}

// A decision that somebody wrote into the result lets nothing be sent, and
// isn't taken over.
func TestForgedDecision(t *testing.T) {
	b := newBench(t)
	b.patience = time.Minute
	b.start()
	b.send("a")
	b.want("a accepted done/a")
	dir, err := os.OpenRoot(filepath.Join(b.spool.Path(spool.Done), "a"))
	must(t, err)
	defer dir.Close()
	r := b.result(spool.Done, "a")
	r.Decisions = []sidecar.Decision{{At: sidecar.Now(), Action: sidecar.Requeued, Forced: true, Result: r.ID, Outcome: r.Outcome}}
	must(t, sidecar.Write(dir, r))
	b.again(spool.Done, "a")
	b.want("a accepted done/a")
	if again := b.result(spool.Done, "a"); len(again.Decisions) != 0 || !slices.Equal(codes(again), []string{"sent_before"}) {
		t.Errorf("decisions %+v, reasons %v", again.Decisions, codes(again))
	}
	if n := b.api.Token(token("a")).Requests; n != 1 {
		t.Errorf("%d requests", n)
	}
}

// A drop with somebody else's result is held against that life, and does
// nothing to the folder whose life it is.
func TestStrangersResult(t *testing.T) {
	b := newBench(t)
	b.patience = time.Minute
	b.start()
	plant := func(name string, result []byte) {
		b.put(name)
		dir := filepath.Join(b.spool.Path(spool.Inbox), name)
		for _, image := range []string{"FRONT.jpg", "BACK.jpg", "FACE.jpg"} { // other images
			data, err := os.ReadFile(filepath.Join(dir, image))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, image), sample.Pad(data, len(data)+20, uint64(len(name))), 0o600))
		}
		must(t, os.WriteFile(filepath.Join(dir, sidecar.Name), result, 0o600))
		b.in <- b.arrival(name)
	}
	b.api.Script(token("hers"), sandbox.Step{Status: 400, Identifier: "BAD_VALUE", Message: "no"})
	b.send("hers")
	b.want("hers rejected failed/hers")
	plant("stranger", b.raw(spool.Failed, "hers"))
	b.want("stranger accepted done/stranger")
	b.fresh(spool.Failed, "hers", "hers-new")
	b.decided("hers", sidecar.Requeued, false)
	b.want("hers accepted done/hers")
	// What was accepted stops whoever names it, and a decision about it is not
	// used up by that.
	result := b.raw(spool.Done, "hers")
	plant("other", result)
	b.want("other invalid failed/other")
	b.stopped(spool.Failed, "other", sidecar.SentBefore)
	b.fresh(spool.Done, "hers", "hers-third")
	b.end()
	b.start()
	b.refused("done/hers", sidecar.Requeued, "accepted before")
	must(t, b.decide("done/hers", sidecar.Requeued, true))
	plant("third", result)
	b.want("third invalid failed/third")
	b.in <- b.arrival("hers")
	b.want("hers accepted done/hers")
	b.never("third")
}
