package receipt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/durable"
	"idenfy-batch/sidecar"
)

// dir is a directory of receipts, open. Others may read it, and who set it up
// may have let them do more: nothing in it is followed, and nothing replaced or
// removed that is no receipt of this user's.
type dir struct{ *os.Root }

// openDir opens it without following a link, in the last part of the path or
// before: who owns a directory above could have it mean another one.
func openDir(path string) (d dir, err error) {
	at, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return dir{}, err
	}
	defer func() { err = errors.Join(err, unix.Close(at)) }()
	for part := range strings.SplitSeq(strings.Trim(filepath.Clean(path), "/"), "/") {
		next, err := unix.Openat(at, part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return dir{}, fmt.Errorf("%w: %s is a link, or no directory; give receipts as a path without links", err, part)
		}
		if err != nil {
			return dir{}, err
		}
		was := at
		at = next
		if err := unix.Close(was); err != nil {
			return dir{}, err
		}
	}
	root, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(at) + "/.")
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return dir{root}, err
}

// errInTheWay says that what has the name of a receipt is none.
var errInTheWay = errors.New("something else lies in its place")

// has tells whether there is a receipt of that name; errInTheWay when it is no
// receipt, or another user's.
func (d dir) has(name string) (bool, error) {
	info, err := d.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.Mode().IsRegular() || int(st.Uid) != os.Geteuid() {
		return false, errInTheWay
	}
	head, err := drop.ReadHead(d.Root, name, 256)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil && !errors.Is(err, drop.ErrNotPlain) {
		return false, err
	}
	if !bytes.Contains(head, []byte(`"schema": "`+sidecar.ReceiptSchema+`"`)) {
		return false, errInTheWay
	}
	return true, nil
}

// write replaces receipts, durably: what is noted as told has to be there after
// a power cut. Each fails alone.
func (d dir) write(files []durable.File) error {
	var free []durable.File
	var at []int
	for i := range files {
		if _, files[i].Err = d.has(files[i].Name); files[i].Err == nil {
			free, at = append(free, files[i]), append(at, i)
		}
	}
	err := durable.ReplaceAll(d.Root, free, 0o640)
	for i := range free {
		files[at[i]] = free[i]
	}
	return err
}

// remove removes a receipt, if there is one.
func (d dir) remove(name string) error {
	is, err := d.has(name)
	if err != nil || !is {
		return err
	}
	return durable.Remove(d.Root, name)
}

// Bounds of a sweep.
const (
	sweptAtOnce = 512
	sweepShare  = 10 // of one core, 1/sweepShare
)

// sweep removes receipts that were written before a time, but for those of
// folders that known tells, and what a crash left half-written. It goes slowly:
// there may be very many.
func (d dir) sweep(ctx context.Context, before time.Time, known func(folders []string) (map[string]bool, error)) error {
	list, err := d.Open(".")
	if err != nil {
		return err
	}
	defer list.Close()
	for {
		begin := time.Now()
		names, err := list.Readdirnames(sweptAtOnce)
		if len(names) > 0 {
			if err := d.sweepSome(names, before, known); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After((sweepShare - 1) * time.Since(begin)):
		}
	}
}

func (d dir) sweepSome(names []string, before time.Time, known func([]string) (map[string]bool, error)) error {
	folders := map[string]string{} // by the receipts' names
	for _, name := range names {
		info, err := d.Lstat(name)
		if err != nil || !info.Mode().IsRegular() {
			continue // gone, or not to be touched
		}
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
			continue
		}
		if durable.IsTemp(name) && time.Since(info.ModTime()) > cleaning {
			_ = d.Remove(name) // else it is found again
			continue
		}
		if info.ModTime().After(before) {
			continue
		}
		if r, err := sidecar.ReadReceipt(d.Root, name); err == nil && sidecar.ReceiptName(r.Folder) == name {
			folders[name] = r.Folder
		}
	}
	if len(folders) == 0 {
		return nil
	}
	kept, err := known(slices.Collect(maps.Values(folders)))
	if err != nil {
		return err
	}
	for name, folder := range folders {
		if kept[folder] {
			continue
		}
		if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
