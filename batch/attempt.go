package batch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/record"
	"idenfy-batch/sidecar"
)

// unanswered notes what a crash left of an attempt.
func (v *visit) unanswered(ctx context.Context) end {
	last := v.life.Result.LastAttempt()
	last.State, last.Finished = sidecar.NoAnswer, sidecar.Now()
	last.Message = "the daemon ended while it was sending"
	last.DurationMS = max(last.Finished.Sub(last.Started.Time).Milliseconds(), 0)
	v.set.Retry.charge(v.life, false)
	v.b.emit(events.Attempted{Folder: v.name, ID: v.life.ID, Attempt: *last})
	return v.record(ctx) // due after its delay
}

// again makes a further attempt with a folder that has been looked at before,
// once it is due and still as it was.
func (v *visit) again(ctx context.Context) end {
	// What a start finds is held against the recorded times, once; from then
	// on the queue knows, by a clock that nobody sets.
	if at := v.set.Retry.due(v.life.Result, time.Now()); v.task.fresh && at.After(time.Now()) {
		return end{again: v.come(at)}
	}
	why, err := v.inspect()
	if err != nil {
		return v.failed(err)
	}
	if why != "" && v.leased() {
		return v.later("it can't be read for now: "+drop.ErrBusy.Error(), drop.ErrBusy)
	}
	if why == "" && unreadableNow(&v.rep) {
		return v.later("a file in it can't be read for now", nil)
	}
	switch {
	case why != "":
	case v.defaults.Optional && v.rep.SHA256 != "":
		why = meta.Name + " was not there"
	case v.rep.SHA256 != v.life.Result.Request.MetaSHA256 && v.life.Result.Request.MetaSHA256 != "":
		why = meta.Name + " is not the one that it was"
	case v.rep.Meta != nil && v.life.ClientID != v.rep.Meta.ClientID:
		why = meta.Name + " has another clientId"
	case v.life.ClientID == "" && v.life.Token != "" && v.rep.Meta.TokenSHA256() != v.life.Token:
		why = meta.Name + " has another authToken"
	case len(v.rep.Invalid) > 0:
		why = v.rep.Invalid[0].Message
	case len(v.rep.Waits) > 0:
		why = v.rep.Waits[0].Message
	}
	if why != "" {
		return v.changed(ctx, why)
	}
	return v.attempt(ctx)
}

// unreadableNow reports whether a file can't be read, and nothing else is wrong:
// that may pass.
func unreadableNow(rep *meta.Report) bool {
	return len(rep.Invalid) == 0 && len(rep.Waits) > 0 &&
		!slices.ContainsFunc(rep.Waits, func(r meta.Reason) bool { return r.Code != "unreadable" })
}

// changed ends a folder that was changed while it was in work: what was, or
// would be, sent is no longer what lies there. What may have been taken is
// asked for first, where that can be done.
func (v *visit) changed(ctx context.Context, why string) end {
	if v.life.Fate == journal.Unsettled {
		if e, over := v.settle(ctx); over {
			return e
		}
	}
	v.because("changed_in_work", "the folder changed while the daemon was submitting it: %s", why)
	if v.life.Fate == journal.Unsettled {
		v.mayHaveBeen(ctx)
		return v.decide(ctx, sidecar.Unknown)
	}
	return v.decide(ctx, sidecar.Invalid)
}

func (v *visit) mayHaveBeen(ctx context.Context) {
	v.because("may_have_been_accepted", "an attempt got no clear answer, so it may have been processed; look the session up in the iDenfy dashboard, then decide with idenfy-batch resolve%s", v.alsoNamed(ctx))
}

// begin makes the first attempt with a folder, or ends one that can't be sent.
func (v *visit) begin(ctx context.Context) end {
	switch {
	case len(v.rep.Invalid) > 0:
		v.wrong(v.rep.Invalid)
		v.wrong(v.rep.Waits)
		v.evidence()
		return v.decide(ctx, sidecar.Invalid)
	case len(v.rep.Waits) > 0:
		v.wrong(v.rep.Waits)
		v.evidence()
		return v.decide(ctx, sidecar.Incomplete)
	default:
		return v.attempt(ctx)
	}
}

