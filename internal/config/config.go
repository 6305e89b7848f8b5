// Package config owns the configuration: one YAML file, read strictly, every
// key optional. The struct is the manual: unit, default and interaction stand
// at each field, and config.example.yaml shows the same.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/strictyaml"
)

// Config is the configuration. Durations are written as 5s, 10m or 30d, sizes as
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
	// Defaults are for what meta.yaml leaves out; its own word wins.
	Defaults Defaults `yaml:"defaults"`
	// Inboxes are directories where folders are dropped, in place of the one
	// below Root; empty: that one, and no other.
	Inboxes []Inbox `yaml:"inboxes"`
	// ReceiptsKeep is how long a receipt stays after the folder's end; 0: for
	// ever.
	ReceiptsKeep Duration `yaml:"receipts_keep"`
	// Retention is what is deleted of folders that have ended, and when.
	Retention Retention `yaml:"retention"`
	// ReceiptsVerdict has a receipt tell the verdict on the person, too.
	ReceiptsVerdict bool `yaml:"receipts_verdict"`
}

// Defaults are for what meta.yaml leaves out.
type Defaults struct {
	// Country is that of the documents, as in meta.yaml; empty: none.
	Country string `yaml:"country"`
	// DocumentType is theirs, as in meta.yaml; empty: none.
	DocumentType string `yaml:"documentType"`
	// SkipAnalysis is as in meta.yaml; empty: not sent.
	SkipAnalysis *bool `yaml:"skipAnalysis"`
	// ClientID may be folder: where meta.yaml has neither authToken nor
	// clientId, the name of the folder is the clientId. It names the person:
	// folders of one name are of one person, whichever inbox they lie in.
	// Empty: none.
	ClientID string `yaml:"clientId"`
	// Meta is required or optional: then a folder of images alone is taken,
	// which needs Country, DocumentType and ClientID. Empty: for an inbox, as
	// for all; for all, required.
	Meta string `yaml:"meta"`
}

// Inbox is a directory where folders are dropped.
type Inbox struct {
	// Name is what results, reports and commands call it: up to 31 of a to z, 0 to
	// 9 and -. It has to be given, and unique. That of the one below Root, if it is
	// in the list, should be inbox, as it was before there was a list.
	Name string `yaml:"name"`
	// Path is the directory, on the mount of Root. Absolute, and has to be given.
	Path string `yaml:"path"`
	// Receipts is the directory where a receipt for each folder is put for its
	// uploader; empty: none are. Absolute.
	Receipts string `yaml:"receipts"`
	// Defaults go before those of all.
	Defaults Defaults `yaml:"defaults"`
}

// Paths are the directories of the spool.
type Paths struct {
	// Inbox is where folders are dropped; empty: below Root. Not beside Inboxes.
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

// Retention says after what time from its end a folder's images, meta.yaml and
// whatever else came with it are deleted, by where it lies; result.json and
// verdict.json stay. At least 1d; 0: for ever.
type Retention struct {
	// Done is for what iDenfy took.
	Done Duration `yaml:"done"`
	// Failed is for what it did not.
	Failed Duration `yaml:"failed"`
	// Hold is for what nobody has decided about in that time; it can't be sent
	// any more then.
	Hold Duration `yaml:"hold"`
	// Verdicts is for what iDenfy sent, in all places, where verdict.keep is
	// full.
	Verdicts Duration `yaml:"verdicts"`
	// At is when the daemon does it, each day, by the host's zone.
	At string `yaml:"at"`
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
	// Listen is host:port on loopback for /metrics, /healthz, and a page to look
	// at; empty: off.
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
		Defaults:      Defaults{Meta: "required"},
		ReceiptsKeep:  Duration(30 * 24 * time.Hour),
		Retention:     Retention{At: "03:00"},
	}
}

