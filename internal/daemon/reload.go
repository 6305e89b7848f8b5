package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"path/filepath"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/verdict"
)

// current is what a reload replaces.
type current struct {
	cfg      config.Config
	client   *idenfy.Client
	exporter *exporter
	receiver *receiver
}

// reload brings the configuration as it is now into force, while all goes on.
// Everything that may fail is had before anything is changed, so that a
// refusal leaves all as it was.
func (d *daemon) reload(context.Context) (note string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ready.Load() { // else it would call the daemon ready
		d.notify(reloading())
		defer d.notify(sd.SdNotifyReady)
	}
	old := d.now.Load()
	next, set, cert, err := d.prepare(old)
	if err == nil {
		if err = d.tellers.Load().admit(&next.cfg); err != nil { // the last that may fail, since it can't be taken back
			next.discard(old)
		}
	}
	if err != nil {
		d.emit(events.ReloadRefused{Err: err})
		return "", err
	}
	// From here on nothing fails.
	d.log.Set(d.logLevel(&next.cfg), next.cfg.Log.Format)
	adjust(d.limiter, next.cfg.Rate)
	d.batch.Set(BatchSettings(&next.cfg, d.o.Version, next.client, d.limiter))
	d.tellers.Load().set(&next.cfg) // before a new inbox is watched
	d.lanes.Load().follow(&next.cfg)
	d.now.Store(next)
	if next.exporter != old.exporter {
		next.exporter.serve(d)
		old.exporter.close()
	}
	d.follow(next, set, cert)
	if next.receiver != old.receiver {
		old.receiver.close()
	}
	old.client.Close() // but for what is in flight
	if next.cfg.CredentialsFixed() {
		note = "keys that are systemd's credentials stay as they were at the start; when they changed: systemctl restart"
	}
	d.emit(events.Reloaded{Note: note})
	return note, nil
}

// prepare gets all that a new configuration needs.
func (d *daemon) prepare(old *current) (next *current, set verdict.Settings, cert *tls.Certificate, err error) {
	cfg, err := d.o.Load()
	if err != nil {
		return nil, set, nil, err
	}
	if filepath.Clean(cfg.Root) != filepath.Clean(old.cfg.Root) || !d.spool.SamePaths(cfg.Spool()) {
		err = errors.New("root and paths, but for inboxes, can't change while the daemon runs; restart it for that")
	} else if d.o.Once && !maps.Equal(d.spool.Paths(), cfg.Spool()) {
		err = errors.New("inboxes can't change while they are being emptied by run --once")
	} else {
		err = d.spool.Admits(cfg.Spool())
	}
	client, clientErr := NewClient(&cfg, d.o.Version)
	on, set, cert, webhookErr := d.receives(&cfg)
	if err := errors.Join(err, clientErr, webhookErr); err != nil {
		return nil, set, nil, err
	}
	next = &current{cfg: cfg, client: client, exporter: old.exporter}
	if !old.exporter.at(cfg.Metrics.Listen) {
		// Before the old one is closed, which stays if this can't be had.
		if next.exporter, err = listen(cfg.Metrics.Listen); err != nil {
			return nil, set, nil, err
		}
	}
	if next.receiver, err = d.receive(&cfg, old.receiver, on); err != nil {
		next.receiver = old.receiver
		next.discard(old)
		return nil, set, nil, err
	}
	return next, set, cert, nil
}

// discard closes what was opened to take the place of old's.
func (c *current) discard(old *current) {
	if c.exporter != old.exporter {
		c.exporter.close()
	}
	if c.receiver != old.receiver {
		c.receiver.close()
	}
}
