package idenfy

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
)

// A body is the same in whatever pieces it is read, and its last byte comes
// alone, after the question whether it may be sent.
func TestBodyInAnyPieces(t *testing.T) {
	images := map[string][]byte{}
	for i, step := range []string{"FRONT", "BACK", "FACE"} {
		data := make([]byte, []int{rawChunk + 1, 2, 3*rawChunk - 1}[i])
		for n := range data {
			data[n] = byte(rand.Uint32())
		}
		images[step] = data
	}
	want := `{"authToken":"T","country":"LT","documentType":"ID_CARD","images":{"FRONT":"` + base64.StdEncoding.EncodeToString(images["FRONT"]) +
		`","BACK":"` + base64.StdEncoding.EncodeToString(images["BACK"]) + `","FACE":"` + base64.StdEncoding.EncodeToString(images["FACE"]) + `"}}`
	for _, piece := range []int{1, 2, 3, 4, 5, 7, 64, 1000, 4096, 32 << 10, 64<<10 + 1, 128 << 10, 10 << 20} {
		for _, no := range []error{nil, errors.New("no")} {
			asked := false
			r := &Request{Token: "T", Country: "LT", DocumentType: "ID_CARD", Confirm: func(sums []string) error { asked = len(sums) == 3; return no }}
			for _, step := range []string{"FRONT", "BACK", "FACE"} {
				r.Images = append(r.Images, Image{Step: step, Size: int64(len(images[step])), Data: bytes.NewReader(images[step])})
			}
			b, err := newBody(authToken, r)
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			p := make([]byte, piece)
			for err == nil {
				var n int
				n, err = b.Read(p)
				if got = append(got, p[:n]...); asked && n > 1 || !asked && len(got) == len(want) {
					t.Fatalf("pieces of %d: asked %v, and %d of %d bytes came", piece, asked, n, len(want))
				}
			}
			whole, stopped := b.stop()
			what := fmt.Sprintf("pieces of %d, %v", piece, no)
			switch {
			case no == nil && (string(got) != want || !errors.Is(err, io.EOF) || !whole || b.length != int64(len(want))):
				t.Errorf("%s: %d bytes of %d, %v", what, len(got), len(want), err)
			case no != nil && (string(got) != want[:len(want)-1] || !errors.Is(err, no) || !errors.Is(stopped, no) || whole):
				t.Errorf("%s: %d bytes of %d, %v", what, len(got), len(want), err)
			}
		}
	}
}
