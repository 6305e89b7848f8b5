package daemon_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/sidecar"
)

// sent posts a webhook and returns the answer; 0: there was none.
func sent(client *http.Client, url, key string, body []byte) int {
	req, err := http.NewRequest(http.MethodPost, url+"/idenfy", bytes.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Idenfy-Signature", sandbox.Sign(body, key))
	res, err := client.Do(req)
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

func event() []byte { return sandbox.HookBody(sandbox.NewScanRef(), "APPROVED", true) }

// certificate makes one that signs itself, and puts it into the files.
func certificate(t *testing.T, cert, key string, serial int64) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	must(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}

// Keys, the address and the certificate change by reloads, and what can't be
// had leaves all as it was; a pause of submission doesn't matter.
func TestReceiver(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	must(t, os.WriteFile(keys, []byte("the-first-key\n"), 0o600))
	address := free(t)
	l := newLab(t, func(c *config.Config) {
		c.Verdict.Listen, c.Verdict.KeyFile = address, keys
	})
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	is := func(what, url, key string, want int) {
		t.Helper()
		if got := sent(plain, url, key, event()); got != want {
			t.Errorf("%s: %d in place of %d", what, got, want)
		}
	}
	url := "http://" + address
	is("first key", url, "the-first-key", 200)
	is("unknown key", url, "the-second-key", 401)
	must(t, os.WriteFile(keys, []byte("the-first-key\nthe-second-key\n"), 0o600))
	must(t, l.reload(nil, nil))
	is("first of two", url, "the-first-key", 200)
	is("second of two", url, "the-second-key", 200)
	must(t, os.WriteFile(keys, []byte("the-second-key\n"), 0o600))
	must(t, l.reload(nil, nil))
	is("taken out", url, "the-first-key", 401)

	if err := l.reload(func(c *config.Config) { c.Verdict.KeyFile = keys + "x" }, nil); err == nil || !strings.Contains(err.Error(), "webhook key") {
		t.Errorf("no key file: %v", err)
	}
	is("after a refused reload", url, "the-second-key", 200)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	if err := l.reload(func(c *config.Config) { c.Verdict.Listen = taken.Addr().String() }, nil); err == nil || !strings.Contains(err.Error(), "verdict.listen") {
		t.Errorf("a taken port: %v", err)
	}
	is("after a taken port", url, "the-second-key", 200)

	l.api.Always(&sandbox.Step{Status: 401, Identifier: "UNAUTHORIZED", Message: "no"})
	l.put("case-1")
	l.until("it is paused", func() bool { return strings.Contains(l.log.String(), "submission is paused") })
	is("while it is paused", url, "the-second-key", 200)
	l.api.Always(nil)

	other := free(t)
	must(t, l.reload(func(c *config.Config) { c.Verdict.Listen = other }, nil))
	is("the old address", url, "the-second-key", 0)
	is("another address", "http://"+other, "the-second-key", 200)
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for serial := range int64(2) {
		certificate(t, cert, key, serial+1)
		must(t, l.reload(func(c *config.Config) { c.Verdict.TLS = config.TLS{CertFile: cert, KeyFile: key} }, nil))
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
			if got := s.PeerCertificates[0].SerialNumber.Int64(); got != serial+1 {
				t.Errorf("certificate %d in place of %d", got, serial+1)
			}
			return nil
		}}}}
		if got := sent(client, "https://"+other, "the-second-key", event()); got != 200 {
			t.Errorf("https: %d", got)
		}
	}
	is("plain, where there is a certificate", "http://"+other, "the-second-key", 400)
	must(t, l.reload(func(c *config.Config) { c.Verdict.Listen = "" }, nil))
	if got := sent(plain, "https://"+other, "the-second-key", event()); got != 0 {
		t.Errorf("switched off: %d", got)
	}
	if log := l.log.String(); strings.Contains(log, "the-first-key") || strings.Contains(log, "JANE") {
		t.Error("a key or a person is in the log")
	}
}

// A folder gets its verdict by a webhook, one whose answer was lost is settled
// by it, without a status request, and both are told.
func TestVerdictArrives(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	must(t, os.WriteFile(keys, []byte("the-first-key\n"), 0o600))
	address := free(t)
	l := newLab(t, func(c *config.Config) {
		c.Verdict.Listen, c.Verdict.KeyFile = address, keys
		c.Retry.First = config.Duration(time.Second)
	})
	l.api.Webhook(sandbox.Webhooks{URL: "http://" + address + "/idenfy", Key: "the-first-key", Every: 50 * time.Millisecond, Script: func(ref string) []sandbox.Hook {
		// The first comes for certain before the answer is lost, and that is asked about.
		if status := sent(http.DefaultClient, "http://"+address, "the-first-key", sandbox.HookBody(ref, "REVIEWING", false)); status != http.StatusOK {
			t.Errorf("the first event: %d", status)
		}
		return []sandbox.Hook{{BadSignature: true}, {Overall: "DENIED", Final: true, Copies: 1}}
	}})
	for name, fault := range map[string]sandbox.Fault{"case-1": "", "case-2": sandbox.LoseAnswer} {
		ref := sandbox.NewScanRef()
		l.api.Issue(token(name), ref)
		l.api.Script(token(name), sandbox.Step{Fault: fault})
		must(t, sample.Write(filepath.Join(l.root, "inbox", name), map[string][]byte{
			"FRONT.jpg": sample.Front(), "FACE.jpg": sample.Face(), "meta.yaml": []byte(sample.Meta(token(name), "LT", "PASSPORT", "scanRef: "+ref)),
		}))
	}
	for _, name := range []string{"case-1", "case-2"} {
		l.until("the verdict of "+name, func() bool {
			root, err := os.OpenRoot(filepath.Join(l.root, "done", name))
			if err != nil {
				return false
			}
			defer root.Close()
			v, _, err := sidecar.ReadVerdict(root)
			return err == nil && v.Final && v.Overall == "DENIED" && len(v.Events) == 2
		})
	}
	if n := l.api.Report().Status; n != 0 {
		t.Errorf("%d status requests", n)
	}
	l.until("it is told", func() bool { return strings.Count(l.log.String(), `"verdict":"DENIED"`) == 2 })
	if log := l.log.String(); !strings.Contains(log, `"why":"signature"`) || strings.Contains(log, "contradict") {
		t.Error(log)
	}
}
