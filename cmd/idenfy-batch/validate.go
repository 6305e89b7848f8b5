package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/meta"
)

func newValidate() *cobra.Command {
	c := &cobra.Command{
		Use:   "validate DIR...",
		Short: "Check folders as the daemon would, and send nothing",
		Long: `Validate makes the pre-flight checks on each folder: meta.yaml, the images and
the limits. It prints all that is wrong, and exits 1 if anything is.`,
		Example: "  idenfy-batch validate ./case-7",
		Args:    cobra.MinimumNArgs(1),
	}
	load := configFlag(c)
	c.RunE = func(c *cobra.Command, dirs []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		good := true
		for _, dir := range dirs {
			good = validate(c.OutOrStdout(), dir, daemon.Limits(&cfg)) && good
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

func validate(out io.Writer, dir string, lim meta.Limits) bool {
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
		return true
	}
	fmt.Fprintf(out, "✗ %s\n", meta.Show(dir))
	for _, r := range slices.Concat(rep.Invalid, rep.Waits) {
		fmt.Fprintf(out, "    %s: %s\n", r.Code, r.Message)
	}
	return false
}
