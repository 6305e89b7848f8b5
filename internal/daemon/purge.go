package daemon

import (
	"context"
	"fmt"
	"time"

	"idenfy-batch/batch"
	"idenfy-batch/internal/config"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/retention"
	"idenfy-batch/internal/spool"
)

// RetentionRules are retention's part of a configuration.
func RetentionRules(cfg *config.Config) retention.Rules {
	r := &cfg.Retention
	return retention.Rules{Done: time.Duration(r.Done), Failed: time.Duration(r.Failed), Hold: time.Duration(r.Hold), Verdicts: time.Duration(r.Verdicts)}
}

// purge deletes what is due by the configuration, or what a person listed, or
// says what would go.
func (d *daemon) purge(ctx context.Context, a retention.Ask) (retention.Report, error) {
	a.Rules = RetentionRules(&d.now.Load().cfg)
	if a.Yes && a.Remote {
		for _, g := range d.state.State().Gates {
			return retention.Report{}, fmt.Errorf("iDenfy can't be asked to delete sessions while a gate is shut (%s); when that has passed, repeat the command", g.Reason)
		}
	}
	return d.keeper.Pass(ctx, a)
}

// Purge does that while no daemon runs: it holds the spool's lock meanwhile, and
// works with the journal itself. client asks iDenfy; nil: it can't be asked.
func Purge(ctx context.Context, cfg *config.Config, a retention.Ask, client *idenfy.Client, told func(retention.Report)) (all retention.Report, err error) {
	lock, err := spool.Lock(cfg.Spool())
	if err != nil {
		return all, err
	}
	defer lock.Close()
	silent := func(events.Event) {}
	j, err := OpenJournal(ctx, Journal(cfg), cfg.Spool(), silent)
	if err != nil {
		return all, err
	}
	defer j.Close()
	sent, err := j.SentSince(ctx, time.Now().Add(-time.Hour))
	if err != nil {
		return all, err
	}
	k := retention.Keeper{Journal: j, Paths: cfg.Spool(), Emit: silent, Turn: batch.Limiter(cfg.Rate.PerHour, cfg.Rate.Burst, sent).Wait}
	if client != nil {
		k.Delete = client.Delete
	}
	a.Rules = RetentionRules(cfg)
	for {
		r, err := k.Pass(ctx, a)
		all.Add(r)
		told(all)
		if a.After = r.Next; err != nil || r.Next == "" {
			return all, err
		}
	}
}
