package config

import (
	"cmp"
	"errors"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/spool"
)

// checker takes what is wrong with the value of a key.
type checker func(key, format string, args ...any)

func (c *Config) check(bad checker) {
	c.checkPaths(bad)
	c.checkAPI(bad)
	c.checkLimits(bad)
	c.checkCompleteness(bad)
	c.checkVerdict(bad)
	c.checkRetention(bad)
	c.checkInboxes(bad)
	bad.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	bad.oneOf("log.format", c.Log.Format, "auto", "text", "json")
	if l := c.Metrics.Listen; l != "" {
		if err := idenfy.CheckBaseURL("http://" + l); err != nil {
			bad("metrics.listen", "has to be a port on loopback, such as 127.0.0.1:9187")
		}
	}
}

func (bad checker) absolute(key, path, example string) {
	if path != "" && !filepath.IsAbs(path) {
		bad(key, "has to be an absolute path, such as %s", example)
	}
}

func (bad checker) between(key string, n, low, high int) {
	if n < low || n > high {
		bad(key, "has to be from %d to %d", low, high)
	}
}

func (bad checker) atLeast(key string, d, least Duration) {
	if d < least {
		bad(key, "has to be at least %s", time.Duration(least))
	}
}

func (bad checker) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		bad(key, "has to be one of %s", strings.Join(allowed, ", "))
	}
}

func (c *Config) checkPaths(bad checker) {
	const example = "/var/spool/idenfy-batch"
	if c.Root == "" {
		bad("root", "has to be an absolute path, such as "+example)
	}
	bad.absolute("root", c.Root, example)
	bad.absolute("paths.inbox", c.Paths.Inbox, example)
	bad.absolute("paths.work", c.Paths.Work, example)
	bad.absolute("paths.done", c.Paths.Done, example)
	bad.absolute("paths.failed", c.Paths.Failed, example)
	bad.absolute("paths.hold", c.Paths.Hold, example)
	const file = "/etc/idenfy-batch/secret"
	bad.absolute("api.key_file", c.API.KeyFile, file)
	bad.absolute("api.secret_file", c.API.SecretFile, file)
	bad.absolute("api.ca_file", c.API.CAFile, file)
	bad.absolute("ledger.key_file", c.Ledger.KeyFile, file)
	bad.absolute("verdict.key_file", c.Verdict.KeyFile, file)
	bad.absolute("verdict.tls.cert_file", c.Verdict.TLS.CertFile, file)
	bad.absolute("verdict.tls.key_file", c.Verdict.TLS.KeyFile, file)
	c.checkDistinct(bad)
}

// directory is one that the daemon has for a purpose of its own.
type directory struct{ key, path, what string }

// directories returns all that there are. Those of inboxes that lack a path, or
// have none that is absolute, which is said of them, are left out.
func (c *Config) directories() []directory {
	paths := c.Spool()
	dirs := []directory{{"root", filepath.Join(c.Root, "journal"), "the journal"}}
	for _, p := range spool.Places() {
		if p != spool.Inbox || len(c.Inboxes) == 0 {
			dirs = append(dirs, directory{"paths." + string(p), paths[p], string(p)})
		}
	}
	for n, i := range c.Inboxes {
		what := "inbox " + strconv.Quote(cmp.Or(i.Name, inboxKey(n, "path")))
		if filepath.IsAbs(i.Path) {
			dirs = append(dirs, directory{inboxKey(n, "path"), filepath.Clean(i.Path), what})
		}
		if filepath.IsAbs(i.Receipts) {
			dirs = append(dirs, directory{inboxKey(n, "receipts"), filepath.Clean(i.Receipts), "receipts of " + what})
		}
	}
	return dirs
}

func (c *Config) checkDistinct(bad checker) {
	dirs := c.directories()
	for n, a := range dirs {
		for m, b := range dirs {
			inside, err := filepath.Rel(b.path, a.path)
			if n != m && err == nil && inside != ".." && !strings.HasPrefix(inside, "../") {
				bad(a.key, "%s is, or lies in, the directory of %s; each needs one of its own", a.path, b.what)
				break
			}
		}
	}
}

func (c *Config) checkAPI(bad checker) {
	if err := idenfy.CheckBaseURL(c.API.BaseURL); err != nil {
		bad("api.base_url", "%v", err)
	}
	bad.atLeast("api.timeout", c.API.Timeout, Duration(time.Second))
	bad.atLeast("api.session_expiry", c.API.SessionExpiry, Duration(time.Minute))
	if c.API.SessionExpiry > Duration(720*time.Hour) {
		bad("api.session_expiry", "has to be at most 720h, which is all that iDenfy takes")
	}
	bad.oneOf("api.token_field", c.API.TokenField, "authToken", "token")
}

func (c *Config) checkLimits(bad checker) {
	bad.between("concurrency", c.Concurrency, 1, 64)
	bad.between("limits.files", c.Limits.Files, 4, 4096)
	bad.between("rejections_in_a_row", c.RejectionsInARow, 0, 10_000)
	bad.between("rate.per_hour", c.Rate.PerHour, 0, 1_000_000)
	bad.between("rate.burst", c.Rate.Burst, 1, 1_000_000)
	if c.Limits.Request < 1000 || c.Limits.Request > 1e9 {
		bad("limits.request", "has to be from 1KB to 1GB; the API takes 20MB")
	}
	bad.atLeast("retry.first", c.Retry.First, Duration(10*time.Millisecond))
	bad.atLeast("retry.max", c.Retry.Max, c.Retry.First)
}

