package batch

import (
	"context"
	"errors"
	"io"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// state is what is known of a folder in work, when it is visited: by its name
// there, and by the life that the journal tells under the id in that name.
type state int

// The states.
const (
	stray      state = iota // no id in its name: nobody's but who put it there
	foreign                 // an id that the journal doesn't know
	arrived                 // claimed just now
	claimed                 // claimed, and the daemon ended then: nothing was sent
	sending                 // the daemon ended while an attempt was under way
	opening                 // or while a session was asked for
	refused                 // the token was refused after it may have been taken, and that could not be settled
	waiting                 // the next attempt is due
	decided                 // its outcome is known, and to be written
	ended                   // it is to be moved to its place
	returned                // it had left work, and lies there again
	unrecorded              // the visit before could not record how it ended
)

// entries says, for each state, how a visit goes on. It is the same for an
// arrival, a further attempt, and what a start finds.
var entries = map[state]func(*visit, context.Context) end{
	stray:      (*visit).release,
	foreign:    (*visit).notUnderstood,
	arrived:    (*visit).examine,
	claimed:    (*visit).release,
	sending:    (*visit).unanswered,
	opening:    (*visit).unopened,
	refused:    (*visit).settleRefused,
	waiting:    (*visit).again,
	decided:    (*visit).finish,
	ended:      (*visit).moveAgain,
	returned:   (*visit).notUnderstood,
	unrecorded: (*visit).record,
}

// state finds out which.
func (v *visit) state() state {
	l := v.life
	switch {
	case v.task.unsaved != nil:
		return unrecorded
	case v.task.id == "":
		return stray
	case l == nil:
		return foreign
	case l.State == journal.Claimed && v.task.arrival != nil:
		return arrived
	case l.State == journal.Claimed:
		return claimed
	case l.State == journal.Ended, l.State == journal.Filed && spool.Place(l.Place).Final():
		return ended
	case l.State == journal.Away:
		return returned
	case l.State == journal.Filed && (l.Fate != journal.Taken || l.Result.Outcome != sidecar.Accepted):
		return returned
	case l.Result.Outcome.Final():
		return decided
	}
	if o := l.Result.LastOpening(); o != nil && o.State == sidecar.Sending {
		return opening
	}
	switch last := l.Result.LastTry(); {
	case last == nil:
		return waiting
	case last.State == sidecar.Sending:
		return sending
	case last.State == sidecar.Answered && last.Identifier == idenfy.TokenNotValid && !v.replaces():
		return refused
	default:
		return waiting
	}
}

// ending is how an attempt ended.
type ending int

// The endings.
const (
	accepted      ending = iota // 200 and nothing else
	rejected                    // the API's no to this folder
	tokenRefused                // expired, used or unknown: one identifier for the three
	serviceFault                // credentials, quota, a wrong address, a proxy: anybody would meet it
	doubtfulFault               // contract, or an answer that is not the service's own: perhaps nobody else meets it
	ownFault                    // the same again, while others were answered in between
	serverError                 // 5xx: it may have been taken
	noAnswer                    // it left whole, and no answer came: it may have been taken
	unfinished                  // it broke before its last byte
	notSent                     // not one byte left
	changed                     // what was being sent was no longer what had been looked at
	unreadable                  // a file could not be read to its end
	busyPerson                  // no session for now: the person has an active one
)

// meaning is what an ending means for the folder and for the account.
type meaning struct {
	state    sidecar.State // how the attempt is recorded
	fate     journal.Fate  // of what was sent; Unsent leaves it as it was before
	follow   func(v *visit, ctx context.Context, err *idenfy.Error) end
	answer   answer
	owner    owner // of the fault, where it is one
	doubtful bool  // see fault
}

// meanings says what each ending means, and how the visit goes on.
var meanings = map[ending]meaning{
	accepted:      {sidecar.Answered, journal.Taken, (*visit).accept, acceptance, nobody, false},
	rejected:      {sidecar.Answered, journal.Refused, (*visit).reject, reply, folder, false},
	tokenRefused:  {sidecar.Answered, journal.Unsent, (*visit).refuseToken, reply, folder, false},
	serviceFault:  {sidecar.Answered, journal.Unsent, (*visit).retry, silence, account, false},
	doubtfulFault: {sidecar.Answered, journal.Unsent, (*visit).retry, silence, account, true},
	ownFault:      {sidecar.Answered, journal.Unsent, (*visit).retryOwn, silence, folder, false},
	serverError:   {sidecar.Answered, journal.Unsettled, (*visit).retryOwn, silence, folder, true},
	noAnswer:      {sidecar.NoAnswer, journal.Unsettled, (*visit).retryOwn, silence, folder, true},
	unfinished:    {sidecar.NoAnswer, journal.Unsent, (*visit).retryOwn, silence, folder, true},
	notSent:       {sidecar.NotSent, journal.Unsent, (*visit).retry, silence, account, false},
	changed:       {sidecar.NoAnswer, journal.Unsent, (*visit).changedWhileSent, silence, folder, false},
	unreadable:    {sidecar.NoAnswer, journal.Unsent, (*visit).readAgain, silence, folder, false},
	busyPerson:    {sidecar.Answered, journal.Unsent, (*visit).retry, reply, nobody, false},
}

// endingOf classifies the error of an attempt.
func endingOf(err *idenfy.Error) ending {
	switch err.Class {
	case idenfy.Rejected:
		if err.Identifier == idenfy.TokenNotValid {
			return tokenRefused
		}
		return rejected
	case idenfy.ServiceFault:
		if err.WantsField == "" && !err.NoCredits() && idenfy.Doubtful(err.Status, err.Identifier, err.RetryAfter > 0) {
			return doubtfulFault
		}
		return serviceFault
	case idenfy.ServerError:
		return serverError
	case idenfy.NotSent:
		return notSent
	case idenfy.Busy:
		return busyPerson
	case idenfy.Unfinished:
		return unfinished
	case idenfy.Withheld:
		if errors.Is(err, drop.ErrChanged) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return changed
		}
		return unreadable
	default:
		return noAnswer
	}
}
