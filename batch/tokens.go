package batch

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// tokens keeps two folders with one token from being sent. The API would
// refuse the second, but a person's data would have left twice, and its answer
// would tell nothing of the first.
//
// What it knows comes from the directories, and is read anew at each start.
type tokens struct {
	spool *spool.Spool

	reading chan struct{} // holds the one that may read
	isRead  bool          // of who holds that

	mu    sync.Mutex
	owner map[string]string   // token to the folder in work that it belongs to, by its name there
	token map[string]string   // the other way
	seed  maphash.Seed        //
	used  map[uint64]struct{} // hashes of the tokens of folders in done and hold
}

func newTokens(s *spool.Spool) *tokens {
	return &tokens{spool: s, reading: make(chan struct{}, 1), owner: map[string]string{}, token: map[string]string{}, seed: maphash.MakeSeed(), used: map[uint64]struct{}{}}
}

// read learns, once, the tokens of what lies in the spool. Of two folders in
// work with one token, the one that may have been sent owns it.
func (t *tokens) read(ctx context.Context) error {
	select {
	case t.reading <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-t.reading }()
	if t.isRead {
		return nil
	}
	err := each(ctx, t.spool.Path(spool.Work), func(work string, dir *os.Root) (more bool) {
		res, err := sidecar.Read(dir)
		if _, id, _ := spool.Split(work); err != nil || res.ID != id || len(res.Attempts) == 0 {
			return true
		}
		if m, err := meta.Read(dir); err == nil {
			t.take(m.AuthToken, work)
		}
		return true
	})
	for _, p := range []spool.Place{spool.Hold, spool.Done} {
		if err != nil {
			return err
		}
		err = each(ctx, t.spool.Path(p), func(_ string, dir *os.Root) (more bool) {
			if m, err := meta.Read(dir); err == nil {
				t.settle(m.AuthToken)
			}
			return true
		})
	}
	t.isRead = err == nil
	return err
}

// take makes token the folder work's, or returns the one that it belongs to.
func (t *tokens) take(token, work string) (owner string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	owner, taken := t.owner[token]
	if taken && owner != work {
		return owner
	}
	t.owner[token], t.token[work] = work, token
	return ""
}

// leave tells that the folder is no longer in work.
func (t *tokens) leave(work string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if token, ok := t.token[work]; ok {
		delete(t.token, work)
		delete(t.owner, token)
	}
}

// owns reports whether work is a folder that others may be waiting for.
func (t *tokens) owns(work string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.token[work]
	return ok
}

// settle notes that a folder with this token is in done or hold.
func (t *tokens) settle(token string) {
	h := maphash.String(t.seed, token)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.used[h] = struct{}{}
}

// settled finds the folder in done or hold that has the token; place is empty
// when there is none.
func (t *tokens) settled(ctx context.Context, token string) (place spool.Place, name string, err error) {
	if err := t.read(ctx); err != nil {
		return "", "", err
	}
	t.mu.Lock()
	_, known := t.used[maphash.String(t.seed, token)]
	t.mu.Unlock()
	if !known {
		return "", "", nil
	}
	// It was there. Whether it still is, or was decided or taken away since,
	// only the directories tell.
	for _, p := range []spool.Place{spool.Hold, spool.Done} {
		if name, err = FindToken(ctx, t.spool.Path(p), token); err != nil || name != "" {
			return p, name, err
		}
	}
	return "", "", nil
}

// FindToken returns the name of a folder in the directory at path whose
// meta.yaml has the token, or "". A missing directory holds none.
func FindToken(ctx context.Context, path, token string) (found string, err error) {
	err = each(ctx, path, func(name string, dir *os.Root) (more bool) {
		if m, err := meta.Read(dir); err == nil && m.AuthToken == token {
			found = name
		}
		return found == ""
	})
	return found, err
}

// each calls do for each folder in the directory at path that can be opened,
// for as long as it wants more.
func each(ctx context.Context, path string, do func(name string, dir *os.Root) (more bool)) error {
	parent, err := os.OpenRoot(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	names, err := (spool.Paths{"": path}).List("")
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	slices.Sort(names)
	for _, name := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		dir, err := drop.Open(parent, name)
		if err != nil {
			continue // not a folder, or not the daemon's to read
		}
		more := do(name, dir)
		_ = dir.Close() // it was read only
		if !more {
			break
		}
	}
	return nil
}
