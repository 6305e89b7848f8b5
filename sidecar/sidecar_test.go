package sidecar_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/sys/unix"

	"idenfy-batch/sidecar"
)

var update = flag.Bool("update", false, "write the golden file")

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func at(ms int) sidecar.Time {
	return sidecar.Time{Time: time.Date(2026, 3, 4, 5, 6, 7, ms*1e6, time.FixedZone("", 7200))}
}

// full has every field set.
func full() *sidecar.Result {
	return &sidecar.Result{
		ID: "ABCDEFGHIJKLMNOPQRSTUVWXYZ", Folder: "case-7", Outcome: sidecar.Accepted,
		Reasons: []sidecar.Reason{{Code: "settled_by_status", Message: "no clear answer came <yet>", Source: sidecar.FromDaemon, Field: "FRONT"}},
		Request: sidecar.Request{
			Endpoint: "https://ivs.idenfy.com/api/v2/process", TokenHint: sidecar.TokenHint("3FA5TFPA2ZE3LMPGGS1EGOJNJE"),
			Country: "LT", DocumentType: "ID_CARD", SkipAnalysis: true, Bytes: 1234,
			Images: []sidecar.Image{{
				Step: "FRONT", File: "front.jpg", Bytes: 900, Format: "jpeg", Width: 856, Height: 540,
				SHA256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
			}, {Step: "FACE", File: "face.pdf", Bytes: 90, Format: "pdf"}},
		},
		Attempts: []sidecar.Attempt{
			{N: 1, Started: at(1), Finished: at(20), State: sidecar.Answered, HTTPStatus: 429, Identifier: "TOO_MANY_REQUESTS", Message: "slow down", DurationMS: 19, RetryAfter: 3},
			{N: 2, Started: at(30), Finished: at(31), State: sidecar.NotSent, Message: "connection refused", DurationMS: 1},
			{N: 3, Started: at(40), State: sidecar.Sending},
		},
		Times:   sidecar.Times{FirstSeen: at(0), Complete: at(0), Claimed: at(1), Finished: at(50)},
		Session: &sidecar.Session{ScanRef: "328c6766-934e-11ed-bb9b-025ad99a18e7", ClientID: "client-7", Opened: at(1), Expires: at(900), By: sidecar.ByDaemon},
		Sessions: []sidecar.Opening{
			{Attempt: sidecar.Attempt{N: 1, Started: at(0), Finished: at(1), State: sidecar.Answered, HTTPStatus: 409, Identifier: "VALIDATION_ERROR", Message: "active", DurationMS: 1, RetryAfter: 1}},
			{Attempt: sidecar.Attempt{N: 2, Started: at(32), Finished: at(33), State: sidecar.Answered, HTTPStatus: 201, DurationMS: 1}, After: 2, ScanRef: "328c6766-934e-11ed-bb9b-025ad99a18e7"},
		},
		Unlisted: 4, Omitted: 2,
		Defaults:   []string{"country", "clientId"},
		ExtraFiles: []string{"note.txt", "originals/", "originals/p1.tif"}, MoreFiles: 3,
		Unsealed: []string{"originals/p1.tif"}, MoreUnsealed: 2,
		Earlier:  []sidecar.Earlier{{File: "result.1.json", SHA256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}},
		Uploader: sidecar.Uploader{UID: 1001, GID: 100, User: "scanner", Group: "drop"},
		Daemon:   sidecar.Daemon{Version: "1.0.0", Host: "gate"},
		Purges: []sidecar.Purge{{
			At: at(60), Rule: sidecar.OfList, By: &sidecar.Person{UID: 1002, User: "clerk", EUID: new(uint32), LoginUID: new(uint32), Login: "root", Sudo: "x"},
			Files: []sidecar.Deleted{{File: "front.jpg", Bytes: 900, SHA256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", Linked: true}, {File: "originals/"}},
			Remote: &sidecar.Deletion{
				ScanRef: "328c6766-934e-11ed-bb9b-025ad99a18e7", Started: at(61), Finished: at(62), State: sidecar.Answered,
				HTTPStatus: 400, Identifier: "PARTNER_ERROR", Message: "Token has not expired yet.",
			},
		}},
	}
}

func TestGolden(t *testing.T) {
	got, err := sidecar.Encode(full())
	must(t, err)
	golden := filepath.Join("testdata", "result.golden.json")
	if *update {
		must(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the format changed; readers rely on it (-want +got):\n%s", diff)
	}
}

func schema(t *testing.T, file string) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(file)
	must(t, err)
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, data []byte) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	must(t, err)
	return s.Validate(v)
}

func TestSchema(t *testing.T) {
	s := schema(t, "result.schema.json")
	for name, change := range map[string]func(*sidecar.Result){
		"full":    func(*sidecar.Result) {},
		"pending": func(r *sidecar.Result) { r.Outcome = sidecar.Pending; r.Times.Finished = sidecar.Time{} },
		"invalid": func(r *sidecar.Result) {
			*r = sidecar.Result{ID: r.ID, Folder: "x", Outcome: sidecar.Invalid, Reasons: r.Reasons, Times: r.Times}
		},
	} {
		r := full()
		change(r)
		data, err := sidecar.Encode(r)
		must(t, err)
		if err := validate(t, s, data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*sidecar.Result){
		"unknown outcome":       func(r *sidecar.Result) { r.Outcome = "perhaps" },
		"final without a time":  func(r *sidecar.Result) { r.Times.Finished = sidecar.Time{} },
		"rejected, no reason":   func(r *sidecar.Result) { r.Outcome, r.Reasons = sidecar.Rejected, nil },
		"accepted, no attempt":  func(r *sidecar.Result) { r.Attempts = nil },
		"a whole token":         func(r *sidecar.Result) { r.ID = "short" },
		"a hash that is none":   func(r *sidecar.Result) { r.Request.Images[0].SHA256 = "abc" },
		"a step that is none":   func(r *sidecar.Result) { r.Request.Images[0].Step = "SIDE" },
		"a state that is none":  func(r *sidecar.Result) { r.Attempts[0].State = "lost" },
		"a source that is none": func(r *sidecar.Result) { r.Reasons[0].Source = "me" },
	} {
		r := full()
		change(r)
		data, err := sidecar.Encode(r)
		must(t, err)
		if err := validate(t, s, data); err == nil {
			t.Errorf("%s passes the schema", name)
		}
	}
}

// Every field of the structs is described in the schemas, and the other way
// round.
func TestSchemaNamesEveryField(t *testing.T) {
	data, err := sidecar.Encode(full())
	must(t, err)
	described(t, "result.schema.json", data)
	data, err = sidecar.EncodeVerdict(fullVerdict())
	must(t, err)
	described(t, "verdict.schema.json", data)
}

func described(t *testing.T, file string, data []byte) {
	t.Helper()
	var value, doc map[string]any
	must(t, json.Unmarshal(data, &value))
	text, err := os.ReadFile(file)
	must(t, err)
	must(t, json.Unmarshal(text, &doc))
	var compare func(path string, value any, schema map[string]any)
	compare = func(path string, value any, schema map[string]any) {
		switch v := value.(type) {
		case map[string]any:
			properties, _ := schema["properties"].(map[string]any)
			if ref, ok := schema["$ref"].(string); ok { // what it has in common with others
				defs, _ := doc["$defs"].(map[string]any)
				common, _ := defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
				shared, _ := common["properties"].(map[string]any)
				properties = maps.Clone(properties)
				if properties == nil {
					properties = map[string]any{}
				}
				maps.Copy(properties, shared)
			}
			for name, field := range v {
				sub, ok := properties[name].(map[string]any)
				if !ok {
					t.Errorf("%s.%s is not in the schema", path, name)
					continue
				}
				compare(path+"."+name, field, sub)
			}
		case []any:
			items, _ := schema["items"].(map[string]any)
			union := map[string]any{} // each field is set in one of the items
			for _, item := range v {
				compare(path+"[]", item, items)
				if m, ok := item.(map[string]any); ok {
					for k := range m {
						union[k] = nil
					}
				}
			}
			properties, _ := items["properties"].(map[string]any)
			for name := range properties {
				if _, ok := union[name]; !ok {
					t.Errorf("%s[].%s is in the schema only", path, name)
				}
			}
		}
	}
	compare(file, value, doc)
}

func TestWriteReadRotate(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	if _, err := sidecar.Read(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read of nothing: %v", err)
	}
	must(t, sidecar.Rotate(root, sidecar.Name)) // nothing there is no error
	r := full()
	must(t, sidecar.Write(root, r))
	got, err := sidecar.Read(root)
	must(t, err)
	r.Schema = sidecar.Schema
	if diff := cmp.Diff(r, got); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	info, err := os.Stat(filepath.Join(dir, sidecar.Name))
	must(t, err)
	if info.Mode() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
	must(t, sidecar.Rotate(root, sidecar.Name))
	must(t, os.WriteFile(filepath.Join(dir, sidecar.Name), []byte("{}"), 0o600))
	must(t, sidecar.Rotate(root, sidecar.Name))
	for _, name := range []string{"result.1.json", "result.2.json"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil || !sidecar.IsOwn(name) {
			t.Error(err)
		}
	}
}

func TestReadTrustsNothing(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"a link":        func(p string) error { return os.Symlink("/etc/passwd", p) },
		"a directory":   func(p string) error { return os.Mkdir(p, 0o700) },
		"a FIFO":        func(p string) error { return unix.Mkfifo(p, 0o600) },
		"other JSON":    func(p string) error { return os.WriteFile(p, []byte(`{"schema": "mine"}`), 0o600) },
		"no JSON":       func(p string) error { return os.WriteFile(p, []byte(`hello`), 0o600) },
		"wrong types":   func(p string) error { return os.WriteFile(p, []byte(`{"schema": 7, "attempts": {}}`), 0o600) },
		"a gigabyte":    func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Truncate(p, 1<<30)) },
		"an empty file": func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"time of beyond": func(p string) error {
			return os.WriteFile(p, []byte(`{"schema":"idenfy-batch/result/v1","times":{"claimed":"x"}}`), 0o600)
		},
	} {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		must(t, err)
		must(t, plant(filepath.Join(dir, sidecar.Name)))
		if _, err := sidecar.Read(root); !errors.Is(err, sidecar.ErrNotOurs) {
			t.Errorf("%s: %v", name, err)
		}
		must(t, sidecar.Rotate(root, sidecar.Name)) // and it is out of the way
		must(t, sidecar.Write(root, full()))
		must(t, root.Close())
	}
}

