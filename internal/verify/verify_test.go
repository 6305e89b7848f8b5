package verify_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // to alter a journal

	"idenfy-batch/internal/decision"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/record"
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
	key   *ledger.Key
	own   []byte // the checkpoint
	ids   map[string]string
}

// newArchive has n folders: of five, three are in done, one in failed, one in
// hold.
func newArchive(t testing.TB, n int) *archive {
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
	j, err := journal.Create(a.where)
	must(t, err)
	text, err := ledger.NewKey(ledger.Origin(j.ID()))
	must(t, err)
	a.key, err = ledger.ParseKey([]byte(text), ledger.Origin(j.ID()))
	must(t, err)
	must(t, j.Started("test", a.key.Verifier(), false))
	for i := range n {
		a.fold(j, i)
	}
	a.sign(j)
	must(t, j.Close())
	return a
}

func (a *archive) sign(j *journal.Journal) {
	a.t.Helper()
	present, err := j.Ledger(a.t.Context())
	must(a.t, err)
	a.own, err = a.key.Sign(present.Tree)
	must(a.t, err)
}

func name(i int) string { return fmt.Sprintf("case%03d", i) }

// fold makes one folder end, as the daemon does.
func (a *archive) fold(j *journal.Journal, i int) {
	t := a.t
	t.Helper()
	o, p := sidecar.Accepted, spool.Done
	switch i % 5 {
	case 3:
		o, p = sidecar.Rejected, spool.Failed
	case 4:
		o, p = sidecar.Unknown, spool.Hold
	}
	dir := filepath.Join(a.paths[p], name(i))
	must(t, os.MkdirAll(filepath.Join(dir, "more"), 0o700))
	files := map[string]string{
		"FRONT.jpg": fmt.Sprintf("front %d", i), "FACE.jpg": fmt.Sprintf("face %d", i), "note.txt": "x", "more/a.txt": "y",
		"meta.yaml": fmt.Sprintf("authToken: TOKEN-%d-0123456789\ncountry: LT\ndocumentType: PASSPORT\n", i),
	}
	for name, text := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	id := spool.NewID()
	a.ids[name(i)] = id
	must(t, j.Claim(id, name(i)))
	l, err := j.Load(t.Context(), id)
	must(t, err)
	r := l.Result
	r.Folder, r.Outcome, r.Times.Finished = name(i), o, sidecar.Now()
	r.Request.Country, r.Request.DocumentType, r.Request.MetaSHA256 = "LT", "PASSPORT", sum(files["meta.yaml"])
	for _, step := range []string{"FRONT", "FACE"} {
		text := files[step+".jpg"]
		r.Request.Images = append(r.Request.Images, sidecar.Image{Step: step, File: step + ".jpg", Bytes: int64(len(text)), SHA256: sum(text), Format: "jpeg"})
	}
	r.Attempts = []sidecar.Attempt{{N: 1, Started: sidecar.Now(), State: sidecar.Answered, HTTPStatus: 200}}
	r.ExtraFiles = []string{"more/", "more/a.txt", "note.txt"}
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	must(t, record.Write(root, l))
	l.State, l.Place, l.Name, l.Fate, l.Took = journal.Ended, string(p), name(i), map[sidecar.Outcome]journal.Fate{sidecar.Accepted: journal.Taken, sidecar.Rejected: journal.Refused, sidecar.Unknown: journal.Unsettled}[o], true
	must(t, j.End(l))
	j.Filed(id, string(p), name(i))
}

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}

// verify returns what is found, as "code place/name".
func (a *archive) verify(change func(*verify.Options)) (found []string, s verify.Summary, err error) {
	a.t.Helper()
	r, err := journal.OpenReader(context.Background(), a.where)
	must(a.t, err)
	defer r.Close()
	o := verify.Options{Paths: a.paths, Reader: r, Own: a.own, Marker: ".ready", Told: func(int, int) {}, Found: func(f verify.Finding) {
		at := f.Code
		if f.Name != "" {
			at += " " + f.Place + "/" + f.Name
		}
		if !slices.Contains(found, at) {
			found = append(found, at)
		}
	}}
	if change != nil {
		change(&o)
	}
	s, err = verify.All(context.Background(), o)
	slices.Sort(found)
	return found, s, err
}

