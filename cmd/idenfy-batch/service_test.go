package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// A check as the service takes over from the unit who it is and what it sees,
// and nothing of how it is watched; drop-ins come after.
func TestReadUnit(t *testing.T) {
	text, err := os.ReadFile("../../systemd/idenfy-batch@.service")
	must(t, err)
	s := readUnit("# /lib/systemd/system/idenfy-batch@.service\n"+string(text)+`
# /etc/systemd/system/idenfy-batch@acme.service.d/override.conf
[Unit]
Description=ours
[Service]
ReadWritePaths=
ReadWritePaths=/srv/100%%/%i \
	/srv/more
; a comment=x
Environment = HTTPS_PROXY=http://proxy:3128
WatchdogSec=1s
`, "idenfy-batch@acme.service", "acme")
	if s.user != "idenfy-batch-acme" || s.program != "/usr/bin/idenfy-batch" || s.config != "/etc/idenfy-batch/acme.yaml" {
		t.Errorf("%+v", s)
	}
	for _, want := range []string{
		"Group=idenfy-batch-acme", "LoadCredential=idenfy-api-key:/etc/idenfy-batch/acme/api-key", `SetCredential=idenfy-api-key:\n`, "ProtectSystem=strict",
		"ReadWritePaths=/var/spool/idenfy-batch-acme", "AmbientCapabilities=CAP_CHOWN CAP_FOWNER CAP_LEASE", "SystemCallFilter=~@privileged @resources",
		"Environment=HTTPS_PROXY=http://proxy:3128",
	} {
		if !slices.Contains(s.properties, want) {
			t.Errorf("%s is not among\n%s", want, strings.Join(s.properties, "\n"))
		}
	}
	if n := slices.Index(s.properties, "ReadWritePaths="); n < 0 || !strings.HasPrefix(s.properties[n+1], "ReadWritePaths=/srv/100%/acme") {
		t.Errorf("the drop-in is not in its order:\n%s", strings.Join(s.properties, "\n"))
	}
	for _, p := range s.properties {
		for _, not := range []string{"Type", "Exec", "Watchdog", "Restart", "Timeout", "RuntimeDirectory", "Description", "#", ";"} {
			if strings.HasPrefix(p, not) {
				t.Errorf("%s is no part of who it is and what it sees", p)
			}
		}
	}
}
