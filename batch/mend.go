package batch

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/spool"
)

// What is at fault, and what a person can do about it, in words. They go into
// logs: no name of a file, and no text that somebody else wrote, is in them.

// faultOf is the fault that an attempt, or a question, met.
func (v *visit) faultOf(err *idenfy.Error, o owner, doubtful bool) fault {
	f := fault{owner: o, doubtful: doubtful}
	if err == nil {
		return f
	}
	if err.Class == idenfy.Withheld { // of the folder's files; it is in no log
		f.reason = err.Message
		return f
	}
	f.asked = err.RetryAfter
	host := v.set.API.Endpoint()
	if u, bad := url.Parse(host); bad == nil {
		host = u.Host
	}
	if err.Status != 0 {
		f.reason, f.mend = byAnswer(err, host)
	} else {
		f.reason, f.mend = bySilence(err.Err, host)
	}
	return f
}

// byAnswer is for what the service, or something before it, answered with.
func byAnswer(err *idenfy.Error, host string) (reason, mend string) {
	how := fmt.Sprintf("HTTP %d", err.Status)
	if err.Identifier != "" {
		how += ", " + err.Identifier
	}
	switch {
	case err.Class == idenfy.ServerError, err.Class == idenfy.NoAnswer:
		return "iDenfy has trouble: " + how + ifForeign(err), "it passes; if it lasts, ask iDenfy, or whoever runs a proxy in between"
	case err.Status == http.StatusTooManyRequests, err.Identifier == "TOO_MANY_REQUESTS":
		reason = "iDenfy takes no more requests for now: " + how
		if err.RetryAfter > 0 {
			reason += ", it asks to wait until " + time.Now().Add(err.RetryAfter).Format(time.DateTime)
		}
		return reason, "it passes; if it comes often, lower rate in the configuration, or have iDenfy raise the account's limit"
	case err.Status == http.StatusUnauthorized, err.Identifier == "UNAUTHORIZED":
		return "iDenfy refuses the key: " + how, "see that API key and secret belong together and to this environment, then idenfy-batch reload"
	case err.Status == http.StatusProxyAuthRequired:
		return "the proxy wants other credentials: " + how, "correct HTTPS_PROXY, and restart"
	case err.WantsField != "":
		return "iDenfy misses the field " + err.WantsField + " of a submission: " + how, "set api.token_field: " + err.WantsField + " in the configuration, then idenfy-batch reload"
	case err.NoCredits():
		return "the account has no credits left: " + how, "buy credits in the iDenfy dashboard"
	case err.Identifier == "PERMISSIONS_ERROR", err.Identifier == "PARTNER_CONTRACT_ERROR":
		return "iDenfy doesn't let this account do that: " + how, "have iDenfy enable Direct Processing, and what the folders ask for, in the account's contract"
	case err.Status >= 300 && err.Status < 400:
		return host + " sends requests elsewhere: " + how, "correct api.base_url; a redirect is not followed, since it would carry images to another place"
	default:
		return host + " doesn't take the request: " + how + ifForeign(err), "see that api.base_url is iDenfy's, and whether a proxy or a firewall in between blocks it"
	}
}

// ifForeign says of an answer that is not in iDenfy's own words that it isn't.
func ifForeign(err *idenfy.Error) string {
	if err.Identifier != "" {
		return ""
	}
	return ", not in iDenfy's own words, so perhaps of a proxy or firewall"
}

// bySilence is for what kept a request from being answered.
func bySilence(err error, host string) (reason, mend string) {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "proxyconnect" {
		return "the proxy can't be reached, or refuses", "see to HTTPS_PROXY and NO_PROXY, and to the proxy"
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "the name " + host + " can't be resolved", "see to this host's DNS, and to api.base_url"
	}
	if reason := badCertificate(err); reason != "" {
		return host + " can't be trusted: " + reason, "see to this host's clock, to api.base_url, and to a proxy that opens TLS (then api.ca_file)"
	}
	const network = "see to the network, a firewall, and api.base_url"
	for errno, says := range map[syscall.Errno]string{
		syscall.ECONNREFUSED: "refuses the connection", syscall.ECONNRESET: "reset the connection", syscall.EPIPE: "closed the connection",
		syscall.ETIMEDOUT: "doesn't answer", syscall.EHOSTUNREACH: "can't be reached: no route to it", syscall.ENETUNREACH: "can't be reached: no network",
	} {
		if errors.Is(err, errno) {
			return host + " " + says, network
		}
	}
	if errors.Is(err, idenfy.ErrNoProgress) {
		return host + " doesn't go on: no progress within api.timeout", network
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return host + " doesn't answer in time", network
	}
	return host + " broke the exchange off", network
}

