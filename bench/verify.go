package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// verify: ledger verify of all that the daemon has filed, images included,
// beside sha256sum over the same files in the same run.
func (b *bench) verify() error {
	n := b.pick(10_000, 300)
	const size = 100_000
	fmt.Printf("verify: %d folders of three images of %d bytes\n", n, size)
	root, err := b.spool("verify")
	if err != nil {
		return err
	}
	if err := fill(root, n, size, map[string][]byte{".ready": nil}); err != nil {
		return err
	}
	url, stop, err := serve(&sink{})
	if err != nil {
		return err
	}
	defer stop()
	if _, _, err := b.drain(root, url, n); err != nil {
		return err
	}
	list, err := files(filepath.Join(root, "done"))
	if err != nil {
		return err
	}
	var over error
	for _, cold := range []bool{true, false} {
		how, rounds := "warm", 3
		if cold {
			how, rounds = "cold", 2
			if dropCaches() != nil {
				fmt.Println("  with a cold cache: only root can drop it")
				continue
			}
		}
		ratio, err := b.verifyBeside(root, list, cold, how, rounds)
		if err != nil {
			return err
		}
		if over = errors.Join(over, within("verify to sha256sum, "+how, ratio, 2, "times")); b.quick {
			over = nil // it is a time, and most of it that of the program's start
		}
	}
	return over
}

// verifyBeside runs both by turns, and returns the median of their ratios.
func (b *bench) verifyBeside(root string, list []byte, cold bool, how string, rounds int) (float64, error) {
	var ratios, sums, verifies []float64
	var peak float64
	run := func(name string, in []byte, args ...string) (float64, string, error) {
		if cold {
			if err := dropCaches(); err != nil {
				return 0, "", err
			}
		}
		c := exec.Command(name, args...)
		var out strings.Builder
		c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(in), &out, os.Stderr
		begin := time.Now()
		if err := c.Start(); err != nil {
			return 0, "", err
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		for {
			select {
			case err := <-ended:
				return time.Since(begin).Seconds(), out.String(), err
			case <-time.After(20 * time.Millisecond): // getrusage(2) would tell of this process, which it was before it was executed
				if now, err := (&daemon{cmd: c}).peak(); err == nil && name == b.bin {
					peak = max(peak, now)
				}
			}
		}
	}
	for range rounds {
		sum, _, err := run("xargs", list, "-0", "sha256sum")
		if err != nil {
			return 0, err
		}
		took, out, err := run(b.bin, nil, "ledger", "verify", "--config", root+".yaml")
		if err != nil || !regexp.MustCompile(`(?m)^✓ nothing was altered: `).MatchString(out) {
			return 0, fmt.Errorf("ledger verify: %w, %s", err, out)
		}
		sums, verifies, ratios = append(sums, sum), append(verifies, took), append(ratios, took/sum)
	}
	fmt.Printf("  %-46s %8.2f s for %d files\n  %-46s %8.2f s, %.1f MiB at most\n", "sha256sum, "+how, median(sums), bytes.Count(list, []byte{0}),
		"ledger verify, "+how, median(verifies), peak)
	return median(ratios), nil
}

// files returns the paths of all files below a directory, each with a zero byte
// at its end.
func files(dir string) ([]byte, error) {
	var list strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			list.WriteString(path + "\x00")
		}
		return err
	})
	return []byte(list.String()), err
}
