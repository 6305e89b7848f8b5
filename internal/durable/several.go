package durable

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
)

// File is one of several that ReplaceAll writes.
type File struct {
	Name  string
	Data  []byte
	Group int // that may read it (gid); it is the process's own otherwise

	Err      error // why it was not replaced
	GroupErr error // why it could not be given to the group; it was replaced all the same
}

// ReplaceAll is WriteFile of several files in one directory, with few waits for
// the disk, whatever each name is that fits: the temporary names are random.
// Each file fails alone, see File. After an error of ReplaceAll itself, each may
// be there or not, and may not survive a power cut.
func ReplaceAll(dir *os.Root, files []File, perm fs.FileMode) error {
	open := make([]*os.File, 0, len(files))
	temps := make([]string, len(files))
	for i := range files {
		f, temp, err := files[i].create(dir, perm)
		if files[i].Err = err; err == nil {
			open, temps[i] = append(open, f), temp
		}
	}
	err := KeepAll(open)
	for _, f := range open {
		err = errors.Join(err, f.Close())
	}
	for i := range files {
		if temps[i] == "" {
			continue
		}
		at := dir.Name() + "/" + files[i].Name
		moved := err
		if err == nil {
			moved = step(OpRename, at, func() error { return dir.Rename(temps[i], files[i].Name) })
			files[i].Err = moved
		}
		if moved != nil {
			_ = dir.Remove(temps[i]) // IsTemp tells it from others
		}
	}
	if err != nil {
		return err
	}
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(syncDir(d), d.Close())
}

// create writes the file under a temporary name.
func (file *File) create(dir *os.Root, perm fs.FileMode) (f *os.File, temp string, err error) {
	temp = TempName(rand.Text())
	at := dir.Name() + "/" + file.Name
	err = step(OpCreate, at, func() (err error) {
		f, err = dir.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if f == nil {
		return nil, "", err
	}
	if err == nil {
		file.GroupErr = f.Chown(-1, file.Group)
		err = fill(f, at, file.Data, perm, false)
	}
	if err != nil {
		return nil, "", errors.Join(err, f.Close(), dir.Remove(temp))
	}
	return f, temp, nil
}
