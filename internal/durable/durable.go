// Package durable owns the three file-system changes that survive a power
// cut: replacing a small file, renaming without replacing, and making a
// directory.
//
// POSIX promises that data is on the disk only after fsync(2) of the file, and
// that a name is on the disk only after fsync(2) of the directory that holds
// it; an atomic rename alone is neither. Each function here returns nil only
// when both have happened. When a sync fails, the kernel may already have
// dropped the data that it could not write, so a second fsync proves nothing:
// callers repeat the whole operation, never the sync alone.
package durable

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the name of a file that is being written. There is one per
// target, so that a crash leaves at most one behind, and the next write of the
// same target takes it over.
const tempPrefix = ".idenfy-batch."

// tempSuffix is among the temporary names that an inbox folder may not hold
// when it is complete.
const tempSuffix = ".tmp"

// IsTemp reports whether name is one that WriteFile writes to before its
// rename, and that a crash can leave behind.
func IsTemp(name string) bool {
	return len(name) > len(tempPrefix)+len(tempSuffix) &&
		name[:len(tempPrefix)] == tempPrefix && name[len(name)-len(tempSuffix):] == tempSuffix
}

// WriteFile replaces the file name in dir by one that holds data, or leaves it
// as it was. The steps, and what a crash after each leaves:
//
//	unlinkat, openat(O_CREAT|O_EXCL), write   old file, and perhaps a part of the new one under a temporary name
//	fsync(file)                               old file, and the new one whole under the temporary name
//	renameat                                  old or new file, whole
//	fsync(directory)                          new file
//
// The file's mode is perm whatever the umask is.
func WriteFile(dir *os.Root, name string, data []byte, perm fs.FileMode) error {
	temp := tempPrefix + name + tempSuffix
	// Made anew and exclusively, so that nobody who can write in the folder
	// can hold the file open, or have put a link in its place.
	if err := dir.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	if err := writeSync(f, data, perm); err != nil {
		return errors.Join(err, dir.Remove(temp))
	}
	if err := dir.Rename(temp, name); err != nil {
		return errors.Join(err, dir.Remove(temp))
	}
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	return syncClose(d)
}

func writeSync(f *os.File, data []byte, perm fs.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		return syncClose(f)
	}
	return errors.Join(err, f.Close())
}

func syncClose(f *os.File) error {
	err := f.Sync()
	return errors.Join(err, f.Close())
}

// Rename moves oldName in the directory from to newName in the directory to,
// and syncs both. It never replaces anything: a taken newName is fs.ErrExist
// (renameat2(2), RENAME_NOREPLACE). Directories on two file systems, or on two
// mounts of one, are EXDEV; a file system that can't rename without replacing
// is EINVAL.
//
// When the rename was done but a sync failed the error is a *SyncError: the
// new name is visible and may not survive a power cut.
func Rename(from *os.File, oldName string, to *os.File, newName string) error {
	if err := renameNoReplace(from, oldName, to, newName); err != nil {
		return &os.LinkError{Op: "renameat2", Old: from.Name() + "/" + oldName, New: to.Name() + "/" + newName, Err: err}
	}
	// The new parent first: should the second sync fail, a folder under two
	// names is possible to mend, one under none is not.
	if err := to.Sync(); err != nil {
		return &SyncError{Err: err}
	}
	if from == to {
		return nil
	}
	if err := from.Sync(); err != nil {
		return &SyncError{Err: err}
	}
	return nil
}

func renameNoReplace(from *os.File, oldName string, to *os.File, newName string) error {
	fromConn, err := from.SyscallConn()
	if err != nil {
		return err
	}
	toConn, err := to.SyscallConn()
	if err != nil {
		return err
	}
	var renameErr, toErr error
	fromErr := fromConn.Control(func(fromFD uintptr) {
		toErr = toConn.Control(func(toFD uintptr) {
			renameErr = unix.EINTR
			for renameErr == unix.EINTR {
				renameErr = unix.Renameat2(int(fromFD), oldName, int(toFD), newName, unix.RENAME_NOREPLACE)
			}
		})
	})
	return cmp.Or(fromErr, toErr, renameErr)
}

// SyncError says that a change was made but could not be made durable.
type SyncError struct{ Err error }

func (e *SyncError) Error() string { return fmt.Sprintf("the change is not on the disk: %v", e.Err) }
func (e *SyncError) Unwrap() error { return e.Err }

// Mkdir makes the directory name in the directory at path parent with exactly
// the mode perm, and syncs both. A taken name is fs.ErrExist.
func Mkdir(parent, name string, perm fs.FileMode) error {
	path := parent + "/" + name
	if err := os.Mkdir(path, perm.Perm()); err != nil {
		return err
	}
	if err := os.Chmod(path, perm); err != nil {
		return err
	}
	for _, p := range []string{path, parent} {
		d, err := os.Open(p)
		if err != nil {
			return err
		}
		if err := syncClose(d); err != nil {
			return &SyncError{Err: err}
		}
	}
	return nil
}
