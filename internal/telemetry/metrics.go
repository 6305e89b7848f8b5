package telemetry

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Metrics counts, for Prometheus.
type Metrics struct {
	registry *prometheus.Registry

	outcomes  *prometheus.CounterVec
	attempts  *prometheus.CounterVec
	sessions  *prometheus.CounterVec
	duration  prometheus.Histogram
	folders   *prometheus.GaugeVec
	stuck     *prometheus.GaugeVec
	oldest    prometheus.Gauge
	paused    *prometheus.GaugeVec
	inbox     prometheus.Gauge
	rescans   prometheus.Counter
	rescan    prometheus.Histogram
	overflows prometheus.Counter
	mode      *prometheus.GaugeVec
	released  prometheus.Counter
	overdue   prometheus.Counter
}

// NewMetrics returns metrics that all stand at 0.
func NewMetrics(version string) *Metrics {
	m := &Metrics{
		registry:  prometheus.NewRegistry(),
		outcomes:  counters("folders_ended_total", "Folders that reached a final place, by outcome.", "outcome"),
		attempts:  counters("attempts_total", "Attempts at a submission, by state.", "state"),
		sessions:  counters("sessions_asked_total", "Requests for a session, of folders with a clientId, by state.", "state"),
		duration:  histogram("submit_duration_seconds", "Time from the start of an attempt to its end.", prometheus.ExponentialBuckets(0.05, 2, 12)),
		folders:   gauges("folders", "Folders now, by place; in done and failed those that were filed there, whatever somebody took away since.", "place"),
		stuck:     gauges("folders_stuck", "Folders that can't go on by their own fault, by place: inbox or work.", "place"),
		oldest:    prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "inbox_oldest_seconds", Help: "Age of the oldest folder in the inbox."}),
		paused:    gauges("paused", "1 while submission is paused, by whose fault it is: account or disk.", "owner"),
		inbox:     prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "inbox_trouble", Help: "1 while nothing can be taken from the inbox: it can't be read, or not be moved from."}),
		rescans:   counter("rescans_total", "Scans of the whole inbox."),
		rescan:    histogram("rescan_duration_seconds", "Time that a scan of the whole inbox took.", prometheus.ExponentialBuckets(0.001, 4, 9)),
		overflows: counter("event_overflows_total", "Times that file events were lost and a rescan took their place."),
		mode:      gauges("watch_mode", "1 for the mode that the watcher is in.", "mode"),
		released:  counter("folders_released_total", "Folders that went back from work to the inbox."),
		overdue:   counter("folders_overdue_total", "Folders reported as incomplete for longer than completeness.warn_after."),
	}
	info := gauges("build_info", "1, labelled with the version.", "version")
	info.WithLabelValues(version).Set(1)
	m.registry.MustRegister(m.outcomes, m.attempts, m.sessions, m.duration, m.folders, m.stuck, m.oldest, m.paused, m.inbox, m.rescans, m.rescan, m.overflows, m.mode, m.released, m.overdue, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, o := range []sidecar.Outcome{sidecar.Accepted, sidecar.Rejected, sidecar.Invalid, sidecar.Incomplete, sidecar.GaveUp, sidecar.Unknown} {
		m.outcomes.WithLabelValues(string(o))
	}
	for _, s := range []sidecar.State{sidecar.Answered, sidecar.NoAnswer, sidecar.NotSent} {
		m.attempts.WithLabelValues(string(s)) // from 0 on, so that a rise is seen
		m.sessions.WithLabelValues(string(s))
	}
	for _, o := range events.Owners() {
		m.paused.WithLabelValues(string(o))
	}
	m.folders.WithLabelValues(string(spool.Work))
	for _, p := range []spool.Place{spool.Inbox, spool.Work} {
		m.stuck.WithLabelValues(string(p))
	}
	return m
}

const namespace = "idenfy_batch"

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
}

func counters(name, help, label string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, []string{label})
}

func gauges(name, help, label string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, []string{label})
}

func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets})
}

// Take counts e; it is an events.Sink.
func (m *Metrics) Take(e events.Event) {
	switch e := e.(type) {
	case events.Released:
		m.released.Inc()
	case events.FolderStuck:
		m.stuck.WithLabelValues(string(e.Place)).Inc()
	case events.FolderFreed:
		m.stuck.WithLabelValues(string(e.Place)).Dec()
	case events.Attempted:
		m.attempts.WithLabelValues(string(e.Attempt.State)).Inc()
		m.duration.Observe(float64(e.Attempt.DurationMS) / 1000)
	case events.SessionAsked:
		m.sessions.WithLabelValues(string(e.Opening.State)).Inc()
	case events.Ended:
		m.outcomes.WithLabelValues(string(e.Result.Outcome)).Inc()
	case events.GateShut:
		m.paused.WithLabelValues(string(e.Owner)).Set(1)
	case events.GateOpened:
		m.paused.WithLabelValues(string(e.Owner)).Set(0)
	case events.Counted:
		for place, n := range e.Folders {
			m.folders.WithLabelValues(string(place)).Set(float64(n))
		}
	case events.Progress:
		m.folders.WithLabelValues(string(spool.Work)).Set(float64(e.InFlight + e.Parked))
	case events.FolderWaits:
		m.overdue.Inc()
	case events.InboxTrouble:
		m.inbox.Set(0)
		if e.Err != nil {
			m.inbox.Set(1)
		}
	case events.WatchModeChanged:
		m.mode.Reset()
		m.mode.WithLabelValues(string(e.Mode)).Set(1)
	case events.Overflowed:
		m.overflows.Inc()
	case events.Rescanned:
		m.rescans.Inc()
		m.rescan.Observe(e.Took.Seconds())
		m.folders.WithLabelValues(string(spool.Inbox)).Set(float64(e.Folders))
		m.oldest.Set(e.Oldest.Seconds())
	}
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
