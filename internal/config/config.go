// Package config owns the configuration: one YAML file, read strictly, every
// key optional. The struct is the manual: unit, default and interaction stand
// at each field, and config.example.yaml shows the same.
package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/strictyaml"
)

// Config is the configuration. Durations are written as 5s or 10m, sizes as
// 20MB (million bytes) or 20MiB.
type Config struct {
	// Root is the spool; the five directories lie below it. Absolute.
	Root string `yaml:"root"`
	// Paths sets directories one by one; an empty one is below Root. All have
	// to be on one mount.
	Paths Paths `yaml:"paths"`
	API   API   `yaml:"api"`
	// Concurrency is how many submissions are in flight at most, 1 to 64.
	Concurrency int  `yaml:"concurrency"`
	Rate        Rate `yaml:"rate"`
	// RejectionsInARow is how many folders the API may reject with the same
	// identifier and message, and none accepted in between, until submission
	// pauses: then something else has changed than the folders. 0: any number;
	// at most 10,000.
	RejectionsInARow int `yaml:"rejections_in_a_row"`
	// Completeness is the rule by which a folder is taken to be whole.
	Completeness Completeness `yaml:"completeness"`
	Limits       Limits       `yaml:"limits"`
	Retry        Retry        `yaml:"retry"`
	// ShutdownGrace is how long a stop waits for submissions in flight; after
	// it they are cut off, recorded as unanswered, and settled by the next
	// start. Keep it below TimeoutStopSec= of the service.
	ShutdownGrace Duration `yaml:"shutdown_grace"`
	Ledger        Ledger   `yaml:"ledger"`
	Verdict       Verdict  `yaml:"verdict"`
	Log           Log      `yaml:"log"`
	Metrics       Metrics  `yaml:"metrics"`
}

// Paths are the directories of the spool.
type Paths struct {
	// Inbox is where folders are dropped; empty: below Root.
	Inbox string `yaml:"inbox"`
	// Work is where folders are being submitted, or wait for another try;
	// empty: below Root.
	Work string `yaml:"work"`
	// Done is where accepted folders go; empty: below Root.
	Done string `yaml:"done"`
	// Failed is where folders go that were not accepted; empty: below Root.
	Failed string `yaml:"failed"`
	// Hold is where folders wait for a person to decide; empty: below Root.
	Hold string `yaml:"hold"`
}

// API is the service.
type API struct {
	// BaseURL is scheme and host; plain http to loopback only.
	BaseURL string `yaml:"base_url"`
	// KeyFile holds the API key. Empty: the systemd credential
	// idenfy-api-key, else the environment's IDENFY_API_KEY.
	KeyFile string `yaml:"key_file"`
	// SecretFile holds the API secret. Empty: the systemd credential
	// idenfy-api-secret, else the environment's IDENFY_API_SECRET.
	SecretFile string `yaml:"secret_file"`
	// CAFile holds certificates (PEM) that are trusted besides the system's.
	CAFile string `yaml:"ca_file"`
	// Timeout ends an exchange in which nothing moves for that long, however
	// long it takes in total.
	Timeout Duration `yaml:"timeout"`
	// SessionExpiry is how long a session lives that the daemon opens for a
	// folder with a clientId, 1m to 720h. A session whose answer was lost keeps
	// others of the same clientId waiting for that long.
	SessionExpiry Duration `yaml:"session_expiry"`
	// TokenField is the name that a submission has for the token: authToken, or
	// token, as the newest page of iDenfy's documentation calls it.
	TokenField string `yaml:"token_field"`
}

// Rate bounds requests to the API. iDenfy's default quota is 10,000 an hour.
type Rate struct {
	// PerHour is the sustained rate; 0: no limit.
	PerHour int `yaml:"per_hour"`
	// Burst may go out at once on top; PerHour+Burst is the most that any
	// hour can see.
	Burst int `yaml:"burst"`
}

// Completeness is when a folder is taken.
type Completeness struct {
	// Settle is how long nothing in the folder may have changed.
	Settle Duration `yaml:"settle"`
	// ReadyMarker is a file whose presence says that the folder is whole, so
	// that Settle is skipped; empty: there is none.
	ReadyMarker string `yaml:"ready_marker"`
	// Rescan is the time between two scans of the inbox; file events make it
	// quicker, and a scan of many folders makes it longer.
	Rescan Duration `yaml:"rescan"`
	// WarnAfter is when an incomplete folder is reported; 0: never.
	WarnAfter Duration `yaml:"warn_after"`
	// FailAfter is when it goes to failed as incomplete; 0: never.
	FailAfter Duration `yaml:"fail_after"`
}

