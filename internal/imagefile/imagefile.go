// Package imagefile owns the question whether an image file is whole: the
// structure of a JPEG, PNG or PDF is walked to its end, without decoding it.
//
// An upload that was cut off is a prefix of the file; no proper prefix of a
// whole file that ends before its end mark passes the walk. Pixels are not
// looked at: whether a person can be recognised is for the API to say.
package imagefile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Format is a file format that the API takes.
type Format string

// The formats.
const (
	JPEG Format = "jpeg"
	PNG  Format = "png"
	PDF  Format = "pdf"
)

// Info is what the walk found.
type Info struct {
	Format Format
	Width  int   // pixels, from the header; 0 for a PDF
	Height int   // pixels, from the header; 0 for a PDF
	End    int64 // offset behind the end mark; bytes after it are legal
}

// Truncated says that the file ends before its structure does. More of it may
// still be coming.
type Truncated struct{ What string }

func (e *Truncated) Error() string { return e.What }

// Damaged says that the structure is broken at a place where all bytes are
// there. It may still be being written, out of order.
type Damaged struct{ What string }

func (e *Damaged) Error() string { return e.What }

// Unsupported says that the content is of another kind, which no further
// byte will change.
type Unsupported struct{ What string }

func (e *Unsupported) Error() string { return e.What }

// What is skipped is not read, but for what a buffer holds already, so it is a
// small one.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 16<<10) }}

// Walk reads the image in r, of size bytes, from its head to its end. The
// error is a *Truncated, *Damaged or *Unsupported, or one of reading. Memory is
// bounded whatever is in the file; time is proportional to size: an image has a bounded number of parts.
func Walk(r io.ReaderAt, size int64) (Info, error) {
	head := make([]byte, min(size, 1024))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return Info{}, err
	}
	if len(head) == 0 {
		return Info{}, &Truncated{"is empty"}
	}
	format, err := sniff(head)
	if err != nil {
		return Info{}, err
	}
	if format == PDF {
		return walkPDF(r, size, head)
	}
	buf, _ := readers.Get().(*bufio.Reader)
	file := io.NewSectionReader(r, 0, size)
	buf.Reset(file)
	defer func() { buf.Reset(nil); readers.Put(buf) }()
	w := &walker{r: buf, file: file, parts: mostParts + size/partSize}
	var info Info
	if format == JPEG {
		info, err = w.jpeg()
	} else {
		info, err = w.png()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = &Truncated{fmt.Sprintf("is truncated: it ends after %d bytes, %s", size, w.inside)}
	}
	if err != nil {
		return Info{}, err
	}
	info.Format, info.End = format, w.at
	return info, nil
}

var magics = []struct {
	magic  string
	format Format
}{
	{"\xff\xd8\xff", JPEG},
	{"\x89PNG\r\n\x1a\n", PNG},
	{"%PDF-", PDF},
}

// sniff tells the format by the first bytes. A head that could still become
// one of the formats is Truncated.
func sniff(head []byte) (Format, error) {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.format, nil
		}
	}
	for _, m := range magics {
		if len(head) < len(m.magic) && bytes.HasPrefix([]byte(m.magic), head) {
			return "", &Truncated{fmt.Sprintf("is truncated: only %d bytes are there", len(head))}
		}
	}
	if len(bytes.Trim(head, "\x00")) == 0 {
		return "", &Truncated{"begins with zeros: its content is not written yet"}
	}
	return "", &Unsupported{"is " + name(head) + ", not JPEG, PNG or PDF; convert it"}
}

// name guesses what a file is that iDenfy doesn't take.
func name(head []byte) string {
	at := func(off int, magics ...string) bool {
		for _, m := range magics {
			if len(head) > off && bytes.HasPrefix(head[off:], []byte(m)) {
				return true
			}
		}
		return false
	}
	switch {
	case at(4, "ftypheic", "ftypheix", "ftypmif1", "ftypheim", "ftyphevc"):
		return "HEIC (a phone's format)"
	case at(4, "ftypavif"):
		return "AVIF"
	case at(0, "GIF8"):
		return "GIF"
	case at(0, "RIFF") && at(8, "WEBP"):
		return "WebP"
	case at(0, "II*\x00", "MM\x00*"):
		return "TIFF"
	case at(0, "BM"):
		return "BMP"
	case at(0, "PK\x03\x04"):
		return "a ZIP archive"
	case at(0, "<"):
		return "HTML or XML"
	default:
		return "of an unknown format"
	}
}

// Bounds of the parts of an image, chunks of a PNG and segments of a JPEG: each
// costs as much to walk as thousands of bytes of one. A program that makes small
// ones makes them of 4 KiB and more; an image of a camera has some hundreds.
const (
	mostParts = 10_000
	partSize  = 1 << 10 // and one more for each of these
)

type walker struct {
	parts  int64 // that may still come
	r      *bufio.Reader
	file   *io.SectionReader // below r
	at     int64             // offset of the next byte
	inside string            // where in the structure, for messages
}

func (w *walker) byte() (byte, error) {
	b, err := w.r.ReadByte()
	if err == nil {
		w.at++
	}
	return b, err
}

func (w *walker) full(p []byte) error {
	n, err := io.ReadFull(w.r, p)
	w.at += int64(n)
	return err
}

func (w *walker) skip(n int) error {
	if to := w.at + int64(n); n > w.r.Buffered() && to <= w.file.Size() {
		w.at = to
		_, err := w.file.Seek(to, io.SeekStart)
		w.r.Reset(w.file)
		return err
	}
	done, err := w.r.Discard(n)
	w.at += int64(done)
	return err
}

// part counts one more.
func (w *walker) part() error {
	if w.parts--; w.parts < 0 {
		return &Unsupported{"is cut into far more parts than any camera or scanner makes; convert it"}
	}
	return nil
}

func (w *walker) damaged(format string, args ...any) error {
	return &Damaged{"is damaged: " + fmt.Sprintf(format, args...) + fmt.Sprintf(" at byte %d", w.at)}
}
