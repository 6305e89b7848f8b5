package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/journal"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
	"golang.org/x/time/rate"

	"idenfy-batch/batch"
	"idenfy-batch/internal/config"
	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
	"idenfy-batch/watcher"
)

// reporter is what the daemon's parts report to.
type reporter interface {
	watcher.Events
	batch.Events
}

// service is the daemon with one configuration, ready to run.
type service struct {
	cfg     config.Config
	client  *idenfy.Client
	spool   *spool.Spool
	limiter *rate.Limiter
	metrics net.Listener // nil: off
	once    bool
	before  batch.Left // of the service that this one takes over from
}

func limits(cfg *config.Config) meta.Limits {
	return meta.Limits{
		Request: int64(cfg.Limits.Request), Image: int64(cfg.Limits.Image),
		Files: cfg.Limits.Files, Marker: cfg.Completeness.ReadyMarker,
	}
}

// newClient makes the API client of a configuration.
func newClient(cfg *config.Config) (*idenfy.Client, error) {
	key, secret, err := cfg.Credentials()
	pool, caErr := cfg.RootCAs()
	if err := errors.Join(err, caErr); err != nil {
		return nil, err
	}
	return idenfy.New(idenfy.Options{
		BaseURL: cfg.API.BaseURL, Key: key, Secret: secret,
		Timeout: time.Duration(cfg.API.Timeout), RootCAs: pool,
		UserAgent: "idenfy-batch/" + versionText(), Conns: cfg.Concurrency,
	}), nil
}

func batchConfig(cfg *config.Config, once bool) batch.Config {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return batch.Config{
		Concurrency: cfg.Concurrency,
		Retry: batch.Retry{
			First: time.Duration(cfg.Retry.First), Max: time.Duration(cfg.Retry.Max),
			GiveUpAfter: time.Duration(cfg.Retry.GiveUpAfter),
		},
		Grace:  time.Duration(cfg.ShutdownGrace),
		Limits: limits(cfg),
		Daemon: sidecar.Daemon{Version: versionText(), Host: host},
		Once:   once,
	}
}

// run works until ctx ends, or with once until there is nothing left to do.
func (s *service) run(ctx context.Context, ev reporter, metrics http.Handler) (batch.Left, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	inbox := s.spool.Path(spool.Inbox)
	source := watcher.NewInotify(inbox)
	arrivals := make(chan drop.Arrival)
	var group errgroup.Group
	group.Go(func() error {
		defer close(arrivals)
		c := s.cfg.Completeness
		watcher.Run(ctx, watcher.Config{
			Dir: inbox, Settle: time.Duration(c.Settle), Rescan: time.Duration(c.Rescan),
			WarnAfter: time.Duration(c.WarnAfter), FailAfter: time.Duration(c.FailAfter),
			Limits: limits(&s.cfg), Once: s.once,
		}, source, arrivals, ev)
		return source.Close()
	})
	if s.metrics != nil {
		srv := &http.Server{Handler: metrics, ReadHeaderTimeout: 10 * time.Second}
		group.Go(func() error {
			if err := srv.Serve(s.metrics); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("metrics: %w", err)
			}
			return nil
		})
		end := context.AfterFunc(ctx, func() {
			_ = srv.Close() // the listener is ours; what hangs on it may be cut
		})
		defer end()
	}
	cfg := batchConfig(&s.cfg, s.once)
	cfg.Unwritten = s.before.Unwritten
	left, err := batch.New(cfg, s.spool, s.client, s.limiter, ev).Run(ctx, arrivals)
	stop()
	err = errors.Join(err, group.Wait())
	s.client.Close()
	return left, err
}

// newLogger logs to w as the configuration says.
func newLogger(cfg config.Log, w io.Writer) *logrus.Logger {
	log := logrus.New()
	log.SetOutput(w)
	level, err := logrus.ParseLevel(cfg.Level)
	if err != nil {
		level = logrus.InfoLevel // config has checked it
	}
	log.SetLevel(level)
	inJournal, err := journal.StderrIsJournalStream()
	switch {
	case cfg.Format == "auto" && err == nil && inJournal && w == os.Stderr:
		log.SetOutput(io.Discard)
		log.AddHook(journalHook{})
	case cfg.Format == "text" || cfg.Format == "auto" && isTerminal(w):
		log.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, TimestampFormat: time.TimeOnly})
	default:
		log.SetFormatter(&logrus.JSONFormatter{TimestampFormat: "2006-01-02T15:04:05.000Z07:00"})
	}
	return log
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

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// notify tells systemd, if it is there to be told.
func notify(log *logrus.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.WithError(err).Warn("systemd could not be told")
	}
}

// reloading is what systemd is told before a reload (sd_notify(3)).
func reloading() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return daemon.SdNotifyReloading
	}
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000)
}

// tellStatus keeps the line that systemctl status shows up to date, until ctx
// ends.
func tellStatus(ctx context.Context, log *logrus.Logger, rec *events.Recorder) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for told := ""; ; {
		if s := rec.Summary(); s != told {
			told = s
			notify(log, "STATUS="+s)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// feedWatchdog tells systemd's watchdog that the loop which submits is alive,
// until ctx ends. It looks at that loop's own signs of progress, so that a
// hang there shows.
func feedWatchdog(ctx context.Context, log *logrus.Logger, rec *events.Recorder) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if rec.Alive() < interval/2+10*time.Second {
				notify(log, daemon.SdNotifyWatchdog)
			}
		}
	}
}
