package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"idenfy-batch/internal/adopt"
	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/spool"
)

// OpenJournal opens the journal of a spool whose lock is held. A spool that
// never had one is adopted: all that its folders tell is entered first. A
// journal that is missing where there has been one, or that doesn't fit, is a
// *journal.UnfitError.
func OpenJournal(ctx context.Context, w journal.Where, paths spool.Paths, emit events.Sink) (*journal.Journal, error) {
	exists, err := w.Exists()
	if err != nil {
		return nil, fmt.Errorf("the journal: %w", err)
	}
	var j *journal.Journal
	if exists {
		j, err = journal.Open(w)
	} else {
		j, err = journal.Create(w)
	}
	if err != nil {
		return nil, fmt.Errorf("the journal: %w", err)
	}
	j.Tell(func(err error) {
		emit(events.Trouble{What: "the journal could not be looked at for damage, which is tried again", Err: err})
	})
	done, err := j.Adopted(ctx)
	if err == nil && !done { // made just now, or an adoption was cut off
		err = enter(ctx, j, w, paths, emit)
	}
	if err == nil {
		err = intoLedger(ctx, j, paths, func(done, total int) {
			emit(events.Adopted{Folders: done, Total: total, Done: done == total, Ledger: true})
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the journal: %w", err), j.Close())
	}
	return j, nil
}

// enter adopts the spool into a journal that isn't complete.
func enter(ctx context.Context, j *journal.Journal, w journal.Where, paths spool.Paths, emit events.Sink) error {
	virgin, err := j.Empty(ctx) // else an adoption was cut off
	if err != nil {
		return err
	}
	unread, err := adopt.Spool(ctx, paths, j, virgin, func(done, total int) {
		emit(events.Adopted{Folders: done, Total: total, Done: done == total})
	})
	if errors.Is(err, adopt.ErrHadJournal) {
		if _, aside := journal.SetAside(w); aside != nil {
			return errors.Join(err, aside)
		}
		return &journal.UnfitError{Why: err.Error() + "; bring it back, or make a new one from the folders and their results with idenfy-batch adopt"}
	}
	if err == nil && unread > 0 {
		emit(events.Adopted{Total: unread})
	}
	return err
}

// intoLedger enters what ended before there was a ledger, once.
func intoLedger(ctx context.Context, j *journal.Journal, paths spool.Paths, told func(done, total int)) error {
	done, err := j.Entered(ctx)
	if err != nil || done {
		return err
	}
	return adopt.Enter(ctx, paths, j, told)
}

// SoundError says that there is nothing to adopt.
type SoundError struct{ Path string }

func (e *SoundError) Error() string {
	return e.Path + " is sound and complete, so there is nothing to mend. Adopt would keep it aside and make another one from the folders in the spool; what only this one knows would be lost: folders that were sent and have been taken out since, and decisions. If that is what you want, repeat it with --force"
}

// Adopt makes a new journal from a backup, if one is given, and from all the
// folders of a spool whose lock is held. What there was of a journal is kept
// under the name that is returned. A sound and complete one is a *SoundError,
// unless it is forced. Whatever cuts it off, it can be made again.
func Adopt(ctx context.Context, w journal.Where, paths spool.Paths, from string, force bool, told func(done, total int)) (aside string, unread int, err error) {
	if !force {
		if err := needed(ctx, w); err != nil {
			return "", 0, err
		}
	}
	if aside, err = journal.Replace(w, from); err != nil {
		return aside, 0, err
	}
	if err := otherLedger(w.Dir); err != nil {
		return aside, 0, err
	}
	j, err := journal.Open(w)
	if err != nil {
		return aside, 0, err
	}
	unread, err = adopt.Spool(ctx, paths, j, false, told)
	if err == nil {
		err = intoLedger(ctx, j, paths, func(int, int) {})
	}
	return aside, unread, errors.Join(err, j.Close())
}

// needed returns why there is nothing to adopt, or can't be now.
func needed(ctx context.Context, w journal.Where) error {
	j, err := journal.Open(w)
	if _, unfit := errors.AsType[*journal.UnfitError](err); unfit {
		return nil
	}
	if err != nil {
		return err
	}
	complete, err := j.Adopted(ctx)
	if err = errors.Join(err, j.Close()); err == nil && complete {
		err = &SoundError{filepath.Join(w.Dir, journal.Name)}
	}
	return err
}

// Read returns what reads the journal: the running daemon, or, without one,
// the files themselves. Root reads them as the daemon's user, so that none of
// another owner is left beside the journal.
func Read(ctx context.Context, cfg *config.Config) (r control.Reader, end func(), err error) {
	running, err := control.Dial(cfg.Root)
	if err == nil {
		return running, running.Close, nil
	}
	if !errors.Is(err, control.ErrNoDaemon) {
		return nil, nil, err
	}
	if err := Become(cfg.Spool()); err != nil && os.Geteuid() == 0 {
		return nil, nil, err
	}
	alone, err := journal.OpenReader(ctx, Journal(cfg))
	if err != nil {
		return nil, nil, err
	}
	return alone, func() { _ = alone.Close() }, nil // it was read only
}
