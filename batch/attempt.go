package batch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/sidecar"
)

// resume goes on with a folder that has had attempts. due tells that the next
// one is due: it is known for a folder that was parked until then, by a clock
// that nobody sets. What was found at the start is held against the recorded
// time, once.
func (f *folder) resume(ctx context.Context, due, probe bool) end {
	if last := f.res.LastAttempt(); last != nil && last.State == sidecar.Sending {
		last.State, last.Finished = sidecar.NoAnswer, sidecar.Now()
		last.Message = "the daemon ended while it was sending"
		last.DurationMS = max(last.Finished.Sub(last.Started.Time).Milliseconds(), 0)
		f.b.emit(events.Attempted{Folder: f.name, ID: f.id, Attempt: *last})
		return f.decided() // recorded, and due after its delay
	}
	// A probe goes on at once: the pause was longer than the delay, or this
	// folder is the only one to try.
	if at := f.set.Retry.due(f.res, time.Now()); !due && !probe && at.After(time.Now()) {
		return end{work: f.work, due: at}
	}
	why, err := f.inspect()
	switch {
	case err != nil:
		return f.spoolFault(err)
	case why == "" && len(f.rep.Invalid) > 0:
		why = f.rep.Invalid[0].Message
	case why == "" && len(f.rep.Waits) > 0:
		why = f.rep.Waits[0].Message
	}
	if why != "" {
		return f.changed(why, f.res.Attempts)
	}
	return f.attempt(ctx, probe)
}

// changed ends a folder that was changed while it was in work: what was, or
// would be, sent is no longer what lies there. before are the attempts that
// may have been whole.
func (f *folder) changed(why string, before []sidecar.Attempt) end {
	f.because("changed_in_work", "the folder changed while the daemon was submitting it: %s", why)
	if anyAttempt(before, maybeProcessed) {
		f.because("may_have_been_accepted", "an earlier attempt got no clear answer; look the session up in the iDenfy dashboard, then decide")
		return f.decide(sidecar.Unknown)
	}
	return f.decide(sidecar.Invalid)
}

// attempt makes one attempt. It is entered with f.rep fresh.
func (f *folder) attempt(ctx context.Context, probe bool) end {
	if e, over := f.guard(ctx); over {
		return e
	}
	if last := f.res.LastAttempt(); last != nil {
		switch {
		case last.State == sidecar.Answered && last.Identifier == idenfy.TokenNotValid:
			return f.taken(ctx) // the token was refused, and could not be settled
		case last.State == sidecar.NoAnswer:
			if e, over := f.settle(ctx); over {
				return e
			}
		}
	}
	if err := f.set.Rate.Wait(ctx); err != nil { // the daemon stops
		return f.stopped()
	}
	req, files, err := f.request()
	defer closeAll(files)
	if errors.Is(err, drop.ErrChanged) {
		return f.changed(err.Error(), f.res.Attempts)
	}
	if err != nil {
		return f.spoolFault(err)
	}
	// Intent: synced before the first byte leaves. A crash from here on finds
	// the attempt as sending.
	started := time.Now()
	f.res.Attempts = append(f.res.Attempts, sidecar.Attempt{
		N: len(f.res.Attempts) + 1, Started: sidecar.Time{Time: started}, State: sidecar.Sending,
	})
	if err := sidecar.Write(f.dir, f.res); err != nil {
		// Should it be on the disk all the same, a crash takes it for an
		// attempt that was begun. While this process lives it knows better.
		a := f.res.LastAttempt()
		a.State, a.Finished, a.Message = sidecar.NotSent, sidecar.Now(), "the intent could not be recorded"
		return f.spoolFault(err)
	}
	answer, err := f.set.API.Process(ctx, req)
	a := f.res.LastAttempt()
	a.Finished = sidecar.Now()
	a.DurationMS = time.Since(started).Milliseconds()
	a.HTTPStatus = answer.Status
	return f.judge(ctx, a, err, probe)
}

