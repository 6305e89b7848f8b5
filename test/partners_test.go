package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"idenfy-batch/internal/sample"
)

// partnerFolders is how many folders each partner uploads.
const partnerFolders = 50

// preparing makes what a partner uploads: /root/up/NAME/PREFIX-N, with the same
// names for all. Of each tenth the country is wrong; a customer has no meta.yaml.
const preparing = `#!/bin/bash
set -e
for i in $(seq "$3"); do
	d=/root/up/$1/$2-$i
	mkdir -p "$d" && cp --no-preserve=mode /srv/share/case/* "$d/"
	country=LT; [ $((i % 10)) != 0 ] || country=XX
	[ "$2" = customer ] || printf 'clientId: %s-%s\ncountry: %s\ndocumentType: ID_CARD\n' "$1" "$i" "$country" >"$d/meta.yaml"
done
`

// partnerBox is a Debian with the service, and what partners upload in /root/up.
type partnerBox struct{ *box }

// sftp runs commands of sftp as a partner, beside what he uploads.
func (b *partnerBox) sftp(name, commands string) (string, bool) {
	return b.exec(commands, "cd up/"+name+"; sftp -q -b - -i /root/"+name+" -o StrictHostKeyChecking=accept-new "+name+"@127.0.0.1 2>&1")
}

// can is sftp of what has to go well.
func (b *partnerBox) can(name, commands string) {
	b.t.Helper()
	if out, ok := b.sftp(name, commands); !ok {
		b.t.Fatalf("%s: %s\n%s", name, commands, out)
	}
}

// smb runs commands of smbclient as the scanner, and says whether they went well.
func (b *partnerBox) smb(commands string) (string, bool) {
	out, ok := b.exec(commands+"\n", "cd up/scanner-2; smbclient -U scanner-2%a-password //127.0.0.1/drop 2>&1")
	return out, ok && !strings.Contains(out, "NT_STATUS")
}

// settled waits until nothing is in any inbox and in work.
func (b *partnerBox) settled() {
	b.t.Helper()
	b.until("all have ended", func() bool {
		return b.try("ls -d /var/spool/idenfy-batch/partners/*/inbox/* /var/spool/idenfy-batch/inbox/* /var/spool/idenfy-batch/work/* 2>/dev/null | wc -l") == "0\n"
	})
}

// fetched reads the receipts that a partner got into a directory: the outcome
// of each, by the name of its file.
func (b *partnerBox) fetched(dir string) map[string]string {
	b.t.Helper()
	outcomes := map[string]string{}
	b.run("rm -f " + dir + "/_inbox.json") // of no folder
	names := strings.Fields(b.run("ls " + dir))
	for i, line := range strings.Split(strings.TrimSpace(b.run("cd "+dir+"; for f in $(ls); do tr -d '\\n' <$f; echo; done")), "\n") {
		if len(names) == 0 {
			break
		}
		var r struct{ Schema, Folder, Outcome, Inbox string }
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Schema != "idenfy-batch/receipt/v1" || r.Folder+".json" != names[i] {
			b.t.Errorf("%s/%s: %v: %s", dir, names[i], err, line)
		}
		outcomes[r.Folder] = r.Outcome
	}
	return outcomes
}

// receipts fetches them over SFTP.
func (b *partnerBox) receipts(name string) map[string]string {
	b.t.Helper()
	b.run("rm -rf got/" + name + "; mkdir -p got/" + name)
	b.can(name, "get -r receipts /root/got/"+name+"\n")
	return b.fetched("got/" + name + "/receipts")
}

// state is all that there is below the partners' directories.
func (b *partnerBox) state() string {
	return b.run("cd /var/spool/idenfy-batch/partners; find . -not -path '*/inbox/*' -not -name _inbox.json -printf '%p %y %u:%g %m %l\n' | sort; find . -type f -path '*/receipts/*' -not -name _inbox.json -exec sha256sum {} + | sort")
}

