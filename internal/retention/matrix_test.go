package retention_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/retention"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

var matrixPart = flag.Int("matrix", 1, "the part of the faults that is tried: 1 of these")

// plan says which step of the disk fails, and how.
type plan struct {
	n       int64 // counted from 1; 0: none
	applied bool  // it is done, and fails all the same
	crash   bool  // the process ends there: no later step is done

	calls  atomic.Int64
	dead   atomic.Bool
	failed atomic.Value
}

var errInjected = fmt.Errorf("injected: %w", syscall.EIO)

func (p *plan) step(op durable.Op, path string, do func() error) error {
	if p.dead.Load() {
		return errInjected
	}
	if p.calls.Add(1) != p.n {
		return do()
	}
	p.failed.Store(fmt.Sprintf("%s %s", op, filepath.Base(path)))
	p.dead.Store(p.crash)
	if p.applied {
		return errors.Join(do(), errInjected)
	}
	return errInjected
}

// plans are those of the spools that are under test, by their roots.
var plans sync.Map

var usePlans = sync.OnceFunc(func() {
	durable.Inject(func(op durable.Op, path string, do func() error) error {
		var p *plan
		plans.Range(func(root, v any) bool {
			if strings.HasPrefix(path, root.(string)+"/") {
				p = v.(*plan)
			}
			return p == nil
		})
		if p == nil {
			return do()
		}
		return p.step(op, path, do)
	})
})

// missing returns which of the uploaded files are not in the folder.
func (a *archive) missing(p spool.Place, name string) (gone []string) {
	a.t.Helper()
	for file := range uploaded {
		if _, err := os.Lstat(a.path(p, name, file)); err != nil {
			gone = append(gone, file)
		}
	}
	slices.Sort(gone)
	return gone
}

// recorded fails the test when something of the folder is gone without an entry
// of the ledger and a record in the journal that say so; and, where settled, when
// something is recorded as deleted that is there, or any of the four says
// something else.
func (a *archive) recorded(what string, p spool.Place, name string, settled bool) {
	a.t.Helper()
	id := a.ids[name]
	l, err := a.j.Load(a.t.Context(), id)
	must(a.t, err)
	listed := func(r *sidecar.Result) map[string]bool {
		all := map[string]bool{}
		for _, purge := range r.Purges {
			for _, d := range purge.Files {
				all[d.File] = true
			}
		}
		return all
	}
	known, gone, entered := listed(l.Result), a.missing(p, name), len(a.entries(id, ledger.Purged))
	for _, file := range gone {
		if !known[file] || entered == 0 || !listed(a.result(p, name))[file] {
			a.t.Errorf("%s: %s is gone, and that is not recorded everywhere: journal %v, %d entries", what, file, known, entered)
		}
	}
	if !settled {
		return
	}
	for file := range known {
		if _, err := os.Lstat(a.path(p, name, file)); err == nil {
			a.t.Errorf("%s: %s is recorded as deleted, and is there", what, file)
		}
	}
	if (len(known) > 0) != (entered > 0) {
		a.t.Errorf("%s: %d entries, and the journal has %v", what, entered, known)
	}
	open, err := a.j.Purging(a.t.Context())
	must(a.t, err)
	if len(open) > 0 {
		a.t.Errorf("%s: %v is still open", what, open)
	}
	if found := a.verify(); len(found) > 0 {
		a.t.Errorf("%s: verify: %v", what, found)
	}
}

// purgeFails makes a purge with one fault, and returns what failed.
func purgeFails(t *testing.T, p *plan, remote bool) string {
	a := newArchive(t)
	a.fold(spool.Done, "case", func(l *journal.Life) { l.ScanRef = ref })
	must(t, a.j.SetAdopted())
	var asked atomic.Int64
	answer := func(context.Context, string) error {
		if p.dead.Load() {
			return &idenfy.Error{Class: idenfy.NotSent}
		}
		asked.Add(1)
		return nil
	}
	a.k.Delete = answer
	plans.Store(a.root, p)
	defer plans.Delete(a.root)
	ask := retention.Ask{Listed: true, List: []string{"case"}, Yes: true, Remote: remote, By: clerk}
	_, _ = a.k.Pass(t.Context(), ask) // it may fail
	failed, _ := p.failed.Load().(string)
	what := fmt.Sprintf("step %d, %s, applied %v, crash %v", p.n, failed, p.applied, p.crash)
	p.dead.Store(false)
	if p.crash {
		a.restart()
		a.k.Delete = answer
	}
	a.recorded(what, spool.Done, "case", false)
	must(t, a.k.Finish(t.Context()))
	a.recorded(what+", finished", spool.Done, "case", true)
	if n := asked.Load(); n > 1 || n == 1 != remote && (p.n == 0 || !remote) {
		t.Errorf("%s: iDenfy was asked %d times", what, n)
	}
	begun := len(a.missing(spool.Done, "case")) > 0
	if begun && len(a.missing(spool.Done, "case")) != len(uploaded) {
		t.Errorf("%s: half of it is gone: %v", what, a.missing(spool.Done, "case"))
	}
	for _, purge := range a.result(spool.Done, "case").Purges {
		if d := purge.Remote; d != nil && (d.State == sidecar.Sending || d.Done() && asked.Load() == 0) {
			t.Errorf("%s: of iDenfy it says %+v", what, d)
		}
	}
	// The same command again makes what was not made.
	_, err := a.k.Pass(t.Context(), ask)
	must(t, err)
	a.recorded(what+", again", spool.Done, "case", true)
	purges := a.result(spool.Done, "case").Purges
	if len(a.missing(spool.Done, "case")) != len(uploaded) || remote && !purges[len(purges)-1].Remote.Done() {
		t.Errorf("%s: again: %+v", what, purges)
	}
	return failed
}

// Each step of the disk in a purge fails, once without having been done and once
// after it was, and the process lives on, or ends there and starts anew: what is
// gone is on record, what is on record is gone after the next start, and a purge
// is finished or not begun.
func TestMatrix(t *testing.T) {
	usePlans()
	var faults atomic.Int64
	var steps sync.Map
	t.Run("purges", func(t *testing.T) {
		for _, remote := range []bool{false, true} {
			clean := &plan{}
			purgeFails(t, clean, remote)
			last := clean.calls.Load()
			if last < 15 {
				t.Fatalf("only %d steps are seen", last)
			}
			variant := int(last)
			for n := range last {
				for _, applied := range []bool{false, true} {
					for _, crash := range []bool{false, true} {
						if variant++; variant%*matrixPart != 0 {
							continue
						}
						t.Run(fmt.Sprintf("%v,%d,%v,%v", remote, n+1, applied, crash), func(t *testing.T) {
							t.Parallel()
							if failed := purgeFails(t, &plan{n: n + 1, applied: applied, crash: crash}, remote); failed != "" {
								op, _, _ := strings.Cut(failed, " ")
								steps.Store(op, true)
								faults.Add(1)
							}
						})
					}
				}
			}
		}
	})
	var met []string
	steps.Range(func(op, _ any) bool { met = append(met, op.(string)); return true })
	slices.Sort(met)
	if want := []string{"commit", "fchmod", "fsync", "openat", "renameat", "unlinkat", "write"}; *matrixPart == 1 && !slices.Equal(met, want) {
		t.Errorf("failed were %v, want %v", met, want)
	}
	t.Logf("purges: %d faults, 0 deleted without a record, 0 records of what is there", faults.Load())
}
