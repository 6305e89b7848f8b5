package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// branch is an inbox with receipts, beside the spool.
type branch struct{ name, dir string }

func (b branch) inbox() string    { return filepath.Join(b.dir, "inbox") }
func (b branch) receipts() string { return filepath.Join(b.dir, "receipts") }

// branches makes some, and the lines of the configuration that name them.
func branches(t *testing.T, root string, names ...string) (list []branch, lines []string) {
	t.Helper()
	lines = []string{"inboxes:"}
	for _, name := range names {
		b := branch{name, filepath.Join(root, "branches", name)}
		must(t, os.MkdirAll(b.inbox(), 0o755))
		must(t, os.MkdirAll(b.receipts(), 0o755))
		lines = append(lines, fmt.Sprintf("- {name: %s, path: %s, receipts: %s}", b.name, b.inbox(), b.receipts()))
		list = append(list, b)
	}
	return list, lines
}

// receipt returns that of a folder, or nil.
func (b branch) receipt(t *testing.T, folder string) *sidecar.Receipt {
	t.Helper()
	root, err := os.OpenRoot(b.receipts())
	if err != nil {
		return nil
	}
	defer root.Close()
	r, err := sidecar.ReadReceipt(root, sidecar.ReceiptName(folder))
	if err != nil {
		return nil
	}
	return r
}

// The daemon is killed again and again while folders of one name come into two
// inboxes. Each that ended has its receipt in the end, in its own inbox, as its
// result says; and nothing else lies there.
func TestReceiptsKilled(t *testing.T) {
	t.Parallel()
	kills := 12
	if inLab {
		kills = 60
	}
	root := t.TempDir()
	list, lines := branches(t, root, "a", "b")
	must(t, os.Mkdir(filepath.Join(root, "spool"), 0o755))
	l := newLabIn(t, filepath.Join(root, "spool"), append(lines, "completeness: {settle: 100ms, rescan: 100ms}")...)
	l.api.Always(&sandbox.Step{Latency: 10 * time.Millisecond})
	name := func(n int) string { return fmt.Sprintf("case%03d", n) }
	for n := range kills {
		for _, b := range list {
			f := files(b.name + name(n))
			f[".ready"] = nil
			if n%3 == 0 {
				f["meta.yaml"] = []byte(sample.Meta(token(b.name+name(n)), "XX", "ID_CARD"))
			}
			must(t, sample.Write(filepath.Join(b.inbox(), name(n)), f))
		}
		l.start()
		time.Sleep(time.Duration(rand.Int64N(int64(600 * time.Millisecond))))
		l.kill()
		l.forgive()
	}
	l.start()
	for _, b := range list {
		for n := range kills {
			l.until("the receipt of "+name(n)+" in "+b.name, func() bool { r := b.receipt(t, name(n)); return r != nil && r.State == sidecar.Ends })
		}
	}
	must(t, l.stop())
	results := map[string]*sidecar.Result{}
	for _, p := range []spool.Place{spool.Done, spool.Failed, spool.Hold} {
		for _, folder := range l.names(p) {
			r := l.result(p, folder)
			results[r.ID] = r
		}
	}
	if len(results) != 2*kills {
		t.Errorf("%d results of %d folders", len(results), 2*kills)
	}
	for _, b := range list {
		files, err := os.ReadDir(b.receipts())
		must(t, err)
		for _, f := range files {
			if !strings.HasSuffix(f.Name(), ".json") && !strings.HasPrefix(f.Name(), ".idenfy-batch.") { // what a kill left goes in an hour
				t.Errorf("%s lies in the receipts of %s", f.Name(), b.name)
			}
		}
		for n := range kills {
			r := b.receipt(t, name(n))
			if is := results[r.ID]; is == nil || is.Inbox != b.name || is.Folder != name(n) || is.Outcome != r.Outcome {
				t.Errorf("%s of %s: %+v; its result is %+v", name(n), b.name, r, is)
			}
		}
	}
}

