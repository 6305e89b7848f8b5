package drop_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/drop"
)

func TestOwn(t *testing.T) {
	at := func(err error) error { return fmt.Errorf("x: %w", &fs.PathError{Op: "open", Path: "x", Err: err}) }
	for _, err := range []error{
		unix.EPERM, unix.EACCES, unix.ENOTEMPTY, unix.EISDIR, unix.ENOTDIR, unix.EEXIST, unix.ELOOP, unix.EAGAIN, unix.EWOULDBLOCK,
		unix.ENAMETOOLONG, unix.EXDEV, unix.ETXTBSY, unix.EBUSY, os.ErrNotExist, drop.ErrChanged, drop.ErrBusy, drop.ErrNotPlain,
	} {
		if !drop.Own(at(err)) {
			t.Errorf("%v is not the folder's", err)
		}
		if drop.Own(errors.Join(at(err), at(unix.EIO))) {
			t.Errorf("%v and EIO are the folder's", err)
		}
	}
	for _, err := range []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.EMFILE, unix.ENFILE, unix.ESTALE, unix.ENOMEM, errors.New("what?")} {
		if drop.Own(at(err)) {
			t.Errorf("%v is the folder's", err)
		}
	}
}
