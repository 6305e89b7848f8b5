package test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// settle in the arrivals test; pauses of slow uploads are longer.
const (
	labSettle = 300 * time.Millisecond
	labPause  = 700 * time.Millisecond
)

// manner is how an upload goes.
type manner int

const (
	whole     manner = iota // at once
	slow                    // with pauses longer than settle, between files and within
	resumed                 // killed midway, and begun again after a pause
	abandoned               // killed midway, for ever
	nested                  // with sub-folders, in a trickle that takes longer than settle
)

func (m manner) String() string {
	return [...]string{"whole", "slow", "killed and resumed", "killed and abandoned", "with sub-folders"}[m]
}

// Of an upload with sub-folders: how long it has to be quiet, and the pause
// after each 8 KiB, which has to be much shorter.
const (
	nestedSettle = 1500 * time.Millisecond
	trickle      = 50 * time.Millisecond
)

// upload is one folder on its way.
type upload struct {
	lab    *arrivalLab
	name   string
	inbox  string // one of dropInto
	source string // the client's own copy of the folder
	size   int64  // of its files together
	manner manner
	again  bool // the second try of a resumed one
	halted bool // slowed down by signals
}

// target is where it is to arrive.
func (u *upload) target() string { return u.lab.path(u.inbox, u.name) }

// dropInto are the inboxes, by their directories below the root.
var dropInto = []string{"inbox", "second"}

// killed is how much may pass before the client is killed, or 0.
func (u *upload) killed() int64 {
	if u.again || u.manner != resumed && u.manner != abandoned {
		return 0
	}
	return u.size/10 + rand.Int64N(u.size/2)
}

func (u *upload) pauses() bool { return u.manner == slow }

// errKilled ends a client that was killed on purpose.
var errKilled = errors.New("killed")

// client is one way to deliver a folder.
type client struct {
	name  string
	needs []string // programs
	send  func(u *upload) error
	only  []manner // empty: all

	nested bool // it sends sub-folders, too
}

// arrivalLab is a daemon with servers in front of its inbox.
type arrivalLab struct {
	*lab
	ssh, smb, ftp string // addresses; empty: there is none
	key           string
	far           string // a folder on another file system
}

// The rule of completeness is held against the programs that really deliver:
// each uploads folders wholly, slowly, and killed midway, into two inboxes at the
// same time. What the API got has
// to be what the client has, once, and nothing of what never became whole.
//
// With IDENFY_BATCH_LAB set all clients have to be there, and make all rounds;
// the table is then written to docs/completeness.md if -update is given.
// Otherwise the simulated ones make a few.
func TestArrivals(t *testing.T) {
	t.Parallel()
	arrivals(t, "table", labSettle, []manner{whole, slow, resumed, abandoned})
}

// What lies in sub-folders arrives with the rest: the folder isn't taken while
// any of it is on its way, and nothing of it is missing where it ends.
func TestArrivalsSubFolders(t *testing.T) {
	t.Parallel()
	arrivals(t, "table of sub-folders", nestedSettle, []manner{nested})
}

func arrivals(t *testing.T, mark string, settle time.Duration, manners []manner) {
	t.Helper()
	a := newArrivalLab(t, settle)
	table := &arrivalTable{rows: map[int][]arrivalRow{}}
	for n, c := range clients() {
		if !inLab && len(c.needs) > 0 || manners[0] == nested && !c.nested {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			for _, program := range c.needs {
				if !installed(program) {
					t.Skipf("%s is not installed", program)
				}
			}
			t.Parallel()
			for _, m := range manners {
				if m == nested || len(c.only) == 0 || slices.Contains(c.only, m) {
					table.add(n, a.cell(t, c, m))
				}
			}
		})
	}
	t.Cleanup(func() { // after those that run in parallel
		must(t, a.stop())
		if v := a.api.Report().Violations; len(v) > 0 {
			t.Errorf("violations: %v", v)
		}
		t.Logf("\n%s", table)
		if *update && inLab {
			writeTable(t, mark, table)
		}
	})
}

// inLab says that the machine has what the lab tests need, and the time.
var inLab = os.Getenv("IDENFY_BATCH_LAB") != ""

var update = flag.Bool("update", false, "write the table in docs/completeness.md")

