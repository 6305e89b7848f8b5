package telemetry

import (
	"net/http"
	"strconv"

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
	oldest    *prometheus.GaugeVec
	paused    *prometheus.GaugeVec
	inbox     *prometheus.GaugeVec
	rescans   *prometheus.CounterVec
	rescan    prometheus.Histogram
	overflows *prometheus.CounterVec
	mode      *prometheus.GaugeVec
	released  *prometheus.CounterVec
	overdue   *prometheus.CounterVec

	webhooks   *prometheus.CounterVec
	verdicts   *prometheus.CounterVec
	clashes    prometheus.Counter
	clashed    prometheus.Gauge
	verdictAge prometheus.Histogram
	waiting    prometheus.Gauge
	waits      prometheus.Gauge
	final      *prometheus.GaugeVec
	strays     prometheus.Gauge
	asked      *prometheus.CounterVec

	purged      *prometheus.CounterVec
	purgedBytes *prometheus.CounterVec
	purgeTime   prometheus.Gauge
	purgeHeld   prometheus.Gauge
	purgeFailed prometheus.Gauge
	deletions   *prometheus.CounterVec
	receipts    receiptMetrics
}

// NewMetrics returns metrics that all stand at 0.
func NewMetrics(version string) *Metrics {
	m := &Metrics{
		registry:  prometheus.NewRegistry(),
		outcomes:  counters("folders_ended_total", "Folders that reached a final place, by outcome.", "outcome"),
		attempts:  counters("attempts_total", "Attempts at a submission, by state.", "state"),
		sessions:  counters("sessions_asked_total", "Requests for a session, of folders with a clientId, by state.", "state"),
		duration:  histogram("submit_duration_seconds", "Time from the start of an attempt to its end.", prometheus.ExponentialBuckets(0.05, 2, 12)),
		folders:   gauges("folders", "Folders now, by place, and those that wait by inbox; in done and failed those that were filed there, whatever somebody took away since.", "place", "inbox"),
		stuck:     gauges("folders_stuck", "Folders that can't go on by their own fault, by place: inbox or work.", "place", "inbox"),
		oldest:    gauges("inbox_oldest_seconds", "Age of the oldest folder in an inbox.", "inbox"),
		paused:    gauges("paused", "1 while submission is paused, by whose fault it is: account or disk.", "owner"),
		inbox:     gauges("inbox_trouble", "1 while nothing can be taken from an inbox: it can't be read, or not be moved from.", "inbox"),
		rescans:   counters("rescans_total", "Scans of a whole inbox.", "inbox"),
		rescan:    histogram("rescan_duration_seconds", "Time that a scan of a whole inbox took.", prometheus.ExponentialBuckets(0.001, 4, 9)),
		overflows: counters("event_overflows_total", "Times that file events were lost and a rescan took their place.", "inbox"),
		mode:      gauges("watch_mode", "1 for the mode that the watcher of an inbox is in.", "mode", "inbox"),
		released:  counters("folders_released_total", "Folders that went back from work to their inbox.", "inbox"),
		overdue:   counters("folders_overdue_total", "Folders reported as incomplete for longer than completeness.warn_after.", "inbox"),
	}
	m.ofVerdicts()
	m.ofRetention()
	m.receipts.register(m.registry)
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
	m.folders.WithLabelValues(at(spool.Work)...)
	m.stuck.WithLabelValues(at(spool.Work)...)
	return m
}

// at are the labels of a place.
func at(p spool.Place) []string {
	if p.IsInbox() {
		return []string{string(spool.Inbox), p.InboxName()}
	}
	return []string{string(p), ""}
}

// known has the counts of an inbox begin at 0, so that a rise is seen.
func (m *Metrics) known(inbox string) {
	m.stuck.WithLabelValues(at(spool.InboxNamed(inbox))...)
	m.inbox.WithLabelValues(inbox)
	for _, c := range []*prometheus.CounterVec{m.rescans, m.overflows, m.released, m.overdue} {
		c.WithLabelValues(inbox)
	}
}

