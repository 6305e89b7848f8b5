package batch_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
)

// What lies in sub-folders travels along: it is brought to the disk, names
// included, before the intent is recorded, and listed. While somebody writes
// there the folder isn't taken.
func TestTree(t *testing.T) {
	b := newBench(t)
	p := &plan{}
	disks.Store(filepath.Dir(b.spool.Path(spool.Work)), p)
	b.start()
	b.put("case")
	page := filepath.Join(b.spool.Path(spool.Inbox), "case", "originals", "scan", "p1.tif")
	must(t, os.MkdirAll(filepath.Dir(page), 0o700))
	must(t, os.WriteFile(page, []byte("page"), 0o600))
	writer, err := os.OpenFile(page, os.O_WRONLY, 0)
	must(t, err)
	b.in <- b.arrival("case")
	b.until("released case: somebody has one of its files open for writing")
	must(t, writer.Close())

	b.in <- b.arrival("case")
	b.want("case accepted done/case")
	want := []string{"originals/", "originals/scan/", "originals/scan/p1.tif"}
	if r := b.result(spool.Done, "case"); !slices.Equal(r.ExtraFiles, want) {
		t.Errorf("extra files: %v", r.ExtraFiles)
	}
	for _, name := range []string{"FRONT.jpg", "p1.tif", "originals", "scan"} {
		if _, ok := p.kept.Load(name); !ok {
			t.Errorf("%s was not brought to the disk", name)
		}
	}
}

// A folder that never became complete has no time at which it was.
func TestIncompleteWasNotComplete(t *testing.T) {
	b := newBench(t)
	b.start()
	b.put("old")
	must(t, os.Remove(filepath.Join(b.spool.Path(spool.Inbox), "old", "BACK.jpg")))
	a := b.arrival("old")
	a.Expired = true
	b.in <- a
	b.want("old incomplete failed/old")
	if r := b.result(spool.Failed, "old"); !r.Times.Complete.IsZero() || r.Times.FirstSeen.IsZero() {
		t.Errorf("times: %+v", r.Times)
	}
}

// What somebody changes all the time is not sent, though it may look complete,
// and needs not be quiet to be taken away.
func TestNeverQuiet(t *testing.T) {
	b := newBench(t)
	b.start()
	b.put("case")
	log := filepath.Join(b.spool.Path(spool.Inbox), "case", "logs", "scan.log")
	must(t, os.MkdirAll(filepath.Dir(log), 0o700))
	must(t, os.WriteFile(log, []byte("1"), 0o600))
	a := b.arrival("case")
	a.Expired, a.Changing = true, "logs/scan.log"
	writer, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer writer.Close()
	_, err = writer.WriteString("2")
	must(t, err)
	b.in <- a
	b.want("case incomplete failed/case")
	r := b.result(spool.Failed, "case")
	if len(r.Reasons) != 1 || r.Reasons[0].Message != "still changing: logs/scan.log" || len(r.Attempts) != 0 {
		t.Errorf("reasons %+v, attempts %+v", r.Reasons, r.Attempts)
	}
	// What lies there is sealed all the same.
	_, err = writer.WriteString("forged")
	must(t, err)
	got, err := os.ReadFile(filepath.Join(b.spool.Path(spool.Failed), "case", "logs", "scan.log"))
	if err != nil || string(got) != "12" || len(r.Unsealed) > 0 {
		t.Errorf("it holds %q, %v; unsealed: %q", got, err, r.Unsealed)
	}
}

// A result that came with the folder, open for writing, keeps nobody from sending
// it; and is sealed.
func TestOpenResult(t *testing.T) {
	b := newBench(t)
	b.start()
	b.put("case")
	at := filepath.Join(b.spool.Path(spool.Inbox), "case", "result.json")
	must(t, os.WriteFile(at, []byte("{}"), 0o600))
	held, err := os.OpenFile(at, os.O_RDWR, 0)
	must(t, err)
	defer held.Close()
	b.in <- b.arrival("case")
	b.want("case accepted done/case")
	_, err = held.WriteAt([]byte("forged"), 0)
	must(t, err)
	got, err := os.ReadFile(filepath.Join(b.spool.Path(spool.Done), "case", "result.1.json"))
	if r := b.result(spool.Done, "case"); err != nil || string(got) != "{}" || len(r.Unsealed) > 0 {
		t.Errorf("it holds %q, %v; unsealed: %q", got, err, r.Unsealed)
	}
}

// What is beyond the limit of files is sealed too, whoever has it open; and what
// is not is named in the result.
func TestOpenBeyondLimit(t *testing.T) {
	b := newBench(t)
	b.start()
	b.put("case")
	in := filepath.Join(b.spool.Path(spool.Inbox), "case")
	for i := range limits.Files + 80 {
		must(t, os.WriteFile(filepath.Join(in, fmt.Sprintf("p%03d.tif", i)), []byte("page"), 0o600))
	}
	root, err := os.OpenRoot(in)
	must(t, err)
	defer root.Close()
	l, err := meta.List(root, limits)
	must(t, err)
	names, err := os.ReadDir(in)
	must(t, err)
	held := map[string]*os.File{}
	for _, e := range names {
		if _, seen := l.Find(e.Name()); !seen && strings.HasPrefix(e.Name(), "p") {
			held[e.Name()], err = os.OpenFile(filepath.Join(in, e.Name()), os.O_RDWR, 0)
			must(t, err)
			defer held[e.Name()].Close()
		}
	}
	b.in <- b.arrival("case")
	b.want("case invalid failed/case")
	unsealed := b.result(spool.Failed, "case").Unsealed
	if n := len(held) - limits.Files; n < 0 || len(unsealed) != n {
		t.Errorf("%d were open, unsealed: %q", len(held), unsealed)
	}
	for name, f := range held {
		_, err := f.WriteAt([]byte("forged"), 0)
		must(t, err)
		got, err := os.ReadFile(filepath.Join(b.spool.Path(spool.Failed), "case", name))
		must(t, err)
		if forged := string(got) != "page"; forged != slices.Contains(unsealed, name) {
			t.Errorf("%s holds %q", name, got)
		}
	}
}

// A lease, as Samba's, on a file of a folder that waits for its next attempt
// is no change of the folder: that attempt waits for its end.
func TestLeaseInWork(t *testing.T) {
	for _, name := range []string{"FACE.jpg", "note.txt"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.cfg.DiskRetry = 20 * time.Millisecond
			b.api.Always(&sandbox.Step{Status: 503})
			b.start()
			b.put("case")
			must(t, os.WriteFile(filepath.Join(b.spool.Path(spool.Inbox), "case", "note.txt"), nil, 0o600))
			b.in <- b.arrival("case")
			b.until("attempt case 1 answered")
			work, err := filepath.Glob(filepath.Join(b.spool.Path(spool.Work), "case.*", name))
			must(t, err)
			f, err := os.OpenFile(work[0], os.O_RDONLY, 0)
			must(t, err)
			defer f.Close()
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // the daemon has it open now and then
				if _, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); !errors.Is(err, unix.EAGAIN) || time.Now().After(end) {
					break
				}
			}
			if err != nil {
				t.Skipf("no lease: %v", err)
			}
			for is := unix.F_WRLCK; is == unix.F_WRLCK; time.Sleep(time.Millisecond) { // until it is asked back
				is, err = unix.FcntlInt(f.Fd(), unix.F_GETLEASE, 0)
				must(t, err)
			}
			b.api.Always(nil)
			must(t, f.Close())
			b.want("case accepted done/case")
		})
	}
}
