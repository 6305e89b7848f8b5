package ledger

import (
	"bytes"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Hashes reads what Append returned for the entry n, from 0. It is all that
// has to be kept of the tree beside the entries.
//
// The hashes that an entry completes are kept with it: its own, that of the
// pair that it ends, of the four, and so on. So the hash of the m-th subtree
// of a level is with the subtree's last entry.
type Hashes func(n int64) ([]byte, error)

// ReadHashes implements tlog.HashReader.
func (read Hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	list := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, m := tlog.SplitStoredHashIndex(index)
		n := (m+1)<<level - 1
		kept, err := read(n)
		if err != nil {
			return nil, err
		}
		if len(kept) < (level+1)*tlog.HashSize {
			return nil, &MisfitError{n}
		}
		copy(list[i][:], kept[level*tlog.HashSize:])
	}
	return list, nil
}

// MisfitError says that a tree doesn't fit its entries.
type MisfitError struct{ N int64 } // the entry, from 0

func (e *MisfitError) Error() string {
	return fmt.Sprintf("entry %d of the ledger is not what was entered: its line was altered, or its hashes", e.N)
}

// Append returns what is to be kept with the entry n, from 0, of which all
// before are kept.
func Append(n int64, line []byte, before tlog.HashReader) ([]byte, error) {
	hashes, err := tlog.StoredHashes(n, line, before)
	if err != nil {
		return nil, err
	}
	kept := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		kept = append(kept, h[:]...)
	}
	return kept, nil
}

// Head returns the head of the tree of the first n entries.
func Head(n int64, of tlog.HashReader) (tlog.Tree, error) {
	root, err := tlog.TreeHash(n, of)
	return tlog.Tree{N: n, Hash: root}, err
}

// Audit holds a tree against its entries, which it is told one after the
// other. It remembers only the newest complete subtree of each level.
type Audit struct {
	n    int64
	edge [64]tlog.Hash
}

// ReadHashes implements tlog.HashReader for what an append and a head need.
func (a *Audit) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	list := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, _ := tlog.SplitStoredHashIndex(index)
		list[i] = a.edge[level]
	}
	return list, nil
}

// Next is told the next entry and what was kept with it. If they don't fit, it
// is a *MisfitError, and what follows is held against what was kept: so a line
// that was altered is named, and no other.
func (a *Audit) Next(line, kept []byte) error {
	n := a.n
	should, err := Append(n, line, a)
	if err != nil {
		return err
	}
	if !bytes.Equal(should, kept) {
		err = &MisfitError{n}
	}
	if len(kept) != len(should) {
		kept = should
	}
	for level := 0; len(kept) > 0; level++ {
		copy(a.edge[level][:], kept)
		kept = kept[tlog.HashSize:]
	}
	a.n++
	return err
}

// Head returns the head of the tree so far. After a misfit it proves nothing.
func (a *Audit) Head() (tlog.Tree, error) { return Head(a.n, a) }
