package telemetry

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
)

// State is what the daemon tells others on the host while it runs.
type State struct {
	PID        int       `json:"pid"`
	Since      time.Time `json:"since"`                  // start of the daemon
	Gates      []Gate    `json:"gates"`                  // those that are shut
	Mode       string    `json:"watch_mode"`             // see events.Mode; empty: not watching yet
	ModeReason string    `json:"watch_reason,omitempty"` //
	Stuck      Stuck     `json:"stuck"`
	Inbox      *Inbox    `json:"inbox_trouble"` // nil: it is in order
}

// Inbox tells why nothing can be taken from the inbox.
type Inbox struct {
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// Stuck tells of folders that can't go on by their own fault.
type Stuck struct {
	Folders int           `json:"folders"`          // how many
	Newest  []StuckFolder `json:"newest,omitempty"` // at most maxStuck
}

// maxStuck bounds what is told of stuck folders.
const maxStuck = 200

// StuckFolder is one of them.
type StuckFolder struct {
	Place  spool.Place `json:"place"`
	Folder string      `json:"folder"`
	ID     string      `json:"id,omitempty"` // in work
	Since  time.Time   `json:"since"`
	Reason string      `json:"reason"`
	Mend   string      `json:"mend"` // what a person can do
}

// Gate is one that is shut: all that needs its owner waits.
type Gate struct {
	Owner  events.Owner `json:"owner"`
	Reason string       `json:"reason"`
	Mend   string       `json:"mend"` // what a person can do
	Since  time.Time    `json:"since"`
	Next   time.Time    `json:"next_try"`
	Asked  time.Time    `json:"not_before,omitzero"` // that the service asked for; no reload has it tried sooner
	Tries  int          `json:"tries"`               // that failed
}

// Keeper keeps the state, and signs of life.
type Keeper struct {
	alive                    atomic.Int64 // time of the last sign of progress, ns
	inbox, inFlight, waiting atomic.Int64
	accepted, failed, held   atomic.Int64

	mu    sync.Mutex
	state State
	lie   map[spool.Place]int // folders in the final places
}

// NewKeeper returns a keeper.
func NewKeeper() *Keeper {
	k := &Keeper{state: State{PID: os.Getpid(), Since: time.Now(), Gates: []Gate{}}}
	k.alive.Store(time.Now().UnixNano())
	return k
}

// Take notes e; it is an events.Sink.
func (k *Keeper) Take(e events.Event) {
	switch e := e.(type) {
	case events.Adopted: // the batch has not begun, and all is well
		k.alive.Store(time.Now().UnixNano())
	case events.Progress:
		k.alive.Store(time.Now().UnixNano())
		k.inFlight.Store(int64(e.InFlight))
		k.waiting.Store(int64(e.Parked))
	case events.Rescanned:
		k.inbox.Store(int64(e.Folders))
	case events.Counted:
		k.mu.Lock()
		k.lie = e.Folders
		k.mu.Unlock()
	case events.Ended:
		k.count(e.Place)
	case events.FolderStuck:
		k.stuck(1, e.Place, e.Folder, e.ID, StuckFolder{Place: e.Place, Folder: meta.Show(e.Folder), ID: e.ID, Since: e.Since, Reason: e.Reason, Mend: e.Mend})
	case events.FolderFreed:
		k.stuck(-1, e.Place, e.Folder, e.ID)
	case events.GateShut:
		g := Gate{Owner: e.Owner, Reason: e.Reason, Mend: e.Mend, Since: e.Since, Next: time.Now().Add(e.Wait), Tries: e.Tries}
		if e.Asked > 0 {
			g.Asked = time.Now().Add(e.Asked)
		}
		k.gate(e.Owner, g)
	case events.GateOpened:
		k.gate(e.Owner)
	case events.InboxTrouble:
		k.trouble(e.Err)
	case events.WatchModeChanged:
		why := ""
		if e.Err != nil {
			why = e.Err.Error()
		}
		k.mu.Lock()
		k.state.Mode, k.state.ModeReason = string(e.Mode), why
		k.mu.Unlock()
	}
}

func (k *Keeper) count(p spool.Place) {
	switch p {
	case spool.Done:
		k.accepted.Add(1)
	case spool.Hold:
		k.held.Add(1)
	default:
		k.failed.Add(1)
	}
}

// gate replaces what is said of an owner's gate; nothing: it is open.
func (k *Keeper) gate(o events.Owner, is ...Gate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	// Made anew: who was given the state before may still read it.
	gates := slices.DeleteFunc(slices.Clone(k.state.Gates), func(g Gate) bool { return g.Owner == o })
	k.state.Gates = append(gates, is...)
}

// trouble notes why nothing can be taken from the inbox; nil: it can.
func (k *Keeper) trouble(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	was := k.state.Inbox
	if k.state.Inbox = nil; err == nil {
		return
	}
	k.state.Inbox = &Inbox{Reason: err.Error(), Since: time.Now()}
	if was != nil {
		k.state.Inbox.Since = was.Since
	}
}

// stuck counts one more folder that is stuck, or one less, and replaces what is
// said of it.
func (k *Keeper) stuck(more int, p spool.Place, folder, id string, is ...StuckFolder) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &k.state.Stuck
	s.Folders += more
	// Made anew, as gates are.
	newest := slices.DeleteFunc(slices.Clone(s.Newest), func(f StuckFolder) bool {
		return f.Place == p && f.Folder == meta.Show(folder) && f.ID == id
	})
	newest = append(newest, is...)
	s.Newest = newest[max(len(newest)-maxStuck, 0):]
}

// State returns the state as it is now.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// Counts returns how many folders are where, as the metrics have it.
func (k *Keeper) Counts() map[spool.Place]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := maps.Clone(k.lie)
	if n == nil {
		n = map[spool.Place]int{}
	}
	n[spool.Inbox], n[spool.Work] = int(k.inbox.Load()), int(k.inFlight.Load()+k.waiting.Load())
	return n
}

// Summary is the daemon's state in one line: how many folders are where now,
// what became of those since its start, and whether submission is paused.
func (k *Keeper) Summary() string {
	s := fmt.Sprintf("%d in the inbox, %d being submitted, %d waiting for another try; since the start %d accepted, %d failed, %d held",
		k.inbox.Load(), k.inFlight.Load(), k.waiting.Load(), k.accepted.Load(), k.failed.Load(), k.held.Load())
	state := k.State()
	for _, g := range state.Gates {
		s = "PAUSED (" + meta.Show(g.Reason) + "); " + s
	}
	if state.Inbox != nil {
		s = "NOTHING CAN BE TAKEN FROM THE INBOX (" + meta.Show(state.Inbox.Reason) + "); " + s
	}
	return s
}

// Alive returns how long ago the loop that submits made progress; it does so
// every few seconds even when there is nothing to do.
func (k *Keeper) Alive() time.Duration { return time.Since(time.Unix(0, k.alive.Load())) }

// stalled is how long without progress Health calls unhealthy.
const stalled = time.Minute

// Health serves the state, with 503 when there is no progress, a gate is shut,
// or the inbox not in order: then nothing that comes in would be submitted.
func (k *Keeper) Health() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s := k.State()
		s.Stuck.Newest = nil // names are not for everybody on the host
		w.Header().Set("Content-Type", "application/json")
		if k.Alive() > stalled || len(s.Gates) > 0 || s.Inbox != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(struct {
			Stalled bool `json:"stalled"`
			State
		}{k.Alive() > stalled, s}) // the client is gone, which is its affair
	})
}
