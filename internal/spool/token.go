package spool

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"idenfy-batch/internal/durable"
)

// Tokens keeps the tokens of sessions that the daemon opened, one a life, while
// its folder is in work: as files of mode 0600 in work itself, where no uploader
// reaches, and not in the folders, which leave it. Nothing else on the disk has
// them. Submit, which has no work, keeps them beside its journal.
type Tokens struct{ Dir string }

// tokenPrefix, with an id, is a token's hidden name.
const tokenPrefix = ".token."

// maxToken bounds a token's file, in bytes.
const maxToken = 64

// Keep keeps the token of a life, durably, in the place of an earlier one.
func (t Tokens) Keep(id, token string) error {
	dir, err := os.OpenRoot(t.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return durable.WriteFile(dir, tokenPrefix+id, []byte(token), 0o600)
}

// Read returns the token of a life, or "" when there is none.
func (t Tokens) Read(id string) (string, error) {
	dir, err := os.OpenRoot(t.Dir)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	info, err := dir.Lstat(tokenPrefix + id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (!info.Mode().IsRegular() || info.Size() > maxToken) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	data, err := dir.ReadFile(tokenPrefix + id)
	return string(data), err
}

// Drop removes the token of a life, durably. There may be none.
func (t Tokens) Drop(id string) error {
	dir, err := os.OpenRoot(t.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	// What a crash left of Keep: only that it is gone matters, see Sweep.
	for _, name := range []string{durable.TempName(tokenPrefix + id), tokenPrefix + id} {
		if err := durable.Remove(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// Sweep removes the tokens of all lives but those that are kept.
func (t Tokens) Sweep(kept func(id string) bool) error {
	names, err := os.ReadDir(t.Dir)
	if err != nil {
		return err
	}
	for _, e := range names {
		_, rest, is := strings.Cut(e.Name(), tokenPrefix)
		if id := strings.TrimSuffix(rest, ".tmp"); is && !e.IsDir() && !kept(id) { // or of a Keep that was cut off
			if err := t.Drop(id); err != nil {
				return err
			}
		}
	}
	return nil
}
