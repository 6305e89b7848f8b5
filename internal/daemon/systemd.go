package daemon

import (
	"context"
	"fmt"
	"os"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"idenfy-batch/internal/events"
)

// notify tells systemd, if it is there to be told.
func (d *daemon) notify(state string) {
	if !d.o.Service {
		return
	}
	if _, err := sd.SdNotify(false, state); err != nil {
		d.emit(events.Trouble{What: "systemd could not be told", Err: err})
	}
}

// longestOpen bounds how long systemd is asked to wait for the journal.
const longestOpen = 2 * time.Hour

// extend tells systemd that a start needs more time (sd_notify(3)), until ctx
// ends: a large journal is upgraded, or read for the first time, or a spool is
// adopted.
func (d *daemon) extend(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, longestOpen)
	defer cancel()
	tick := time.NewTicker(20 * time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		d.notify("EXTEND_TIMEOUT_USEC=60000000")
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// reloading is what systemd is told before a reload (sd_notify(3)).
func reloading() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return sd.SdNotifyReloading
	}
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", sd.SdNotifyReloading, now.Nano()/1000)
}

// tellStatus keeps the line that systemctl status shows up to date, until ctx
// ends.
func (d *daemon) tellStatus(ctx context.Context) {
	if !d.o.Service || os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for told := ""; ; {
		if s := d.state.Summary(); s != told {
			told = s
			d.notify("STATUS=" + s)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// feedWatchdog tells systemd's watchdog that the loop which submits is alive,
// until ctx ends. It looks at that loop's own signs of progress, so that a
// hang there shows.
func (d *daemon) feedWatchdog(ctx context.Context) {
	interval, err := sd.SdWatchdogEnabled(false)
	if !d.o.Service || err != nil || interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if d.state.Alive() < interval/2+10*time.Second {
				d.notify(sd.SdNotifyWatchdog)
			}
		}
	}
}
