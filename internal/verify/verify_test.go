package verify_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

	// Of the next ones:
	change  func(*sidecar.Result)
	more    map[string]string // files
	wrapped bool
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
	maps.Copy(files, a.more)
	for name, text := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	id := spool.NewID()
	a.ids[name(i)] = id
	must(t, j.Claim(id, "inbox", name(i)))
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
	if a.change != nil {
		a.change(r)
		if l.Token = r.Request.TokenSHA256; r.Session != nil {
			l.ScanRef = r.Session.ScanRef
		}
	}
	if a.wrapped { // see spool.Wrap
		must(t, os.WriteFile(filepath.Join(dir, sidecar.Name), []byte("the uploader's"), 0o600))
		r.Reasons = []sidecar.Reason{{Code: sidecar.NotWritable, Message: "m", Source: sidecar.FromDaemon}}
		must(t, os.Rename(dir, dir+".inner"))
		must(t, os.Mkdir(dir, 0o700))
		must(t, os.Rename(dir+".inner", filepath.Join(dir, name(i))))
		inner, err := os.OpenRoot(filepath.Join(dir, name(i)))
		must(t, err)
		r.Earlier, err = sidecar.Others(inner, "")
		must(t, errors.Join(err, inner.Close()))
	}
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	if a.wrapped {
		must(t, record.Write(root, l))
	} else {
		must(t, record.End(root, l))
	}
	l.State, l.Place, l.Name, l.Fate, l.Took = journal.Ended, string(p), name(i), map[sidecar.Outcome]journal.Fate{sidecar.Accepted: journal.Taken, sidecar.Rejected: journal.Refused, sidecar.Unknown: journal.Unsettled}[o], true
	for n := range r.Attempts[:len(r.Attempts)-1] {
		of := *l
		of.State, of.Result = journal.Pending, &sidecar.Result{}
		*of.Result = *r
		of.Result.Attempts, of.Result.Outcome = r.Attempts[:n+1], sidecar.Pending
		must(t, j.Put(&of))
	}
	must(t, j.End(l))
	j.Filed(id, string(p), name(i))
}

// What lies inside a folder of the daemon's own, since that could not write into
// it, is held against the result too; and so are results of earlier lives, what
// travelled along beyond the names that are listed, and what lies deeper.
func TestFilesAltered(t *testing.T) {
	const inner = "case003/" // of the wrapped ones
	for name, c := range map[string]struct {
		wrapped bool
		alter   func(folder string) error
		want    []string
	}{
		"wrapped":                 {true, func(string) error { return nil }, nil},
		"wrapped, an image":       {true, func(f string) error { return os.WriteFile(f+inner+"FACE.jpg", []byte("face 4"), 0o600) }, []string{"image_altered"}},
		"wrapped, meta.yaml":      {true, func(f string) error { return os.Remove(f + inner + "meta.yaml") }, []string{"meta_missing"}},
		"wrapped, beside it":      {true, func(f string) error { return os.WriteFile(f+"FRONT.png", nil, 0o600) }, []string{"file_added"}},
		"wrapped, in it":          {true, func(f string) error { return os.WriteFile(f+inner+"more/x", nil, 0o600) }, []string{"file_added"}},
		"wrapped, taken out":      {true, func(f string) error { return os.Remove(f + inner + "more/a.txt") }, []string{"file_removed"}},
		"wrapped, its own result": {true, func(f string) error { return os.WriteFile(f+inner+sidecar.Name, []byte("7"), 0o600) }, []string{"result_altered"}},
		"wrapped, the result":     {true, func(f string) error { return os.WriteFile(f+sidecar.Name, []byte("7"), 0o600) }, []string{"result_altered"}},
		"wrapped, all of it":      {true, func(f string) error { return os.RemoveAll(f + inner) }, []string{"file_removed", "image_missing", "meta_missing"}},
		"wrapped, another name":   {true, func(f string) error { return os.Rename(f+inner, f+"x") }, nil},
		"not wrapped":             {false, func(string) error { return nil }, nil},
		"a file in place of a link": {false, func(f string) error {
			return errors.Join(os.Remove(f+"FACE.jpg"), os.Symlink("FRONT.jpg", f+"FACE.jpg"))
		}, []string{"image_altered"}},
		"in a folder, added":      {false, func(f string) error { return os.Mkdir(f+"more/deep", 0o700) }, []string{"file_added"}},
		"in a folder, removed":    {false, func(f string) error { return os.RemoveAll(f + "more") }, []string{"file_removed"}},
		"earlier result":          {false, func(f string) error { return os.WriteFile(f+"result.1.json", []byte("[2]"), 0o600) }, []string{"result_altered"}},
		"earlier result, longer":  {false, func(f string) error { return os.Truncate(f+"result.1.json", 2<<20) }, []string{"result_altered"}},
		"earlier result, removed": {false, func(f string) error { return os.Remove(f + "result.1.json") }, []string{"file_removed"}},
		"earlier result, added":   {false, func(f string) error { return os.WriteFile(f+"result.2.json", nil, 0o600) }, []string{"file_added"}},
		"of many, one less":       {false, func(f string) error { return os.Remove(f + "many.2") }, []string{"file_removed"}},
		"of many, one more":       {false, func(f string) error { return os.WriteFile(f+"many.9", nil, 0o600) }, []string{"file_added"}},
		"somebody's lease":        {false, lease(t), []string{"unreadable"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newArchive(t, 1)
			j, err := journal.Open(a.where)
			must(t, err)
			if a.wrapped = c.wrapped; !c.wrapped {
				a.more = map[string]string{"result.1.json": "[1]", "many.1": "", "many.2": ""}
				a.change = func(r *sidecar.Result) { r.MoreFiles = 2 }
			}
			a.fold(j, 3)
			a.sign(j)
			must(t, j.Close())
			must(t, c.alter(a.path("failed", "case003")+"/"))
			found, _, err := a.verify(nil)
			must(t, err)
			var codes []string
			for _, f := range found {
				code, folder, _ := strings.Cut(f, " ")
				if codes = append(codes, code); folder != "failed/case003" {
					t.Errorf("found %s", f)
				}
			}
			if !slices.Equal(codes, c.want) {
				t.Errorf("found %v", found)
			}
		})
	}
}

