// Package record owns what people and programs read of a folder while it is
// the daemon's: the one place that writes result.json, always from a life in
// the journal.
package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Write durably replaces result.json in dir by what the life says. What lay
// under that name and is not of this life is kept as result.1.json, or the
// next number that is free.
func Write(dir *os.Root, l *journal.Life) error {
	if err := keep(dir, l.ID); err != nil {
		return err
	}
	return sidecar.Write(dir, l.Result)
}

// End is Write of a life that comes to its end: it also notes what lies there
// of earlier ones.
func End(dir *os.Root, l *journal.Life) error {
	err := keep(dir, l.ID)
	if err == nil {
		l.Result.Earlier, err = sidecar.Others(dir, sidecar.Name)
	}
	if err != nil {
		return err
	}
	return sidecar.Write(dir, l.Result)
}

// Show is Write of a life that goes on: it is for people to look at, nobody
// relies on it, and it is not synced.
func Show(dir *os.Root, l *journal.Life) error {
	if err := keep(dir, l.ID); err != nil {
		return err
	}
	return sidecar.Show(dir, l.Result)
}

// LiesAt reports whether the folder of the life id lies in a final place under
// that name, as far as its result tells.
func LiesAt(paths spool.Paths, p spool.Place, name, id string) bool {
	if !p.Final() || name == "" {
		return false
	}
	dir, err := paths.OpenFolder(p, name)
	if err != nil {
		return false
	}
	defer dir.Close()
	is, err := sidecar.ID(dir, sidecar.Name)
	return err == nil && is == id
}

// Find finds where the folder of the life id lies that somebody took out of
// work by hand, and put into a final place, as one of names, or with its id
// behind that, as it was named in work.
func Find(paths spool.Paths, id string, names ...string) (p spool.Place, name string, found bool) {
	for _, p := range []spool.Place{spool.Hold, spool.Done, spool.Failed} {
		for _, n := range names {
			for _, as := range []string{n, n + "." + id} {
				if LiesAt(paths, p, as, id) {
					return p, as, true
				}
			}
		}
	}
	return "", "", false
}

// MakeRoom moves aside, durably, what stands in the way of the daemon's own
// unfinished file: whatever is no file, since a file there is one that a crash
// left. Nothing is removed. It becomes moved-aside.1, or the next number that is
// free.
func MakeRoom(dir *os.Root) error {
	temp := durable.TempName(sidecar.Name)
	info, err := dir.Lstat(temp)
	if err == nil && info.Mode().IsRegular() || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	for n := 1; ; n++ {
		err := durable.Rename(d, temp, d, fmt.Sprintf("moved-aside.%d", n))
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

// keep makes room, and keeps a result of another life as evidence. An empty one
// is none: a power cut may leave it of what Show wrote.
func keep(dir *os.Root, id string) error {
	if err := MakeRoom(dir); err != nil {
		return err
	}
	info, err := dir.Lstat(sidecar.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() {
		is, err := sidecar.ID(dir, sidecar.Name)
		if err != nil {
			return err
		}
		if is == id || info.Size() == 0 {
			return nil
		}
	}
	return sidecar.Rotate(dir)
}
