package retention_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"idenfy-batch/internal/events"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/record"
	"idenfy-batch/internal/retention"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/verify"
	"idenfy-batch/sidecar"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// archive is a spool with folders that have ended.
type archive struct {
	t     testing.TB
	root  string
	paths spool.Paths
	where journal.Where
	j     *journal.Journal
	k     *retention.Keeper
	ids   map[string]string

	mu     sync.Mutex
	events []events.Event
}

func newArchive(t testing.TB) *archive {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "idenfy-batch-test-") // syncs are for other tests
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	a := &archive{t: t, root: dir, paths: spool.Paths{}, ids: map[string]string{}}
	for _, p := range spool.Places() {
		a.paths[p] = filepath.Join(dir, string(p))
		must(t, os.Mkdir(a.paths[p], 0o700))
	}
	a.where = journal.Where{Dir: filepath.Join(dir, "journal"), Mark: a.paths[spool.Work]}
	a.j, err = journal.Create(a.where)
	must(t, err)
	must(t, a.j.SetAdopted())
	a.open()
	t.Cleanup(func() { _ = a.j.Close() })
	return a
}

func (a *archive) open() {
	a.k = &retention.Keeper{Journal: a.j, Paths: a.paths, Emit: func(e events.Event) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.events = append(a.events, e)
	}, Turn: func(context.Context) error { return nil }}
}

// restart is a crash and a start.
func (a *archive) restart() {
	a.t.Helper()
	_ = a.j.Close() // its last word may have failed
	var err error
	a.j, err = journal.Open(a.where)
	must(a.t, err)
	a.open()
}

func (a *archive) path(p spool.Place, parts ...string) string {
	return filepath.Join(append([]string{a.paths[p]}, parts...)...)
}

const (
	ref  = "328c6766-934e-11ed-bb9b-025ad99a18e7"
	body = "verdict.0123456789abcdef.json"
)

var uploaded = map[string]string{
	"FRONT.jpg": "front", "FACE.jpg": "face", "meta.yaml": "authToken: x\n",
	"note.txt": "of a person", "more/a.txt": "a", "more/deep/b.txt": "b",
}

// fold makes one folder end, long ago.
func (a *archive) fold(p spool.Place, name string, change ...func(*journal.Life)) string {
	t := a.t
	t.Helper()
	for file, text := range uploaded {
		must(t, os.MkdirAll(filepath.Dir(a.path(p, name, file)), 0o700))
		must(t, os.WriteFile(a.path(p, name, file), []byte(text), 0o600))
	}
	id := spool.NewID()
	a.ids[name] = id
	must(t, a.j.Claim(id, "inbox", name))
	l, err := a.j.Load(t.Context(), id)
	must(t, err)
	r := l.Result
	r.Folder, r.Times.Finished = name, sidecar.Time{Time: time.Now().Add(-100 * 24 * time.Hour)}
	r.Outcome = map[spool.Place]sidecar.Outcome{spool.Done: sidecar.Accepted, spool.Failed: sidecar.Rejected, spool.Hold: sidecar.Unknown}[p]
	l.Fate = map[spool.Place]journal.Fate{spool.Done: journal.Taken, spool.Failed: journal.Refused, spool.Hold: journal.Unsettled}[p]
	r.Request.MetaSHA256 = sum(uploaded["meta.yaml"])
	for _, step := range []string{"FRONT", "FACE"} {
		text := uploaded[step+".jpg"]
		r.Request.Images = append(r.Request.Images, sidecar.Image{Step: step, File: step + ".jpg", Bytes: int64(len(text)), SHA256: sum(text), Format: "jpeg"})
	}
	r.Attempts = []sidecar.Attempt{{N: 1, Started: sidecar.Now(), State: sidecar.Answered, HTTPStatus: 200}}
	r.ExtraFiles = []string{"more/", "more/a.txt", "more/deep/", "more/deep/b.txt", "note.txt"}
	l.Took = true
	for _, c := range change {
		c(l)
	}
	root, err := os.OpenRoot(a.path(p, name))
	must(t, err)
	defer root.Close()
	must(t, record.End(root, l))
	l.State, l.Place, l.Name = journal.Ended, string(p), name
	must(t, a.j.End(l))
	a.j.Filed(id, string(p), name)
	must(t, a.j.SetAdopted()) // and that is on the disk
	return id
}

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

