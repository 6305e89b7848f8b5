package telemetry

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
)

// State is what the daemon tells others on the host while it runs.
type State struct {
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`   // start of the daemon
	Gates   []Gate    `json:"gates"`   // those that are shut
	Inboxes []Inbox   `json:"inboxes"` // by their names
	Stuck   Stuck     `json:"stuck"`

	Receipts []ReceiptTrouble `json:"receipts_trouble"` // by inbox; empty: all are in order
}

// Inbox is one that is being watched.
type Inbox struct {
	Name       string   `json:"name"`
	Folders    int      `json:"folders"`                // in it, at the last scan
	Mode       string   `json:"watch_mode"`             // see events.Mode; empty: not watching yet
	ModeReason string   `json:"watch_reason,omitempty"` //
	Trouble    *Trouble `json:"trouble"`                // nil: it is in order
}

// Called is what the inbox is called for people.
func (i *Inbox) Called() string {
	if i.Name == spool.Inbox.InboxName() {
		return "the inbox"
	}
	return "inbox " + i.Name
}

// Trouble tells why nothing can be taken from an inbox.
type Trouble struct {
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
	alive                  atomic.Int64 // time of the last sign of progress, ns
	inFlight, waiting      atomic.Int64
	accepted, failed, held atomic.Int64

	mu    sync.Mutex
	state State
	lie   map[spool.Place]int // folders in the final places
}

// NewKeeper returns a keeper.
func NewKeeper() *Keeper {
	k := &Keeper{state: State{PID: os.Getpid(), Since: time.Now(), Gates: []Gate{}, Inboxes: []Inbox{}, Receipts: []ReceiptTrouble{}}}
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
		k.inbox(e.Inbox, func(i *Inbox) { i.Folders = e.Folders })
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
		k.inbox(e.Inbox, func(i *Inbox) { i.trouble(e.Err) })
	case events.ReceiptTrouble:
		k.receipts(e.Inbox, e.Err)
	case events.ReceiptsLeft:
		k.receipts(e.Inbox, nil)
	case events.InboxLeft:
		k.inbox(e.Inbox, nil)
	case events.WatchModeChanged:
		why := ""
		if e.Err != nil {
			why = e.Err.Error()
		}
		k.inbox(e.Inbox, func(i *Inbox) { i.Mode, i.ModeReason = string(e.Mode), why })
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

// inbox changes what is said of an inbox; with nil it is forgotten.
func (k *Keeper) inbox(name string, change func(*Inbox)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := slices.Clone(k.state.Inboxes) // made anew, as gates are
	at, known := slices.BinarySearchFunc(list, name, func(i Inbox, name string) int { return strings.Compare(i.Name, name) })
	switch {
	case change == nil && known:
		list = slices.Delete(list, at, at+1)
	case change != nil && !known:
		list = slices.Insert(list, at, Inbox{Name: name})
	}
	if change != nil {
		change(&list[at])
	}
	k.state.Inboxes = list
}

// trouble notes why nothing can be taken from the inbox; nil: it can.
func (i *Inbox) trouble(err error) {
	was := i.Trouble
	if i.Trouble = nil; err == nil {
		return
	}
	i.Trouble = &Trouble{Reason: err.Error(), Since: time.Now()}
	if was != nil {
		i.Trouble.Since = was.Since
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

// Counts returns how many folders are where, as the metrics have it; all inboxes
// count together.
func (k *Keeper) Counts() map[spool.Place]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := maps.Clone(k.lie)
	if n == nil {
		n = map[spool.Place]int{}
	}
	for _, in := range k.state.Inboxes {
		n[spool.Inbox] += in.Folders
	}
	n[spool.Work] = int(k.inFlight.Load() + k.waiting.Load())
	return n
}

// Summary is the daemon's state in one line: how many folders are where now,
// what became of those since its start, and whether submission is paused.
func (k *Keeper) Summary() string {
	state, inbox := k.State(), 0
	for i := range state.Inboxes {
		inbox += state.Inboxes[i].Folders
	}
	s := fmt.Sprintf("%d in the inbox, %d being submitted, %d waiting for another try; since the start %d accepted, %d failed, %d held",
		inbox, k.inFlight.Load(), k.waiting.Load(), k.accepted.Load(), k.failed.Load(), k.held.Load())
	for _, g := range state.Gates {
		s = "PAUSED (" + meta.Show(g.Reason) + "); " + s
	}
	for i := range state.Inboxes {
		if in := &state.Inboxes[i]; in.Trouble != nil {
			s = "NOTHING CAN BE TAKEN FROM " + strings.ToUpper(in.Called()) + " (" + meta.Show(in.Trouble.Reason) + "); " + s
		}
	}
	for _, r := range state.Receipts {
		s = "RECEIPTS OF " + r.Inbox + " CAN'T BE WRITTEN (" + r.Reason + "); " + s
	}
	return s
}

// Alive returns how long ago the loop that submits made progress; it does so
// every few seconds even when there is nothing to do.
func (k *Keeper) Alive() time.Duration { return time.Since(time.Unix(0, k.alive.Load())) }

// stalled is how long without progress Health calls unhealthy.
const stalled = time.Minute

// Health serves the state, with 503 when there is no progress, a gate is shut,
// or an inbox not in order: then something that comes in would not be submitted.
func (k *Keeper) Health() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s := k.State()
		s.Stuck.Newest = nil // names are not for everybody on the host
		w.Header().Set("Content-Type", "application/json")
		if k.Alive() > stalled || len(s.Gates) > 0 || slices.ContainsFunc(s.Inboxes, func(i Inbox) bool { return i.Trouble != nil }) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(struct {
			Stalled bool `json:"stalled"`
			State
		}{k.Alive() > stalled, s}) // the client is gone, which is its affair
	})
}
