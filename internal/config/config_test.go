package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/meta"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// config.example.yaml shows every key, with the code's default.
func TestExample(t *testing.T) {
	path := filepath.Join("..", "..", "config.example.yaml")
	got, err := config.Load(path)
	must(t, err)
	if diff := cmp.Diff(config.Default(), got); diff != "" {
		t.Errorf("the example differs from the defaults (-default +example):\n%s", diff)
	}
	data, err := os.ReadFile(path)
	must(t, err)
	var doc map[string]any
	must(t, yaml.Unmarshal(data, &doc))
	var compare func(path string, doc map[string]any, v reflect.Type)
	compare = func(path string, doc map[string]any, v reflect.Type) {
		for f := range v.Fields() {
			name := f.Tag.Get("yaml")
			value, ok := doc[name]
			if !ok {
				t.Errorf("the example lacks %s%s", path, name)
			}
			switch sub := value.(type) {
			case map[string]any:
				compare(path+name+".", sub, f.Type)
			case []any:
				for _, entry := range sub {
					compare(path+name+"[].", entry.(map[string]any), f.Type.Elem())
				}
			}
		}
	}
	compare("", doc, reflect.TypeFor[config.Config]())

	// The list that stands there as a comment is one, and is complete.
	text := strings.Replace(string(data), "\ninboxes: []\n", "\n", 1)
	text = regexp.MustCompile(`(?m)^#(inboxes:|  )`).ReplaceAllString(text, "$1")
	path = filepath.Join(t.TempDir(), "c.yaml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	got, err = config.Load(path)
	must(t, err)
	if len(got.Inboxes) != 1 {
		t.Errorf("%d inboxes in\n%s", len(got.Inboxes), text)
	}
	must(t, yaml.Unmarshal([]byte(text), &doc))
	compare("", doc, reflect.TypeFor[config.Config]())
}

// Each file in testdata/bad begins with comments that say which messages are
// expected, all of them and no others.
func TestBad(t *testing.T) {
	paths, err := filepath.Glob("testdata/bad/*.yaml")
	must(t, err)
	if len(paths) < 10 {
		t.Fatalf("%d fixtures", len(paths))
	}
	want := regexp.MustCompile(`(?m)^# want: (.*)$`)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		must(t, err)
		_, err = config.Load(path)
		if err == nil {
			t.Errorf("%s is accepted", path)
			continue
		}
		var wanted []string
		for _, m := range want.FindAllSubmatch(data, -1) {
			wanted = append(wanted, path+": "+string(m[1]))
		}
		if diff := cmp.Diff(wanted, strings.Split(err.Error(), "\n")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

func TestEmptyMeansDefaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	must(t, os.WriteFile(path, []byte("# nothing\n"), 0o600))
	got, err := config.Load(path)
	must(t, err)
	if diff := cmp.Diff(config.Default(), got); diff != "" {
		t.Error(diff)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]config.Size{"0": 0, "20MB": 20_000_000, "512KiB": 512 << 10, "1 GB": 1e9, "7B": 7, "7": 7} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "MB", "-1", "1.5MB", "20mb", "9999999999GB"} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is accepted as %d", text, s)
		}
	}
}