// Three partners over SFTP and a scanner over SMB, by sftp.md and smb.md word by
// word: each finds a receipt for each of his folders and for nobody else's, and
// can do nothing else.
func TestLabPartners(t *testing.T) {
	needsLab(t)
	t.Parallel()
	b := &partnerBox{newBox(t)}
	certificate(t, b.share)
	must(t, sample.Write(filepath.Join(b.share, "case"), map[string][]byte{"FRONT.jpg": front, "BACK.jpg": back, "FACE.jpg": face}))
	must(t, os.WriteFile(filepath.Join(b.share, "prepare"), []byte(preparing), 0o755))
	deb := fmt.Sprintf("/srv/dist/idenfy-batch_0.9.0_%s.deb", runtime.GOARCH)
	b.run("dpkg -x " + deb + " /opt/sandbox; apt-get install -y " + deb)
	b.startSandbox("/opt/sandbox/usr/bin/idenfy-batch")
	b.run("umask 077; echo the-api-key >/etc/idenfy-batch/api-key; echo the-api-secret >/etc/idenfy-batch/api-secret")
	b.run("sed -i 's/settle: 5s/settle: 1s/; s/warn_after: 1h/warn_after: 3s/' /etc/idenfy-batch/config.yaml; cp /etc/idenfy-batch/config.yaml before.yaml; systemctl enable --now idenfy-batch")
	people := []string{"branch-1", "branch-2", "branch-3"}
	for _, name := range people {
		b.run(fmt.Sprintf("ssh-keygen -q -t ed25519 -N '' -f %s; /srv/share/prepare %s case %d", name, name, partnerFolders))
	}
	b.run(fmt.Sprintf("/srv/share/prepare scanner-2 customer %d; mv up/scanner-2/customer-1 up/scanner-2/customer-4711", partnerFolders))

	b.step("the pages", func(t *testing.T) {
		for _, c := range slices.Concat(blocks(t, "sftp.md", "sh"), blocks(t, "smb.md", "sh")) {
			input := ""
			if strings.HasPrefix(c, "smbpasswd") {
				input = "a-password\na-password\n"
			}
			b.runWith(input, c)
		}
		t.Logf("the configuration has more:\n%s", b.try("diff before.yaml /etc/idenfy-batch/config.yaml"))
		b.run("! diff before.yaml /etc/idenfy-batch/config.yaml | grep '^<' | grep -v 'inboxes: '")
		b.run("idenfy-batch check")
	})
	b.step("200 folders", b.uploadAll)
	b.step("what a partner can't", b.canNot)
	b.step("what waits", b.waits)
	b.step("removed, and added again", b.removed)
	b.step("an account of another program", b.sftpgo)
	t.Logf("partners: %d folders of 4 partners, each with its receipt and none of another's", 4*partnerFolders)
}

// uploadAll has all upload at the same time: the first folder of each as the
// page says, the others at once.
func (b *partnerBox) uploadAll(t *testing.T) {
	b.run("for p in branch-1 branch-2 branch-3; do mv up/$p/case-8 up/$p.8; done")
	var scans strings.Builder
	for i := range partnerFolders - 1 {
		fmt.Fprintf(&scans, "cd \\inbox\nmkdir customer-%d\ncd customer-%d\nlcd /root/up/scanner-2/customer-%d\nmput *\n", i+2, i+2, i+2)
	}
	var all sync.WaitGroup
	for _, name := range []string{"branch-1", "branch-2", "branch-3"} {
		all.Go(func() {
			if out, ok := b.sftp(name, "put -r case-* inbox/\n"); !ok {
				t.Errorf("%s: %s", name, out)
			}
			b.try("mv up/" + name + ".8 up/" + name + "/case-8")
			for _, commands := range blocks(t, "sftp.md", "sftp") {
				if out, ok := b.sftp(name, commands); !ok {
					t.Errorf("%s: %s", name, out)
				}
			}
		})
	}
	all.Go(func() {
		if out, ok := b.smb("prompt\n" + scans.String()); !ok {
			t.Errorf("the scanner: %s", out)
		}
		for _, commands := range blocks(t, "smb.md", "smb") {
			if out, ok := b.smb("lcd customer-4711\n" + commands); !ok {
				t.Errorf("the scanner: %s", out)
			}
		}
	})
	all.Wait()
	b.settled()
	r := b.report()
	if n := 3*partnerFolders*9/10 + partnerFolders; r.Processed != n || len(r.Violations) > 0 || b.count("done") != n || b.count("failed") != 4*partnerFolders-n {
		t.Errorf("%d were to be taken, %d are done, %d failed; the API: %+v", n, b.count("done"), b.count("failed"), r)
	}
	for _, name := range []string{"branch-1", "branch-2", "branch-3"} {
		b.until("all receipts of "+name+" are there", func() bool { return len(b.receipts(name)) == partnerFolders })
		got := b.receipts(name)
		for i := range partnerFolders {
			want := "accepted"
			if (i+1)%10 == 0 {
				want = "invalid"
			}
			if folder := fmt.Sprintf("case-%d", i+1); got[folder] != want {
				t.Errorf("%s of %s is %q, and not %s", folder, name, got[folder], want)
			}
		}
		for _, commands := range blocks(t, "sftp.md", "receipt") {
			b.can(name, commands)
		}
		if n := strings.Count(b.run("idenfy-batch list --json --inbox "+name), `"inbox":"`+name+`"`); n != partnerFolders {
			t.Errorf("list knows %d folders of %s", n, name)
		}
	}
	b.run("mkdir -p got/scanner-2")
	for _, commands := range append(blocks(t, "smb.md", "receipt"), "lcd /root/got/scanner-2\ncd receipts\nprompt\nmget *\n") {
		if out, ok := b.smb(commands); !ok {
			t.Errorf("the scanner's receipts: %s", out)
		}
	}
	if got := b.fetched("got/scanner-2"); len(got) != partnerFolders || got["customer-4711"] != "accepted" || got["customer-50"] != "accepted" {
		t.Errorf("the scanner's receipts: %v", got)
	}
	b.run(`grep -q '"client_id": "customer-4711"' /var/spool/idenfy-batch/done/customer-4711/result.json`)
}

