// Package daemon owns the wiring of a running daemon: watcher, batch,
// listeners, reload, what commands ask, signals, systemd.
package daemon

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"idenfy-batch/batch"
	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/retention"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/telemetry"
	"idenfy-batch/internal/verdict"
)

// Options say what to run, and for whom.
type Options struct {
	// Load reads the configuration: at the start, and at each reload.
	Load    func() (config.Config, error)
	Version string
	Log     io.Writer
	Once    bool // submit what is complete, and end
	// Service has signals listened to, and systemd told.
	Service bool
	// Screen sees all events, besides the log; it may be nil.
	Screen events.Sink
	// Quiet leaves in the log what went wrong only: the screen tells the rest.
	Quiet bool
}

// Left is what Run leaves undone.
type Left struct {
	batch.Left
	Told bool // it ended because it was told to
}

// ConfigError says that configuration or rights are wrong: to start again
// would not mend it.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// daemon is one running daemon.
type daemon struct {
	o       Options
	log     *telemetry.Log
	metrics *telemetry.Metrics
	state   *telemetry.Keeper
	emit    events.Sink
	ready   atomic.Bool // all inboxes are being watched, or can't be

	spool   *spool.Spool
	journal *journal.Journal
	notary  *notary
	limiter *rate.Limiter
	batch   *batch.Batch
	lanes   atomic.Pointer[lanes]   // nil: they are not watched yet
	tellers atomic.Pointer[tellers] // nil: nobody is told yet

	handed   net.Listener // systemd's, for webhooks
	webhooks *verdict.Receiver
	clerk    *verdict.Clerk
	keeper   *retention.Keeper

	mu  sync.Mutex // one reload at a time
	now atomic.Pointer[current]
}

// Run works until ctx ends or a signal comes, or with Once until there is
// nothing left to do.
func Run(ctx context.Context, o Options) (Left, error) {
	ends, hup := signals(o.Service)
	d := &daemon{o: o}
	cfg, err := o.Load()
	if err != nil {
		return Left{}, &ConfigError{err}
	}
	client, err := NewClient(&cfg, o.Version)
	if err != nil {
		return Left{}, &ConfigError{err}
	}
	now := &current{cfg: cfg, client: client}
	d.now.Store(now)
	if o.Service {
		if d.handed, err = handed(); err != nil {
			return Left{}, &ConfigError{err}
		}
	}
	on, set, cert, err := d.receives(&cfg)
	if err != nil {
		return Left{}, &ConfigError{err}
	}
	if err := d.drop(&cfg); err != nil {
		return Left{}, &ConfigError{err}
	}
	if d.spool, err = open(ctx, &cfg); err != nil {
		return Left{}, classify(err)
	}
	defer d.spool.Close()
	if now.exporter, err = listen(cfg.Metrics.Listen); err != nil {
		return Left{}, err
	}
	defer func() { d.now.Load().exporter.close() }()
	if now.receiver, err = d.receive(&cfg, nil, on); err != nil {
		return Left{}, err
	}
	defer func() { d.now.Load().receiver.close() }()
	socket, err := control.Listen(cfg.Root) // with the spool's lock held
	if err != nil {
		return Left{}, classify(err)
	}
	d.listeners(&cfg)
	if err := d.remember(ctx, &cfg); err != nil {
		return Left{}, err
	}
	defer d.journal.Close()
	d.batch = batch.New(BatchSettings(&cfg, o.Version, client, d.limiter), d.spool, d.journal, d.emit)
	d.clerk = verdict.NewClerk(d.journal, cfg.Spool(), d.emit)
	d.keeper = &retention.Keeper{Journal: d.journal, Paths: cfg.Spool(), Emit: d.emit, Turn: d.limiter.Wait, Delete: func(ctx context.Context, scanRef string) error {
		return d.now.Load().client.Delete(ctx, scanRef)
	}}
	d.webhooks = verdict.NewReceiver(d.journal, d.emit, d.clerk.Wake)
	tellers, err := openTellers(ctx, d, &cfg)
	if err != nil {
		return Left{}, err
	}
	defer tellers.end()
	d.follow(now, set, cert)
	now.exporter.serve(d)
	d.emit(events.Started{Version: o.Version, Root: cfg.Root, Endpoint: client.Endpoint()})
	left, err := d.work(ctx, socket, ends, hup)
	d.notary.trySign(context.WithoutCancel(ctx))
	d.now.Load().client.Close()
	if err == nil {
		d.emit(events.Stopped{InWork: left.InWork})
	}
	return left, err
}

// signals listens from the beginning: one that comes during the start-up is
// kept, not fatal.
func signals(service bool) (ends, hup chan os.Signal) {
	ends, hup = make(chan os.Signal, 2), make(chan os.Signal, 1)
	if service {
		signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
		signal.Notify(hup, syscall.SIGHUP)
	}
	return ends, hup
}

// patience is how long a start waits for a command that has the spool for a
// moment, or for a killed daemon to be gone.
const patience = 10 * time.Second

