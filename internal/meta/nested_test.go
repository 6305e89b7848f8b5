package meta_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/sample"
)

// A folder that holds folders, and nothing of a submission itself, says so, and
// what to do.
func TestHoldsFolders(t *testing.T) {
	const file = "authToken: 3FA5TFPA2ZE3LMPGGS1EGOJNJE\ncountry: LT\ndocumentType: PASSPORT\n"
	images := []string{"FRONT.jpg", "FACE.jpg"}
	for name, test := range map[string]struct {
		files []string
		want  string // begin of the only reason of that code; empty: there is none
	}{
		"folders":              {[]string{"case-1/meta.yaml", "case-1/FRONT.jpg", "case-2/meta.yaml"}, "it holds folders (case-1, case-2), and nothing"},
		"of images alone":      {[]string{"scan1/front.jpg", "scan2/FACE.png"}, "it holds folders (scan1, scan2), and"},
		"many":                 {[]string{"a/meta.yaml", "b/meta.yaml", "c/meta.yaml", "d/meta.yaml", "e/meta.yaml", "note.txt"}, "it holds folders (a, b, c and 2 more), and"},
		"an odd name":          {[]string{"a\nb/meta.yaml"}, `it holds folders ("a\nb"), and`},
		"what travels along":   {[]string{"meta.yaml", "originals/FRONT.jpg"}, ""},
		"meta.yaml to come":    {[]string{"FRONT.jpg", "originals/FRONT.jpg"}, ""},
		"images without name":  {[]string{"scan0001.jpg", "originals/FRONT.jpg"}, ""},
		"another meta":         {[]string{"meta.yml", "originals/FRONT.jpg"}, ""},
		"of a NAS":             {[]string{"@eaDir/FRONT.jpg", ".thumbs/FRONT.jpg"}, ""},
		"deeper":               {[]string{"a/b/meta.yaml"}, ""},
		"nothing to the point": {[]string{"logs/scan.log"}, ""},
		"nothing":              {nil, ""},
	} {
		for _, d := range []meta.Defaults{{}, {Country: "LT", DocumentType: "PASSPORT", ByFolder: true, Optional: true}} {
			dir := t.TempDir()
			for _, f := range test.files {
				must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o700))
				data := []byte(file)
				if filepath.Ext(f) != ".yaml" {
					data = sample.Front()
				}
				must(t, os.WriteFile(filepath.Join(dir, f), data, 0o600))
			}
			rep := inspect(t, dir, d, 64)
			var got []string
			for _, r := range append(rep.Invalid, rep.Waits...) {
				if r.Code == "holds_folders" {
					got = append(got, r.Message)
				}
			}
			if test.want == "" && len(got) > 0 || test.want != "" && (len(got) != 1 || len(rep.Waits) != 1 || !strings.HasPrefix(got[0], test.want)) {
				t.Errorf("%s: %q", name, got)
			}
		}
	}
	// More of them than are looked at: no upload mends that.
	dir := t.TempDir()
	for n := range 10 {
		for _, f := range images {
			f = filepath.Join(dir, string(rune('a'+n)), f)
			must(t, os.MkdirAll(filepath.Dir(f), 0o700))
			must(t, os.WriteFile(f, sample.Front(), 0o600))
		}
	}
	if rep := inspect(t, dir, meta.Defaults{}, 15); len(rep.Invalid) != 2 || rep.Invalid[1].Code != "holds_folders" || len(rep.Waits) != 0 {
		t.Errorf("%+v", rep)
	}
}

func inspect(t *testing.T, dir string, d meta.Defaults, files int) meta.Report {
	t.Helper()
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	lim := meta.Limits{Request: 20_000_000, Files: files, Marker: ".ready", Defaults: d}
	l, err := meta.List(root, lim)
	must(t, err)
	return meta.Inspect(root, "case-7", l, lim, false)
}
