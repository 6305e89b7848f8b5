package daemon

import (
	"cmp"
	"context"
	"fmt"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
)

// outside enters a submission that the daemon does not make itself, or says why
// it is not to be made.
func (d *daemon) outside(_ context.Context, s control.Submission) error {
	return enterOutside(d.journal, s)
}

// Outside is what a running daemon does with a submission, while none runs: it
// holds the spool's lock meanwhile.
func Outside(cfg *config.Config, s control.Submission) error {
	lock, err := spool.Lock(cfg.Spool())
	if err != nil {
		return err
	}
	defer lock.Close()
	j, err := journal.Open(Journal(cfg))
	if err != nil {
		return fmt.Errorf("the journal of the spool: %w", err)
	}
	defer j.Close()
	return enterOutside(j, s)
}

func enterOutside(j *journal.Journal, s control.Submission) error {
	if s.Result == nil || s.Result.ID == "" {
		return &control.RefusedError{Why: "there is no result"}
	}
	l := &journal.Life{ID: s.Result.ID, Fate: journal.Fate(s.Fate), Token: s.Result.Request.TokenSHA256, Dir: s.Dir, Prior: s.Prior, Result: s.Result, ClientID: s.ClientID, Content: s.Content}
	if s.Result.Session != nil {
		l.ScanRef = s.Result.Session.ScanRef
	}
	a, err := j.Outside(l)
	if err != nil {
		return err
	}
	other, resolve := meta.Show(a.Other.Where()), cmp.Or(a.Other.Name, a.Other.ID)
	switch a.Verdict {
	case journal.Before:
		return &control.RefusedError{Why: fmt.Sprintf("by the journal of the spool it, or its authToken or clientId with these images, was accepted already (%s, submission %s); it is not sent again", other, a.Other.ID)}
	case journal.Maybe:
		return &control.RefusedError{Why: fmt.Sprintf("by the journal of the spool it, or its authToken or clientId with these images, may have been accepted already (%s, submission %s); look the session up in the iDenfy dashboard, and say how that one ended: idenfy-batch resolve %s --accepted or --rejected", other, a.Other.ID, meta.Show(resolve))}
	case journal.Wait:
		return &control.RefusedError{Why: fmt.Sprintf("the daemon is submitting it, or another folder with its authToken, or its clientId and images (%s); it is not sent beside it", other)}
	default:
		return nil
	}
}