// files returns the names in a folder.
func (a *archive) files(p spool.Place, name string) (names []string) {
	a.t.Helper()
	root := a.path(p, name)
	must(a.t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if path != root && err == nil {
			names = append(names, strings.TrimPrefix(path, root+"/"))
		}
		return err
	}))
	return names
}

func (a *archive) result(p spool.Place, name string) *sidecar.Result {
	a.t.Helper()
	root, err := os.OpenRoot(a.path(p, name))
	must(a.t, err)
	defer root.Close()
	r, err := sidecar.Read(root)
	must(a.t, err)
	return r
}

// pass makes a pass, all of it.
func (a *archive) pass(ask retention.Ask) (all retention.Report) {
	a.t.Helper()
	for {
		r, err := a.k.Pass(a.t.Context(), ask)
		must(a.t, err)
		all.Add(r)
		if ask.After = r.Next; r.Next == "" {
			return all
		}
	}
}

func (a *archive) verify() (found []string) {
	a.t.Helper()
	_, err := verify.All(a.t.Context(), verify.Options{Paths: a.paths, Reader: a.j.Reader(), Told: func(int, int) {}, Found: func(f verify.Finding) {
		found = append(found, f.Code+" "+f.Place+"/"+f.Name+": "+f.What)
	}})
	must(a.t, err)
	return found
}

func (a *archive) entries(id string, kind ledger.Kind) (list []ledger.Entry) {
	a.t.Helper()
	rows, err := a.j.Reader().Entries(a.t.Context(), journal.Entries{Life: id, Most: 100})
	must(a.t, err)
	for _, row := range slices.Backward(rows) {
		e, err := ledger.Parse([]byte(row.Line))
		must(a.t, err)
		if e.Kind == kind {
			list = append(list, e)
		}
	}
	return list
}

// over is what all that has ended is older than.
const over = 24 * time.Hour

var clerk = &sidecar.Person{UID: 1007, User: "clerk"}

// What came with a folder goes, results and verdicts stay and say what went;
// before that it is said what would go, and nothing does.
func TestPurge(t *testing.T) {
	a := newArchive(t)
	old, young := a.fold(spool.Done, "old"), a.fold(spool.Done, "young", func(l *journal.Life) { l.Result.Times.Finished = sidecar.Now() })
	a.fold(spool.Failed, "failed")
	ask := retention.Ask{Rules: retention.Rules{Done: over}, By: clerk}
	before := a.files(spool.Done, "old")
	r := a.pass(ask)
	want := retention.Sum{Rule: sidecar.OfDone, Place: spool.Done, Folders: 1, Files: len(uploaded)}
	for _, text := range uploaded {
		want.Bytes += int64(len(text))
	}
	if !slices.Equal(r.Sums, []retention.Sum{want}) || len(r.Told) > 0 || len(a.events) > 0 {
		t.Errorf("it would be %+v, want %+v", r, want)
	}
	if is := a.files(spool.Done, "old"); !slices.Equal(is, before) || len(a.entries(old, ledger.Purged)) > 0 {
		t.Errorf("without --yes: %v", is)
	}
	ask.Yes = true
	if r := a.pass(ask); !slices.Equal(r.Sums, []retention.Sum{want}) || len(r.Told) > 0 {
		t.Errorf("it is %+v, want %+v", r, want)
	}
	if is := a.files(spool.Done, "old"); !slices.Equal(is, []string{"result.json"}) {
		t.Errorf("left is %v", is)
	}
	for p, name := range map[spool.Place]string{spool.Done: "young", spool.Failed: "failed"} {
		if is := a.files(p, name); !slices.Equal(is, before) {
			t.Errorf("%s: %v", name, is)
		}
	}
	res := a.result(spool.Done, "old")
	if len(res.Purges) != 1 || res.Purges[0].Rule != sidecar.OfDone || res.Purges[0].By.User != "clerk" {
		t.Fatalf("the result says %+v", res.Purges)
	}
	said := map[string]string{}
	for _, d := range res.Purges[0].Files {
		said[d.File] = d.SHA256
	}
	for file, text := range uploaded {
		if said[file] != sum(text) {
			t.Errorf("of %s it says %q", file, said[file])
		}
	}
	if n := len(a.entries(old, ledger.Purged)); n != 1 || len(a.entries(young, ledger.Purged)) != 0 {
		t.Errorf("%d entries", n)
	}
	if found := a.verify(); len(found) > 0 {
		t.Errorf("verify: %v", found)
	}
	if r := a.pass(ask); len(r.Sums) > 0 || len(r.Told) > 0 {
		t.Errorf("once more: %+v", r)
	}
	told, ok := a.events[0].(events.Purged)
	if len(a.events) != 1 || !ok || told.Bytes != want.Bytes || !told.Person {
		t.Errorf("told was %+v", a.events)
	}
	all, err := a.j.Reader().Show(t.Context(), journal.Search{Key: "old", Most: 1})
	must(t, err)
	if len(all.Stories[0].Lives[0].Result.Purges) != 1 {
		t.Error("the story doesn't have it")
	}
}

