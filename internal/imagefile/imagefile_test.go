package imagefile_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"idenfy-batch/internal/imagefile"
	"idenfy-batch/internal/sample"
)

// The files in testdata were made with cjpeg, exiftool and qpdf of a drawn
// face and of a page with a grey rectangle.
var whole = []struct {
	file          string
	format        imagefile.Format
	width, height int
	after         int64 // bytes behind the end mark
}{
	{"baseline.jpg", imagefile.JPEG, 120, 160, 0},
	{"progressive.jpg", imagefile.JPEG, 120, 160, 0},
	{"arithmetic.jpg", imagefile.JPEG, 120, 160, 0},
	{"restart.jpg", imagefile.JPEG, 120, 160, 0},
	{"exif-thumbnail.jpg", imagefile.JPEG, 120, 160, 0},
	{"appended.jpg", imagefile.JPEG, 120, 160, 28},
	{"small.png", imagefile.PNG, 32, 32, 0},
	{"plain.pdf", imagefile.PDF, 0, 0, 1},
	{"updated.pdf", imagefile.PDF, 0, 0, 1},
	{"linearized.pdf", imagefile.PDF, 0, 0, 1},
	{"xref-stream.pdf", imagefile.PDF, 0, 0, 1},
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func walk(data []byte) (imagefile.Info, error) {
	return imagefile.Walk(bytes.NewReader(data), int64(len(data)))
}

func TestWholeFiles(t *testing.T) {
	for _, w := range whole {
		data := read(t, w.file)
		info, err := walk(data)
		want := imagefile.Info{Format: w.format, Width: w.width, Height: w.height, End: int64(len(data)) - w.after}
		if err != nil || info != want {
			t.Errorf("%s: got %+v, %v; want %+v", w.file, info, err, want)
		}
	}
}

// A file that was cut anywhere before its end mark is never taken for whole,
// and never called wrong: more of it may be coming.
func TestCutAtEveryByte(t *testing.T) {
	for _, w := range whole {
		data := read(t, w.file)
		end := int64(len(data)) - w.after
		for n := range end {
			_, err := walk(data[:n])
			if w.file == "updated.pdf" && err == nil && bytes.HasSuffix(bytes.TrimSpace(data[:n]), []byte("%%EOF")) {
				continue // all of the revision before the update: a whole file
			}
			var truncated *imagefile.Truncated
			var damaged *imagefile.Damaged
			if !errors.As(err, &truncated) && (w.format != imagefile.PDF || !errors.As(err, &damaged)) {
				t.Fatalf("%s cut after %d of %d bytes: got %v, want truncated", w.file, n, end, err)
			}
		}
	}
}

// A client may set the size first and fill the file in: what isn't written yet
// reads as zeros.
func TestZerosUpToTheSize(t *testing.T) {
	for _, w := range whole {
		data := read(t, w.file)
		end := len(data) - int(w.after)
		for n := range end - 8 {
			partly := append(bytes.Clone(data[:n]), make([]byte, len(data)-n)...)
			if info, err := walk(partly); err == nil && (w.file != "updated.pdf" || info.End >= int64(end)) {
				t.Fatalf("%s with zeros from byte %d of %d on is taken for whole", w.file, n, end)
			}
		}
	}
}

func TestBroken(t *testing.T) {
	front := sample.Front()
	png := read(t, "small.png")
	flipped := bytes.Clone(png)
	flipped[len(png)-30] ^= 1
	for _, c := range []struct {
		name string
		data string
		want string
	}{
		{"nothing", "", "is empty"},
		{"zeros", strings.Repeat("\x00", 4096), "begins with zeros"},
		{"text", "hello, world", "is of an unknown format, not JPEG, PNG or PDF"},
		{"heic", "\x00\x00\x00\x18ftypheic\x00\x00", "is HEIC"},
		{"avif", "\x00\x00\x00\x18ftypavif\x00\x00", "is AVIF"},
		{"gif", "GIF89a......", "is GIF"},
		{"webp", "RIFF\x10\x00\x00\x00WEBPVP8 ", "is WebP"},
		{"tiff", "II*\x00\x08\x00\x00\x00", "is TIFF"},
		{"bmp", "BM\x36\x00\x00\x00", "is BMP"},
		{"zip", "PK\x03\x04\x14\x00", "is a ZIP archive"},
		{"html", "<!DOCTYPE html>", "is HTML or XML"},
		{"jpeg of marks only", "\xff\xd8\xff\xd9", "before any image data"},
		{"jpeg scan without frame", "\xff\xd8\xff\xda\x00\x02\x00\xff\xd9", "comes before its frame header"},
		{"jpeg with a length of 1", "\xff\xd8\xff\xe0\x00\x01", "impossible length"},
		{"jpeg with a short frame", "\xff\xd8\xff\xc0\x00\x04\x00\x00", "frame header is too short"},
		{"jpeg without width", "\xff\xd8\xff\xc0\x00\x08\x08\x00\x01\x00\x00\x01", "no width"},
		{"jpeg twice", string(front[:len(front)-2]) + string(front), "a second image begins"},
		{"png checksum", string(flipped), "checksum of chunk IDAT is wrong"},
		{"png without header", string(png[:8]) + string(png[33:]), "header chunk is missing"},
		{"png without data", string(png[:33]) + string(png[len(png)-12:]), "before any image data"},
		{"png name", string(png[:33]) + "\x00\x00\x00\x00ID\x00T____", "impossible name"},
		{"pdf without startxref", "%PDF-1.4\nsome words\n%%EOF\n", "no startxref"},
		{"pdf pointing outside", "%PDF-1.4\nstartxref\n9999\n%%EOF\n", "points outside"},
		{"pdf pointing at words", "%PDF-1.4\nsome words\nstartxref\n12\n%%EOF\n", "does not point to a cross-reference"},
		{"pdf encrypted", string(read(t, "encrypted.pdf")), "is an encrypted PDF"},
	} {
		_, err := walk([]byte(c.data))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", c.name, err, c.want)
		}
	}
}