// Limits are checked before anything is sent.
type Limits struct {
	// Request is the API's limit for the whole request; Base64 makes 4 bytes
	// of 3, so images may have three quarters of it.
	Request Size `yaml:"request"`
	// Image is the limit for one image file; 0: none of its own.
	Image Size `yaml:"image"`
	// Files is how many files and directories a folder may hold, in its whole
	// tree, 4 to 4096. The daemon's own records in it don't count.
	Files int `yaml:"files"`
}

// Retry is for failures that may pass.
type Retry struct {
	// First is the upper bound of the first delay; each further one doubles.
	First Duration `yaml:"first"`
	// Max is the upper bound of all delays.
	Max Duration `yaml:"max"`
	// GiveUpAfter ends a folder that fails by itself for that long; outages
	// of the service don't count. 0: never.
	GiveUpAfter Duration `yaml:"give_up_after"`
}

// Ledger is what proves that the journal's past was not altered.
type Ledger struct {
	// KeyFile holds the key that signs the ledger's checkpoints, of mode 0600.
	// Empty: the systemd credential idenfy-batch-ledger-key, else
	// journal/ledger.key below Root, which the first start makes. A change
	// takes a restart.
	KeyFile string `yaml:"key_file"`
}

// Verdict is how iDenfy's verdict on the person comes to a folder.
type Verdict struct {
	// Listen is host:port where iDenfy's webhooks are received; empty: they
	// are not, unless systemd hands a socket over (idenfy-batch-verdict.socket).
	// Plain http is for loopback only, behind a reverse proxy.
	Listen string `yaml:"listen"`
	// Path is the path that they are posted to.
	Path string `yaml:"path"`
	// KeyFile holds the webhook's signing key; several, one a line, while keys
	// are changed. Empty: the systemd credential idenfy-webhook-key, else the
	// environment's IDENFY_WEBHOOK_KEY.
	KeyFile string `yaml:"key_file"`
	// TLS is for addresses other than loopback.
	TLS TLS `yaml:"tls"`
	// Keep is what is kept of a webhook: decision (status, checks and tags) or
	// full (all of it, with the person's data, in a file beside verdict.json).
	Keep string `yaml:"keep"`
	// CheckAfter is when an accepted folder without a final verdict is asked
	// for, by one request, and again after 12 and 48 hours; 0: never.
	CheckAfter Duration `yaml:"check_after"`
}

// TLS is a certificate with its key, which are read again when they change.
type TLS struct {
	// CertFile holds the certificate with its chain (PEM).
	CertFile string `yaml:"cert_file"`
	// KeyFile holds its key (PEM), which others can't read.
	KeyFile string `yaml:"key_file"`
}

// Log is what is logged, to standard error.
type Log struct {
	// Level is debug, info, warn or error.
	Level string `yaml:"level"`
	// Format is auto (text on a terminal, else json), text or json.
	Format string `yaml:"format"`
}

// Metrics is for Prometheus.
type Metrics struct {
	// Listen is host:port on loopback for /metrics and /healthz; empty: off.
	Listen string `yaml:"listen"`
}

// Default returns the configuration of an empty file.
func Default() Config {
	return Config{
		Root:        "/var/spool/idenfy-batch",
		API:         API{BaseURL: "https://ivs.idenfy.com", Timeout: Duration(time.Minute), SessionExpiry: Duration(24 * time.Hour), TokenField: "authToken"},
		Concurrency: 4,
		Rate:        Rate{PerHour: 9000, Burst: 1000},

		RejectionsInARow: 20,

		Completeness: Completeness{
			Settle: Duration(5 * time.Second), ReadyMarker: ".ready", Rescan: Duration(15 * time.Second),
			WarnAfter: Duration(time.Hour), FailAfter: Duration(24 * time.Hour),
		},
		Limits:        Limits{Request: 20_000_000, Files: 64},
		Retry:         Retry{First: Duration(2 * time.Second), Max: Duration(10 * time.Minute), GiveUpAfter: Duration(24 * time.Hour)},
		ShutdownGrace: Duration(30 * time.Second),
		Verdict:       Verdict{Path: "/idenfy", Keep: "decision", CheckAfter: Duration(time.Hour)},
		Log:           Log{Level: "info", Format: "auto"},
	}
}

// Duration is a time.Duration as written in the file.
type Duration time.Duration

