package test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
)

// box is a container with a Debian that systemd has booted.
type box struct {
	t     *testing.T
	init  int    // its process 1
	api   string // where the sandbox is reached in the box
	share string // a directory of the host, /srv/share in the box
}

// boxes lets there be one at a time: systemd-nspawn locks the Debian.
var boxes sync.Mutex

// newBox boots the Debian in the directory that IDENFY_BATCH_CONTAINER names.
// What is changed in it is gone afterwards. options are further ones of
// systemd-nspawn.
func newBox(t *testing.T, options ...string) *box {
	t.Helper()
	root := os.Getenv("IDENFY_BATCH_CONTAINER")
	if root == "" || os.Getenv("IDENFY_BATCH_DIST") == "" {
		t.Skip("set IDENFY_BATCH_CONTAINER to the root of a Debian, IDENFY_BATCH_DIST to built packages; .ci/run shows how")
	}
	boxes.Lock()
	t.Cleanup(boxes.Unlock)
	b := &box{t: t, share: t.TempDir(), api: "https://ivs.idenfy.com"}
	must(t, os.Chmod(b.share, 0o755))
	cmd := exec.Command("systemd-nspawn", append([]string{
		"-D", root, "--volatile=overlay", "--machine=idenfy-batch-test", "--register=no", "--keep-unit",
		"--private-network", "--boot", "--console=pipe", "--bind=" + b.share + ":/srv/share", "--bind-ro=" + os.Getenv("IDENFY_BATCH_DIST") + ":/srv/dist",
	}, options...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	console, err := os.Create(filepath.Join(t.TempDir(), "console"))
	must(t, err)
	cmd.Stdout, cmd.Stderr = console, console
	must(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is powered off
	}()
	t.Cleanup(func() {
		if t.Failed() {
			if b.init != 0 {
				t.Logf("status:\n%s", b.try("idenfy-batch status; ls -lR /var/spool/idenfy-batch/inbox /var/spool/idenfy-batch/work"))
				t.Logf("journal:\n%s", b.try("journalctl --no-pager -u idenfy-batch -n 120"))
			}
		}
		if b.init != 0 {
			_ = syscall.Kill(b.init, 34+4) // SIGRTMIN+4, an orderly power-off: systemd(1)
		}
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill() // the container ends with it
			<-ended
		}
		must(t, console.Close())
	})
	b.until("it has booted", func() bool {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if pid, convErr := strconv.Atoi(strings.TrimSpace(string(children))); err == nil && convErr == nil {
			b.init = pid
		}
		if b.init == 0 {
			return false
		}
		state := b.try("systemctl is-system-running")
		return strings.Contains(state, "running") || strings.Contains(state, "degraded")
	})
	return b
}

// exec runs a shell script in the box, as root in /root, and returns what it
// said, and whether it went well.
func (b *box) exec(input, script string) (string, bool) {
	cmd := exec.Command("nsenter", "-t", strconv.Itoa(b.init), "-m", "-u", "-i", "-p", "-n", "-C", "--", "bash", "-e", "-c", "cd /root; "+script)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "DEBIAN_FRONTEND=noninteractive", "LANG=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

// run is exec of what has to go well.
func (b *box) run(script string) string {
	b.t.Helper()
	return b.runWith("", script)
}

func (b *box) runWith(input, script string) string {
	b.t.Helper()
	out, ok := b.exec(input, script)
	if !ok {
		b.t.Fatalf("failed: %s\n%s", script, out)
	}
	return out
}

// try is exec of what may fail.
func (b *box) try(script string) string {
	out, _ := b.exec("", script)
	return out
}

// step is a part of the test, which stands on those before it: where it fails, so
// does the test.
func (b *box) step(name string, f func(t *testing.T)) {
	t := b.t
	t.Helper()
	if !t.Run(name, func(t *testing.T) {
		b.t = t
		f(t)
	}) {
		t.FailNow()
	}
	b.t = t
}

func (b *box) until(what string, cond func() bool) {
	b.t.Helper()
	for end := time.Now().Add(90 * time.Second); !cond(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("not within 90 s: %s", what)
		}
	}
}

// count returns how many folders are in a place, or in all inboxes.
func (b *box) count(place string) int {
	b.t.Helper()
	dirs := "/var/spool/idenfy-batch/" + place
	if place == "inbox" {
		dirs += " $(ls -d /var/spool/idenfy-batch/partners/*/inbox 2>/dev/null)"
	}
	n, err := strconv.Atoi(strings.TrimSpace(b.run("find " + dirs + " -mindepth 1 -maxdepth 1 -type d -not -name '.*' 2>/dev/null | wc -l")))
	must(b.t, err)
	return n
}

// settled waits until nothing is in the inbox and in work.
func (b *box) settled() {
	b.t.Helper()
	b.until("all have ended", func() bool { return b.count("inbox")+b.count("work") == 0 })
}

// property asks systemd about the service.
func (b *box) property(name string) string {
	b.t.Helper()
	return strings.TrimSpace(b.run("systemctl show --value -p " + name + " idenfy-batch"))
}

// startSandbox lets the service's name lead to the sandbox, which has the
// certificate for it. more are further flags.
func (b *box) startSandbox(program string, more ...string) {
	b.t.Helper()
	b.run("echo 127.0.0.1 ivs.idenfy.com >>/etc/hosts; cp /srv/share/cert.pem /usr/local/share/ca-certificates/lab.crt; update-ca-certificates")
	b.run("systemd-run --unit=sandbox " + program + " sandbox --listen 127.0.0.1:443 --tls-cert /srv/share/cert.pem --tls-key /srv/share/key.pem --key the-api-key --secret the-api-secret " + strings.Join(more, " "))
	b.until("the sandbox is there", func() bool {
		return strings.Contains(b.try("curl -s "+b.api+"/sandbox/report"), "processed")
	})
}

// report is the sandbox's count.
func (b *box) report() (r sandbox.Report) {
	b.t.Helper()
	must(b.t, json.Unmarshal([]byte(b.run("curl -s "+b.api+"/sandbox/report")), &r))
	return r
}

// script sets how the sandbox treats all requests: a list of steps in JSON.
func (b *box) script(steps string) {
	b.t.Helper()
	b.runWith(`{"steps": [`+steps+`]}`, "curl -sf -X POST --data-binary @- "+b.api+"/sandbox/script")
}

// drop puts folders into the inbox, each with a token of its own.
func (b *box) drop(prefix string, n int) {
	b.t.Helper()
	b.run(fmt.Sprintf("/srv/share/drop %s %d", prefix, n))
}

// dropper gets tokens as a site's own software does, and uploads.
const dropper = `#!/bin/bash
set -e
umask 007
for i in $(seq "$2"); do
	answer=$(curl -sSf -u the-api-key:the-api-secret -H 'Content-Type: application/json' -d "{\"clientId\": \"$1-$i\"}" https://ivs.idenfy.com/api/v2/token)
	token=$(sed 's/.*"authToken":"\([^"]*\)".*/\1/' <<<"$answer")
	ref=$(sed 's/.*"scanRef":"\([^"]*\)".*/\1/' <<<"$answer")
	rm -rf /tmp/new && cp -r --no-preserve=mode /srv/share/case /tmp/new
	printf 'authToken: %s\ncountry: LT\ndocumentType: ID_CARD\nscanRef: %s\n' "$token" "$ref" >/tmp/new/meta.yaml
	[ $((i % 2)) = 0 ] || touch /tmp/new/.ready
	cp -r --no-preserve=mode /tmp/new "/var/spool/idenfy-batch/inbox/$1-$i"
done
`

// certificate makes one for ivs.idenfy.com, as the box knows it, and for the
// name that verdicts.md uses.
func certificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ivs.idenfy.com"}, DNSNames: []string{"ivs.idenfy.com", "verdicts.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	private, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600))
}