func (v *visit) wrong(reasons []meta.Reason) {
	for _, r := range reasons {
		v.life.Result.Reasons = append(v.life.Result.Reasons, sidecar.Reason{Code: r.Code, Message: r.Message, Source: sidecar.FromPreflight, Field: meta.Show(r.Field)})
	}
}

// attempt makes one attempt, with a session that it opens first where that is to
// be done. It is entered with v.rep fresh.
func (v *visit) attempt(ctx context.Context) end {
	if last := v.life.Result.LastAttempt(); last != nil && last.State == sidecar.NoAnswer && v.life.Fate == journal.Unsettled {
		if e, over := v.settle(ctx); over {
			return e
		}
	}
	if e, over := v.session(ctx); over {
		return e
	}
	if err := v.turn(ctx); err != nil {
		return v.notNow()
	}
	req, files, err := v.request()
	defer closeAll(files)
	if errors.Is(err, drop.ErrChanged) {
		return v.changed(ctx, err.Error())
	}
	if errors.Is(err, drop.ErrBusy) {
		return v.later("it can't be read for now: "+drop.ErrBusy.Error(), drop.ErrBusy)
	}
	if err != nil {
		return v.failed(err)
	}
	if e, over := v.intend(ctx, v.submits()); over {
		return e
	}
	a := v.life.Result.LastAttempt()
	if e, over := v.show(ctx, a); over {
		return e
	}
	clear(v.standing)
	answer, err := v.set.API.Process(ctx, req)
	a.Finished = sidecar.Now()
	a.DurationMS = time.Since(a.Started.Time).Milliseconds()
	a.HTTPStatus = answer.Status
	return v.judge(ctx, a, err)
}

// show lets people see what is about to be done. Where that can't be written,
// nothing can be filed either: over tells that a is not to be made.
func (v *visit) show(ctx context.Context, a *sidecar.Attempt) (e end, over bool) {
	err := record.Show(v.dir, v.life)
	if err == nil {
		return end{}, false
	}
	a.State, a.Finished, a.Message = sidecar.NotSent, sidecar.Now(), "the record could not be written, so nothing was sent"
	if drop.Own(err) && !v.stays {
		return v.shut(ctx, err), true
	}
	if e := v.record(ctx); e.fault.owner != nobody || e.again == nil {
		return e, true
	}
	return v.failed(err), true
}

// shut ends a folder in which the daemon can't write: what comes of it could
// not be told there.
func (v *visit) shut(ctx context.Context, err error) end {
	v.because(sidecar.NotWritable, "the daemon can't write %s into the folder (%v), so it was not sent, and lies inside this one, as %s; see its modes, and what lies in it under that name", sidecar.Name, v.brief(err), meta.Show(v.name))
	v.evidence()
	if v.life.Fate == journal.Unsettled {
		v.mayHaveBeen(ctx)
		return v.decide(ctx, sidecar.Unknown)
	}
	return v.decide(ctx, sidecar.Invalid)
}

// intent is what is to be done next: an attempt, or the opening of a session.
type intent struct {
	opens bool
	begin func() // adds it to the result
	undo  func() // takes it away
}

func (v *visit) submits() intent {
	res := v.life.Result
	return intent{
		begin: func() {
			res.Attempts = append(res.Attempts, sidecar.Attempt{N: len(res.Attempts) + res.Omitted + 1, Started: sidecar.Now(), State: sidecar.Sending})
		},
		undo: func() { res.Attempts = res.Attempts[:len(res.Attempts)-1] },
	}
}

// intend records an intent, committed before the first byte leaves, if the
// history of the folder, and of its token, allows it. A crash from here on finds
// it as sending. over tells that the folder is not to be sent now.
func (v *visit) intend(ctx context.Context, do intent) (e end, over bool) {
	v.waitsNoMore()
	q := journal.Question{Life: v.life, Opens: do.opens}
	for {
		do.begin()
		a, e, over := v.ask(q)
		if a.Verdict == journal.Send && !over {
			v.life.State, v.life.Took, v.life.Forced = journal.Pending, true, a.Forced
			return end{}, false
		}
		do.undo()
		if over {
			return e, true
		}
		v.life.State = journal.Pending
		if a.Verdict == journal.Maybe && !q.Unused {
			again, e, over := v.settleOthers(ctx, a)
			if over {
				return e, true
			}
			if again != asked {
				q.Unused = again == unused
				continue
			}
		}
		if a.Verdict == journal.Wait {
			return v.waitBehind(ctx, a), true
		}
		return v.sentBefore(ctx, a), true
	}
}

