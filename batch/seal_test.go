package batch_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/verify"
	"idenfy-batch/sidecar"
)

func sha(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// What stands in the way of the daemon's own names is moved aside, and named;
// the folder goes on.
func TestOwnNamesTaken(t *testing.T) {
	b := newBench(t)
	b.start()
	b.put("a")
	dir := filepath.Join(b.spool.Path(spool.Inbox), "a")
	must(t, os.MkdirAll(filepath.Join(dir, ".idenfy-batch.result.json.tmp", "x"), 0o700))
	must(t, os.MkdirAll(filepath.Join(dir, "result.json", "y"), 0o700))
	must(t, os.Mkdir(filepath.Join(dir, "moved-aside.1"), 0o700))
	b.in <- b.arrival("a")
	b.want("a accepted done/a")
	for _, kept := range []string{"moved-aside.2/x", "result.1.json/y"} {
		if _, err := os.Stat(filepath.Join(b.spool.Path(spool.Done), "a", kept)); err != nil {
			t.Error(err)
		}
	}
	if r := b.result(spool.Done, "a"); !slices.Contains(r.ExtraFiles, "moved-aside.2/") {
		t.Errorf("extra files %v", r.ExtraFiles)
	}
	if b.ev.has("paused") {
		t.Errorf("reports %v", b.ev.list)
	}
}

// A folder in which no result can be written ends all the same, inside one that
// has it; nothing is sent, and others go on.
func TestNotWritable(t *testing.T) {
	for name, err := range map[string]error{"sticky": syscall.EPERM, "modes": syscall.EACCES, "a directory": syscall.EISDIR} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			part := b.spool.Path(spool.Work) + "/bad."
			refusals.Store(part, err)
			t.Cleanup(func() { refusals.Delete(part) })
			b.start()
			b.send("bad")
			b.want("bad invalid failed/bad")
			b.send("good")
			b.want("good accepted done/good")
			r := b.result(spool.Failed, "bad")
			if !slices.Equal(codes(r), []string{sidecar.NotWritable}) || strings.Contains(r.Reasons[0].Message, b.spool.Path(spool.Inbox)) {
				t.Errorf("reasons %v", r.Reasons)
			}
			if got, err := os.ReadFile(filepath.Join(b.spool.Path(spool.Failed), "bad", "bad", "meta.yaml")); err != nil || string(got) != text("bad") {
				t.Errorf("the folder: %q, %v", got, err)
			}
			if b.ev.has("paused") || b.api.Token(token("bad")).Requests != 0 {
				t.Errorf("reports %v", b.ev.list)
			}
			if lists, err := b.spool.List(spool.Work); err != nil || len(lists) > 0 {
				t.Errorf("work holds %v, %v", lists, err)
			}
			j, err := journal.OpenReader(t.Context(), b.where)
			must(t, err)
			defer j.Close()
			b.verified(j, func(verify.Finding) bool { return false })
			found := false
			must(t, os.WriteFile(filepath.Join(b.spool.Path(spool.Failed), "bad", "bad", "FACE.jpg"), []byte("another"), 0o600))
			b.verified(j, func(f verify.Finding) bool {
				found = found || f.Code == "image_altered" && f.Name == "bad"
				return found
			})
			if !found {
				t.Error("an image of the wrapped folder was altered, and ledger verify finds nothing")
			}
		})
	}
}

// The disk fails while a folder is being wrapped, and the daemon lives on: the
// folder is not taken for gone.
func TestWrapCut(t *testing.T) {
	b := newBench(t)
	work := b.spool.Path(spool.Work)
	refusals.Store(work+"/bad.", error(syscall.EACCES))
	unmoved.Store(work+"/.", func() error {
		refusals.Delete(work + "/bad.") // what is the daemon's own can be written
		return syscall.EIO
	})
	t.Cleanup(func() { refusals.Delete(work + "/bad."); unmoved.Delete(work + "/.") })
	b.start()
	b.send("bad")
	b.until("ended bad invalid")
	if b.ev.has("vanished") {
		t.Errorf("reports %v", b.ev.list)
	}
	if got, err := os.ReadFile(filepath.Join(b.spool.Path(spool.Failed), "bad", "bad", "meta.yaml")); err != nil || string(got) != text("bad") {
		t.Errorf("the folder: %q, %v", got, err)
	}
}

