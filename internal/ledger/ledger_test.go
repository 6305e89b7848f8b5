package ledger_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"idenfy-batch/internal/c2sp"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/sidecar"
)

var update = flag.Bool("update", false, "write testdata anew")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// book is a ledger in memory, as a journal keeps one.
type book struct {
	lines, kept [][]byte
}

func (b *book) hashes(n int64) ([]byte, error) {
	if n >= int64(len(b.kept)) {
		return nil, errors.New("not there")
	}
	return b.kept[n], nil
}

func (b *book) add(t testing.TB, lines ...[]byte) {
	t.Helper()
	for _, line := range lines {
		kept, err := ledger.Append(int64(len(b.lines)), line, ledger.Hashes(b.hashes))
		must(t, err)
		b.lines, b.kept = append(b.lines, line), append(b.kept, kept)
	}
}

// result is a result.json of the n-th folder, and entry the entry of it.
func result(n int) []byte {
	return fmt.Appendf(nil, "{\n  \"schema\": \"idenfy-batch/result/v1\",\n  \"id\": %q,\n  \"outcome\": \"accepted\"\n}\n", id(n))
}

func id(n int) string {
	return strings.NewReplacer("0", "A", "1", "B", "8", "C", "9", "D").Replace(fmt.Sprintf("%026d", n))
}

func entry(n int) ledger.Entry {
	sum := sha256.Sum256(result(n))
	return ledger.Entry{
		Kind: ledger.Ended, At: at(n), ID: id(n), Outcome: sidecar.Accepted, Place: "done", SHA256: hex.EncodeToString(sum[:]),
	}
}

func at(n int) sidecar.Time {
	return sidecar.Time{Time: time.UnixMilli(1_790_000_000_123 + int64(n)*1000)}
}

func line(t testing.TB, n int) []byte {
	t.Helper()
	l, err := entry(n).Encode()
	must(t, err)
	return l
}

func filled(t testing.TB, n int) *book {
	t.Helper()
	b := &book{}
	for i := range n {
		b.add(t, line(t, i))
	}
	return b
}

// audit holds a book against itself, and returns the entries that don't fit.
func (b *book) audit(t testing.TB) (a *ledger.Audit, bad []int64) {
	t.Helper()
	a = &ledger.Audit{}
	for i := range b.lines {
		err := a.Next(b.lines[i], b.kept[i])
		if e, ok := errors.AsType[*ledger.MisfitError](err); ok {
			bad = append(bad, e.N)
		} else {
			must(t, err)
		}
	}
	return a, bad
}

func (b *book) present(t testing.TB, signed bool) ledger.Present {
	t.Helper()
	head, err := ledger.Head(int64(len(b.lines)), ledger.Hashes(b.hashes))
	must(t, err)
	return ledger.Present{Tree: head, Hashes: ledger.Hashes(b.hashes), Signed: signed}
}

func (b *book) sign(t testing.TB, k *ledger.Key) []byte {
	t.Helper()
	c, err := k.Sign(b.present(t, true).Tree)
	must(t, err)
	return c
}

// What follows is the second way: RFC 6962, 2.1, as it stands there, with
// nothing of golang.org/x/mod. The formats are those of internal/c2sp.

func leafHash(d []byte) [32]byte { return sha256.Sum256(append([]byte{0}, d...)) }

func nodeHash(l, r [32]byte) [32]byte {
	return sha256.Sum256(slices.Concat([]byte{1}, l[:], r[:]))
}

// split is the largest power of two below n.
func split(n int) int {
	k := 1
	for k*2 < n {
		k *= 2
	}
	return k
}

func mth(d [][]byte) [32]byte {
	switch n := len(d); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return leafHash(d[0])
	default:
		k := split(n)
		return nodeHash(mth(d[:k]), mth(d[k:]))
	}
}

// path is the audit path of RFC 6962, 2.1.1.
func path(m int, d [][]byte) [][32]byte {
	if len(d) == 1 {
		return nil
	}
	k := split(len(d))
	if m < k {
		return append(path(m, d[:k]), mth(d[k:]))
	}
	return append(path(m-k, d[k:]), mth(d[:k]))
}

func encoded(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

// checkProof verifies by the second way that a proof is of that data.
func checkProof(text, vkey string, data []byte) error {
	got, err := c2sp.Proof(text, vkey)
	if err == nil && !bytes.Equal(got, data) {
		err = errors.New("other data are proven")
	}
	return err
}

// The roots of the test data of certificate-transparency, which other
// implementations have too.
func TestKnownRoots(t *testing.T) {
	var leaves [][]byte
	for _, h := range []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"} {
		l, err := hex.DecodeString(h)
		must(t, err)
		leaves = append(leaves, l)
	}
	b := &book{}
	for n, want := range []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	} {
		if n > 0 {
			b.add(t, leaves[n-1])
		}
		if got := b.present(t, true).Tree.Hash; hex.EncodeToString(got[:]) != want {
			t.Errorf("root of %d: %x", n, got)
		}
		if got := mth(leaves[:n]); hex.EncodeToString(got[:]) != want {
			t.Errorf("the second way, root of %d: %x", n, got)
		}
	}
}

