package batch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/sidecar"
)

// A folder with a clientId has no token. Its session is opened as a step of its
// life, with its own intent and its own answers; what is sent then, and counts, is
// the submission.
//
//	intent committed            a crash leaves it as sending: there may be a session that nobody has the token of
//	token kept in work, synced  likewise
//	answer committed            the session is the life's own; a crash goes on with it
//	submission …                as of every folder
//	token removed, synced       before the folder leaves work

// content names what a folder with a clientId is to submit.
func content(clientID string, images []meta.Image, sums []string) string {
	h := sha256.New()
	_, _ = io.WriteString(h, clientID) // never fails
	for i, img := range images {
		_, _ = fmt.Fprintf(h, "\n%s %s", img.Step, sums[i])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// mark is what folders of one submission have in common, for people.
func (v *visit) mark() string {
	if v.life.ClientID != "" {
		return "clientId and these images"
	}
	return "authToken"
}

// expired reports whether the session that the daemon opened can't be used any
// more.
func (v *visit) expired() bool {
	s := v.life.Result.Session
	return s != nil && s.By == sidecar.ByDaemon && !time.Now().Before(s.Expires.Time)
}

// replaces reports whether another session is to be opened in the place of one
// that expired: nothing can have been taken in that.
func (v *visit) replaces() bool {
	return v.life.ClientID != "" && v.life.Fate != journal.Unsettled && v.expired()
}

// session sees to it that there is a token to send, and opens a session where it
// takes one. over tells that the folder is not to be sent now.
//
// While an attempt may have been taken, no other session is opened: the same
// token again is safe, since it works once.
func (v *visit) session(ctx context.Context) (e end, over bool) {
	if v.life.ClientID == "" {
		v.token = v.rep.Meta.AuthToken
		return end{}, false
	}
	if v.life.Result.Session == nil {
		return v.open(ctx)
	}
	token, err := v.b.tokens.Read(v.life.ID)
	if err != nil {
		return v.diskFault(err), true
	}
	kept := token != "" && meta.TokenSum(token) == v.life.Token
	if v.life.Fate == journal.Unsettled && (!kept || v.expired()) {
		if e, over := v.settle(ctx); over {
			return e, true
		}
		if v.life.Fate == journal.Unsettled && !kept {
			v.because("token_lost", "an attempt got no clear answer, and its token is no longer in work")
			v.mayHaveBeen(ctx)
			return v.decide(ctx, sidecar.Unknown), true
		}
	}
	if kept && (v.life.Fate == journal.Unsettled || !v.expired()) {
		v.token = token
		return end{}, false
	}
	return v.open(ctx)
}

// opens is the intent to open a session.
func (v *visit) opens() intent {
	res := v.life.Result
	return intent{
		opens: true,
		begin: func() {
			o := sidecar.Opening{Attempt: sidecar.Attempt{N: len(res.Sessions) + res.Unlisted + 1, Started: sidecar.Now(), State: sidecar.Sending}}
			if last := res.LastAttempt(); last != nil {
				o.After = last.N
			}
			res.Sessions = append(res.Sessions, o)
		},
		undo: func() { res.Sessions = res.Sessions[:len(res.Sessions)-1] },
	}
}

// open opens a session.
func (v *visit) open(ctx context.Context) (e end, over bool) {
	if err := v.turn(ctx); err != nil {
		return v.notNow(), true
	}
	if e, over := v.intend(ctx, v.opens()); over {
		return e, true
	}
	o := v.life.Result.LastOpening()
	if e, over := v.show(ctx, &o.Attempt); over {
		return e, true
	}
	s, err := v.set.API.OpenSession(ctx, idenfy.SessionRequest{
		ClientID: v.life.ClientID, ExternalRef: v.life.ID, Expiry: v.set.SessionExpiry, Person: v.rep.Meta.Person(),
	})
	o.Finished, o.HTTPStatus = sidecar.Now(), s.Status
	o.DurationMS = time.Since(o.Started.Time).Milliseconds()
	if err != nil {
		return v.judgeOpening(ctx, o, err), true
	}
	return v.opened(ctx, o, s)
}

// opened makes a session the life's own.
func (v *visit) opened(ctx context.Context, o *sidecar.Opening, s idenfy.Session) (e end, over bool) {
	o.State, o.ScanRef = sidecar.Answered, s.ScanRef
	if err := v.b.tokens.Keep(v.life.ID, s.Token); err != nil {
		o.State, o.Message = sidecar.NoAnswer, "the token could not be kept, so another session is opened"
		v.told(o)
		if e := v.record(ctx); e.fault.owner != nobody || e.again == nil {
			return answered(e), true
		}
		return answered(v.diskFault(err)), true
	}
	before := *v.life
	res, req := v.life.Result, &v.life.Result.Request
	old, hint := res.Session, *req
	res.Session = &sidecar.Session{
		ScanRef: s.ScanRef, ClientID: v.life.ClientID, Opened: o.Started, Expires: sidecar.Time{Time: o.Started.Add(s.Expiry)}, By: sidecar.ByDaemon,
	}
	v.life.ScanRef, v.life.Token = s.ScanRef, meta.TokenSum(s.Token)
	req.TokenSHA256, req.TokenHint = v.life.Token, sidecar.TokenHint(s.Token)
	isNew, err := v.b.journal.Opened(v.life)
	if err != nil {
		v.told(o)
		return answered(v.unrecorded(err)), true
	}
	if !isNew {
		v.life.ScanRef, v.life.Token, res.Session, *req = before.ScanRef, before.Token, old, hint
		o.State, o.ScanRef, o.Message = sidecar.NoAnswer, "", "the answer has a token that was given before, so another session is opened"
		return v.judgeOpening(ctx, o, &idenfy.Error{Class: idenfy.NoAnswer, Status: o.HTTPStatus, Message: o.Message}), true
	}
	v.told(o)
	v.token = s.Token
	return end{}, false
}

func (v *visit) told(o *sidecar.Opening) {
	v.b.emit(events.SessionAsked{Folder: v.name, ID: v.life.ID, Opening: *o})
}

// unopened notes what a crash left of a request for a session.
func (v *visit) unopened(ctx context.Context) end {
	o := v.life.Result.LastOpening()
	o.State, o.Finished = sidecar.NoAnswer, sidecar.Now()
	o.Message = "the daemon ended while it asked for a session"
	o.DurationMS = max(o.Finished.Sub(o.Started.Time).Milliseconds(), 0)
	v.set.Retry.charge(v.life, false)
	v.told(o)
	return v.record(ctx)
}

// sessionActive is the code of the reason that a folder waits in work because
// its person has a session already.
const sessionActive = "session_active"

// judgeOpening records how a request for a session ended that opened none, by
// the table of meanings, and follows it: but for what it means for the folder,
// since nothing of that was sent.
func (v *visit) judgeOpening(ctx context.Context, o *sidecar.Opening, err error) end {
	how, apiErr := v.howEnded(err)
	if how == tokenRefused { // there was none
		how = rejected
	}
	if how == busyPerson {
		v.because(sessionActive, "iDenfy says that this clientId has an active session, so it opens no other now; it is asked again, and the session ends when it is used, or expires")
	}
	return v.conclude(ctx, &o.Attempt, how, apiErr, func() { v.told(o) })
}
