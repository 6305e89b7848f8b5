package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// wrapPrefix, with an id, is the hidden name of a wrapper that is being made.
const wrapPrefix = "."

// Wrap puts a folder in work into a directory of the daemon's own that takes
// its name there: it is for one in which the daemon can't write. fill writes
// what is to lie beside the folder; in it the folder is called name.
//
//	mkdir work/.ID, fill          the folder is where it was; Rewrap removes the directory
//	rename the folder to .ID/name the folder is in .ID; Rewrap goes on
//	rename .ID to the work name   done
func (s *Spool) Wrap(workName, name string, fill func(dir *os.Root) error) error {
	_, id, ok := Split(workName)
	if !ok {
		return fmt.Errorf("spool: %s is not a name of work", strconv.Quote(workName))
	}
	if done, err := s.Rewrap(id); done != "" || err != nil {
		return err
	}
	wrapper := filepath.Join(s.Path(Work), wrapPrefix+id)
	if err := os.Mkdir(wrapper, closedDir); err != nil {
		return err
	}
	dir, err := os.OpenRoot(wrapper)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := fill(dir); err != nil {
		return err
	}
	_ = os.Chown(wrapper, -1, s.group) // the daemon's own does as well, as a rule
	if err := os.Chmod(wrapper, sealedDir); err != nil {
		return err
	}
	inner := Paths{Work: s.Path(Work), Hold: wrapper}
	if _, err := inner.move(Work, workName, Hold, fit(name, "")); err != nil {
		return err
	}
	_, err = s.Paths().move(Work, wrapPrefix+id, Work, workName)
	return err
}

// rewrap is Rewrap of all that a crash left.
func (s *Spool) rewrap() error {
	names, err := os.ReadDir(s.Path(Work))
	if err != nil {
		return err
	}
	for _, e := range names {
		if _, id, ok := Split("x" + e.Name()); ok && e.Name() == wrapPrefix+id {
			if _, err := s.Rewrap(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// Rewrap ends what a crash, or the disk, left of the Wrap of the life id: it
// returns the folder's name in work, or "" when it is in no wrapper.
func (s *Spool) Rewrap(id string) (workName string, err error) {
	if id == "" {
		return "", nil
	}
	wrapper := filepath.Join(s.Path(Work), wrapPrefix+id)
	in, err := os.ReadDir(wrapper)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	inner := slices.IndexFunc(in, os.DirEntry.IsDir)
	if inner < 0 {
		return "", os.RemoveAll(wrapper) // with nothing in it but what Wrap has written
	}
	workName = fit(in[inner].Name(), "."+id)
	if there, err := s.Paths().move(Work, wrapPrefix+id, Work, workName); !there {
		return "", err
	}
	return workName, err
}
