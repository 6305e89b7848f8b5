// Package telemetry owns what the daemon says of itself: log, metrics, state.
// Each listens to the same events. No name of a file, no token, no text of a
// person and no body is ever among what they say; folder names with anything
// odd in them are quoted.
package telemetry

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/sirupsen/logrus"
	"golang.org/x/term"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/meta"
	"idenfy-batch/sidecar"
)

// Log writes one line with fixed fields for each event.
type Log struct {
	out io.Writer
	log atomic.Pointer[logrus.Logger]

	refused, toldRefused atomic.Int64 // webhooks since the last line about them, and when that was
}

// NewLog returns a log that writes to out, see Set. Out is written to by one
// goroutine at a time, but for the instant of a Set.
func NewLog(out io.Writer, level, format string) *Log {
	l := &Log{out: out}
	l.Set(level, format)
	return l
}

// Set changes what is logged (debug, info, warn, error) and how (auto, text,
// json), at any time.
func (l *Log) Set(level, format string) {
	log := logrus.New()
	log.SetOutput(l.out)
	parsed, err := logrus.ParseLevel(level)
	if err != nil {
		parsed = logrus.InfoLevel // the configuration has been checked
	}
	log.SetLevel(parsed)
	inJournal, err := journal.StderrIsJournalStream()
	switch {
	case format == "auto" && err == nil && inJournal && l.out == os.Stderr:
		log.SetOutput(io.Discard)
		log.AddHook(journalHook{})
	case format == "text" || format == "auto" && isTerminal(l.out):
		log.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, TimestampFormat: time.TimeOnly})
	default:
		log.SetFormatter(&logrus.JSONFormatter{TimestampFormat: "2006-01-02T15:04:05.000Z07:00"})
	}
	l.log.Store(log)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Take logs e; it is an events.Sink.
func (l *Log) Take(e events.Event) {
	log := l.log.Load()
	switch e := e.(type) {
	case events.Started, events.Stopping, events.Stopped, events.Reloaded, events.ReloadRefused, events.Decided, events.Adopted, events.Trouble:
		ofDaemon(log, e)
	case events.FolderWaits, events.WatchModeChanged, events.Overflowed, events.InboxTrouble, events.InboxLeft:
		ofWatcher(log, e)
	case events.VerdictCame, events.WebhookTaken, events.Disputed, events.WebhookRefused, events.Asked, events.StraysDropped, events.VerdictsCounted:
		l.ofVerdicts(log, e)
	case events.Purged, events.PurgeFailed, events.DeletionAsked, events.PassEnded:
		ofRetention(log, e)
	case events.ReceiptTrouble, events.Ignored:
		ofReceipts(log, e)
	default:
		ofBatch(log, e)
	}
}

func folder(log *logrus.Logger, folder, id string) *logrus.Entry {
	fields := logrus.Fields{"folder": meta.Show(folder)}
	if id != "" {
		fields["id"] = id
	}
	return log.WithFields(fields)
}

func ofDaemon(log *logrus.Logger, e events.Event) {
	switch e := e.(type) {
	case events.Started:
		log.WithFields(logrus.Fields{"version": e.Version, "root": e.Root, "endpoint": e.Endpoint}).Info("started")
	case events.Stopping:
		log.WithField("grace", e.Grace.String()).Info("stopping: no new folders, waiting for submissions in flight")
	case events.Stopped:
		log.WithField("in_work", e.InWork).Info("stopped")
	case events.Reloaded:
		entry := logrus.NewEntry(log)
		if e.Note != "" {
			entry = entry.WithField("note", e.Note)
		}
		entry.Info("configuration reloaded")
	case events.ReloadRefused:
		log.WithError(e.Err).Error("the new configuration is refused, the old one stays in force")
	case events.Decided:
		entry := folder(log, e.Folder, e.ID).WithFields(logrus.Fields{"action": string(e.Action), "forced": e.Forced})
		if e.Err != nil {
			entry.WithError(e.Err).Info("a person's decision was refused")
			return
		}
		entry.WithField("place", string(e.Place)+"/"+meta.Show(e.Name)).Info("a person decided")
	case events.Adopted:
		text := "taking over a spool of before"
		if e.Done {
			text = "a spool of before was taken over"
		}
		if e.Ledger {
			text = "entering into the ledger what ended before there was one"
		}
		log.WithFields(logrus.Fields{"folders": e.Folders, "total": e.Total}).Info(text)
	case events.Trouble:
		log.WithError(e.Err).Warn(e.What)
	}
}

