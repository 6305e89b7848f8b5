package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// What is wrong with a proof, besides its checkpoint.
var (
	ErrProof       = errors.New("this is no proof of idenfy-batch (C2SP tlog-proof, version 1, with the entry as its extra data)")
	ErrNotIncluded = errors.New("the proof doesn't hold: its entry is not in the ledger that was signed; the proof was altered")
	ErrAltered     = errors.New("result.json is not as it was entered: it was altered")
	ErrOtherResult = errors.New("the proof is not for this result.json")
	ErrNotCovered  = errors.New("the newest checkpoint doesn't cover that entry yet; the daemon signs one each minute, so try again then")
)

const proofForm = "c2sp.org/tlog-proof@v1"

// Prove returns the proof that the entry n, from 0, is in the ledger that a
// checkpoint is of (c2sp.org/tlog-proof). The entry's line is its extra data.
func Prove(n int64, line, checkpoint []byte, hashes tlog.HashReader) ([]byte, error) {
	c, _, err := read(checkpoint)
	if err != nil {
		return nil, err
	}
	if n >= c.N {
		return nil, ErrNotCovered
	}
	path, err := tlog.ProveRecord(c.N, n, hashes)
	if err != nil {
		return nil, err
	}
	if err := tlog.CheckRecord(path, c.N, c.Hash, n, tlog.RecordHash(line)); err != nil {
		return nil, fmt.Errorf("entry %d doesn't fit the checkpoint, so nothing can be proven; see idenfy-batch ledger verify", n)
	}
	return proof{n, line, path, checkpoint}.text(), nil
}

// proof is what stands in one.
type proof struct {
	n          int64
	line       []byte
	path       tlog.RecordProof
	checkpoint []byte
}

func (p proof) text() []byte {
	b := fmt.Appendf(nil, "%s\nextra %s\nindex %d\n", proofForm, base64.StdEncoding.EncodeToString(p.line), p.n)
	for _, h := range p.path {
		b = fmt.Appendf(b, "%s\n", h)
	}
	return append(append(b, '\n'), p.checkpoint...)
}

func readProof(text []byte) (p proof, err error) {
	if len(text) > maxCheckpoint+8<<10 {
		return p, ErrProof
	}
	head, checkpoint, _ := bytes.Cut(text, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if len(lines) < 3 || len(lines) > 3+64 {
		return p, ErrProof
	}
	p.checkpoint = checkpoint
	p.line, err = base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return p, ErrProof
	}
	if p.n, err = strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64); err != nil || p.n < 0 {
		return p, ErrProof
	}
	for _, line := range lines[3:] {
		h, err := tlog.ParseHash(line)
		if err != nil {
			return p, ErrProof
		}
		p.path = append(p.path, h)
	}
	if !bytes.Equal(p.text(), text) { // the one way to write it
		return p, ErrProof
	}
	return p, nil
}

// Proven is what a proof proves.
type Proven struct {
	N          int64 // the entry, from 0
	Entry      Entry
	Checkpoint Checkpoint
}

// Verify checks the proof that a result.json is in the ledger whose verifier
// key is given. The error says what of it doesn't hold.
func Verify(text []byte, verifier string, result []byte) (Proven, error) {
	p, err := readProof(text)
	if err != nil {
		return Proven{}, err
	}
	c, err := Open(p.checkpoint, verifier)
	if err != nil {
		return Proven{}, err
	}
	if tlog.CheckRecord(p.path, c.N, c.Hash, p.n, tlog.RecordHash(p.line)) != nil {
		return Proven{}, ErrNotIncluded
	}
	e, err := Parse(p.line)
	if err != nil { // signed, and yet not written by this program
		return Proven{}, err
	}
	proven := Proven{p.n, e, c}
	sum := sha256.Sum256(result)
	if is := hex.EncodeToString(sum[:]); is != e.SHA256 {
		var claims struct{ ID string }
		_ = json.Unmarshal(result, &claims) // what can't be read claims nothing
		if e.SHA256 == "" || claims.ID != "" && claims.ID != e.ID {
			return proven, fmt.Errorf("%w: it is for %s of %s, and the file says that it is %.80q", ErrOtherResult, e.Kind, e.ID, claims.ID)
		}
		return proven, fmt.Errorf("%w, or it is of before or after a person decided about it (its SHA-256 is %s, and was %s)", ErrAltered, is, e.SHA256)
	}
	return proven, nil
}