var _ encoding.TextUnmarshaler = (*Duration)(nil)

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return errors.New("has to be a duration such as 5s, 10m or 24h")
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes as written in the file.
type Size int64

var units = []struct {
	suffix string
	factor int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1},
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	for _, u := range units {
		number, ok := strings.CutSuffix(string(text), u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 0 || n > (1<<53)/u.factor {
			break
		}
		*s = Size(n * u.factor)
		return nil
	}
	return errors.New("has to be a size such as 20MB or 512KiB")
}

// Load reads the file at path; an empty path means the defaults. All errors
// are reported at once.
func Load(path string) (Config, error) {
	c := Default()
	var data []byte
	if path != "" {
		var err error
		if data, err = os.ReadFile(path); err != nil {
			return c, fmt.Errorf("can't read the configuration: %w", err)
		}
	}
	lines, faults := strictyaml.Decode(data, &c)
	var errs []error
	faulty := map[string]bool{}
	for _, f := range faults {
		faulty[f.Key] = true
		errs = append(errs, fmt.Errorf("%s: %w", path, f))
	}
	c.check(func(key, format string, args ...any) {
		if !faulty[key] {
			errs = append(errs, fmt.Errorf("%s: %w", path, strictyaml.Fault{Line: lines[key], Message: key + ": " + fmt.Sprintf(format, args...)}))
		}
	})
	return c, errors.Join(errs...)
}

func (c *Config) check(bad func(key, format string, args ...any)) {
	absolute := func(key, path string, needed bool) {
		if (path != "" || needed) && !filepath.IsAbs(path) {
			bad(key, "has to be an absolute path, such as /var/spool/idenfy-batch")
		}
	}
	absolute("root", c.Root, true)
	absolute("paths.inbox", c.Paths.Inbox, false)
	absolute("paths.work", c.Paths.Work, false)
	absolute("paths.done", c.Paths.Done, false)
	absolute("paths.failed", c.Paths.Failed, false)
	absolute("paths.hold", c.Paths.Hold, false)
	absolute("api.key_file", c.API.KeyFile, false)
	absolute("api.secret_file", c.API.SecretFile, false)
	absolute("api.ca_file", c.API.CAFile, false)
	absolute("ledger.key_file", c.Ledger.KeyFile, false)
	c.checkDistinct(bad)
	if err := idenfy.CheckBaseURL(c.API.BaseURL); err != nil {
		bad("api.base_url", "%v", err)
	}
	between := func(key string, n, low, high int) {
		if n < low || n > high {
			bad(key, "has to be from %d to %d", low, high)
		}
	}
	between("concurrency", c.Concurrency, 1, 64)
	between("limits.files", c.Limits.Files, 4, 4096)
	between("rejections_in_a_row", c.RejectionsInARow, 0, 10_000)
	between("rate.per_hour", c.Rate.PerHour, 0, 1_000_000)
	between("rate.burst", c.Rate.Burst, 1, 1_000_000)
	if c.Limits.Request < 1000 || c.Limits.Request > 1e9 {
		bad("limits.request", "has to be from 1KB to 1GB; the API takes 20MB")
	}
	atLeast := func(key string, d, least Duration) {
		if d < least {
			bad(key, "has to be at least %s", time.Duration(least))
		}
	}
	atLeast("api.timeout", c.API.Timeout, Duration(time.Second))
	atLeast("api.session_expiry", c.API.SessionExpiry, Duration(time.Minute))
	if c.API.SessionExpiry > Duration(720*time.Hour) {
		bad("api.session_expiry", "has to be at most 720h, which is all that iDenfy takes")
	}
	atLeast("completeness.settle", c.Completeness.Settle, Duration(100*time.Millisecond))
	atLeast("completeness.rescan", c.Completeness.Rescan, Duration(100*time.Millisecond))
	atLeast("retry.first", c.Retry.First, Duration(10*time.Millisecond))
	atLeast("retry.max", c.Retry.Max, c.Retry.First)
	if c.Completeness.FailAfter > 0 {
		atLeast("completeness.fail_after", c.Completeness.FailAfter, c.Completeness.Settle)
		if c.Completeness.WarnAfter > c.Completeness.FailAfter {
			bad("completeness.warn_after", "has to come before fail_after (%s)", time.Duration(c.Completeness.FailAfter))
		}
	}
	if m := c.Completeness.ReadyMarker; strings.ContainsAny(m, "/\x00") || m == "." || m == ".." || m == "meta.yaml" {
		bad("completeness.ready_marker", "has to be a plain file name, such as .ready")
	}
	oneOf := func(key, value string, allowed ...string) {
		if slices.Contains(allowed, value) {
			return
		}
		bad(key, "has to be one of %s", strings.Join(allowed, ", "))
	}
	oneOf("api.token_field", c.API.TokenField, "authToken", "token")
	oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf("log.format", c.Log.Format, "auto", "text", "json")
	c.checkVerdict(bad)
	if l := c.Metrics.Listen; l != "" {
		if err := idenfy.CheckBaseURL("http://" + l); err != nil {
			bad("metrics.listen", "has to be a port on loopback, such as 127.0.0.1:9187")
		}
	}
}