func (c *Config) checkCompleteness(bad checker) {
	bad.atLeast("completeness.settle", c.Completeness.Settle, Duration(100*time.Millisecond))
	bad.atLeast("completeness.rescan", c.Completeness.Rescan, Duration(100*time.Millisecond))
	if c.Completeness.FailAfter > 0 {
		bad.atLeast("completeness.fail_after", c.Completeness.FailAfter, c.Completeness.Settle)
		if c.Completeness.WarnAfter > c.Completeness.FailAfter {
			bad("completeness.warn_after", "has to come before fail_after (%s)", time.Duration(c.Completeness.FailAfter))
		}
	}
	if m := c.Completeness.ReadyMarker; strings.ContainsAny(m, "/\x00") || m == "." || m == ".." || m == "meta.yaml" {
		bad("completeness.ready_marker", "has to be a plain file name, such as .ready")
	}
}

func (c *Config) checkVerdict(bad checker) {
	v := &c.Verdict
	if (v.TLS.CertFile == "") != (v.TLS.KeyFile == "") {
		bad("verdict.tls.cert_file", "goes with key_file: give both, or none")
	}
	if !strings.HasPrefix(v.Path, "/") || strings.ContainsAny(v.Path, "?#% ") {
		bad("verdict.path", "has to be a path such as /idenfy")
	}
	bad.oneOf("verdict.keep", v.Keep, "decision", "full")
	if v.Listen != "" {
		if err := c.CheckReceiver(v.Listen); err != nil {
			bad("verdict.listen", "%v", err)
		}
	}
}

var hourForm = regexp.MustCompile(`^([01][0-9]|2[0-3]):[0-5][0-9]$`)

func (c *Config) checkRetention(bad checker) {
	r := &c.Retention
	for _, rule := range []struct {
		key   string
		after Duration
	}{{"done", r.Done}, {"failed", r.Failed}, {"hold", r.Hold}, {"verdicts", r.Verdicts}} {
		if rule.after > 0 && rule.after < Duration(24*time.Hour) {
			bad("retention."+rule.key, "has to be at least 1d, or 0 for ever: what is deleted is gone; m is minutes, and years are days, such as 1825d")
		}
	}
	if !hourForm.MatchString(r.At) {
		bad("retention.at", "has to be an hour and minute, such as \"03:00\"")
	}
}

// CheckReceiver returns what is wrong with an address that webhooks are received
// at, or nil: without a certificate they are for loopback only.
func (c *Config) CheckReceiver(address string) error {
	host, port, err := net.SplitHostPort(address)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 {
		return errors.New("has to be host:port, such as 127.0.0.1:9188")
	}
	ip := net.ParseIP(host)
	if c.Verdict.TLS.CertFile == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return errors.New("is not on loopback, where plain http would show people's data to the network; give tls.cert_file and tls.key_file, or listen on 127.0.0.1 behind a reverse proxy")
	}
	return nil
}

var inboxName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

// inboxKey is the path of a key of the nth inbox.
func inboxKey(n int, key string) string { return "inboxes[" + strconv.Itoa(n) + "]." + key }

func (c *Config) checkInboxes(bad checker) {
	c.Defaults.check("defaults.", bad)
	if len(c.Inboxes) == 0 {
		c.Drops()[0].checkOptional("defaults.meta", bad)
		return
	}
	if c.Paths.Inbox != "" {
		bad("paths.inbox", "does not go with inboxes, which take its place; put the directory into that list, with a name")
	}
	names := map[string]int{}
	for n, i := range c.Drops() {
		own := &c.Inboxes[n]
		first, twice := names[own.Name]
		switch {
		case own.Name == "":
			bad(inboxKey(n, "name"), "is missing; give it one, such as branch-1")
		case !inboxName.MatchString(own.Name):
			bad(inboxKey(n, "name"), "has to be up to 31 of a to z, 0 to 9 and -, such as branch-1")
		case twice:
			bad(inboxKey(n, "name"), "is the name of inboxes[%d] already; each needs one of its own", first)
		default:
			names[own.Name] = n
		}
		if own.Path == "" {
			bad(inboxKey(n, "path"), "is missing; give the directory where folders are dropped")
		}
		bad.absolute(inboxKey(n, "path"), own.Path, "/srv/sftp/branch-1/inbox")
		bad.absolute(inboxKey(n, "receipts"), own.Receipts, "/srv/sftp/branch-1/receipts")
		own.Defaults.check(inboxKey(n, "defaults."), bad)
		if own.Defaults.Meta == "optional" {
			i.checkOptional(inboxKey(n, "defaults.meta"), bad)
		} else {
			i.checkOptional("defaults.meta", bad)
		}
	}
}

// check judges the values, of which each is optional.
func (d Defaults) check(prefix string, bad checker) {
	d.ForMeta().Check(func(key, format string, args ...any) { bad(prefix+key, format, args...) })
	if d.ClientID != "" && d.ClientID != "folder" {
		bad(prefix+"clientId", "can only be folder: each folder's name is the clientId then; one person's clientId belongs into meta.yaml")
	}
	if d.Meta != "" {
		bad.oneOf(prefix+"meta", d.Meta, "required", "optional")
	}
}

// checkOptional judges the defaults of an inbox with those of all.
func (i Inbox) checkOptional(key string, bad checker) {
	d := i.Defaults.ForMeta()
	if lacking := d.Lacking(); d.Optional && len(lacking) > 0 {
		bad(key, "is optional, and the defaults of inbox %q lack %s, without which meta.yaml is needed", i.Name, strings.Join(lacking, ", "))
	}
}
