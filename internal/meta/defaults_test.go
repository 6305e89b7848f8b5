package meta_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/sample"
	"idenfy-batch/sidecar"
)

var all = meta.Defaults{Country: "LT", DocumentType: "ID_CARD", SkipAnalysis: true, ByFolder: true, Optional: true}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What meta.yaml says goes before the defaults; what stands there without a value
// is not left out.
func TestDefaults(t *testing.T) {
	yes, no := true, false
	one := all
	one.Folder = "case-7"
	for text, c := range map[string]struct {
		want   meta.Meta
		filled string
		wrong  []string
	}{
		"": {meta.Meta{ClientID: "case-7", Country: "LT", DocumentType: "ID_CARD", SkipAnalysis: &yes}, "country documentType skipAnalysis clientId", nil},
		"country: lv\ndocumentType: PASSPORT\nskipAnalysis: false\nauthToken: 3FA5TFPA2ZE3\n": {meta.Meta{AuthToken: "3FA5TFPA2ZE3", Country: "LV", DocumentType: "PASSPORT", SkipAnalysis: &no}, "", nil},
		"clientId: other\n":  {meta.Meta{ClientID: "other", Country: "LT", DocumentType: "ID_CARD", SkipAnalysis: &yes}, "country documentType skipAnalysis", nil},
		"firstName: Jonas\n": {meta.Meta{ClientID: "case-7", FirstName: "Jonas", Country: "LT", DocumentType: "ID_CARD", SkipAnalysis: &yes}, "country documentType skipAnalysis clientId", nil},
		"authToken: 3FA5TFPA2ZE3\nfirstName: Jonas\n": {meta.Meta{AuthToken: "3FA5TFPA2ZE3", FirstName: "Jonas", Country: "LT", DocumentType: "ID_CARD", SkipAnalysis: &yes}, "country documentType skipAnalysis", []string{
			"meta.yaml: line 2: firstName is for a session that the daemon opens, and stands beside clientId only; leave it out",
		}},
		"authToken: \"\"\ncountry:\ndocumentType: ''\n": {meta.Meta{SkipAnalysis: &yes}, "skipAnalysis", []string{
			"meta.yaml: line 1: authToken is missing; or give clientId in its place, and the daemon opens the session",
			"meta.yaml: line 2: country is missing", "meta.yaml: line 3: documentType is missing",
		}},
		"scanRef: 328c6766-934e-11ed-bb9b-025ad99a18e7\n": {meta.Meta{ClientID: "case-7", ScanRef: "328c6766-934e-11ed-bb9b-025ad99a18e7", Country: "LT", DocumentType: "ID_CARD", SkipAnalysis: &yes}, "country documentType skipAnalysis clientId", []string{
			"meta.yaml: line 1: scanRef comes with a token, and with clientId the daemon asks for that; leave scanRef out",
		}},
	} {
		m, filled, reasons := meta.Parse([]byte(text), one)
		var wrong []string
		for _, r := range reasons {
			wrong = append(wrong, r.Message)
		}
		if diff := cmp.Diff(&c.want, m) + cmp.Diff(c.wrong, wrong); diff != "" || strings.Join(filled, " ") != c.filled {
			t.Errorf("%s: %v filled in, and (-want +got):\n%s", text, filled, diff)
		}
	}
	for name, good := range map[string]bool{"a": true, "a b": true, strings.Repeat("a", 100): true, strings.Repeat("a", 101): false, " a": false, "Jürgen": false, "a\tb": false} {
		one.Folder = name
		_, _, reasons := meta.Parse(nil, one)
		if (len(reasons) == 0) != good {
			t.Errorf("%q: %v", name, reasons)
		}
		for _, r := range reasons {
			if r.Code != "bad_folder_name" || !strings.Contains(r.Message, "rename the folder") {
				t.Errorf("%q: %+v", name, r)
			}
		}
	}
}

