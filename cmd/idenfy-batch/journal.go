package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/spool"
)

func newAdopt() *cobra.Command {
	c := &cobra.Command{
		Use:   "adopt",
		Short: "Make a new journal from the folders and their results",
		Long: `Adopt makes the daemon's journal anew: from all folders of the spool and their
result.json, and, with --backup, from a backup of the journal first. It is for a
journal that is missing, damaged, or older than it was, which the daemon refuses
to work with; stop the daemon before. What there was of a journal is kept beside
the new one; a sound and complete one is replaced with --force only. When it is cut
off, run it again.

What only the lost journal knew is lost: folders that were sent and have been
taken out of the spool since, and decisions to send again.`,
		Example: "  idenfy-batch adopt\n  idenfy-batch adopt --backup /var/backups/idenfy-batch.db",
		Args:    cobra.NoArgs,
	}
	load := configFlag(c)
	backup := c.Flags().String("backup", "", "begin with this backup of the journal (`file`)")
	force := c.Flags().Bool("force", false, "though the journal is sound and complete")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		if err := daemon.Become(cfg.Spool()); err != nil {
			return failed(err)
		}
		if f, err := os.Open(*backup); *backup != "" && err != nil {
			return failed(fmt.Errorf("the backup: %w; the daemon's user has to be able to read it, so put it where that is so, and chown it", err))
		} else if err == nil {
			_ = f.Close() // it was read only
		}
		lock, err := spool.Lock(cfg.Spool())
		if err != nil {
			return failed(err)
		}
		defer lock.Close()
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		out := c.OutOrStdout()
		told := func(int, int) {}
		if isTerminal(out) {
			told = func(done, total int) { fmt.Fprintf(out, "\r%d of %d folders", done, total) }
		}
		n := 0
		aside, unread, err := daemon.Adopt(ctx, daemon.Journal(&cfg), cfg.Spool(), *backup, *force, func(done, total int) { n = total; told(done, total) })
		if isTerminal(out) && n > 0 {
			fmt.Fprintln(out)
		}
		if aside != "" {
			fmt.Fprintf(out, "the journal that was there is kept as %s\n", aside)
		}
		if err != nil {
			return failed(err)
		}
		return adopted(out, n, unread)
	}
	return c
}

func adopted(out io.Writer, folders, unread int) error {
	fmt.Fprintf(out, "✓ a new journal was made from %d folders\n", folders-unread)
	if unread > 0 {
		return failed(fmt.Errorf("%d folders could not be read, and are not in it; run this as root or as the daemon's user", unread))
	}
	return nil
}

func newBackup() *cobra.Command {
	c := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the journal, also while the daemon works",
		Long: `Backup writes a consistent copy of the daemon's journal to a new file. Keep it
together with a copy of the spool; idenfy-batch adopt --backup brings it back.
The key of its ledger (journal/ledger.key) is not in it: keep that apart. Without
it a new one is made, and what was signed before is checked with the old one's
verifier key, which is in the ledger.`,
		Example: "  idenfy-batch backup /var/backups/idenfy-batch-$(date +%F).db",
		Args:    cobra.ExactArgs(1),
	}
	load := configFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		switch exists, err := daemon.Journal(&cfg).Exists(); {
		case err != nil:
			return failed(fmt.Errorf("%w; run this as root or as the daemon's user", err))
		case !exists:
			return failed(fmt.Errorf("there is no journal below %s yet; the first start of the daemon makes it", cfg.Root))
		}
		if err := journal.BackupFile(ctx, daemon.Journal(&cfg), args[0]); err != nil {
			return failed(fmt.Errorf("the journal was not copied: %w; run this as root or as the daemon's user", err))
		}
		if err := giveToDaemon(args[0], cfg.Spool()); err != nil {
			return failed(fmt.Errorf("the copy is whole, but root's: %w", err))
		}
		fmt.Fprintf(c.OutOrStdout(), "✓ the journal was copied to %s\n", args[0])
		return nil
	}
	return c
}

// giveToDaemon makes a file that root wrote the daemon's user's, who reads it
// when it is adopted.
func giveToDaemon(path string, paths spool.Paths) error {
	info, err := os.Stat(paths[spool.Work])
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return os.Lchown(path, int(st.Uid), int(st.Gid))
	}
	return nil
}
