package batch

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/spool"
)

// Each fault is told in words that a person can follow, and with no text, nor
// a name of a file, that somebody else wrote.
func TestFaultsInWords(t *testing.T) {
	const private = "PRIVATE"
	v := &visit{set: &Settings{API: idenfy.New(idenfy.Options{BaseURL: "https://ivs.example"})}}
	answer := func(status int, identifier string, c idenfy.Class) *idenfy.Error {
		return &idenfy.Error{Class: c, Status: status, Identifier: identifier, Message: private}
	}
	cut := func(err error) *idenfy.Error {
		return &idenfy.Error{Class: idenfy.NotSent, Message: private, Err: fmt.Errorf("%s: %w", private, err)}
	}
	asks := answer(429, "TOO_MANY_REQUESTS", idenfy.ServiceFault)
	asks.RetryAfter = time.Minute
	credits := answer(400, "PERMISSIONS_ERROR", idenfy.ServiceFault)
	credits.Message = "Partner reached token limit."
	for _, c := range []struct {
		err          *idenfy.Error
		reason, mend string
	}{
		{answer(401, "UNAUTHORIZED", idenfy.ServiceFault), "iDenfy refuses the key: HTTP 401, UNAUTHORIZED", "API key and secret"},
		{answer(403, "", idenfy.ServiceFault), "HTTP 403, not in iDenfy's own words", "firewall"},
		{answer(403, "PERMISSIONS_ERROR", idenfy.ServiceFault), "doesn't let this account", "contract"},
		{answer(400, "PARTNER_CONTRACT_ERROR", idenfy.ServiceFault), "doesn't let this account", "contract"},
		{credits, "no credits left", "buy credits"},
		{answer(404, "", idenfy.ServiceFault), "HTTP 404", "api.base_url"},
		{answer(407, "", idenfy.ServiceFault), "the proxy wants other credentials", "HTTPS_PROXY"},
		{answer(302, "", idenfy.ServiceFault), "sends requests elsewhere", "api.base_url"},
		{asks, "asks to wait until " + time.Now().Add(time.Minute).Format("2006"), "rate"},
		{answer(503, "", idenfy.ServerError), "iDenfy has trouble: HTTP 503", "it passes"},
		{cut(&net.DNSError{Name: private, IsNotFound: true}), "the name ivs.example can't be resolved", "DNS"},
		{cut(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}), "ivs.example refuses the connection", "firewall"},
		{cut(&net.OpError{Op: "proxyconnect", Err: syscall.ECONNREFUSED}), "the proxy can't be reached", "HTTPS_PROXY"},
		{cut(x509.UnknownAuthorityError{}), "its certificate is of an unknown authority", "api.ca_file"},
		{cut(x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}), "has expired", "clock"},
		{cut(idenfy.ErrNoProgress), "no progress", "network"},
		{cut(errors.New("x")), "broke the exchange off", "network"},
	} {
		f := v.faultOf(c.err, account, false)
		if !strings.Contains(f.reason, c.reason) || !strings.Contains(f.mend, c.mend) {
			t.Errorf("%v: %q, mend %q; want %q and %q", c.err, f.reason, f.mend, c.reason, c.mend)
		}
		if strings.Contains(f.reason+f.mend, private) || strings.Contains(f.reason+f.mend, "result.json") {
			t.Errorf("%q, mend %q", f.reason, f.mend)
		}
	}
}

func TestFaultsOfTheDiskInWords(t *testing.T) {
	s := openSpool(t)
	root := filepath.Dir(s.Path(spool.Work))
	v := &visit{b: &Batch{spool: s}}
	at := func(errno error) error {
		return &fs.PathError{Op: "open", Path: root + "/work/PRIVATE/PRIVATE.jpg", Err: errno}
	}
	check := func(err error, reason, mend string) {
		t.Helper()
		f := v.faultOfDisk(err)
		if f.owner != disk || !strings.Contains(f.reason, reason) || !strings.Contains(f.mend, mend) || strings.Contains(f.reason+f.mend, "PRIVATE") {
			t.Errorf("%v: %+v, want %q and %q", err, f, reason, mend)
		}
	}
	check(at(syscall.ENOSPC), "inodes are free at "+root, "make room")
	check(at(syscall.EDQUOT), "quota", "make room")
	check(at(syscall.EIO), "input/output error", "dmesg")
	check(at(syscall.EROFS), "read-only", "remount")
	check(at(syscall.EACCES), "may not write to", "idenfy-batch check")
	check(at(syscall.EMFILE), "file descriptors", "LimitNOFILE")
	check(at(syscall.EXDEV), "invalid cross-device link", "idenfy-batch check")
	check(&journal.UncertainError{Err: at(syscall.EIO)}, "input/output error", "dmesg")
	check(fmt.Errorf("the journal: %w", &journal.LockedError{PID: 7, File: "/j/journal.db-shm", Err: at(syscall.EIO)}), "process 7 holds a lock on /j/journal.db-shm", "end it")
	check(&journal.LockedError{File: "/j/journal.db-shm", Err: at(syscall.EIO)}, "a process holds a lock on /j/journal.db-shm", "lsof /j/journal.db-shm")
	if err := errors.Join(os.Rename(s.Paths()[spool.Work], root+"/away"), os.Mkdir(s.Paths()[spool.Work], 0o700)); err != nil {
		t.Fatal(err)
	}
	check(at(syscall.ENOENT), "another directory than at the start", "mount the right file system")
}
