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
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

func newSubmit() *cobra.Command {
	c := &cobra.Command{
		Use:   "submit DIR...",
		Short: "Submit folders one by one, without the daemon",
		Long: `Submit checks each folder, submits it, and writes result.json into it; the
folder stays where it is. It exits 0 if all were accepted. What meta.yaml leaves
out is taken from the defaults of the configuration, with --inbox from those of
that inbox.

A folder that was accepted before is not sent again. One whose attempt got no
answer is settled first: with the same token, or by scanRef, like in the daemon.
Should the service fail, run it again later; it goes on where it was.

What was sent is remembered in $XDG_STATE_HOME/idenfy-batch, else in
~/.local/state/idenfy-batch, and for root in /var/lib/idenfy-batch. As root, or as
the daemon's user, it is entered in the journal of the configured spool as well,
and asked for there before: so the daemon and submit know what the other one
sent. What another user submits the daemon knows by its authToken only, which
iDenfy takes once; of a folder with a clientId it doesn't know.`,
		Example: "  idenfy-batch submit ./case-7",
		Args:    cobra.MinimumNArgs(1),
	}
	load, inbox := configFlag(c), inboxFlag(c)
	c.RunE = func(c *cobra.Command, dirs []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		own, err := defaultsFor(&cfg, *inbox, "")
		if err != nil {
			return err
		}
		return submitAll(c, &cfg, own.ForMeta(), dirs)
	}
	return c
}

func submitAll(c *cobra.Command, cfg *config.Config, own meta.Defaults, dirs []string) error {
	client, err := daemon.NewClient(cfg, versionText())
	if err != nil {
		return badConfig(err)
	}
	defer client.Close()
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	j, release, err := ownJournal()
	if err != nil {
		return failed(err)
	}
	defer release()
	set := daemon.BatchSettings(cfg, versionText(), client, batch.Limiter(0, 1, 0))
	set.Defaults = map[string]meta.Defaults{string(spool.Inbox): own}
	b := batch.New(set, nil, j, func(e events.Event) {
		if trouble, ok := e.(events.Trouble); ok {
			fmt.Fprintf(c.ErrOrStderr(), "idenfy-batch: %s: %v\n", trouble.What, trouble.Err)
		}
	})
	share, err := sharing(cfg)
	if err != nil {
		fmt.Fprintf(c.ErrOrStderr(), "idenfy-batch: %v\n", err)
	}
	b.Share(share)
	if dir, err := stateDir(); err != nil {
		return failed(err)
	} else if err := b.KeepTokens(ctx, dir); err != nil {
		return failed(err)
	}
	good := true
	for _, dir := range dirs {
		good = submit(ctx, c.OutOrStdout(), b, cfg, dir, share != nil) && good
	}
	if !good {
		return &exitError{code: exitFailed}
	}
	return nil
}

func submit(ctx context.Context, out io.Writer, b *batch.Batch, cfg *config.Config, dir string, shared bool) bool {
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
	other, err := inSpool(ctx, cfg, root, shared)
	if err != nil {
		fmt.Fprintf(out, "✗ %s: %v\n", shown, err)
		return false
	}
	if other != "" {
		fmt.Fprintf(out, "✗ %s: a folder with the same authToken, %s, is in the daemon's spool; it is not sent beside it\n", shown, meta.Show(other))
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

// sharing returns what tells the journal of the configured spool what is sent:
// through the daemon, or while none runs by itself. Without such a journal there
// is nothing to tell. The error is of a user who may not.
func sharing(cfg *config.Config) (batch.Shared, error) {
	exists, err := daemon.Journal(cfg).Exists()
	if err == nil && !exists {
		return nil, nil
	}
	if err == nil { // the daemon's alone, like its lock
		var work *os.File
		if work, err = os.Open(cfg.Spool()[spool.Work]); err == nil {
			_ = work.Close() // it was only tried
		}
	}
	if err != nil {
		return nil, fmt.Errorf("note: this user may not tell the spool in %s what is sent (%w); if the folder is dropped there later, it is known by its authToken only", cfg.Root, err)
	}
	return func(ctx context.Context, l *journal.Life) error {
		s := control.Submission{Result: l.Result, Fate: string(l.Fate), Dir: l.Dir, Prior: l.Prior, ClientID: l.ClientID, Content: l.Content}
		err := withDaemon(ctx, cfg,
			func(running *control.Client) error { return running.Submission(ctx, s) },
			func() error { return daemon.Outside(cfg, s) })
		if refused, ok := errors.AsType[*control.RefusedError](err); ok {
			return &batch.RefusedError{Why: refused.Why}
		}
		return err
	}, nil
}

// inSpool finds a folder with the same token that the daemon is to submit, or
// has submitted, where its journal isn't asked anyway (shared). What this user
// can't read is not looked at.
func inSpool(ctx context.Context, cfg *config.Config, root *os.Root, shared bool) (string, error) {
	m, err := meta.Read(root, meta.Defaults{})
	if err != nil {
		return "", nil //nolint:nilerr // it will be refused for that
	}
	var known []journal.Other
	if !shared {
		err := beside(ctx, cfg, func(r *journal.Reader) (err error) { known, err = r.WithToken(ctx, m.TokenSHA256()); return err })
		if err != nil {
			return "", fmt.Errorf("whether the daemon knows its authToken can't be told: the journal: %w; run it again later", err)
		}
	}
	for _, o := range known {
		if o.State != journal.Filed && o.State != journal.Away || o.Fate == journal.Taken || o.Fate == journal.Unsettled {
			return o.Where(), nil
		}
	}
	paths := cfg.Spool()
	for _, p := range paths.Inboxes() {
		names, _ := paths.List(p) // likewise
		for _, name := range names {
			dir, err := paths.OpenFolder(p, name)
			if err != nil {
				continue
			}
			other, err := meta.Read(dir, meta.Defaults{})
			_ = dir.Close() // it was read only
			if err == nil && m.AuthToken != "" && other.AuthToken == m.AuthToken {
				return string(p) + "/" + name, nil
			}
		}
	}
	return "", nil
}

// ownJournal opens the journal of this command, which is the user's: what was
// submitted without a daemon is remembered as well.
func ownJournal() (*journal.Journal, func(), error) {
	dir, err := stateDir()
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("what was submitted has to be remembered: %w", err)
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	err = spool.TryLock(lock)
	if errors.Is(err, spool.ErrLocked) {
		err = errors.New("another idenfy-batch submit is at work; run this again when it has ended")
	}
	var j *journal.Journal
	if err == nil {
		j, err = openOrCreate(journal.Where{Dir: dir, Mark: dir})
	}
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	return j, func() {
		_ = j.Close() // all is committed
		_ = lock.Close()
	}, nil
}

func openOrCreate(w journal.Where) (*journal.Journal, error) {
	exists, err := w.Exists()
	if err != nil {
		return nil, err
	}
	if exists {
		return journal.Open(w)
	}
	return journal.Create(w)
}

// stateDir is where a program keeps what it has to remember (XDG Base
// Directory Specification; for root, file-hierarchy(7)).
func stateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "idenfy-batch"), nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/idenfy-batch", nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "state", "idenfy-batch"), err
}
