package drop

import (
	"errors"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"
)

// machines holds the errors that no folder can bring about, and all suffer
// from: of a disk that is full, failing or read-only, of a process without
// descriptors or memory.
var machines = []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.EMFILE, unix.ENFILE, unix.ESTALE, unix.ENOMEM}

// folders holds the errors that whoever owns a folder can bring about in it:
// by modes, sticky bits and immutable files, by directories, links and special
// files in the place of files, by mounts, leases and changes.
var folders = []error{
	ErrChanged, ErrBusy, ErrNotPlain, fs.ErrNotExist,
	unix.EPERM, unix.EACCES, unix.ENOTEMPTY, unix.EISDIR, unix.ENOTDIR, unix.EEXIST, unix.ELOOP, unix.EAGAIN,
	unix.ENAMETOOLONG, unix.EXDEV, unix.ETXTBSY, unix.EBUSY, unix.ENXIO, unix.EMLINK,
}

// Own reports whether an error at the files of a folder is the folder's own, so
// that it holds up nothing else. Of several errors one of the machine's
// decides, and so does one that is not known.
func Own(err error) bool {
	is := func(list []error) bool {
		return slices.ContainsFunc(list, func(e error) bool { return errors.Is(err, e) })
	}
	return !is(machines) && is(folders)
}

// SameFiles reports whether two listings show the same names, and the same
// content as far as size and mtime tell, whoever owns the files: a seal changes
// owners and modes, and makes copies. Of two that are cut off at the limit
// nothing is compared: a copy may stand at another place in its directory.
func SameFiles(a, b Listing) bool {
	return a.More == b.More && (a.More || slices.EqualFunc(a.Entries, b.Entries, func(x, y Entry) bool {
		if x.Name != y.Name || x.Mode.Type() != y.Mode.Type() {
			return false
		}
		return !x.Regular() || x.Size == y.Size && x.mtime == y.mtime
	}))
}