func TestDurations(t *testing.T) {
	const day = config.Duration(24 * time.Hour)
	for text, want := range map[string]config.Duration{"0": 0, "5s": config.Duration(5 * time.Second), "30d": 30 * day, "0d": 0, "1d12h": day + day/2, "1825d": 1825 * day} {
		var d config.Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d != want {
			t.Errorf("%s: %d, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "d", "5", "-1d", "1.5d", "1d-1h", "-5s", "1h1d", "1dd", "1d 1h", "65536d", "65535d2562000h"} {
		var d config.Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is accepted as %d", text, d)
		}
	}
}

// The inboxes that are worked with, with the defaults of all in each.
func TestDrops(t *testing.T) {
	load := func(text string) *config.Config {
		t.Helper()
		path := filepath.Join(t.TempDir(), "c.yaml")
		must(t, os.WriteFile(path, []byte(text), 0o600))
		c, err := config.Load(path)
		must(t, err)
		return &c
	}
	yes, no := true, false
	all := config.Defaults{Country: "LT", DocumentType: "ID_CARD", SkipAnalysis: &yes, ClientID: "folder", Meta: "required"}
	common := "defaults: {country: LT, documentType: ID_CARD, skipAnalysis: true, clientId: folder}\n"
	own := all
	own.Country, own.SkipAnalysis, own.Meta = "lv", &no, "optional"
	for text, want := range map[string][]config.Inbox{
		"root: /srv/spool/":         {{Name: "inbox", Path: "/srv/spool/inbox", Defaults: config.Defaults{Meta: "required"}}},
		common:                      {{Name: "inbox", Path: "/var/spool/idenfy-batch/inbox", Defaults: all}},
		"paths: {inbox: /srv/in}\n": {{Name: "inbox", Path: "/srv/in", Defaults: config.Defaults{Meta: "required"}}},
		common + "inboxes:\n  - {name: inbox, path: /var/spool/idenfy-batch/inbox/}\n  - {name: b, path: /srv/b/, receipts: /srv/r/, defaults: {country: lv, skipAnalysis: false, meta: optional}}\n": {
			{Name: "inbox", Path: "/var/spool/idenfy-batch/inbox", Defaults: all},
			{Name: "b", Path: "/srv/b", Receipts: "/srv/r", Defaults: own},
		},
	} {
		if diff := cmp.Diff(want, load(text).Drops()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	if got, want := own.ForMeta(), (meta.Defaults{Country: "LV", DocumentType: "ID_CARD", ByFolder: true, Optional: true}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), mode))
		must(t, os.Chmod(path, mode))
		return path
	}
	key, secret := write("key", "KEY\n", 0o600), write("secret", "SECRET", 0o640)
	t.Setenv("IDENFY_API_KEY", "envkey")
	t.Setenv("IDENFY_API_SECRET", "envsecret")
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	get := func(c config.Config) string {
		k, s, err := c.Credentials()
		if err != nil {
			return "error: " + err.Error()
		}
		return k + " " + s
	}
	c := config.Default()
	if got := get(c); got != "envkey envsecret" {
		t.Error(got)
	}
	write("idenfy-api-key", "credkey\n", 0o444) // as systemd lays them out
	write("idenfy-api-secret", "credsecret\n", 0o444)
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if got := get(c); got != "credkey credsecret" {
		t.Error(got)
	}
	c.API.KeyFile, c.API.SecretFile = key, secret
	if got := get(c); got != "KEY SECRET" {
		t.Error(got)
	}
	for name, path := range map[string]string{
		"others can read":     write("open", "KEY", 0o644),
		"is empty":            write("empty", "\n", 0o600),
		"more than one line":  write("lines", "a\nb\n", 0o600),
		"small regular file":  dir,
		"no such file":        filepath.Join(dir, "nothing"),
		"not a small regular": write("large", strings.Repeat("x", 5000), 0o600),
	} {
		c.API.KeyFile = path
		if got := get(c); !strings.Contains(got, name) || strings.Contains(got, "KEY") && strings.Contains(got, "SECRET") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// The ledger's key: of a file, else a credential, else the daemon's own, which
// may be missing. Nobody else may read it.
func TestLedgerKey(t *testing.T) {
	dir := t.TempDir()
	own, file := filepath.Join(dir, "own"), filepath.Join(dir, "file")
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	c := config.Default()
	get := func() string {
		key, from, err := c.LedgerKey(own)
		if err != nil {
			return "error: " + err.Error()
		}
		return key + " " + filepath.Base(from)
	}
	if got := get(); got != " own" {
		t.Error(got)
	}
	must(t, os.WriteFile(own, []byte("mine\n"), 0o600))
	if got := get(); got != "mine own" {
		t.Error(got)
	}
	must(t, os.Chmod(own, 0o640))
	if got := get(); !strings.Contains(got, "chmod 600") {
		t.Error(got)
	}
	must(t, os.WriteFile(filepath.Join(dir, "idenfy-batch-ledger-key"), []byte("credential\n"), 0o444))
	if got := get(); got != "credential idenfy-batch-ledger-key" {
		t.Error(got)
	}
	c.Ledger.KeyFile = file
	if got := get(); !strings.Contains(got, "no such file") {
		t.Error(got)
	}
	must(t, os.WriteFile(file, []byte("named"), 0o600))
	if got := get(); got != "named file" {
		t.Error(got)
	}
}

// Webhook keys: several, one a line, none that can be guessed.
func TestWebhookKeys(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	t.Setenv("IDENFY_WEBHOOK_KEY", "\n the-env-key\n")
	c := config.Default()
	if keys, err := c.WebhookKeys(); err != nil || !slices.Equal(keys, []string{"the-env-key"}) {
		t.Errorf("%q, %v", keys, err)
	}
	c.Verdict.KeyFile = filepath.Join(t.TempDir(), "keys")
	for text, want := range map[string]string{
		"the-first-key\r\nthe-second-key\n\n": "",
		"short\n":                             "anybody could guess",
		"two words\n":                         "no key has",
		"\n":                                  "is empty",
		strings.Repeat("a-long-key\n", 11):    "11 lines, and 10 at most",
	} {
		must(t, os.WriteFile(c.Verdict.KeyFile, []byte(text), 0o600))
		keys, err := c.WebhookKeys()
		if want == "" && (err != nil || !slices.Equal(keys, []string{"the-first-key", "the-second-key"})) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %q, %v", text, keys, err)
		}
	}
	must(t, os.Chmod(c.Verdict.KeyFile, 0o644))
	if _, err := c.WebhookKeys(); err == nil || !strings.Contains(err.Error(), "others can read") {
		t.Error(err)
	}
}