// request opens the images and describes the request. What is read while it is
// sent has to be what was inspected: the last byte leaves only when each file
// is still the same and every hash is as demanded and as sent before.
func (f *folder) request() (*idenfy.Request, []*os.File, error) {
	m := f.rep.Meta
	req := &idenfy.Request{Token: m.AuthToken, Country: m.Country, DocumentType: m.DocumentType, SkipAnalysis: m.SkipAnalysis}
	var files []*os.File
	for _, img := range f.rep.Images {
		file, err := drop.OpenFile(f.dir, img.File)
		if err != nil {
			return nil, files, err
		}
		files = append(files, file)
		req.Images = append(req.Images, idenfy.Image{Step: img.Step, Size: img.File.Size, Data: io.NewSectionReader(file, 0, img.File.Size)})
	}
	before := f.res.Request.Images
	if len(before) != len(f.rep.Images) {
		return nil, files, fmt.Errorf("%w: it has other images than before", drop.ErrChanged)
	}
	req.Confirm = func(sums []string) error {
		for i, img := range f.rep.Images {
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
	size, err := idenfy.BodySize(req)
	f.res.Request.Endpoint, f.res.Request.Bytes = f.set.API.Endpoint(), size
	return req, files, err
}

func closeAll(files []*os.File) {
	for _, file := range files {
		_ = file.Close() // they were read only
	}
}

// judge records how an attempt ended, and decides what follows.
func (f *folder) judge(ctx context.Context, a *sidecar.Attempt, err error, probe bool) end {
	if err == nil {
		a.State = sidecar.Answered
		f.b.emit(events.Attempted{Folder: f.name, ID: f.id, Attempt: *a})
		return f.decide(sidecar.Accepted).well()
	}
	var apiErr *idenfy.Error
	if !errors.As(err, &apiErr) {
		apiErr = &idenfy.Error{Class: idenfy.NoAnswer, Message: err.Error()}
	}
	a.HTTPStatus, a.Identifier, a.Message = apiErr.Status, apiErr.Identifier, apiErr.Message
	a.RetryAfter = int64(apiErr.RetryAfter / time.Second)
	switch apiErr.Class {
	case idenfy.NotSent:
		a.State = sidecar.NotSent
	case idenfy.NoAnswer, idenfy.Withheld:
		a.State = sidecar.NoAnswer
	default:
		a.State = sidecar.Answered
	}
	f.b.emit(events.Attempted{Folder: f.name, ID: f.id, Attempt: *a})
	stopping := ctx.Err() != nil // then nothing is said of the service
	switch apiErr.Class {
	case idenfy.Rejected:
		if apiErr.Identifier == idenfy.TokenNotValid && anyAttempt(f.res.Attempts, maybeProcessed) {
			return f.taken(ctx)
		}
		f.apiReason(apiErr)
		return f.decide(sidecar.Rejected).well()
	case idenfy.Withheld:
		if errors.Is(err, drop.ErrChanged) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			f.because("withheld", "attempt %d was broken off before its last byte, so it can't have been processed", a.N)
			return f.changed(apiErr.Message, f.res.Attempts[:len(f.res.Attempts)-1])
		}
	case idenfy.ServiceFault, idenfy.NotSent:
		if stopping {
			return f.decided()
		}
		return f.decided().met(fault, apiErr)
	}
	if !probe && f.set.Retry.over(f.res) {
		return f.giveUp(apiErr)
	}
	e := f.decided()
	if stopping {
		return e
	}
	return e.met(trouble, apiErr)
}

func (f *folder) apiReason(err *idenfy.Error) {
	f.res.Reasons = append(f.res.Reasons, sidecar.Reason{
		Code:    cmp.Or(err.Identifier, fmt.Sprintf("HTTP_%d", err.Status)),
		Message: cmp.Or(err.Message, "no message was given"),
		Source:  sidecar.FromAPI,
	})
}

func (f *folder) giveUp(last *idenfy.Error) end {
	f.because("gave_up", "no attempt of %d came to an end within %s; the last one: %v", len(f.res.Attempts), f.set.Retry.GiveUpAfter, last)
	outcome := sidecar.GaveUp
	if anyAttempt(f.res.Attempts, noAnswer) {
		f.because("may_have_been_accepted", "attempts without an answer may have been processed; look the session up in the iDenfy dashboard, then decide")
		outcome = sidecar.Unknown
	}
	return f.decide(outcome).met(trouble, last)
}

// taken ends a folder whose token was refused after an attempt without a clear
// answer: that attempt was taken, or the token expired meanwhile.
func (f *folder) taken(ctx context.Context) end {
	if e, over := f.settle(ctx); over {
		return e
	}
	f.because("may_have_been_accepted", "an attempt got no clear answer, and now the token is refused: either that attempt was taken, or the token expired; look the session up in the iDenfy dashboard, then decide. With scanRef in meta.yaml the daemon finds out by itself")
	return f.decide(sidecar.Unknown).well()
}

// settle asks once for the session's state after an attempt without a clear
// answer. over tells that the folder is not to be sent again now.
func (f *folder) settle(ctx context.Context) (e end, over bool) {
	if f.rep.Meta.ScanRef == "" {
		return end{}, false
	}
	if err := f.set.Rate.Wait(ctx); err != nil {
		return end{work: f.work, due: time.Now()}, true
	}
	state, word, err := f.set.API.Status(ctx, f.rep.Meta.ScanRef)
	if apiErr, ok := errors.AsType[*idenfy.Error](err); ok {
		switch {
		case ctx.Err() != nil:
			return f.decided(), true
		case apiErr.Class == idenfy.ServiceFault, apiErr.Class == idenfy.NotSent:
			return f.decided().met(fault, apiErr), true
		}
		return end{}, false // the token decides; asking again would be polling
	}
	switch state {
	case idenfy.WasTaken:
		f.because("settled_by_status", "no clear answer came, but the session's status is %s, so the documents were taken", word)
		return f.decide(sidecar.Accepted).well(), true
	case idenfy.TokenExpired:
		f.because("token_expired", "no clear answer came, and the session's status is %s: the documents were not taken and the token expired; drop the folder again with a new token", word)
		return f.decide(sidecar.Rejected).well(), true
	default:
		return end{}, false
	}
}