// A folder of images alone, as it comes.
func TestNoMeta(t *testing.T) {
	dir := t.TempDir()
	look := func(name string, d meta.Defaults) meta.Report {
		t.Helper()
		root, err := os.OpenRoot(dir)
		must(t, err)
		defer root.Close()
		lim := meta.Limits{Request: 20_000_000, Files: 64, Marker: ".ready", Defaults: d}
		l, err := meta.List(root, lim)
		must(t, err)
		return meta.Inspect(root, name, l, lim, false)
	}
	waits := func(d meta.Defaults) (list []string) {
		t.Helper()
		rep := look("case-7", d)
		for _, r := range append(rep.Invalid, rep.Waits...) {
			list = append(list, r.Message)
		}
		return list
	}
	write := func(name string, data []byte) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	want := func(got []string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	f, b, s := "FRONT (a file FRONT.jpg, .png or .pdf)", "BACK (a file BACK.jpg, .png or .pdf)", "FACE (a file FACE.jpg, .png or .pdf)"
	want(waits(all), f, b, s)
	for _, name := range []string{"scan0001.jpg", "scan0002.JPG", "scan 3.png"} {
		write(name, sample.Front())
	}
	write("scan.log", []byte("x"))
	want(waits(all), f, b, s, "what scan 3.png, scan0001.jpg, scan0002.JPG shows can't be told by the name; rename it to FRONT, BACK or FACE, with the extension that it has, or say it in images: of meta.yaml")
	for _, name := range []string{"scan0001.jpg", "scan0002.JPG", "scan 3.png"} {
		must(t, os.Remove(filepath.Join(dir, name)))
	}
	write("front.JPG", sample.Front())
	write("Back.jpg", sample.Back())
	want(waits(all), s)
	write("face.jpeg", sample.Face()[:1000])
	if got := waits(all); len(got) != 1 || !strings.HasPrefix(got[0], "face.jpeg ") {
		t.Errorf("cut off: %q", got)
	}
	write("face.jpeg", sample.Face())
	want(waits(meta.Defaults{Country: "LT", DocumentType: "ID_CARD", ByFolder: true}), "meta.yaml")
	rep := look("case-7", all)
	if !rep.Complete() || !rep.Doubtful || rep.Proven || rep.Meta.ClientID != "case-7" || len(rep.Images) != 3 || rep.SHA256 != "" {
		t.Errorf("%+v", rep)
	}
	if diff := cmp.Diff([]string{"country", "documentType", "skipAnalysis", "clientId", "meta"}, rep.Filled); diff != "" {
		t.Error(diff)
	}
	// As a life goes on that began with them: whatever the folder's name is now.
	res := &sidecar.Result{Defaults: rep.Filled, Request: sidecar.Request{Country: "LT", DocumentType: "ID_CARD", SkipAnalysis: true}}
	began := all
	began.Folder = "case-7"
	if diff := cmp.Diff(began, meta.DefaultsOf(res, "case-7")); diff != "" {
		t.Error(diff)
	}
	if rep := look("case-7.2", began); rep.Meta.ClientID != "case-7" {
		t.Errorf("%+v", rep.Meta)
	}
	// What was perhaps meant to be meta.yaml is not passed over.
	write("meta.yml", []byte("clientId: other\n"))
	want(waits(all), "meta.yaml (there is meta.yml; rename it if that is meant)")
	must(t, os.Rename(filepath.Join(dir, "meta.yml"), filepath.Join(dir, "meta.yaml.part")))
	want(waits(all), "meta.yaml.part: the name of an upload in progress")
	must(t, os.Rename(filepath.Join(dir, "meta.yaml.part"), filepath.Join(dir, "meta.yaml")))
	if rep := look("case-7", all); !rep.Complete() || rep.Doubtful || rep.Meta.ClientID != "other" || rep.SHA256 == "" {
		t.Errorf("%+v", rep)
	}
	write("meta.yaml", nil)
	want(waits(all), "meta.yaml is empty")
	must(t, os.Remove(filepath.Join(dir, "meta.yaml")))
	write(".ready", nil)
	if rep := look("case-7", all); !rep.Complete() || !rep.Proven {
		t.Errorf("%+v", rep)
	}
	if rep := look(strings.Repeat("a", 101), all); len(rep.Invalid) != 1 || rep.Invalid[0].Code != "bad_folder_name" {
		t.Errorf("%+v", rep)
	}
}

func TestFirstName(t *testing.T) {
	for _, c := range []struct {
		had  []string
		now  string
		want string
	}{
		{nil, "case-7", "case-7"},
		{[]string{"case-7", "case-7.2"}, "other", "case-7"},
		{[]string{"Jürgen", "juergen"}, "juergen.2", "juergen"},
		{[]string{`"a\tb"`, `a b`}, "c", "a b"},
		{[]string{"Jürgen"}, "Jörg", "Jörg"},
	} {
		if got := meta.FirstName(c.had, c.now); got != c.want {
			t.Errorf("%q, now %q: %q, want %q", c.had, c.now, got, c.want)
		}
	}
}
