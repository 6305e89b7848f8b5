package adopt

import (
	"context"
	"fmt"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// mostResult bounds the results that are read, in bytes.
const mostResult = 64 << 20

// Enter enters into the ledger what ended before there was one, or after the
// backup that the journal was made from, each with its result as it lies there
// now. told is called now and then, with how many lives are done. What was cut
// off is gone on with by the next call.
func Enter(ctx context.Context, paths spool.Paths, j *journal.Journal, told func(done, total int)) error {
	total, err := j.CountToEnter(ctx)
	if err != nil {
		return err
	}
	working, err := inWork(paths)
	if err != nil {
		return err
	}
	after, done := "", 0
	for {
		lives, err := j.ToEnter(ctx, after, atOnce)
		if err != nil {
			return err
		}
		if len(lives) == 0 {
			return j.SetEntered()
		}
		found := make([]journal.Found, 0, len(lives))
		for i := range lives {
			o := &lives[i]
			p, name := spool.Place(o.Place), o.Name
			if o.State == journal.Ended { // to be moved
				p, name = spool.Work, working[o.ID]
			}
			sum, err := resultSum(paths, p, name, o.ID)
			if err != nil {
				return fmt.Errorf("%s: %w", o.Where(), err)
			}
			found = append(found, journal.Found{ID: o.ID, SHA256: sum})
		}
		if err := j.EnterAdopted(found); err != nil {
			return err
		}
		after = lives[len(lives)-1].ID
		done += len(lives)
		told(done, max(total, done))
	}
}

// inWork returns the names in work by the lives' ids.
func inWork(paths spool.Paths) (map[string]string, error) {
	names, err := paths.List(spool.Work)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", spool.Work, err)
	}
	list := map[string]string{}
	for _, name := range names {
		if _, id, ok := spool.Split(name); ok {
			list[id] = name
		}
	}
	return list, nil
}

// resultSum returns the SHA-256 of the result of a life that lies under a name,
// or "" if there is none that can be read. An error is the machine's.
func resultSum(paths spool.Paths, p spool.Place, name, id string) (string, error) {
	if !p.Final() && p != spool.Work || name == "" {
		return "", nil
	}
	dir, err := paths.OpenFolder(p, name)
	if err != nil {
		return "", only(err)
	}
	defer dir.Close()
	if is, err := sidecar.ID(dir, sidecar.Name); err != nil || is != id {
		return "", only(err)
	}
	data, err := drop.ReadFile(dir, sidecar.Name, mostResult)
	if err != nil {
		return "", only(err)
	}
	return sidecar.SumOf(data), nil
}

// only leaves the errors that may pass.
func only(err error) error {
	if passing(err) {
		return err
	}
	return nil
}