// Whatever is done to a purged folder is named: what was deleted and is there
// again, what was not deleted and is missing, a record that was changed, and one
// of before that was put back.
func TestVerifyPurged(t *testing.T) {
	for name, c := range map[string]struct {
		alter func(a *archive, dir string, before []byte) error
		want  string
	}{
		"nothing": {func(*archive, string, []byte) error { return nil }, ""},
		"an image again": {func(_ *archive, dir string, _ []byte) error {
			return os.WriteFile(dir+"/FRONT.jpg", []byte("front"), 0o600)
		}, "purged_present"},
		"meta.yaml again": {func(_ *archive, dir string, _ []byte) error {
			return os.WriteFile(dir+"/meta.yaml", []byte("x"), 0o600)
		}, "purged_present"},
		"another file": {func(_ *archive, dir string, _ []byte) error { return os.WriteFile(dir+"/x", nil, 0o600) }, "file_added"},
		"the record":   {func(_ *archive, dir string, _ []byte) error { return os.Truncate(dir+"/result.json", 300) }, "result_altered"},
		"that of before": {func(_ *archive, dir string, before []byte) error {
			return os.WriteFile(dir+"/result.json", before, 0o640)
		}, "result_altered"},
		"another's image": {func(a *archive, _ string, _ []byte) error { return os.Remove(a.path(spool.Done, "other", "FRONT.jpg")) }, "image_missing"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArchive(t)
			a.fold(spool.Done, "case")
			a.fold(spool.Done, "other", func(l *journal.Life) { l.Result.Times.Finished = sidecar.Now() })
			before, err := os.ReadFile(a.path(spool.Done, "case", sidecar.Name))
			must(t, err)
			a.pass(retention.Ask{Rules: retention.Rules{Done: over}, Yes: true})
			must(t, c.alter(a, a.path(spool.Done, "case"), before))
			found := a.verify()
			if c.want == "" && len(found) > 0 || c.want != "" && (len(found) != 1 || !strings.HasPrefix(found[0], c.want+" ")) {
				t.Errorf("found %v, want %q", found, c.want)
			}
		})
	}
}

