package spool

import (
	"bytes"
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// At is where a folder lies.
type At struct {
	Place Place
	Name  string
}

// ByInode finds the folders in the final places that have one of the inodes: by
// the directories alone, which has the kernel look at no folder.
func (paths Paths) ByInode(wanted map[uint64]bool) (map[uint64]At, error) {
	found := map[uint64]At{}
	for _, p := range Places() {
		if !p.Final() {
			continue
		}
		err := inodes(paths[p], func(ino uint64, name string) {
			if wanted[ino] {
				found[ino] = At{p, name}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// inodes reads a directory (getdents64(2)).
func inodes(path string, each func(ino uint64, name string)) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	buf := make([]byte, 64<<10)
	const head = 19 // d_ino, d_off, d_reclen, d_type
	for {
		n, err := unix.ReadDirent(int(d.Fd()), buf)
		if err != nil {
			return &os.PathError{Op: "readdir", Path: path, Err: err}
		}
		if n <= 0 {
			return nil
		}
		for b := buf[:n]; len(b) > head; {
			size := int(binary.NativeEndian.Uint16(b[16:]))
			if size <= head || size > len(b) {
				return &os.PathError{Op: "readdir", Path: path, Err: unix.EIO}
			}
			name, _, _ := bytes.Cut(b[head:size], []byte{0})
			each(binary.NativeEndian.Uint64(b), string(name))
			b = b[size:]
		}
	}
}