// An image of very many parts is walked for as long as one that is real, and
// not longer; real ones are far from the bound, small though their chunks are.
func TestParts(t *testing.T) {
	png, jpeg := read(t, "small.png"), read(t, "baseline.jpg")
	const n = 900_000
	chunk := func(size int) []byte {
		c := append(binary.BigEndian.AppendUint32(nil, uint32(size)), "teSt"...)
		c = append(c, make([]byte, size)...)
		return binary.BigEndian.AppendUint32(c, crc32.ChecksumIEEE(c[4:]))
	}
	cut := func(head, part, tail []byte, n int) []byte { return slices.Concat(head, bytes.Repeat(part, n), tail) }
	comment := []byte("\xff\xfe\x00\x02")
	for name, data := range map[string][]byte{
		"png": cut(png[:33], chunk(0), png[33:], n), "png without an end": cut(png[:33], chunk(0), nil, n),
		"jpeg": cut(jpeg[:2], comment, jpeg[2:], n), "jpeg without an end": cut(jpeg[:2], comment, nil, n),
		"jpeg of marks": cut(jpeg[:2], []byte("\xff\x01"), jpeg[2:], n),
	} {
		var unsupported *imagefile.Unsupported
		r := &counting{r: bytes.NewReader(data)}
		_, err := imagefile.Walk(r, int64(len(data)))
		if !errors.As(err, &unsupported) || !strings.Contains(err.Error(), "more parts than any camera") {
			t.Errorf("%s: %v", name, err)
		}
		if r.n > 1_000_000 {
			t.Errorf("%s: %d of %d bytes were read", name, r.n, len(data))
		}
	}
	for name, data := range map[string][]byte{
		"png": cut(png[:33], chunk(4096), png[33:], 50_000), "small png": cut(png[:33], chunk(10), png[33:], 9000),
		"jpeg": cut(jpeg[:2], comment, jpeg[2:], 9000),
	} {
		if _, err := walk(data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type counting struct {
	r io.ReaderAt
	n int
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.r.ReadAt(p, off)
	c.n += n
	return n, err
}

// What is skipped, previews and the like, is not read, and counts all the same.
func TestSkippedIsNotRead(t *testing.T) {
	jpeg := read(t, whole[0].file)
	segment := append([]byte("\xff\xe2\xff\xff"), make([]byte, 0xfffd)...)
	data := slices.Concat(jpeg[:2], bytes.Repeat(segment, 20), jpeg[2:])
	r := &counting{r: bytes.NewReader(data)}
	info, err := imagefile.Walk(r, int64(len(data)))
	if err != nil || info.End != int64(len(data)) {
		t.Errorf("%+v, %v", info, err)
	}
	if r.n > len(data)/2 {
		t.Errorf("%d of %d bytes were read", r.n, len(data))
	}
	cut := int64(len(data) - len(jpeg) - 10) // inside the last of them
	var truncated *imagefile.Truncated
	if _, err := imagefile.Walk(bytes.NewReader(data[:cut]), cut); !errors.As(err, &truncated) {
		t.Error(err)
	}
}

// Bytes behind the end are legal, however many they are; the beginning of an
// update is not.
func TestBytesBehindTheEnd(t *testing.T) {
	for _, w := range whole {
		data := read(t, w.file)
		for _, n := range []int{1, 9_000, pdfSteps - 3, pdfSteps, 300_000} {
			for _, tail := range [][]byte{bytes.Repeat([]byte("x"), n), make([]byte, n), bytes.Repeat([]byte("%%EOF\n"), n/6)} {
				long := append(bytes.Clone(data), tail...)
				if info, err := walk(long); err != nil || info.End != int64(len(data))-w.after {
					t.Errorf("%s with %d bytes behind it: %+v, %v", w.file, len(tail), info, err)
				}
			}
		}
		if w.format != imagefile.PDF {
			continue
		}
		update := append(bytes.Clone(data), "\n7 0 obj\n<< /Length 300000 >>\nstream\n"+strings.Repeat("x", 300_000)...)
		if _, err := walk(update); err == nil {
			t.Errorf("%s with an update that was cut off is taken for whole", w.file)
		}
	}
}

// pdfSteps is by how much the search for a PDF's end goes on.
const pdfSteps = 64 << 10

func TestPaddedSampleIsWhole(t *testing.T) {
	for _, size := range []int{100_000, 400_000, 5_000_000} {
		data := sample.Pad(sample.Front(), size, 7)
		info, err := walk(data)
		if err != nil || info.Width != 856 || len(data) < size || len(data) > size+100 {
			t.Errorf("padded to %d: %d bytes, %+v, %v", size, len(data), info, err)
		}
	}
}

// Whatever the bytes are, the walk ends, and what it calls whole stays whole
// with bytes behind it, but never when the last byte before its end is gone.
func FuzzWalk(f *testing.F) {
	for _, w := range whole {
		f.Add(read(f, w.file))
	}
	f.Add(read(f, "encrypted.pdf"))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := walk(data)
		if err != nil {
			return
		}
		if info.End < 4 || info.End > int64(len(data)) {
			t.Fatalf("end %d of %d bytes", info.End, len(data))
		}
		if info.Format == imagefile.PDF {
			return
		}
		if again, err := walk(append(bytes.Clone(data[:info.End]), "trailing"...)); err != nil || again != info {
			t.Fatalf("with bytes behind its end: %+v, %v; before: %+v", again, err, info)
		}
		if _, err := walk(data[:info.End-1]); err == nil {
			t.Fatal("whole without its last byte")
		}
	})
}

func BenchmarkWalkJPEG(b *testing.B) {
	data := sample.Pad(sample.Front(), 5_000_000, 1)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := walk(data); err != nil {
			b.Fatal(err)
		}
	}
}
