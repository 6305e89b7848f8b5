package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"idenfy-batch/internal/control"
)

func newReload() *cobra.Command {
	c := &cobra.Command{
		Use:   "reload",
		Short: "Bring a changed configuration into force",
		Long: `Reload has the running daemon read its configuration and the key files again,
while all goes on: what is in flight ends under the old settings. It exits 0 when
the new configuration is in force, and 1 with the reason when it is refused, and
the old one stays as it was, or when no daemon runs.

The daemon reads the file that it was started with; the one that is given here
says where the daemon is. root and paths take a restart, and so do credentials of
systemd.`,
		Example: "  sudo idenfy-batch reload\n  sudo systemctl reload idenfy-batch   # does the same",
		Args:    cobra.NoArgs,
	}
	load := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, wrong := load() // the daemon says so if it reads the same
		running, err := control.Dial(cfg.Root)
		if err != nil {
			return failed(errors.Join(err, wrong))
		}
		defer running.Close()
		note, err := running.Reload(c.Context())
		var refused *control.RefusedError
		switch {
		case errors.As(err, &refused):
			return failed(fmt.Errorf("%w\nThe new configuration is refused; the old one stays in force", err))
		case err != nil:
			return failed(err)
		}
		fmt.Fprintln(c.OutOrStdout(), "✓ the new configuration is in force")
		if note != "" {
			fmt.Fprintln(c.OutOrStdout(), "  "+note)
		}
		return nil
	}
	return c
}
