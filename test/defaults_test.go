package test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// A scanner that can't write meta.yaml: a folder of images alone ends as accepted,
// with a session for the clientId that its name is, whatever it was called in
// between.
func TestScannerWithoutMeta(t *testing.T) {
	l := newLab(t, "completeness: {settle: 100ms, rescan: 100ms}", "defaults: {country: LT, documentType: ID_CARD, clientId: folder, meta: optional}")
	l.inboxReady()
	l.start()
	scan := func(name string, n uint64, images ...string) {
		t.Helper()
		all := files(name)
		for _, image := range images { // one by one, as scanners do
			l.put(name, map[string][]byte{image: sample.Pad(all[image], len(all[image])+20, n)})
		}
	}
	says := func(name, place string, want ...string) {
		t.Helper()
		_, validated := l.output("validate", l.path(place, name))
		_, status := l.output("status")
		for _, w := range want {
			if !strings.Contains(validated, w) || place == "inbox" && !strings.Contains(status, w) {
				t.Errorf("%q is not in what validate and status say:\n%s\n%s", w, validated, status)
			}
		}
	}
	scan("case-7", 1, "FRONT.jpg", "BACK.jpg")
	says("case-7", "inbox", "FACE (a file FACE.jpg, .png or .pdf)", "by default: country LT; documentType ID_CARD; clientId case-7, the folder's name; no meta.yaml is needed")
	l.put("case-8", map[string][]byte{"scan0001.jpg": front, "scan0002.jpg": back, "scan0003.jpg": face})
	says("case-8", "inbox", "what scan0001.jpg, scan0002.jpg, scan0003.jpg shows can't be told by the name; rename it to FRONT, BACK or FACE")
	if w := l.status().Waiting; len(w) != 2 || !slices.Equal(w[1].Defaults, []string{"country", "documentType", "clientId", "meta"}) {
		t.Errorf("%+v", w)
	}
	// It is rejected twice, and called otherwise between.
	no := sandbox.Step{Status: 400, Identifier: "VALIDATION_ERROR", Message: "no"}
	l.api.ScriptSessions("case-7", no, no)
	scan("case-7", 1, "FACE.jpg")
	l.until("case-7 is rejected", func() bool { return l.place("case-7") == spool.Failed })
	must(t, os.Rename(l.path("failed", "case-7"), l.path("failed", "mended")))
	if code, out := l.output("requeue", "mended"); code != 0 {
		t.Fatalf("requeue: %d, %s", code, out)
	}
	l.until("mended is rejected", func() bool { return l.place("mended") == spool.Failed })
	must(t, os.Rename(l.path("failed", "mended"), l.path("inbox", "by-hand")))
	l.until("by-hand is accepted", func() bool { return l.place("by-hand") == spool.Done })
	r := l.result(spool.Done, "by-hand")
	if r.Session.ClientID != "case-7" || !slices.Equal(r.Defaults, []string{"country", "documentType", "clientId", "meta"}) || len(l.api.Sessions("case-7")) != 1 {
		t.Errorf("%+v of %+v", r, r.Session)
	}
	// The one whose images had no names goes on when they have.
	for name, step := range map[string]string{"scan0001.jpg": "FRONT.jpg", "scan0002.jpg": "BACK.jpg", "scan0003.jpg": "FACE.jpg"} {
		must(t, os.Rename(l.path("inbox", "case-8", name), l.path("inbox", "case-8", step)))
	}
	l.until("case-8 is accepted", func() bool { return l.place("case-8") == spool.Done })
	if _, out := l.output("show", "by-hand"); !strings.Contains(out, "by default: country, documentType, clientId, meta") {
		t.Errorf("show doesn't tell what was by default:\n%s", out)
	}
	must(t, l.stop())
	// Nothing is amiss for an auditor; a meta.yaml that is put there is.
	if code, out := l.output("ledger", "verify"); code != 0 {
		t.Errorf("ledger verify: %d, %s", code, out)
	}
	must(t, os.WriteFile(l.path("done", "case-8", "meta.yaml"), []byte("clientId: other\n"), 0o600))
	if code, out := l.output("ledger", "verify"); code == 0 || !strings.Contains(out, "meta.yaml was put into the folder") {
		t.Errorf("ledger verify: %d, %s", code, out)
	}
	if r := l.api.Report(); r.Processed != 2 || r.Opened != 2 || len(r.Violations) > 0 {
		t.Errorf("%+v", r)
	}
}

