package imagefile

import "bytes"

// JPEG markers (ITU-T T.81, table B.1).
const (
	markSOF0 = 0xC0
	markDHT  = 0xC4
	markJPG  = 0xC8
	markDAC  = 0xCC
	markSF15 = 0xCF
	markRST0 = 0xD0
	markRST7 = 0xD7
	markSOI  = 0xD8
	markEOI  = 0xD9
	markSOS  = 0xDA
	markTEM  = 0x01
)

// jpeg walks from SOI to the EOI of the main image. Thumbnails lie inside
// segments, whose length is skipped, so their end marks don't count; a
// progressive image has several scans.
func (w *walker) jpeg() (Info, error) {
	w.inside = "inside its head"
	if err := w.skip(2); err != nil { // SOI, seen by sniff
		return Info{}, err
	}
	var info Info
	frame, scan := false, false
	mark, err := w.marker()
	for {
		if err == nil {
			err = w.part()
		}
		if err != nil {
			return Info{}, err
		}
		switch {
		case mark == markEOI:
			if !scan {
				return Info{}, w.damaged("the end mark comes before any image data")
			}
			return info, nil
		case mark == markSOI:
			return Info{}, w.damaged("a second image begins inside the first")
		case mark == markTEM || mark >= markRST0 && mark <= markRST7:
			mark, err = w.marker() // stands alone
			continue
		}
		var length [2]byte
		if err := w.full(length[:]); err != nil {
			return Info{}, err
		}
		n := int(length[0])<<8 | int(length[1]) - 2
		if n < 0 {
			return Info{}, w.damaged("a segment has an impossible length")
		}
		if isFrame(mark) && !frame {
			frame = true
			if n, err = w.frame(n, &info); err != nil {
				return Info{}, err
			}
		}
		if err := w.skip(n); err != nil {
			return Info{}, err
		}
		if mark != markSOS {
			mark, err = w.marker()
			continue
		}
		if !frame {
			return Info{}, w.damaged("image data comes before its frame header")
		}
		scan = true
		w.inside = "inside its image data"
		mark, err = w.scan()
	}
}

// frame reads the size from a frame header of n bytes, and returns how many of
// them are left.
func (w *walker) frame(n int, info *Info) (left int, err error) {
	if n < 6 {
		return 0, w.damaged("the frame header is too short")
	}
	var h [5]byte
	if err := w.full(h[:]); err != nil {
		return 0, err
	}
	info.Height, info.Width = int(h[1])<<8|int(h[2]), int(h[3])<<8|int(h[4])
	if info.Width == 0 {
		return 0, w.damaged("the image has no width")
	}
	return n - len(h), nil
}

// isFrame tells SOF0 to SOF15, which DHT, JPG and DAC lie among.
func isFrame(mark byte) bool {
	return mark >= markSOF0 && mark <= markSF15 && mark != markDHT && mark != markJPG && mark != markDAC
}

// marker returns the next marker: any number of 0xFF and one byte more. Other
// bytes between segments are passed over, as decoders do.
func (w *walker) marker() (byte, error) {
	for {
		b, err := w.byte()
		for err == nil && b != 0xFF {
			b, err = w.byte()
		}
		for err == nil && b == 0xFF {
			b, err = w.byte()
		}
		if err != nil {
			return 0, err
		}
		if b != 0 {
			return b, nil
		}
	}
}

// scan passes over entropy-coded data to the marker that ends it. 0xFF00 is a
// data byte, and RSTn stand inside the data (T.81, B.1.1.5 and E.1.4).
func (w *walker) scan() (byte, error) {
	for {
		// Whole buffers at once: nearly all bytes are data.
		for {
			if _, err := w.r.Peek(1); err != nil {
				return 0, err
			}
			buf, err := w.r.Peek(w.r.Buffered())
			if err != nil {
				return 0, err
			}
			i := bytes.IndexByte(buf, 0xFF)
			if i >= 0 {
				if err := w.skip(i); err != nil {
					return 0, err
				}
				break
			}
			if err := w.skip(len(buf)); err != nil {
				return 0, err
			}
		}
		b, err := w.byte()
		for err == nil && b == 0xFF {
			b, err = w.byte()
		}
		if err != nil {
			return 0, err
		}
		if b != 0 && (b < markRST0 || b > markRST7) {
			return b, nil
		}
	}
}