// ask has the journal answer whether the life may send.
func (v *visit) ask(q journal.Question) (a journal.Answer, e end, over bool) {
	var err error
	if !v.life.Took {
		err = v.recognise()
	}
	if err == nil {
		q.Sums = v.sums
		a, err = v.b.journal.Begin(q)
	}
	if err == nil && a.Own {
		// For the record only; the next visit reads them anew.
		if made, err := v.b.journal.Decisions(context.Background(), v.life.ID); err == nil {
			v.life.Result.Decisions = made
		}
	}
	if err != nil {
		return a, v.failed(err), true
	}
	return a, end{}, false
}

// recognise finds out, once in a visit, what the folder is known by. Its images
// are read only where it came with results: by them the journal tells whether
// these are its own; and where no token tells that it is the same again.
func (v *visit) recognise() (err error) {
	if v.known {
		return nil
	}
	var ids []string
	if v.list.Dir.Name == "" || v.list.More || len(v.list.Records) > 0 { // else it has no result but the daemon's own
		if ids, err = sidecar.IDs(v.dir); err != nil {
			return err
		}
	}
	if v.life.Dir, err = drop.Identity(v.dir); err != nil {
		return err
	}
	v.life.Prior = slices.DeleteFunc(ids, func(id string) bool { return id == v.life.ID })
	v.sums = nil
	if len(v.life.Prior) > 0 || v.life.ClientID != "" {
		for _, img := range v.rep.Images {
			sum, err := drop.Sum(v.dir, img.File)
			if err != nil {
				return err
			}
			v.sums = append(v.sums, sum)
		}
	}
	if v.life.ClientID != "" && v.rep.Complete() {
		v.life.Content = content(v.life.ClientID, v.rep.Images, v.sums)
	}
	v.known = true
	return nil
}

// waitsForToken is the code of the reason that a folder waits in work because
// another one with its token is not decided.
const waitsForToken = "token_in_use"

func (v *visit) waitsNoMore() {
	v.life.Result.Reasons = slices.DeleteFunc(v.life.Result.Reasons, func(r sidecar.Reason) bool {
		return r.Code == waitsForToken || r.Code == sessionActive
	})
}

// behindRetry is how long a folder waits for another one before it asks again.
const behindRetry = 30 * time.Second

// waitBehind parks a folder until another life of its case has ended. Where the
// other's folder is no longer in work, that ends it.
func (v *visit) waitBehind(ctx context.Context, a journal.Answer) end {
	if v.b.spool != nil {
		in, err := v.b.InWork(a.Other.ID)
		if err == nil && !in {
			err = v.otherGone(ctx, a.Other)
		}
		if err != nil {
			return v.diskFault(err)
		}
		if !in {
			return end{again: v.come(time.Now())}
		}
	}
	v.because(waitsForToken, "another folder with this %s, %s, is being submitted; this one waits until that is decided", v.mark(), a.Other.Folder)
	e := v.record(ctx)
	if e.again != nil {
		e.again.behind, e.again.due = a.Other.ID, time.Now().Add(behindRetry)
	}
	return e
}

// otherGone ends another life whose folder is not in work, unless it has ended
// meanwhile.
func (v *visit) otherGone(ctx context.Context, o journal.Other) error {
	l, err := v.b.journal.Load(context.WithoutCancel(ctx), o.ID)
	if err != nil || l == nil || l.State != journal.Pending {
		return err
	}
	v.b.emit(events.Vanished{Folder: o.Folder, ID: o.ID})
	return v.b.journal.Gone(o.ID)
}

