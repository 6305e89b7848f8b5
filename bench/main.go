// Command bench measures idenfy-batch as a whole program: throughput beside
// the floor in the same run, memory, the time from the last write of a proven
// folder to its request, and what an idle daemon costs.
//
//	go run ./bench          everything, some minutes
//	go run ./bench -quick   smaller numbers, to see that it works
//	go run ./bench -run throughput,memory
//
// Correctness and memory are held against their limits and decide the exit
// code; times are printed only, because they depend on the machine.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/sidecar"
)

func main() {
	quick := flag.Bool("quick", false, "smaller numbers")
	only := flag.String("run", "throughput,syncs,memory,waiting,latency,idle", "what to measure")
	flag.Parse()
	b := &bench{quick: *quick}
	if err := b.run(strings.Split(*only, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	quick bool
	dir   string
	bin   string
}

func (b *bench) pick(full, quick int) int {
	if b.quick {
		return quick
	}
	return full
}

func (b *bench) run(parts []string) (err error) {
	if b.dir, err = os.MkdirTemp("", "idenfy-batch-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.bin, err = b.build("idenfy-batch"); err != nil {
		return err
	}
	measures := map[string]func() error{
		"throughput": b.throughput, "syncs": b.syncs, "memory": b.memory, "waiting": b.waiting, "latency": b.latency, "idle": b.idle,
	}
	for _, part := range parts {
		measure, ok := measures[part]
		if !ok {
			return fmt.Errorf("unknown measurement %q", part)
		}
		if err := measure(); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	return nil
}

// build builds the program.
func (b *bench) build(name string, args ...string) (string, error) {
	path := filepath.Join(b.dir, name)
	build := exec.Command("go", slices.Concat([]string{"build", "-o", path}, args, []string{"./cmd/idenfy-batch"})...)
	build.Stderr = os.Stderr
	return path, build.Run()
}

// daemon is the program at work on a spool.
type daemon struct {
	root string
	cmd  *exec.Cmd
}

// spool makes a fresh root.
func (b *bench) spool(name string) (string, error) {
	root := filepath.Join(b.dir, name)
	return root, os.MkdirAll(filepath.Join(root, "inbox"), 0o770)
}

func (b *bench) start(root, url, more string) (*daemon, error) {
	config := root + ".yaml"
	text := fmt.Sprintf("root: %s\napi: {base_url: '%s'}\nrate: {per_hour: 0}\nlog: {level: error}\n%s\n", root, url, more)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	d := &daemon{root: root, cmd: exec.Command(b.bin, "run", "--config", config)}
	d.cmd.Env = append(os.Environ(), "IDENFY_API_KEY=key", "IDENFY_API_SECRET=secret")
	d.cmd.Stderr = os.Stderr
	return d, d.cmd.Start()
}

func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
		return err
	}
	return d.cmd.Wait()
}

// count returns how many folders are in a place.
func (d *daemon) count(place string) int {
	f, err := os.Open(filepath.Join(d.root, place))
	if err != nil {
		return 0
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return 0
	}
	return len(names)
}

// until waits for a condition that has to come true.
func until(what string, most time.Duration, cond func() bool) error {
	for end := time.Now().Add(most); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("not within %s: %s", most, what)
		}
	}
	return nil
}

// peak returns the highest resident memory so far, in MiB (proc(5), VmHWM).
func (d *daemon) peak() (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(data)
	if m == nil {
		return 0, errors.New("no VmHWM in /proc")
	}
	kib, err := strconv.ParseFloat(string(m[1]), 64)
	return kib / 1024, err
}

// cpu returns the processor time used so far (proc(5), utime and stime in
// hundredths of a second).
func (d *daemon) cpu() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// share measures the part of one core that is used over a time.
func (d *daemon) share(over time.Duration) (float64, error) {
	before, err := d.cpu()
	if err != nil {
		return 0, err
	}
	time.Sleep(over)
	after, err := d.cpu()
	return 100 * float64(after-before) / float64(over), err
}

func within(what string, got, limit float64, unit string) error {
	verdict := "within"
	var err error
	if got > limit {
		verdict = "OVER"
		err = fmt.Errorf("%s: %.1f %s is over the limit of %.0f %s", what, got, unit, limit, unit)
	}
	fmt.Printf("  %-46s %8.1f %s, %s the limit of %.0f %s\n", what, got, unit, verdict, limit, unit)
	return err
}

// sink is the cheapest server there is: it reads a request and says yes.
// before is called when the head of a request is there, after when all of it
// is.
type sink struct {
	before, after func()
}

func (s *sink) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	if s.before != nil {
		s.before()
	}
	_, _ = io.Copy(io.Discard, r.Body) // a client that left is seen by the count
	if s.after != nil {
		s.after()
	}
}