// badCertificate says what is wrong with a certificate, if that is it.
func badCertificate(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "its certificate is of an unknown authority"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "its certificate is for another name"
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if e.Reason == x509.Expired {
			return "its certificate has expired, or is not valid yet"
		}
		return "its certificate is not valid"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "its certificate is not valid"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "it doesn't speak TLS"
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return "it breaks TLS off"
	}
	return ""
}

// rejectedByAll is the fault when so many folders were rejected with the same
// words.
func rejectedByAll(n int, words string) fault {
	identifier, _, _ := strings.Cut(words, ": ")
	return fault{
		owner:  account,
		reason: fmt.Sprintf("%d folders were rejected for the same reason, %s, and none was accepted in between", n, cmp.Or(identifier, "which has no identifier")),
		mend: "see the reason in one of their result.json in failed/, the account's settings at iDenfy, and what changed in the API or in what makes meta.yaml; " +
			"one folder at a time tries whether that has ended (rejections_in_a_row)",
	}
}

// faultOfDisk is the fault when something could not be written, moved or read
// that is no folder's own.
func (v *visit) faultOfDisk(err error) fault {
	f := fault{owner: disk}
	if v.b.journal != nil {
		err = v.b.journal.Blame(err)
	}
	if e, ok := errors.AsType[*journal.LockedError](err); ok {
		f.reason = e.Who() + " holds a lock on " + e.File + ", so that the journal can't be written"
		f.mend = "it goes on when that lets go of it; lsof " + e.File + " tells whose it is: end it"
		return f
	}
	if v.b.spool == nil {
		f.reason, f.mend = plain(err), "see to the disk"
		return f
	}
	if intact := v.b.spool.Intact(); intact != nil && !hasErrno(intact) {
		f.reason, f.mend = intact.Error(), "mount the right file system there, or unmount what covers it"
		return f
	}
	paths := v.b.spool.Paths()
	work := paths[spool.Work]
	switch {
	case errors.Is(err, syscall.ENOSPC):
		f.reason, f.mend = "the disk is full: "+free(work), "make room there; a done/ of long ago may be moved away"
	case errors.Is(err, syscall.EDQUOT):
		f.reason, f.mend = "the disk quota of the daemon's user is used up at "+work, "raise it, or make room there"
	case errors.Is(err, syscall.EROFS):
		f.reason, f.mend = "the file system of "+work+" is mounted read-only", "see dmesg for why, then mount -o remount,rw"
	case errors.Is(err, syscall.EIO):
		f.reason, f.mend = "the disk fails at "+work+" (input/output error)", "see dmesg, and to the disk"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		f.reason, f.mend = unwritable(paths), "see idenfy-batch check"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		f.reason, f.mend = "there are no more file descriptors", "raise LimitNOFILE"
	default:
		f.reason, f.mend = "the spool at "+work+": "+plain(err), "see dmesg, and idenfy-batch check"
	}
	return f
}

func hasErrno(err error) bool {
	_, ok := errors.AsType[syscall.Errno](err)
	return ok
}

// plain is an error without the names of files in it.
func plain(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return err.Error()
}

// free says how much is left on the disk at path.
func free(path string) string {
	var s unix.Statfs_t
	if unix.Statfs(path, &s) != nil {
		return path
	}
	return fmt.Sprintf("%.1f MB and %d inodes are free at %s", float64(s.Bavail)*float64(s.Bsize)/1e6, s.Ffree, path)
}

// unwritable names the places that the daemon may not write to.
func unwritable(paths spool.Paths) string {
	var list []string
	for _, p := range paths.Places() {
		if unix.Access(paths[p], unix.W_OK|unix.X_OK) != nil {
			list = append(list, paths[p])
		}
	}
	return "the daemon may not write to " + cmp.Or(strings.Join(list, ", "), "the spool")
}
