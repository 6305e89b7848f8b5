// Package durable owns the file-system changes that survive a power cut:
// replacing a small file, keeping what somebody else wrote, renaming without
// replacing, and making a directory.
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

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// openDir opens a directory. That it doesn't block, as none does, spares package
// os the trial whether it can be made so: four calls.
const openDir = os.O_RDONLY | unix.O_DIRECTORY | unix.O_NONBLOCK

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

// TempName is the name that WriteFile and Replace of name write to before their
// rename.
func TempName(name string) string { return tempPrefix + name + tempSuffix }

// WriteFile replaces the file name in dir by one that holds data, or leaves it
// as it was. The steps, and what a crash after each leaves:
//
//	openat(O_CREAT|O_EXCL), write             old file, and perhaps a part of the new one under a temporary name
//	fsync(file)                               old file, and the new one whole under the temporary name
//	renameat                                  old or new file, whole
//	fsync(directory)                          new file
//
// The file's mode is perm whatever the umask is.
func WriteFile(dir *os.Root, name string, data []byte, perm fs.FileMode) error {
	if err := replace(dir, name, data, perm, true); err != nil {
		return err
	}
	return Sync(dir)
}

// Replace is WriteFile without the syncs: whoever reads the file meets the old
// or the new one, whole, until a power cut, after which it may be either, or
// empty. It is for what is shown, and relied on by nobody.
func Replace(dir *os.Root, name string, data []byte, perm fs.FileMode) error {
	return replace(dir, name, data, perm, false)
}

func replace(dir *os.Root, name string, data []byte, perm fs.FileMode, sync bool) error {
	temp := TempName(name)
	at := dir.Name() + "/" + name
	// Made anew and exclusively, so that nobody who can write in the folder
	// can hold the file open, or have put a link in its place.
	var f *os.File
	create := func() (err error) {
		f, err = dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NONBLOCK, perm)
		return err
	}
	err := step(OpCreate, at, create)
	if errors.Is(err, fs.ErrExist) {
		if err = step(OpRemove, at, func() error { return dir.Remove(temp) }); err == nil || errors.Is(err, fs.ErrNotExist) {
			err = step(OpCreate, at, create)
		}
	}
	if f != nil {
		if err == nil {
			err = fill(f, at, data, perm, sync)
		}
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = step(OpRename, at, func() error { return dir.Rename(temp, name) })
	}
	if err != nil {
		if gone := dir.Remove(temp); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return err
}

// fill writes a new file, and syncs it if that is asked for.
func fill(f *os.File, at string, data []byte, perm fs.FileMode, sync bool) error {
	err := step(OpWrite, at, func() error {
		_, err := f.Write(data)
		return err
	})
	if err == nil {
		err = step(OpChmod, at, func() error { return f.Chmod(perm) })
	}
	if err == nil && sync {
		err = step(OpSync, at, f.Sync)
	}
	return err
}

// Remove removes the file name in dir, if there is one, and makes that durable.
// After an error it may be gone, and come back with a power cut.
func Remove(dir *os.Root, name string) error {
	if _, err := dir.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := Unlink(dir, name); err != nil {
		return err
	}
	return Sync(dir)
}

// Unlink removes the file, or empty directory, name in dir; with a power cut it
// may come back until Sync of dir.
func Unlink(dir *os.Root, name string) error {
	return step(OpRemove, dir.Name()+"/"+name, func() error { return dir.Remove(name) })
}

// UnlinkTree is Unlink of a directory with all that is in it.
func UnlinkTree(dir *os.Root, name string) error {
	return step(OpRemove, dir.Name()+"/"+name, func() error { return dir.RemoveAll(name) })
}

// Sync makes the names in dir durable. What lay in a directory of it that was
// removed is gone with that.
func Sync(dir *os.Root) error {
	d, err := dir.OpenFile(".", openDir, 0)
	if err != nil {
		return err
	}
	return errors.Join(syncDir(d), d.Close())
}

