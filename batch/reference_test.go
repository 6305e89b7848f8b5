package batch_test

import (
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// A scanRef that is another folder's tells nothing: of a session that the daemon
// opened for that one, or of one that came with another token.
func TestScanRefOfAnother(t *testing.T) {
	for _, opened := range []bool{true, false} {
		b := newBench(t)
		b.patience = time.Minute
		b.start()
		ref := "328c6766-934e-11ed-bb9b-025ad99a18e7"
		if opened {
			b.sendPerson("a", "client-7")
			b.want("a accepted done/a")
			ref = b.result(spool.Done, "a").Session.ScanRef
			for tok := range b.api.Sessions("client-7") {
				b.api.SetStatus(tok, "APPROVED")
			}
		} else {
			b.api.Issue(token("a"), ref)
			b.send("a", "scanRef: "+ref)
			b.want("a accepted done/a")
			b.api.SetStatus(token("a"), "APPROVED")
		}
		b.api.Script(token("b"), sandbox.Step{Fault: sandbox.ResetInBody}, sandbox.Step{Status: 400, Identifier: "TOKEN_NOT_VALID", Message: "Token is not valid"})
		b.send("b", "scanRef: "+ref)
		b.want("b unknown hold/b")
		r := b.result(spool.Hold, "b")
		b.check(r, []string{"no_answer", "answered"}, []string{"may_have_been_accepted"})
		if m := r.Reasons[0].Message; !strings.Contains(m, "also another folder's, done/a") {
			t.Error(m)
		}
		// It comes again, and a person decides.
		b.again(spool.Hold, "b")
		b.want("b unknown hold/b")
		must(t, b.decide("hold/b", sidecar.Denied, false))
		if n := b.api.Report().Status; n != 0 {
			t.Errorf("opened %v: %d questions", opened, n)
		}
	}
}
