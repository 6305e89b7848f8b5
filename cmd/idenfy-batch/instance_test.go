package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// --instance is short for a --config, wherever it stands.
func TestInstance(t *testing.T) {
	dir := t.TempDir()
	old := configDir
	configDir = dir
	t.Cleanup(func() { configDir = old })
	for name, text := range map[string]string{"acme.yaml": "root: " + dir + "\ncolour: red\n", "config.yaml": "", "branch-1.yaml": "", "Other.yaml": "", "note.txt": ""} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--instance acme status", exitConfig, dir + "/acme.yaml: line 2: unknown key"},
		{"status --instance acme", exitConfig, dir + "/acme.yaml: line 2: unknown key"},
		{"ledger --instance=acme checkpoint", exitConfig, dir + "/acme.yaml: line 2: unknown key"},
		{"--instance none status", exitConfig, "can't read the configuration: open " + dir + "/none.yaml"},
		{"--instance acme status -c x", exitUsage, "give one of them"},
		{"--instance config status", exitUsage, `"config" is no name of an instance`},
		{"--instance ../acme status", exitUsage, `"../acme" is no name of an instance`},
		{"--instance  status", exitUsage, `"" is no name of an instance`},
		{"--instance acme version", exitUsage, "reads no configuration"},
	} {
		var out, errs bytes.Buffer
		if code := run(strings.Split(c.args, " "), &out, &errs); code != c.code || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%s: %d, %s%s", c.args, code, out.String(), errs.String())
		}
	}
	var out bytes.Buffer
	if code := run([]string{"__complete", "status", "--instance", ""}, &out, &out); code != 0 || !strings.Contains(out.String(), "acme\nbranch-1\n:4\n") {
		t.Errorf("completion: %d, %s", code, out.String())
	}
}
