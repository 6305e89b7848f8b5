package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

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
