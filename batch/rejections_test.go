package batch_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
)

// When all are rejected with the same words the inbox does not drain into
// failed: submission pauses, also over a restart, and one folder at a time
// tries. The first other answer ends it.
func TestAllRejected(t *testing.T) {
	b := newBench(t)
	b.cfg.Concurrency, b.cfg.Rejections = 1, 5
	b.cfg.Retry.First, b.cfg.Retry.Max = time.Hour, time.Hour
	b.api.Always(&sandbox.Step{Status: 400, Identifier: "VALIDATION_ERROR", Message: "documentType: unknown field"})
	b.start()
	const folders = 12
	for n := range 3 {
		b.send(fmt.Sprintf("case%02d", n))
		b.want(fmt.Sprintf("case%02d rejected failed/case%02d", n, n))
	}
	b.end() // it is counted on
	b.start()
	for n := 3; n < 5; n++ {
		b.send(fmt.Sprintf("case%02d", n))
		b.want(fmt.Sprintf("case%02d rejected failed/case%02d", n, n))
	}
	b.until("shut account, 1 tries: 5 folders were rejected for the same reason, VALIDATION_ERROR")
	for n := 5; n < folders; n++ {
		b.put(fmt.Sprintf("case%02d", n))
	}
	feed := func() {
		a := make([]string, 0, folders)
		for n := 5; n < folders; n++ {
			if name := fmt.Sprintf("case%02d", n); b.inInbox(name) {
				a = append(a, name)
			}
		}
		in := b.in
		for _, name := range a {
			arrival := b.arrival(name)
			go func() {
				select {
				case in <- arrival:
				case <-t.Context().Done():
				}
			}()
		}
	}
	b.end()
	b.start()
	b.until("shut account")
	feed()
	time.Sleep(200 * time.Millisecond)
	if n := b.api.Report().Requests; n != 5 || b.inbox() != folders-5 {
		t.Errorf("%d requests, %d in the inbox", n, b.inbox())
	}
	b.batch.Set(b.cfg) // a reload: one tries
	if end := <-b.ev.ended; !strings.Contains(end, "rejected") {
		t.Error(end)
	}
	b.until("shut account, 2 tries")
	if n := b.api.Report().Requests; n != 6 {
		t.Errorf("%d requests", n)
	}
	b.api.Always(nil)
	b.batch.Set(b.cfg)
	for range folders - 6 {
		if end := <-b.ev.ended; !strings.Contains(end, "accepted") {
			t.Error(end)
		}
	}
	b.until("opened account")
	if names, err := b.spool.List(spool.Failed); err != nil || len(names) != 6 {
		t.Errorf("failed: %v, %v", names, err)
	}
}

// Off, and with other words, all are rejected.
func TestRejectedForTheirOwn(t *testing.T) {
	for name, c := range map[string]struct {
		most int
		step func(string) sandbox.Step
	}{
		"off": {0, func(string) sandbox.Step { return sandbox.Step{Status: 400, Identifier: "BAD_VALUE", Message: "no"} }},
		"other words": {3, func(tok string) sandbox.Step {
			return sandbox.Step{Status: 400, Identifier: "BAD_VALUE", Message: tok[:12]}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.cfg.Rejections = c.most
			b.api.Decide(func(tok string, _ int) sandbox.Step { return c.step(tok) })
			b.start()
			for n := range 9 {
				b.send(fmt.Sprintf("case%02d", n))
			}
			for range 9 {
				<-b.ev.ended
			}
			if b.ev.has("shut") {
				t.Error(b.ev.all())
			}
			names, err := b.spool.List(spool.Failed)
			must(t, err)
			if slices.Sort(names); len(names) != 9 {
				t.Errorf("failed: %v", names)
			}
		})
	}
}

// A scanner that gives all its folders one name is stopped as well.
func TestRejectedUnderOneName(t *testing.T) {
	b := newBench(t)
	b.cfg.Concurrency, b.cfg.Rejections = 1, 3
	b.api.Always(&sandbox.Step{Status: 400, Identifier: "VALIDATION_ERROR", Message: "documentType: unknown field"})
	b.start()
	for _, name := range []string{"scan", "scan.2", "scan.3"} {
		b.send("scan")
		b.want("scan rejected failed/" + name)
	}
	b.until("shut account, 1 tries: 3 folders were rejected for the same reason, VALIDATION_ERROR")
}

// So are those that are refused a session, all with the same words; also over a
// restart.
func TestAllRefusedSessions(t *testing.T) {
	b := newBench(t)
	b.cfg.Concurrency, b.cfg.Rejections = 1, 3
	b.cfg.Retry.First, b.cfg.Retry.Max = time.Hour, time.Hour
	b.api.AlwaysSession(&sandbox.Step{Status: 400, Identifier: "VALIDATION_ERROR", Message: "clientId: unknown field"})
	b.start()
	for n := range 3 {
		if n == 2 {
			b.end() // it is counted on
			b.start()
		}
		b.sendPerson(fmt.Sprintf("case%02d", n), fmt.Sprintf("client-%d", n))
		b.want(fmt.Sprintf("case%02d rejected failed/case%02d", n, n))
	}
	b.until("shut account, 1 tries: 3 folders were rejected for the same reason, VALIDATION_ERROR")
}