// left ends what is said of an inbox, but for what was stuck in it, which is told
// by the batch to have gone.
func (m *Metrics) left(inbox string) {
	for _, g := range []*prometheus.GaugeVec{m.folders, m.oldest, m.inbox, m.mode} {
		g.DeletePartialMatch(prometheus.Labels{"inbox": inbox})
	}
	for _, c := range []*prometheus.CounterVec{m.rescans, m.overflows, m.released, m.overdue} {
		c.DeletePartialMatch(prometheus.Labels{"inbox": inbox})
	}
}

// ofVerdicts makes those about webhooks and verdicts.
func (m *Metrics) ofVerdicts() {
	m.webhooks = counters("webhooks_total", "Webhooks, by what became of them: joined (there is a folder of that session), stray (there is none yet), unreadable (kept, though), or why they were refused.", "result")
	m.verdicts = counters("verdicts_total", "Verdicts that came, by iDenfy's word, whether it is final, and how it came (webhook or status).", "verdict", "final", "by")
	m.clashes = counter("verdict_contradictions_total", "Final verdicts that contradicted an earlier final one.")
	m.clashed = gauge("verdicts_contradicted", "Sessions with final verdicts that contradict each other.")
	m.verdictAge = histogram("verdict_delay_seconds", "Time from a folder's acceptance to its first final verdict.", prometheus.ExponentialBuckets(15, 3, 10))
	m.waiting = gauge("verdicts_waiting", "Accepted folders with a scanRef that have no final verdict yet.")
	m.waits = gauge("verdict_oldest_seconds", "For how long the oldest of these has been waiting.")
	m.final = gauges("verdicts_final", "Sessions with a final verdict, by iDenfy's word.", "verdict")
	m.strays = gauge("webhooks_stray", "Webhooks of sessions without a folder, which are kept for a week.")
	m.asked = counters("verdict_requests_total", "Status requests for verdicts that did not come, by result: answered or failed.", "result")
	m.registry.MustRegister(m.webhooks, m.verdicts, m.clashes, m.clashed, m.verdictAge, m.waiting, m.waits, m.final, m.strays, m.asked)
	for _, r := range []string{"joined", "stray", "unreadable"} {
		m.webhooks.WithLabelValues(r)
	}
	for _, why := range events.Refusals() {
		m.webhooks.WithLabelValues(string(why))
	}
	for _, r := range []string{"answered", "failed"} {
		m.asked.WithLabelValues(r)
	}
}

// ofRetention makes those about what is deleted of folders that have ended.
func (m *Metrics) ofRetention() {
	m.purged = counters("purged_total", "Folders of which something was deleted, by rule: done, failed, hold, verdicts, or list.", "rule")
	m.purgedBytes = counters("purged_bytes_total", "Bytes that were deleted of folders, by rule.", "rule")
	m.purgeTime = gauge("purge_timestamp_seconds", "When the last daily pass came to its end, in seconds since 1970; 0: there was none since the start.")
	m.purgeHeld = gauge("purge_held", "Folders that are due, and that a legal hold (.keep) keeps, as of the last daily pass.")
	m.purgeFailed = gauge("purge_failed", "Folders that are due, and of which nothing could be deleted, as of the last daily pass.")
	m.deletions = counters("deletions_asked_total", "Requests to iDenfy to delete a session, by result: deleted or failed.", "result")
	m.registry.MustRegister(m.purged, m.purgedBytes, m.purgeTime, m.purgeHeld, m.purgeFailed, m.deletions)
	for _, r := range []sidecar.Rule{sidecar.OfDone, sidecar.OfFailed, sidecar.OfHold, sidecar.OfVerdicts, sidecar.OfList} {
		m.purged.WithLabelValues(string(r))
		m.purgedBytes.WithLabelValues(string(r))
	}
	for _, r := range []string{"deleted", "failed"} {
		m.deletions.WithLabelValues(r)
	}
}

// takeRetention counts what is deleted.
func (m *Metrics) takeRetention(e events.Event) {
	switch e := e.(type) {
	case events.Purged:
		m.purged.WithLabelValues(string(e.Rule)).Inc()
		m.purgedBytes.WithLabelValues(string(e.Rule)).Add(float64(e.Bytes))
	case events.DeletionAsked:
		result := "deleted"
		if e.Fault != "" {
			result = "failed"
		}
		m.deletions.WithLabelValues(result).Inc()
	case events.PassEnded:
		m.purgeTime.SetToCurrentTime()
		m.purgeHeld.Set(float64(e.Held))
		m.purgeFailed.Set(float64(e.Failed))
	}
}

