package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/meta"
	"idenfy-batch/watcher"
)

func newValidate() *cobra.Command {
	c := &cobra.Command{
		Use:   "validate DIR...",
		Short: "Check folders as the daemon would, and send nothing",
		Long: `Validate makes the pre-flight checks on each folder: meta.yaml, the images and
the limits. It prints all that is wrong, and what the defaults of the configuration
fill in, and exits 1 if anything is wrong. The defaults are those of the inbox that
--inbox names, or that the folder lies in, else those of all.`,
		Example: "  idenfy-batch validate ./case-7",
		Args:    cobra.MinimumNArgs(1),
	}
	load, inbox := configFlag(c), inboxFlag(c)
	c.RunE = func(c *cobra.Command, dirs []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		good := true
		for _, dir := range dirs {
			d, err := defaultsFor(&cfg, *inbox, dir)
			if err != nil {
				return err
			}
			good = validate(c.OutOrStdout(), &cfg, dir, daemon.Limits(&cfg, d)) && good
		}
		if !good {
			return &exitError{code: exitFailed}
		}
		return nil
	}
	return c
}

// openDir opens a folder that the user named: as everywhere, without following
// a link in its last step.
func openDir(dir string) (*os.Root, string, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, "", err
	}
	parent, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, "", err
	}
	defer parent.Close()
	root, err := drop.Open(parent, filepath.Base(path))
	return root, filepath.Base(path), err
}

// inboxFlag has a command take the defaults of an inbox.
func inboxFlag(c *cobra.Command) *string {
	return c.Flags().String("inbox", "", "take the defaults of the inbox of that `name`")
}

// defaultsFor returns the defaults that hold for a folder: those of the inbox that
// is named, or that it lies in, else those of all.
func defaultsFor(cfg *config.Config, inbox, dir string) (config.Defaults, error) {
	path, err := filepath.Abs(dir)
	var names []string
	for _, i := range cfg.Drops() {
		if i.Name == inbox || inbox == "" && err == nil && filepath.Dir(path) == i.Path {
			return i.Defaults, nil
		}
		names = append(names, i.Name)
	}
	if inbox != "" {
		return config.Defaults{}, &exitError{code: exitUsage, err: fmt.Errorf("there is no inbox %q; the configuration has %s", inbox, strings.Join(names, ", "))}
	}
	return cfg.Defaults, nil
}

func validate(out io.Writer, cfg *config.Config, dir string, lim meta.Limits) bool {
	root, name, err := openDir(dir)
	if err != nil {
		fmt.Fprintf(out, "✗ %s: %v\n", meta.Show(dir), err)
		return false
	}
	defer root.Close()
	l, err := meta.List(root, lim)
	if err != nil {
		fmt.Fprintf(out, "✗ %s: %v\n", meta.Show(dir), err)
		return false
	}
	rep := meta.Inspect(root, name, l, lim, false)
	if rep.Complete() {
		fmt.Fprintf(out, "✓ %s: %s %s\n", meta.Show(dir), rep.Meta.Country, rep.Meta.DocumentType)
		for _, img := range rep.Images {
			size := fmt.Sprintf("%d bytes", img.File.Size)
			if img.Width > 0 {
				size += fmt.Sprintf(", %d×%d", img.Width, img.Height)
			}
			fmt.Fprintf(out, "    %-5s %s: %s, %s\n", img.Step, img.File.Name, img.Format, size)
		}
		if filled := byDefault(&rep); filled != "" {
			fmt.Fprintf(out, "    by default: %s\n", filled)
		}
		if quiet := watcher.Quiet(time.Duration(cfg.Completeness.Settle), &rep); rep.Doubtful && !rep.Proven {
			fmt.Fprintf(out, "    taken when it was quiet for %s: %s\n", quiet, whyLonger(&rep))
		}
		return true
	}
	fmt.Fprintf(out, "✗ %s\n", meta.Show(dir))
	for _, r := range slices.Concat(rep.Invalid, rep.Waits) {
		fmt.Fprintf(out, "    %s: %s\n", r.Code, r.Message)
	}
	if filled := byDefault(&rep); filled != "" {
		fmt.Fprintf(out, "    by default: %s\n", filled)
	}
	return false
}

// byDefault tells what the defaults have filled in.
func byDefault(rep *meta.Report) string {
	var parts []string
	for _, key := range rep.Filled {
		switch key {
		case "country":
			parts = append(parts, "country "+rep.Meta.Country)
		case "documentType":
			parts = append(parts, "documentType "+rep.Meta.DocumentType)
		case "clientId":
			parts = append(parts, "clientId "+meta.Show(rep.Meta.ClientID)+", the folder's name")
		case meta.Present:
			parts = append(parts, "no "+meta.Name+" is needed")
		default:
			parts = append(parts, key)
		}
	}
	return strings.Join(parts, "; ")
}

// whyLonger tells why a folder has to be quiet for longer than others.
func whyLonger(rep *meta.Report) string {
	if slices.Contains(rep.Filled, meta.Present) {
		return "there is no " + meta.Name + ", and one that is still to come would count"
	}
	return meta.Name + " has no line break at its end, and may have been cut off"
}