// serve serves h on a free port of loopback.
func serve(h http.Handler) (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // ends when it is closed
	}()
	return "http://" + l.Addr().String(), func() { _ = srv.Close(); <-done }, nil
}

func token(n int) string { return fmt.Sprintf("BENCH%020d", n) }

// fill makes n folders of three images of size bytes each, of eight kinds.
func fill(root string, n, size int, more map[string][]byte) error {
	front, back, face := sample.Front(), sample.Back(), sample.Face()
	var kinds [8]map[string][]byte
	for k := range kinds {
		kinds[k] = map[string][]byte{}
		for i, data := range [][]byte{front, back, face} {
			kinds[k][[]string{"FRONT.jpg", "BACK.jpg", "FACE.jpg"}[i]] = sample.Pad(data, size, uint64(3*k+i))
		}
		maps.Copy(kinds[k], more)
	}
	for i := range n {
		files := kinds[i%len(kinds)]
		files["meta.yaml"] = []byte(sample.Meta(token(i), "LT", "ID_CARD"))
		if err := sample.Write(filepath.Join(root, "inbox", fmt.Sprintf("case%05d", i)), files); err != nil {
			return err
		}
	}
	return nil
}

// refill brings done folders back to the inbox, without their results.
func refill(root string) error {
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
	var ratios, floors, daemons []float64
	for range b.pick(3, 1) {
		floor, err := floor(root, url)
		if err != nil {
			return err
		}
		took, err := b.drain(root, url, n)
		if err != nil {
			return err
		}
		if err := refill(root); err != nil {
			return err
		}
		floors = append(floors, float64(n)/floor.Seconds())
		daemons = append(daemons, float64(n)/took.Seconds())
		ratios = append(ratios, floor.Seconds()/took.Seconds())
	}
	fmt.Printf("  %-46s %8.1f folders/s\n  %-46s %8.1f folders/s\n  %-46s %8.2f (of %d pairs: %.2f)\n",
		"floor: read, encode, post", median(floors), "daemon, from its start to the last in done", median(daemons), "ratio daemon to floor", median(ratios), len(ratios), ratios)
	return b.verified(root, n)
}

// syncs: the daemon beside itself with every sync left out. Once with uploads
// that are on the disk already, as after settle on a quiet machine, and once
// with uploads that are in memory only.
func (b *bench) syncs() error {
	n := b.pick(1000, 100)
	faulty, err := b.build("idenfy-batch-faults", "-tags", "faults")
	if err != nil {
		return err
	}
	url, stop, err := serve(&sink{})
	if err != nil {
		return err
	}
	defer stop()
	usual := b.bin
	defer func() { b.bin = usual }()
	b.bin = faulty
	for _, onDisk := range []bool{true, false} {
		kind := map[bool]string{true: "on the disk already", false: "in memory only"}[onDisk]
		fmt.Printf("syncs: %d folders of three images of %d bytes, %d at once, uploads %s\n", n, imageSize, inFlight, kind)
		var ratios []float64
		rates := map[string][]float64{}
		for pair := range b.pick(3, 1) {
			took := map[string]time.Duration{}
			for _, faults := range []string{"nosync", ""} {
				root, err := b.spool(fmt.Sprintf("syncs-%v-%d-%s", onDisk, pair, faults))
				if err != nil {
					return err
				}
				unix.Sync() // what ran before is nobody's time
				if err := fill(root, n, imageSize, map[string][]byte{".ready": nil}); err != nil {
					return err
				}
				if onDisk {
					unix.Sync()
				}
				if err := os.Setenv("IDENFY_BATCH_FAULTS", faults); err != nil {
					return err
				}
				if took[faults], err = b.drain(root, url, n); err != nil {
					return err
				}
				rates[faults] = append(rates[faults], float64(n)/took[faults].Seconds())
				if err := os.RemoveAll(root); err != nil {
					return err
				}
			}
			ratios = append(ratios, took["nosync"].Seconds()/took[""].Seconds())
		}
		fmt.Printf("  %-46s %8.1f folders/s\n  %-46s %8.1f folders/s\n  %-46s %8.2f (of %d pairs: %.2f)\n",
			"without syncs", median(rates["nosync"]), "as it is", median(rates[""]), "ratio", median(ratios), len(ratios), ratios)
	}
	return os.Unsetenv("IDENFY_BATCH_FAULTS")
}

// drain has the daemon empty the inbox, and returns how long that took.
func (b *bench) drain(root, url string, n int) (time.Duration, error) {
	begin := time.Now()
	d, err := b.start(root, url, fmt.Sprintf("concurrency: %d", inFlight))
	if err != nil {
		return 0, err
	}
	err = until("all in done", 10*time.Minute, func() bool { return d.count("done") == n })
	took := time.Since(begin)
	return took, errors.Join(err, d.stop())
}

