package spool

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// rights are the capabilities that the daemon makes use of, and what it can't
// do without each.
var rights = []struct {
	bit  uint
	name string
	lack string
}{
	{unix.CAP_CHOWN, "CAP_CHOWN", "what was uploaded stays its uploader's in done/, failed/ and hold/: the uploader's group can alter it there"},
	{unix.CAP_FOWNER, "CAP_FOWNER", "modes are not mended: a folder that sftp's put -r or cp -r made without g+rwx waits for a chmod, and what is sealed keeps its modes"},
	{unix.CAP_LEASE, "CAP_LEASE", "whether an uploader still has a file open can't be seen: an unfinished upload is told by its content only"},
}

// Lacks returns what a process can't do for lack of rights, by name, each with
// what follows from it; pid 0 is this process.
func Lacks(pid int) (list []string, err error) {
	who := "self"
	if pid != 0 {
		who = strconv.Itoa(pid)
	}
	data, err := os.ReadFile("/proc/" + who + "/status")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		value, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		has, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return nil, err
		}
		for _, r := range rights {
			if has>>r.bit&1 == 0 {
				list = append(list, r.name+" is missing: "+r.lack)
			}
		}
		return list, nil
	}
	return nil, fmt.Errorf("/proc/%s/status tells of no capabilities", who)
}