func TestTokenHint(t *testing.T) {
	if got := sidecar.TokenHint("3FA5TFPA2ZE3LMPGGS1EGOJNJE"); got != "3FA5… (26 characters)" {
		t.Error(got)
	}
	if got := sidecar.TokenHint("short"); got != "" {
		t.Error(got)
	}
}

func TestPlaces(t *testing.T) {
	if sidecar.Pending.Final() || sidecar.Outcome("").Final() || !sidecar.Unknown.Final() {
		t.Error("Final")
	}
	var names []string
	for _, n := range []string{"result.json", "result.1.json", "result.x.json", "result.json.bak", ".idenfy-batch.result.json.tmp"} {
		if sidecar.IsOwn(n) {
			names = append(names, n)
		}
	}
	if !slices.Equal(names, []string{"result.json", "result.1.json", ".idenfy-batch.result.json.tmp"}) {
		t.Errorf("own names: %v", names)
	}
}

// The names of the results in a folder, the oldest first, and the ids in them.
func TestFilesAndIDs(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	ids, err := sidecar.IDs(root)
	if err != nil || len(ids) != 0 {
		t.Errorf("of nothing: %v, %v", ids, err)
	}
	id := func(c string) string { return strings.Repeat(c, 26) }
	for name, text := range map[string]string{
		"result.json":             `{"schema": "idenfy-batch/result/v1", "id": "` + id("D") + `"`,
		"result.10.json":          `{"id":"` + id("C") + `"}`,
		"result.2.json":           `{"id": "` + id("B") + `"}`,
		"result.1.json":           `{"id": "` + id("A") + `"}`,
		"result.3.json":           `{"id": "` + id("A") + `"}`,
		"result.4.json":           `{"id": "` + id("1") + `"}`, // no such form
		"result.5.json":           `{"id": "` + id("E") + `X"}`,
		"result.6.json":           strings.Repeat(" ", 5000) + `{"id": "` + id("F") + `"}`,
		"result.7.json":           "",
		"result.x.json":           `{"id": "` + id("G") + `"}`,
		"result.-1.json":          `{"id": "` + id("G") + `"}`,
		"other.json":              `{"id": "` + id("G") + `"}`,
		"Result.json":             `{"id": "` + id("G") + `"}`,
		"results.1.json":          `{"id": "` + id("G") + `"}`,
		"result.1.json.part":      `{"id": "` + id("G") + `"}`,
		"result.99999999999.json": `{"id": "` + id("G") + `"}`,
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	must(t, os.Mkdir(filepath.Join(dir, "result.8.json"), 0o700))
	must(t, unix.Mkfifo(filepath.Join(dir, "result.9.json"), 0o600))
	must(t, os.Symlink("result.1.json", filepath.Join(dir, "result.11.json")))
	names, err := sidecar.Files(root)
	must(t, err)
	if want := []string{
		"result.1.json", "result.2.json", "result.3.json", "result.4.json", "result.5.json", "result.6.json", "result.7.json",
		"result.8.json", "result.9.json", "result.10.json", "result.11.json", "result.json",
	}; !slices.Equal(names, want) {
		t.Errorf("files %v", names)
	}
	if ids, err = sidecar.IDs(root); err != nil || !slices.Equal(ids, []string{id("A"), id("B"), id("C"), id("D")}) {
		t.Errorf("ids %v, %v", ids, err)
	}
	// Of a large one the head is enough.
	must(t, os.Truncate(filepath.Join(dir, "result.json"), 1<<30))
	if got, err := sidecar.ID(root, "result.json"); err != nil || got != id("D") {
		t.Errorf("%q, %v", got, err)
	}
	// More than anybody has are not all looked at.
	for n := range 1500 {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("result.%d.json", n+1000)), nil, 0o600))
	}
	if names, err := sidecar.Files(root); err != nil || len(names) < 1000 || len(names) > 1300 {
		t.Errorf("%d files, %v", len(names), err)
	}
}

// What Write writes has its id where ID finds it, and its size is bounded.
func TestIDOfWritten(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	must(t, err)
	defer root.Close()
	r := full()
	r.ID = strings.Repeat("Z", 26)
	r.Folder = strings.Repeat("ä", 10_000)
	for range 1000 {
		r.Reasons = append(r.Reasons, sidecar.Reason{Code: "x", Message: "y", Source: sidecar.FromPreflight})
	}
	must(t, sidecar.Write(root, r))
	if id, err := sidecar.ID(root, sidecar.Name); err != nil || id != r.ID {
		t.Errorf("%q, %v", id, err)
	}
	got, err := sidecar.Read(root)
	must(t, err)
	if n := len(got.Reasons); n != 51 || got.Reasons[50].Code != "more" || !strings.Contains(got.Reasons[50].Message, fmt.Sprint(len(r.Reasons)-50)) {
		t.Errorf("%d reasons, the last %+v", n, got.Reasons[n-1])
	}
	if len(r.Reasons) < 1000 {
		t.Error("what was given was changed")
	}
}
