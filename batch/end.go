package batch

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/record"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// decide ends the folder's life with an outcome.
func (v *visit) decide(ctx context.Context, o sidecar.Outcome) end {
	v.life.Result.Outcome = o
	v.waitsNoMore()
	v.life.Result.Times.Finished = sidecar.Now()
	return v.record(ctx)
}

// weigh holds an outcome against the earlier lives of the folder. While one of
// them may have been accepted, no end but that is certain; and what was
// accepted is not filed as anything else, unless a person forced this life.
func (v *visit) weigh() error {
	res := v.life.Result
	if res.Outcome == sidecar.Accepted || res.Outcome == sidecar.Unknown || v.has(sidecar.SentBefore) {
		return nil
	}
	if err := v.recognise(); err != nil {
		return err
	}
	a, err := v.b.journal.Begin(journal.Question{Life: v.life, Sums: v.sums, Only: true})
	if err != nil {
		return err
	}
	o := v.ownOpen(a.Open)
	if o == nil && a.Verdict == journal.Wait && a.Own {
		if there, err := v.b.there(a.Other.ID); err != nil {
			return err
		} else if !there { // this is the folder that is waited for: somebody took it out of work, and that is not noticed yet
			o = &a.Other
		}
	}
	if o != nil {
		v.because("may_have_been_accepted", "an earlier submission of it (%s) may have been accepted; look that session up in the iDenfy dashboard, then decide with idenfy-batch resolve", o.ID)
		res.Outcome = sidecar.Unknown
	} else if a.Verdict == journal.Before && a.Own && !v.life.Forced {
		res.Outcome = v.acceptedBefore(a)
	}
	return nil
}

func (v *visit) has(code string) bool {
	return slices.ContainsFunc(v.life.Result.Reasons, func(r sidecar.Reason) bool { return r.Code == code })
}

// ownOpen returns an earlier life that may have been accepted and that nothing
// but this folder stands for: another folder in hold stands for its own.
func (v *visit) ownOpen(open []journal.Other) *journal.Other {
	for i := range open {
		o := &open[i]
		tried := o.Outcome == sidecar.GaveUp && v.life.Result.Outcome == sidecar.GaveUp
		if !tried && !v.b.holds(spool.Place(o.Place), o.Name, o.ID) {
			return o
		}
	}
	return nil
}

// there reports whether the folder of a life is in work. Submit has no places: its
// own folder is the only one.
func (b *Batch) there(id string) (bool, error) {
	if b.spool == nil {
		return true, nil
	}
	return b.spool.Has(id)
}

// holds reports whether the folder of a life lies in a final place under that
// name. Submit has no places.
func (b *Batch) holds(p spool.Place, name, id string) bool {
	return b.spool != nil && record.LiesAt(b.spool.Paths(), p, name, id)
}

// record brings how the life went on into the journal, and into result.json.
// If the journal can't be written it is kept in memory and tried again; a
// crash meanwhile leaves the attempt as sending, which counts as unanswered.
func (v *visit) record(ctx context.Context) end {
	if v.life == nil {
		v.life = v.task.unsaved
	}
	if v.life.State == journal.Claimed {
		v.life.State = journal.Pending
	}
	if err := v.b.journal.Put(v.life); err != nil {
		return v.unrecorded(err)
	}
	v.task.unsaved = nil
	if v.life.Result.Outcome.Final() {
		return v.finish(ctx)
	}
	if err := record.Show(v.dir, v.life); err != nil && !drop.Own(err) { // its own is met again at its end
		return v.diskFault(err)
	}
	return end{again: v.come(v.set.Retry.due(v.life.Result, time.Now())), wrote: true}
}

// unrecorded keeps in memory what could not be recorded.
func (v *visit) unrecorded(err error) end {
	v.task.unsaved = v.life
	return v.diskFault(err)
}

