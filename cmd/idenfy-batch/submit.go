package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"idenfy-batch/batch"
	"idenfy-batch/internal/config"
	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

func newSubmit() *cobra.Command {
	c := &cobra.Command{
		Use:   "submit DIR...",
		Short: "Submit folders one by one, without the daemon",
		Long: `Submit checks each folder, submits it, and writes result.json into it; the
folder stays where it is. It exits 0 if all were accepted.

A folder that was accepted before is not sent again. One whose attempt got no
answer is settled first: with the same token, or by scanRef, like in the daemon.
Should the service fail, run it again later; it goes on where it was.`,
		Example: "  idenfy-batch submit ./case-7",
		Args:    cobra.MinimumNArgs(1),
	}
	load := configFlag(c)
	c.RunE = func(c *cobra.Command, dirs []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		client, err := daemon.NewClient(&cfg, versionText())
		if err != nil {
			return badConfig(err)
		}
		defer client.Close()
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		b := batch.New(daemon.BatchSettings(&cfg, versionText(), client, batch.Limiter(0, 1, nil)), nil, nil)
		good := true
		for _, dir := range dirs {
			good = submit(ctx, c.OutOrStdout(), b, &cfg, dir) && good
		}
		if !good {
			return &exitError{code: exitFailed}
		}
		return nil
	}
	return c
}

func submit(ctx context.Context, out io.Writer, b *batch.Batch, cfg *config.Config, dir string) bool {
	shown := meta.Show(dir)
	path, err := filepath.Abs(dir)
	for _, p := range spool.Places() {
		if err == nil && filepath.Dir(path) == cfg.Spool()[p] {
			err = fmt.Errorf("it lies in the spool's %s, which is the daemon's to work on; copy it elsewhere", p)
		}
	}
	if err != nil {
		fmt.Fprintf(out, "✗ %s: %v\n", shown, err)
		return false
	}
	root, name, err := openDir(dir)
	if err != nil {
		fmt.Fprintf(out, "✗ %s: %v\n", shown, err)
		return false
	}
	defer root.Close()
	if place, other := inSpool(ctx, cfg.Spool(), root); place != "" {
		fmt.Fprintf(out, "✗ %s: a folder with the same authToken, %s/%s, is in the daemon's spool; it is not sent beside it\n", shown, place, meta.Show(other))
		return false
	}
	if isTerminal(out) {
		fmt.Fprintf(out, "… %s: submitting\r", shown)
	}
	begin := time.Now()
	res, err := b.Submit(ctx, root, name)
	var refused *batch.RefusedError
	switch {
	case errors.As(err, &refused):
		fmt.Fprintf(out, "✗ %s: %v\n", shown, err)
	case err != nil:
		fmt.Fprintf(out, "✗ %s: %v; run it again later\n", shown, err)
	case res.Outcome == sidecar.Accepted:
		fmt.Fprintf(out, "✓ %s: accepted in %s, see %s\n", shown, time.Since(begin).Round(time.Millisecond), filepath.Join(dir, sidecar.Name))
		return true
	default:
		fmt.Fprintf(out, "%s %s: %s\n", mark(res.Outcome), shown, res.Outcome)
		for _, r := range res.Reasons {
			fmt.Fprintf(out, "    %s: %s\n", r.Code, r.Message)
		}
	}
	return false
}

// inSpool finds a folder with the same token that the daemon is to submit, or
// has submitted. What this user can't read is not looked at.
func inSpool(ctx context.Context, paths spool.Paths, root *os.Root) (spool.Place, string) {
	m, err := meta.Read(root)
	if err != nil {
		return "", "" // it will be refused for that
	}
	for _, p := range []spool.Place{spool.Inbox, spool.Work, spool.Hold, spool.Done} {
		if name, err := batch.FindToken(ctx, paths[p], m.AuthToken); err == nil && name != "" {
			return p, name
		}
	}
	return "", ""
}
