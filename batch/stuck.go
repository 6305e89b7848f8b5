package batch

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/spool"
)

// mendOf says what a person can do about an error that is a folder's own.
func mendOf(err error) string {
	is := func(list ...error) bool {
		for _, e := range list {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
	switch {
	case is(spool.ErrNotConfigured):
		return "put that inbox back into inboxes: in the configuration, then idenfy-batch reload; or, as root, move the folder from work/ to another inbox (mv)"
	case is(errNameTaken):
		return "it goes there when that one was taken; give that one what it waits for, or move it away"
	case is(drop.ErrBusy, unix.EAGAIN, unix.ETXTBSY):
		return "somebody has a lease on a file in it, as Samba's clients get them, or has it open (lsof tells who): close it there"
	case is(unix.EPERM):
		return "lsattr -d tells whether it, or what is in it, was made immutable or append-only: chattr -R -i -a on it"
	case is(unix.EACCES):
		return "the daemon may not: chmod -R g+rwX on it"
	case is(unix.EBUSY, unix.EXDEV):
		return "something is mounted on it, or in it (findmnt tells): umount that"
	case is(unix.EISDIR, unix.ENOTDIR, unix.ENOTEMPTY, unix.EEXIST, unix.ELOOP, drop.ErrNotPlain):
		return "something else has the name of a file of the daemon's, result.json or one that begins with .idenfy-batch: take that out of it"
	default:
		return "it is tried again; if that does not help, idenfy-batch show tells its story"
	}
}

// at tells of the folder of a visit that it is stuck in a place.
func (v *visit) at(p spool.Place, why string, err error) events.FolderStuck {
	s := events.FolderStuck{Place: p, Folder: v.name, Reason: why, Mend: mendOf(err)}
	if p == spool.Work { // in an inbox each try has another
		s.ID = v.task.id
	}
	return s
}

// stuckKey is what a stuck folder is known by.
type stuckKey struct {
	place spool.Place
	name  string // in an inbox its name; in work its life, or its name there
}

// noteStuck tells once, and not at each try, of a folder that is stuck, and
// when it goes on. A fault of the disk tells nothing of the folder.
func (b *Batch) noteStuck(e *end, now time.Time) {
	keys := []stuckKey{{spool.Work, cmp.Or(e.task.id, e.task.work)}}
	if a := e.task.arrival; a != nil {
		keys = append(keys, stuckKey{spool.InboxNamed(a.Inbox), a.Name})
	}
	for _, key := range keys {
		was, known := b.stuck[key]
		is := e.stuck.Place == key.place
		if is && known && was.Reason == e.stuck.Reason || !is && e.fault.owner == disk {
			continue
		}
		if known {
			b.free(key)
		}
		if is {
			e.stuck.Since = now
			if known {
				e.stuck.Since = was.Since
			}
			b.stuck[key] = e.stuck
			b.emit(e.stuck)
		}
	}
}

func (b *Batch) free(key stuckKey) {
	was := b.stuck[key]
	delete(b.stuck, key)
	b.emit(events.FolderFreed{Place: was.Place, Folder: was.Folder, ID: was.ID})
}

// lookedAt is how many of the stuck ones in inboxes are looked for at once.
const lookedAt = 200

// freeGone forgets those in an inbox that somebody took away, or that is not one
// any more; nobody will hand them on again. Those in work are visited.
func (b *Batch) freeGone(now time.Time) {
	if now.Sub(b.soughtGone) < heartbeat {
		return
	}
	b.soughtGone = now
	n, paths := 0, b.spool.Paths()
	for key := range b.stuck {
		if n++; n > lookedAt {
			return // others come first the next time
		}
		if !key.place.IsInbox() {
			continue
		}
		if _, err := os.Lstat(filepath.Join(paths[key.place], key.name)); paths[key.place] == "" || errors.Is(err, fs.ErrNotExist) {
			b.free(key)
		}
	}
}
