package batch

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/sidecar"
)

// What follows each ending of an attempt, see meanings.

func (v *visit) accept(ctx context.Context, _ *idenfy.Error) end {
	return v.decide(ctx, sidecar.Accepted)
}

func (v *visit) reject(ctx context.Context, err *idenfy.Error) end {
	v.apiReason(err)
	return v.decide(ctx, sidecar.Rejected)
}

func (v *visit) apiReason(err *idenfy.Error) {
	v.life.Result.Reasons = append(v.life.Result.Reasons, sidecar.Reason{
		Code:    cmp.Or(err.Identifier, fmt.Sprintf("HTTP_%d", err.Status)),
		Message: cmp.Or(err.Message, "no message was given"),
		Source:  sidecar.FromAPI,
	})
}

// refuseToken follows TOKEN_NOT_VALID. After an attempt that may have been
// taken, in this life or in an earlier one, that one was, or the token expired
// meanwhile: one question tells, or a person. Else the token is simply bad.
func (v *visit) refuseToken(ctx context.Context, err *idenfy.Error) end {
	h, failed := v.b.journal.History(context.WithoutCancel(ctx), v.life.ID)
	if failed != nil {
		return v.unrecorded(failed)
	}
	certain := v.life.Fate != journal.Unsettled && len(h.Open) == 0
	if certain && v.life.ClientID == "" {
		v.life.Fate = journal.Refused
		return v.reject(ctx, err)
	}
	if e, over := v.settle(ctx); over {
		return e
	}
	if v.replaces() {
		return answered(v.retryOwn(ctx, err))
	}
	if certain {
		v.life.Fate = journal.Refused
		return v.reject(ctx, err)
	}
	hint := v.alsoNamed(ctx)
	if hint == "" {
		hint = ". With scanRef in meta.yaml the daemon finds out by itself"
	}
	v.because("may_have_been_accepted", "an attempt got no clear answer, and now the token is refused: either that attempt was taken, or the token expired; look the session up in the iDenfy dashboard, then decide with idenfy-batch resolve%s", hint)
	v.life.Fate = journal.Unsettled
	return answered(v.decide(ctx, sidecar.Unknown))
}

// settleRefused is refuseToken of an attempt that a visit before had recorded,
// and could not settle.
func (v *visit) settleRefused(ctx context.Context) end {
	a := v.life.Result.LastAttempt()
	return v.refuseToken(ctx, &idenfy.Error{Class: idenfy.Rejected, Status: a.HTTPStatus, Identifier: a.Identifier, Message: a.Message})
}

// retry parks the folder until it is due.
func (v *visit) retry(ctx context.Context, _ *idenfy.Error) end { return v.record(ctx) }

// retryOwn is retry of a folder that has failed by itself, and is given up when
// that has lasted too long.
func (v *visit) retryOwn(ctx context.Context, err *idenfy.Error) end {
	if v.task.probesAccount || !v.set.Retry.over(v.life) {
		return v.record(ctx)
	}
	res := v.life.Result
	if o := res.LastOpening(); o != nil && res.LastTry() == &o.Attempt {
		v.because("gave_up", "no session could be opened within %s, with %d requests; the last one: %v", v.set.Retry.GiveUpAfter, o.N, err)
		return v.decide(ctx, sidecar.GaveUp)
	}
	v.because("gave_up", "no attempt of %d came to an end within %s; the last one: %v", len(res.Attempts)+res.Omitted, v.set.Retry.GiveUpAfter, err)
	silent := res.Omitted > 0 || slices.ContainsFunc(res.Attempts, func(a sidecar.Attempt) bool { return a.State == sidecar.NoAnswer })
	if silent && v.life.Fate == journal.Unsettled {
		v.mayHaveBeen(ctx)
		return v.decide(ctx, sidecar.Unknown)
	}
	return v.decide(ctx, sidecar.GaveUp)
}

func (v *visit) changedWhileSent(ctx context.Context, err *idenfy.Error) end {
	v.because("withheld", "attempt %d was broken off before its last byte, so it can't have been processed", v.life.Result.LastAttempt().N)
	return v.changed(ctx, err.Message)
}

// readAgain parks a folder of which a file could not be read: that may pass.
func (v *visit) readAgain(ctx context.Context, _ *idenfy.Error) end { return v.record(ctx) }