// canNot tries what a partner is not to be able to do: over SFTP, over SMB, and
// with a shell, should he ever get one.
func (b *partnerBox) canNot(t *testing.T) {
	before := b.state()
	b.can("branch-1", "ls inbox\nls receipts\n")
	for _, try := range []string{
		"put case-1/meta.yaml receipts/x", "put case-1/meta.yaml receipts/case-1.json", "rename receipts/case-1.json receipts/x", "rename receipts/case-1.json inbox/x",
		"rm receipts/case-1.json", "ln receipts/case-1.json receipts/x", "ln -s /etc/passwd receipts/x", "mkdir receipts/x", "rmdir receipts", "rename receipts x",
		"chmod 777 receipts", "chmod 666 receipts/case-1.json", "put case-1/meta.yaml x", "mkdir x", "rmdir inbox", "rename inbox x", "ln -s /etc x", "chmod 777 inbox",
		"ls ../branch-2", "ls /var/spool/idenfy-batch/work", "ls /../../done", "get /etc/passwd", "ls /proc",
	} {
		if out, ok := b.sftp("branch-1", try+"\n"); ok {
			t.Errorf("%s went well: %s", try, out)
		}
	}
	// A link out of the inbox leads nowhere.
	b.can("branch-1", "ln -s ../../../branch-2 inbox/out\n")
	if out, ok := b.sftp("branch-1", "ls inbox/out/receipts\n"); ok {
		t.Errorf("a link leads out: %s", out)
	}
	b.can("branch-1", "rm inbox/out\n")
	if out := b.try("ssh -i branch-1 -o BatchMode=yes branch-1@127.0.0.1 id; ssh -i branch-1 -o BatchMode=yes branch-2@127.0.0.1 id"); strings.Contains(out, "uid=") {
		t.Errorf("a shell: %s", out)
	}
	for _, try := range []string{
		"lcd customer-2\ncd receipts\nput FRONT.jpg x", "del receipts\\customer-2.json", "rename receipts\\customer-2.json receipts\\x", "mkdir receipts\\x", "mkdir x",
		"rmdir receipts", "cd ..\\branch-1\\receipts\nls", "cd \\receipts\\..\\..\\branch-1\nls",
	} {
		if out, ok := b.smb(try); ok && !strings.Contains(out, "customer-2.json") {
			t.Errorf("SMB: %s went well: %s", try, out)
		}
	}
	dir := "/var/spool/idenfy-batch"
	for _, try := range []string{
		"ls " + dir + "/partners/branch-2", "ls " + dir + "/partners/branch-2/inbox", "cat " + dir + "/partners/branch-2/receipts/case-1.json", "ls " + dir + "/work", "ls " + dir + "/done",
		"touch " + dir + "/partners/x", "touch " + dir + "/partners/branch-1/receipts/x", "rm -f " + dir + "/partners/branch-1/receipts/case-1.json",
		"echo x >>" + dir + "/partners/branch-1/receipts/case-1.json", "mv " + dir + "/partners/branch-1/receipts " + dir + "/partners/branch-1/x", "ls " + dir + "/journal",
	} {
		if out, ok := b.exec("", "su -s /bin/sh branch-1 -c '"+try+"' 2>&1"); ok {
			t.Errorf("%s went well: %s", try, out)
		}
	}
	if after := b.state(); after != before {
		t.Errorf("something was altered:\n%s\nwas\n%s", after, before)
	}
}

