package ledger

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Origin names the ledger of a journal, in its checkpoints and as the name of
// its key. A journal that is made anew has another id, so its ledger is
// another one: its history can't be taken for the old one, cut off. It tells
// nothing of the host, as checkpoints are sent away.
func Origin(journal string) string { return "idenfy-batch/" + journal }

// Key signs the checkpoints of one ledger.
type Key struct {
	signer   note.Signer
	verifier string
}

// NewKey returns a new key as it stands in its file. It is secret.
func NewKey(origin string) (string, error) {
	secret, _, err := note.GenerateKey(rand.Reader, origin)
	return secret + "\n", err
}

// ParseKey reads what stands in the file of a key. It signs under the
// ledger's own name, whatever name it was made for: it may come from
// elsewhere, and stays the same key when the journal is made anew.
func ParseKey(file []byte, origin string) (*Key, error) {
	bad := errors.New("this is no key of a ledger, which is one line, PRIVATE+KEY+NAME+HASH+BASE64; bring the right file back, or move this one away to have a new key made: what was signed before is then only proven with the old one's verifier key")
	secret := strings.TrimSpace(string(file))
	if len(file) > 1024 {
		return nil, bad
	}
	if _, err := note.NewSigner(secret); err != nil {
		return nil, bad // without the cause, which is of a secret
	}
	encoded := strings.SplitN(secret, "+", 5)[4]
	raw, err := base64.StdEncoding.DecodeString(encoded) // its kind, and the seed
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return nil, bad
	}
	public := ed25519.NewKeyFromSeed(raw[1:]).Public().(ed25519.PublicKey) //nolint:forcetypeassert // it says so
	verifier, err := note.NewEd25519VerifierKey(origin, public)
	if err != nil {
		return nil, err
	}
	hash := strings.Split(verifier, "+")[1]
	signer, err := note.NewSigner("PRIVATE+KEY+" + origin + "+" + hash + "+" + encoded)
	return &Key{signer, verifier}, err
}

// Verifier returns what others need to check the signatures; it is no secret.
func (k *Key) Verifier() string { return k.verifier }

// Sign returns the checkpoint of a tree, which has an entry at least. Nothing
// may be signed that doesn't go on from what was signed before, see Compare.
func (k *Key) Sign(t tlog.Tree) ([]byte, error) {
	return note.Sign(&note.Note{Text: Checkpoint{k.signer.Name(), t}.text()}, k.signer)
}

// Checkpoint is what a checkpoint says.
type Checkpoint struct {
	Origin string
	tlog.Tree
}

func (c Checkpoint) text() string { return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.N, c.Hash) }

// What is wrong with a checkpoint.
var (
	ErrVerifier    = errors.New("this is no verifier key, which is one line, NAME+HASH+BASE64; idenfy-batch ledger checkpoint prints it")
	ErrForm        = errors.New("this is no checkpoint of idenfy-batch: three lines, an empty one, and a signature")
	ErrSignature   = errors.New("the checkpoint was altered after it was signed: the signature doesn't fit it")
	ErrOtherKey    = errors.New("the checkpoint is of this ledger, and is signed with another key: the key was replaced, or somebody else signed it; ask who keeps the key, and check it with the key of its time")
	ErrOtherLedger = errors.New("the checkpoint is of another ledger: of another spool, or of a journal that was made anew since; check it with that one's key")
)

const (
	maxCheckpoint = 128 << 10 // bytes: 16 signatures of the largest kind that there is
	maxEntries    = 1 << 48
)

