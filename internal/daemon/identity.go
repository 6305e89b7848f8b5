package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/spool"
)

// Become makes root the daemon's user, the owner of work, so that what is
// written stays the daemon's to read and to move.
func Become(paths spool.Paths) error {
	info, err := os.Stat(paths[spool.Work])
	if err != nil {
		return fmt.Errorf("work: %w; start the daemon once, or correct root in the configuration", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || st.Uid == 0 {
		return nil
	}
	groups := []int{int(st.Gid)}
	if u, err := user.LookupId(strconv.FormatUint(uint64(st.Uid), 10)); err == nil {
		ids, _ := u.GroupIds() // then the directory's group has to do
		for _, id := range ids {
			if gid, err := strconv.Atoi(id); err == nil {
				groups = append(groups, gid)
			}
		}
	}
	err = errors.Join(syscall.Setgroups(groups), syscall.Setgid(int(st.Gid)), syscall.Setuid(int(st.Uid)))
	if err != nil {
		return fmt.Errorf("becoming the daemon's user: %w", err)
	}
	return nil
}

// BecomeGiver is Become of a process that has to give files away: give has that
// done, on a thread of its own that has kept the rights for it, and no others.
// A user who has none of them does what he can.
func BecomeGiver(paths spool.Paths) (give func(func() error) error, err error) {
	work, ready := make(chan func()), make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: nothing else is to run here
		ready <- unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
		for do := range work {
			do()
		}
	}()
	// What is permitted stays so on that thread, and is not in force (capabilities(7)).
	if err := errors.Join(<-ready, Become(paths)); err != nil {
		return nil, err
	}
	const keep = 1<<unix.CAP_CHOWN | 1<<unix.CAP_FOWNER
	return func(do func() error) error {
		done := make(chan error)
		work <- func() {
			head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			sets := [2]unix.CapUserData{{Effective: keep, Permitted: keep}}
			_ = unix.Capset(&head, &sets[0]) // refused to whoever has not got them
			done <- do()
		}
		return <-done
	}, nil
}
