package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/record"
)

// awayStatus is what status says of one folder that somebody took out of work
// by hand, and that nobody has decided about.
type awayStatus struct {
	Folder  string    `json:"folder"`
	ID      string    `json:"id"`
	Claimed time.Time `json:"claimed"`
	Fate    string    `json:"may_have_been_accepted"` // yes, no, or it was
	Now     string    `json:"lies_in,omitempty"`      // as far as it is found in the spool
}

// readAway asks the journal. To whom it isn't readable it says nothing, like
// work.
func readAway(ctx context.Context, cfg *config.Config) ([]awayStatus, error) {
	list := []awayStatus{}
	var known []journal.Other
	err := beside(ctx, cfg, func(r *journal.Reader) (err error) { known, err = r.Away(ctx); return err })
	for _, o := range known {
		a := awayStatus{Folder: meta.Show(o.Folder), ID: o.ID, Claimed: o.Claimed.Time, Fate: "no"}
		switch o.Fate {
		case journal.Unsettled:
			a.Fate = "yes"
		case journal.Taken:
			a.Fate = "it was"
		}
		if p, name, found := record.Find(cfg.Spool(), o.ID, o.Folder); found {
			a.Now = string(p) + "/" + meta.Show(name)
		}
		list = append(list, a)
	}
	return list, err
}

func printAway(out io.Writer, list []awayStatus, all bool) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(out, "\ntaken out of work by hand, for you to decide (idenfy-batch help resolve):")
	for i, a := range list {
		if i == shown && !all {
			fmt.Fprintf(out, "  and %d more; --all shows them\n", len(list)-shown)
			return
		}
		fmt.Fprintf(out, "  %s (submission %s, of %s)\n", a.Folder, a.ID, a.Claimed.Local().Format(time.DateTime))
		fmt.Fprintf(out, "      %s", map[string]string{
			"yes": "it may have been accepted; look the session up in the iDenfy dashboard", "it was": "it was accepted", "no": "nothing of it was accepted",
		}[a.Fate])
		if a.Now != "" {
			fmt.Fprintf(out, "; it lies in %s now", a.Now)
		}
		fmt.Fprintln(out)
	}
}