// What iDenfy had sent has a rule of its own; a list takes all.
func TestBodies(t *testing.T) {
	put := func(a *archive, name string) {
		v := &sidecar.Verdict{ID: a.ids[name], ScanRef: ref, Events: []sidecar.VerdictEvent{{SHA256: sum("body"), Received: sidecar.Now(), Body: body}}}
		data, err := sidecar.EncodeVerdict(v)
		must(t, err)
		must(t, os.WriteFile(a.path(spool.Done, name, sidecar.VerdictName), data, 0o640))
		must(t, os.WriteFile(a.path(spool.Done, name, body), []byte("body"), 0o640))
	}
	for name, c := range map[string]struct {
		ask  retention.Ask
		left []string
	}{
		"the place":    {retention.Ask{Rules: retention.Rules{Done: over}}, []string{"result.json", body, "verdict.json"}},
		"the verdicts": {retention.Ask{Rules: retention.Rules{Verdicts: over}}, []string{"FACE.jpg", "FRONT.jpg", "meta.yaml", "more", "more/a.txt", "more/deep", "more/deep/b.txt", "note.txt", "result.json", "verdict.json"}},
		"both":         {retention.Ask{Rules: retention.Rules{Verdicts: over, Done: over}}, []string{"result.json", "verdict.json"}},
		"a list":       {retention.Ask{Listed: true, List: []string{"case"}}, []string{"result.json", "verdict.json"}},
	} {
		a := newArchive(t)
		a.fold(spool.Done, "case")
		put(a, "case")
		c.ask.Yes = true
		a.pass(c.ask)
		if is := a.files(spool.Done, "case"); !slices.Equal(is, c.left) {
			t.Errorf("%s: left is %v", name, is)
		}
		if rules := a.result(spool.Done, "case").Purges; len(rules) == 0 || (rules[0].Rule == sidecar.OfVerdicts) != (c.ask.Rules.Verdicts > 0) {
			t.Errorf("%s: %+v", name, rules)
		}
	}
}

