package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/telemetry"
)

func newCheck() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Check configuration, directories, credentials and connection",
		Long: `Check reports every problem at once, each with its mend. It asks iDenfy for the
status of a session that does not exist, which shows whether the service can be
reached and the credentials are taken; nothing is sent for processing. It also
tells whether a running daemon is paused, and what mends that. What the daemon
can't do for lack of rights is said too, and is no failure.

As root it has systemd run the check as it runs the installed service: as its
user, with its credentials, in its sandbox, by the unit and its drop-ins. Without
systemd, with a configuration of no installed service, or with --here, it checks
as the user that runs it, with the rights and the environment of that: make that
the user that the daemon runs as. It exits 78 if the configuration is wrong, 1 if
anything else is.`,
		Example: "  sudo idenfy-batch check\n  sudo idenfy-batch --instance acme check\n  sudo -u scans idenfy-batch check --config /home/scans/idenfy.yaml   # where it is not the package's",
		Args:    cobra.NoArgs,
	}
	load := configFlag(c)
	here := c.Flags().Bool("here", false, "check as this user, and not as the service")
	c.RunE = func(c *cobra.Command, _ []string) error {
		out := c.OutOrStdout()
		if path := c.Flags().Lookup("config").Value.String(); !*here && os.Geteuid() == 0 {
			if s, ok := theService(c.Context(), path); ok {
				return s.check(c.Context(), out, c.ErrOrStderr())
			}
		}
		cfg, err := load()
		if coded, ok := errors.AsType[*exitError](err); ok {
			say(out, "configuration", coded.err)
			return &exitError{code: exitConfig}
		}
		say(out, "configuration", nil)
		good := say(out, "spool "+cfg.Root, spool.Check(cfg.Spool()))
		good = checkInboxes(out, &cfg) && good
		if slices.ContainsFunc(cfg.Drops(), func(in config.Inbox) bool { return in.Receipts != "" }) {
			good = say(out, "receipts", daemon.CheckReceipts(&cfg)) && good
		}
		good = checkGates(c.Context(), out, &cfg) && good
		tellRights(out, &cfg)
		good = say(out, "key of the ledger", daemon.CheckLedgerKey(&cfg)) && good
		good = say(out, "receiver of webhooks", daemon.CheckReceiver(&cfg)) && good
		client, err := daemon.NewClient(&cfg, versionText())
		if !say(out, "credentials", err) {
			return &exitError{code: exitFailed}
		}
		good = say(out, "connection to "+cfg.API.BaseURL, checkAPI(c.Context(), client)) && good
		if !good {
			return &exitError{code: exitFailed}
		}
		return nil
	}
	return c
}

// say prints how one check ended.
func say(out io.Writer, what string, err error) bool {
	if err == nil {
		fmt.Fprintf(out, "✓ %s\n", what)
		return true
	}
	fmt.Fprintf(out, "✗ %s\n", what)
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(out, "    %s\n", strings.TrimSuffix(line, "\n"))
	}
	return false
}

// tellRights says what the daemon can't do for lack of rights. It works
// without, so that is no failure.
func tellRights(out io.Writer, cfg *config.Config) {
	pid, whose := 0, "a daemon that is run by hand as this user; the packaged service has them"
	if c, err := control.Dial(cfg.Root); err == nil {
		pid, whose = c.PID(), "the running daemon; give it AmbientCapabilities= and CapabilityBoundingSet= as the packaged unit has them"
		c.Close()
	}
	lacks, err := spool.Lacks(pid)
	if err != nil {
		fmt.Fprintf(out, "! rights of the daemon: can't be told: %v\n", err)
		return
	}
	if len(lacks) == 0 {
		say(out, "rights to seal what was uploaded, and to mend modes", nil)
		return
	}
	fmt.Fprintf(out, "! rights of %s\n", whose)
	for _, l := range lacks {
		fmt.Fprintf(out, "    %s\n", l)
	}
}

// checkInboxes names the folders that the daemon could not take.
func checkInboxes(out io.Writer, cfg *config.Config) bool {
	good := true
	for _, in := range cfg.Drops() {
		var errs []error
		if _, err := os.Stat(in.Path); err != nil {
			continue // said with the spool
		}
		for _, w := range readInbox(cfg, &in) {
			for _, reason := range w.WaitsFor {
				if strings.Contains(reason, "chmod") {
					errs = append(errs, fmt.Errorf("%s: %s", w.Folder, reason))
				}
			}
		}
		what := (&telemetry.Inbox{Name: in.Name}).Called()
		good = say(out, "folders in "+what+" can be read and moved", errors.Join(errs...)) && good
	}
	if u := readUnwatched(cfg); u != nil {
		fmt.Fprintf(out, "! %s is not watched\n    %d folders lie there, and inboxes in the configuration took its place; move them to one of these (mv), or add it to the list\n", u.Path, u.Folders)
	}
	return good
}

// checkGates tells whether a running daemon is paused, and what mends it.
func checkGates(ctx context.Context, out io.Writer, cfg *config.Config) bool {
	s, err := readState(ctx, cfg)
	if s == nil || err != nil {
		return true // none runs, or it can't be asked, which is said with the spool
	}
	var errs []error
	for _, g := range s.Gates {
		errs = append(errs, fmt.Errorf("paused because of the %s since %s: %s; %s", g.Owner, g.Since.Local().Format(time.DateTime), meta.Show(g.Reason), meta.Show(g.Mend)))
	}
	for i := range s.Inboxes {
		if in := &s.Inboxes[i]; in.Trouble != nil {
			errs = append(errs, fmt.Errorf("nothing can be taken from %s since %s: %s", in.Called(), in.Trouble.Since.Local().Format(time.DateTime), meta.Show(in.Trouble.Reason)))
		}
	}
	return say(out, "the running daemon is not paused", errors.Join(errs...))
}

// noSession is a reference that iDenfy never gives.
const noSession = "00000000-0000-0000-0000-000000000000"

// checkAPI tells whether the service can be reached and takes the credentials.
func checkAPI(ctx context.Context, client *idenfy.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	_, _, err := client.Status(ctx, noSession)
	var apiErr *idenfy.Error
	if !errors.As(err, &apiErr) || apiErr.Class == idenfy.Rejected {
		return nil // it knows us, and knows no such session
	}
	switch {
	case apiErr.Status == 401 || apiErr.Status == 403:
		return fmt.Errorf("%w; see that key and secret belong together and to this environment, and that iDenfy has enabled Direct Processing for the account", apiErr)
	case apiErr.Class == idenfy.NotSent:
		return fmt.Errorf("%w; see to the network, DNS, HTTPS_PROXY and api.base_url", apiErr)
	default:
		return apiErr
	}
}
