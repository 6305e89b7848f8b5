package batch_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

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
}
