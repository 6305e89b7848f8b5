// Package decision owns what a person may decide about a folder that has
// ended: that it goes to the inbox again, or how a held one ended. It refuses
// what might be a second submission, and records in result.json who decided
// what and when.
package decision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Decision is what is decided, and by whom.
type Decision struct {
	Action  sidecar.Action
	By      sidecar.Person
	Force   bool // though it might be a second submission
	Comment string
}

// Desk is where decisions are made. The daemon may run meanwhile: it looks at
// no folder that has ended.
type Desk struct {
	Paths spool.Paths
	// Status asks once for the state of a session. It may be nil.
	Status func(ctx context.Context, scanRef string) (idenfy.Taken, string, error)
}

// RefusedError says why a decision is refused, and what to do.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

func refuse(format string, args ...any) error { return &RefusedError{fmt.Sprintf(format, args...)} }

// Make makes a decision about the folder name, which may begin with its place
// and a slash. It returns where the folder lies then. The record is on the
// disk before the folder moves: after a crash in between, Make it again.
func (d *Desk) Make(ctx context.Context, name string, dec Decision) (place spool.Place, newName string, err error) {
	from, name, err := d.find(name, dec.Action)
	if err != nil {
		return "", "", err
	}
	parent, err := os.OpenRoot(d.Paths[from])
	if err != nil {
		return "", "", err
	}
	defer parent.Close()
	dir, err := drop.Open(parent, name)
	if err != nil {
		return "", "", err
	}
	defer dir.Close()
	unlock, err := spool.LockFolder(dir)
	if errors.Is(err, spool.ErrLocked) {
		return "", "", refuse("another idenfy-batch is at work on it")
	}
	if err != nil {
		return "", "", err
	}
	defer unlock()
	res, err := sidecar.Read(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, sidecar.ErrNotOurs) {
		return "", "", refuse("it has no %s that idenfy-batch wrote, so nothing is known about it; if it was never submitted, move it to the inbox yourself (mv)", sidecar.Name)
	}
	if err != nil {
		return "", "", err
	}
	if err := d.allowed(ctx, dir, from, name, res, dec); err != nil {
		return "", "", err
	}
	to := spool.Inbox
	was := res.Outcome
	switch dec.Action {
	case sidecar.Confirmed:
		to, res.Outcome = spool.Done, sidecar.Accepted
	case sidecar.Denied:
		to, res.Outcome = spool.Failed, sidecar.Rejected
	}
	if !res.Decided(dec.Action) { // else a crash came before the move
		res.Decisions = append(res.Decisions, sidecar.Decision{
			At: sidecar.Now(), Action: dec.Action, By: dec.By, Forced: dec.Force,
			Comment: dec.Comment, Result: res.ID, Outcome: was,
		})
		if to.Final() {
			res.Reasons = append(res.Reasons, sidecar.Reason{
				Code: "decided_by_person", Source: sidecar.FromDaemon,
				Message: fmt.Sprintf("a person decided that it was %s, see decisions", dec.Action),
			})
		}
		if err := sidecar.Write(dir, res); err != nil {
			return "", "", err
		}
	}
	newName, err = d.Paths.Revise(from, name, to)
	return to, newName, err
}

// find returns the folder's place and plain name.
func (d *Desk) find(name string, action sidecar.Action) (spool.Place, string, error) {
	usual, others := spool.Hold, []spool.Place{spool.Done, spool.Failed}
	if action == sidecar.Requeued {
		usual, others = spool.Failed, []spool.Place{spool.Hold, spool.Done}
	}
	search := append([]spool.Place{usual}, others...)
	if before, after, ok := strings.Cut(name, "/"); ok && spool.Place(before).Final() {
		search, name = []spool.Place{spool.Place(before)}, strings.TrimSuffix(after, "/")
	}
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/') {
		return "", "", refuse("give a folder's name, such as case-7 or %s/case-7, not a path", usual)
	}
	for _, p := range search {
		if info, err := os.Lstat(filepath.Join(d.Paths[p], name)); err == nil && info.IsDir() {
			return p, name, nil
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", "", fmt.Errorf("%s: %w; run this as root or as the daemon's user", p, err)
		}
	}
	there, err := d.Paths.List(usual)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w; run this as root or as the daemon's user", usual, err)
	}
	slices.Sort(there)
	for i := range there {
		there[i] = meta.Show(there[i])
	}
	switch n := len(there); {
	case n == 0:
		return "", "", refuse("there is no such folder, and %s is empty", usual)
	case n > 5:
		return "", "", refuse("there is no such folder; in %s there are %s and %d more", usual, strings.Join(there[:5], ", "), n-5)
	default:
		return "", "", refuse("there is no such folder; in %s there is %s", usual, strings.Join(there, ", "))
	}
}

const force = "If that is what you want, repeat it with --force, which is recorded"

// allowed refuses what makes no sense, and without force what might be a
// second submission, or contradicts what the service says.
func (d *Desk) allowed(ctx context.Context, dir *os.Root, from spool.Place, name string, res *sidecar.Result, dec Decision) error {
	name = meta.Show(name)
	switch {
	case dec.Action == sidecar.Requeued && from == spool.Hold:
		return refuse("it is held because it may have been accepted. Look the session up in the iDenfy dashboard, then: idenfy-batch resolve %s --accepted, --rejected or --resubmit", name)
	case dec.Action == sidecar.Requeued && !dec.Force && res.WasAccepted():
		return refuse("it was accepted before (%s, %s); the same token is not accepted twice, and a person's data would be sent a second time. %s", res.ID, res.Times.Finished.Format("2006-01-02 15:04"), force)
	case dec.Action == sidecar.Requeued && !dec.Force && (res.Outcome == sidecar.Unknown || !res.Outcome.Final()):
		return refuse("its %s says %s, so it may have been accepted. %s", sidecar.Name, res.Outcome, force)
	case dec.Action == sidecar.Requeued || dec.Force:
		return nil
	case from != spool.Hold:
		return refuse("it is in %s, and only what is in hold has to be resolved", from)
	}
	taken, word, err := d.ask(ctx, dir)
	if err != nil {
		// The person's word is all there is, so it has to be given as such.
		return refuse("whether it was accepted can't be found out (%v). Look the session up in the iDenfy dashboard; if that shows what you say, repeat this with --force, which is recorded", err)
	}
	switch {
	case dec.Action == sidecar.Resubmit && taken == idenfy.TokenExpired:
		return refuse("the session's status is %s: its token would be refused. Resolve it as --rejected, and drop the folder again with a new token", word)
	case (dec.Action != sidecar.Confirmed) && taken == idenfy.WasTaken:
		return refuse("the session's status is %s, so the documents were taken: resolve it as --accepted. %s", word, force)
	case dec.Action == sidecar.Confirmed && taken != idenfy.WasTaken:
		return refuse("the session's status is %s, so the documents were not taken. %s", word, force)
	}
	return nil
}

// ask asks once for the session's state.
func (d *Desk) ask(ctx context.Context, dir *os.Root) (idenfy.Taken, string, error) {
	m, err := meta.Read(dir)
	switch {
	case err != nil:
		return 0, "", err
	case m.ScanRef == "":
		return 0, "", errors.New("there is no scanRef in meta.yaml")
	case d.Status == nil:
		return 0, "", errors.New("there are no API credentials")
	}
	taken, word, err := d.Status(ctx, m.ScanRef)
	if err == nil && taken == idenfy.TakenUnknown {
		err = fmt.Errorf("the session's status is %s", word)
	}
	return taken, word, err
}