var block = regexp.MustCompile("(?ms)^ *```(\\w+)\n(.*?)^ *```$")

// blocks returns the blocks of one language in a page of the documentation.
func blocks(t *testing.T, page, language string) (list []string) {
	t.Helper()
	text, err := os.ReadFile("../docs/" + page)
	must(t, err)
	for _, m := range block.FindAllSubmatch(text, -1) {
		if string(m[1]) == language {
			list = append(list, string(m[2]))
		}
	}
	if len(list) == 0 {
		t.Fatalf("%s has no block of %s", page, language)
	}
	return list
}

// An administrator's and an uploader's life with the package, in a Debian that
// systemd has booted: the pages of the documentation word by word, then all
// that can happen to a service.
func TestLabBooted(t *testing.T) {
	needsLab(t)
	t.Parallel()
	b := newBox(t)
	certificate(t, b.share)
	must(t, sample.Write(filepath.Join(b.share, "case"), map[string][]byte{
		"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face, "Jonas_Jonaitis.txt": []byte("Jonas Jonaitis, born 1970-01-01\n"),
	}))
	must(t, os.WriteFile(filepath.Join(b.share, "drop"), []byte(dropper), 0o755))
	deb := func(version string) string {
		return fmt.Sprintf("/srv/dist/idenfy-batch_%s_%s.deb", version, runtime.GOARCH)
	}
	b.run("cp " + deb("0.9.0") + " /root/; dpkg -x " + deb("0.9.0") + " /opt/sandbox")
	b.startSandbox("/opt/sandbox/usr/bin/idenfy-batch")
	upload := func(name string) {
		t.Helper()
		b.run("mkdir -p " + name + " && cp --no-preserve=mode /srv/share/case/* " + name + "/ && printf 'authToken: TOKEN-" + name + "-0123456789\\ncountry: LT\\ndocumentType: ID_CARD\\n' >" + name + "/meta.yaml")
	}
	edit := func(script string) {
		t.Helper()
		b.run("sed -i '" + script + "' /etc/idenfy-batch/config.yaml")
	}
	restart := func() { t.Helper(); b.run("systemctl restart idenfy-batch") }

	b.step("install.md", func(t *testing.T) {
		upload("case-7")
		commands := blocks(t, "install.md", "sh")
		if len(commands) > 8 {
			t.Errorf("%d commands", len(commands))
		}
		var said []string
		for _, c := range commands {
			input := ""
			switch {
			case strings.Contains(c, "api-key"):
				input = "the-api-key\n"
			case strings.Contains(c, "api-secret"):
				input = "the-api-secret\n"
			}
			said = append(said, b.runWith(input, c))
			if strings.Contains(c, "inbox/") {
				b.until("case-7 is done", func() bool { return b.count("done") == 1 })
			}
		}
		all := strings.Join(said, "\n")
		for _, want := range []string{"active (running)", "Status: \"0 in the inbox", "done     1", `"outcome": "accepted"`, "What is left to do"} {
			if !strings.Contains(all, want) {
				t.Errorf("%q is not said in:\n%s", want, all)
			}
		}
		t.Logf("install.md: %d commands from nothing to the first result", len(commands))
	})
	b.step("the system", func(t *testing.T) {
		if out := b.run("systemd-analyze verify --man=no idenfy-batch.service"); out != "" {
			t.Errorf("verify: %s", out)
		}
		out := b.run("systemd-analyze security --threshold=20 idenfy-batch.service | tail -n 1")
		t.Logf("exposure: %s", strings.TrimSpace(out))
		if out := b.run("stat -c '%U:%G %a %n' /var/spool/idenfy-batch /var/spool/idenfy-batch/*"); out != `root:root 755 /var/spool/idenfy-batch
idenfy-batch:idenfy-batch 2750 /var/spool/idenfy-batch/done
idenfy-batch:idenfy-batch 2750 /var/spool/idenfy-batch/failed
idenfy-batch:idenfy-batch 2750 /var/spool/idenfy-batch/hold
idenfy-batch:idenfy-drop 2770 /var/spool/idenfy-batch/inbox
idenfy-batch:idenfy-batch 750 /var/spool/idenfy-batch/journal
root:root 755 /var/spool/idenfy-batch/partners
idenfy-batch:idenfy-batch 700 /var/spool/idenfy-batch/work
` {
			t.Error(out)
		}
	})
	b.step("sftp.md", func(t *testing.T) {
		b.run("ssh-keygen -q -t ed25519 -N '' -f branch-1")
		for _, c := range blocks(t, "sftp.md", "sh") {
			b.run(c)
		}
		upload("case-8")
		for _, batch := range blocks(t, "sftp.md", "sftp") {
			b.runWith(batch, "sftp -q -b - -i branch-1 -o StrictHostKeyChecking=accept-new branch-1@127.0.0.1")
		}
		b.settled()
		b.run("grep '\"user\": \"branch-1\"' /var/spool/idenfy-batch/done/case-8/result.json")
		if out, ok := b.exec("ls /done\n", "sftp -q -b - -i branch-1 branch-1@127.0.0.1"); ok {
			t.Errorf("the uploader gets into done: %s", out)
		}
		// An auditor reads what was done, and can't write; an uploader can't look into it.
		b.run("useradd -m -G idenfy-batch auditor; useradd -m -G idenfy-drop uploader")
		b.run("su auditor -c 'cat /var/spool/idenfy-batch/done/case-8/result.json /var/spool/idenfy-batch/done/case-8/FRONT.jpg >/dev/null && ! touch /var/spool/idenfy-batch/done/case-8/x 2>/dev/null'")
		b.run("su auditor -c 'idenfy-batch show case-8 && idenfy-batch list' | grep 'done    accepted    case-8'")
		b.run("! su uploader -c 'ls /var/spool/idenfy-batch/done' 2>/dev/null")
	})
	b.step("put -r", func(t *testing.T) {
		// The client's put -r hands the local modes on: what umasks leave of them.
		for _, umask := range []string{"022", "027", "077"} {
			name := "put-" + umask
			upload(name)
			b.run("umask " + umask + "; mkdir " + name + "/originals; echo page >" + name + "/originals/p1.tif; chmod -R a+rwX " + name + "; chmod -R $(printf %o $((0777 & ~0" + umask + "))) " + name + "; find " + name + " -type f -exec chmod a-x {} +")
			b.runWith("put -r "+name+" inbox/\n", "sftp -q -b - -i branch-1 branch-1@127.0.0.1")
			b.run("umask " + umask + "; cp -r " + name + " /tmp/root-" + name + "; sed -i s/TOKEN-/ROOTS-/ /tmp/root-" + name + "/meta.yaml; cp -r /tmp/root-" + name + " /var/spool/idenfy-batch/inbox/")
		}
		b.settled()
		if out := b.run("find /var/spool/idenfy-batch/done/*put-0* -printf '%u:%g %m\n' | sort | uniq -c | sort -rn | awk '{print $2, $3}'"); out != `idenfy-batch:idenfy-batch 440
idenfy-batch:idenfy-batch 750
idenfy-batch:idenfy-batch 640
` {
			t.Errorf("done holds %s", out)
		}
		for name, who := range map[string]string{"put-022": "branch-1", "put-027": "branch-1", "put-077": "branch-1", "root-put-077": "root"} {
			b.run("grep -A 5 '\"uploader\"' /var/spool/idenfy-batch/done/" + name + "/result.json | grep '\"user\": \"" + who + "\"'")
		}
		// The journal is not in the way: a daemon that mends says nothing.
		b.run("idenfy-batch check | grep '✓ rights to seal'")
		b.run("su -s /bin/sh idenfy-batch -c 'idenfy-batch check' | grep '✓ rights to seal'")
	})
	b.step("an auditor in both groups", func(t *testing.T) {
		b.run("useradd -m -G idenfy-batch,idenfy-drop both")
		b.run("! su both -c 'ls /var/spool/idenfy-batch/work' 2>/dev/null")
		done := "/var/spool/idenfy-batch/done"
		b.run("su both -c 'cd /; find " + done + " -type f -exec cat {} + >/dev/null'")
		sum := b.run("find " + done + " -type f -exec sha256sum {} + | sort; find " + done + " -printf '%p %i %u %g %m\n' | sort")
		for _, try := range []string{
			"echo x >result.json", "rm -f result.json", "mv result.json r", "ln -f /etc/hostname result.json", "touch new", "mkdir new", "chmod g+w .", "chmod o+r FRONT.jpg",
			"truncate -s 0 FRONT.jpg", "echo x >>originals/p1.tif", "rm -rf originals", "mv originals ../x", "touch ../new", "mv ../put-022 ../y", "rm -rf ../put-022",
			"mv ../put-022 ../../inbox/", "chgrp idenfy-drop FRONT.jpg", "ln FRONT.jpg /var/spool/idenfy-batch/inbox/f",
		} {
			if out, ok := b.exec("", "su both -c 'cd "+done+"/put-022 && "+try+"' 2>&1"); ok {
				t.Errorf("%s went well: %s", try, out)
			}
		}
		if after := b.run("find " + done + " -type f -exec sha256sum {} + | sort; find " + done + " -printf '%p %i %u %g %m\n' | sort"); after != sum {
			t.Errorf("something was altered:\n%s\nwas\n%s", after, sum)
		}
		t.Log("an auditor in both groups can read all, and of 18 ways to alter it none")
	})
	b.step("hard links", func(*testing.T) {
		// A link kept in the inbox, and a descriptor: neither changes what was taken.
		upload("linked")
		b.run("chown -R branch-1:idenfy-drop linked; mv linked /var/spool/idenfy-batch/linked; mkdir -m 2770 /var/spool/idenfy-batch/inbox/.kept; ln /var/spool/idenfy-batch/linked/FRONT.jpg /var/spool/idenfy-batch/inbox/.kept/FRONT.jpg; mv /var/spool/idenfy-batch/linked /var/spool/idenfy-batch/inbox/")
		b.settled()
		b.run("echo forged >/var/spool/idenfy-batch/inbox/.kept/FRONT.jpg; cmp /srv/share/case/FRONT.jpg /var/spool/idenfy-batch/done/linked/FRONT.jpg; rm -r /var/spool/idenfy-batch/inbox/.kept")
	})
	b.step("smb.md", func(t *testing.T) {
		for _, c := range blocks(t, "smb.md", "sh") {
			input := ""
			if strings.HasPrefix(c, "smbpasswd") {
				input = "a-password\na-password\n"
			}
			b.runWith(input, c)
		}
		upload("case-9")
		for _, commands := range blocks(t, "smb.md", "smb") {
			b.runWith(commands, "cd case-9; smbclient -U scanner-2%a-password //127.0.0.1/drop")
		}
		b.until("it is done", func() bool {
			return strings.Contains(b.try("cat /var/spool/idenfy-batch/done/customer-4711/result.json"), `"accepted"`)
		})
		b.settled()
	})
	b.step("the journal", func(t *testing.T) {
		out := b.run("journalctl --no-pager -o json IDENFY_FOLDER=case-7")
		var line map[string]any
		must(t, json.Unmarshal([]byte(strings.Split(out, "\n")[0]), &line))
		for k, v := range map[string]string{"IDENFY_OUTCOME": "accepted", "PRIORITY": "6", "SYSLOG_IDENTIFIER": "idenfy-batch"} {
			if line[k] != v {
				t.Errorf("%s is %v, want %s: %s", k, line[k], v, out)
			}
		}
	})
	b.step("requeue", func(t *testing.T) {
		b.script(`{"status": 400, "identifier": "BAD_VALUE", "message": "no"}`)
		b.drop("again", 1)
		b.until("it has failed", func() bool { return b.count("failed") == 1 })
		b.script("")
		b.run("idenfy-batch requeue -m 'the service was wrong' again-1")
		b.settled()
		b.run("grep -q '\"user\": \"root\"' /var/spool/idenfy-batch/done/again-1/result.json")
		if out := b.run("stat -c %U /var/spool/idenfy-batch/done/again-1/result.json /var/spool/idenfy-batch/done/again-1/result.1.json"); out != "idenfy-batch\nidenfy-batch\n" {
			t.Errorf("owners: %s", out)
		}
	})
	b.step("given back", func(t *testing.T) {
		// requeue gives it to its uploader again, who mends it; resolve works as root and as the daemon's user.
		b.run("mkdir back; printf 'country: XX\n' >back/meta.yaml")
		b.runWith("put -r back inbox/\n", "sftp -q -b - -i branch-1 branch-1@127.0.0.1")
		b.until("it has failed", func() bool { return b.count("failed") == 1 })
		b.run("grep meta_sha256 /var/spool/idenfy-batch/failed/back/result.json")
		upload("mended")
		b.run("idenfy-batch requeue back")
		b.runWith("put mended/* inbox/back/\n", "sftp -q -b - -i branch-1 branch-1@127.0.0.1")
		b.until("it is done", func() bool { return b.try("ls /var/spool/idenfy-batch/done/back/result.1.json") != "" })
		b.settled()
		for i, as := range []string{"idenfy-batch resolve", "su -s /bin/sh idenfy-batch -c \"idenfy-batch resolve", "systemctl stop idenfy-batch; idenfy-batch resolve"} {
			name := fmt.Sprintf("held-%d", i)
			b.script(`{"fault": "lose_answer"}, {"status": 400, "identifier": "TOKEN_NOT_VALID", "message": "no"}`)
			upload(name)
			b.run("cp -r " + name + " /var/spool/idenfy-batch/inbox/")
			b.until("it is held", func() bool { return b.count("hold") == 1 })
			quote := ""
			if strings.Contains(as, "\"") {
				quote = "\""
			}
			b.run(as + " " + name + " --accepted" + quote)
			if out := b.run("stat -c '%U %a' /var/spool/idenfy-batch/done/" + name + "/result.json"); out != "idenfy-batch 640\n" {
				t.Errorf("%s: %s", as, out)
			}
			b.run("systemctl start idenfy-batch")
		}
		b.script("")
	})
	b.step("reload", func(t *testing.T) {
		edit("s/settle: 5s/settle: 1s/; /^metrics:/,/^$/s/listen: \"\"/listen: 127.0.0.1:9187/")
		b.run("systemctl reload idenfy-batch")
		b.until("metrics are there", func() bool {
			return strings.Contains(b.try("curl -s http://127.0.0.1:9187/metrics"), `idenfy_batch_folders_ended_total{outcome="accepted"}`)
		})
		b.run("curl -sf http://127.0.0.1:9187/healthz")
		edit("1i colour: red")
		b.run("! systemctl reload idenfy-batch")
		b.until("it is refused", func() bool { return strings.Contains(b.run("journalctl --no-pager -p err -u idenfy-batch"), "colour") })
		edit("1d")
		// A port that somebody else has: all stays as it was, and the journal says why.
		b.run("systemd-run --unit=taken /opt/sandbox/usr/bin/idenfy-batch sandbox --listen 127.0.0.1:9999")
		b.until("the port is taken", func() bool { return b.try("curl -s http://127.0.0.1:9999/sandbox/report") != "" })
		edit("s/listen: 127.0.0.1:9187/listen: 127.0.0.1:9999/")
		b.run("! systemctl reload idenfy-batch")
		b.until("it is refused", func() bool {
			return strings.Contains(b.run("journalctl --no-pager -p err -u idenfy-batch"), "127.0.0.1:9999: bind: address already in use")
		})
		b.run("curl -sf http://127.0.0.1:9187/healthz")
		edit("s/listen: 127.0.0.1:9999/listen: 127.0.0.1:9187/")
		b.run("idenfy-batch reload | grep 'systemctl restart'")
		b.run("su auditor -c 'idenfy-batch reload 2>&1' | grep 'only root'")
		b.drop("reload", 2)
		b.settled()
		if n := b.property("NRestarts"); n != "0" {
			t.Errorf("%s restarts", n)
		}
	})
	b.step("kill -9", func(*testing.T) {
		b.script(`{"latency": 100000000}`)
		b.drop("killed", 10)
		b.run("systemctl kill -s KILL idenfy-batch")
		b.until("it is up again", func() bool { return b.property("NRestarts") == "1" && b.property("ActiveState") == "active" })
		b.settled()
		b.script("")
	})
	b.step("a hang", func(t *testing.T) {
		b.run("mkdir -p /run/systemd/system/idenfy-batch.service.d; printf '[Service]\\nWatchdogSec=3s\\nTimeoutAbortSec=1s\\nRestartSec=1s\\n' >/run/systemd/system/idenfy-batch.service.d/lab.conf; systemctl daemon-reload")
		restart()
		time.Sleep(5 * time.Second) // more than one period of being fed
		if n := b.property("NRestarts"); n != "0" {
			t.Errorf("%s restarts of a healthy service", n)
		}
		b.run("systemctl kill -s STOP idenfy-batch")
		b.drop("hung", 3)
		b.until("the watchdog has restarted it", func() bool { return b.property("NRestarts") == "1" && b.property("ActiveState") == "active" })
		b.settled()
		b.run("journalctl --no-pager -u idenfy-batch | grep -q 'Watchdog timeout'")
	})
	// What is wrong at the start: one clear message, and no loop.
	refused := func(name, spoil, mend, says string) {
		b.step(name, func(t *testing.T) {
			b.run(spoil)
			since := strings.TrimSpace(b.run("date '+%F %T'"))
			b.try("systemctl restart idenfy-batch")
			time.Sleep(4 * time.Second) // longer than RestartSec=
			out := b.run("journalctl --no-pager -o cat -u idenfy-batch -t idenfy-batch --since '" + since + "'")
			if n := strings.Count(out, says); n != 1 || b.property("NRestarts") != "0" || b.property("ExecMainStatus") != "78" {
				t.Errorf("%q is said %d times, %s restarts, status %s:\n%s", says, n, b.property("NRestarts"), b.property("ExecMainStatus"), out)
			}
			b.run(mend)
			restart()
		})
	}
	refused("bad configuration", "sed -i '1i colour: red' /etc/idenfy-batch/config.yaml", "sed -i 1d /etc/idenfy-batch/config.yaml", "colour")
	refused("missing credential", "mv /etc/idenfy-batch/api-key /root/", "mv /root/api-key /etc/idenfy-batch/", "the API key is missing")
	refused("another mount", "mount --bind /var/spool/idenfy-batch/done /var/spool/idenfy-batch/done", "umount /var/spool/idenfy-batch/done", "are not on one mount")
	refused("not writable", "chown root /var/spool/idenfy-batch/hold", "chown idenfy-batch /var/spool/idenfy-batch/hold", "it needs to own them")
	b.step("stop under load", func(t *testing.T) {
		b.script(`{"latency": 300000000}`)
		b.drop("stopped", 12)
		begin := time.Now()
		b.run("systemctl stop idenfy-batch")
		took := time.Since(begin)
		b.run("su auditor -c 'idenfy-batch show case-8 && idenfy-batch list' | grep 'done    accepted    case-8'")
		if took > 30*time.Second || b.property("Result") != "success" {
			t.Errorf("the stop took %s: %s", took, b.property("Result"))
		}
		if n := b.count("inbox") + b.count("work"); n == 0 {
			t.Error("there was no load")
		}
		b.run("systemctl start idenfy-batch")
		b.settled()
		t.Logf("stop under load: %s", took.Round(time.Millisecond))
	})
	b.step("upgrade under load", func(t *testing.T) {
		loaded := make(chan string)
		go func() {
			out, ok := b.exec("", "/srv/share/drop upgraded 40")
			if ok {
				out = ""
			}
			loaded <- out
		}()
		b.until("the load has begun", func() bool { return b.count("inbox")+b.count("work") > 0 })
		b.run("apt-get install -y " + deb("0.9.1"))
		if out := b.run("idenfy-batch version"); !strings.Contains(out, "0.9.1") {
			t.Error(out)
		}
		if out := <-loaded; out != "" {
			t.Fatal(out)
		}
		b.settled()
		b.script("")
		b.run("grep -q 'settle: 1s' /etc/idenfy-batch/config.yaml")
		b.run("grep -q '\"version\": \"0.9.1\"' /var/spool/idenfy-batch/done/upgraded-40/result.json")
	})
	b.step("the count", func(t *testing.T) {
		r := b.report()
		done, failed, hold := b.count("done"), b.count("failed"), b.count("hold")
		if r.Processed != done || failed+hold != 0 || len(r.Violations) > 0 {
			t.Errorf("%d done, %d failed, %d on hold; the API: %+v", done, failed, hold, r)
		}
		t.Logf("booted: %d folders, 0 lost, 0 twice", done)
	})
	b.step("nothing private in the journal", func(t *testing.T) {
		journal := b.run("journalctl --no-pager -o export")
		secrets := []string{"the-api-key", "the-api-secret", "a-password", "Jonas", "Jonaitis"}
		tokens := strings.Fields(b.run("sed -sn 's/^authToken: //p; s/^scanRef: //p' /var/spool/idenfy-batch/*/*/meta.yaml"))
		for _, data := range [][]byte{front, back, face} {
			secrets = append(secrets, base64.StdEncoding.EncodeToString(data)[:16])
		}
		if len(tokens) < 60 || len(journal) < 10_000 {
			t.Fatalf("only %d tokens, and %d bytes of journal", len(tokens), len(journal))
		}
		for i, s := range append(secrets, tokens...) {
			// The lab's own commands tell of theirs.
			if strings.Contains(journal, s) && !bytes.Contains([]byte("the-api-key the-api-secret"), []byte(s)) {
				t.Errorf("secret %d, %.8s…, stands in the journal", i, s)
			}
		}
		own := b.run("journalctl --no-pager -o export -u idenfy-batch")
		for _, s := range []string{"the-api-key", "the-api-secret"} {
			if strings.Contains(own, s) {
				t.Errorf("%s stands in the service's journal", s)
			}
		}
		t.Logf("the journal, %d KiB: none of %d tokens, references, names and secrets is in it", len(journal)>>10, len(tokens)+len(secrets))
	})
	b.step("remove and purge", func(t *testing.T) {
		before := b.count("done")
		if out := b.run("apt-get remove -y idenfy-batch"); !strings.Contains(out, "the spool /var/spool/idenfy-batch and the configuration stay") {
			t.Error(out)
		}
		b.run("test -f /etc/idenfy-batch/config.yaml -a ! -e /usr/bin/idenfy-batch")
		if out := b.run("apt-get purge -y idenfy-batch"); !strings.Contains(out, "what purge leaves") {
			t.Error(out)
		}
		b.run("test ! -e /etc/idenfy-batch/config.yaml -a -f /etc/idenfy-batch/api-key")
		if n := b.count("done"); n != before {
			t.Errorf("%d of %d folders are left", n, before)
		}
	})
}
