package batch_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"idenfy-batch/batch"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/sample"
	"idenfy-batch/sidecar"
)

// Killed after the spool's journal was told, and before there is a result, or
// without an answer from there: the next submit goes on with the same life, and
// does not meet its own first one.
func TestSubmitKilledBeforeTheResult(t *testing.T) {
	b := newBench(t)
	dir := filepath.Join(t.TempDir(), "case")
	must(t, sample.Write(dir, map[string][]byte{"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face, "meta.yaml": []byte(text("x"))}))
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	client := idenfy.New(idenfy.Options{BaseURL: b.url, Key: "k", Secret: "s", Timeout: time.Second})
	defer client.Close()
	spools, err := journal.Open(b.where)
	must(t, err)
	defer spools.Close()
	where := journal.Where{Dir: filepath.Join(t.TempDir(), "own"), Mark: t.TempDir()}
	own, err := journal.Create(where)
	must(t, err)
	defer func() { must(t, own.Close()) }()
	b.cfg.API, b.cfg.Rate = client, rate.NewLimiter(rate.Inf, 1)
	var ids []string
	submit := func(after func() error) (res *sidecar.Result, err error) {
		one := batch.New(b.cfg, nil, own, func(events.Event) {})
		one.Share(func(_ context.Context, l *journal.Life) error {
			a, err := spools.Outside(l)
			must(t, err)
			ids = append(ids, l.ID)
			if a.Verdict != journal.Send {
				return &batch.RefusedError{Why: "by the spool's journal"}
			}
			return after()
		})
		defer func() {
			if recover() != nil {
				err = errors.New("killed")
			}
		}()
		return one.Submit(t.Context(), root, "case")
	}
	if res, err := submit(func() error { panic("killed") }); err == nil {
		t.Fatalf("%+v", res)
	}
	must(t, own.Close())
	own, err = journal.Open(where)
	must(t, err)
	if res, err := submit(func() error { return errors.New("no answer") }); err == nil {
		t.Fatalf("%+v", res)
	}
	res, err := submit(func() error { return nil })
	if err != nil || res.Outcome != sidecar.Accepted || res.ID != ids[0] {
		t.Fatalf("as %v: %+v, %v", ids, res, err)
	}
	if l, err := spools.Load(t.Context(), res.ID); err != nil || l.Fate != journal.Taken {
		t.Errorf("%+v, %v", l, err)
	}
}
