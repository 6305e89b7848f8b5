package spool

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrNotMended says that a folder's modes are as they should be, or that the
// daemon has not the rights to change them.
var ErrNotMended = errors.New("its modes can't be mended")

// Mend makes a folder in an inbox one that the daemon may read and move, where
// its uploader's program set modes that forbid it, as sftp's put -r and cp -r
// do: directories g+rwx, files g+r, and the inbox's group where the daemon is
// not in theirs. Only what belongs to the folder's owner is touched, and no
// file with another link, which may lie anywhere. It takes CAP_FOWNER, and for
// the group CAP_CHOWN; what it may not change is left. Nil: something was
// changed.
func (s *Spool) Mend(ctx context.Context, inbox Place, name string) error {
	paths := s.Paths()
	n, err := paths.folder(inbox, name)
	if err != nil {
		return err
	}
	defer n.close()
	mended, err := paths.mend(ctx, n, inbox)
	if err == nil && !mended {
		return ErrNotMended
	}
	return err
}

// mend is Mend of the folder at n.
func (paths Paths) mend(ctx context.Context, n node, inbox Place) (mended bool, err error) {
	m := &mender{tree: tree{ctx: ctx}, owner: n.st.Uid}
	if m.shared, m.groups, err = paths.shared(inbox); err != nil {
		return false, err
	}
	if err = machines(m.mend(n, 0)); errors.Is(err, errEnough) {
		err = nil
	}
	return m.mended, err
}

type mender struct {
	tree
	owner  uint32
	shared int   // the inbox's group
	groups []int // the daemon's
	mended bool
}

func (m *mender) mend(n node, depth int) error {
	if err := m.rights(n); err != nil || !n.dir() || depth >= maxDepth {
		return err
	}
	return m.each(n, func(_ string, e node) error {
		if e.st.Uid != m.owner || e.regular() && e.st.Nlink > 1 {
			return nil
		}
		return m.mend(e, depth+1)
	})
}

// rights mends n itself.
func (m *mender) rights(n node) error {
	need := uint32(0o440)
	if n.dir() {
		need = 0o770
	}
	if gid := int(n.st.Gid); gid != m.shared && !slices.Contains(m.groups, gid) {
		if err := n.chown(-1, m.shared); err != nil {
			return machines(err) // its modes would do for others then
		}
		m.mended = true
	}
	if n.mode()&need == need {
		return nil
	}
	// Bits above these would be refused, see RestrictSUIDSGID=.
	err := unix.Chmod(n.path(), n.mode()&0o1777|need)
	m.mended = m.mended || err == nil
	return machines(err)
}
