package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"idenfy-batch/internal/journal"
)

// A report that can't be made leaves the one before, and nothing that is half of
// one.
func TestReportFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "january.html")
	for _, c := range []struct {
		name, writes string
		failure      error
		left         string
	}{
		{"nothing was written", "", errors.New("no journal"), "the one before"},
		{"nothing left the buffer", "new", errors.New("no journal"), "the one before"},
		{"a part was written", strings.Repeat("x", 10_000), errors.New("the journal ended"), ""},
		{"all was written", "new", nil, "new"},
	} {
		if err := os.WriteFile(path, []byte("the one before"), 0o600); err != nil {
			t.Fatal(err)
		}
		o, err := create(nil, path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = o.WriteString(c.writes)
		if err = errors.Join(err, o.close(c.failure)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != c.left {
			t.Errorf("%s: left %.20q, %v", c.name, data, err)
		}
	}
}

func TestReportIntoOneFile(t *testing.T) {
	c := newReport()
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs([]string{"--html", "a", "--csv", "a"})
	if err := c.Execute(); err == nil || !strings.Contains(err.Error(), "the same file") {
		t.Error(err)
	}
}

// Nobody asks for a page any more when what takes them has failed.
func TestEachEnds(t *testing.T) {
	var asking, asked atomic.Int32
	fails := errors.New("disk full")
	ask := func(ctx context.Context, _ journal.Span) ([]int, error) {
		asking.Add(1)
		defer asking.Add(-1)
		if asked.Add(1) == 1 {
			return []int{1}, nil
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	err := each(t.Context(), ask, journal.Span{Most: 1}, func(*int) error {
		for asked.Load() < 2 { // it reads ahead
			select {
			case <-t.Context().Done():
				return t.Context().Err()
			default:
			}
		}
		return fails
	}, func(*int) *journal.Cursor { return nil })
	if !errors.Is(err, fails) || asking.Load() != 0 {
		t.Errorf("%v, and %d are still asking", err, asking.Load())
	}
}
