// Package sample owns drawn sample documents: a card and a face that belong to
// nobody, for the demo and for tests.
package sample

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

var (
	paper = color.RGBA{0xee, 0xf3, 0xf7, 0xff}
	ink   = color.RGBA{0x2b, 0x3a, 0x4a, 0xff}
	faint = color.RGBA{0xb9, 0xc7, 0xd4, 0xff}
	skin  = color.RGBA{0xe2, 0xb6, 0x93, 0xff}
	hair  = color.RGBA{0x4b, 0x36, 0x2a, 0xff}
	back  = color.RGBA{0x9f, 0xc1, 0xb1, 0xff}
)

func fill(img draw.Image, x0, y0, x1, y1 int, c color.Color) {
	draw.Draw(img, image.Rect(x0, y0, x1, y1), image.NewUniform(c), image.Point{}, draw.Src)
}

func ellipse(img draw.Image, cx, cy, rx, ry int, c color.Color) {
	for y := -ry; y <= ry; y++ {
		for x := -rx; x <= rx; x++ {
			if x*x*ry*ry+y*y*rx*rx <= rx*rx*ry*ry {
				img.Set(cx+x, cy+y, c)
			}
		}
	}
}

// head draws a face of radius r around cx, cy.
func head(img draw.Image, cx, cy, r int) {
	ellipse(img, cx, cy+r*9/4, r*8/5, r, ink)   // shoulders
	ellipse(img, cx, cy-r/5, r, r*6/5, hair)    //
	ellipse(img, cx, cy+r/8, r*4/5, r, skin)    //
	ellipse(img, cx-r/3, cy, r/9, r/9, ink)     // eyes
	ellipse(img, cx+r/3, cy, r/9, r/9, ink)     //
	ellipse(img, cx, cy+r*5/9, r/3, r/12, hair) // mouth
}

// lines draws n bars in place of lines of writing.
func lines(img draw.Image, x, y, width, n int) {
	for i := range n {
		fill(img, x, y+i*34, x+width-(i%3)*width/5, y+i*34+14, []color.Color{ink, faint}[i%2])
	}
}

func encode(img image.Image) []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 85}); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	return b.Bytes()
}

// Front returns the front of a card, as JPEG.
func Front() []byte {
	img := image.NewRGBA(image.Rect(0, 0, 856, 540))
	fill(img, 0, 0, 856, 540, paper)
	fill(img, 0, 0, 856, 70, back)
	fill(img, 40, 110, 290, 440, faint)
	head(img, 165, 235, 75)
	lines(img, 330, 120, 460, 9)
	return encode(img)
}

// Back returns the back of a card, as JPEG.
func Back() []byte {
	img := image.NewRGBA(image.Rect(0, 0, 856, 540))
	fill(img, 0, 0, 856, 540, paper)
	fill(img, 0, 40, 856, 120, ink)
	lines(img, 60, 170, 620, 5)
	fill(img, 60, 400, 796, 420, ink)
	fill(img, 60, 440, 796, 460, ink)
	return encode(img)
}

func face() image.Image {
	img := image.NewRGBA(image.Rect(0, 0, 480, 640))
	fill(img, 0, 0, 480, 640, back)
	head(img, 240, 270, 130)
	return img
}

// Face returns a portrait, as JPEG.
func Face() []byte { return encode(face()) }

// FacePNG returns the portrait as PNG.
func FacePNG() []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, face()); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	return b.Bytes()
}

// Pad returns the JPEG data with comment segments of random bytes in its head,
// so that it is still whole and has at least size bytes. The same seed gives
// the same bytes.
func Pad(data []byte, size int, seed uint64) []byte {
	const most = 65533 // of a segment's content
	out := append(make([]byte, 0, size+8), data[:2]...)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), byte(seed >> 32)})
	for missing := size - len(data); missing > 0; {
		n := min(max(missing-4, 1), most)
		out = append(out, 0xFF, 0xFE)
		out = binary.BigEndian.AppendUint16(out, uint16(n+2))
		chunk := make([]byte, n)
		_, _ = r.Read(chunk) // never fails
		out = append(out, chunk...)
		missing -= n + 4
	}
	return append(out, data[2:]...)
}

// Meta returns a meta.yaml of the given values and further lines.
func Meta(token, country, documentType string, more ...string) string {
	return fmt.Sprintf("authToken: %s\ncountry: %s\ndocumentType: %s\n", token, country, documentType) +
		strings.Join(append(more, ""), "\n")
}

// Person returns a meta.yaml of a person, for whom the daemon opens the session,
// and further lines.
func Person(clientID, country, documentType string, more ...string) string {
	return fmt.Sprintf("clientId: %s\ncountry: %s\ndocumentType: %s\n", clientID, country, documentType) +
		strings.Join(append(more, ""), "\n")
}

// Write makes the folder dir with the files given by name, the meta.yaml last.
func Write(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o770); err != nil {
		return err
	}
	for name, data := range files {
		if name == "meta.yaml" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o660); err != nil {
			return err
		}
	}
	if data, ok := files["meta.yaml"]; ok {
		return os.WriteFile(filepath.Join(dir, "meta.yaml"), data, 0o660)
	}
	return nil
}