// Results and verdicts of submissions that the journal knows are evidence;
// whatever else has such a name is an uploader's.
func TestEvidenceStays(t *testing.T) {
	a := newArchive(t)
	a.fold(spool.Done, "case")
	a.fold(spool.Failed, "earlier")
	known, err := os.ReadFile(a.path(spool.Failed, "earlier", sidecar.Name))
	must(t, err)
	dir := a.path(spool.Done, "case")
	for file, text := range map[string]string{
		"result.1.json": string(known), "result.2.json": `{"person": "of an uploader"}`,
		"result.3.json":  strings.ReplaceAll(string(known), a.ids["earlier"], "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
		"verdict.1.json": fmt.Sprintf(`{"schema": "idenfy-batch/verdict/v1", "id": %q}`, a.ids["earlier"]), "verdict.2.json": "{}", body: "an uploader's",
		".idenfy-batch.copy.tmp": "of a crash",
	} {
		must(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
	}
	must(t, os.Mkdir(filepath.Join(dir, "result.4.json"), 0o700))
	a.pass(retention.Ask{Rules: retention.Rules{Done: over}, Yes: true})
	if is := a.files(spool.Done, "case"); !slices.Equal(is, []string{"result.1.json", "result.json", "verdict.1.json"}) {
		t.Errorf("left is %v", is)
	}
}

// A legal hold stops rules and lists, whatever it is, and also when it comes
// between the look and the deed.
func TestLegalHold(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a file":      func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"a directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"a link":      func(p string) error { return os.Symlink("nowhere", p) },
	} {
		a := newArchive(t)
		a.fold(spool.Done, "case")
		a.fold(spool.Done, "other")
		ask := retention.Ask{Rules: retention.Rules{Done: over}}
		if r := a.pass(ask); r.Total().Folders != 2 {
			t.Errorf("%s: %+v", name, r)
		}
		must(t, put(a.path(spool.Done, "case", ".keep")))
		ask.Yes = true
		if r := a.pass(ask); r.Total().Folders != 1 || len(r.Held) != 1 || r.Held[0].Name != "done/case" {
			t.Errorf("%s: %+v", name, r)
		}
		if r := a.pass(retention.Ask{Listed: true, List: []string{a.ids["case"]}, Yes: true}); r.Total().Folders != 0 || len(r.Held) != 1 {
			t.Errorf("%s: listed: %+v", name, r)
		}
		if n := len(a.files(spool.Done, "case")); n < len(uploaded) || len(a.entries(a.ids["case"], ledger.Purged)) > 0 {
			t.Errorf("%s: left are %d files", name, n)
		}
	}
}

// Links are removed, and nothing that they lead to; a file with another name
// elsewhere loses this one only, and the record says so; nothing outside of the
// folder is touched.
func TestLinks(t *testing.T) {
	a := newArchive(t)
	a.fold(spool.Done, "case")
	outside := filepath.Join(a.root, "outside")
	must(t, os.MkdirAll(filepath.Join(outside, "sub"), 0o700))
	must(t, os.WriteFile(filepath.Join(outside, "sub", "f"), []byte("kept"), 0o600))
	dir := a.path(spool.Done, "case")
	must(t, os.Symlink(outside, filepath.Join(dir, "out")))
	must(t, os.Symlink("../../../outside/sub/f", filepath.Join(dir, "more", "f")))
	must(t, os.Symlink(".", filepath.Join(dir, "more", "self")))
	must(t, os.Link(filepath.Join(outside, "sub", "f"), filepath.Join(dir, "hard")))
	must(t, os.Symlink("result.json", filepath.Join(dir, "result.1.json")))
	must(t, os.WriteFile(filepath.Join(dir, "\x1b[2J\"x\n"), []byte("odd"), 0o600))
	a.pass(retention.Ask{Rules: retention.Rules{Done: over}, Yes: true})
	if is := a.files(spool.Done, "case"); !slices.Equal(is, []string{"result.json"}) {
		t.Errorf("left is %v", is)
	}
	if text, err := os.ReadFile(filepath.Join(outside, "sub", "f")); err != nil || string(text) != "kept" {
		t.Errorf("outside: %q, %v", text, err)
	}
	files := a.result(spool.Done, "case").Purges[0].Files
	if at := slices.IndexFunc(files, func(d sidecar.Deleted) bool { return d.File == "hard" }); at < 0 || !files[at].Linked {
		t.Errorf("of the hard link it says %+v", files)
	}
}

// A tree of more names than one record has, and one that is too deep to be
// listed, goes by several.
func TestLargeTree(t *testing.T) {
	a := newArchive(t)
	a.fold(spool.Failed, "case")
	dir := a.path(spool.Failed, "case")
	for i := range 1300 {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("scan%04d.tif", i)), []byte{1}, 0o600))
	}
	must(t, os.MkdirAll(filepath.Join(dir, strings.Repeat("d/", 40)), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, strings.Repeat("d/", 40), "deep.jpg"), nil, 0o600))
	r := a.pass(retention.Ask{Rules: retention.Rules{Failed: over}, Yes: true})
	if is := a.files(spool.Failed, "case"); !slices.Equal(is, []string{"result.json"}) {
		t.Errorf("left is %v; %+v", is, r)
	}
	if n := len(a.result(spool.Failed, "case").Purges); n < 3 || r.Total().Folders != 1 || r.Total().Files < 1300 {
		t.Errorf("%d records, %+v", n, r)
	}
	if found := a.verify(); len(found) > 0 {
		t.Errorf("verify: %v", found)
	}
}

// What matches none, or several, is named and left alone; a clientId stands for
// all of that person.
func TestList(t *testing.T) {
	person := func(id string) func(*journal.Life) { return func(l *journal.Life) { l.ClientID = id } }
	a := newArchive(t)
	for name, client := range map[string]string{"a1": "anna", "a2": "anna", "b1": "bert", "carl": "", "dora": "dora", "dora.2": "dora", "emma": ""} {
		a.fold(spool.Done, name, person(client))
	}
	a.fold(spool.Failed, "twin")
	a.fold(spool.Done, "twin")
	a.fold(spool.Done, "x", person("emma")) // who has the name of somebody else's folder
	must(t, os.Rename(a.path(spool.Done, "b1"), a.path(spool.Done, "renamed")))
	r := a.pass(retention.Ask{Listed: true, Yes: true, By: clerk, List: []string{"anna", "carl", "nobody", "twin", "dora", "emma", a.ids["b1"], "../x", "\x1b[2J"}})
	purged := map[string]bool{}
	for _, p := range []spool.Place{spool.Done, spool.Failed} {
		names, err := a.paths.List(p)
		must(t, err)
		for _, name := range names {
			purged[string(p)+"/"+name] = len(a.files(p, name)) == 1
		}
	}
	want := map[string]bool{"done/a1": true, "done/a2": true, "done/renamed": true, "done/carl": true, "done/dora": true, "done/dora.2": true,
		"done/emma": false, "done/x": false, "failed/twin": false, "done/twin": false}
	if !maps.Equal(purged, want) {
		t.Errorf("purged are %v", purged)
	}
	var told []string
	for _, x := range r.Told {
		told = append(told, x.Name)
	}
	if !slices.Equal(told, []string{"nobody", "twin", "emma", "../x", `"\x1b[2J"`}) {
		t.Errorf("told were %v", r.Told)
	}
	if r := a.pass(retention.Ask{Listed: true, Yes: true, List: []string{"failed/twin"}}); r.Total().Folders != 1 || len(a.files(spool.Done, "twin")) == 1 {
		t.Errorf("with its place: %+v", r)
	}
}