// Keep makes durable what somebody else wrote to f: an upload's data are in
// memory only until its writer, or the kernel some half a minute later, brings
// them to the disk. It suffices that f is open for reading.
//
// The file's name is not made durable by that, see fsync(2): the directory has
// to be synced as well, as WriteFile does with its own.
//
// After an error the kernel takes what it could not write for written. It is
// made to forget that, so that the next reader meets what is on the disk
// (posix_fadvise(2), POSIX_FADV_DONTNEED).
func Keep(f *os.File) error {
	return forget(f, step(OpSync, f.Name(), f.Sync))
}

// atOnce bounds how many files KeepAll waits for at the same time: each takes a
// thread.
const atOnce = 8

// KeepAll is Keep for several files, of one folder as a rule. All are on their
// way to the disk before the first is waited for, and then they are waited for
// together, so that one commit of the file system's journal, and one flush of
// the disk's own cache, do for all:
//
//	sync_file_range(each file)   begun, nothing promised
//	fsync(each file)             that file is on the disk
//
// Each is tried, whatever becomes of the others, so that each that failed is
// forgotten as after Keep.
func KeepAll(files []*os.File) error {
	errs := make([]error, len(files))
	if len(files) > 1 {
		for i, f := range files {
			errs[i] = step(OpBegin, f.Name(), func() error { return writeBack(f) })
		}
	}
	var all errgroup.Group
	all.SetLimit(atOnce)
	for i, f := range files {
		all.Go(func() error {
			errs[i] = forget(f, errors.Join(errs[i], step(OpSync, f.Name(), f.Sync)))
			return nil
		})
	}
	_ = all.Wait() // nil: the errors are in errs
	return errors.Join(errs...)
}

// writeBack has the kernel begin to write what is in memory only. What it says
// of that is to be heard: a file system that finds no block for the data may
// drop them, and tell only whoever made it begin. Where there is no such call,
// or it may not be made, nothing has begun, and fsync does it all.
func writeBack(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var begun error
	if err := conn.Control(func(fd uintptr) {
		begun = unix.SyncFileRange(int(fd), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}); err != nil {
		return err
	}
	switch begun {
	case nil, unix.ENOSYS, unix.EPERM, unix.EINVAL, unix.ESPIPE:
		return nil
	default:
		return &os.PathError{Op: string(OpBegin), Path: f.Name(), Err: begun}
	}
}

// forget makes the kernel forget a file that could not be kept; err is why, or
// nil, and comes back.
func forget(f *os.File, err error) error {
	if err != nil {
		if conn, connErr := f.SyscallConn(); connErr == nil {
			_ = conn.Control(func(fd uintptr) { _ = unix.Fadvise(int(fd), 0, 0, unix.FADV_DONTNEED) }) // as much as can be done
		}
	}
	return err
}

func syncDir(d *os.File) error { return step(OpSyncDir, d.Name(), d.Sync) }

// Rename moves oldName in the directory from to newName in the directory to,
// and syncs both. It never replaces anything: a taken newName is fs.ErrExist
// (renameat2(2), RENAME_NOREPLACE). Directories on two file systems, or on two
// mounts of one, are EXDEV; a file system that can't rename without replacing
// is EINVAL.
//
// When the rename was done but a sync failed the error is a *SyncError: the
// new name is visible and may not survive a power cut.
func Rename(from *os.File, oldName string, to *os.File, newName string) error {
	moved := false
	err := step(OpMove, from.Name()+"/"+oldName, func() error {
		err := renameNoReplace(from, oldName, to, newName)
		moved = err == nil
		return err
	})
	switch {
	case err != nil && moved:
		return &SyncError{Err: err}
	case err != nil:
		return &os.LinkError{Op: "renameat2", Old: from.Name() + "/" + oldName, New: to.Name() + "/" + newName, Err: err}
	}
	// The new parent first: should the second sync fail, a folder under two
	// names is possible to mend, one under none is not.
	if from == to {
		if err := syncDir(to); err != nil {
			return &SyncError{Err: err}
		}
		return nil
	}
	if err := syncShared(to); err != nil {
		return &SyncError{Err: err}
	}
	if err := syncShared(from); err != nil {
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
		if err := SyncDir(p); err != nil {
			return &SyncError{Err: err}
		}
	}
	return nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(path string) error {
	d, err := os.OpenFile(path, openDir, 0)
	if err != nil {
		return err
	}
	return errors.Join(syncDir(d), d.Close())
}