// writeTable puts the table between its marks in the documentation.
func writeTable(t *testing.T, mark string, table *arrivalTable) {
	t.Helper()
	path := filepath.Join("..", "docs", "completeness.md")
	data, err := os.ReadFile(path)
	must(t, err)
	begin, end := "<!-- "+mark+" -->\n", "<!-- end of "+mark+" -->"
	before, rest, ok1 := strings.Cut(string(data), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("the marks of the table are missing")
	}
	must(t, os.WriteFile(path, []byte(before+begin+table.String()+end+after), 0o644))
}

func installed(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

func newArrivalLab(t *testing.T, settle time.Duration) *arrivalLab {
	t.Helper()
	a := &arrivalLab{lab: newLab(t, fmt.Sprintf("completeness: {settle: %s, rescan: 1s}", settle), "concurrency: 4")}
	must(t, os.Chmod(a.root, 0o755))
	config, err := os.OpenFile(a.config, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	fmt.Fprintln(config, "inboxes:")
	for _, dir := range dropInto {
		must(t, os.Mkdir(a.path(dir), 0o770))
		must(t, os.Chmod(a.path(dir), 0o777))
		fmt.Fprintf(config, "  - {name: %s, path: %s}\n", dir, a.path(dir))
	}
	must(t, config.Close())
	far, err := os.MkdirTemp("/dev/shm", "idenfy-batch-test-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(far)) })
	a.far = far
	a.startSSH(t)
	a.startSMB(t)
	a.startFTP(t)
	a.start()
	return a
}

// cell makes the rounds of one client in one manner.
func (a *arrivalLab) cell(t *testing.T, c client, m manner) arrivalRow {
	t.Helper()
	rounds := 20
	switch {
	case !inLab:
		rounds = 3
	case m == nested && !*update:
		rounds = 6 // of large uploads; the table is of 20
	}
	var group errgroup.Group
	group.SetLimit(10)
	var mu sync.Mutex
	row := arrivalRow{client: c.name, manner: m}
	for n := range rounds {
		group.Go(func() error {
			u := a.upload(t, fmt.Sprintf("%s-%d-%d", strings.ReplaceAll(c.name, " ", "_"), m, n), m)
			u.inbox = dropInto[n%len(dropInto)]
			early, err := a.round(c, u)
			if err != nil {
				return fmt.Errorf("%s, %s, round %d: %w", c.name, m, n, err)
			}
			seen := a.api.Token(token(u.name))
			mu.Lock()
			defer mu.Unlock()
			row.drops++
			if m == nested && a.place(u.name) == spool.Done && !a.arrived(u) {
				early = true
			}
			if !a.came(u) {
				return fmt.Errorf("%s did not come from %s by its result", u.name, u.inbox)
			}
			if early || m == abandoned && seen.Requests > 0 || m != abandoned && seen.Processed > 0 && !a.equal(u) {
				row.early++
			}
			if seen.Requests > 1 {
				row.twice++
			}
			if m != abandoned && seen.Processed == 0 {
				row.missed++
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	if row.early+row.twice+row.missed > 0 {
		t.Errorf("%+v", row)
	}
	return row
}

// upload makes the client's copy of a folder.
func (a *arrivalLab) upload(t *testing.T, name string, m manner) *upload {
	t.Helper()
	u := &upload{lab: a, name: name, manner: m, source: filepath.Join(t.TempDir(), name)}
	n := uint64(fnvOf(name))
	files := map[string][]byte{
		"FRONT.jpg": sample.Pad(front, 90_000, n), "BACK.jpg": sample.Pad(back, 60_000, n+1), "FACE.jpg": sample.Pad(face, 70_000, n+2),
		"meta.yaml": []byte(sample.Meta(token(name), "LT", "ID_CARD")),
	}
	if m == nested {
		for _, name := range subFiles {
			files[name] = sample.Pad(front, 320_000, n) // each longer on its way than settle
		}
	}
	for name, data := range files {
		u.size += int64(len(data))
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(u.source, name)), 0o755))
	}
	must(t, sample.Write(u.source, files))
	return u
}

// subFiles lie in sub-folders.
var subFiles = []string{"originals/p1.tif", "originals/raw/p2.tif"}

// arrived tells whether what lies in done is what the client has.
func (a *arrivalLab) arrived(u *upload) bool {
	return u.each(slices.Concat(metaFirst, subFiles), func(name string, data []byte) error {
		got, err := os.ReadFile(a.path("done", u.name, name))
		if err == nil && !bytes.Equal(got, data) {
			err = errors.New("another content")
		}
		return err
	}) == nil
}

func fnvOf(s string) (h uint32) {
	for _, c := range []byte(s) {
		h = (h ^ uint32(c)) * 16777619
	}
	return h
}

// came tells whether the result of a folder that is done, if it is, names its
// inbox.
func (a *arrivalLab) came(u *upload) bool {
	if a.place(u.name) != spool.Done {
		return true
	}
	data, err := os.ReadFile(a.path("done", u.name, sidecar.Name))
	return err == nil && bytes.Contains(data, []byte(`"inbox": "`+u.inbox+`"`))
}

// waits tells whether a folder is still where it was uploaded to.
func (u *upload) waits() bool {
	_, err := os.Lstat(u.target())
	return err == nil
}

// round makes one upload, and waits for what follows. early tells that a
// request began before the upload was over.
func (a *arrivalLab) round(c client, u *upload) (early bool, err error) {
	requests := func() int { return a.api.Token(token(u.name)).Requests }
	err = c.send(u)
	if u.manner == nested && !u.waits() {
		return true, nil // taken while it was on its way, after which the client fails
	}
	if errors.Is(err, errKilled) {
		time.Sleep(2 * labSettle) // quiet for longer than the rule asks
		if early = requests() > 0; early || u.manner == abandoned {
			time.Sleep(2 * labSettle)
			return early || requests() > 0, nil
		}
		u.again = true
		err = c.send(u)
	} else if u.manner == resumed || u.manner == abandoned {
		err = errors.Join(err, errors.New("it was not killed"))
	}
	if err != nil {
		return early, err
	}
	for end := time.Now().Add(30 * time.Second); a.place(u.name) != spool.Done && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	return early, nil
}

// equal tells whether the API got what the client has.
func (a *arrivalLab) equal(u *upload) bool {
	sums := a.api.Token(token(u.name)).Sums
	for _, step := range []string{"FRONT", "BACK", "FACE"} {
		data, err := os.ReadFile(filepath.Join(u.source, step+".jpg"))
		if err != nil || sums[step] != sumOf(data) {
			return false
		}
	}
	return true
}

type arrivalRow struct {
	client                      string
	manner                      manner
	drops, early, twice, missed int
}

// arrivalTable collects the rows, by the number of the client.
type arrivalTable struct {
	mu   sync.Mutex
	rows map[int][]arrivalRow
}

func (a *arrivalTable) add(n int, r arrivalRow) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rows[n] = append(a.rows[n], r)
}

// String is the table as it stands in docs/completeness.md.
func (a *arrivalTable) String() string {
	var b strings.Builder
	b.WriteString("| client | upload | drops | early | twice | missed |\n|---|---|---:|---:|---:|---:|\n")
	for _, n := range slices.Sorted(maps.Keys(a.rows)) {
		for _, r := range a.rows[n] {
			fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d |\n", r.client, r.manner, r.drops, r.early, r.twice, r.missed)
		}
	}
	return b.String()
}

// Clients that are simulated: what they do with files is what counts.

// pacer slows a simulated client down, or kills it, as its manner says.
type pacer struct {
	u     *upload
	sent  int64
	kill  int64
	pause int64 // the next
}

func (u *upload) pacer() *pacer { return &pacer{u: u, kill: u.killed(), pause: u.size / 5} }

// tick is called after n bytes were written.
func (p *pacer) tick(n int) error {
	p.sent += int64(n)
	if p.kill > 0 && p.sent >= p.kill {
		return errKilled
	}
	if p.u.manner == nested {
		time.Sleep(trickle)
	}
	if p.u.pauses() && p.sent >= p.pause {
		p.pause += p.u.size / 4
		time.Sleep(labPause)
	}
	return nil
}

const step = 8 << 10

// each calls f for the client's files in the order given, or meta.yaml last.
func (u *upload) each(order []string, f func(name string, data []byte) error) error {
	for _, name := range order {
		data, err := os.ReadFile(filepath.Join(u.source, name))
		if err == nil {
			err = f(name, data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var (
	imagesFirst = []string{"FRONT.jpg", "BACK.jpg", "FACE.jpg", "meta.yaml"}
	metaFirst   = []string{"meta.yaml", "FRONT.jpg", "BACK.jpg", "FACE.jpg"}
)

// write writes data to path in small pieces; like the system for a process
// that was killed, it closes the file whatever happens.
func (p *pacer) write(path string, flag int, data []byte) (err error) {
	f, err := os.OpenFile(path, flag, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for len(data) > 0 {
		n, err := f.Write(data[:min(step, len(data))])
		if err != nil {
			return err
		}
		data = data[n:]
		if err := p.tick(n); err != nil {
			return err
		}
	}
	return nil
}

const create = os.O_WRONLY | os.O_CREATE | os.O_TRUNC

// simulated makes a client of what it does with one file.
func simulated(order []string, one func(p *pacer, path string, data []byte) error) func(*upload) error {
	return func(u *upload) error {
		if err := os.MkdirAll(u.target(), 0o777); err != nil {
			return err
		}
		names := order
		if u.manner == nested {
			names = slices.Concat(order, subFiles)
		}
		p := u.pacer()
		return u.each(names, func(name string, data []byte) error {
			path := filepath.Join(u.target(), name)
			if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
				return err
			}
			return one(p, path, data)
		})
	}
}

// plain writes a file from its beginning to its end.
func plain(p *pacer, path string, data []byte) error { return p.write(path, create, data) }

// winSCP writes under another name, renames, and sets the time.
func winSCP(p *pacer, path string, data []byte) error {
	old := time.Now().Add(-1000 * time.Hour)
	if err := p.write(path+".filepart", create, data); err != nil {
		return err
	}
	return errors.Join(os.Rename(path+".filepart", path), os.Chtimes(path, old, old))
}

// oldTimes sets an old time while it writes, again and again.
func oldTimes(p *pacer, path string, data []byte) error {
	old := time.Now().Add(-1000 * time.Hour)
	err := p.write(path, create, data)
	return errors.Join(err, os.Chtimes(path, old, old))
}

// appends opens the file anew for each piece.
func appends(p *pacer, path string, data []byte) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	for piece := range slices.Chunk(data, 20_000) {
		if err := p.write(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, piece); err != nil {
			return err
		}
	}
	return nil
}

// preallocates sets the full size first.
func preallocates(p *pacer, path string, data []byte) error {
	f, err := os.OpenFile(path, create, 0o666)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(int64(len(data))), f.Close()); err != nil {
		return err
	}
	return p.write(path, os.O_WRONLY, data)
}

// mapped writes through a mapping, the pages in any order.
func mapped(p *pacer, path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(int64(len(data))); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Munmap(m)) }()
	pages := (len(data) + 4095) / 4096
	for _, page := range rand.Perm(pages) {
		n := copy(m[page*4096:], data[page*4096:min((page+1)*4096, len(data))])
		if err := p.tick(n); err != nil {
			return err
		}
	}
	return nil
}

// Clients that are programs.

// command runs a client program below a context that kills it.
func (u *upload) command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = filepath.Dir(u.source)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		if ctx.Err() != nil { // on a busy machine, before it began
			return errKilled
		}
		return err
	}
	var halts sync.WaitGroup
	over, end := context.WithCancel(ctx)
	if u.halted {
		halts.Go(func() { halt(over, cmd.Process.Pid) })
	}
	err := cmd.Wait()
	end()
	halts.Wait()
	out := output.String()
	if ctx.Err() != nil {
		return errKilled
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// halt stops a group of processes for a pause again and again.
func halt(ctx context.Context, group int) {
	for ctx.Err() == nil {
		for _, wait := range []struct {
			signal syscall.Signal
			d      time.Duration
		}{{syscall.SIGCONT, 300 * time.Millisecond}, {syscall.SIGSTOP, labPause}} {
			_ = syscall.Kill(-group, wait.signal) // it may have ended
			select {
			case <-ctx.Done():
			case <-time.After(wait.d):
			}
		}
	}
	_ = syscall.Kill(-group, syscall.SIGCONT) // it may have ended
}

// through runs f with the address of a relay to server, which slows down or
// cuts the connection and kills the client as the manner says.
func (u *upload) through(server string, f func(ctx context.Context, host, port string) error) error {
	ctx, kill := context.WithCancel(context.Background())
	defer kill()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	r := &relay{server: server, kill: kill, pauses: u.pauses(), every: u.size / 4, trickles: u.manner == nested}
	r.left.Store(u.killed())
	if r.left.Load() == 0 {
		r.left.Store(1 << 40)
	}
	go r.serve(l)
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return err
	}
	return f(ctx, host, port)
}

// relay passes connections on to a server.
type relay struct {
	server string
	kill   func()
	left   atomic.Int64 // bytes until the kill
	passed atomic.Int64
	pauses bool
	every  int64 // bytes between pauses

	trickles bool
}

func (r *relay) serve(l net.Listener) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.server)
		if err != nil {
			_ = in.Close()
			continue
		}
		go func() {
			_, _ = io.Copy(in, out)
			_ = in.Close()
		}()
		go r.forward(in, out)
	}
}

