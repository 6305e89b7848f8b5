// Package events owns what the daemon says of itself: one method per business
// event, each a log line with fixed fields and a metric. No name of a file, no
// token, no text of a person and no body is ever among them; folder names with
// anything odd in them are quoted.
package events

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"

	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
	"idenfy-batch/watcher"
)

// State is what the daemon tells others on the host while it runs.
type State struct {
	PID         int       `json:"pid"`
	Since       time.Time `json:"since"`                  // start of the daemon
	Paused      string    `json:"paused"`                 // why; empty: it isn't
	PausedSince time.Time `json:"paused_since,omitzero"`  //
	Mode        string    `json:"watch_mode"`             // see watcher.Mode
	Updated     time.Time `json:"updated"`                // last change of what stands here
	ModeReason  string    `json:"watch_reason,omitempty"` //
}

// Recorder logs and counts. Its methods are safe for concurrent use.
type Recorder struct {
	log      *logrus.Logger
	registry *prometheus.Registry
	alive    atomic.Int64 // monotonic-free time of the last sign of progress, ns

	outcomes  *prometheus.CounterVec
	attempts  *prometheus.CounterVec
	duration  prometheus.Histogram
	folders   *prometheus.GaugeVec
	oldest    prometheus.Gauge
	paused    *prometheus.GaugeVec
	rescans   prometheus.Counter
	rescan    prometheus.Histogram
	overflows prometheus.Counter
	mode      *prometheus.GaugeVec
	released  prometheus.Counter
	overdue   prometheus.Counter

	inbox, inFlight, waiting atomic.Int64
	accepted, failed, held   atomic.Int64

	mu      sync.Mutex
	state   State
	publish func(State)
}

// Summary is the daemon's state in one line: how many folders are where now,
// what became of those since its start, and whether submission is paused.
func (r *Recorder) Summary() string {
	s := fmt.Sprintf("%d in the inbox, %d being submitted, %d waiting for another try; since the start %d accepted, %d failed, %d held",
		r.inbox.Load(), r.inFlight.Load(), r.waiting.Load(), r.accepted.Load(), r.failed.Load(), r.held.Load())
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.Paused != "" {
		s = "PAUSED (" + meta.Show(r.state.Paused) + "); " + s
	}
	return s
}

// New returns a recorder that writes to log. publish is called with each
// change of the state, from any goroutine, one call at a time; it may be nil.
func New(log *logrus.Logger, version string, publish func(State)) *Recorder {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "idenfy_batch", Name: name, Help: help})
	}
	gauges := func(name, help, label string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "idenfy_batch", Name: name, Help: help}, []string{label})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "idenfy_batch", Name: name, Help: help}, []string{label})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "idenfy_batch", Name: name, Help: help, Buckets: buckets})
	}
	r := &Recorder{
		log: log, registry: prometheus.NewRegistry(), publish: publish,
		outcomes:  counters("folders_ended_total", "Folders that reached a final place, by outcome.", "outcome"),
		attempts:  counters("attempts_total", "Attempts at a submission, by state.", "state"),
		duration:  histogram("submit_duration_seconds", "Time from the start of an attempt to its end.", prometheus.ExponentialBuckets(0.05, 2, 12)),
		folders:   gauges("folders", "Folders now, by place.", "place"),
		oldest:    prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "idenfy_batch", Name: "inbox_oldest_seconds", Help: "Age of the oldest folder in the inbox."}),
		paused:    gauges("paused", "1 while submission is paused, by kind of reason.", "reason"),
		rescans:   counter("rescans_total", "Scans of the whole inbox."),
		rescan:    histogram("rescan_duration_seconds", "Time that a scan of the whole inbox took.", prometheus.ExponentialBuckets(0.001, 4, 9)),
		overflows: counter("event_overflows_total", "Times that file events were lost and a rescan took their place."),
		mode:      gauges("watch_mode", "1 for the mode that the watcher is in.", "mode"),
		released:  counter("folders_released_total", "Folders that went back from work to the inbox."),
		overdue:   counter("folders_overdue_total", "Folders reported as incomplete for longer than completeness.warn_after."),
		state:     State{PID: os.Getpid(), Since: time.Now()},
	}
	info := gauges("build_info", "1, labelled with the version.", "version")
	info.WithLabelValues(version).Set(1)
	r.registry.MustRegister(r.outcomes, r.attempts, r.duration, r.folders, r.oldest, r.paused, r.rescans, r.rescan, r.overflows, r.mode, r.released, r.overdue, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, o := range []sidecar.Outcome{sidecar.Accepted, sidecar.Rejected, sidecar.Invalid, sidecar.Incomplete, sidecar.GaveUp, sidecar.Unknown} {
		r.outcomes.WithLabelValues(string(o))
	}
	for _, s := range []sidecar.State{sidecar.Answered, sidecar.NoAnswer, sidecar.NotSent} {
		r.attempts.WithLabelValues(string(s)) // from 0 on, so that a rise is seen
	}
	r.Progress(0, 0)
	return r
}