// Load reads the file at path; an empty path means the defaults. All errors
// are reported at once.
func Load(path string) (Config, error) {
	var data []byte
	if path != "" {
		var err error
		if data, err = os.ReadFile(path); err != nil {
			return Default(), fmt.Errorf("can't read the configuration: %w", err)
		}
	}
	return Parse(path, data)
}

// Parse is Load of a text that is to stand at path.
func Parse(path string, data []byte) (Config, error) {
	c := Default()
	lines, faults := strictyaml.Decode(data, &c)
	faulty := map[string]bool{}
	for _, f := range faults {
		faulty[f.Key] = true
	}
	c.check(func(key, format string, args ...any) {
		for k := key; k != ""; k = strictyaml.Parent(k) {
			if faulty[k] {
				return // this would only be a consequence
			}
		}
		faults = append(faults, strictyaml.Fault{Key: key, Line: lines.Near(key), Message: key + ": " + fmt.Sprintf(format, args...)})
	})
	slices.SortStableFunc(faults, func(a, b strictyaml.Fault) int { return cmp.Compare(a.Line, b.Line) })
	var errs []error
	for _, f := range faults {
		errs = append(errs, fmt.Errorf("%s: %w", path, f))
	}
	return c, errors.Join(errs...)
}

// Spool returns the directories of the spool, and all inboxes.
func (c *Config) Spool() spool.Paths {
	paths := spool.Paths{}
	for p, set := range map[spool.Place]string{
		spool.Work: c.Paths.Work, spool.Done: c.Paths.Done, spool.Failed: c.Paths.Failed, spool.Hold: c.Paths.Hold,
	} {
		paths[p] = c.below(p, set)
	}
	for _, i := range c.Drops() {
		paths[spool.InboxNamed(i.Name)] = i.Path
	}
	return paths
}

// below returns the directory of a place: as it is set, or below Root.
func (c *Config) below(p spool.Place, set string) string {
	if set == "" {
		set = filepath.Join(c.Root, string(p))
	}
	return filepath.Clean(set)
}

// Unwatched returns the inbox below Root where it is not one of Inboxes, and they
// take its place; or "".
func (c *Config) Unwatched() string {
	own := c.below(spool.Inbox, "")
	if len(c.Inboxes) == 0 || slices.ContainsFunc(c.Drops(), func(i Inbox) bool { return i.Path == own }) {
		return ""
	}
	return own
}

// Drops returns the inboxes that are worked with, each with the defaults of all
// merged into its own: those of Inboxes, or, where there are none, the one below
// Root, named inbox.
func (c *Config) Drops() []Inbox {
	if len(c.Inboxes) == 0 {
		return []Inbox{{Name: string(spool.Inbox), Path: c.below(spool.Inbox, c.Paths.Inbox), Defaults: c.Defaults}}
	}
	drops := make([]Inbox, 0, len(c.Inboxes))
	for _, i := range c.Inboxes {
		i.Path = filepath.Clean(i.Path)
		if i.Receipts != "" {
			i.Receipts = filepath.Clean(i.Receipts)
		}
		i.Defaults = i.Defaults.over(c.Defaults)
		drops = append(drops, i)
	}
	return drops
}

func (d Defaults) over(all Defaults) Defaults {
	return Defaults{
		Country: cmp.Or(d.Country, all.Country), DocumentType: cmp.Or(d.DocumentType, all.DocumentType),
		SkipAnalysis: cmp.Or(d.SkipAnalysis, all.SkipAnalysis), ClientID: cmp.Or(d.ClientID, all.ClientID), Meta: cmp.Or(d.Meta, all.Meta),
	}
}

// ForMeta returns the defaults as they are applied to a folder.
func (d Defaults) ForMeta() meta.Defaults {
	return meta.Defaults{
		Country: strings.ToUpper(d.Country), DocumentType: d.DocumentType, SkipAnalysis: d.SkipAnalysis != nil && *d.SkipAnalysis,
		ByFolder: d.ClientID == "folder", Optional: d.Meta == "optional",
	}
}
