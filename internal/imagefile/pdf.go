package imagefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
)

// pdfTail is how much of a PDF's end is searched for its end mark, in bytes.
// Readers look at the last 1024 (ISO 32000-1, annex H, note 18); the rest is
// room for what mail and web servers append.
const pdfTail = 8 << 10

var (
	pdfStart  = regexp.MustCompile(`startxref[\x00\t\n\f\r ]+([0-9]{1,12})[\x00\t\n\f\r ]+$`)
	pdfLinear = regexp.MustCompile(`/Linearized\b[^>]*?/L[\x00\t\n\f\r ]+([0-9]{1,12})|/L[\x00\t\n\f\r ]+([0-9]{1,12})[^>]*?/Linearized\b`)
	pdfObject = regexp.MustCompile(`\b[0-9]+[\x00\t\n\f\r ]+[0-9]+[\x00\t\n\f\r ]+obj\b`)
)

// walkPDF finds the last %%EOF, and follows the startxref before it to the
// cross-reference section (ISO 32000-1, 7.5.5). A PDF may hold end marks
// before its end: that of the first page in a linearized file, and those of
// earlier revisions. So what follows the last one may not be objects, and a
// linearized file has to be as long as its head says.
func walkPDF(r io.ReaderAt, size int64, head []byte) (Info, error) {
	truncated := func(why string) error {
		return &Truncated{fmt.Sprintf("is truncated: it ends after %d bytes, %s", size, why)}
	}
	if m := pdfLinear.FindSubmatch(head); m != nil {
		length, err := strconv.ParseInt(string(append(m[1], m[2]...)), 10, 64)
		if err == nil && size < length {
			return Info{}, truncated(fmt.Sprintf("of the %d that its head promises", length))
		}
	}
	from := max(0, size-pdfTail)
	tail := make([]byte, size-from)
	if _, err := r.ReadAt(tail, from); err != nil && !errors.Is(err, io.EOF) {
		return Info{}, err
	}
	end := bytes.LastIndex(tail, []byte("%%EOF"))
	if end < 0 {
		return Info{}, truncated("before its end mark %%EOF")
	}
	// An update begins with the number of an object.
	rest := bytes.TrimLeft(tail[end+len("%%EOF"):], "\x00\t\n\f\r ")
	if pdfObject.Match(rest) || len(rest) > 0 && rest[0] >= '0' && rest[0] <= '9' {
		return Info{}, truncated("inside an update that follows an earlier end mark")
	}
	m := pdfStart.FindSubmatch(tail[:end])
	if m == nil {
		return Info{}, &Damaged{"is damaged: no startxref stands before its end mark"}
	}
	xref, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil || xref >= from+int64(end) {
		return Info{}, &Damaged{"is damaged: its startxref points outside the file"}
	}
	if xref == 0 {
		return Info{}, truncated("after the end mark of its first page")
	}
	section := make([]byte, min(64<<10, from+int64(end)-xref))
	if _, err := r.ReadAt(section, xref); err != nil && !errors.Is(err, io.EOF) {
		return Info{}, err
	}
	table := bytes.HasPrefix(bytes.TrimLeft(section, "\x00\t\n\f\r "), []byte("xref"))
	object := pdfObject.FindIndex(section)
	if !table && (object == nil || len(bytes.TrimLeft(section[:object[0]], "\x00\t\n\f\r ")) != 0) {
		return Info{}, &Damaged{"is damaged: its startxref does not point to a cross-reference section"}
	}
	if encrypted(section, tail[:end], table) {
		return Info{}, &Unsupported{"is an encrypted PDF, which iDenfy does not take; save it without a password"}
	}
	return Info{Format: PDF, End: from + int64(end) + int64(len("%%EOF"))}, nil
}

// encrypted looks for /Encrypt in the trailer dictionary: behind the word
// trailer, or in the dictionary of the cross-reference stream.
func encrypted(section, tail []byte, table bool) bool {
	dict := section
	if table {
		i := bytes.LastIndex(tail, []byte("trailer"))
		if i < 0 {
			return false
		}
		dict = tail[i:]
	} else if before, _, ok := bytes.Cut(section, []byte("stream")); ok {
		dict = before
	}
	return bytes.Contains(dict, []byte("/Encrypt"))
}
