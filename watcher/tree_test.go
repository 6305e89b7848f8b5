package watcher_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A copy with holes in the place of zeros, as rsync -S makes it, of an image
// with zeros behind its end.
func TestSparseCopy(t *testing.T) {
	bubble(t, nil, func(in *inbox) {
		in.fill("case")
		at := filepath.Join(in.dir, "case", "FRONT.jpg")
		if err := os.Truncate(at, 1<<20); err != nil {
			t.Fatal(err)
		}
		in.want("whole, with a hole behind its end", in.after(time.Minute), "case")
		in.fill("part")
		at = filepath.Join(in.dir, "part", "FRONT.jpg")
		hole := bytes.Clone(front)
		f, err := os.Create(at)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, part := range [][2]int{{0, 8 << 10}, {24 << 10, len(hole)}} {
			if _, err := f.WriteAt(hole[part[0]:part[1]], int64(part[0])); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		in.want("a hole in the image", in.after(time.Minute))
	})
}
