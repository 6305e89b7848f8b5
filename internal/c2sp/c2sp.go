// Package c2sp owns the second way to check what the ledger prints: by the
// text of C2SP (signed-note, tlog-checkpoint, tlog-proof) and RFC 9162, with
// nothing of the program's own, nor of what that uses. It is for tests.
package c2sp

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Note reads a signed note, verifies the signature of a key, and returns the
// lines.
func Note(text, vkey string) (lines []string, err error) {
	cut := strings.LastIndex(text, "\n\n")
	if cut < 0 {
		return nil, errors.New("no empty line")
	}
	body, signatures := text[:cut+1], text[cut+2:]
	name, rest, _ := strings.Cut(vkey, "+")
	id, encoded, _ := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) != 33 || key[0] != 1 {
		return nil, errors.New("the key")
	}
	sum := sha256.Sum256(slices.Concat([]byte(name), []byte("\n"), key))
	if hex.EncodeToString(sum[:4]) != id {
		return nil, errors.New("the key's id")
	}
	for s := range strings.Lines(signatures) {
		who, encoded, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(s, "— "), "\n"), " ")
		sig, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || who != name || len(sig) != 68 || binary.BigEndian.Uint32(sig) != binary.BigEndian.Uint32(sum[:]) {
			continue
		}
		if !ed25519.Verify(key[1:], []byte(body), sig[4:]) {
			return nil, errors.New("the signature")
		}
		return strings.Split(strings.TrimSuffix(body, "\n"), "\n"), nil
	}
	return nil, errors.New("no signature of the key")
}

// Proof reads a proof, verifies that its extra data are in the tree that its
// checkpoint is of, and returns them.
func Proof(text, vkey string) (data []byte, err error) {
	head, checkpoint, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(head, "\n")
	if len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return nil, errors.New("the first line")
	}
	extra, hasExtra := strings.CutPrefix(lines[1], "extra ")
	data, err = base64.StdEncoding.DecodeString(extra)
	if !hasExtra || err != nil {
		return nil, errors.New("the extra data")
	}
	number, hasNumber := strings.CutPrefix(lines[2], "index ")
	index, err := strconv.ParseUint(number, 10, 63)
	if !hasNumber || err != nil {
		return nil, errors.New("the index")
	}
	signed, err := Note(checkpoint, vkey)
	if err != nil || len(signed) != 3 {
		return nil, fmt.Errorf("the checkpoint: %w", err)
	}
	size, err := strconv.ParseUint(signed[1], 10, 63)
	root, errRoot := base64.StdEncoding.DecodeString(signed[2])
	if err != nil || errRoot != nil || index >= size {
		return nil, errors.New("the tree head")
	}
	hash := func(parts ...[]byte) []byte { sum := sha256.Sum256(slices.Concat(parts...)); return sum[:] }
	fn, sn, r := index, size-1, hash([]byte{0}, data) // RFC 9162, 2.1.3.2
	for _, l := range lines[3:] {
		p, err := base64.StdEncoding.DecodeString(l)
		if err != nil || len(p) != 32 || sn == 0 {
			return nil, errors.New("a hash")
		}
		if fn&1 == 1 || fn == sn {
			r = hash([]byte{1}, p, r)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			r = hash([]byte{1}, r, p)
		}
		fn, sn = fn>>1, sn>>1
	}
	if sn != 0 || !slices.Equal(r, root) {
		return nil, errors.New("it is not included")
	}
	return data, nil
}
