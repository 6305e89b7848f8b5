package daemon_test

import (
	"path/filepath"
	"slices"
	"testing"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
)

// A reload brings other defaults into force: for what waits in the inbox, and not
// for what was begun with.
func TestReloadDefaults(t *testing.T) {
	l := newLab(t, func(*config.Config) {})
	scan := func(name string) {
		t.Helper()
		must(t, sample.Write(filepath.Join(l.root, "inbox", name), map[string][]byte{
			"FRONT.jpg": sample.Pad(sample.Front(), 60_000, uint64(len(name))), "FACE.jpg": sample.Face(), "BACK.jpg": sample.Back(),
		}))
	}
	scan("case-7")
	must(t, sample.Write(filepath.Join(l.root, "inbox", "begun"), map[string][]byte{
		"FRONT.jpg": sample.Front(), "FACE.jpg": sample.Face(), "meta.yaml": []byte("clientId: begun\ncountry: LT\ndocumentType: PASSPORT\n"),
	}))
	l.until("the other one is taken", func() bool { return slices.Contains(l.names("done"), "begun") })
	if n := len(l.api.Sessions("")); n != 1 {
		t.Fatalf("%d sessions", n)
	}
	l.api.Always(&sandbox.Step{Status: 503})
	must(t, l.reload(func(c *config.Config) {
		c.Defaults = config.Defaults{Country: "LT", DocumentType: "ID_CARD", ClientID: "folder", Meta: "optional"}
	}, nil))
	l.until("it was tried", func() bool { return l.api.Report().Requests > 1 })
	must(t, l.reload(func(c *config.Config) { c.Defaults = config.Defaults{Meta: "required"} }, nil))
	l.api.Always(nil)
	l.until("it is accepted", func() bool { return slices.Contains(l.names("done"), "case-7") })
	if n := len(l.api.Sessions("case-7")); n != 1 {
		t.Errorf("%d sessions", n)
	}
}