// Heads at each size, heads of earlier sizes, and inclusion paths are those of
// the second way.
func TestTreeSecondWay(t *testing.T) {
	const most = 70
	key, _ := newKey(t, "J")
	b := filled(t, most)
	audit := &ledger.Audit{}
	for n := 1; n <= most; n++ {
		must(t, audit.Next(b.lines[n-1], b.kept[n-1]))
		streamed, err := audit.Head()
		must(t, err)
		head, err := ledger.Head(int64(n), ledger.Hashes(b.hashes))
		must(t, err)
		want := mth(b.lines[:n])
		if head.N != int64(n) || [32]byte(head.Hash) != want || streamed != head {
			t.Fatalf("size %d: %v, streamed %v, the second way %x", n, head, streamed, want)
		}
		checkpoint, err := key.Sign(head)
		must(t, err)
		for m := range n {
			proof, err := ledger.Prove(int64(m), b.lines[m], checkpoint, ledger.Hashes(b.hashes))
			must(t, err)
			shown, _, _ := strings.Cut(string(proof), "\n\n")
			var hashes []string
			for _, h := range path(m, b.lines[:n]) {
				hashes = append(hashes, base64.StdEncoding.EncodeToString(h[:]))
			}
			if got := strings.Split(shown, "\n")[3:]; !slices.Equal(got, hashes) {
				t.Fatalf("path of %d in %d: %v, the second way %v", m, n, got, hashes)
			}
			must(t, checkProof(string(proof), key.Verifier(), b.lines[m]))
			another := append([]byte("another"), b.lines[m]...)
			if checkProof(strings.Replace(string(proof), encoded(b.lines[m]), encoded(another), 1), key.Verifier(), another) == nil {
				t.Fatal("the second way proves anything")
			}
		}
	}
}

func newKey(t testing.TB, journal string) (*ledger.Key, string) {
	t.Helper()
	file, err := ledger.NewKey(ledger.Origin(journal))
	must(t, err)
	k, err := ledger.ParseKey([]byte(file), ledger.Origin(journal))
	must(t, err)
	return k, file
}

// A key that is always the same: the seed is 32 times the byte 7.
func fixedKey(t testing.TB, journal string) *ledger.Key {
	t.Helper()
	seed := bytes.Repeat([]byte{7}, 32)
	pub := append([]byte{1}, ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)...)
	sum := sha256.Sum256(slices.Concat([]byte("elsewhere.example/key\n"), pub))
	file := fmt.Sprintf("PRIVATE+KEY+elsewhere.example/key+%x+%s\n", sum[:4], base64.StdEncoding.EncodeToString(append([]byte{1}, seed...)))
	k, err := ledger.ParseKey([]byte(file), ledger.Origin(journal))
	must(t, err)
	return k
}

// The very bytes of a ledger: whoever kept a checkpoint or a proof of today
// can check it for ever.
func TestKnownAnswers(t *testing.T) {
	key := fixedKey(t, "JJJJJJJJJJJJJJJJJJJJJJJJJJ")
	b := &book{}
	for _, e := range []ledger.Entry{
		{Kind: ledger.Started, At: at(0), Version: "1.2.3", Key: key.Verifier()},
		{Kind: ledger.Adopted, At: at(1), ID: id(1), Outcome: sidecar.Unknown, Place: "hold"},
		entry(2),
		{Kind: ledger.Ended, At: at(3), ID: id(3), Outcome: sidecar.Unknown},
		{Kind: ledger.Decided, At: at(4), ID: id(1), Action: sidecar.Confirmed, Forced: true, Outcome: sidecar.Accepted, Place: "done", SHA256: entry(1).SHA256},
	} {
		l, err := e.Encode()
		must(t, err)
		b.add(t, l)
	}
	checkpoint := b.sign(t, key)
	proof, err := ledger.Prove(2, b.lines[2], checkpoint, ledger.Hashes(b.hashes))
	must(t, err)
	got := slices.Concat(bytes.Join(b.lines, []byte("\n")), []byte("\n--\n"+key.Verifier()+"\n--\n"), proof)
	if *update {
		must(t, os.WriteFile("testdata/known.txt", got, 0o644))
	}
	want, err := os.ReadFile("testdata/known.txt")
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	must(t, checkProof(string(proof), key.Verifier(), b.lines[2]))
	signed, err := c2sp.Note(string(checkpoint), key.Verifier())
	must(t, err)
	root := mth(b.lines)
	if want := []string{"idenfy-batch/JJJJJJJJJJJJJJJJJJJJJJJJJJ", "5", base64.StdEncoding.EncodeToString(root[:])}; !slices.Equal(signed, want) {
		t.Errorf("signed: %q, want %q", signed, want)
	}
}
