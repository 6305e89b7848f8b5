package control

import (
	"errors"
	"os"
	"os/user"
	"strconv"
	"strings"

	"idenfy-batch/sidecar"
)

// Self is the person who runs this process, as the kernel knows it: no
// environment is believed. Ask before the process becomes another user.
func Self() sidecar.Person {
	p := sidecar.Person{UID: uint32(os.Getuid())}
	p.User = userName(p.UID)
	if e := uint32(os.Geteuid()); e != p.UID {
		p.EUID = &e
	}
	data, err := os.ReadFile("/proc/self/loginuid")
	if err != nil {
		return p // a kernel without audit
	}
	if login, err := parseLoginUID(string(data)); err == nil {
		p.LoginUID, p.Login = &login, userName(login)
	}
	return p
}

// unset is what the kernel has for a process that nobody logged in for: (uid_t)-1.
const unset = 4294967295

func parseLoginUID(text string) (uint32, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	if err == nil && n == unset {
		err = errors.New("nobody logged in")
	}
	return uint32(n), err
}

// userName is empty where the host knows none.
func userName(uid uint32) string {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return ""
	}
	return u.Username
}
