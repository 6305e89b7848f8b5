// Command idenfy-batch takes folders dropped by scanners and SFTP users,
// submits each once to iDenfy's Direct Processing API, and moves it to done or
// failed with a result.json.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"idenfy-batch/internal/config"
)

// version is set when a release is built (-ldflags "-X main.version=1.2.3").
var version = ""

// The exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 78 // EX_CONFIG of sysexits.h(3head); systemd doesn't restart on it
)

// exitError is an error with the code to exit with.
type exitError struct {
	code int
	err  error // nil: it has been said already
}

func (e *exitError) Error() string { return fmt.Sprint(e.err) }

func failed(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitFailed, err}
}

func badConfig(err error) error { return &exitError{exitConfig, err} }

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process around it.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	var coded *exitError
	if !errors.As(err, &coded) {
		fmt.Fprintf(stderr, "idenfy-batch: %v\nSee 'idenfy-batch help'.\n", err)
		return exitUsage
	}
	if coded.err != nil {
		for line := range strings.Lines(coded.err.Error()) {
			fmt.Fprintf(stderr, "idenfy-batch: %s\n", strings.TrimSuffix(line, "\n"))
		}
	}
	return coded.code
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "idenfy-batch",
		Short: "Submit dropped folders to iDenfy's Direct Processing API, each once",
		Long: `idenfy-batch watches an inbox for folders with a meta.yaml and the images of an
identity document and a face. When a folder is complete it is submitted to
iDenfy's Direct Processing API, once, and moved to done/ or failed/ with a
result.json that says what happened.

Try it without any set-up:  idenfy-batch demo`,
		Example:       "  idenfy-batch demo\n  idenfy-batch run --config /etc/idenfy-batch/config.yaml\n  idenfy-batch status",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.AddCommand(newDemo(), newRun(), newCheck(), newSubmit(), newValidate(), newStatus(), newList(), newShow(), newReport(), newReload(), newPartner(), newRequeue(), newResolve(), newPurge(), newAdopt(), newBackup(), newLedger(), newSandbox(), newVersion())
	instanceFlag(root)
	root.InitDefaultCompletionCmd()
	return root
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  idenfy-batch version",
		Args:    cobra.NoArgs,
		Run:     func(c *cobra.Command, _ []string) { fmt.Fprintln(c.OutOrStdout(), "idenfy-batch", versionText()) },
	}
}

// versionText is the release, or what the build knows of its commit.
func versionText() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "development"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "development-" + s.Value[:12]
		}
	}
	return "development"
}

// Where the package has its configuration. A variable for the tests.
var configDir = "/etc/idenfy-batch"

// defaultConfig is read when no --config is given and it exists.
const defaultConfig = "/etc/idenfy-batch/config.yaml"

// instanceName is what the names of users and groups leave room for, see
// sysusers.d(5).
var instanceName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,17}$`)

// instanceFlag adds --instance to all commands.
func instanceFlag(root *cobra.Command) {
	name := root.PersistentFlags().String("instance", "", "`name` of an instance (idenfy-batch@NAME.service); short for --config "+configDir+"/NAME.yaml")
	_ = root.RegisterFlagCompletionFunc("instance", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return instances(), cobra.ShellCompDirectiveNoFileComp
	}) // the flag is there
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		if !c.Flags().Changed("instance") {
			return nil
		}
		config := c.Flags().Lookup("config")
		switch {
		case config == nil:
			return fmt.Errorf("--instance: %s reads no configuration", c.CommandPath())
		case config.Changed:
			return errors.New("--instance is short for a --config; give one of them")
		case !isInstance(*name):
			return fmt.Errorf("--instance: %q is no name of an instance; that has up to 18 of a-z, 0-9 and -, and is not config", *name)
		}
		return config.Value.Set(filepath.Join(configDir, *name+".yaml"))
	}
}

// instances lists those that have a configuration.
func instances() (names []string) {
	files, _ := filepath.Glob(filepath.Join(configDir, "*.yaml")) // the pattern is good
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".yaml"); isInstance(name) {
			names = append(names, name)
		}
	}
	return names
}

// isInstance reports whether name may be an instance's. config.yaml is of the
// service that has no name.
func isInstance(name string) bool {
	return name != "config" && instanceName.MatchString(name)
}

// loader loads the configuration that a command is given.
type loader func() (config.Config, error)

// configFlag adds --config to a command, and returns what loads it.
func configFlag(c *cobra.Command) loader {
	path := c.Flags().StringP("config", "c", "", "configuration `file` (default "+defaultConfig+", if it exists)")
	return func() (config.Config, error) {
		p := *path
		if p == "" {
			if _, err := os.Stat(defaultConfig); err == nil {
				p = defaultConfig
			}
		}
		cfg, err := config.Load(p)
		if err != nil {
			return cfg, badConfig(err)
		}
		return cfg, nil
	}
}