// words are iDenfy's; whatever else comes is told as other.
var words = map[string]bool{"APPROVED": true, "DENIED": true, "SUSPECTED": true, "REVIEWING": true, "ACTIVE": true, "EXPIRED": true, "DELETED": true, "ARCHIVED": true, "EXPIRED-DELETED": true}

func label(word string) string {
	if words[word] {
		return word
	}
	return "other"
}

// takeVerdict counts what is about verdicts.
func (m *Metrics) takeVerdict(e events.Event) {
	switch e := e.(type) {
	case events.WebhookTaken:
		switch {
		case !e.Readable:
			m.webhooks.WithLabelValues("unreadable").Inc()
		case e.Known:
			m.webhooks.WithLabelValues("joined").Inc()
		default:
			m.webhooks.WithLabelValues("stray").Inc()
		}
	case events.WebhookRefused:
		m.webhooks.WithLabelValues(string(e.Why)).Inc()
	case events.VerdictCame:
		m.verdicts.WithLabelValues(label(e.Overall), strconv.FormatBool(e.Final), string(e.By)).Inc()
		if e.Clash != "" {
			m.clashes.Inc()
		}
		if e.First && e.After > 0 {
			m.verdictAge.Observe(e.After.Seconds())
		}
	case events.Asked:
		result := "answered"
		if e.Fault != "" {
			result = "failed"
		}
		m.asked.WithLabelValues(result).Inc()
	case events.VerdictsCounted:
		m.waiting.Set(float64(e.Waiting))
		m.waits.Set(e.Oldest.Seconds())
		m.clashed.Set(float64(e.Contradicted))
		m.strays.Set(float64(e.Strays))
		sums := map[string]int{}
		for word, n := range e.Final {
			sums[label(word)] += n
		}
		m.final.Reset()
		for word, n := range sums {
			m.final.WithLabelValues(word).Set(float64(n))
		}
	}
}

const namespace = "idenfy_batch"

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets})
}

// Take counts e; it is an events.Sink.
func (m *Metrics) Take(e events.Event) {
	switch e := e.(type) {
	case events.Released:
		m.released.WithLabelValues(e.Inbox).Inc()
	case events.FolderStuck:
		m.stuck.WithLabelValues(at(e.Place)...).Inc()
	case events.FolderFreed:
		m.stuck.WithLabelValues(at(e.Place)...).Dec()
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
			m.folders.WithLabelValues(at(place)...).Set(float64(n))
		}
	case events.Progress:
		m.folders.WithLabelValues(at(spool.Work)...).Set(float64(e.InFlight + e.Parked))
	default:
		m.takeInbox(e)
	}
}

// takeInbox counts what is about inboxes.
func (m *Metrics) takeInbox(e events.Event) {
	switch e := e.(type) {
	case events.FolderWaits:
		m.overdue.WithLabelValues(e.Inbox).Inc()
	case events.InboxTrouble:
		is := 0.0
		if e.Err != nil {
			is = 1
		}
		m.inbox.WithLabelValues(e.Inbox).Set(is)
	case events.InboxLeft:
		m.left(e.Inbox)
		m.receipts.take(e)
	case events.WatchModeChanged:
		m.known(e.Inbox)
		m.mode.DeletePartialMatch(prometheus.Labels{"inbox": e.Inbox})
		m.mode.WithLabelValues(string(e.Mode), e.Inbox).Set(1)
	case events.Overflowed:
		m.overflows.WithLabelValues(e.Inbox).Inc()
	case events.Rescanned:
		m.rescans.WithLabelValues(e.Inbox).Inc()
		m.rescan.Observe(e.Took.Seconds())
		m.folders.WithLabelValues(at(spool.InboxNamed(e.Inbox))...).Set(float64(e.Folders))
		m.oldest.WithLabelValues(e.Inbox).Set(e.Oldest.Seconds())
	case events.Receipts, events.ReceiptTrouble, events.ReceiptsLeft, events.Ignored:
		m.receipts.take(e)
	default:
		m.takeVerdict(e)
		m.takeRetention(e)
	}
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
