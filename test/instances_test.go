package test

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"idenfy-batch/internal/sample"
)

// Two accounts on one host, by instances.md word by word: an instance beside the
// service without a name, each with its own key, sandbox and spool; and check,
// which root runs as the service is run.
func TestLabInstances(t *testing.T) {
	needsLab(t)
	t.Parallel()
	b := newBox(t)
	certificate(t, b.share)
	must(t, sample.Write(filepath.Join(b.share, "case"), map[string][]byte{"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face}))
	deb := fmt.Sprintf("/srv/dist/idenfy-batch_0.9.0_%s.deb", runtime.GOARCH)
	b.run("dpkg -x " + deb + " /opt/sandbox; apt-get install -y " + deb)
	b.startSandbox("/opt/sandbox/usr/bin/idenfy-batch")
	b.run("systemd-run --unit=other /opt/sandbox/usr/bin/idenfy-batch sandbox --listen 127.0.0.1:8081 --key acme-key --secret acme-secret")
	b.until("the other sandbox is there", func() bool {
		return strings.Contains(b.try("curl -s http://127.0.0.1:8081/sandbox/report"), "processed")
	})
	exits := func(code int, script string) string {
		t.Helper()
		out := b.try("code=0; { " + script + "; } || code=$?; echo exit $code")
		if !strings.HasSuffix(out, fmt.Sprintf("exit %d\n", code)) {
			t.Errorf("%s: not %d:\n%s", script, code, out)
		}
		return out
	}
	says := func(out string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not said in:\n%s", want, out)
			}
		}
	}

	// check without credentials, with a wrong key, with wrong configuration; then with all that is needed, before the first start.
	says(exits(1, "idenfy-batch check"), "as idenfy-batch.service: user idenfy-batch,", "✗ credentials", "the systemd credential idenfy-api-key is empty")
	b.run("umask 077; echo wrong-api-key >/etc/idenfy-batch/api-key; echo the-api-secret >/etc/idenfy-batch/api-secret")
	says(exits(1, "idenfy-batch check"), "✓ credentials", "✗ connection to https://ivs.idenfy.com", "HTTP 401")
	b.run("echo the-api-key >/etc/idenfy-batch/api-key")
	says(exits(0, "idenfy-batch check"), "✓ spool /var/spool/idenfy-batch", "✓ rights to seal", "✓ connection to https://ivs.idenfy.com")
	says(exits(0, "idenfy-batch check --config /etc/idenfy-batch/config.yaml"), "as idenfy-batch.service")
	b.run("cp /etc/idenfy-batch/config.yaml /root/; echo 'colour: red' >>/etc/idenfy-batch/config.yaml")
	says(exits(78, "idenfy-batch check"), "✗ configuration", "colour")
	b.run("cp /root/config.yaml /etc/idenfy-batch/config.yaml")
	// The sandbox's view: a spool that the unit does not let it write to, and, with a drop-in, one that it does.
	b.run("cp -a /var/spool/idenfy-batch /var/lib/elsewhere; sed -i 's|^root: .*|root: /var/lib/elsewhere|' /etc/idenfy-batch/config.yaml")
	says(exits(1, "idenfy-batch check"), "✗ spool /var/lib/elsewhere", "read-only file system")
	b.run("mkdir -p /etc/systemd/system/idenfy-batch.service.d; printf '[Service]\\nReadWritePaths=\\nReadWritePaths=/var/lib/elsewhere\\n' >/etc/systemd/system/idenfy-batch.service.d/spool.conf")
	says(exits(0, "idenfy-batch check"), "✓ spool /var/lib/elsewhere")
	b.run("rm -r /etc/systemd/system/idenfy-batch.service.d; cp /root/config.yaml /etc/idenfy-batch/config.yaml")
	// A configuration of no service is checked as who asks.
	says(exits(1, "idenfy-batch check --here"), "✗ credentials")
	says(exits(1, "cp /etc/idenfy-batch/config.yaml /root/mine.yaml && idenfy-batch check --config /root/mine.yaml"), "✗ credentials")
	// While the daemon runs, its socket stays where it is.
	b.run("systemctl start idenfy-batch; idenfy-batch check; test -S /run/idenfy-batch/control.sock; idenfy-batch reload")

	for _, c := range blocks(t, "instances.md", "sh") {
		input := ""
		switch {
		case strings.Contains(c, "acme/api-key"):
			input = "acme-key\n"
		case strings.Contains(c, "acme/api-secret"):
			input = "acme-secret\n"
		}
		says(b.runWith(input, c), map[bool]string{true: "as idenfy-batch@acme.service: user idenfy-batch-acme", false: ""}[strings.Contains(c, "check")])
		if strings.Contains(c, "acme.yaml") {
			b.run("echo 'api: {base_url: \"http://127.0.0.1:8081\"}' >>/etc/idenfy-batch/acme.yaml")
		}
	}
	if out := b.run("systemd-analyze verify --man=no idenfy-batch@acme.service idenfy-batch-verdict@acme.socket"); out != "" {
		t.Errorf("verify: %s", out)
	}
	for i, spool := range []string{"idenfy-batch", "idenfy-batch-acme"} {
		for n := range 5 {
			b.run(fmt.Sprintf("cp -r --no-preserve=mode /srv/share/case /tmp/c && printf 'clientId: person-%d\\ncountry: LT\\ndocumentType: ID_CARD\\n' >/tmp/c/meta.yaml && touch /tmp/c/.ready && mv /tmp/c /var/spool/%s/inbox/of-%d-%d", n, spool, i, n))
		}
	}
	b.until("all are done", func() bool {
		return strings.TrimSpace(b.run("ls -d /var/spool/idenfy-batch/done/of-0-* /var/spool/idenfy-batch-acme/done/of-1-* 2>/dev/null | wc -l")) == "10"
	})
	for _, api := range []string{b.api, "http://127.0.0.1:8081"} {
		says(b.run("curl -s "+api+"/sandbox/report"), `"processed":5`, `"violations":[]`)
	}
	says(b.run("idenfy-batch --instance acme list"), "of-1-4")
	says(b.run("idenfy-batch list"), "of-0-4")
	// Neither sees the other's: the users are others, and the sandbox lets each write to its own spool only.
	b.run("! su -s /bin/sh idenfy-batch-acme -c 'ls /var/spool/idenfy-batch/done' 2>/dev/null")
	b.run("! su -s /bin/sh idenfy-batch -c 'ls /var/spool/idenfy-batch-acme/done' 2>/dev/null")
	b.run("cp /etc/idenfy-batch/acme.yaml /root/; sed -i '/^root:/d' /etc/idenfy-batch/acme.yaml")
	exits(1, "idenfy-batch --instance acme check")
	b.run("! systemctl restart idenfy-batch@acme")
	b.run("systemctl show -P ExecMainStatus idenfy-batch@acme | grep -x 78; cp /root/acme.yaml /etc/idenfy-batch/")
	// A partner of the instance's.
	b.run("systemctl start idenfy-batch@acme; idenfy-batch --instance acme partner add acme-1")
	says(b.run("cat /etc/idenfy-batch/acme.yaml; stat -c '%U:%G %a' /var/spool/idenfy-batch-acme/partners/acme-1/inbox"), "name: acme-1", "idenfy-batch-acme:idenfy-drop-acme 2770")
	b.run("cp -r --no-preserve=mode /srv/share/case /tmp/c && chmod 777 /tmp/c && printf 'clientId: of-acme-1\ncountry: LT\ndocumentType: ID_CARD\n' >/tmp/c/meta.yaml; su -s /bin/sh acme-1 -c 'cp -r /tmp/c /var/spool/idenfy-batch-acme/partners/acme-1/inbox/of-acme-1'")
	b.until("his folder is done", func() bool {
		return b.try("ls /var/spool/idenfy-batch-acme/done/of-acme-1/result.json") == "/var/spool/idenfy-batch-acme/done/of-acme-1/result.json\n"
	})
	says(exits(1, "idenfy-batch partner add acme-1"), "which is no partner's (its home is /var/spool/idenfy-batch-acme/partners/acme-1)")
	b.run("idenfy-batch --instance acme partner remove acme-1; rm -r /tmp/c; systemctl stop idenfy-batch@acme")
	// Webhooks by a socket of its own.
	b.run("echo the-key-of-acme >/etc/idenfy-batch/acme/webhook-key; systemctl enable --now idenfy-batch-verdict@acme.socket; systemctl start idenfy-batch@acme")
	says(b.run("curl -s -o /dev/null -w '%{http_code}' --unix-socket /run/idenfy-batch-acme.sock -d '{}' http://localhost/idenfy"), "401")
	// Encrypted credentials, as the page has them.
	b.run("systemctl disable --now idenfy-batch-verdict@acme.socket; rm /etc/idenfy-batch/acme/webhook-key; " + blocks(t, "instances.md", "encrypt")[0])
	b.runWith(blocks(t, "instances.md", "ini")[0], "mkdir /etc/systemd/system/idenfy-batch@acme.service.d; cat >/etc/systemd/system/idenfy-batch@acme.service.d/override.conf; systemctl daemon-reload; systemctl restart idenfy-batch@acme")
	says(exits(0, "idenfy-batch --instance acme check"), "✓ credentials", "✓ connection to http://127.0.0.1:8081")
	// An upgrade restarts both, a removal ends both.
	b.run("apt-get install -y /srv/dist/idenfy-batch_0.9.1_" + runtime.GOARCH + ".deb; systemctl is-active idenfy-batch idenfy-batch@acme")
	says(b.run("curl -s --unix-socket /run/idenfy-batch-acme/control.sock http://x/ >/dev/null; readlink /proc/$(systemctl show -P MainPID idenfy-batch@acme)/exe"), "/usr/bin/idenfy-batch\n")
	for _, c := range blocks(t, "instances.md", "remove") {
		b.run(c)
	}
	b.run("systemctl is-active idenfy-batch; test -d /var/spool/idenfy-batch-acme/done/of-1-1")
	b.run("! systemctl is-active idenfy-batch@acme")
	b.run("systemctl enable idenfy-batch@left; apt-get remove -y idenfy-batch; test ! -e /etc/systemd/system/multi-user.target.wants/idenfy-batch@left.service")
	b.run("! systemctl is-active idenfy-batch")
	t.Log("instances: 10 folders by 2 services with 2 keys to 2 sandboxes, none to the other's")
}
