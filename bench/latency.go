package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"idenfy-batch/internal/sample"
)

// latency: from the last write of a proven folder to the start of its request.
func (b *bench) latency() error {
	n := b.pick(200, 20)
	fmt.Printf("latency: %d folders with hashes or a marker, settle 5s\n", n)
	root, err := b.spool("latency")
	if err != nil {
		return err
	}
	began := make(chan time.Time, 1)
	url, stop, err := serve(&sink{before: func() { began <- time.Now() }})
	if err != nil {
		return err
	}
	defer stop()
	d, err := b.start(root, url, "completeness: {settle: 5s}")
	if err != nil {
		return err
	}
	files, hashes := proven()
	time.Sleep(time.Second) // the daemon has started
	var took []float64
	for i := range n {
		dir := filepath.Join(root, "inbox", fmt.Sprintf("case%05d", i))
		meta := sample.Meta(token(i), "LT", "ID_CARD")
		if i%2 == 0 { // by hashes: an image is the last
			face := files["FACE.jpg"]
			err = sample.Write(dir, map[string][]byte{"FRONT.jpg": files["FRONT.jpg"], "BACK.jpg": files["BACK.jpg"], "FACE.jpg": face[:len(face)/2], "meta.yaml": []byte(meta + hashes)})
			if err == nil {
				time.Sleep(30 * time.Millisecond)
				err = os.WriteFile(filepath.Join(dir, "FACE.jpg"), face, 0o600)
			}
		} else { // by the marker
			err = sample.Write(dir, map[string][]byte{"FRONT.jpg": files["FRONT.jpg"], "BACK.jpg": files["BACK.jpg"], "FACE.jpg": files["FACE.jpg"], "meta.yaml": []byte(meta)})
			if err == nil {
				time.Sleep(30 * time.Millisecond)
				err = os.WriteFile(filepath.Join(dir, ".ready"), nil, 0o600)
			}
		}
		last := time.Now()
		if err != nil {
			return errors.Join(err, d.stop())
		}
		select {
		case at := <-began:
			took = append(took, at.Sub(last).Seconds()*1000)
		case <-time.After(30 * time.Second):
			return errors.Join(errors.New("no request came"), d.stop())
		}
	}
	slices.Sort(took)
	fmt.Printf("  %-46s %8.1f ms median, %.1f ms 95th percentile, %.1f ms most\n", "last write to start of the request", median(took), took[len(took)*95/100], took[len(took)-1])
	return d.stop()
}

// proven returns three images, and the lines of a meta.yaml that prove them.
func proven() (files map[string][]byte, hashes string) {
	files, hashes = map[string][]byte{}, "sha256:\n"
	for i, step := range []string{"FRONT", "BACK", "FACE"} {
		data := sample.Pad([][]byte{sample.Front(), sample.Back(), sample.Face()}[i], imageSize, uint64(i))
		sum := sha256.Sum256(data)
		files[step+".jpg"] = data
		hashes += "  " + step + ": " + hex.EncodeToString(sum[:]) + "\n"
	}
	return files, hashes
}