// floor posts all folders by a bare loop.
func floor(root, url string) (time.Duration, error) {
	dirs, err := filepath.Glob(filepath.Join(root, "inbox", "*"))
	if err != nil {
		return 0, err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: inFlight, WriteBufferSize: 64 << 10}}
	defer client.CloseIdleConnections()
	var group errgroup.Group
	group.SetLimit(inFlight)
	begin := time.Now()
	for _, dir := range dirs {
		group.Go(func() error { return post(client, url, dir) })
	}
	err = group.Wait() // before the clock is read: the last are still on their way
	return time.Since(begin), err
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
	took, err := b.drain(root, url, n)
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

func median(list []float64) float64 {
	s := slices.Sorted(slices.Values(list))
	return s[len(s)/2]
}

// memory: eight submissions of 14 MB at once.
func (b *bench) memory() error {
	fmt.Printf("memory: %d submissions of 14 MB of images at once\n", inFlight)
	root, err := b.spool("memory")
	if err != nil {
		return err
	}
	if err := fill(root, inFlight, 14_000_000/3-10, map[string][]byte{".ready": nil}); err != nil {
		return err
	}
	var all sync.WaitGroup // nobody is answered before all have been read
	all.Add(inFlight)
	url, stop, err := serve(&sink{after: func() { all.Done(); all.Wait() }})
	if err != nil {
		return err
	}
	defer stop()
	d, err := b.start(root, url, fmt.Sprintf("concurrency: %d", inFlight))
	if err != nil {
		return err
	}
	if err := until("all in done", time.Minute, func() bool { return d.count("done") == inFlight }); err != nil {
		return errors.Join(err, d.stop())
	}
	peak, err := d.peak()
	if err = errors.Join(err, d.stop()); err != nil {
		return err
	}
	return within("peak resident memory", peak, 48, "MiB")
}

// waiting: twenty thousand folders that are not complete.
func (b *bench) waiting() error {
	n := b.pick(20_000, 5_000)
	fmt.Printf("waiting: %d folders without a face in the inbox\n", n)
	root, err := b.spool("waiting")
	if err != nil {
		return err
	}
	front := sample.Front()
	for i := range n {
		files := map[string][]byte{"FRONT.jpg": front[:min(len(front), 8000)], "meta.yaml": []byte(sample.Meta(token(i), "LT", "ID_CARD"))}
		if err := sample.Write(filepath.Join(root, "inbox", fmt.Sprintf("case%05d", i)), files); err != nil {
			return err
		}
	}
	url, stop, err := serve(&sink{})
	if err != nil {
		return err
	}
	defer stop()
	begin := time.Now()
	d, err := b.start(root, url, "")
	if err != nil {
		return err
	}
	// The first scan, the wait for quiet, and the look into each.
	time.Sleep(12 * time.Second)
	first, err := d.cpu()
	if err != nil {
		return err
	}
	share, err := d.share(time.Duration(b.pick(120, 30)) * time.Second)
	if err != nil {
		return err
	}
	peak, err := d.peak()
	if err != nil {
		return err
	}
	fmt.Printf("  %-46s %8.2f s of processor time\n  %-46s %8.2f %% of one core\n", "first look at all of them", first.Seconds(), fmt.Sprintf("after that, measured %s after the start", time.Since(begin).Round(time.Second)), share)
	if err := d.stop(); err != nil {
		return err
	}
	return within("peak resident memory", peak, 64, "MiB")
}

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
	files := map[string][]byte{}
	hashes := "sha256:\n"
	var hashesSb521 strings.Builder
	for i, step := range []string{"FRONT", "BACK", "FACE"} {
		data := sample.Pad([][]byte{sample.Front(), sample.Back(), sample.Face()}[i], imageSize, uint64(i))
		sum := sha256.Sum256(data)
		files[step+".jpg"] = data
		hashesSb521.WriteString("  " + step + ": " + hex.EncodeToString(sum[:]) + "\n")
	}
	hashes += hashesSb521.String()
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

// idle: an empty inbox.
func (b *bench) idle() error {
	over := time.Duration(b.pick(60, 20)) * time.Second
	fmt.Printf("idle: an empty inbox for %s\n", over)
	root, err := b.spool("idle")
	if err != nil {
		return err
	}
	url, stop, err := serve(&sink{})
	if err != nil {
		return err
	}
	defer stop()
	d, err := b.start(root, url, "")
	if err != nil {
		return err
	}
	time.Sleep(2 * time.Second)
	share, err := d.share(over)
	if err != nil {
		return err
	}
	peak, err := d.peak()
	if err != nil {
		return err
	}
	fmt.Printf("  %-46s %8.2f %% of one core, %.1f MiB resident\n", "cost", share, peak)
	return d.stop()
}