// A folder comes to rest under the name that it was dropped with, however long
// that is.
func TestLongName(t *testing.T) {
	b := newBench(t)
	b.start()
	name := strings.Repeat("ä", 100) + strings.Repeat("x", 55)
	for _, end := range []string{" accepted done/", " invalid failed/"} {
		b.put(name)
		must(t, os.WriteFile(filepath.Join(b.spool.Path(spool.Inbox), name, "meta.yaml"), []byte(text("long")), 0o600))
		if end == " invalid failed/" {
			must(t, os.Remove(filepath.Join(b.spool.Path(spool.Inbox), name, "meta.yaml")))
			must(t, os.Mkdir(filepath.Join(b.spool.Path(spool.Inbox), name, "meta.yaml"), 0o700))
		}
		b.in <- b.arrival(name)
		b.want(name + end + name)
	}
	b.put(name)
	a := b.arrival(name)
	must(t, os.WriteFile(filepath.Join(b.spool.Path(spool.Inbox), name, "more"), nil, 0o600))
	b.in <- a
	b.until("released " + name + ":")
}

// A link that is kept outside changes nothing in done.
func TestLinkKeptOutside(t *testing.T) {
	b := newBench(t)
	b.start()
	b.put("a")
	kept := filepath.Join(b.spool.Path(spool.Inbox), ".kept")
	must(t, os.Link(filepath.Join(b.spool.Path(spool.Inbox), "a", "FRONT.jpg"), kept))
	b.in <- b.arrival("a")
	b.want("a accepted done/a")
	must(t, os.WriteFile(kept, []byte("forged"), 0))
	got, err := os.ReadFile(filepath.Join(b.spool.Path(spool.Done), "a", "FRONT.jpg"))
	must(t, err)
	if sha(got) != b.result(spool.Done, "a").Request.Images[0].SHA256 {
		t.Error("what was sent is not what lies in done")
	}
}

// Who sent a folder is recorded before the seal, also where it goes back; and
// it is the uploader's again then.
func TestUploaderIsKept(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("without root everything is this user's")
	}
	const who = 12345
	b := newBench(t)
	own := func(path string) uint32 {
		info, err := os.Lstat(path)
		must(t, err)
		return info.Sys().(*syscall.Stat_t).Uid
	}
	give := func(name string) (uid uint32) {
		dir := filepath.Join(b.spool.Path(spool.Inbox), name)
		if os.Geteuid() == 0 {
			for _, p := range []string{"FRONT.jpg", "BACK.jpg", "FACE.jpg", "meta.yaml", "."} {
				must(t, os.Chown(filepath.Join(dir, p), who, who))
			}
		}
		return own(dir)
	}
	b.start()
	b.put("a", "country: ZZ")
	uid := give("a")
	b.in <- b.arrival("a")
	b.want("a invalid failed/a")
	at := filepath.Join(b.spool.Path(spool.Failed), "a")
	if r := b.result(spool.Failed, "a"); r.Uploader.UID != uid {
		t.Errorf("the uploader is %d", r.Uploader.UID)
	}
	for name, want := range map[string]os.FileMode{".": 0o750, "FRONT.jpg": 0o440, "meta.yaml": 0o440, "result.json": 0o640} {
		info, err := os.Stat(filepath.Join(at, name))
		must(t, err)
		if info.Mode().Perm() != want || own(filepath.Join(at, name)) != uint32(os.Geteuid()) {
			t.Errorf("%s is %v, of %d", name, info.Mode(), own(filepath.Join(at, name)))
		}
	}
	// By hand, and so the daemon's own: it is remembered.
	must(t, os.Rename(at, filepath.Join(b.spool.Path(spool.Inbox), "a")))
	b.in <- b.arrival("a")
	b.want("a invalid failed/a")
	if r := b.result(spool.Failed, "a"); r.Uploader.UID != uid {
		t.Errorf("after mv the uploader is %d", r.Uploader.UID)
	}
	// The daemon ends between seal and intent.
	b.put("b")
	give("b")
	b.end()
	id := spool.NewID()
	j, err := journal.Open(b.where)
	must(t, err)
	must(t, j.Claim(id, "inbox", "b"))
	l, err := j.Load(t.Context(), id)
	must(t, err)
	l.Result.Uploader.UID, l.Result.Uploader.GID = uid, who
	must(t, j.Put(l))
	must(t, j.Close())
	work, err := b.spool.Paths().Claim(spool.Inbox, "b", id)
	must(t, err)
	_, err = b.spool.Seal(t.Context(), work, nil, spool.Copies{Bytes: 1000, Files: 64}, false)
	must(t, err)
	b.start()
	b.until("released b")
	back := filepath.Join(b.spool.Path(spool.Inbox), "b", "FRONT.jpg")
	if info, err := os.Stat(back); err != nil || info.Mode() != 0o660 || own(back) != uid {
		t.Errorf("back in the inbox it is %v, of %d", info.Mode(), own(back))
	}
}

