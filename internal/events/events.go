// Package events owns the values that say what happened: the parts of the
// daemon emit them, and log, metrics, state and screen each listen. It does
// nothing with them itself.
package events

import (
	"time"

	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Event is one thing that happened; the types in this package are all that
// there are.
type Event interface{ event() }

// Sink takes events. It is called from several goroutines at once, and must
// not keep them waiting.
type Sink func(Event)

// Fan returns a sink that hands each event to all of sinks, in order; a nil
// one is left out.
func Fan(sinks ...Sink) Sink {
	return func(e Event) {
		for _, s := range sinks {
			if s != nil {
				s(e)
			}
		}
	}
}

// Of the batch.
type (
	// Recovered tells how many folders lay in work at the start.
	Recovered struct{ Folders int }
	// Claimed tells that a folder was taken into work.
	Claimed struct{ Folder, ID string }
	// FolderStuck tells once of a folder that can't go on by its own fault,
	// as long as that stays: it is tried again, and a person can mend it.
	FolderStuck struct {
		Place      spool.Place // an inbox or work
		Folder, ID string      // without ID in an inbox
		Reason     string      // no name of a file from outside
		Mend       string      // what a person can do
		Since      time.Time
	}
	// FolderFreed tells the end of that.
	FolderFreed struct {
		Place      spool.Place
		Folder, ID string
	}
	// ClaimFailed tells that a folder could not be taken, and stays: because of
	// the disk, or, with Alone, of its inbox, while the others can be taken from.
	ClaimFailed struct {
		Inbox  string
		Folder string
		Alone  bool
		Err    error
	}
	// Released tells that a folder went back to its inbox, and why.
	Released struct{ Inbox, Folder, ID, Why string }
	// Vanished tells that somebody took a folder out of work.
	Vanished struct{ Folder, ID string }
	// Attempted tells how an attempt ended.
	Attempted struct {
		Folder, ID string
		Attempt    sidecar.Attempt
	}
	// SessionAsked tells how a request for a session ended.
	SessionAsked struct {
		Folder, ID string
		Opening    sidecar.Opening
	}
	// Ended tells that a folder lies in its final place under Name. Result is
	// for reading only, and only until the sink returns.
	Ended struct {
		Result *sidecar.Result
		Place  spool.Place
		Name   string
	}
	// GateShut tells that a gate is shut, or stays shut after a try: all that
	// needs its owner waits, and the next try is after Wait.
	GateShut struct {
		Owner  Owner
		Reason string    // no text from outside, but for the API's identifier
		Mend   string    // what a person can do
		Since  time.Time // when it was shut first
		Wait   time.Duration
		Asked  time.Duration // what is left of the time that the service asked for; no reload shortens that
		Tries  int           // that failed
	}
	// GateOpened tells the end of that.
	GateOpened struct{ Owner Owner }
	// Counted tells how many folders are in some places.
	Counted struct{ Folders map[spool.Place]int }
	// Progress tells that the batch is alive, and what it has to do: folders
	// in flight, and those that wait in work.
	Progress struct{ InFlight, Parked int }
)

// Owner is whose a fault is, where that holds up more than one folder.
type Owner string

// The owners that have a gate.
const (
	Account Owner = "account" // nothing is submitted
	Disk    Owner = "disk"    // nothing is moved or recorded
)

// Owners returns them.
func Owners() []Owner { return []Owner{Account, Disk} }

// Mode says where the watcher's knowledge comes from.
type Mode string

// The modes.
const (
	ByEvents  Mode = "events"  // events for every folder, and rescans
	Partial   Mode = "partial" // events for some folders, and rescans
	ByRescans Mode = "rescans" // rescans only
)

// Of a watcher, each of one inbox, by its name.
type (
	// FolderWaits tells once of a folder that waits longer than warn_after.
	FolderWaits struct {
		Inbox   string
		Folder  string
		Age     time.Duration
		Reasons []meta.Reason
	}
	// WatchModeChanged tells of a change of mode; Err is why it is not
	// ByEvents.
	WatchModeChanged struct {
		Inbox string
		Mode  Mode
		Err   error
	}
	// Overflowed tells that a rescan starts because file events were lost.
	Overflowed struct {
		Inbox string
		Err   error
	}
	// Rescanned tells how many folders are in the inbox, how old the oldest
	// is, and how long looking at them took.
	Rescanned struct {
		Inbox        string
		Folders      int
		Oldest, Took time.Duration
	}
	// InboxTrouble tells that the inbox can't be read, or nothing be moved from
	// it, or, without Err, that both can be again.
	InboxTrouble struct {
		Inbox string
		Err   error
	}
	// InboxLeft tells that an inbox is watched no longer where it was: what lies
	// there stays. If it has got another directory, that is watched from then on.
	InboxLeft struct{ Inbox string }
)

// Refusal is why a webhook was not taken.
type Refusal string

// The refusals.
const (
	BadSignature Refusal = "signature"    // it has none, or none of the keys made it
	NotWebhook   Refusal = "not_webhook"  // another path or method
	TooLarge     Refusal = "too_large"    //
	Busy         Refusal = "busy"         // too many large ones at once
	Unfinished   Refusal = "unfinished"   // it did not come to its end in time
	NotRecorded  Refusal = "not_recorded" // the journal did not take it: it is sent again
)

// Refusals returns them.
func Refusals() []Refusal {
	return []Refusal{BadSignature, NotWebhook, TooLarge, Busy, Unfinished, NotRecorded}
}

// Of verdicts.
type (
	// WebhookTaken tells that a webhook was recorded; Known, that there is a
	// folder of its session by now.
	WebhookTaken struct{ Known, Readable bool }
	// Disputed tells that iDenfy said something of a session for the first time
	// that several folders name, with different tokens.
	Disputed struct {
		ScanRef string
		Folders []string
	}
	// WebhookRefused tells that one was not; Err is of the journal.
	WebhookRefused struct {
		Why Refusal
		Err error
	}
	// VerdictCame tells what iDenfy said of a folder, once.
	VerdictCame struct {
		Folder, ID string
		Overall    string // its word
		Final      bool
		First      bool // final one of its session
		By         sidecar.By
		After      time.Duration // from the folder's acceptance; 0: that isn't known
		Clash      string        // the word of a final one before that this one contradicts
	}
	// Asked tells that a session was asked for by a status request, for the
	// n-th time. Fault says why there was no answer that tells; what the API says
	// to people is not in it, since that may name the person.
	Asked struct {
		N          int
		Fault      string // idenfy.Class; empty: there was one
		HTTPStatus int    // 0: there was none at all
		Identifier string // the API's
	}
	// StraysDropped tells that events were dropped for which no folder came.
	StraysDropped struct{ Events int }
	// VerdictsCounted tells how the verdicts stand.
	VerdictsCounted struct {
		Waiting      int           // accepted folders without a final one
		Oldest       time.Duration // for how long the first of these
		Final        map[string]int
		Contradicted int
		Strays       int // events without a folder
	}
)

// Of retention.
type (
	// Purged tells that something was deleted of a folder, by which rule, and
	// whether a person had it done.
	Purged struct {
		Folder, ID string
		Place      spool.Place
		Rule       sidecar.Rule
		Files      int
		Bytes      int64
		Person     bool
	}
	// PurgeFailed tells that a folder could not be purged; Err has no name of a
	// file. It is tried again by the next pass.
	PurgeFailed struct {
		Folder, ID string
		Place      spool.Place
		Err        error
	}
	// DeletionAsked tells that iDenfy was asked to delete a session. Fault says why
	// it did not, as in Asked; empty: it did.
	DeletionAsked struct {
		Folder, ID, Fault string
		HTTPStatus        int
		Identifier        string
	}
	// PassEnded tells that a daily pass has come to its end: how many folders
	// were purged, how many a legal hold keeps, and how many could not be purged.
	PassEnded struct {
		Folders, Held, Failed int
		Bytes                 int64
		Took                  time.Duration
	}
)

// MostIgnored bounds how many names an Ignored has.
const MostIgnored = 100

// Loose is what lies in an inbox and is no folder.
type Loose struct{ Name, Kind string } // file, link or special

// Of receipts.
type (
	// FolderLacks tells what a folder waits for that waits longer than
	// warn_after, whenever that changes; without Reasons, that it waits no more.
	FolderLacks struct {
		Inbox, Folder string
		Seen, Since   time.Time // first seen, and last changed
		Reasons       []meta.Reason
	}
	// Ignored tells what lies in an inbox and is no folder, when that changed:
	// some of the names, and how many there are beyond these.
	Ignored struct {
		Inbox string
		Loose []Loose
		More  int
	}
	// Receipts tells how many receipts of an inbox were written since the last
	// of these events, and how many are still to be.
	Receipts struct {
		Inbox         string
		Written, Owed int
	}
	// ReceiptTrouble tells why receipts of an inbox can't be written, or that
	// only its group can't read them, when that changed; or, without Err, that
	// all is well again. Folders go on meanwhile.
	ReceiptTrouble struct {
		Inbox string
		Err   error
	}
	// ReceiptsLeft tells that an inbox has no receipts any more.
	ReceiptsLeft struct{ Inbox string }
)

// Of the daemon.
type (
	// Started tells that the daemon works on the spool below Root.
	Started struct{ Version, Root, Endpoint string }
	// Stopping tells that it was told to stop, and for how long it waits for
	// what is in flight.
	Stopping struct{ Grace time.Duration }
	// Stopped tells that it has, and how many folders wait in work.
	Stopped struct{ InWork int }
	// Reloaded tells that a new configuration is in force; Note is what of it
	// takes more than a reload.
	Reloaded struct{ Note string }
	// ReloadRefused tells that the new configuration can't be had, and the old
	// one stays as it was.
	ReloadRefused struct{ Err error }
	// Decided tells what a person decided about a folder through the daemon:
	// it lies in Place under Name, or Err says why it was refused.
	Decided struct {
		Folder, ID string
		Action     sidecar.Action
		Forced     bool
		Place      spool.Place
		Name       string
		Err        error
	}
	// Adopted tells how far the taking over of a spool of before is, or, with
	// Ledger, that of what had ended before into the ledger.
	Adopted struct {
		Folders, Total int
		Done, Ledger   bool
	}
	// Trouble tells of something beside the daemon's work that could not be
	// done.
	Trouble struct {
		What string
		Err  error
	}
)

func (Recovered) event()        {}
func (Claimed) event()          {}
func (FolderStuck) event()      {}
func (FolderFreed) event()      {}
func (ClaimFailed) event()      {}
func (Released) event()         {}
func (Vanished) event()         {}
func (Attempted) event()        {}
func (SessionAsked) event()     {}
func (Ended) event()            {}
func (GateShut) event()         {}
func (GateOpened) event()       {}
func (Counted) event()          {}
func (Progress) event()         {}
func (FolderWaits) event()      {}
func (WatchModeChanged) event() {}
func (Overflowed) event()       {}
func (Rescanned) event()        {}
func (InboxTrouble) event()     {}
func (InboxLeft) event()        {}
func (Started) event()          {}
func (Stopping) event()         {}
func (Stopped) event()          {}
func (Reloaded) event()         {}
func (ReloadRefused) event()    {}
func (Decided) event()          {}
func (Adopted) event()          {}
func (WebhookTaken) event()     {}
func (Disputed) event()         {}
func (WebhookRefused) event()   {}
func (VerdictCame) event()      {}
func (Asked) event()            {}
func (StraysDropped) event()    {}
func (VerdictsCounted) event()  {}
func (Purged) event()           {}
func (PurgeFailed) event()      {}
func (DeletionAsked) event()    {}
func (PassEnded) event()        {}
func (FolderLacks) event()      {}
func (Ignored) event()          {}
func (Receipts) event()         {}
func (ReceiptTrouble) event()   {}
func (ReceiptsLeft) event()     {}
func (Trouble) event()          {}