func (a *archive) path(parts ...string) string {
	return filepath.Join(append([]string{a.root}, parts...)...)
}

func (a *archive) write(text string, parts ...string) {
	a.t.Helper()
	must(a.t, os.WriteFile(a.path(parts...), []byte(text), 0o600))
}

func (a *archive) replace(from, to string, parts ...string) {
	a.t.Helper()
	data, err := os.ReadFile(a.path(parts...))
	must(a.t, err)
	if !strings.Contains(string(data), from) {
		a.t.Fatalf("no %s in %s", from, data)
	}
	a.write(strings.Replace(string(data), from, to, 1), parts...)
}

// alter changes the database as only somebody with the daemon's rights can.
func (a *archive) alter(query string) {
	a.t.Helper()
	db, err := sql.Open("sqlite", "file:"+a.path("journal", journal.Name))
	must(a.t, err)
	defer db.Close()
	_, err = db.Exec("DROP TRIGGER IF EXISTS entry_kept; DROP TRIGGER IF EXISTS entry_fixed; " + query)
	must(a.t, err)
}

func (a *archive) copyTree(from, to string) {
	a.t.Helper()
	must(a.t, os.CopyFS(to, os.DirFS(from)))
}

// alterations of folders: each is named once, by the folder, and nothing else.
var alterations = map[string]func(a *archive){
	"removed done/case000":           func(a *archive) { must(a.t, os.RemoveAll(a.path("done", name(0)))) },
	"image_altered done/case001":     func(a *archive) { a.replace("front 1", "front 1x", "done", name(1), "FRONT.jpg") },
	"result_altered done/case002":    func(a *archive) { a.replace("accepted", "rejected", "done", name(2), sidecar.Name) },
	"moved done/case003":             func(a *archive) { must(a.t, os.Rename(a.path("failed", name(3)), a.path("done", name(3)))) },
	"meta_altered hold/case004":      func(a *archive) { a.replace("LT", "LV", "hold", name(4), "meta.yaml") },
	"image_altered done/case005":     func(a *archive) { a.replace("face 5", "face 6", "done", name(5), "FACE.jpg") },
	"image_missing done/case006":     func(a *archive) { must(a.t, os.Remove(a.path("done", name(6), "FACE.jpg"))) },
	"result_altered done/case007":    func(a *archive) { a.replace("LT", "LV", "done", name(7), sidecar.Name) },
	"result_altered failed/case008":  func(a *archive) { must(a.t, os.Remove(a.path("failed", name(8), sidecar.Name))) },
	"file_added hold/case009":        func(a *archive) { a.write("z", "hold", name(9), "more", "b.txt") },
	"file_removed done/case010":      func(a *archive) { must(a.t, os.Remove(a.path("done", name(10), "note.txt"))) },
	"added done/stranger":            func(a *archive) { must(a.t, os.Mkdir(a.path("done", "stranger"), 0o700)) },
	"added done/copy":                func(a *archive) { a.copyTree(a.path("done", name(11)), a.path("done", "copy")) },
	"result_altered done/case012":    func(a *archive) { a.write("", "done", name(12), sidecar.Name) },
	"journal_differs failed/case013": func(a *archive) { a.alter("UPDATE life SET outcome = 'accepted' WHERE folder = 'case013'") },
	"meta_missing hold/case014":      func(a *archive) { must(a.t, os.Remove(a.path("hold", name(14), "meta.yaml"))) },
}

func TestNothing(t *testing.T) {
	a := newArchive(t, 40)
	found, s, err := a.verify(func(o *verify.Options) { o.Earlier = a.own })
	must(t, err)
	if len(found) > 0 || s.Findings != 0 || s.Folders != 40 || s.Images != 80 || s.Entries != 41 || s.Relation != string(ledger.Same) {
		t.Errorf("%v, %+v", found, s)
	}
}