// update changes the state and publishes it.
func (r *Recorder) update(change func(*State)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.state)
	r.state.Updated = time.Now()
	if r.publish != nil {
		r.publish(r.state)
	}
}

func (r *Recorder) folder(folder, id string) *logrus.Entry {
	fields := logrus.Fields{"folder": meta.Show(folder)}
	if id != "" {
		fields["id"] = id
	}
	return r.log.WithFields(fields)
}

// Started tells that the daemon works on the spool below root.
func (r *Recorder) Started(version, root, endpoint string) {
	r.log.WithFields(logrus.Fields{"version": version, "root": root, "endpoint": endpoint}).Info("started")
	r.update(func(*State) {})
}

// Stopping tells that the daemon was told to stop.
func (r *Recorder) Stopping(grace time.Duration) {
	r.log.WithField("grace", grace.String()).Info("stopping: no new folders, waiting for submissions in flight")
}

// Stopped tells that it has.
func (r *Recorder) Stopped(inWork int) {
	r.log.WithField("in_work", inWork).Info("stopped")
}

// Reloaded tells that a new configuration is in force.
func (r *Recorder) Reloaded() {
	r.log.Info("configuration reloaded")
	r.unpause() // the new configuration may have mended it; the next attempt tells
}

func (r *Recorder) unpause() {
	r.paused.Reset()
	r.update(func(s *State) { s.Paused, s.PausedSince = "", time.Time{} })
}

// ReloadRefused tells that the new configuration is bad, and the old one stays.
func (r *Recorder) ReloadRefused(err error) {
	r.log.WithError(err).Error("the new configuration is refused, the old one stays in force")
}

// Recovered implements batch.Events.
func (r *Recorder) Recovered(folders int) {
	if folders > 0 {
		r.log.WithField("folders", folders).Info("going on with what is in work")
	}
}

// Claimed implements batch.Events.
func (r *Recorder) Claimed(folder, id string) { r.folder(folder, id).Debug("claimed") }

// ClaimFailed implements batch.Events.
func (r *Recorder) ClaimFailed(folder string, err error) {
	r.folder(folder, "").WithError(err).Warn("could not be taken, stays in the inbox")
}

// Released implements batch.Events.
func (r *Recorder) Released(folder, id, why string) {
	r.released.Inc()
	r.folder(folder, id).WithField("why", why).Info("back to the inbox")
}

// Attempted implements batch.Events.
func (r *Recorder) Attempted(folder, id string, a sidecar.Attempt) {
	r.attempts.WithLabelValues(string(a.State)).Inc()
	r.duration.Observe(float64(a.DurationMS) / 1000)
	e := r.folder(folder, id).WithFields(logrus.Fields{"attempt": a.N, "state": string(a.State), "duration_ms": a.DurationMS})
	if a.HTTPStatus != 0 {
		e = e.WithField("http_status", a.HTTPStatus)
	}
	if a.Identifier != "" {
		e = e.WithField("identifier", a.Identifier)
	}
	switch {
	case a.State == sidecar.Answered && a.HTTPStatus < 300 && a.Identifier == "":
		e.Debug("attempt")
	case a.State == sidecar.Answered:
		e.Info("attempt")
	default:
		e.Warn("attempt")
	}
}

