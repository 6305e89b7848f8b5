package batch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Defaults fill in what meta.yaml leaves out. Which ones is settled when a life
// begins, and stays so to its end, whatever a reload or another name of the folder
// would make of it: with an attempt that may have been taken it has to be the same
// submission again.

// limits are the limits for the folder, with the defaults of its life.
func (v *visit) limits() meta.Limits {
	lim := v.set.Limits
	lim.Defaults = v.defaults
	return lim
}

// ofInbox are the defaults of the inbox that the folder came from.
func (v *visit) ofInbox() meta.Defaults { return v.set.Defaults[v.inbox().InboxName()] }

// begins returns the defaults for a life that begins.
func (v *visit) begins(ctx context.Context) (meta.Defaults, error) {
	d := v.ofInbox()
	if !d.ByFolder {
		return d, nil
	}
	self, err := drop.Identity(v.dir)
	if err != nil {
		return d, err
	}
	var ids []string
	if self == "" {
		if ids, err = sidecar.IDs(v.dir); err != nil {
			return d, err
		}
	}
	had, err := v.b.journal.Reader().NamesOf(ctx, self, ids)
	if err != nil {
		return d, fmt.Errorf("the journal: %w", err)
	}
	d.Folder = FirstName(had, v.name)
	return d, nil
}

// FirstName is meta.FirstName of what a folder is called, or was, in the spool's
// places: none of the names is one that it has in work only, should somebody have
// taken it out of there by hand.
func FirstName(had []string, now string) string {
	dropped := make([]string, len(had))
	for i, name := range had {
		dropped[i] = spool.Dropped(name)
	}
	return meta.FirstName(dropped, spool.Dropped(now))
}

// errNameTaken says that a folder can't go back to the inbox under its name.
var errNameTaken = errors.New("another folder of its name is there")

// back moves the folder back to the inbox. Where its name is the clientId it gets
// no other one.
func (v *visit) back() (string, error) {
	if !v.ofInbox().ByFolder {
		return v.paths.Release(v.task.work, v.inbox(), v.name)
	}
	return v.paths.ReleaseExactly(v.task.work, v.inbox(), v.name)
}

// nameTaken reports whether the folder has to wait in work until its name in the
// inbox is free, see back.
func (v *visit) nameTaken() bool {
	if !v.ofInbox().ByFolder {
		return false
	}
	_, err := os.Lstat(filepath.Join(v.paths[v.inbox()], v.name))
	return err == nil
}