// A folder that is listed with its place is that one, also where its name is the
// clientId of others.
func TestListWithPlace(t *testing.T) {
	a := newArchive(t)
	for _, p := range []spool.Place{spool.Done, spool.Failed, spool.Hold} {
		a.fold(p, "case-7", func(l *journal.Life) { l.ClientID = "case-7" })
	}
	r := a.pass(retention.Ask{Listed: true, Yes: true, By: clerk, List: []string{"done/case-7"}})
	if r.Total().Folders != 1 || len(a.files(spool.Done, "case-7")) != 1 {
		t.Errorf("%+v", r)
	}
	for _, p := range []spool.Place{spool.Failed, spool.Hold} {
		if len(a.files(p, "case-7")) == 1 {
			t.Errorf("%s/case-7 was emptied", p)
		}
	}
	if r := a.pass(retention.Ask{Listed: true, Yes: true, By: clerk, List: []string{"case-7"}}); r.Total().Folders != 2 {
		t.Errorf("by the clientId: %+v", r)
	}
}

// What can't be purged is told, and keeps nobody else: a folder that is locked,
// whose directory can't be written, a copy, one that nobody knows.
func TestObstacles(t *testing.T) {
	a := newArchive(t)
	for _, name := range []string{"locked", "copied", "good"} {
		a.fold(spool.Done, name)
	}
	must(t, os.CopyFS(a.path(spool.Done, "copy"), os.DirFS(a.path(spool.Done, "copied"))))
	must(t, os.Mkdir(a.path(spool.Done, "stranger"), 0o700))
	must(t, os.WriteFile(a.path(spool.Done, "stranger", "FRONT.jpg"), nil, 0o600))
	root, err := os.OpenRoot(a.path(spool.Done, "locked"))
	must(t, err)
	defer root.Close()
	unlock, err := spool.LockFolder(root)
	must(t, err)
	r := a.pass(retention.Ask{Rules: retention.Rules{Done: over}, Yes: true})
	unlock()
	var told []string
	for _, x := range r.Told {
		told = append(told, x.Name)
	}
	if !slices.Equal(told, []string{"done/copy", "done/locked", "done/stranger"}) || r.Total().Folders != 2 {
		t.Errorf("%+v", r)
	}
	if n := len(a.files(spool.Done, "copy")); n < len(uploaded) {
		t.Errorf("the copy has %d files", n)
	}
	if r := a.pass(retention.Ask{Rules: retention.Rules{Done: over}, Yes: true}); r.Total().Folders != 1 || len(r.Told) != 2 {
		t.Errorf("the next day: %+v", r)
	}
}

// A folder that was sent back, and that decision was not carried out, keeps what
// it is to be sent with.
func TestUndoneDecision(t *testing.T) {
	a := newArchive(t)
	id := a.fold(spool.Failed, "case")
	l, err := a.j.Load(t.Context(), id)
	must(t, err)
	l.Place = string(spool.Inbox)
	must(t, a.j.Decide(l, l.Fate, sidecar.Decision{At: sidecar.Now(), Action: sidecar.Requeued, Result: id, Outcome: l.Outcome()}, "", nil))
	r := a.pass(retention.Ask{Rules: retention.Rules{Failed: over}, Yes: true})
	if len(r.Told) != 1 || len(a.files(spool.Failed, "case")) < len(uploaded) {
		t.Errorf("%+v", r)
	}
}

