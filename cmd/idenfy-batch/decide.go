package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

func newRequeue() *cobra.Command {
	c := &cobra.Command{
		Use:   "requeue NAME...",
		Short: "Move failed folders back to the inbox that they came from",
		Long: `Requeue moves folders from failed back to the inbox that they came from, where
they are judged and submitted like new ones, and records in result.json who did it
and when. The old result stays in the folder as result.1.json. Where that inbox is
not in the configuration any more, say by --inbox where they are to go.

What was accepted is refused, unless --force is given: the same documents would
be sent a second time. What is in hold is for idenfy-batch resolve. A running
daemon makes the move itself; it works without one, too.`,
		Example: "  idenfy-batch requeue case-7\n  idenfy-batch requeue -m 'new photo of the back' case-7 case-9\n  idenfy-batch requeue --inbox branch-2 case-7",
		Args:    cobra.MinimumNArgs(1),
	}
	decide := decideFlags(c, spool.Failed)
	c.RunE = func(_ *cobra.Command, names []string) error { return decide(names, sidecar.Requeued) }
	return c
}

func newResolve() *cobra.Command {
	c := &cobra.Command{
		Use:   "resolve NAME... {--accepted | --rejected | --resubmit}",
		Short: "Say how held folders ended",
		Long: `Resolve ends folders in hold, of which the daemon can't tell whether they were
accepted. Look the session up in the iDenfy dashboard, by the token_hint and the
time of the attempt in result.json, then say what you found:

  --accepted   the documents were taken: the folder goes to done
  --rejected   they were not, and shall not be sent: it goes to failed
  --resubmit   they were not, and the token is unused: it goes to its inbox

With scanRef in meta.yaml the service is asked once, and what contradicts its
answer is refused. Where it can't be asked, or its answer tells nothing, what you
found needs --force. Who decided what and when is recorded in result.json.

What somebody took out of work by hand, as status tells, is resolved in the same
way, by its name or its id: where it lies in done, failed or hold now, and else in
the journal alone. What idenfy-batch submit sent and never settled is resolved in
the journal, by its id.

A running daemon makes the decision itself.`,
		Example: "  idenfy-batch resolve case-7 --accepted -m 'seen in the dashboard'",
		Args:    cobra.MinimumNArgs(1),
	}
	accepted := c.Flags().Bool("accepted", false, "iDenfy took the documents")
	rejected := c.Flags().Bool("rejected", false, "iDenfy did not take them")
	resubmit := c.Flags().Bool("resubmit", false, "iDenfy did not take them, send them again")
	c.MarkFlagsMutuallyExclusive("accepted", "rejected", "resubmit")
	c.MarkFlagsOneRequired("accepted", "rejected", "resubmit")
	decide := decideFlags(c, spool.Hold)
	c.RunE = func(_ *cobra.Command, names []string) error {
		switch {
		case *accepted:
			return decide(names, sidecar.Confirmed)
		case *rejected:
			return decide(names, sidecar.Denied)
		case *resubmit:
			return decide(names, sidecar.Resubmit)
		}
		return errors.New("say --accepted, --rejected or --resubmit") // =false was given
	}
	return c
}

// decideFlags adds what both commands take, and returns what makes a decision
// about each of some folders. place is where their names are found.
func decideFlags(c *cobra.Command, place spool.Place) func(names []string, action sidecar.Action) error {
	load := configFlag(c)
	force := c.Flags().Bool("force", false, "though it might be a second submission; recorded")
	inbox := c.Flags().String("inbox", "", "`name` of the inbox that they are to go to, in place of the one that they came from")
	comment := c.Flags().StringP("comment", "m", "", "why, for the record; no personal data")
	c.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		cfg, err := load()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names, _ := cfg.Spool().List(place) // without it there is nothing to complete
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	return func(names []string, action sidecar.Action) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		ask := control.Decision{Names: names, Action: action, Force: *force, Comment: *comment, Inbox: *inbox, By: control.Self()}
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		made, err := decide(ctx, &cfg, ask)
		if err != nil {
			return failed(err)
		}
		return tellDecided(c.OutOrStdout(), made)
	}
}

// starting is how long a daemon that has the spool may take until it answers.
const starting = 10 * time.Second

// decide has decisions made by the running daemon, or makes them.
func decide(ctx context.Context, cfg *config.Config, ask control.Decision) ([]control.Decided, error) {
	var made []control.Decided
	err := withDaemon(ctx, cfg,
		func(running *control.Client) (err error) { made, err = running.Decide(ctx, ask); return err },
		func() (err error) { made, err = decideAlone(ctx, cfg, ask); return err })
	return made, err
}

// withDaemon has the running daemon asked; or, while none runs, what is done
// alone, with the spool's lock.
func withDaemon(ctx context.Context, cfg *config.Config, ask func(*control.Client) error, alone func() error) error {
	for begin := time.Now(); ; {
		running, err := control.Dial(cfg.Root)
		if err == nil {
			defer running.Close()
			return ask(running)
		}
		if !errors.Is(err, control.ErrNoDaemon) {
			return err
		}
		if err := alone(); !errors.Is(err, spool.ErrLocked) || time.Since(begin) > starting {
			return err
		}
		select { // it is starting, or ending
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// tellDecided prints what came of each decision.
func tellDecided(out io.Writer, made []control.Decided) error {
	good := true
	for _, m := range made {
		if m.NewName == "" && m.Err == "" {
			fmt.Fprintf(out, "✓ %s: recorded; its folder is not in the spool\n", meta.Show(m.Name))
		}
		if m.NewName != "" {
			fmt.Fprintf(out, "✓ %s: now in %s/%s\n", meta.Show(m.Name), m.Place, meta.Show(m.NewName))
		}
		if m.Err != "" {
			good = false
			fmt.Fprintf(out, "✗ %s: %s\n", meta.Show(m.Name), m.Err)
		}
	}
	if !good {
		return &exitError{code: exitFailed}
	}
	return nil
}

// decideAlone makes decisions while no daemon runs.
func decideAlone(ctx context.Context, cfg *config.Config, ask control.Decision) ([]control.Decided, error) {
	var status func(context.Context, string) (idenfy.Taken, string, error)
	if client, err := daemon.NewClient(cfg, versionText()); err == nil { // without credentials nobody can be asked
		defer client.Close()
		status = client.Status
	}
	give, err := daemon.BecomeGiver(cfg.Spool())
	if err != nil {
		return nil, err
	}
	return daemon.Decide(ctx, cfg, ask, status, give)
}
