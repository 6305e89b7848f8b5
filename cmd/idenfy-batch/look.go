package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/journal"
)

// lookInto opens what list and show read.
func lookInto(ctx context.Context, cfg *config.Config) (control.Reader, func(), error) {
	r, end, err := daemon.Read(ctx, cfg)
	switch {
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("the journal can't be read: %w; run this as root, as the daemon's user, or as a member of the journal's group, and if the daemon was never started since its last upgrade, start it", err)
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("there is no journal below %s yet; the first start of the daemon makes it", cfg.Root)
	}
	return r, end, failed(err)
}

// beside has f read the journal's files, beside a daemon and without one. Where
// there is none, or this user may not read it, f isn't called.
func beside(ctx context.Context, cfg *config.Config, f func(*journal.Reader) error) error {
	r, err := journal.OpenReader(ctx, daemon.Journal(cfg))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f(r), r.Close())
}

// clock is how times are shown to people.
func clock(t time.Time) string {
	if t.IsZero() {
		return "?" // a folder of before the journal may not tell
	}
	return t.Local().Format(time.DateTime)
}

// when reads a time: RFC 3339, a date of this machine's zone, or how long ago.
// Of a date it is the beginning, or with end that of the day after.
func when(text string, end bool) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, text, time.Local); err == nil {
		if end {
			t = t.AddDate(0, 0, 1)
		}
		return t, nil
	}
	if n, err := strconv.Atoi(strings.TrimSuffix(text, "d")); err == nil && n >= 0 && strings.HasSuffix(text, "d") {
		return time.Now().Add(-time.Duration(n) * 24 * time.Hour), nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is no time; give a date (2026-01-31), RFC 3339 (2026-01-31T12:00:00Z), or how long ago (90m, 24h, 7d)", text)
}
