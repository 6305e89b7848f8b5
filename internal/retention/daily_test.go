package retention

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
)

// The pass is made once a day, at its hour, whatever becomes of the clock and of
// the daemon; by new rules not before the next such hour.
func TestDue(t *testing.T) {
	was := time.Local
	t.Cleanup(func() { time.Local = was })
	vilnius, err := time.LoadLocation("Europe/Vilnius")
	if err != nil {
		t.Skip("no zones here")
	}
	time.Local = vilnius
	rules, others := Rules{Done: 1825 * 24 * time.Hour}, Rules{Done: 18 * 24 * time.Hour}
	type look struct {
		at      string        // RFC 3339, or local time
		up      time.Duration // of the host, since the look before; 0: as much as the clock says
		rules   Rules
		hour    string
		due     bool
		restart bool // of the daemon, before it
	}
	for name, looks := range map[string][]look{
		"once a day": {
			{at: "2026-06-01 10:00", rules: rules}, {at: "2026-06-02 02:59", rules: rules}, {at: "2026-06-02 03:00", rules: rules, due: true},
			{at: "2026-06-02 03:01", rules: rules}, {at: "2026-06-02 23:59", rules: rules}, {at: "2026-06-03 03:05", rules: rules, due: true},
		},
		"set before the hour":    {{at: "2026-06-01 01:00", rules: rules}, {at: "2026-06-01 03:00", rules: rules, due: true}},
		"set after the hour":     {{at: "2026-06-01 03:01", rules: rules}, {at: "2026-06-01 23:00", rules: rules}, {at: "2026-06-02 03:00", rules: rules, due: true}},
		"other rules":            {{at: "2026-06-01 01:00", rules: rules}, {at: "2026-06-01 03:00", rules: rules, due: true}, {at: "2026-06-02 03:00", rules: others}, {at: "2026-06-02 04:00", rules: others}, {at: "2026-06-03 03:00", rules: others, due: true}},
		"other rules, restarted": {{at: "2026-06-01 01:00", rules: rules}, {at: "2026-06-05 12:00", rules: others, restart: true}, {at: "2026-06-06 03:00", rules: others, due: true}},
		"off":                    {{at: "2026-06-01 01:00"}, {at: "2026-06-01 03:00"}},
		"another hour":           {{at: "2026-06-01 01:00", rules: rules}, {at: "2026-06-01 12:00", rules: rules, hour: "22:30"}, {at: "2026-06-01 22:30", rules: rules, hour: "22:30", due: true}},
		"days were missed":       {{at: "2026-06-01 01:00", rules: rules}, {at: "2026-06-01 03:00", rules: rules, due: true}, {at: "2026-06-09 12:00", rules: rules, due: true, restart: true}, {at: "2026-06-09 12:01", rules: rules}},
		"the host slept":         {{at: "2026-06-01 01:00", rules: rules}, {at: "2026-06-04 12:00", rules: rules, due: true}},
		"an hour that is not":    {{at: "2026-03-28 12:00", rules: rules, hour: "03:30"}, {at: "2026-03-29 00:30", rules: rules, hour: "03:30"}, {at: "2026-03-29 05:00", rules: rules, hour: "03:30", due: true}, {at: "2026-03-29 06:00", rules: rules, hour: "03:30"}},
		"an hour that is twice":  {{at: "2026-10-24 12:00", rules: rules, hour: "03:30"}, {at: "2026-10-25T00:31:00Z", rules: rules, hour: "03:30", due: true}, {at: "2026-10-25T01:31:00Z", rules: rules, hour: "03:30"}},
		"the clock was set ahead": {
			{at: "2026-06-01 01:00", rules: rules}, {at: "2036-06-01 12:00", up: time.Minute, rules: rules}, {at: "2036-06-02 11:59", rules: rules},
			{at: "2036-06-02 12:30", rules: rules, due: true},
		},
		"the clock was set ahead and back": {{at: "2026-06-01 01:00", rules: rules}, {at: "2036-06-01 12:00", up: time.Minute, rules: rules}, {at: "2026-06-01 01:02", up: time.Minute, rules: rules}, {at: "2026-06-02 03:00", rules: rules, due: true}},
		"the clock was set back":           {{at: "2026-06-10 01:00", rules: rules}, {at: "2026-06-10 03:00", rules: rules, due: true}, {at: "2026-06-01 03:00", up: time.Minute, rules: rules, due: true}, {at: "2026-06-01 04:00", rules: rules}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j, err := journal.Create(journal.Where{Dir: filepath.Join(dir, "journal"), Mark: dir})
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			var up time.Duration
			fresh := func() *Daily {
				return &Daily{Keeper: &Keeper{Journal: j, Emit: func(events.Event) {}}, clock: clock{uptime: func() time.Duration { return up }}}
			}
			d := fresh()
			var before time.Time
			for _, l := range looks {
				at, err := time.ParseInLocation("2006-01-02 15:04", l.at, vilnius)
				if err != nil {
					if at, err = time.Parse(time.RFC3339, l.at); err != nil {
						t.Fatal(err)
					}
				}
				if l.up == 0 && !before.IsZero() {
					l.up = at.Sub(before)
				}
				up, before = up+l.up, at
				if l.restart {
					d = fresh()
				}
				if l.hour == "" {
					l.hour = "03:00"
				}
				day, due, err := d.due(context.Background(), l.rules, l.hour, at)
				if err != nil || due != l.due {
					t.Errorf("%s: due %v, %v", l.at, due, err)
				}
				if due {
					if err := j.Passed(day, l.rules.String()); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}
