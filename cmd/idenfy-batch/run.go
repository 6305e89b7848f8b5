package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"idenfy-batch/batch"
	"idenfy-batch/internal/config"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

func newRun() *cobra.Command {
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon in the foreground",
		Long: `Run watches the inbox and submits complete folders until it is told to stop.

SIGTERM or SIGINT: take no new folder, finish or park what is in flight within
shutdown_grace; a second one ends at once, which is safe too. SIGHUP: read the
configuration again; a bad one is refused and the old one stays.

With --once it submits what is complete, and ends: 0 when all of that reached
its end, 1 when submission is paused or folders wait in work for another try.`,
		Example: "  idenfy-batch run --config /etc/idenfy-batch/config.yaml\n  idenfy-batch run --once        # from cron",
		Args:    cobra.NoArgs,
	}
	load := configFlag(c)
	once := c.Flags().Bool("once", false, "submit what is complete, and end")
	c.RunE = func(c *cobra.Command, _ []string) error {
		r := &runner{load: load, once: *once, out: c.OutOrStdout(), errOut: c.ErrOrStderr()}
		return r.run(c.Context())
	}
	return c
}

// runner is the run command: the service, the signals, and the reloads.
type runner struct {
	load        func() (config.Config, error)
	once        bool
	out, errOut io.Writer
	log         *logrus.Logger
}

func (r *runner) run(ctx context.Context) error {
	// From the beginning: a signal during the start-up is kept, not fatal.
	ends, hup := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	signal.Notify(hup, syscall.SIGHUP)
	cfg, err := r.load()
	if err != nil {
		return err
	}
	s, err := r.prepare(cfg)
	if err != nil {
		return err
	}
	s.spool, err = spool.Open(cfg.Spool())
	if errors.Is(err, spool.ErrLocked) || spool.Passing(err) {
		return failed(err)
	}
	if err != nil {
		return badConfig(err)
	}
	defer s.spool.Close()
	s.limiter = batch.Limiter(cfg.Rate.PerHour, cfg.Rate.Burst, s.spool)

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	log := newLogger(cfg.Log, r.errOut)
	r.log = log
	state := stateFile{path: statePath(cfg.Spool()), log: log}
	ready := sync.OnceFunc(func() { notify(log, daemon.SdNotifyReady) })
	rec := events.New(log, versionText(), func(s events.State) {
		state.write(s)
		if s.Mode != "" { // the inbox is being watched
			ready()
		}
	})
	defer state.remove()
	var ev reporter = rec
	if r.once && isTerminal(r.out) {
		log.SetLevel(min(log.GetLevel(), logrus.ErrorLevel)) // progress tells the rest
		ev = &progress{Recorder: rec, out: r.out}
	}
	go stopOn(ends, stop, rec, time.Duration(cfg.ShutdownGrace)) // lives as long as the process
	rec.Started(versionText(), cfg.Root, s.client.Endpoint())
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer stop()
	helpers.Go(func() { feedWatchdog(ctx, log, rec) })
	helpers.Go(func() { tellStatus(ctx, log, rec) })
	for {
		next, left, err := r.generation(ctx, s, ev, rec, hup)
		if err != nil {
			return failed(err)
		}
		if next != nil {
			s, cfg = next, next.cfg
			log.SetLevel(newLogger(cfg.Log, r.errOut).GetLevel())
			rec.Reloaded()
			continue
		}
		rec.Stopped(left.InWork)
		if r.once && ctx.Err() == nil {
			return onceResult(left)
		}
		return nil
	}
}

func onceResult(left batch.Left) error {
	switch {
	case left.Paused != "":
		return failed(fmt.Errorf("submission is paused: %s; folders are kept, run it again later", meta.Show(left.Paused)))
	case left.InWork > 0:
		return failed(fmt.Errorf("%d folders wait in work for another try; run it again later", left.InWork))
	default:
		return nil
	}
}

// prepare makes a service of a configuration, but for the spool.
func (r *runner) prepare(cfg config.Config) (*service, error) {
	client, err := newClient(&cfg)
	if err != nil {
		return nil, badConfig(err)
	}
	s := &service{cfg: cfg, client: client, once: r.once}
	return s, nil
}

// generation runs one configuration until ctx ends or a good new one comes.
func (r *runner) generation(ctx context.Context, s *service, ev reporter, rec *events.Recorder, hup <-chan os.Signal) (next *service, left batch.Left, err error) {
	if s.cfg.Metrics.Listen != "" {
		if s.metrics, err = net.Listen("tcp", s.cfg.Metrics.Listen); err != nil {
			return nil, left, fmt.Errorf("metrics.listen: %w; choose another port, or leave it empty", err)
		}
	}
	genCtx, end := context.WithCancel(ctx)
	defer end()
	var reloads sync.WaitGroup
	reloads.Go(func() {
		for {
			select {
			case <-genCtx.Done():
				return
			case <-hup:
			}
			notify(r.log, reloading())
			candidate, err := r.reload(s)
			notify(r.log, daemon.SdNotifyReady) // systemctl reload ends; what came of it is in the log
			if err != nil {
				rec.ReloadRefused(err)
				continue
			}
			next = candidate
			end()
			return
		}
	})
	left, err = s.run(genCtx, ev, rec.Handler())
	end()
	reloads.Wait()
	if ctx.Err() != nil {
		next = nil
	}
	if next != nil {
		next.before = left
	}
	return next, left, err
}

// reload makes a service of the configuration as it is now.
func (r *runner) reload(old *service) (*service, error) {
	cfg, err := r.load()
	if err != nil {
		return nil, err
	}
	s, err := r.prepare(cfg)
	if err != nil {
		return nil, err
	}
	if !old.spool.SamePaths(cfg.Spool()) {
		return nil, errors.New("root and paths can't change while the daemon runs; restart it for that")
	}
	s.spool, s.limiter = old.spool, old.limiter
	if cfg.Rate != old.cfg.Rate {
		s.limiter = batch.Limiter(cfg.Rate.PerHour, cfg.Rate.Burst, s.spool)
	}
	return s, nil
}

// stopOn stops the daemon at the first signal, and ends the process at the
// second.
func stopOn(ends <-chan os.Signal, stop func(), rec *events.Recorder, grace time.Duration) {
	<-ends
	rec.Stopping(grace)
	_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping) // it is only courtesy
	stop()
	<-ends
	os.Exit(exitFailed)
}

// progress shows each folder's end on a terminal.
type progress struct {
	*events.Recorder
	out io.Writer
	mu  sync.Mutex
}

// Ended implements batch.Events.
func (p *progress) Ended(res *sidecar.Result, place spool.Place, name string) {
	p.Recorder.Ended(res, place, name)
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "%s %-10s %s/%s%s\n", mark(res.Outcome), res.Outcome, place, meta.Show(name), why(res))
}

func mark(o sidecar.Outcome) string {
	switch o {
	case sidecar.Accepted:
		return "✓"
	case sidecar.Unknown:
		return "?"
	default:
		return "✗"
	}
}

func why(res *sidecar.Result) string {
	if len(res.Reasons) == 0 {
		return ""
	}
	return ": " + res.Reasons[0].Message
}