// request opens the images and describes the request. What is read while it is
// sent has to be what was inspected: the last byte leaves only when each file
// is still the same and every hash is as demanded and as sent before.
func (v *visit) request() (*idenfy.Request, []*os.File, error) {
	m := v.rep.Meta
	req := &idenfy.Request{Token: v.token, Country: m.Country, DocumentType: m.DocumentType, SkipAnalysis: m.SkipAnalysis}
	var files []*os.File
	for _, img := range v.rep.Images {
		file, err := drop.OpenFile(v.dir, img.File)
		if err != nil {
			return nil, files, err
		}
		files = append(files, file)
		req.Images = append(req.Images, idenfy.Image{Step: img.Step, Size: img.File.Size, Data: io.NewSectionReader(file, 0, img.File.Size)})
	}
	before := v.life.Result.Request.Images
	if len(before) != len(v.rep.Images) {
		return nil, files, fmt.Errorf("%w: it has other images than before", drop.ErrChanged)
	}
	req.Confirm = func(sums []string) error {
		for i, img := range v.rep.Images {
			if err := drop.Unchanged(files[i], img.File); err != nil {
				return fmt.Errorf("%s: %w", img.Step, err)
			}
			if want := cmp.Or(before[i].SHA256, img.SHA256); want != "" && want != sums[i] {
				return fmt.Errorf("%s: %w: its SHA-256 is not the one expected", img.Step, drop.ErrChanged)
			}
			before[i].SHA256 = sums[i]
		}
		return nil
	}
	size, err := v.set.API.BodySize(req)
	v.life.Result.Request.Endpoint, v.life.Result.Request.Bytes = v.set.API.Endpoint(), size
	return req, files, err
}

func closeAll(files []*os.File) {
	for _, file := range files {
		_ = file.Close() // they were read only
	}
}

// judge records how an attempt ended, by the table of meanings, and follows it.
func (v *visit) judge(ctx context.Context, a *sidecar.Attempt, err error) end {
	how, apiErr := accepted, (*idenfy.Error)(nil)
	if err != nil {
		how, apiErr = v.howEnded(err)
	}
	if fate := meanings[how].fate; fate != journal.Unsent {
		v.life.Fate = fate
	}
	return v.conclude(ctx, a, how, apiErr, func() { v.b.emit(events.Attempted{Folder: v.name, ID: v.life.ID, Attempt: *a}) })
}

// howEnded reads what came of a request that failed.
func (v *visit) howEnded(err error) (ending, *idenfy.Error) {
	apiErr, ok := errors.AsType[*idenfy.Error](err)
	if !ok {
		apiErr = &idenfy.Error{Class: idenfy.NoAnswer, Message: err.Error()}
	}
	how := endingOf(apiErr)
	if how == doubtfulFault && v.task.own {
		how = ownFault
	}
	return how, apiErr
}

// conclude records how a request ended, has it told, and follows it.
func (v *visit) conclude(ctx context.Context, a *sidecar.Attempt, how ending, apiErr *idenfy.Error, told func()) end {
	m := meanings[how]
	a.State = m.state
	if apiErr != nil {
		a.HTTPStatus, a.Identifier, a.Message = apiErr.Status, apiErr.Identifier, apiErr.Message
		a.RetryAfter = int64(apiErr.RetryAfter / time.Second)
	}
	if !v.task.probesAccount || how == ownFault { // while the gate is shut, it is the service that fails
		v.set.Retry.charge(v.life, how == ownFault)
	}
	told()
	stopping := ctx.Err() != nil // then a failure says nothing of the service
	e := m.follow(v, ctx, apiErr)
	if m.answer != silence {
		e.answer = m.answer
		if v.life.Result.Outcome == sidecar.Rejected {
			e.refusal = journal.RefusalKey(a)
		}
	}
	if m.owner == nobody || stopping && m.answer == silence {
		return e
	}
	return e.met(v.faultOf(apiErr, m.owner, m.doubtful))
}

// notNow ends a visit that can't ask the service now: the daemon stops, or the
// account's gate is shut.
func (v *visit) notNow() end {
	if v.life.State == journal.Claimed {
		return v.giveBack("the daemon stops")
	}
	return end{again: v.come(time.Now())}
}

// errShut says that the account's gate is shut.
var errShut = errors.New("the account's gate is shut")

// turn waits until the rate allows one more request. A stop ends that at once:
// the grace is for what has begun. With the account's gate shut it is nobody's
// turn but the probe's.
func (v *visit) turn(ctx context.Context) error {
	if !v.task.may {
		return errShut
	}
	if v.b.soft != nil {
		if v.b.soft.Err() != nil {
			return v.b.soft.Err()
		}
		ctx = v.b.soft
	}
	return v.set.Rate.Wait(ctx)
}
