package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/time/rate"

	"idenfy-batch/batch"
	"idenfy-batch/internal/config"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
	"idenfy-batch/watcher"
)

// Limits returns what a folder may be, by the configuration, with the defaults
// that fill in what its meta.yaml leaves out.
func Limits(cfg *config.Config, d config.Defaults) meta.Limits {
	return meta.Limits{
		Request: int64(cfg.Limits.Request), Image: int64(cfg.Limits.Image),
		Files: cfg.Limits.Files, Marker: cfg.Completeness.ReadyMarker,
		Defaults: d.ForMeta(),
	}
}

// Journal returns where the journal of a configuration lies, and its mark.
func Journal(cfg *config.Config) journal.Where {
	return journal.Where{Dir: filepath.Join(cfg.Root, "journal"), Mark: cfg.Spool()[spool.Work]}
}

// NewClient makes the API client of a configuration, with its credentials as
// they are now.
func NewClient(cfg *config.Config, version string) (*idenfy.Client, error) {
	key, secret, err := cfg.Credentials()
	pool, caErr := cfg.RootCAs()
	if err := errors.Join(err, caErr); err != nil {
		return nil, err
	}
	return idenfy.New(idenfy.Options{
		BaseURL: cfg.API.BaseURL, Key: key, Secret: secret,
		Timeout: time.Duration(cfg.API.Timeout), RootCAs: pool,
		UserAgent: "idenfy-batch/" + version, Conns: cfg.Concurrency, TokenField: cfg.API.TokenField,
	}), nil
}

// BatchSettings are the batch's part of a configuration.
func BatchSettings(cfg *config.Config, version string, client *idenfy.Client, limiter *rate.Limiter) batch.Settings {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	defaults := map[string]meta.Defaults{}
	for _, i := range cfg.Drops() {
		defaults[i.Name] = i.Defaults.ForMeta()
	}
	return batch.Settings{
		Concurrency: cfg.Concurrency,
		Retry: batch.Retry{
			First: time.Duration(cfg.Retry.First), Max: time.Duration(cfg.Retry.Max),
			GiveUpAfter: time.Duration(cfg.Retry.GiveUpAfter),
		},
		Rejections: cfg.RejectionsInARow,

		Grace:  time.Duration(cfg.ShutdownGrace),
		Limits: Limits(cfg, config.Defaults{}),
		Daemon: sidecar.Daemon{Version: version, Host: host},
		API:    client,
		Rate:   limiter,

		SessionExpiry: time.Duration(cfg.API.SessionExpiry),

		Defaults: defaults,
	}
}

// watcherSettings are the watcher's part of a configuration, for an inbox.
func watcherSettings(cfg *config.Config, inbox config.Inbox) watcher.Settings {
	c := cfg.Completeness
	return watcher.Settings{
		Settle: time.Duration(c.Settle), Rescan: time.Duration(c.Rescan),
		WarnAfter: time.Duration(c.WarnAfter), FailAfter: time.Duration(c.FailAfter),
		Limits: Limits(cfg, inbox.Defaults),
	}
}

// adjust brings a rate into force in place: what has been sent stays counted.
func adjust(limiter *rate.Limiter, r config.Rate) {
	limiter.SetLimit(batch.Limit(r.PerHour))
	limiter.SetBurst(r.Burst)
}
