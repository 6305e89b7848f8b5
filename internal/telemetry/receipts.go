package telemetry

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/meta"
)

// receiptMetrics count what uploaders are told, by inbox.
type receiptMetrics struct {
	written *prometheus.CounterVec
	owed    *prometheus.GaugeVec
	trouble *prometheus.GaugeVec
	ignored *prometheus.GaugeVec
}

func (m *receiptMetrics) register(r prometheus.Registerer) {
	m.written = counters("receipts_written_total", "Receipts that were written, by inbox.", "inbox")
	m.owed = gauges("receipts_owed", "Receipts that are still to be written, by inbox.", "inbox")
	m.trouble = gauges("receipts_trouble", "1 while receipts of the inbox can't be written, or not be read by its group.", "inbox")
	m.ignored = gauges("inbox_ignored", "What lies in the inbox and is no folder: loose files, links.", "inbox")
	r.MustRegister(m.written, m.owed, m.trouble, m.ignored)
}

func (m *receiptMetrics) take(e events.Event) {
	switch e := e.(type) {
	case events.Receipts:
		m.written.WithLabelValues(e.Inbox).Add(float64(e.Written))
		m.owed.WithLabelValues(e.Inbox).Set(float64(e.Owed))
	case events.ReceiptTrouble:
		is := 0.0
		if e.Err != nil {
			is = 1
		}
		m.trouble.WithLabelValues(e.Inbox).Set(is)
	case events.ReceiptsLeft:
		for _, g := range []*prometheus.GaugeVec{m.owed, m.trouble} {
			g.DeleteLabelValues(e.Inbox)
		}
		m.written.DeleteLabelValues(e.Inbox)
	case events.InboxLeft:
		m.ignored.DeleteLabelValues(e.Inbox)
	case events.Ignored:
		m.ignored.WithLabelValues(e.Inbox).Set(float64(len(e.Loose) + e.More))
	}
}

func ofReceipts(log *logrus.Logger, e events.Event) {
	switch e := e.(type) {
	case events.ReceiptTrouble:
		if e.Err != nil {
			log.WithField("inbox", e.Inbox).WithError(e.Err).Warn("receipts can't be written as they should be, which is tried again; folders go on")
			return
		}
		log.WithField("inbox", e.Inbox).Info("receipts are in order again")
	case events.Ignored:
		if n := len(e.Loose) + e.More; n > 0 {
			log.WithFields(logrus.Fields{"inbox": e.Inbox, "names": n}).Warn("what lies in the inbox and is no folder is left alone; idenfy-batch status names it")
		}
	}
}

// ReceiptTrouble tells why receipts of an inbox can't be written.
type ReceiptTrouble struct {
	Inbox  string    `json:"inbox"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// receipts notes it; without an error, that they can.
func (k *Keeper) receipts(inbox string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	since := time.Now()
	// Made anew, as gates are.
	k.state.Receipts = slices.DeleteFunc(slices.Clone(k.state.Receipts), func(t ReceiptTrouble) bool {
		if t.Inbox == inbox {
			since = t.Since
		}
		return t.Inbox == inbox
	})
	if err != nil {
		k.state.Receipts = append(k.state.Receipts, ReceiptTrouble{Inbox: inbox, Reason: meta.Show(err.Error()), Since: since})
	}
}
