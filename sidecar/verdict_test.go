package sidecar_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"idenfy-batch/sidecar"
)

// fullVerdict has every field set.
func fullVerdict() *sidecar.Verdict {
	said := sidecar.Said{
		Overall: "SUSPECTED", Final: true, AutoDocument: "DOC_VALIDATED", ManualDocument: "DOC_VALIDATED", AutoFace: "FACE_MATCH", ManualFace: "FACE_MATCH",
		FraudTags: []string{"DOC_PRINT_SPOOFED"}, MismatchTags: []string{"NAME"}, SuspicionReasons: []string{"FACE_SUSPECTED"}, DenyReasons: []string{"x"},
	}
	sum := strings.Repeat("0f", 32)
	return &sidecar.Verdict{
		ID: "ABCDEFGHIJKLMNOPQRSTUVWXYZ", ScanRef: "328c6766-934e-11ed-bb9b-025ad99a18e7", Said: said, Contradicted: true, Omitted: 2,
		Events: []sidecar.VerdictEvent{
			{SHA256: sum, Received: at(1), By: sidecar.ByWebhook, Type: "IDENTIFICATION_AUTO_FINISHED", Finished: at(0), Body: sidecar.BodyName(sum), Said: said},
			{SHA256: sum, Received: at(2), By: sidecar.ByStatus},
		},
	}
}

func TestVerdictSchema(t *testing.T) {
	s := schema(t, "verdict.schema.json")
	for name, change := range map[string]func(*sidecar.Verdict){
		"full":         func(*sidecar.Verdict) {},
		"nothing said": func(v *sidecar.Verdict) { v.Said, v.Omitted, v.Contradicted = sidecar.Said{}, 0, false },
		"unknown word": func(v *sidecar.Verdict) { v.Overall = "PERHAPS" },
	} {
		v := fullVerdict()
		change(v)
		data, err := sidecar.EncodeVerdict(v)
		must(t, err)
		if err := validate(t, s, data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*sidecar.Verdict){
		"no event":       func(v *sidecar.Verdict) { v.Events = nil },
		"another way":    func(v *sidecar.Verdict) { v.Events[0].By = "mail" },
		"no hash":        func(v *sidecar.Verdict) { v.Events[0].SHA256 = "" },
		"no id":          func(v *sidecar.Verdict) { v.ID = "" },
		"a body outside": func(v *sidecar.Verdict) { v.Events[0].Body = "../x" },
	} {
		v := fullVerdict()
		change(v)
		data, err := sidecar.EncodeVerdict(v)
		must(t, err)
		if err := validate(t, s, data); err == nil {
			t.Errorf("%s passes the schema", name)
		}
	}
}

func TestVerdictWriteRead(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	if _, _, err := sidecar.ReadVerdict(root); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	data, err := sidecar.EncodeVerdict(fullVerdict())
	must(t, err)
	must(t, sidecar.WriteVerdict(root, data))
	got, bytes, err := sidecar.ReadVerdict(root)
	must(t, err)
	again, err := sidecar.EncodeVerdict(got)
	must(t, err)
	if diff := cmp.Diff(string(data), string(again)); diff != "" || string(bytes) != string(data) {
		t.Error(diff)
	}
	info, err := os.Stat(filepath.Join(dir, sidecar.VerdictName))
	must(t, err)
	if info.Mode() != 0o640 {
		t.Error(info.Mode())
	}
	must(t, sidecar.Rotate(root, sidecar.VerdictName))
	if _, err := os.Stat(filepath.Join(dir, "verdict.1.json")); err != nil {
		t.Error(err)
	}
	must(t, os.WriteFile(filepath.Join(dir, sidecar.VerdictName), []byte(`{"schema":"mine"}`), 0o600))
	if _, _, err := sidecar.ReadVerdict(root); !errors.Is(err, sidecar.ErrNotOurs) {
		t.Error(err)
	}
	// They are the daemon's names, and no results.
	for name, own := range map[string]bool{"verdict.json": true, "verdict.7.json": true, sidecar.BodyName(strings.Repeat("a1", 32)): true, "verdict.x.json": false, "verdict.json.txt": false} {
		if sidecar.IsOwn(name) != own {
			t.Errorf("%s: %v", name, !own)
		}
	}
	if files, err := sidecar.Files(root); err != nil || len(files) > 0 {
		t.Errorf("%v, %v", files, err)
	}
}
