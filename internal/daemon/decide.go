package daemon

import (
	"context"

	"idenfy-batch/internal/control"
	"idenfy-batch/internal/decision"
	"idenfy-batch/internal/events"
)

// decide makes a person's decision about each of some folders.
func (d *daemon) decide(ctx context.Context, ask control.Decision) []control.Decided {
	now := d.now.Load()
	desk := decision.Desk{Paths: now.cfg.Spool(), Status: now.client.Status}
	dec := decision.Decision{Action: ask.Action, By: ask.By, Force: ask.Force, Comment: ask.Comment}
	list := make([]control.Decided, 0, len(ask.Names))
	for _, name := range ask.Names {
		place, newName, err := desk.Make(ctx, name, dec)
		done := control.Decided{Name: name, Place: place, NewName: newName}
		if err != nil {
			done.Err = err.Error()
		}
		list = append(list, done)
		d.emit(events.Decided{Folder: name, Action: ask.Action, Forced: ask.Force, Place: place, Name: newName, Err: err})
	}
	return list
}
