package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/retention"
)

func newPurge() *cobra.Command {
	c := &cobra.Command{
		Use:   "purge",
		Short: "Delete the images of folders that ended long ago, or were listed",
		Long: `Purge shows what would be deleted of folders in done, failed and hold: what is
older than retention in the configuration says, counted from a folder's end; or,
with --list, the folders that are named, whatever their age. With --yes it is
deleted: images, meta.yaml, and whatever else came with the folder. result.json,
verdict.json, and those of the folder's earlier submissions stay, and say what was
deleted, when, by which rule and by whom; so does the ledger. What iDenfy sent
(verdict.keep: full) goes by the rule verdicts, and with --list.

A running daemon does the same by itself once a day. A file .keep in a folder (a
legal hold) stops both. What can't be deleted is named, keeps nobody else, and is
tried again the next time.

A line of the list is a folder's name, its id, or a clientId, which stands for all
folders of that person. What matches none, or several, is named, and left alone.

--remote has iDenfy delete the sessions too, as far as it is certain whose they
are, and records what it answered. Nothing brings back what was deleted; neither a
disk's blocks nor a backup is erased by it.`,
		Example: "  idenfy-batch purge\n  idenfy-batch purge --yes\n  idenfy-batch purge --list ended.txt --remote --yes\n  echo customer-4711 | idenfy-batch purge --list -",
		Args:    cobra.NoArgs,
	}
	load := configFlag(c)
	yes := c.Flags().Bool("yes", false, "delete it")
	list := c.Flags().String("list", "", "the folders in this `file`, one a line, in place of what is old enough; -: standard input")
	remote := c.Flags().Bool("remote", false, "have iDenfy delete the sessions too")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		ask := retention.Ask{Yes: *yes, Remote: *remote}
		by := control.Self()
		ask.By = &by
		if c.Flags().Changed("list") {
			ask.Listed = true
			if ask.List, err = readList(*list, c.InOrStdin()); err != nil {
				return failed(err)
			}
		} else if !daemon.RetentionRules(&cfg).Any() {
			fmt.Fprintln(c.OutOrStdout(), "retention is not configured, so nothing is ever deleted; --list names folders")
		}
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		return purge(ctx, c.OutOrStdout(), &cfg, ask)
	}
	return c
}

// readList reads the lines of a list. Empty ones, and what begins with #, are
// left out.
func readList(path string, stdin io.Reader) (list []string, err error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := strings.TrimRight(strings.TrimPrefix(lines.Text(), "\ufeff"), "\r\t ")
		if line != "" && !strings.HasPrefix(line, "#") {
			list = append(list, line)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("the list can't be read: %w", err)
	}
	if len(list) == 0 {
		return nil, errors.New("the list is empty")
	}
	return list, nil
}

// purge has the running daemon purge, or does it.
func purge(ctx context.Context, out io.Writer, cfg *config.Config, ask retention.Ask) error {
	told := func(retention.Report) {}
	if isTerminal(out) {
		told = func(r retention.Report) { fmt.Fprintf(out, "\r%d folders ", r.Total().Folders) }
	}
	var all retention.Report
	err := withDaemon(ctx, cfg,
		func(running *control.Client) (err error) { all, err = askPurge(ctx, running, ask, told); return err },
		func() (err error) { all, err = purgeAlone(ctx, cfg, ask, told); return err })
	if isTerminal(out) {
		fmt.Fprint(out, "\r")
	}
	good := tellPurge(out, &all, ask)
	if err != nil {
		return failed(err)
	}
	if !good {
		return &exitError{code: exitFailed}
	}
	return nil
}

// inOne is how many lines of a list are in one question: a line may stand for
// many folders.
const inOne = 20

// askPurge asks the daemon for a part at a time.
func askPurge(ctx context.Context, running *control.Client, ask retention.Ask, told func(retention.Report)) (all retention.Report, err error) {
	for rest := ask.List; ; {
		if ask.Listed {
			n := min(inOne, len(rest))
			ask.List, rest = rest[:n], rest[n:]
		}
		part, err := running.Purge(ctx, ask)
		all.Add(part)
		told(all)
		if err != nil {
			return all, err
		}
		if ask.After = part.Next; ask.After == "" && len(rest) == 0 {
			return all, nil
		}
	}
}

// purgeAlone purges while no daemon runs, as the daemon's user.
func purgeAlone(ctx context.Context, cfg *config.Config, ask retention.Ask, told func(retention.Report)) (retention.Report, error) {
	var client *idenfy.Client
	if ask.Remote {
		var err error
		if client, err = daemon.NewClient(cfg, versionText()); err != nil {
			return retention.Report{}, fmt.Errorf("--remote: %w", err)
		}
		defer client.Close()
	}
	if err := daemon.Become(cfg.Spool()); err != nil {
		return retention.Report{}, err
	}
	return daemon.Purge(ctx, cfg, ask, client, told)
}

// tellPurge prints what went, or would go. good is false when something could not.
func tellPurge(out io.Writer, r *retention.Report, ask retention.Ask) (good bool) {
	verb := "would be deleted"
	if ask.Yes {
		verb = "were deleted"
	}
	for _, s := range r.Sums {
		fmt.Fprintf(out, "%s, rule %s: %d files of %d folders, %s, %s\n", s.Place, s.Rule, s.Files, s.Folders, size(s.Bytes), verb)
	}
	if len(r.Sums) == 0 {
		fmt.Fprintln(out, map[bool]string{true: "nothing was deleted", false: "nothing would be deleted"}[ask.Yes])
	}
	if ask.Remote && ask.Yes {
		fmt.Fprintf(out, "iDenfy was asked to delete %d sessions, and deleted %d\n", r.Sessions, r.Erased)
	} else if ask.Remote {
		fmt.Fprintf(out, "iDenfy would be asked to delete %d sessions\n", r.Sessions)
	}
	for _, t := range r.Held {
		fmt.Fprintf(out, "• %s: kept: %s\n", t.Name, t.Why)
	}
	for _, t := range r.Told {
		fmt.Fprintf(out, "✗ %s: %s\n", t.Name, t.Why)
	}
	if r.Unlisted > 0 {
		fmt.Fprintf(out, "… and %d more\n", r.Unlisted)
	}
	if !ask.Yes && len(r.Sums) > 0 {
		fmt.Fprintln(out, "repeat it with --yes to delete that")
	}
	return len(r.Told) == 0
}

// size is a number of bytes for people.
func size(n int64) string {
	for _, u := range []struct {
		name string
		of   int64
	}{{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if n >= u.of {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.of), u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
