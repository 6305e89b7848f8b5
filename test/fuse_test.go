package test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"idenfy-batch/internal/spool"
)

// On a network file system there are no events for what others do. A FUSE
// loopback stands in for one: folders are written to the directory behind the
// mount, and the daemon works on the mount.
func TestLabNoEvents(t *testing.T) {
	l := newTroubleLab(t, "completeness: {settle: 300ms, rescan: 500ms}")
	behind := l.root
	mount := filepath.Join(t.TempDir(), "mount")
	must(t, os.Mkdir(mount, 0o755))
	loopback, err := fs.NewLoopbackRoot(behind)
	must(t, err)
	no := time.Duration(0) // as a network file system, it must not cache what others change
	server, err := fs.Mount(mount, loopback, &fs.Options{
		EntryTimeout: &no, AttrTimeout: &no, NegativeTimeout: &no,
		MountOptions: fuse.MountOptions{DirectMount: true, FsName: "loopback"},
	})
	must(t, err)
	t.Cleanup(func() { must(t, server.Unmount()) })

	config, err := os.ReadFile(l.config)
	must(t, err)
	must(t, os.WriteFile(l.config, append([]byte("root: "+mount+"\n"), config[len("root: "+behind+"\n"):]...), 0o600))
	l.start()
	l.until("started", func() bool { return l.metric(`idenfy_batch_watch_mode{inbox="inbox",mode="rescans"}`) == "1" })
	const n = 50
	for i := range n {
		l.put(fmt.Sprintf("case%d", i), small(fmt.Sprint("fuse", i))) // behind the mount
	}
	// One is uploaded slowly.
	f := small("slow")
	image := f["FACE.png"]
	f["FACE.png"] = image[:len(image)/2]
	l.put("slow", f)
	l.until("all found", func() bool { return len(l.names(spool.Done)) == n })
	if l.api.Token(token("slow")).Requests != 0 {
		t.Error("half an upload was sent")
	}
	must(t, os.WriteFile(l.path("inbox", "slow", "FACE.png"), image, 0o600))
	l.until("the slow one", func() bool { return l.place("slow") == spool.Done })
	if r := l.api.Report(); r.Processed != n+1 || r.Requests != n+1 {
		t.Errorf("the API saw %+v", r)
	}
	must(t, l.stop())
}