// Each by itself, and all at once, among 200 folders.
func TestAlterations(t *testing.T) {
	for want, alter := range alterations {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			a := newArchive(t, 20)
			alter(a)
			found, s, err := a.verify(nil)
			must(t, err)
			if !slices.Equal(found, []string{want}) || s.Findings != 1 {
				t.Errorf("found %v, %d", found, s.Findings)
			}
		})
	}
	t.Run("all", func(t *testing.T) {
		t.Parallel()
		a := newArchive(t, 200)
		for _, alter := range alterations {
			alter(a)
		}
		found, s, err := a.verify(nil)
		must(t, err)
		if want := slices.Sorted(maps.Keys(alterations)); !slices.Equal(found, want) || s.Findings != len(want) {
			t.Errorf("%d found: %v\nwant %v", s.Findings, found, want)
		}
	})
}

// What is done to the ledger, its key, its checkpoint, and with an earlier one.
func TestLedgerAltered(t *testing.T) {
	anew := func(a *archive, lines string) { // the tree is made anew, as if it had always been so
		a.alter(lines)
		db, err := sql.Open("sqlite", "file:"+a.path("journal", journal.Name))
		must(a.t, err)
		defer db.Close()
		var n int64
		must(a.t, db.QueryRow("SELECT count(*) FROM entry").Scan(&n))
		var kept [][]byte
		for i := range n {
			var line []byte
			must(a.t, db.QueryRow("SELECT line FROM entry WHERE n = ?", i).Scan(&line))
			hashes, err := ledger.Append(i, line, ledger.Hashes(func(n int64) ([]byte, error) { return kept[n], nil }))
			must(a.t, err)
			kept = append(kept, hashes)
			_, err = db.Exec("UPDATE entry SET hashes = ? WHERE n = ?", hashes, i)
			must(a.t, err)
		}
	}
	resign := func(a *archive) {
		j, err := journal.Open(a.where)
		must(a.t, err)
		defer j.Close()
		a.sign(j)
	}
	const gone = "DELETE FROM entry WHERE n = 7; UPDATE entry SET n = n - 1 WHERE n > 7"
	for name, c := range map[string]struct {
		change  func(a *archive)
		want    []string // at least
		earlier bool
	}{
		"a line":                    {func(a *archive) { a.alter("UPDATE entry SET line = replace(line, 'accepted', 'rejected') WHERE n = 7") }, []string{"entry_altered"}, false},
		"a hash":                    {func(a *archive) { a.alter("UPDATE entry SET hashes = zeroblob(length(hashes)) WHERE n = 8") }, []string{"entry_altered"}, false},
		"removed from the middle":   {func(a *archive) { a.alter("DELETE FROM entry WHERE n = 7") }, []string{"entry_removed", "journal_differs done/case006"}, false},
		"removed and renumbered":    {func(a *archive) { a.alter(gone) }, []string{"entry_altered", "journal_differs done/case006"}, false},
		"removed from the end":      {func(a *archive) { a.alter("DELETE FROM entry WHERE n >= 18") }, []string{"cut_off", "journal_differs done/case017"}, false},
		"the tree made anew":        {func(a *archive) { anew(a, gone) }, []string{"cut_off", "journal_differs done/case006"}, false},
		"a line, and the tree anew": {func(a *archive) { anew(a, "UPDATE entry SET line = replace(line, 'accepted', 'rejected') WHERE n = 7") }, []string{"history_altered", "journal_differs done/case006"}, false},
		"and signed anew": {func(a *archive) {
			anew(a, "UPDATE entry SET line = replace(line, 'accepted', 'rejected') WHERE n = 7")
			resign(a)
		}, []string{"forked", "journal_differs done/case006"}, true},
		"cut off, and signed":       {func(a *archive) { a.alter("DELETE FROM entry WHERE n >= 18"); resign(a) }, []string{"cut_off"}, true},
		"the checkpoint":            {func(a *archive) { a.own = []byte(strings.Replace(string(a.own), "21", "20", 1)) }, []string{"checkpoint_altered"}, false},
		"the checkpoint is no text": {func(a *archive) { a.own = []byte{0} }, []string{"checkpoint_altered"}, false},
		"the key": {func(a *archive) {
			j, err := journal.Open(a.where)
			must(a.t, err)
			text, err := ledger.NewKey(ledger.Origin(j.ID()))
			must(a.t, err)
			a.key, err = ledger.ParseKey([]byte(text), ledger.Origin(j.ID()))
			must(a.t, err)
			must(a.t, j.Started("test", a.key.Verifier(), false))
			a.sign(j)
			must(a.t, j.Close())
		}, []string{"key_replaced"}, true},
		"a row": {func(a *archive) { a.alter("DELETE FROM life WHERE folder = 'case007'") }, []string{"journal_differs done/case007"}, false},
		"a decision": {func(a *archive) {
			a.decide(sidecar.Confirmed, "hold/case004")
			a.alter("DELETE FROM decision")
		}, []string{"journal_differs done/case004"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newArchive(t, 20)
			was := a.own
			c.change(a)
			found, _, err := a.verify(func(o *verify.Options) {
				if c.earlier {
					o.Earlier = was
				}
			})
			must(t, err)
			for _, want := range c.want {
				if !slices.Contains(found, want) {
					t.Errorf("found %v; want %s", found, want)
				}
			}
		})
	}
	a, b := newArchive(t, 5), newArchive(t, 5)
	if _, _, err := a.verify(func(o *verify.Options) { o.Earlier = b.own }); err == nil || !strings.Contains(err.Error(), "another ledger") {
		t.Errorf("a checkpoint of another spool: %v", err)
	}
}

