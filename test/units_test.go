package test

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var updateUnits = flag.Bool("units.update", false, "write the files of instances anew")

// What an instance has of its own, in place of what the one service has.
var (
	ofUnit = strings.NewReplacer(
		"Description=Submit dropped folders to iDenfy\n", "Description=Submit dropped folders to iDenfy (%i)\n",
		"/etc/idenfy-batch/config.yaml", "/etc/idenfy-batch/%i.yaml",
		":/etc/idenfy-batch/", ":/etc/idenfy-batch/%i/",
		"/var/spool/idenfy-batch", "/var/spool/idenfy-batch-%i",
		"User=idenfy-batch\n", "User=idenfy-batch-%i\n",
		"Group=idenfy-batch\n", "Group=idenfy-batch-%i\n",
		"RuntimeDirectory=idenfy-batch\n", "RuntimeDirectory=idenfy-batch-%i\n",
		"/run/idenfy-batch/", "/run/idenfy-batch-%i/",
		"group idenfy-drop,", "group idenfy-drop-%i,",
	)
	ofNames = strings.NewReplacer("of idenfy-batch,", "of an instance of idenfy-batch,", "\"idenfy-batch ", "\"idenfy-batch ", "idenfy-batch", "idenfy-batch-%i", "idenfy-drop", "idenfy-drop-%i")
)

// An instance's unit, users and directories are those of the one service, but
// for their names: -units.update writes them so.
func TestInstanceFiles(t *testing.T) {
	for _, f := range []struct {
		from, to, head, tail string
		own                  *strings.Replacer
	}{
		{"idenfy-batch.service", "idenfy-batch@.service", "# One of several, each with an account of its own at iDenfy, see docs/instances.md. Made from idenfy-batch.service.\n", "", ofUnit},
		{"idenfy-batch.sysusers", "idenfy-batch@.sysusers", "# For each instance its name is put in place of %i, see docs/instances.md. Made from idenfy-batch.sysusers.\n", "", ofNames},
		{"idenfy-batch.tmpfiles", "idenfy-batch@.tmpfiles", "# For each instance its name is put in place of %i, see docs/instances.md. Made from idenfy-batch.tmpfiles.\n",
			"# Its credentials: api-key, api-secret, webhook-key.\nd /etc/idenfy-batch/%i 0700 root root -\n", ofNames},
	} {
		from, err := os.ReadFile("../systemd/" + f.from)
		must(t, err)
		text := f.head + f.own.Replace(string(from)) + f.tail
		path := "../systemd/" + f.to
		if *updateUnits {
			must(t, os.WriteFile(path, []byte(text), 0o644))
		}
		if there, err := os.ReadFile(path); err != nil || string(there) != text {
			t.Errorf("%s is not made from %s (%v); write it anew: go test ./test -run TestInstanceFiles -units.update", f.to, f.from, err)
		}
	}
}