// read returns what a checkpoint says, and whose signatures it has, unchecked.
func read(text []byte) (c Checkpoint, n *note.Note, err error) {
	if len(text) > maxCheckpoint {
		return c, nil, ErrForm
	}
	_, err = note.Open(text, nil)
	unverified, ok := errors.AsType[*note.UnverifiedNoteError](err)
	if !ok {
		return c, nil, ErrForm
	}
	n = unverified.Note
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 || lines[0] == "" {
		return c, nil, ErrForm
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	root, errRoot := tlog.ParseHash(lines[2])
	c = Checkpoint{lines[0], tlog.Tree{N: size, Hash: root}}
	if err != nil || errRoot != nil || size < 1 || size > maxEntries || c.text() != n.Text {
		return Checkpoint{}, nil, ErrForm
	}
	return c, n, nil
}

// Open reads a checkpoint and verifies its signature with a verifier key. With
// an error that is not ErrForm or ErrVerifier it returns what the checkpoint
// says all the same, for which nobody vouches.
func Open(text []byte, verifier string) (Checkpoint, error) {
	v, err := note.NewVerifier(strings.TrimSpace(verifier))
	if err != nil {
		return Checkpoint{}, ErrVerifier
	}
	c, n, err := read(text)
	if err != nil {
		return c, err
	}
	_, err = note.Open(text, note.VerifierList(v))
	if _, invalid := errors.AsType[*note.InvalidSignatureError](err); invalid {
		return c, ErrSignature
	}
	by := n.UnverifiedSigs[0]
	switch {
	case c.Origin != v.Name():
		return c, fmt.Errorf("%w (it is of %.80q, and the key of %.80q)", ErrOtherLedger, c.Origin, v.Name())
	case err != nil:
		return c, fmt.Errorf("%w (it is signed by %.80q with %08x, and the key is %08x)", ErrOtherKey, by.Name, by.Hash, v.KeyHash())
	}
	return c, nil
}

// Relation is how an earlier checkpoint stands to the ledger as it is, in
// words.
type Relation string

// The relations. Only with the first two was nothing altered.
const (
	Same     Relation = "nothing was entered since"
	Grown    Relation = "all that it covers is there unaltered, and more was entered since"
	CutOff   Relation = "entries are missing at the end: the ledger was cut off, or replaced by an older copy, or another daemon went on with a copy of it"
	Altered  Relation = "an entry that it covers was altered, removed, or put in"
	Forked   Relation = "an entry that it covers is another one, and that was signed with the same key: two daemons went on with copies of one journal, or whoever has the key wrote a new history"
	Rekeyed  Relation = "all that it covers is there unaltered, but the key was replaced since"
	Replaced Relation = "the history that it covers was replaced by another one, with another key"
	Other    Relation = "it is of another ledger: of another spool, or of a journal that was made anew since"
)

// Present is the ledger as it is.
type Present struct {
	Tree   tlog.Tree // its head
	Hashes tlog.HashReader
	Signed bool // it goes on from its own newest checkpoint
}

// Compare holds an earlier checkpoint against the ledger as it is. An error
// means that the checkpoint proves nothing, or that the hashes can't be read.
func Compare(earlier []byte, verifier string, p Present) (Relation, Checkpoint, error) {
	c, err := Open(earlier, verifier)
	rekeyed := errors.Is(err, ErrOtherKey)
	switch {
	case errors.Is(err, ErrOtherLedger):
		return Other, c, nil
	case err != nil && !rekeyed:
		return "", c, err
	}
	r, err := history(c, p)
	switch {
	case err != nil:
		return "", c, err
	case rekeyed && (r == Same || r == Grown):
		r = Rekeyed
	case rekeyed:
		r = Replaced
	case r == Altered && p.Signed:
		r = Forked
	}
	return r, c, nil
}

func history(c Checkpoint, p Present) (Relation, error) {
	switch {
	case c.N > p.Tree.N:
		return CutOff, nil
	case c.N == p.Tree.N && c.Hash == p.Tree.Hash:
		return Same, nil
	case c.N == p.Tree.N:
		return Altered, nil
	}
	proof, err := tlog.ProveTree(p.Tree.N, c.N, p.Hashes)
	if err != nil {
		return "", err
	}
	if goesOn := tlog.CheckTree(proof, p.Tree.N, p.Tree.Hash, c.N, c.Hash) == nil; goesOn {
		return Grown, nil
	}
	return Altered, nil
}