// Ended implements batch.Events.
func (r *Recorder) Ended(res *sidecar.Result, place spool.Place, name string) {
	r.outcomes.WithLabelValues(string(res.Outcome)).Inc()
	switch place {
	case spool.Done:
		r.accepted.Add(1)
	case spool.Hold:
		r.held.Add(1)
	default:
		r.failed.Add(1)
	}
	e := r.folder(res.Folder, res.ID).WithFields(logrus.Fields{
		"outcome": string(res.Outcome), "attempts": len(res.Attempts), "place": string(place) + "/" + meta.Show(name),
	})
	if a := res.LastAttempt(); a != nil {
		e = e.WithField("duration_ms", a.DurationMS)
	}
	if len(res.Reasons) > 0 {
		codes := make([]string, len(res.Reasons))
		for i := range res.Reasons {
			codes[i] = res.Reasons[i].Code
		}
		e = e.WithField("reasons", codes)
	}
	if res.Outcome == sidecar.Accepted {
		e.Info("ended")
	} else {
		e.Warn("ended")
	}
}

// Paused implements batch.Events.
func (r *Recorder) Paused(disk bool, reason string, wait time.Duration) {
	r.log.WithFields(logrus.Fields{"reason": reason, "next_try": wait.Round(time.Millisecond).String()}).
		Error("submission is paused; folders are kept, and it goes on by itself")
	kind := "service"
	if disk {
		kind = "spool"
	}
	r.paused.Reset()
	r.paused.WithLabelValues(kind).Set(1)
	r.update(func(s *State) {
		if s.Paused == "" {
			s.PausedSince = time.Now()
		}
		s.Paused = reason
	})
}

// Resumed implements batch.Events.
func (r *Recorder) Resumed() {
	r.log.Info("submission goes on")
	r.unpause()
}

// Progress implements batch.Events.
func (r *Recorder) Progress(inFlight, parked int) {
	r.alive.Store(time.Now().UnixNano())
	r.inFlight.Store(int64(inFlight))
	r.waiting.Store(int64(parked))
	r.folders.WithLabelValues(string(spool.Work)).Set(float64(inFlight + parked))
}

// Alive returns how long ago the loop that submits made progress; it does so
// every few seconds even when there is nothing to do.
func (r *Recorder) Alive() time.Duration { return time.Since(time.Unix(0, r.alive.Load())) }

// FolderWaits implements watcher.Events.
func (r *Recorder) FolderWaits(name string, age time.Duration, reasons []meta.Reason) {
	r.overdue.Inc()
	codes := make([]string, len(reasons))
	for i := range reasons {
		codes[i] = reasons[i].Code
	}
	r.folder(name, "").WithFields(logrus.Fields{"age": age.Round(time.Second).String(), "reasons": codes}).
		Warn("still incomplete; see idenfy-batch status")
}

// WatchMode implements watcher.Events.
func (r *Recorder) WatchMode(m watcher.Mode, err error) {
	r.mode.Reset()
	r.mode.WithLabelValues(string(m)).Set(1)
	e := r.log.WithField("mode", string(m))
	why := ""
	if err != nil {
		e = e.WithError(err)
		why = err.Error()
	}
	if m == watcher.ByEvents {
		e.Info("watching the inbox by events")
	} else {
		e.Warn("not all folders can be watched by events; rescans find them")
	}
	r.update(func(s *State) { s.Mode, s.ModeReason = string(m), why })
}

// EventsLost implements watcher.Events.
func (r *Recorder) EventsLost(err error) {
	r.overflows.Inc()
	r.log.WithError(err).Warn("file events were lost; rescanning")
}

// Rescanned implements watcher.Events.
func (r *Recorder) Rescanned(folders int, oldest, took time.Duration) {
	r.rescans.Inc()
	r.rescan.Observe(took.Seconds())
	r.inbox.Store(int64(folders))
	r.folders.WithLabelValues(string(spool.Inbox)).Set(float64(folders))
	r.oldest.Set(oldest.Seconds())
}

// InboxTrouble implements watcher.Events.
func (r *Recorder) InboxTrouble(err error) {
	if err != nil {
		r.log.WithError(err).Error("the inbox can't be read; trying again")
		return
	}
	r.log.Info("the inbox can be read again")
}

// stalled is how long without progress /healthz calls unhealthy.
const stalled = time.Minute

// Handler serves /metrics and /healthz.
func (r *Recorder) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		r.mu.Lock()
		state := r.state
		r.mu.Unlock()
		if r.Alive() > stalled {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(state) // the client is gone, which is its affair
	})
	return mux
}
