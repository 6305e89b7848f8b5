package telemetry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
)

// State is what the daemon tells others on the host while it runs.
type State struct {
	PID         int       `json:"pid"`
	Since       time.Time `json:"since"`                  // start of the daemon
	Paused      string    `json:"paused"`                 // why; empty: it isn't
	PausedSince time.Time `json:"paused_since,omitzero"`  //
	Mode        string    `json:"watch_mode"`             // see events.Mode; empty: not watching yet
	Updated     time.Time `json:"updated"`                // last change of what stands here
	ModeReason  string    `json:"watch_reason,omitempty"` //
}

// Keeper keeps the state, and signs of life.
type Keeper struct {
	alive                    atomic.Int64 // time of the last sign of progress, ns
	inbox, inFlight, waiting atomic.Int64
	accepted, failed, held   atomic.Int64

	mu      sync.Mutex
	state   State
	publish func(State)
}

// NewKeeper returns a keeper. publish is called with each change of the state,
// from any goroutine, one call at a time; it may be nil.
func NewKeeper(publish func(State)) *Keeper {
	k := &Keeper{publish: publish, state: State{PID: os.Getpid(), Since: time.Now()}}
	k.alive.Store(time.Now().UnixNano())
	return k
}

// Take notes e; it is an events.Sink.
func (k *Keeper) Take(e events.Event) {
	switch e := e.(type) {
	case events.Started:
		k.update(func(*State) {})
	case events.Adopted: // the batch has not begun, and all is well
		k.alive.Store(time.Now().UnixNano())
	case events.Progress:
		k.alive.Store(time.Now().UnixNano())
		k.inFlight.Store(int64(e.InFlight))
		k.waiting.Store(int64(e.Parked))
	case events.Rescanned:
		k.inbox.Store(int64(e.Folders))
	case events.Ended:
		k.count(e.Place)
	case events.Paused:
		k.update(func(s *State) {
			if s.Paused == "" {
				s.PausedSince = time.Now()
			}
			s.Paused = e.Reason
		})
	case events.Resumed:
		k.update(func(s *State) { s.Paused, s.PausedSince = "", time.Time{} })
	case events.WatchModeChanged:
		why := ""
		if e.Err != nil {
			why = e.Err.Error()
		}
		k.update(func(s *State) { s.Mode, s.ModeReason = string(e.Mode), why })
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

// update changes the state and publishes it.
func (k *Keeper) update(change func(*State)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(&k.state)
	k.state.Updated = time.Now()
	if k.publish != nil {
		k.publish(k.state)
	}
}

// State returns the state as it is now.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// Summary is the daemon's state in one line: how many folders are where now,
// what became of those since its start, and whether submission is paused.
func (k *Keeper) Summary() string {
	s := fmt.Sprintf("%d in the inbox, %d being submitted, %d waiting for another try; since the start %d accepted, %d failed, %d held",
		k.inbox.Load(), k.inFlight.Load(), k.waiting.Load(), k.accepted.Load(), k.failed.Load(), k.held.Load())
	if why := k.State().Paused; why != "" {
		s = "PAUSED (" + meta.Show(why) + "); " + s
	}
	return s
}

// Alive returns how long ago the loop that submits made progress; it does so
// every few seconds even when there is nothing to do.
func (k *Keeper) Alive() time.Duration { return time.Since(time.Unix(0, k.alive.Load())) }

// stalled is how long without progress Health calls unhealthy.
const stalled = time.Minute

// Health serves the state, with 503 when there is no progress.
func (k *Keeper) Health() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if k.Alive() > stalled {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(k.State()) // the client is gone, which is its affair
	})
}

// StateFile is where a running daemon leaves its state for the status command,
// in the spool's directory work. It is a convenience; losing it loses nothing.
type StateFile string

// NewStateFile returns the file of the spool at paths.
func NewStateFile(paths spool.Paths) StateFile {
	return StateFile(filepath.Join(paths[spool.Work], ".state.json"))
}

// Write replaces the file.
func (f StateFile) Write(s State) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	temp := string(f) + ".tmp"
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, string(f))
}

// Read returns what was written last.
func (f StateFile) Read() (*State, error) {
	data, err := os.ReadFile(string(f))
	if err != nil {
		return nil, err
	}
	var s State
	return &s, json.Unmarshal(data, &s)
}

// Remove takes the file away; none there is no error.
func (f StateFile) Remove() error {
	err := os.Remove(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