func (c *Config) checkVerdict(bad func(key, format string, args ...any)) {
	v := &c.Verdict
	for key, path := range map[string]string{"verdict.key_file": v.KeyFile, "verdict.tls.cert_file": v.TLS.CertFile, "verdict.tls.key_file": v.TLS.KeyFile} {
		if path != "" && !filepath.IsAbs(path) {
			bad(key, "has to be an absolute path")
		}
	}
	if (v.TLS.CertFile == "") != (v.TLS.KeyFile == "") {
		bad("verdict.tls.cert_file", "goes with key_file: give both, or none")
	}
	if !strings.HasPrefix(v.Path, "/") || strings.ContainsAny(v.Path, "?#% ") {
		bad("verdict.path", "has to be a path such as /idenfy")
	}
	if v.Keep != "decision" && v.Keep != "full" {
		bad("verdict.keep", "has to be one of decision, full")
	}
	if v.Listen != "" {
		if err := c.CheckReceiver(v.Listen); err != nil {
			bad("verdict.listen", "%v", err)
		}
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

// mostKeys bounds how many webhook keys there may be at once.
const mostKeys = 10

// WebhookKeys finds the keys that webhooks may be signed with, as Credentials
// does.
func (c *Config) WebhookKeys() ([]string, error) {
	const what = "webhook key"
	text, err := credential(what, c.Verdict.KeyFile, "idenfy-webhook-key", "IDENFY_WEBHOOK_KEY", "verdict.key_file", mostKeys)
	if err != nil {
		return nil, err
	}
	keys := strings.Fields(text)
	for _, key := range keys {
		if len(key) < 8 {
			return nil, fmt.Errorf("the %s: one has %d characters, which anybody could guess; take the one that iDenfy's dashboard shows for the webhook", what, len(key))
		}
	}
	return keys, nil
}

// Certificate reads the receiver's certificate.
func (c *Config) Certificate() (*tls.Certificate, error) {
	key, err := secretBytes("key of the certificate", c.Verdict.TLS.KeyFile, group)
	if err != nil {
		return nil, err
	}
	chain, err := os.ReadFile(c.Verdict.TLS.CertFile)
	if err != nil {
		return nil, fmt.Errorf("verdict.tls.cert_file: %w", err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("verdict.tls: %w", err)
	}
	return &pair, nil
}

func (c *Config) checkDistinct(bad func(key, format string, args ...any)) {
	paths := c.Spool()
	for _, a := range spool.Places() {
		for _, b := range spool.Places() {
			inside, err := filepath.Rel(paths[b], paths[a])
			if a != b && err == nil && inside != ".." && !strings.HasPrefix(inside, "../") {
				bad("paths."+string(a), "%s is, or lies in, the directory of %s; each needs one of its own", paths[a], b)
				break
			}
		}
	}
}

// Spool returns the directories of the spool.
func (c *Config) Spool() spool.Paths {
	paths := spool.Paths{}
	for p, set := range map[spool.Place]string{
		spool.Inbox: c.Paths.Inbox, spool.Work: c.Paths.Work, spool.Done: c.Paths.Done,
		spool.Failed: c.Paths.Failed, spool.Hold: c.Paths.Hold,
	} {
		if set == "" {
			set = filepath.Join(c.Root, string(p))
		}
		paths[p] = filepath.Clean(set)
	}
	return paths
}

// maxSecret bounds a file with a credential, in bytes.
const maxSecret = 4096

// Credentials finds the API key and secret: in the files that the
// configuration names, else among systemd's credentials, else in the
// environment. Errors name where was looked and the mend, never a value.
func (c *Config) Credentials() (key, secret string, err error) {
	key, err1 := credential("API key", c.API.KeyFile, "idenfy-api-key", "IDENFY_API_KEY", "api.key_file", 1)
	secret, err2 := credential("API secret", c.API.SecretFile, "idenfy-api-secret", "IDENFY_API_SECRET", "api.secret_file", 1)
	return key, secret, errors.Join(err1, err2)
}

// CredentialsFixed reports whether the API key or secret is a credential of
// systemd, which hands them to a service at its start and never again.
func (c *Config) CredentialsFixed() bool {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return false
	}
	for name, file := range map[string]string{"idenfy-api-key": c.API.KeyFile, "idenfy-api-secret": c.API.SecretFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); file == "" && err == nil {
			return true
		}
	}
	return false
}

func credential(what, file, name, env, option string, lines int) (string, error) {
	if file != "" {
		return secretFile(what, file, group, lines)
	}
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Size() <= 1 { // the unit's own, in place of a missing file
			return "", fmt.Errorf("the %s is missing: the systemd credential %s is empty; put it into the file that LoadCredential=%s: of the service names (see systemctl cat), and start the service again", what, name, name)
		}
		v, err := secretFile(what, path, anybody, lines)
		if !errors.Is(err, fs.ErrNotExist) {
			return v, err
		}
	}
	if v := os.Getenv(env); strings.TrimSpace(v) != "" {
		return checkSecret(what, "the environment's "+env, v, lines)
	}
	return "", fmt.Errorf("the %s is missing; put it into the systemd credential %s (LoadCredential=), into a file that %s names, or into the environment's %s", what, name, option, env)
}

