package test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Private servers on loopback, in front of an inbox. Each is started only
// where it is installed, and ended by its process id.

// freePort returns a port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, err)
	must(t, l.Close())
	return port
}

// serve starts a server, waits until it listens, and has the test's end end it.
func serve(t *testing.T, port string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the group that it leads
		_ = cmd.Wait()                                      // killed, so it says
	})
	addr := "127.0.0.1:" + port
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			must(t, c.Close())
			return addr
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not listen: %s", name, out.String())
		}
	}
}

func (a *arrivalLab) startSSH(t *testing.T) {
	t.Helper()
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		return
	}
	dir, port := t.TempDir(), freePort(t)
	a.key = filepath.Join(dir, "key")
	for _, name := range []string{"key", "host"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	must(t, os.MkdirAll("/run/sshd", 0o755)) // sshd wants it, wherever its configuration is
	config := filepath.Join(dir, "sshd_config")
	must(t, os.WriteFile(config, []byte(fmt.Sprintf(`ListenAddress 127.0.0.1
Port %s
HostKey %s/host
AuthorizedKeysFile %s/key.pub
PasswordAuthentication no
PermitRootLogin yes
StrictModes no
UsePAM no
PidFile none
MaxStartups 200
Subsystem sftp internal-sftp
`, port, dir, dir)), 0o600))
	a.ssh = serve(t, port, sshd, "-D", "-e", "-f", config)
}

func (a *arrivalLab) startSMB(t *testing.T) {
	t.Helper()
	if !installed("smbd") {
		return
	}
	dir, port := t.TempDir(), freePort(t)
	config := filepath.Join(dir, "smb.conf")
	must(t, os.WriteFile(config, []byte(fmt.Sprintf(`[global]
 server role = standalone server
 interfaces = 127.0.0.1
 bind interfaces only = yes
 smb ports = %s
 private dir = %[2]s
 lock directory = %[2]s
 state directory = %[2]s
 cache directory = %[2]s
 pid directory = %[2]s
 ncalrpc dir = %[2]s/rpc
 log file = %[2]s/log
 map to guest = Bad User
 guest account = root
 disable netbios = yes
 load printers = no
[inbox]
 path = %[3]s/inbox
 guest ok = yes
 read only = no
 force user = root
[second]
 path = %[3]s/second
 guest ok = yes
 read only = no
 force user = root
`, port, dir, a.root)), 0o600))
	a.smb = serve(t, port, "smbd", "--foreground", "--no-process-group", "-s", config)
}

func (a *arrivalLab) startFTP(t *testing.T) {
	t.Helper()
	if !installed("vsftpd") {
		return
	}
	port := freePort(t)
	config := filepath.Join(t.TempDir(), "vsftpd.conf")
	must(t, os.WriteFile(config, []byte(fmt.Sprintf(`listen=YES
listen_address=127.0.0.1
listen_port=%s
run_as_launching_user=YES
background=NO
anonymous_enable=YES
no_anon_password=YES
anon_root=%s
write_enable=YES
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_umask=022
allow_writeable_chroot=YES
seccomp_sandbox=NO
`, port, a.root)), 0o600))
	a.ftp = serve(t, port, "vsftpd", config)
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