// place is where a folder of an outcome ends.
func place(o sidecar.Outcome) spool.Place {
	switch o {
	case sidecar.Accepted:
		return spool.Done
	case sidecar.Unknown:
		return spool.Hold
	default:
		return spool.Failed
	}
}

// finish writes the final result, and then the end into the journal: a crash
// between the two makes it anew.
func (v *visit) finish(ctx context.Context) end {
	if err := v.weigh(); err != nil {
		return v.failed(err)
	}
	if err := record.End(v.dir, v.life); err != nil {
		if v.stays || !drop.Own(err) {
			return v.failed(err)
		}
		if e, over := v.wrap(err); over {
			return e
		}
	}
	if v.stays {
		v.life.State, v.life.Place = journal.Filed, ""
	} else {
		v.life.State, v.life.Place = journal.Ended, string(place(v.life.Result.Outcome))
		v.life.Name = v.name // if it is free
	}
	if err := v.b.journal.End(v.life); err != nil { // the very result that was written: nothing of it may change between
		return v.diskFault(err)
	}
	if v.stays && v.life.ClientID != "" {
		if err := v.b.tokens.Drop(v.life.ID); err != nil {
			return v.diskFault(err)
		}
	}
	if v.stays {
		return end{}
	}
	return v.move(ctx)
}

// wrap puts a folder in which no result can be written into a directory of the
// daemon's own, where it can.
func (v *visit) wrap(why error) (e end, over bool) {
	if err := v.b.spool.Intact(); err != nil {
		return v.diskFault(err), true
	}
	if !v.has(sidecar.NotWritable) {
		v.because(sidecar.NotWritable, "the daemon can't write %s into the folder (%v), so the folder lies inside this one, as %s", sidecar.Name, v.brief(why), meta.Show(v.name))
	}
	var err error
	if v.life.Result.Earlier, err = sidecar.Others(v.dir, ""); err != nil {
		return v.failed(err), true
	}
	if err := v.b.journal.Put(v.life); err != nil {
		return v.unrecorded(err), true
	}
	err = v.b.spool.Wrap(v.task.work, v.name, func(dir *os.Root) error { return record.Write(dir, v.life) })
	if err != nil {
		return v.stuck(place(v.life.Result.Outcome), err), true
	}
	return end{}, false
}

// moveAgain is move of a folder that a start finds, or that is tried again. It
// has its final result, unless somebody put an older copy of it in its place,
// or a crash kept a decision from being written there.
func (v *visit) moveAgain(ctx context.Context) end {
	if r, err := sidecar.Read(v.dir); err != nil || r.ID != v.life.ID || r.Outcome != v.life.Result.Outcome {
		if err := record.Write(v.dir, v.life); err != nil && !drop.Own(err) {
			return v.diskFault(err)
		}
	}
	// Somebody may have put it here again under another name. That is noted first:
	// where a crash comes after the move, no start looks for a life that is filed.
	if v.life.State == journal.Filed && v.life.Name != v.name {
		v.life.Name = v.name
		if err := v.b.journal.Put(v.life); err != nil {
			return v.diskFault(err)
		}
	}
	return v.move(ctx)
}

// move brings the folder to its final place. If that fails after the rename
// was made, the folder is where it belongs, and that is noted all the same.
func (v *visit) move(context.Context) end {
	to := spool.Place(v.life.Place)
	if err := v.b.tokens.Drop(v.life.ID); err != nil { // a crash from here on leaves none behind
		return v.diskFault(err)
	}
	name, err := v.paths.Finish(v.task.work, to, v.name)
	if name != "" {
		v.b.journal.Filed(v.life.ID, string(to), name)
		v.b.emit(events.Ended{Result: v.life.Result, Place: to, Name: name})
		v.task.work = ""
	}
	if errors.Is(err, fs.ErrNotExist) && name == "" {
		err = v.missing(err)
	}
	switch {
	case err != nil && name == "":
		return v.stuck(to, err)
	case err != nil:
		return v.diskFault(err)
	}
	return end{wrote: true}
}