// open opens the spool. While somebody else has it and no daemon answers, it
// waits a little.
func open(ctx context.Context, cfg *config.Config) (*spool.Spool, error) {
	for begin := time.Now(); ; {
		s, err := spool.Open(cfg.Spool())
		if !errors.Is(err, spool.ErrLocked) || time.Since(begin) > patience {
			return s, err
		}
		if running, noDaemon := control.Dial(cfg.Root); noDaemon == nil {
			running.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// drop gives root's rights up where the spool is another user's: what root
// writes, the service could not go on with.
func (d *daemon) drop(cfg *config.Config) error {
	if _, err := os.Stat(cfg.Spool()[spool.Work]); errors.Is(err, fs.ErrNotExist) {
		return nil // it is made by this start
	}
	return Become(cfg.Spool())
}

// remember opens the journal, and takes from it what was sent within the last
// hour.
func (d *daemon) remember(ctx context.Context, cfg *config.Config) (err error) {
	opened, done := context.WithCancel(ctx)
	go d.extend(opened)
	d.journal, err = OpenJournal(ctx, Journal(cfg), cfg.Spool(), d.emit)
	if err == nil {
		d.notary, err = newNotary(ctx, cfg, d.journal, d.emit)
		if err == nil {
			err = d.journal.Started(d.o.Version, d.notary.key.Verifier(), d.o.Once)
		}
		if err != nil {
			err = errors.Join(err, d.journal.Close())
		}
	}
	done()
	if _, unfit := errors.AsType[*journal.UnfitError](err); unfit {
		return &ConfigError{err}
	}
	if err != nil {
		return err
	}
	sent, err := d.journal.SentSince(ctx, time.Now().Add(-time.Hour))
	if err != nil {
		return errors.Join(err, d.journal.Close())
	}
	d.limiter = batch.Limiter(cfg.Rate.PerHour, cfg.Rate.Burst, sent)
	return nil
}

// classify tells what may pass by itself from what takes a person.
func classify(err error) error {
	if errors.Is(err, spool.ErrLocked) || spool.Passing(err) {
		return err
	}
	return &ConfigError{err}
}

// listeners makes those that hear of all events.
func (d *daemon) listeners(cfg *config.Config) {
	d.log = telemetry.NewLog(d.o.Log, d.logLevel(cfg), cfg.Log.Format)
	d.metrics = telemetry.NewMetrics(d.o.Version)
	d.state = telemetry.NewKeeper()
	d.emit = events.Fan(d.log.Take, d.metrics.Take, d.state.Take, d.watching, d.refused, d.filed, d.told, d.o.Screen)
	// Where earlier versions left it.
	_ = os.Remove(filepath.Join(cfg.Spool()[spool.Work], ".state.json"))
}

func (d *daemon) logLevel(cfg *config.Config) string {
	if d.o.Quiet {
		return "error"
	}
	return cfg.Log.Level
}

// watching tells systemd that the daemon is ready, once each inbox is watched, or
// waits alone.
func (d *daemon) watching(e events.Event) {
	if d.ready.Load() {
		return
	}
	var inbox string
	switch e := e.(type) {
	case events.WatchModeChanged:
		inbox = e.Inbox
	case events.InboxTrouble:
		inbox = e.Inbox
	default:
		return
	}
	if d.lanes.Load().begun(spool.InboxNamed(inbox)) && !d.ready.Swap(true) {
		d.notify(sd.SdNotifyReady)
	}
}

// refused has it found out why nothing could be taken from an inbox.
func (d *daemon) refused(e events.Event) {
	if f, ok := e.(events.ClaimFailed); ok && f.Alone {
		d.lanes.Load().refused(spool.InboxNamed(f.Inbox))
	}
}

// filed has a verdict that came before its folder brought to it.
func (d *daemon) filed(e events.Event) {
	if _, ok := e.(events.Ended); ok {
		d.clerk.Wake()
	}
}

// work runs watcher and batch until there is an end.
func (d *daemon) work(ctx context.Context, socket *control.Listener, ends, hup <-chan os.Signal) (Left, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if d.o.Service {
		go d.stopOn(ends, stop) // lives as long as the process
	}

	lanes := d.openLanes(ctx, &d.now.Load().cfg)
	var group errgroup.Group
	group.Go(lanes.wait)
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hup:
				_, _ = d.reload(ctx) // it is in the log
			}
		}
	})
	group.Go(func() error {
		server := control.Server{Reload: d.reload, Decide: d.decide, Purge: d.purge, State: func() any { return d.state.State() }, Submission: d.outside, Reader: d.journal.Reader()}
		if err := server.Serve(ctx, socket); err != nil {
			d.emit(events.Trouble{What: "commands are not answered any more", Err: err})
		}
		return nil
	})
	// These go on while the batch waits for what is in flight.
	life, endLife := context.WithCancel(context.WithoutCancel(ctx))
	defer endLife()
	group.Go(func() error { d.feedWatchdog(life); return nil })
	group.Go(func() error { d.tellStatus(life); return nil })
	group.Go(func() error { d.countFolders(life); return nil })
	group.Go(func() error { d.notary.run(life); return nil })
	group.Go(func() error { d.clerk.Run(life); return nil })
	if d.o.Once {
		if err := d.keeper.Finish(ctx); err != nil && ctx.Err() == nil {
			d.emit(events.Trouble{What: "what is recorded as deleted could not be, which is tried again", Err: err})
		}
	} else {
		daily := retention.Daily{Keeper: d.keeper, Settings: func() (retention.Rules, string) {
			cfg := &d.now.Load().cfg
			return RetentionRules(cfg), cfg.Retention.At
		}}
		group.Go(func() error { daily.Run(life); return nil })
		group.Go(func() error { d.asker().Run(life); return nil })
		group.Go(func() error { d.renew(life); return nil })
	}

	left, err := d.batch.Run(ctx, lanes.arrivals, d.o.Once)
	told := ctx.Err() != nil
	stop()
	d.deafen() // events come in until then
	endLife()
	return Left{left, told}, errors.Join(err, group.Wait())
}

// stopOn stops the daemon at the first signal, and ends the process at the
// second.
func (d *daemon) stopOn(ends <-chan os.Signal, stop func()) {
	<-ends
	d.emit(events.Stopping{Grace: time.Duration(d.now.Load().cfg.ShutdownGrace)})
	d.notify(sd.SdNotifyStopping)
	stop()
	<-ends
	os.Exit(1)
}
