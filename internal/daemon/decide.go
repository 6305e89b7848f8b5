package daemon

import (
	"context"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/decision"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/spool"
)

// decide makes a person's decision about each of some folders.
func (d *daemon) decide(ctx context.Context, ask control.Decision) []control.Decided {
	now := d.now.Load()
	desk := decision.Desk{Paths: now.cfg.Spool(), Journal: d.journal, InWork: d.batch.InWork, Status: now.client.Status}
	return decideAll(ctx, &desk, ask, d.emit)
}

// Decide makes decisions while no daemon runs: it holds the spool's lock
// meanwhile, and works with the journal itself. status asks for a session; nil:
// nobody can be asked. give is that of BecomeGiver.
func Decide(ctx context.Context, cfg *config.Config, ask control.Decision, status func(context.Context, string) (idenfy.Taken, string, error), give func(func() error) error) ([]control.Decided, error) {
	lock, err := spool.Lock(cfg.Spool())
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	silent := func(events.Event) {}
	j, err := OpenJournal(ctx, Journal(cfg), cfg.Spool(), silent)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	desk := decision.Desk{Paths: cfg.Spool(), Journal: j, InWork: cfg.Spool().Has, Status: status, Give: give}
	return decideAll(ctx, &desk, ask, silent), nil
}

func decideAll(ctx context.Context, desk *decision.Desk, ask control.Decision, emit events.Sink) []control.Decided {
	dec := decision.Decision{Action: ask.Action, By: ask.By, Force: ask.Force, Comment: ask.Comment, Inbox: ask.Inbox}
	list := make([]control.Decided, 0, len(ask.Names))
	for _, name := range ask.Names {
		place, newName, err := desk.Make(ctx, name, dec)
		done := control.Decided{Name: name, Place: place, NewName: newName}
		if err != nil {
			done.Err = err.Error()
		}
		list = append(list, done)
		emit(events.Decided{Folder: name, Action: ask.Action, Forced: ask.Force, Place: place, Name: newName, Err: err})
	}
	return list
}
