package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/partner"
	"idenfy-batch/internal/spool"
)

func newPartner() *cobra.Command {
	c := &cobra.Command{
		Use:   "partner",
		Short: "Add and remove those who upload, each with an inbox of his own",
		Long: `Partner gives each of those who upload a directory of his own below the root,
partners/NAME, with an inbox and receipts, and an account that gets into that and
nothing else. See /usr/share/doc/idenfy-batch/docs, sftp.md and smb.md.`,
		Example: "  sudo idenfy-batch partner add branch-1 --key branch-1.pub\n  sudo idenfy-batch partner remove branch-1",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newPartnerAdd(), newPartnerRemove())
	return c
}

func newPartnerAdd() *cobra.Command {
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a partner: account, directories, and his inbox in the configuration",
		Long: `Add makes the account NAME, which can't log in but by SFTP with the key that is
given here, or by Samba with a password of its own; the directories
partners/NAME/inbox, where he uploads, and partners/NAME/receipts, where he reads
what became of it; and an entry in the configuration, which a running daemon reads
at once. The first partner's entry leaves the inbox below root in the list, so
that who uses it goes on. Comments in the configuration stay.

It may be given again: what is there stays, and a key that is given takes the
place of the one before. Where something fails, what was done until then stays,
too.`,
		Example: `  sudo idenfy-batch partner add branch-1 --key branch-1.pub
  sudo idenfy-batch partner add scanner-2 --meta optional --client-id folder --country LT --document-type ID_CARD
  sudo idenfy-batch partner add branch-3 --account sftpgo   # an account that is there already uploads for him`,
		Args: cobra.ExactArgs(1),
	}
	load := configFlag(c)
	key := c.Flags().String("key", "", "`file` with his public key, or several, one a line")
	account := c.Flags().String("account", "", "`name` of an account that is there already, in place of one of his own")
	defaults := [][2]string{{"country", "country"}, {"document-type", "documentType"}, {"client-id", "clientId"}, {"meta", "meta"}}
	for _, d := range defaults {
		c.Flags().String(d[0], "", "`value` of "+d[1]+" in the defaults of his inbox, see idenfy-batch.yaml(5)")
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		p := partner.Partner{Name: args[0], Account: *account}
		for _, d := range defaults {
			if v := c.Flags().Lookup(d[0]).Value.String(); v != "" {
				p.Defaults = append(p.Defaults, [2]string{d[1], v})
			}
		}
		h, err := thisHost(c, load)
		if err == nil && *key != "" {
			p.Keys, err = os.ReadFile(*key)
			err = failed(err)
		}
		if err != nil {
			return err
		}
		return failed(h.Add(c.Context(), p))
	}
	return c
}

func newPartnerRemove() *cobra.Command {
	c := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a partner, once none of his folders is on its way",
		Long: `Remove takes away what add gave: key, account, inbox, receipts, and the entry in
the configuration, which a running daemon reads at once. While folders or files lie
in his inbox, or folders of his are in work, it changes nothing, and says so. What
has ended stays in done, failed and hold, with the name of the inbox in its result.

It may be given again after whatever stopped it.`,
		Example: "  sudo idenfy-batch partner remove branch-1",
		Args:    cobra.ExactArgs(1),
	}
	load := configFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		h, err := thisHost(c, load)
		if err != nil {
			return err
		}
		return failed(h.Remove(c.Context(), args[0]))
	}
	return c
}

// thisHost is the machine, with the configuration that the command is given.
func thisHost(c *cobra.Command, load loader) (*partner.Host, error) {
	if os.Geteuid() != 0 {
		return nil, failed(errors.New("only root can do this: it changes accounts and directories"))
	}
	path := c.Flags().Lookup("config").Value.String()
	if path == "" {
		path = defaultConfig
	}
	cfg, err := load()
	if err != nil {
		return nil, err
	}
	h := partner.System(path)
	h.Say = func(format string, args ...any) { tell(c.OutOrStdout(), fmt.Sprintf(format, args...)) }
	h.Reload = func(ctx context.Context) (string, error) {
		running, err := control.Dial(cfg.Root)
		if errors.Is(err, control.ErrNoDaemon) {
			return "no daemon runs; it reads the configuration when it is started", nil
		}
		if err != nil {
			return "", err
		}
		defer running.Close()
		_, err = running.Reload(ctx)
		return "the running daemon has read the configuration", err
	}
	h.Busy = func(ctx context.Context, inbox string) (int, error) { return inWork(ctx, &cfg, inbox) }
	return &h, nil
}

// inWork says how many folders of an inbox are in work.
func inWork(ctx context.Context, cfg *config.Config, inbox string) (int, error) {
	n := 0
	err := beside(ctx, cfg, func(r *journal.Reader) error {
		list, err := r.List(ctx, journal.Query{Place: string(spool.Work), Inbox: inbox, Brief: true, Most: aPage})
		n = len(list)
		return err
	})
	return n, err
}

func tell(out io.Writer, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(out, "✓ %s\n", strings.TrimSuffix(line, "\n"))
	}
}