// The hashes of what ended without having been sent.
func TestEvidence(t *testing.T) {
	b := newBench(t)
	b.start()
	b.send("invalid", "country: ZZ")
	b.want("invalid invalid failed/invalid")
	b.put("incomplete")
	must(t, os.Truncate(filepath.Join(b.spool.Path(spool.Inbox), "incomplete", "FACE.jpg"), 100))
	expired := func(name string) drop.Arrival { a := b.arrival(name); a.Expired = true; return a }
	b.in <- expired("incomplete")
	b.want("incomplete incomplete failed/incomplete")
	must(t, sample.Write(filepath.Join(b.spool.Path(spool.Inbox), "nometa"), map[string][]byte{"Front.jpg": front, "FACE.png": face}))
	b.in <- expired("nometa")
	b.want("nometa incomplete failed/nometa")
	want := func(name, metaSum string, sums ...string) {
		t.Helper()
		r := b.result(spool.Failed, name)
		var got []string
		for _, img := range r.Request.Images {
			got = append(got, img.SHA256)
		}
		if r.Request.MetaSHA256 != metaSum || !slices.Equal(got, sums) {
			t.Errorf("%s: %q, %q", name, r.Request.MetaSHA256, got)
		}
	}
	want("invalid", sha([]byte(text("invalid", "country: ZZ"))), sha(front), sha(back), sha(face))
	want("incomplete", sha([]byte(text("incomplete"))), sha(front), sha(back), sha(face[:100]))
	want("nometa", "", sha(front), sha(face))
}

// Somebody's lease on a file, as Samba's oplocks are, holds up that folder only.
func TestLease(t *testing.T) {
	b := newBench(t)
	b.start()
	b.put("leased")
	at := filepath.Join(b.spool.Path(spool.Inbox), "leased", "note.txt")
	must(t, os.WriteFile(at, []byte("x"), 0o600))
	a := b.arrival("leased")
	f, err := os.OpenFile(at, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	b.in <- a
	b.until("released leased")
	b.send("good")
	b.want("good accepted done/good")
	if b.ev.has("paused") {
		t.Errorf("reports %v", b.ev.list)
	}
}

// A folder in work that can't go on by its own fault is told of, with what a
// person can do.
func TestStuckInWork(t *testing.T) {
	b := newBench(t)
	b.cfg.DiskRetry = 10 * time.Millisecond
	b.start()
	b.put("leased")
	at := filepath.Join(b.spool.Path(spool.Inbox), "leased", "result.json")
	must(t, os.WriteFile(at, nil, 0o600))
	a := b.arrival("leased")
	f, err := os.OpenFile(at, os.O_RDWR, 0)
	must(t, err)
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	b.in <- a
	b.until("stuck leased in work: ")
	must(t, f.Close())
	b.until("released leased: ")
	b.until("freed leased in work")
	if n := b.ev.count("stuck"); n != 1 {
		t.Errorf("told %d times: %v", n, b.ev.list)
	}
}