func (r *relay) forward(in, out net.Conn) {
	defer out.Close()
	buf := make([]byte, 16<<10)
	if r.trickles {
		buf = buf[:step]
	}
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if r.left.Add(-int64(n)) < 0 {
				r.kill()
				_ = in.Close()
				return
			}
			if before := r.passed.Add(int64(n)) - int64(n); r.pauses && before/r.every != (before+int64(n))/r.every {
				time.Sleep(labPause)
			}
			if r.trickles && n == len(buf) { // not after each word of the protocol
				time.Sleep(trickle)
			}
			if _, err := out.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (a *arrivalLab) sshOptions(port string) []string {
	return []string{"-i", a.key, "-o", "Port=" + port, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-F", "/dev/null"}
}

// sftp runs a batch of commands.
func sftp(batch func(u *upload) string) func(*upload) error {
	return func(u *upload) error {
		script := u.source + ".batch"
		if err := os.WriteFile(script, []byte(batch(u)), 0o600); err != nil {
			return err
		}
		return u.through(u.lab.ssh, func(ctx context.Context, host, port string) error {
			return u.command(ctx, "sftp", append(u.lab.sshOptions(port), "-b", script, "root@"+host)...)
		})
	}
}

func sftpRename(u *upload) string {
	text := "-mkdir " + u.target() + "\n"
	for _, name := range imagesFirst {
		temp := u.target() + "/" + name + ".part"
		text += fmt.Sprintf("put %s %s\nrename %s %s\n", filepath.Join(u.source, name), temp, temp, filepath.Join(u.target(), name))
	}
	return text
}

func rsync(args ...string) func(*upload) error {
	return func(u *upload) error {
		return u.through(u.lab.ssh, func(ctx context.Context, host, port string) error {
			ssh := "ssh " + strings.Join(u.lab.sshOptions(port), " ")
			return u.command(ctx, "rsync", append(slices.Clone(args), "-e", ssh, u.source, "root@"+host+":"+u.lab.path(u.inbox)+"/")...)
		})
	}
}

func scp(u *upload) error {
	return u.through(u.lab.ssh, func(ctx context.Context, host, port string) error {
		return u.command(ctx, "scp", append(u.lab.sshOptions(port), "-r", u.source, "root@"+host+":"+u.lab.path(u.inbox)+"/")...)
	})
}

func lftpSFTP(u *upload) error {
	return u.through(u.lab.ssh, func(ctx context.Context, host, port string) error {
		connect := "ssh -a -x " + strings.Join(u.lab.sshOptions(port), " ")
		return u.command(ctx, "lftp", "-c", fmt.Sprintf(
			"set net:max-retries 1; set sftp:auto-confirm yes; set sftp:connect-program '%s'; open sftp://root:@%s:%s; mirror -R %s %s", connect, host, port, u.source, u.target()))
	})
}

func smb(u *upload) error {
	return u.through(u.lab.smb, func(ctx context.Context, host, port string) error {
		return u.command(ctx, "smbclient", "//"+host+"/"+u.inbox, "-p", port, "-N", "-c", "prompt OFF; recurse ON; mask ''; mput "+u.name)
	})
}

// ftp needs a connection for each file, which no relay can be put into; the
// client is stopped and killed by signals instead.
func ftp(u *upload) error {
	ctx, kill := context.WithCancel(context.Background())
	defer kill()
	rate := ""
	u.halted = u.pauses()
	if u.manner != whole && !u.again {
		rate = "set net:limit-total-rate 0:150000; set net:limit-total-max 20000; "
	}
	if u.killed() > 0 {
		timer := time.AfterFunc(400*time.Millisecond+time.Duration(rand.Int64N(int64(400*time.Millisecond))), kill)
		defer timer.Stop()
	}
	return u.command(ctx, "lftp", "-c", fmt.Sprintf(
		"set net:max-retries 1; set ftp:use-feat no; %sopen ftp://anonymous:x@%s; mirror -R %s %s/%s", rate, u.lab.ftp, u.source, u.inbox, u.name))
}

// local runs cp or mv from another file system. They are too quick to be
// killed midway but by luck, so they are traced and slowed down.
func local(args ...string) func(*upload) error {
	return func(u *upload) error {
		ctx, kill := context.WithCancel(context.Background())
		defer kill()
		from := filepath.Join(u.lab.far, u.name)
		if out, err := exec.Command("cp", "-a", u.source, u.lab.far).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		defer os.RemoveAll(from)
		args := append(slices.Clone(args), from, u.lab.path(u.inbox)+"/")
		if u.manner == whole || u.again {
			return u.command(ctx, args[0], args[1:]...)
		}
		delay := "delay_exit=" + fmt.Sprint(labPause.Microseconds())
		if u.manner == nested {
			delay = "delay_exit=700000" // a call or two a file
		} else if u.manner != slow {
			delay = "delay_exit=100000"
			timer := time.AfterFunc(150*time.Millisecond+time.Duration(rand.Int64N(int64(100*time.Millisecond))), kill)
			defer timer.Stop()
		}
		return u.command(ctx, "strace", append([]string{"-f", "-qq", "-o", "/dev/null", "-e", "inject=copy_file_range,write,sendfile:" + delay}, args...)...)
	}
}

func clients() []client {
	return []client{
		{nested: true, name: "sftp put -r", needs: []string{"sftp", "sshd"}, send: sftp(func(u *upload) string { return "put -r " + u.source + " " + u.lab.path(u.inbox) + "/\n" })},
		{name: "sftp put and rename", needs: []string{"sftp", "sshd"}, send: sftp(sftpRename)},
		{nested: true, name: "scp -r", needs: []string{"scp", "sshd"}, send: scp},
		{nested: true, name: "rsync -a", needs: []string{"rsync", "sshd"}, send: rsync("-a")},
		{name: "rsync --inplace", needs: []string{"rsync", "sshd"}, send: rsync("-a", "--inplace")},
		{nested: true, name: "rsync --delay-updates", needs: []string{"rsync", "sshd"}, send: rsync("-a", "--delay-updates")},
		{name: "rsync --partial", needs: []string{"rsync", "sshd"}, send: rsync("-a", "--partial")},
		{nested: true, name: "lftp mirror -R", needs: []string{"lftp", "sshd"}, send: lftpSFTP},
		{nested: true, name: "smbclient mput", needs: []string{"smbclient", "smbd"}, send: smb},
		{nested: true, name: "FTP to vsftpd", needs: []string{"lftp", "vsftpd"}, send: ftp},
		{nested: true, name: "like WinSCP", send: simulated(imagesFirst, winSCP)},
		{name: "a scanner that keeps files open, images first", send: simulated(imagesFirst, plain)},
		{nested: true, name: "a scanner that keeps files open, meta.yaml first", send: simulated(metaFirst, plain)},
		{nested: true, name: "a scanner that reopens and appends", send: simulated(metaFirst, appends)},
		{name: "a writer that sets the size first", send: simulated(metaFirst, preallocates)},
		{nested: true, name: "a writer by mmap", send: simulated(metaFirst, mapped)},
		{name: "a writer of old times", send: simulated(metaFirst, oldTimes)},
		{nested: true, name: "cp -a", needs: []string{"strace"}, send: local("cp", "-a")},
		{name: "mv from elsewhere", needs: []string{"strace"}, send: local("mv"), only: []manner{whole, slow, abandoned}},
		{name: "mv of a tree", send: moveIn, only: []manner{whole}},
	}
}

// moveIn renames a folder into the inbox.
func moveIn(u *upload) error {
	near := u.lab.path("near-" + u.name)
	if out, err := exec.Command("cp", "-a", u.source, near).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return os.Rename(near, u.target())
}