// waits: what is missing is said by a receipt, and what is added mends it.
func (b *partnerBox) waits(t *testing.T) {
	b.can("branch-2", "mkdir inbox/half\nput case-1/meta.yaml inbox/half/\nput case-1/FRONT.jpg inbox/half/\nput case-1/BACK.jpg inbox/half/\n")
	b.until("a receipt says what is missing", func() bool {
		b.sftp("branch-2", "get receipts/half.json /root/half.json\n")
		return strings.Contains(b.try("cat half.json"), "FACE")
	})
	t.Logf("its receipt:\n%s", b.run("cat half.json"))
	b.run("sed -i 's/^clientId:.*/clientId: half/' up/branch-2/case-1/meta.yaml")
	b.can("branch-2", "put case-1/meta.yaml inbox/half/\nput case-1/FACE.jpg inbox/half/\n")
	b.settled()
	b.until("its receipt says that it is accepted", func() bool { return b.receipts("branch-2")["half"] == "accepted" })
}

// removed: a partner goes, and comes again.
func (b *partnerBox) removed(t *testing.T) {
	b.can("branch-1", "mkdir inbox/last\n")
	if out := b.try("code=0; idenfy-batch partner remove branch-1 || code=$?; echo exit $code"); !strings.Contains(out, `inbox ("last"`) || !strings.HasSuffix(out, "exit 1\n") {
		t.Errorf("removed with a folder in his inbox: %s", out)
	}
	b.can("branch-1", "rmdir inbox/last\n")
	for range 2 {
		for _, c := range blocks(t, "sftp.md", "remove") {
			b.run(c)
		}
	}
	if out, ok := b.sftp("branch-1", "ls\n"); ok {
		t.Errorf("he still gets in: %s", out)
	}
	b.run("test ! -e /var/spool/idenfy-batch/partners/branch-1; ls -d /var/spool/idenfy-batch/done/case-1; idenfy-batch check")
	b.run("! getent passwd branch-1")
	b.can("branch-2", "ls receipts/case-1.json\n")
	b.run("idenfy-batch partner add branch-1 --key branch-1.pub; systemd-tmpfiles --create; sed -i 's/^clientId:.*/clientId: again/' up/branch-1/case-1/meta.yaml; mv up/branch-1/case-1 up/branch-1/again")
	b.can("branch-1", "put -r again inbox/\n")
	b.settled()
	b.until("he has a receipt", func() bool { return b.receipts("branch-1")["again"] == "accepted" })
	for _, c := range blocks(t, "smb.md", "remove") {
		b.run(c)
	}
	b.run("idenfy-batch check; journalctl --no-pager -u idenfy-batch -p err | grep -q -- '-- No entries --'")
}

// sftpgo: an account that is there already uploads for a partner, with temporary
// names as SFTPGo's.
func (b *partnerBox) sftpgo(*testing.T) {
	b.run("useradd -r -m -d /var/lib/sftpgo -s /usr/sbin/nologin sftpgo; idenfy-batch partner add branch-9 --account sftpgo; chmod a+rX /root /root/up -R")
	dir := "/var/spool/idenfy-batch/partners/branch-9"
	b.run("su -s /bin/sh sftpgo -c 'umask 022; cd /root/up/branch-2/case-2; mkdir " + dir + "/inbox/case-1; for f in meta.yaml FRONT.jpg BACK.jpg FACE.jpg; do cp $f " + dir + "/inbox/case-1/.sftpgo-upload.cq1k2fh0g5v3l8q2m1g0.$f; done'")
	b.until("it waits for the temporary names", func() bool { return strings.Contains(b.run("idenfy-batch status"), ".sftpgo-upload") })
	b.run("su -s /bin/sh sftpgo -c 'cd " + dir + "/inbox/case-1; sed -i s/^clientId:.*/clientId:\\ nine/ .s*.meta.yaml; for f in meta.yaml FRONT.jpg BACK.jpg FACE.jpg; do mv .sftpgo-upload.*.$f $f; done'")
	b.settled()
	b.until("it has a receipt", func() bool {
		return strings.Contains(b.try("su -s /bin/sh sftpgo -c 'cat "+dir+"/receipts/case-1.json'"), `"accepted"`)
	})
	b.run("! su -s /bin/sh sftpgo -c 'touch " + dir + "/receipts/x' 2>/dev/null")
	b.run("idenfy-batch partner remove branch-9; getent passwd sftpgo")
}
