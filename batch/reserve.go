package batch

import (
	"cmp"
	"context"
	"time"

	"idenfy-batch/internal/spool"
)

// spares is how many lives are claimed beforehand, at the most.
const spares = 32

// reserve keeps lives claimed for folders that are still to come, so that none
// of them waits for the commit which has to come before its claim. What is
// left of them is given back at the end; after a crash the next start does it.
func (b *Batch) reserve(ctx context.Context) {
	var left []string
	for ctx.Err() == nil {
		ids := make([]string, spares/2)
		for i := range ids {
			ids[i] = spool.NewID()
		}
		if err := b.journal.Reserve(ids); err != nil {
			// The next folder claims its life by itself, and says what is wrong.
			select {
			case <-ctx.Done():
			case <-time.After(cmp.Or(b.settings.Load().DiskRetry, diskRetry)):
			}
			continue
		}
		for _, id := range ids {
			select {
			case b.spare <- id:
			case <-ctx.Done():
				left = append(left, id)
			}
		}
	}
	for {
		select {
		case id := <-b.spare:
			left = append(left, id)
		default:
			_ = b.journal.Unclaim(left...) // else the next start does
			return
		}
	}
}

// arrive makes the task of an arrival, with a life that is claimed already if
// there is one.
func (b *Batch) arrive(t task) task {
	select {
	case t.id = <-b.spare:
		t.reserved = true
	default:
		t.id = spool.NewID()
	}
	return t
}
