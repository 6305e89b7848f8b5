package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"idenfy-batch/internal/durable"
)

// markName is a file in work, which names the journal that belongs to the
// spool and how many commits it had: by it a journal that is missing, of
// another spool, or an older copy is known. It begins with a dot, as no folder
// does.
const markName = ".journal"

// markForm has a fixed length, so that the mark is overwritten in place,
// within one sector, which a power cut leaves old or new.
const markForm = "idenfy-batch/mark/v1 %-26s %20d\n"

// mark is the open mark.
type mark struct {
	f  *os.File
	id string
}

func createMark(dir, id string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	return errors.Join(durable.WriteFile(root, markName, fmt.Appendf(nil, markForm, id, 0), 0o640), root.Close())
}

// openMark holds the mark against a journal.
func openMark(w Where, id string, seq int64) (*mark, error) {
	f, err := os.OpenFile(filepath.Join(w.Mark, markName), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) && seq == 0 {
		// A crash between making the two, with nothing in the journal yet.
		if err := createMark(w.Mark, id); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(filepath.Join(w.Mark, markName), os.O_RDWR, 0)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unfit("%s has no mark of the journal (%s), so it is not the directory that %s belongs to; mount the right file system there%s", w.Mark, markName, w.path(), mend)
	}
	if err != nil {
		return nil, err
	}
	m := &mark{f: f, id: id}
	was, wasSeq, ok := m.read()
	switch {
	case !ok: // nobody but the disk can have done that; the next commit mends it
	case was != id:
		return nil, errors.Join(unfit("%s is the journal of another spool%s", w.path(), mend), m.close())
	case wasSeq > seq:
		return nil, errors.Join(unfit("%s is older than it was: it has %d commits, and had at least %d; it was replaced by a copy, or its %s-wal is missing%s", w.path(), seq, wasSeq, Name, mend), m.close())
	}
	return m, nil
}

func (m *mark) read() (id string, seq int64, ok bool) {
	buf := make([]byte, len(fmt.Sprintf(markForm, "", 0)))
	if _, err := m.f.ReadAt(buf, 0); err != nil {
		return "", 0, false
	}
	_, err := fmt.Sscanf(string(buf), "idenfy-batch/mark/v1 %s %d\n", &id, &seq)
	return id, seq, err == nil
}

// set notes a commit. It comes after it and is not synced, so the mark is
// never ahead of the journal, and after a power cut perhaps somewhat behind.
// That it can't be written makes it no less true.
func (m *mark) set(seq int64) { _, _ = m.f.WriteAt(fmt.Appendf(nil, markForm, m.id, seq), 0) }

func (m *mark) close() error { return m.f.Close() }
