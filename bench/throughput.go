package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"idenfy-batch/internal/sandbox"
	"idenfy-batch/sidecar"
)

// refill brings done folders back to the inbox, without their results, and
// takes away the journal, which knows them.
func refill(root string) error {
	if err := errors.Join(os.RemoveAll(filepath.Join(root, "journal")), os.Remove(filepath.Join(root, "work", ".journal"))); err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(root, "done", "*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := errors.Join(os.Remove(filepath.Join(name, sidecar.Name)), os.Rename(name, filepath.Join(root, "inbox", filepath.Base(name)))); err != nil {
			return err
		}
	}
	return nil
}

const (
	inFlight  = 8
	imageSize = 400_000
)

// throughput: the daemon beside a bare loop that reads, encodes and posts the
// same files to the same server; then once against the sandbox, with every
// hash compared.
func (b *bench) throughput() error {
	n := b.pick(1000, 100)
	fmt.Printf("throughput: %d folders of three images of %d bytes, %d at once\n", n, imageSize, inFlight)
	root, err := b.spool("throughput")
	if err != nil {
		return err
	}
	if err := fill(root, n, imageSize, map[string][]byte{".ready": nil}); err != nil {
		return err
	}
	unix.Sync() // writing the samples back is nobody's time
	url, stop, err := serve(&sink{})
	if err != nil {
		return err
	}
	defer stop()
	var ratios, floors, daemons, costs []float64
	for range b.pick(3, 1) {
		floor, floorCPU, err := floor(root, url)
		if err != nil {
			return err
		}
		took, cpu, err := b.drain(root, url, n)
		if err != nil {
			return err
		}
		if err := refill(root); err != nil {
			return err
		}
		floors = append(floors, float64(n)/floor.Seconds())
		daemons = append(daemons, float64(n)/took.Seconds())
		ratios = append(ratios, floor.Seconds()/took.Seconds())
		costs = append(costs, floorCPU.Seconds()/cpu.Seconds())
	}
	fmt.Printf("  %-46s %8.1f folders/s\n  %-46s %8.1f folders/s\n  %-46s %8.2f (of %d pairs: %.2f)\n",
		"floor: read, encode, post", median(floors), "daemon, from its start to the last in done", median(daemons), "ratio daemon to floor", median(ratios), len(ratios), ratios)
	fmt.Printf("  %-46s %8.2f (of %d pairs: %.2f)\n", "the same of processor time, the server's with it", median(costs), len(costs), costs)
	return b.verified(root, n)
}

// drain has the daemon empty the inbox, and returns how long that took, and how
// much processor time of the daemon and of whoever serves it here.
func (b *bench) drain(root, url string, n int) (took, cpu time.Duration, err error) {
	own, begin := used(), time.Now()
	d, err := b.start(root, url, fmt.Sprintf("concurrency: %d", inFlight))
	if err != nil {
		return 0, 0, err
	}
	err = until("all in done", 10*time.Minute, func() bool { return d.count("done") == n })
	took = time.Since(begin)
	err = errors.Join(err, d.stop())
	its := d.cmd.ProcessState
	return took, used() - own + its.UserTime() + its.SystemTime(), err
}

// used is the processor time of this process so far (getrusage(2)).
func used() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // it can't fail for oneself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// floor posts all folders by a bare loop, and returns what drain does.
func floor(root, url string) (took, cpu time.Duration, err error) {
	dirs, err := filepath.Glob(filepath.Join(root, "inbox", "*"))
	if err != nil {
		return 0, 0, err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: inFlight, WriteBufferSize: 64 << 10}}
	defer client.CloseIdleConnections()
	var group errgroup.Group
	group.SetLimit(inFlight)
	own, begin := used(), time.Now()
	for _, dir := range dirs {
		group.Go(func() error { return post(client, url, dir) })
	}
	err = group.Wait() // before the clock is read: the last are still on their way
	return time.Since(begin), used() - own, err
}

func post(client *http.Client, url, dir string) error {
	var parts []io.Reader
	var length int64
	text := func(s string) { parts, length = append(parts, strings.NewReader(s)), length+int64(len(s)) }
	for i, name := range []string{"FRONT", "BACK", "FACE"} {
		text([]string{`{"authToken":"` + token(0) + `","images":{"`, `","`, `","`}[i] + name + `":"`)
		data, err := os.ReadFile(filepath.Join(dir, name+".jpg"))
		if err != nil {
			return err
		}
		text(base64.StdEncoding.EncodeToString(data))
	}
	text(`"}}`)
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, io.MultiReader(parts...))
	if err != nil {
		return err
	}
	req.ContentLength = length
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// verified drains once more, against the sandbox.
func (b *bench) verified(root string, n int) error {
	s := sandbox.New(sandbox.Options{Key: "key", Secret: "secret"})
	url, stop, err := s.Start()
	if err != nil {
		return err
	}
	defer stop()
	took, _, err := b.drain(root, url, n)
	if err != nil {
		return err
	}
	r := s.Report()
	if r.Processed != n || r.Requests != n || len(r.Violations) > 0 {
		return fmt.Errorf("the sandbox saw %+v", r)
	}
	hashes := 0
	for i := range n {
		dir, err := os.OpenRoot(filepath.Join(root, "done", fmt.Sprintf("case%05d", i)))
		if err != nil {
			return err
		}
		res, err := sidecar.Read(dir)
		if err != nil {
			return err
		}
		for _, img := range res.Request.Images {
			data, err := dir.ReadFile(img.File)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(data)
			if img.SHA256 != hex.EncodeToString(sum[:]) || s.Token(token(i)).Sums[img.Step] != img.SHA256 {
				return fmt.Errorf("%s of %s: the hash in the result is not that of the file, or of what arrived", img.Step, res.Folder)
			}
			hashes++
		}
		if err := dir.Close(); err != nil {
			return err
		}
	}
	fmt.Printf("  against the sandbox: %d of %d in done in %s, none twice, %d hashes equal to the files' and to what arrived\n", n, n, took.Round(time.Millisecond), hashes)
	return nil
}