// LedgerKey finds the key of the ledger: in the file that the configuration
// names, else among systemd's credentials, else in the daemon's own file. An
// empty key is still to be made there.
func (c *Config) LedgerKey(own string) (key, from string, err error) {
	const what = "key of the ledger"
	if from = c.Ledger.KeyFile; from != "" {
		key, err = secretFile(what, from, owner, 1)
		return key, from, err
	}
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		from = filepath.Join(dir, "idenfy-batch-ledger-key")
		if key, err = secretFile(what, from, anybody, 1); !errors.Is(err, fs.ErrNotExist) {
			return key, from, err
		}
	}
	if key, err = secretFile(what, own, owner, 1); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return key, own, err
}

// Who may read a file with a secret.
const (
	anybody fs.FileMode = 0o777 // systemd keeps its credentials from others by other means than modes
	group   fs.FileMode = 0o640
	owner   fs.FileMode = 0o600
)

// secretFile reads a secret of at most so many lines.
func secretFile(what, path string, most fs.FileMode, lines int) (string, error) {
	data, err := secretBytes(what, path, most)
	if err != nil {
		return "", err
	}
	return checkSecret(what, path, string(data), lines)
}

func secretBytes(what, path string, most fs.FileMode) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the %s: %w", what, err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("the %s: %w", what, err)
	case !info.Mode().IsRegular() || info.Size() > maxSecret:
		return nil, fmt.Errorf("the %s: %s is not a small regular file", what, path)
	case info.Mode().Perm()&^most&0o077 != 0:
		who := map[fs.FileMode]string{group: "others can read, or the group can write,", owner: "others than its owner can read or write"}[most]
		return nil, fmt.Errorf("the %s: %s %s (mode %04o); fix with chmod %o %s, and change the key if it may have been read", what, who, path, info.Mode().Perm(), most, path)
	}
	data := make([]byte, info.Size())
	n, err := f.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the %s: %w", what, err)
	}
	return data[:n], nil
}

func checkSecret(what, where, v string, lines int) (string, error) {
	v = strings.TrimSpace(v)
	if v == "" {
		return "", fmt.Errorf("the %s: %s is empty", what, where)
	}
	odd := func(r rune) bool { return (r < 33 || r > 126) && (lines == 1 || r != '\n' && r != '\r') }
	if strings.ContainsFunc(v, odd) {
		return "", fmt.Errorf("the %s: %s holds more than one line, or characters that no key has", what, where)
	}
	if n := len(strings.Fields(v)); n > lines {
		return "", fmt.Errorf("the %s: %s holds %d lines, and %d at most are read; take out those that are not used any more", what, where, n, lines)
	}
	return v, nil
}

// RootCAs returns the system's certificates with those of API.CAFile, or nil
// when the system's alone are to be used.
func (c *Config) RootCAs() (*x509.CertPool, error) {
	if c.API.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.API.CAFile)
	if err != nil {
		return nil, fmt.Errorf("api.ca_file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("api.ca_file: %s holds no certificate in PEM", c.API.CAFile)
	}
	return pool, nil
}
