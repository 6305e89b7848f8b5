package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"idenfy-batch/batch"
	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/meta"
	"idenfy-batch/sidecar"
)

func newRun() *cobra.Command {
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon in the foreground",
		Long: `Run watches the inbox and submits complete folders until it is told to stop.

SIGTERM or SIGINT: take no new folder, finish or park what is in flight within
shutdown_grace; a second one ends at once, which is safe too. SIGHUP: read the
configuration and the key files again, while all goes on; if anything of the new
configuration can't be had it is refused, and the old one stays.

With --once it submits what is complete, and ends: 0 when all of that reached
its end, 1 when submission is paused, folders wait in work for another try, or
nothing can be taken from the inbox, or a folder in it keeps changing. It waits
for what is about to be complete: a minute where a meta.yaml has no line break at
its end, two where a folder keeps changing. What is older than fail_after, by the
times of its files, ends; so what keeps changing does only beside a daemon.`,
		Example: "  idenfy-batch run --config /etc/idenfy-batch/config.yaml\n  idenfy-batch run --once        # from cron",
		Args:    cobra.NoArgs,
	}
	load := configFlag(c)
	once := c.Flags().Bool("once", false, "submit what is complete, and end")
	c.RunE = func(c *cobra.Command, _ []string) error {
		o := daemon.Options{Load: load, Version: versionText(), Log: c.ErrOrStderr(), Once: *once, Service: true}
		if out := c.OutOrStdout(); *once && isTerminal(out) {
			o.Screen, o.Quiet = (&progress{out: out}).take, true
		}
		return runDaemon(c.Context(), o)
	}
	return c
}

func runDaemon(ctx context.Context, o daemon.Options) error {
	left, err := daemon.Run(ctx, o)
	var wrong *daemon.ConfigError
	switch {
	case errors.As(err, &wrong):
		return badConfig(err)
	case err != nil:
		return failed(err)
	case o.Once && !left.Told:
		return onceResult(left.Left)
	default:
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

// progress shows each folder's end on a terminal.
type progress struct {
	out io.Writer
	mu  sync.Mutex
}

// take is an events.Sink.
func (p *progress) take(e events.Event) {
	end, ok := e.(events.Ended)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "%s %-10s %s/%s%s\n", mark(end.Result.Outcome), end.Result.Outcome, end.Place, meta.Show(end.Name), why(end.Result))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
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