func ofWatcher(log *logrus.Logger, e events.Event) {
	switch e := e.(type) {
	case events.FolderWaits:
		waits := make([]string, len(e.Reasons))
		for i := range e.Reasons {
			waits[i] = e.Reasons[i].Code
		}
		folder(log, e.Folder, "").WithFields(logrus.Fields{"inbox": e.Inbox, "age": e.Age.Round(time.Second).String(), "reasons": waits}).
			Warn("still incomplete; see idenfy-batch status")
	case events.WatchModeChanged:
		entry := log.WithFields(logrus.Fields{"inbox": e.Inbox, "mode": string(e.Mode)})
		if e.Err != nil {
			entry = entry.WithError(e.Err)
		}
		if e.Mode == events.ByEvents {
			entry.Info("watching the inbox by events")
		} else {
			entry.Warn("not all folders can be watched by events; rescans find them")
		}
	case events.Overflowed:
		log.WithField("inbox", e.Inbox).WithError(e.Err).Warn("file events were lost; rescanning")
	case events.InboxTrouble:
		entry := log.WithField("inbox", e.Inbox)
		if e.Err != nil {
			entry.WithError(e.Err).Error("nothing can be taken from the inbox; trying again")
		} else {
			entry.Info("the inbox is in order again")
		}
	case events.InboxLeft:
		log.WithField("inbox", e.Inbox).Info("the inbox is not watched any more where it was; what lies there stays")
	}
}

// quietFor is how long refused webhooks are counted between two lines about
// them: anybody may send any number.
const quietFor = time.Minute

func (l *Log) ofVerdicts(log *logrus.Logger, e events.Event) {
	switch e := e.(type) {
	case events.VerdictCame:
		entry := folder(log, e.Folder, e.ID).WithFields(logrus.Fields{"verdict": e.Overall, "final": e.Final, "by": string(e.By)})
		if e.After > 0 {
			entry = entry.WithField("after", e.After.Round(time.Second).String())
		}
		switch {
		case e.Clash != "":
			entry.WithField("before", e.Clash).Error("it contradicts what was said before; look the session up in the iDenfy dashboard")
		case e.Final:
			entry.Info("verdict")
		default:
			entry.Debug("verdict, not final yet")
		}
	case events.WebhookRefused:
		l.refused.Add(1)
		now, last := time.Now().UnixNano(), l.toldRefused.Load()
		if now-last < int64(quietFor) || !l.toldRefused.CompareAndSwap(last, now) {
			return
		}
		entry := log.WithFields(logrus.Fields{"why": string(e.Why), "webhooks": l.refused.Swap(0)})
		if e.Err != nil {
			entry = entry.WithError(e.Err)
		}
		entry.Warn("webhooks were refused; those of iDenfy are sent again, ten times at most. If they are iDenfy's: does the key in verdict.key_file belong to the webhook in the dashboard?")
	case events.Asked:
		entry := log.WithField("request", e.N)
		if e.Fault != "" {
			withAnswer(entry.WithField("fault", e.Fault), e.HTTPStatus, e.Identifier).Warn("no verdict came, and asking for it had no answer")
			return
		}
		entry.Debug("no verdict came; it was asked for")
	case events.Disputed:
		names := make([]string, len(e.Folders))
		for i, name := range e.Folders {
			names[i] = meta.Show(name)
		}
		log.WithField("folders", names).Warn("iDenfy said something of a session (scanRef " + meta.Show(e.ScanRef) + ") that several folders name in meta.yaml, so it can't be told whose it is, and none of them gets it; look the session up in the iDenfy dashboard")
	case events.StraysDropped:
		log.WithField("events", e.Events).Info("webhooks of sessions for which no folder came within a week were dropped")
	}
}

func ofRetention(log *logrus.Logger, e events.Event) {
	switch e := e.(type) {
	case events.Purged:
		folder(log, e.Folder, e.ID).WithFields(logrus.Fields{"place": string(e.Place), "rule": string(e.Rule), "files": e.Files, "bytes": e.Bytes, "by_person": e.Person}).
			Info("images and what came with them were deleted; the results stay")
	case events.PurgeFailed:
		folder(log, e.Folder, e.ID).WithField("place", string(e.Place)).WithError(e.Err).Warn("nothing of it could be deleted, though it is due; see idenfy-batch purge")
	case events.DeletionAsked:
		entry := withAnswer(folder(log, e.Folder, e.ID), e.HTTPStatus, e.Identifier)
		if e.Fault != "" {
			entry.WithField("fault", e.Fault).Warn("iDenfy did not delete the session")
			return
		}
		entry.Info("iDenfy deleted the session")
	case events.PassEnded:
		log.WithFields(logrus.Fields{"folders": e.Folders, "bytes": e.Bytes, "held": e.Held, "failed": e.Failed, "took": e.Took.Round(time.Millisecond).String()}).Info("what was due by retention was deleted")
	}
}

