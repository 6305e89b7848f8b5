package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

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
