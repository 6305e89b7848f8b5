// Command bench measures idenfy-batch as a whole program: throughput beside
// the floor in the same run, memory, the start with a full spool, the time from
// the last write of a proven folder to its request, how long those in one inbox
// wait for many in another, how long a report and ledger verify take, what an
// idle daemon costs, and what hostile folders, and a flood at the
// port for webhooks, cost the others.
//
//	go run ./bench          everything, some minutes
//	go run ./bench -quick   smaller numbers, to see that it works
//	go run ./bench -run throughput,memory
//
// Correctness, memory and, but for -quick, the time of a start are held against
// their limits and decide the exit code; other times are printed only, because
// they depend on the machine.
package main

import (
	"bytes"
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
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/sample"
)

func main() {
	quick := flag.Bool("quick", false, "smaller numbers")
	only := flag.String("run", "throughput,syncs,memory,waiting,fairness,start,report,verify,latency,idle,hostile,flood", "what to measure")
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
		"throughput": b.throughput, "syncs": b.syncs, "memory": b.memory, "waiting": b.waiting, "fairness": b.fairness, "start": b.starts, "report": b.report, "verify": b.verify, "latency": b.latency, "idle": b.idle, "hostile": b.hostile, "flood": b.flood,
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
	for end := time.Now().Add(most); !cond(); time.Sleep(20 * time.Millisecond) { // a look may cost what is measured
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

func median(list []float64) float64 {
	s := slices.Sorted(slices.Values(list))
	return s[len(s)/2]
}
