package retention

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/events"
)

// Daily is the daemon's own pass: once a day, at a set hour of the host's zone, or
// as soon as the daemon runs again. When rules are set, or others, the first pass
// by them is at the next such hour, so that there is time to look (purge) and to
// take them back.
type Daily struct {
	Keeper *Keeper
	// Settings are the rules, and the hour (03:00).
	Settings func() (Rules, string)

	clock clock
}

// Times of the daily pass.
const (
	lookEvery = time.Minute
	again     = 10 * time.Minute // after a fault, and for what was cut off
	steady    = 24 * time.Hour   // that a clock which was set ahead is mistrusted
	leap      = 2 * time.Hour    // by which it was
)

// Run works until ctx ends: first, what was recorded before and cut off.
func (d *Daily) Run(ctx context.Context) {
	var finished time.Time
	for wait := time.Duration(0); ; wait = lookEvery {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if time.Since(finished) >= again {
			finished = time.Now()
			if err := d.Keeper.Finish(ctx); err != nil && ctx.Err() == nil {
				d.trouble("what is recorded as deleted could not be, which is tried again", err)
			}
		}
		rules, hour := d.Settings()
		day, due, err := d.due(ctx, rules, hour, time.Now())
		if err == nil && due {
			err = d.pass(ctx, rules, day)
		}
		if err != nil && ctx.Err() == nil {
			d.trouble("the daily deletion of old images could not be made, which is tried again", err)
			timer.Reset(again)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
		}
	}
}

func (d *Daily) trouble(what string, err error) {
	d.Keeper.Emit(events.Trouble{What: what, Err: err})
}

// pass makes the pass of a day.
func (d *Daily) pass(ctx context.Context, rules Rules, day string) error {
	begin := time.Now()
	var all Report
	for after := ""; ; {
		r, err := d.Keeper.Pass(ctx, Ask{Rules: rules, Yes: true, After: after})
		all.Add(r)
		if err != nil {
			return err
		}
		if after = r.Next; after == "" {
			break
		}
	}
	sum := all.Total()
	d.Keeper.Emit(events.PassEnded{Folders: sum.Folders, Bytes: sum.Bytes, Held: len(all.Held), Failed: len(all.Told) + all.Unlisted, Took: time.Since(begin)})
	return d.Keeper.Journal.Passed(day, rules.String())
}

// String tells rules from others.
func (r Rules) String() string {
	return fmt.Sprintf("done %s, failed %s, hold %s, verdicts %s", r.Done, r.Failed, r.Hold, r.Verdicts)
}

// due tells whether the pass of a day is to be made now.
func (d *Daily) due(ctx context.Context, rules Rules, hour string, now time.Time) (day string, due bool, err error) {
	mistrusted := d.clock.mistrusted(now)
	if !rules.Any() {
		return "", false, nil
	}
	// By what a clock on the wall shows: so an hour that is left out, or comes
	// twice, when summer begins or ends, makes no difference.
	day = now.Local().Format(time.DateOnly)
	early := now.Local().Format("15:04") < hour
	last, by, err := d.Keeper.Journal.LastPass(ctx)
	if err != nil {
		return "", false, err
	}
	if by != rules.String() { // from the next hour on
		first := day
		if early {
			first = "" // that is today's
		}
		return "", false, d.Keeper.Journal.Passed(first, rules.String())
	}
	if last == day || early {
		return "", false, nil
	}
	if mistrusted {
		if d.clock.tell() {
			d.trouble("nothing is deleted for a day, since the clock was set ahead: correct it, if it is wrong", fmt.Errorf("it is %s now", now.Local().Format(time.DateTime)))
		}
		return "", false, nil
	}
	return day, true, nil
}

// clock mistrusts a wall clock that was set ahead: what is deleted by it is gone.
type clock struct {
	uptime func() time.Duration // nil: that of the host, asleep or not
	wall   time.Time            // when it was looked at last
	up     time.Duration
	until  time.Duration // it is mistrusted
	told   bool
}

func (c *clock) mistrusted(now time.Time) bool {
	if c.uptime == nil {
		c.uptime = uptime
	}
	up, wall := c.uptime(), now.Round(0)
	if !c.wall.IsZero() && wall.Sub(c.wall)-(up-c.up) > leap {
		c.until, c.told = up+steady, false
	}
	c.wall, c.up = wall, up
	return up < c.until
}

// tell reports whether that is still to be told.
func (c *clock) tell() bool {
	was := c.told
	c.told = true
	return !was
}

// uptime is the time since the host began, also that in which it slept
// (clock_gettime(2), CLOCK_BOOTTIME).
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