// settle asks once for the state of the session after an attempt without a
// clear answer. over tells that the folder is not to be sent again now.
func (v *visit) settle(ctx context.Context) (e end, over bool) {
	if v.life.ScanRef == "" {
		return end{}, false
	}
	other, err := v.b.journal.Rival(context.WithoutCancel(ctx), v.life.ScanRef, v.life.ID, v.life.Token)
	if err != nil {
		return v.unrecorded(err), true
	}
	if other != nil { // its status may be of the other one
		return end{}, false
	}
	state, word, e, over := v.question(ctx, v.life.ScanRef)
	if over {
		return e, true
	}
	switch state {
	case idenfy.WasTaken:
		v.because("settled_by_status", "no clear answer came, but the session's status is %s, so the documents were taken", word)
		v.life.Fate = journal.Taken
		return answered(v.decide(ctx, sidecar.Accepted)), true
	case idenfy.TokenExpired:
		if s := v.life.Result.Session; v.life.ClientID != "" && s != nil { // by now for certain, and another can be opened
			v.life.Fate, s.Expires = journal.Refused, sidecar.Time{Time: earliest(s.Expires.Time, time.Now())}
			return end{}, false
		}
		v.because("token_expired", "no clear answer came, and the session's status is %s: the documents were not taken and the token expired; drop the folder again with a new token", word)
		v.life.Fate = journal.Refused
		return answered(v.decide(ctx, sidecar.Rejected)), true
	default:
		return end{}, false
	}
}

// alsoNamed says to the end of a reason why the session of the scanRef in
// meta.yaml isn't asked for, if it isn't.
func (v *visit) alsoNamed(ctx context.Context) string {
	if v.life.ScanRef == "" {
		return ""
	}
	other, err := v.b.journal.Rival(context.WithoutCancel(ctx), v.life.ScanRef, v.life.ID, v.life.Token)
	if err != nil || other == nil {
		return "" // it is only said
	}
	return fmt.Sprintf(". The scanRef in meta.yaml is also another folder's, %s (submission %s), so it can't tell", meta.Show(other.Where()), other.ID)
}

// answered notes that the service answered in its own words.
func answered(e end) end {
	e.answer = reply
	return e
}

// standing is what a session was found to be.
type standing struct {
	state idenfy.Taken
	word  string
}

// question asks for a session's state. over tells that there was no answer,
// and that the folder waits; an answer that tells nothing is TakenUnknown.
// What iDenfy has said of it by itself needs no question, nor what was asked
// since the last attempt.
func (v *visit) question(ctx context.Context, scanRef string) (state idenfy.Taken, word string, e end, over bool) {
	if words, err := v.b.journal.Words(ctx, scanRef); err == nil { // else it is asked
		for _, sure := range []idenfy.Taken{idenfy.WasTaken, idenfy.TokenExpired} { // what was taken stays so, whatever else is said
			for _, word := range words {
				if idenfy.TakenBy(word) == sure {
					return sure, word, end{}, false
				}
			}
		}
	}
	if is, asked := v.standing[scanRef]; asked {
		return is.state, is.word, end{}, false
	}
	if err := v.turn(ctx); err != nil { // the daemon stops, or the gate is shut: what the attempt before it came to is kept
		return 0, "", v.record(ctx), true
	}
	state, word, err := v.set.API.Status(ctx, scanRef)
	if apiErr, ok := err.(*idenfy.Error); ok { //nolint:errorlint // Status returns no other, and wraps none
		switch {
		case ctx.Err() != nil:
			return 0, "", v.record(ctx), true
		case apiErr.Class == idenfy.ServiceFault, apiErr.Class == idenfy.NotSent:
			doubtful := endingOf(apiErr) == doubtfulFault
			if doubtful && v.task.own {
				return 0, "", v.record(ctx).met(v.faultOf(apiErr, folder, false)), true
			}
			return 0, "", v.record(ctx).met(v.faultOf(apiErr, account, doubtful)), true
		}
		state, word = idenfy.TakenUnknown, "" // the token decides; asking again would be polling
	}
	if v.standing == nil {
		v.standing = map[string]standing{}
	}
	v.standing[scanRef] = standing{state, word}
	return state, word, end{}, false
}

// found is what was found out of lives that may have been taken.
type found int