// lease takes a lease on an image, so that it can't be opened.
func lease(t *testing.T) func(folder string) error {
	return func(folder string) error {
		f, err := os.OpenFile(folder+"FACE.jpg", os.O_RDWR, 0)
		must(t, err)
		signal.Ignore(unix.SIGIO) // by which the holder is told
		t.Cleanup(func() { must(t, f.Close()) })
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
		return err
	}
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
	o := verify.Options{Paths: a.paths, Reader: r, Own: a.own, Marker: ".ready", Settle: time.Millisecond, Told: func(int, int) {}, Found: func(f verify.Finding) {
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
	"file_added failed/case018":      func(a *archive) { a.write("{}", "failed", name(18), "result.1.json") },
	"result_altered failed/case008":  func(a *archive) { must(a.t, os.Remove(a.path("failed", name(8), sidecar.Name))) },
	"file_added hold/case009":        func(a *archive) { a.write("z", "hold", name(9), "more", "b.txt") },
	"file_removed done/case010":      func(a *archive) { must(a.t, os.Remove(a.path("done", name(10), "note.txt"))) },
	"added done/stranger":            func(a *archive) { must(a.t, os.Mkdir(a.path("done", "stranger"), 0o700)) },
	"added done/copy":                func(a *archive) { a.copyTree(a.path("done", name(11)), a.path("done", "copy")) },
	"result_altered done/case012":    func(a *archive) { a.write("", "done", name(12), sidecar.Name) },
	"journal_differs failed/case013": func(a *archive) { a.alter("UPDATE life SET outcome = 'accepted' WHERE folder = 'case013'") },
	"meta_missing hold/case014":      func(a *archive) { must(a.t, os.Remove(a.path("hold", name(14), "meta.yaml"))) },
}

// leaves returns what in a JSON text is no object and no list, by its path,
// each with the text in which it alone is another.
func leaves(t *testing.T, text []byte) map[string][]byte {
	t.Helper()
	var tree any
	must(t, json.Unmarshal(text, &tree))
	all := map[string][]byte{}
	var walk func(path string, v any, put func(any))
	walk = func(path string, v any, put func(any)) {
		var other any
		switch v := v.(type) {
		case map[string]any:
			for key := range v {
				walk(path+"."+key, v[key], func(o any) { v[key] = o })
			}
			return
		case []any:
			for n := range v {
				walk(fmt.Sprintf("%s.%d", path, n), v[n], func(o any) { v[n] = o })
			}
			return
		case string:
			other = v + "x"
			if at, err := time.Parse(time.RFC3339, v); err == nil {
				other = at.Add(time.Second).Format("2006-01-02T15:04:05.000Z")
			}
		case float64:
			other = v + 1
		case bool:
			other = !v
		default:
			return
		}
		put(other)
		data, err := json.Marshal(tree)
		must(t, err)
		all[path[1:]] = data
		put(v)
	}
	walk("", tree, nil)
	return all
}

// full is an archive of n folders in done with about every field in their
// results; about every other one somebody decided.
func full(t *testing.T, n int) *archive {
	a := newArchive(t, 0)
	j, err := journal.Open(a.where)
	must(t, err)
	a.change = func(r *sidecar.Result) {
		r.Reasons = []sidecar.Reason{{Code: "settled_by_status", Message: "no clear answer came", Source: sidecar.FromDaemon, Field: "FRONT"}}
		r.Request.Endpoint = "https://ivs.idenfy.com/api/v2/process"
		r.Request.TokenHint, r.Request.TokenSHA256, r.Request.SkipAnalysis, r.Request.Bytes = "TOKE… (18 characters)", sum("t"), true, 77
		r.Session = &sidecar.Session{ScanRef: "328c6766-934e-11ed-bb9b-025ad99a18e7", By: "producer"}
		r.Uploader = sidecar.Uploader{UID: 1001, GID: 100, User: "scanner", Group: "drop"}
		r.Daemon = sidecar.Daemon{Version: "1.0.0", Host: "gate"}
		r.Times.FirstSeen, r.Times.Complete = sidecar.Now(), sidecar.Now()
		r.Attempts = []sidecar.Attempt{
			{N: 1, Started: sidecar.Now(), Finished: sidecar.Now(), State: sidecar.Answered, HTTPStatus: 429, Identifier: "BUSY", Message: "slow", DurationMS: 9, RetryAfter: 3},
			{N: 2, Started: sidecar.Now(), State: sidecar.NoAnswer},
		}
	}
	for i := range n {
		a.fold(j, 5*i+4*(i%2)) // in done and in hold by turns
	}
	desk := decision.Desk{Paths: a.paths, Journal: j, InWork: a.paths.Has}
	for i := 1; i < n; i += 2 {
		_, _, err := desk.Make(t.Context(), "hold/"+name(5*i+4), decision.Decision{Action: sidecar.Confirmed, Force: true, Comment: "seen"})
		must(t, err)
	}
	a.sign(j)
	must(t, j.Close())
	return a
}

// names returns the names of n folders of full: plain ones, or decided ones.
func names(n int, decided bool) (list []string) {
	for i := range 2 * n {
		if i%2 == 1 == decided {
			list = append(list, name(5*i+4*(i%2)))
		}
	}
	return list
}

// found is what verify finds in each folder, by name.
func (a *archive) byName() map[string][]string {
	found := map[string][]string{}
	_, _, err := a.verify(func(o *verify.Options) {
		o.Found = func(f verify.Finding) {
			found[f.Name] = append(found[f.Name], f.Code+": "+f.What)
		}
	})
	must(a.t, err)
	return found
}

// Whatever is altered in a result.json is found: each field, and what is no
// field.
func TestEveryFieldOfResult(t *testing.T) {
	const most = 70
	a := full(t, 2*most)
	for _, decided := range []bool{false, true} {
		folders := names(most, decided)
		what := map[string]string{}
		for i := 0; ; i++ {
			path := a.path("done", folders[i], sidecar.Name)
			was, err := os.ReadFile(path)
			must(t, err)
			altered := leaves(t, was)
			altered["a space"] = append(slices.Clone(was), ' ')
			altered["half of it"] = was[:len(was)/2]
			if len(altered) < 40 {
				t.Fatalf("only %d fields", len(altered))
			}
			fields := slices.Sorted(maps.Keys(altered))
			if i == len(fields) {
				break
			}
			must(t, os.WriteFile(path, altered[fields[i]], 0o600))
			what[folders[i]] = fields[i]
		}
		found := a.byName()
		for folder, field := range what {
			if list := found[folder]; len(list) != 1 || !strings.HasPrefix(list[0], "result_altered: ") {
				t.Errorf("%s (decided %v): %v", field, decided, list)
			}
		}
	}
}

// What the journal says is held against the result, field by field.
func TestEveryFieldOfJournal(t *testing.T) {
	const most = 70
	a := full(t, 2*most)
	db, err := sql.Open("sqlite", "file:"+a.path("journal", journal.Name))
	must(t, err)
	defer db.Close()
	columns := map[string]string{ // and what changes them
		"life.folder": "folder || 'x'", "life.outcome": "'rejected'", "life.place": "'failed'", "life.token": "'" + sum("x") + "'", "life.scan_ref": "'x'",
		"life.attempts": "attempts + 1", "life.claimed": "claimed + 1", "life.ended": "ended + 1", "life.record": "'{'",
		"attempt.n": "n + 7", "attempt.started": "started + 1", "attempt.finished": "finished + 1", "attempt.state": "'sending'", "attempt.http_status": "200",
		"attempt.identifier": "'x'", "attempt.message": "'x'", "attempt.duration_ms": "duration_ms + 1", "attempt.retry_after": "retry_after + 1",
		"decision.at": "at + 1", "decision.action": "'rejected'", "decision.forced": "1 - forced", "decision.outcome": "'rejected'", "decision.person": `'{"uid": 7}'`, "decision.comment": "'x'",
	}
	for _, decided := range []bool{false, true} {
		folders := names(most, decided)
		what := map[string]string{}
		take := func(field, query string, args ...any) {
			t.Helper()
			folder := folders[len(what)]
			what[folder] = field
			done, err := db.Exec(query, append(args, a.ids[folder])...)
			must(t, err)
			if n, err := done.RowsAffected(); n == 0 || err != nil {
				t.Fatalf("%s: %d rows, %v", field, n, err)
			}
		}
		var record []byte
		must(t, db.QueryRow("SELECT record FROM life WHERE id = ?", a.ids[folders[0]]).Scan(&record))
		for _, field := range slices.Sorted(maps.Keys(leaves(t, record))) {
			switch field { // which stand in columns, and what stands there counts
			case "schema", "id", "folder", "outcome", "times.claimed", "times.finished", "request.token_sha256", "session.scan_ref":
				continue
			}
			must(t, db.QueryRow("SELECT record FROM life WHERE id = ?", a.ids[folders[len(what)]]).Scan(&record))
			take(field, "UPDATE life SET record = ? WHERE id = ?", string(leaves(t, record)[field]))
		}
		for _, column := range slices.Sorted(maps.Keys(columns)) {
			table, name, _ := strings.Cut(column, ".")
			key := map[string]string{"life": "id", "attempt": "n = 1 AND life", "decision": "life"}[table]
			if table != "decision" || decided {
				take(column, fmt.Sprintf("UPDATE %s SET %s = %s WHERE %s = ?", table, name, columns[column], key))
			}
		}
		take("an attempt less", "DELETE FROM attempt WHERE n = 2 AND life = ?")
		found := a.byName()
		for folder, field := range what {
			if list := found[folder]; len(list) != 1 || !strings.HasPrefix(list[0], "journal_differs: ") {
				t.Errorf("%s (decided %v): %v", field, decided, list)
			}
		}
		t.Logf("%d fields", len(what))
	}
}

func TestNothing(t *testing.T) {
	a := newArchive(t, 40)
	j, err := journal.Open(a.where)
	must(t, err)
	must(t, j.Reserve([]string{spool.NewID(), spool.NewID()})) // of folders that are still to come
	must(t, j.Close())
	found, s, err := a.verify(func(o *verify.Options) { o.Earlier = a.own })
	must(t, err)
	if len(found) > 0 || s.Findings != 0 || s.Folders != 40 || s.Images != 80 || s.Entries != 41 || s.Working != 0 || s.Relation != string(ledger.Same) {
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

// A later folder that is found by the id of another one hides nothing of that.
func TestFoundByAnothersID(t *testing.T) {
	a := newArchive(t, 5)
	a.alter(fmt.Sprintf("UPDATE life SET client_id = '%s' WHERE id = '%s'; UPDATE attempt SET duration_ms = duration_ms + 1 WHERE life = '%[1]s'", a.ids[name(0)], a.ids[name(1)]))
	found, _, err := a.verify(nil)
	must(t, err)
	if want := []string{"journal_differs done/" + name(0)}; !slices.Equal(found, want) {
		t.Errorf("found %v", found)
	}
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
	must(t, j.Claim(id, "inbox", name(13)))
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
