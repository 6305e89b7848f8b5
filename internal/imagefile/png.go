package imagefile

import (
	"encoding/binary"
	"hash/crc32"
	"io"
)

// png walks the chunks from IHDR to IEND and checks each one's CRC (PNG
// specification, third edition, section 5).
func (w *walker) png() (Info, error) {
	w.inside = "inside its head"
	if err := w.skip(8); err != nil { // the signature, seen by sniff
		return Info{}, err
	}
	var info Info
	data := false
	for first := true; ; first = false {
		var head [8]byte
		if err := w.part(); err != nil {
			return Info{}, err
		}
		if err := w.full(head[:]); err != nil {
			return Info{}, err
		}
		length, kind := binary.BigEndian.Uint32(head[:4]), string(head[4:])
		if length > 1<<31-1 {
			return Info{}, w.damaged("a chunk has an impossible length")
		}
		for _, c := range head[4:] {
			if c|0x20 < 'a' || c|0x20 > 'z' {
				return Info{}, w.damaged("a chunk has an impossible name")
			}
		}
		if first != (kind == "IHDR") || first && length != 13 {
			return Info{}, w.damaged("the header chunk is missing, or not the first")
		}
		w.inside = "inside its chunk " + kind
		crc := crc32.NewIEEE()
		crc.Write(head[4:])
		if first {
			if err := w.header(crc, &info); err != nil {
				return Info{}, err
			}
		} else {
			n, err := io.CopyN(crc, w.r, int64(length))
			w.at += n
			if err != nil {
				return Info{}, err
			}
		}
		var sum [4]byte
		if err := w.full(sum[:]); err != nil {
			return Info{}, err
		}
		if binary.BigEndian.Uint32(sum[:]) != crc.Sum32() {
			return Info{}, w.damaged("the checksum of chunk %s is wrong", kind)
		}
		switch kind {
		case "IDAT":
			data = true
		case "IEND":
			if !data {
				return Info{}, w.damaged("the end mark comes before any image data")
			}
			return info, nil
		}
	}
}

// header reads the size from the header chunk.
func (w *walker) header(crc io.Writer, info *Info) error {
	var h [13]byte
	if err := w.full(h[:]); err != nil {
		return err
	}
	if _, err := crc.Write(h[:]); err != nil {
		return err
	}
	width, height := binary.BigEndian.Uint32(h[:4]), binary.BigEndian.Uint32(h[4:8])
	if width == 0 || height == 0 || width > 1<<31-1 || height > 1<<31-1 {
		return w.damaged("the image has impossible dimensions")
	}
	info.Width, info.Height = int(width), int(height)
	return nil
}
