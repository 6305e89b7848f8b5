package imagefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
)

// Steps of the search for a PDF's end, in bytes. Readers look at the last 1024
// only (ISO 32000-1, annex H, note 18), but mail gateways and signing programs
// append more than that.
const (
	pdfStep    = 64 << 10
	pdfOverlap = 1 << 10 // no pattern that is searched for is longer, in files as programs write them
	pdfTrailer = 8 << 10 // how far before its startxref a trailer may begin
)

var (
	pdfEnd    = regexp.MustCompile(`startxref[\x00\t\n\f\r ]+([0-9]{1,12})[\x00\t\n\f\r ]+%%EOF`)
	pdfLinear = regexp.MustCompile(`/Linearized\b[^>]*?/L[\x00\t\n\f\r ]+([0-9]{1,12})|/L[\x00\t\n\f\r ]+([0-9]{1,12})[^>]*?/Linearized\b`)
	pdfObject = regexp.MustCompile(`\b[0-9]+[\x00\t\n\f\r ]+[0-9]+[\x00\t\n\f\r ]+obj\b`)
)

// walkPDF finds the last startxref with its %%EOF, and follows it to the
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
	last, err := findPDFEnd(r, size)
	switch {
	case err != nil:
		return Info{}, err
	case last.end == 0 && last.mark:
		return Info{}, &Damaged{"is damaged: no startxref stands before its end mark"}
	case last.end == 0:
		return Info{}, truncated("before its end mark %%EOF")
	case last.update:
		return Info{}, truncated("inside an update that follows an earlier end mark")
	}
	xref := last.xref
	if xref >= last.start {
		return Info{}, &Damaged{"is damaged: its startxref points outside the file"}
	}
	if xref == 0 {
		return Info{}, truncated("after the end mark of its first page")
	}
	section := make([]byte, min(64<<10, last.end-xref))
	if _, err := r.ReadAt(section, xref); err != nil && !errors.Is(err, io.EOF) {
		return Info{}, err
	}
	trailer := make([]byte, min(pdfTrailer, last.start))
	if _, err := r.ReadAt(trailer, last.start-int64(len(trailer))); err != nil && !errors.Is(err, io.EOF) {
		return Info{}, err
	}
	table := bytes.HasPrefix(bytes.TrimLeft(section, "\x00\t\n\f\r "), []byte("xref"))
	object := pdfObject.FindIndex(section)
	if !table && (object == nil || len(bytes.TrimLeft(section[:object[0]], "\x00\t\n\f\r ")) != 0) {
		return Info{}, &Damaged{"is damaged: its startxref does not point to a cross-reference section"}
	}
	if encrypted(section, trailer, table) {
		return Info{}, &Unsupported{"is an encrypted PDF, which iDenfy does not take; save it without a password"}
	}
	return Info{Format: PDF, End: last.end}, nil
}

// pdfLast is what the end of a PDF looks like.
type pdfLast struct {
	start  int64 // offset of the last startxref that has an end mark
	end    int64 // offset behind that mark; 0: there is none
	xref   int64 // what startxref says
	update bool  // more of the document follows
	mark   bool  // there is an end mark, of whatever
}

// findPDFEnd searches backwards, as far as need be.
func findPDFEnd(r io.ReaderAt, size int64) (last pdfLast, err error) {
	buf := make([]byte, min(size, pdfStep+pdfOverlap))
	for to := size; to > 0 && last.end == 0; {
		from := max(0, to-int64(len(buf)))
		window := buf[:to-from]
		if _, err := r.ReadAt(window, from); err != nil && !errors.Is(err, io.EOF) {
			return last, err
		}
		rest := window
		if all := pdfEnd.FindAllSubmatchIndex(window, -1); len(all) > 0 {
			m := all[len(all)-1]
			last.start, last.end = from+int64(m[0]), from+int64(m[1])
			last.xref, _ = strconv.ParseInt(string(window[m[2]:m[3]]), 10, 64) // 12 digits at most
			rest = window[m[1]:]
			// An update begins with the number of an object.
			if next := bytes.TrimLeft(rest, "\x00\t\n\f\r "); len(next) > 0 && next[0] >= '0' && next[0] <= '9' {
				last.update = true
			}
		}
		last.update = last.update || bytes.Contains(rest, []byte("obj")) && pdfObject.Match(rest)
		last.mark = last.mark || bytes.Contains(window, []byte("%%EOF"))
		if from == 0 {
			break
		}
		to = from + pdfOverlap
	}
	return last, nil
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