func ofBatch(log *logrus.Logger, e events.Event) {
	switch e := e.(type) {
	case events.Recovered:
		if e.Folders > 0 {
			log.WithField("folders", e.Folders).Info("going on with what is in work")
		}
	case events.Claimed:
		folder(log, e.Folder, e.ID).Debug("claimed")
	case events.FolderStuck:
		folder(log, e.Folder, e.ID).WithFields(logrus.Fields{"place": string(e.Place), "reason": e.Reason, "mend": e.Mend}).
			Warn("it can't go on by its own fault; it is tried again")
	case events.FolderFreed:
		folder(log, e.Folder, e.ID).WithField("place", string(e.Place)).Info("no longer stuck")
	case events.ClaimFailed:
		folder(log, e.Folder, "").WithField("inbox", e.Inbox).WithError(e.Err).Warn("could not be taken, stays in the inbox")
	case events.Released:
		folder(log, e.Folder, e.ID).WithFields(logrus.Fields{"inbox": e.Inbox, "why": e.Why}).Info("back to the inbox")
	case events.Vanished:
		folder(log, e.Folder, e.ID).Warn("somebody took it out of work")
	case events.Attempted:
		attempted(folder(log, e.Folder, e.ID), &e.Attempt)
	case events.SessionAsked:
		asked(folder(log, e.Folder, e.ID), &e.Opening)
	case events.Ended:
		ended(folder(log, e.Result.Folder, e.Result.ID), e)
	case events.GateShut:
		text := "submission is paused; folders are kept, and it goes on by itself"
		if e.Owner == events.Disk {
			text = "submission is paused, and nothing is moved; folders are kept, and it goes on by itself"
		}
		log.WithFields(logrus.Fields{
			"owner": string(e.Owner), "reason": e.Reason, "mend": e.Mend, "tries": e.Tries, "next_try": e.Wait.Round(time.Millisecond).String(),
		}).Error(text)
	case events.GateOpened:
		log.WithField("owner", string(e.Owner)).Info("submission goes on")
	}
}

func attempted(entry *logrus.Entry, a *sidecar.Attempt) {
	tried(entry.WithField("attempt", a.N), "attempt", a)
}

func asked(entry *logrus.Entry, o *sidecar.Opening) {
	tried(entry.WithField("request", o.N), "session asked for", &o.Attempt)
}

// withAnswer adds what may be said of an answer.
func withAnswer(entry *logrus.Entry, status int, identifier string) *logrus.Entry {
	if status != 0 {
		entry = entry.WithField("http_status", status)
	}
	if identifier != "" {
		entry = entry.WithField("identifier", identifier)
	}
	return entry
}

func tried(entry *logrus.Entry, what string, a *sidecar.Attempt) {
	entry = entry.WithFields(logrus.Fields{"state": string(a.State), "duration_ms": a.DurationMS})
	entry = withAnswer(entry, a.HTTPStatus, a.Identifier)
	switch {
	case a.State == sidecar.Answered && a.HTTPStatus < 300 && a.Identifier == "":
		entry.Debug(what)
	case a.State == sidecar.Answered:
		entry.Info(what)
	default:
		entry.Warn(what)
	}
}

func ended(entry *logrus.Entry, e events.Ended) {
	res := e.Result
	entry = entry.WithFields(logrus.Fields{
		"outcome": string(res.Outcome), "attempts": len(res.Attempts), "place": string(e.Place) + "/" + meta.Show(e.Name),
	})
	if a := res.LastAttempt(); a != nil {
		entry = entry.WithField("duration_ms", a.DurationMS)
	}
	if len(res.Reasons) > 0 {
		entry = entry.WithField("reasons", codes(res.Reasons))
	}
	if res.Outcome == sidecar.Accepted {
		entry.Info("ended")
	} else {
		entry.Warn("ended")
	}
}

func codes(reasons []sidecar.Reason) []string {
	list := make([]string, len(reasons))
	for i := range reasons {
		list[i] = reasons[i].Code
	}
	return list
}

// journalHook sends each line to systemd's journal, with its level as the
// priority and its fields as fields, so that journalctl can filter by them:
// IDENFY_FOLDER=case-7 (systemd.journal-fields(7)).
type journalHook struct{}

func (journalHook) Levels() []logrus.Level { return logrus.AllLevels }

func (journalHook) Fire(e *logrus.Entry) error {
	priority := journal.PriInfo
	switch e.Level {
	case logrus.DebugLevel, logrus.TraceLevel:
		priority = journal.PriDebug
	case logrus.WarnLevel:
		priority = journal.PriWarning
	case logrus.ErrorLevel:
		priority = journal.PriErr
	case logrus.FatalLevel, logrus.PanicLevel:
		priority = journal.PriCrit
	}
	var line strings.Builder
	line.WriteString(e.Message)
	fields := map[string]string{"SYSLOG_IDENTIFIER": "idenfy-batch"}
	for _, k := range slices.Sorted(maps.Keys(e.Data)) {
		v := fmt.Sprint(e.Data[k])
		fields["IDENFY_"+strings.ToUpper(k)] = v
		if strings.ContainsAny(v, " \t\"") {
			v = strconv.Quote(v)
		}
		fmt.Fprintf(&line, " %s=%s", k, v)
	}
	return journal.Send(line.String(), priority, fields)
}