const (
	asked   found = iota // nothing new
	settled              // the journal knows more now
	unused               // the session of this token is unused
)

// settleOthers asks for the sessions of earlier lives that may have been taken.
func (v *visit) settleOthers(ctx context.Context, a journal.Answer) (found, end, bool) {
	all := true
	news := asked
	for _, o := range a.Open {
		ref, id := o.ScanRef, o.ID
		if ref == "" && o.Token != "" && o.Token == v.life.Token {
			ref, id = v.life.ScanRef, v.life.ID
		}
		if ref == "" {
			all = false
			continue
		}
		other, err := v.b.journal.Rival(context.WithoutCancel(ctx), ref, id, o.Token)
		if err != nil {
			return asked, v.unrecorded(err), true
		}
		if other != nil {
			all = false
			continue
		}
		state, _, e, over := v.question(ctx, ref)
		if over {
			return asked, e, true
		}
		fate := map[idenfy.Taken]journal.Fate{idenfy.WasTaken: journal.Taken, idenfy.TokenExpired: journal.Refused}[state]
		switch {
		case fate != "":
			if err := v.b.journal.Settle(o.ID, fate); err != nil {
				return asked, v.diskFault(err), true
			}
			news = settled
		case state != idenfy.NotTaken || v.life.Token == "" || o.Token != v.life.Token:
			all = false
		}
	}
	if news == asked && all {
		news = unused
	}
	return news, end{}, false
}

// sentBefore ends a folder of which an earlier life was, or may have been,
// taken, and that no person decided to send again. Nothing of it was sent now.
func (v *visit) sentBefore(ctx context.Context, a journal.Answer) end {
	o := a.Other
	other := meta.Show(o.Where())
	switch {
	case a.Verdict == journal.Before && a.Own:
		return v.decide(ctx, v.acceptedBefore(a))
	case a.Verdict == journal.Before && v.life.ClientID != "":
		v.because("content_used", "another folder with this clientId and these images, %s, was accepted (submission %s); nothing of this one was sent. If a second submission is meant: idenfy-batch requeue --force", other, o.ID)
		return v.decide(ctx, sidecar.Invalid)
	case a.Verdict == journal.Before:
		v.because("token_used", "another folder that had this authToken, %s, was accepted (submission %s); nothing of this one was sent. If it is of another person, or a second submission is meant: idenfy-batch requeue --force, with a token of its own", other, o.ID)
		return v.decide(ctx, sidecar.Invalid)
	case a.Own:
		v.because("may_have_been_accepted", "an earlier submission of it (%s) may have been accepted; nothing was sent now. Look the session up in the iDenfy dashboard, then decide with idenfy-batch resolve", o.ID)
		return v.decide(ctx, sidecar.Unknown)
	case v.life.ClientID != "":
		v.because("content_undecided", "another folder with this clientId and these images, %s, may have been accepted (submission %s); nothing of this one was sent. Decide that one with idenfy-batch resolve; then this one can be requeued", other, o.ID)
		return v.decide(ctx, sidecar.Invalid)
	default:
		v.because("token_undecided", "another folder with this authToken, %s, may have been accepted (submission %s); nothing of this one was sent. Decide that one with idenfy-batch resolve; then this one can be requeued", other, o.ID)
		return v.decide(ctx, sidecar.Invalid)
	}
}

// acceptedBefore says of a folder that came again after it was accepted what
// it is: the accepted one, as long as its token is the same.
func (v *visit) acceptedBefore(a journal.Answer) sidecar.Outcome {
	if c := v.life.ClientID; c != "" && c == a.Other.Client {
		v.because(sidecar.SentBefore, "it was accepted before, as submission %s, with this clientId; nothing was sent now. If a second submission is meant: idenfy-batch requeue --force", a.Other.ID)
		return sidecar.Accepted
	}
	if a.Other.Token == v.life.Token && v.life.Token != "" {
		v.because(sidecar.SentBefore, "it was accepted before, as submission %s, with this authToken, which works once; nothing was sent now. If a second submission is meant, put a new token into meta.yaml, then idenfy-batch requeue --force", a.Other.ID)
		return sidecar.Accepted
	}
	v.because(sidecar.SentBefore, "it was accepted before, as submission %s, with another authToken; nothing was sent now. If a second submission is meant: idenfy-batch requeue --force", a.Other.ID)
	return sidecar.Invalid
}