func (a *archive) decide(action sidecar.Action, name string) {
	a.t.Helper()
	j, err := journal.Open(a.where)
	must(a.t, err)
	desk := decision.Desk{Paths: a.paths, Journal: j, InWork: a.paths.Has}
	_, _, err = desk.Make(a.t.Context(), name, decision.Decision{Action: action, Force: true})
	must(a.t, err)
	must(a.t, j.Close())
}

// What people may do is no alteration: decisions of all kinds, a folder that is
// put into the inbox, one that is in work, one that is to be moved.
func TestNoAlteration(t *testing.T) {
	a := newArchive(t, 20)
	a.decide(sidecar.Requeued, "failed/case003")
	a.decide(sidecar.Confirmed, "hold/case004")
	a.decide(sidecar.Denied, "hold/case009")
	a.decide(sidecar.Resubmit, "hold/case014")
	must(t, os.Rename(a.path("failed", name(8)), a.path("inbox", name(8))))
	must(t, os.Rename(a.path("failed", name(13)), a.path("inbox", name(13))))
	j, err := journal.Open(a.where)
	must(t, err)
	// One is claimed, and ends again, as another life.
	must(t, os.Rename(a.path("inbox", name(13)), a.path("work", name(13))))
	root, err := os.OpenRoot(a.path("work", name(13)))
	must(t, err)
	must(t, sidecar.Rotate(root, sidecar.Name))
	id := spool.NewID()
	must(t, j.Claim(id, name(13)))
	l, err := j.Load(t.Context(), id)
	must(t, err)
	l.State, l.Result.Outcome, l.Result.Folder = journal.Pending, sidecar.Invalid, name(13)
	_, err = j.Begin(journal.Question{Life: l, Only: true})
	must(t, err)
	must(t, record.Write(root, l))
	must(t, root.Close())
	l.State, l.Place, l.Name = journal.Ended, "failed", name(13)
	must(t, j.End(l)) // and is to be moved
	found, s, err := a.verify(nil)
	must(t, errors.Join(err, j.Close()))
	if len(found) > 0 || s.Working != 1 {
		t.Errorf("%v, %+v", found, s)
	}
}