// iDenfy is asked with the intent on record, and its answer is on record; what
// any session would meet stops the rest, and a repeated command goes on from
// there.
func TestRemote(t *testing.T) {
	taken := func(n int) func(*journal.Life) {
		return func(l *journal.Life) { l.ScanRef, l.Token = fmt.Sprintf("%s-%d", ref, n), sum(fmt.Sprint(n)) }
	}
	a := newArchive(t)
	for n, name := range []string{"a", "b", "c", "d"} {
		a.fold(spool.Done, name, taken(n))
	}
	a.fold(spool.Done, "e", func(l *journal.Life) { l.ScanRef, l.Token = ref+"-5", sum("one") })
	a.fold(spool.Failed, "copied", func(l *journal.Life) { l.ScanRef, l.Token = ref+"-5", sum("another") }) // so it isn't certain whose that is
	a.fold(spool.Done, "f")
	must(t, a.j.SetAdopted())
	answers := map[string]error{
		ref + "-1": &idenfy.Error{Class: idenfy.Rejected, Status: 400, Identifier: "PARTNER_ERROR", Message: "Token has not expired yet."},
		ref + "-2": &idenfy.Error{Class: idenfy.ServiceFault, Status: 401, Identifier: "UNAUTHORIZED", Message: "no"},
	}
	asked := map[string]int{}
	a.k.Delete = func(_ context.Context, scanRef string) error {
		asked[scanRef]++
		for name, id := range a.ids {
			if name == "copied" {
				continue
			}
			if r := a.result(spool.Done, name); len(r.Purges) > 0 && r.Purges[0].Remote != nil && r.Purges[0].Remote.ScanRef == scanRef && len(a.entries(id, ledger.Purged)) == 0 {
				t.Error("it was asked before the intent was on record")
			}
		}
		return answers[scanRef]
	}
	ask := retention.Ask{Listed: true, List: []string{"a", "b", "c", "d", "e", "f"}, Yes: true, Remote: true, By: clerk}
	dry := ask
	dry.Yes = false
	if r := a.pass(dry); r.Sessions != 4 || len(asked) > 0 {
		t.Errorf("it would be %+v; asked were %v", r, asked)
	}
	r, err := a.k.Pass(t.Context(), ask)
	if err == nil || !strings.Contains(err.Error(), "UNAUTHORIZED") || r.Sessions != 3 || r.Erased != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if len(a.files(spool.Done, "d")) == 1 {
		t.Error("it went on")
	}
	delete(answers, ref+"-1")
	delete(answers, ref+"-2")
	if r = a.pass(ask); r.Erased != 3 {
		t.Errorf("the second time: %+v", r)
	}
	if want := map[string]int{ref + "-0": 1, ref + "-1": 2, ref + "-2": 2, ref + "-3": 1}; !maps.Equal(asked, want) {
		t.Errorf("asked were %v", asked)
	}
	purges := a.result(spool.Done, "b").Purges
	if len(purges) != 2 || purges[0].Remote.Identifier != "PARTNER_ERROR" || purges[0].Remote.Done() || !purges[1].Remote.Done() || len(purges[1].Files) != 0 {
		t.Errorf("the result says %+v", purges)
	}
	var words []ledger.Remote
	for _, e := range a.entries(a.ids["b"], ledger.Purged) {
		words = append(words, e.Remote)
	}
	if !slices.Equal(words, []ledger.Remote{ledger.Asked, ledger.Kept, ledger.Asked, ledger.Erased}) {
		t.Errorf("the ledger says %v", words)
	}
	if found := a.verify(); len(found) > 0 {
		t.Errorf("verify: %v", found)
	}
	if n, err := a.j.SentSince(t.Context(), time.Now().Add(-time.Minute)); err != nil || n != 6+7 { // with the attempts
		t.Errorf("%d requests count, %v", n, err)
	}
}