// The commands that need no daemon take the defaults of the inbox that they are
// told, or that the folder lies in.
func TestDefaultsOfInbox(t *testing.T) {
	dir := t.TempDir()
	l := newLab(t, "defaults: {country: LT}", "inboxes:",
		"  - {name: plain, path: "+filepath.Join(dir, "plain")+"}",
		"  - {name: scanner, path: "+filepath.Join(dir, "scanner")+", defaults: {documentType: PASSPORT, clientId: folder, meta: optional}}")
	images := map[string][]byte{"FRONT.jpg": front, "FACE.jpg": face}
	for _, in := range []string{"plain", "scanner", "elsewhere"} {
		must(t, sample.Write(filepath.Join(dir, in, "case-7"), images))
	}
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{0, "✓ " + filepath.Join(dir, "scanner/case-7") + ": LT PASSPORT", []string{"validate", filepath.Join(dir, "scanner/case-7")}},
		{0, "taken when it was quiet for 1m0s: there is no meta.yaml, and one that is still to come would count", []string{"validate", "--inbox", "scanner", filepath.Join(dir, "elsewhere/case-7")}},
		{exitsFailed, "missing_file: meta.yaml", []string{"validate", filepath.Join(dir, "plain/case-7")}},
		{exitsFailed, "missing_file: meta.yaml", []string{"validate", filepath.Join(dir, "elsewhere/case-7")}},
		{2, `there is no inbox "other"; the configuration has plain, scanner`, []string{"validate", "--inbox", "other", filepath.Join(dir, "elsewhere/case-7")}},
		{exitsFailed, "incomplete", []string{"submit", filepath.Join(dir, "elsewhere/case-7")}},
		{0, "accepted", []string{"submit", "--inbox", "scanner", filepath.Join(dir, "elsewhere/case-7")}},
	} {
		if code, out := l.output(c.args...); code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("%v: %d, and %q is wanted in:\n%s", c.args, code, c.says, out)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "elsewhere/case-7", sidecar.Name))
	must(t, err)
	if len(l.api.Sessions("case-7")) != 1 || !bytes.Contains(text, []byte(`"defaults"`)) {
		t.Errorf("%s", text)
	}
}

// Each inbox has its own defaults: what one takes waits in the other.
func TestDefaultsOfTwo(t *testing.T) {
	root := t.TempDir()
	l := newLabIn(t, root, "completeness: {settle: 100ms, rescan: 100ms}", "defaults: {country: LT}", "inboxes:",
		"  - {name: plain, path: "+filepath.Join(root, "plain")+"}",
		"  - {name: scanner, path: "+filepath.Join(root, "scanner")+", defaults: {documentType: PASSPORT, clientId: folder, meta: optional}}")
	must(t, os.Mkdir(l.path("plain"), 0o770))
	must(t, os.Mkdir(l.path("scanner"), 0o770))
	l.start()
	images := map[string][]byte{"FRONT.jpg": front, "FACE.jpg": face}
	must(t, sample.Write(l.path("plain", "case-7"), images))
	must(t, sample.Write(l.path("scanner", "case-7"), images))
	l.until("the scanner's is accepted", func() bool { return slices.Contains(l.names(spool.Done), "case-7") })
	r := l.result(spool.Done, "case-7")
	if r.Inbox != "scanner" || r.Session.ClientID != "case-7" || r.Request.DocumentType != "PASSPORT" {
		t.Errorf("%+v", r)
	}
	if w := l.status().Waiting; len(w) != 1 || w[0].Folder != "case-7" || len(w[0].Defaults) != 0 || !slices.Contains(w[0].WaitsFor, "meta.yaml") {
		t.Errorf("%+v", w)
	}
	must(t, l.stop())
}
