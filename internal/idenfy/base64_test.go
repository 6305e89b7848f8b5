package idenfy

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"testing"
)

func checkEncode(t *testing.T, src []byte) {
	t.Helper()
	want := base64.StdEncoding.AppendEncode(nil, src)
	got := append(make([]byte, len(want)), "beyond"...)
	encode(got[:len(want)], src)
	if string(got) != string(want)+"beyond" {
		t.Fatalf("%x: got %q, want %q", src, got, want)
	}
}

// Every length around the steps, and every value of twelve bits at each of the
// places that they can have.
func TestEncode(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	data := make([]byte, 100)
	for range 100 {
		_, _ = random.Read(data)
		for n := range data {
			checkEncode(t, data[:n])
		}
	}
	for v := range 1 << 12 {
		three := []byte{byte(v >> 4), byte(v<<4) | byte(v>>8), byte(v)}
		checkEncode(t, bytes.Repeat(three, 8))
	}
}

func FuzzEncode(f *testing.F) {
	f.Add([]byte("a JPEG, or what somebody takes for one"))
	f.Fuzz(func(t *testing.T, src []byte) { checkEncode(t, src) })
}

// BenchmarkEncode encodes a chunk, as the body does and as the library does.
func BenchmarkEncode(b *testing.B) {
	src := make([]byte, rawChunk)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(src)
	dst := make([]byte, base64.StdEncoding.EncodedLen(rawChunk))
	for name, enc := range map[string]func(dst, src []byte){"own": encode, "library": base64.StdEncoding.Encode} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(src)))
			for b.Loop() {
				enc(dst, src)
			}
		})
	}
}