// hostileReceipts holds what becomes of a directory of receipts, and what mends it.
var hostileReceipts = map[string]struct {
	spoil, mend func(t *testing.T, dir string)
	says        string
}{
	"missing": {func(t *testing.T, dir string) { must(t, os.Remove(dir)) }, func(t *testing.T, dir string) { give(t, dir) }, "no such file"},
	"full": {func(t *testing.T, dir string) { mountAt(t, dir, "size=8k,mode=777") },
		func(t *testing.T, dir string) { must(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "size=8m")) }, "no space left"},
	"inodes": {func(t *testing.T, dir string) { mountAt(t, dir, "size=8m,nr_inodes=2,mode=777") },
		func(t *testing.T, dir string) { must(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "nr_inodes=1000")) }, "no space left"},
	"readonly": {func(t *testing.T, dir string) {
		mountAt(t, dir, "size=8m,mode=777")
		must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	}, func(t *testing.T, dir string) { must(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "")) }, "read-only file system"},
	"rights": {func(t *testing.T, dir string) { must(t, os.Chown(dir, 0, 0)) }, func(t *testing.T, dir string) { give(t, dir) }, "permission denied"},
	"linked": {func(t *testing.T, dir string) {
		must(t, os.Remove(dir))
		must(t, os.Symlink("/tmp", dir))
	}, func(t *testing.T, dir string) {
		must(t, os.Remove(dir))
		give(t, dir)
	}, "is a link"},
	"sticky": {func(t *testing.T, dir string) {
		must(t, os.Chown(dir, 4001, 4001))
		must(t, os.Chmod(dir, os.ModeSticky|0o777))
		for n := range labFolders {
			path := filepath.Join(dir, fmt.Sprintf("case%d.json", n))
			must(t, os.WriteFile(path, []byte("{}"), 0o600))
			must(t, os.Chown(path, 4001, 4001))
		}
	}, func(t *testing.T, dir string) {
		for n := range labFolders {
			must(t, os.Remove(filepath.Join(dir, fmt.Sprintf("case%d.json", n))))
		}
		give(t, dir)
	}, "something else lies in its place"},
}

const labFolders, labDaemon, labGroup = 40, 65534, 4000

func give(t *testing.T, dir string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.Chown(dir, labDaemon, labGroup))
	must(t, os.Chmod(dir, os.ModeSetgid|0o750))
}

func mountAt(t *testing.T, dir, options string) {
	t.Helper()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, options))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// Whatever becomes of a directory of receipts holds up no folder, of its own
// inbox or of another, pauses nothing, and is told; once it is mended, each
// folder has its receipt, which the inbox's group may read, and nobody else. The
// daemon has no rights but its user's.
func TestLabReceipts(t *testing.T) {
	needsLab(t)
	t.Parallel()
	root := t.TempDir()
	must(t, os.Chmod(filepath.Dir(root), 0o755))
	must(t, os.Chmod(root, 0o755))
	var names []string
	for name := range hostileReceipts {
		names = append(names, name)
	}
	slices.Sort(names)
	list, lines := branches(t, root, names...)
	must(t, os.Mkdir(filepath.Join(root, "spool"), 0o755))
	port := freePort(t)
	l := newLabIn(t, filepath.Join(root, "spool"), append(lines, "completeness: {settle: 100ms, rescan: 500ms}", "metrics: {listen: '127.0.0.1:"+port+"'}")...)
	l.metrics = "127.0.0.1:" + port
	l.credential = &syscall.Credential{Uid: labDaemon, Gid: labDaemon, Groups: []uint32{labGroup}}
	must(t, os.Chmod(filepath.Dir(filepath.Dir(l.config)), 0o755))
	for _, path := range []string{l.root, filepath.Dir(l.config), l.config} {
		must(t, os.Chown(path, labDaemon, labDaemon))
	}
	for _, b := range list {
		must(t, os.Chown(b.inbox(), labDaemon, labGroup))
		must(t, os.Chmod(b.inbox(), os.ModeSetgid|0o770))
		give(t, b.receipts())
		hostileReceipts[b.name].spoil(t, b.receipts())
		for n := range labFolders {
			name := fmt.Sprint("case", n)
			f := small(b.name + name)
			f[".ready"] = nil
			must(t, sample.Write(filepath.Join(b.inbox(), name), f))
			must(t, os.Chmod(filepath.Join(b.inbox(), name), os.ModeSetgid|0o777))
			for file := range f {
				must(t, os.Chmod(filepath.Join(b.inbox(), name, file), 0o666))
			}
		}
	}
	l.start()
	l.until("all are done", func() bool { return len(l.names(spool.Done)) == labFolders*len(list) })
	for _, b := range list {
		l.until("status names "+b.name, func() bool {
			out, _ := l.command("status").Output()
			for line := range strings.Lines(string(out)) {
				if strings.HasPrefix(line, "RECEIPTS of inbox "+b.name+" ") && strings.Contains(line, hostileReceipts[b.name].says) {
					return true
				}
			}
			return false
		})
	}
	if code, body := l.health(); code != 200 {
		t.Errorf("/healthz says %d, %s", code, body)
	}
	if strings.Contains(l.logged(), "paused") {
		t.Error("it was paused")
	}
	for _, b := range list {
		hostileReceipts[b.name].mend(t, b.receipts())
	}
	must(t, l.stop())
	l.start() // else it might be ten minutes
	for _, b := range list {
		for n := range labFolders {
			name := fmt.Sprint("case", n)
			l.until("the receipt of "+name+" in "+b.name, func() bool { return b.receipt(t, name) != nil })
			var st unix.Stat_t
			must(t, unix.Stat(filepath.Join(b.receipts(), name+".json"), &st))
			if st.Uid != labDaemon || st.Gid != labGroup || st.Mode&0o777 != 0o640 {
				t.Errorf("%s of %s: owner %d, group %d, mode %o", name, b.name, st.Uid, st.Gid, st.Mode&0o7777)
			}
		}
	}
	must(t, l.stop())
}
