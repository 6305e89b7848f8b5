// Package record owns what people and programs read of a folder while it is
// the daemon's: the one place that writes result.json and verdict.json, always
// from the journal.
package record

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Write durably replaces result.json in dir by what the life says. What lay
// under that name and is not of this life is kept as result.1.json, or the
// next number that is free.
func Write(dir *os.Root, l *journal.Life) error { return put(dir, l, sidecar.Write) }

func put(dir *os.Root, l *journal.Life, write func(*os.Root, *sidecar.Result) error) error {
	if err := keep(dir, l.ID); err != nil {
		return err
	}
	return write(dir, l.Result)
}

// End is Write of a life that comes to its end: it also notes what lies there
// of earlier ones. A verdict.json is of one of these too, or the uploader's: that
// of this life is written where its folder goes.
func End(dir *os.Root, l *journal.Life) error {
	return put(dir, l, func(dir *os.Root, r *sidecar.Result) error {
		err := sidecar.Rotate(dir, sidecar.VerdictName)
		if err == nil {
			r.Earlier, err = sidecar.Others(dir, sidecar.Name)
		}
		if err != nil {
			return err
		}
		return sidecar.Write(dir, r)
	})
}

// Show is Write of a life that goes on: it is for people to look at, nobody
// relies on it, and it is not synced.
func Show(dir *os.Root, l *journal.Life) error { return put(dir, l, sidecar.Show) }

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

// WriteVerdict durably writes verdict.json in dir, and before it the bodies that
// it names, unless it is there as it is to be. What lay under that name and is
// not an earlier state of the same is kept as verdict.1.json, or the next number
// that is free.
func WriteVerdict(dir *os.Root, v *sidecar.Verdict, bodies map[string][]byte) error {
	data, err := sidecar.EncodeVerdict(v)
	if err != nil {
		return err
	}
	was, now, err := sidecar.ReadVerdict(dir)
	switch {
	case err == nil && bytes.Equal(now, data) && len(bodies) == 0:
		return nil
	case err == nil && earlier(was, v), errors.Is(err, fs.ErrNotExist):
		err = nil
	case err == nil, errors.Is(err, sidecar.ErrNotOurs), errors.Is(err, drop.ErrNotPlain):
		err = sidecar.Rotate(dir, sidecar.VerdictName)
	}
	if err != nil {
		return err
	}
	for name, body := range bodies {
		if _, err := makeRoom(dir, name); err != nil {
			return err
		}
		if err := durable.WriteFile(dir, name, body, 0o640); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	if _, err := makeRoom(dir, sidecar.VerdictName); err != nil {
		return err
	}
	return sidecar.WriteVerdict(dir, data)
}

// earlier reports whether all that was has is in v as well.
func earlier(was, v *sidecar.Verdict) bool {
	if was.ScanRef != v.ScanRef {
		return false
	}
	has := map[string]bool{}
	for i := range v.Events {
		has[v.Events[i].SHA256] = true
	}
	missing := 0
	for i := range was.Events {
		if !has[was.Events[i].SHA256] {
			missing++
		}
	}
	return missing+was.Omitted <= v.Omitted
}

// MakeRoom moves aside, durably, what stands in the way of the daemon's own
// unfinished file: whatever is no file, since a file there is one that a crash
// left. Nothing is removed. It becomes moved-aside.1, or the next number that is
// free.
func MakeRoom(dir *os.Root) (moved bool, err error) { return makeRoom(dir, sidecar.Name) }

func makeRoom(dir *os.Root, name string) (moved bool, err error) {
	temp := durable.TempName(name)
	info, err := dir.Lstat(temp)
	if err == nil && info.Mode().IsRegular() || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	d, err := drop.Dir(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	for n := 1; ; n++ {
		err := durable.Rename(d, temp, d, fmt.Sprintf("moved-aside.%d", n))
		if !errors.Is(err, fs.ErrExist) {
			return true, err
		}
	}
}

// keep makes room, and keeps a result of another life as evidence. An empty one
// is none: a power cut may leave it of what Show wrote.
func keep(dir *os.Root, id string) error {
	if _, err := MakeRoom(dir); err != nil {
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
	return sidecar.Rotate(dir, sidecar.Name)
}
