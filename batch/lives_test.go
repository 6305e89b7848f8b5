package batch_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/jpeg"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"idenfy-batch/internal/decision"
	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/idenfy"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
	"idenfy-batch/internal/verify"
	"idenfy-batch/sidecar"
)

var (
	livesN    = flag.Int("lives", 200, "how many sequences of lives TestLives tries: the first 150 are always the same")
	livesSeed = flag.Uint64("lives.seed", 0, "the only sequence of lives that TestLives tries, some times over")
)

// TestLives lets folders live random lives: dropped, sent, answered or not,
// moved, copied and edited by hand, decided about, crashed, out of disk. At
// the end nothing may be lost, nobody sent twice, and everything explained.
func TestLives(t *testing.T) {
	if *livesSeed != 0 {
		for range 50 {
			ops := sequence(*livesSeed)
			if story, err := live(t, ops); err != nil {
				t.Fatal(tell(*livesSeed, story, err))
			} else if testing.Verbose() {
				t.Log(strings.Join(story, "\n"))
			}
		}
		return
	}
	n := *livesN
	if testing.Short() {
		n = min(n, 100)
	}
	const fixed = 150
	fresh := rand.Uint64N(1<<40) + fixed + 1
	var next, failed, did, persons, sent, twice, apart atomic.Int64
	var group sync.WaitGroup
	begin := time.Now()
	for range 3 * runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for i := next.Add(1); i <= int64(n) && failed.Load() < 3; i = next.Add(1) {
				seed := uint64(i)
				if i > fixed {
					seed = fresh + uint64(i)
				}
				w, err := perform(t, sequence(seed))
				if n := did.Add(1); n%1000 == 0 {
					t.Logf("lives: %d so far", n)
				}
				sent.Add(int64(w.processed))
				twice.Add(int64(w.forced))
				persons.Add(int64(len(w.people)))
				apart.Add(int64(w.apart))
				if err != nil {
					failed.Add(1)
					story, err := shrink(t, seed, w.story, err)
					t.Error(tell(seed, story, err))
				}
			}
		})
	}
	group.Wait()
	t.Logf("lives: %d sequences, %d persons (%d of them not to be known by their folders), %d submissions, %d of them again because somebody wanted it; %s each",
		did.Load(), persons.Load(), apart.Load(), sent.Load(), twice.Load(),
		(time.Since(begin) / time.Duration(max(did.Load(), 1))).Round(100*time.Microsecond))
}

// tell is the report of a sequence that failed.
func tell(seed uint64, story []string, err error) string {
	return fmt.Sprintf("%v\nagain: go test ./batch -run TestLives -lives.seed %d\n  %s", err, seed, strings.Join(story, "\n  "))
}

// op is a step of a sequence. What it is about is drawn from its own seed, so
// that a sequence can be made shorter, and the rest stays what it was.
type op struct {
	do   func(*world)
	seed uint64
}

// draw returns one of the choices, by their weights.
func draw(r *rand.Rand, from []choice) func(*world) {
	sum := 0
	for _, c := range from {
		sum += c.weight
	}
	n := r.IntN(sum)
	for _, c := range from {
		if n -= c.weight; n < 0 {
			return c.do
		}
	}
	return nil
}

type choice struct {
	weight int
	do     func(*world)
}

// atRest is what people, and the service, do between two lives.
var atRest = []choice{
	{2, (*world).drop},
	{8, (*world).script},
	{4, (*world).newToken},
	{2, (*world).editImage},
	{2, (*world).editCountry},
	{2, (*world).badKey},
	{3, (*world).mend},
	{2, (*world).incomplete},
	{6, (*world).tamper},
	{10, (*world).move},
	{4, (*world).copy},
	{12, (*world).decide},
	{10, (*world).insist},
	{1, (*world).decideCut},
	{1, (*world).expire},
	{1, (*world).set},
}

// lifetimes are the ways in which the daemon goes on.
var lifetimes = []choice{
	{10, (*world).run},
	{7, (*world).crash},
	{5, (*world).fullDisk},
	{4, (*world).outage},
	{4, (*world).cutOff},
	{2, (*world).hidden},
	{1, (*world).halt},
}

// sequence returns the steps of a seed.
func sequence(seed uint64) []op {
	r := rand.New(rand.NewPCG(seed, 0))
	ops := []op{{(*world).drop, r.Uint64()}}
	for range 2 + r.IntN(5) {
		for range r.IntN(4) {
			ops = append(ops, op{draw(r, atRest), r.Uint64()})
		}
		ops = append(ops, op{draw(r, lifetimes), r.Uint64()})
	}
	return ops
}

// shrink looks for the shortest story that fails.
func shrink(t testing.TB, seed uint64, story []string, err error) ([]string, error) {
	ops := sequence(seed)
	for end, i := time.Now().Add(30*time.Second), len(ops)-1; i > 0 && time.Now().Before(end); i-- {
		fewer := slices.Delete(slices.Clone(ops), i, i+1)
		for range 4 {
			if s, e := live(t, fewer); e != nil {
				ops, story, err = fewer, s, e
				break
			}
		}
	}
	return story, err
}

func live(t testing.TB, ops []op) (story []string, err error) {
	w, err := perform(t, ops)
	return w.story, err
}

// stage is what a sequence takes for its test: what fails ends the sequence.
type stage struct {
	testing.TB

	mu      sync.Mutex
	cleanup []func()
	failed  []error
}

type over struct{ error }

func (s *stage) Helper()          {}
func (s *stage) Cleanup(f func()) { s.cleanup = append(s.cleanup, f) }
func (s *stage) Fatal(args ...any) {
	panic(over{errors.New(fmt.Sprint(args...))})
}
func (s *stage) Fatalf(format string, args ...any) { panic(over{fmt.Errorf(format, args...)}) }
func (s *stage) Error(args ...any)                 { s.Errorf("%s", fmt.Sprint(args...)) }
func (s *stage) Errorf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, fmt.Errorf(format, args...))
}

// caught returns what ended f.
func caught(f func()) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case over:
			err = p.error
		default:
			panic(p)
		}
	}()
	f()
	return nil
}

// end cleans up, and returns all that failed.
func (s *stage) end() error {
	for _, f := range slices.Backward(s.cleanup) {
		if err := caught(f); err != nil {
			s.Error(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.failed...)
}

// world is a spool with its daemon, the service, and the people around it.
type world struct {
	*bench
	s      *stage
	r      *rand.Rand // of the step
	root   string
	paths  spool.Paths
	client *idenfy.Client // of the desk

	people  []*person
	folders []*folder
	story   []string

	plan  *plan
	broke atomic.Bool // Run ended by itself

	mu    sync.Mutex
	steps map[string][]sandbox.Step // by token
	may   map[string]bool           // the token may have been processed
	down  bool

	processed, forced, apart int // for the count at the end
}

// person is whom a FACE shows.
type person struct {
	no      int
	face    []byte
	sum     string
	tokens  []string  // that were given to its folders
	client  string    // the clientId; empty: it has none
	first   time.Time // when processed
	permits int       // decisions by which the person may be sent once more
	taken   bool      // somebody decided that the person was accepted
	split   bool      // nothing but the FACE connects the folders
}

// folder is one, wherever it lies.
type folder struct {
	no      int
	person  *person
	token   string // by which its requests are scripted: with a session the clientId
	ref     string
	session bool // the daemon opens it
	scanner bool // there is no meta.yaml, and its first name is the clientId
	country string
	bad     bool
	expired bool // the watcher won't wait any longer
	front   []byte
	back    []byte // nil: missing
	copied  bool   // it is a copy
	weak    bool   // one without the results as they were
	forged  bool   // somebody changed a result in it
	touched bool   // somebody changed its result, or moved it, in a final place
}

func (f *folder) String() string { return fmt.Sprintf("folder %d (person %d)", f.no, f.person.no) }

// tiny is a small JPEG, and tinyImage makes others of it.
var tiny = func() []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, 16, 16)), nil); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	return b.Bytes()
}()

func tinyImage(seed uint64) []byte { return sample.Pad(tiny, len(tiny)+20, seed) }

// perform lets a sequence happen.
func perform(t testing.TB, ops []op) (*world, error) {
	s := &stage{TB: t}
	w := &world{s: s, steps: map[string][]sandbox.Step{}, may: map[string]bool{}}
	err := caught(func() {
		w.prepare()
		for _, o := range ops {
			w.r = rand.New(rand.NewPCG(o.seed, 0))
			o.do(w)
			w.note()
		}
		w.check()
	})
	w.told()
	return w, errors.Join(err, s.end())
}

func (w *world) prepare() {
	w.bench = newBench(w.s, sandbox.Options{ManySessions: true}) // a session that is lost keeps nobody waiting
	w.root = filepath.Dir(w.spool.Path(spool.Inbox)) + "/"
	w.paths = spool.Paths{}
	for _, p := range spool.Places() {
		w.paths[p] = w.spool.Path(p)
	}
	w.patience = time.Minute // nothing stalls for long but a busy machine
	w.cfg.Grace = 0
	w.cfg.DiskRetry = 2 * time.Millisecond
	w.cfg.Retry.First, w.cfg.Retry.Max, w.cfg.Retry.GiveUpAfter = time.Millisecond, 3*time.Millisecond, time.Nanosecond
	w.api.Decide(w.treat)
	w.api.DecideSession(w.treatSession)
	w.ended = func(err error) { w.broke.Store(err != nil) }
	w.client = idenfy.New(idenfy.Options{BaseURL: w.url, Key: "k", Secret: "s", Timeout: time.Minute})
	w.s.Cleanup(w.client.Close)
	w.noFaults()
	w.s.Cleanup(func() { disks.Delete(w.root) })
}

func (w *world) say(format string, args ...any) {
	w.story = append(w.story, fmt.Sprintf(format, args...))
}

// told adds to the story what the daemon reported since.
func (w *world) told() {
	if w.bench == nil || w.ev == nil {
		return
	}
	w.ev.mu.Lock()
	defer w.ev.mu.Unlock()
	for _, line := range slices.Compact(w.ev.list) {
		w.say("    daemon: %s", line)
	}
	w.ev.list = nil
}

// note sees who was processed.
func (w *world) note() {
	w.told()
	sums := w.api.Persons()
	for _, p := range w.people {
		for _, tok := range w.tokensOf(p) {
			if used := w.api.Token(tok).Used; sums[p.sum] > 0 && !used.IsZero() && (p.first.IsZero() || used.Before(p.first)) {
				p.first = used
			}
		}
	}
}

// treat is how the service treats a request. The sandbox's lock is held.
func (w *world) treat(tok string, _ int) sandbox.Step {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return sandbox.Step{Status: 401, Identifier: "UNAUTHORIZED", Message: "no"}
	}
	var s sandbox.Step
	key := cmp.Or(w.api.ClientOf(tok), tok)
	if list := w.steps[key]; len(list) > 0 {
		s, w.steps[key] = list[0], list[1:]
	}
	if s.Status == 400 && w.may[tok] { // of a used token it says only that
		s = sandbox.Step{}
	}
	if s.Status == 0 && slices.Contains([]sandbox.Fault{"", sandbox.LoseAnswer, sandbox.HalfAnswer, sandbox.StallAnswer}, s.Fault) {
		w.may[tok] = true
	}
	if rand.IntN(4) == 0 { // people are about while it thinks
		s.Latency = time.Duration(rand.IntN(10)) * time.Millisecond
	}
	return s
}

// treatSession is how the service treats a request for a session.
func (w *world) treatSession(string, int) sandbox.Step {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return sandbox.Step{Status: 401, Identifier: "UNAUTHORIZED", Message: "no"}
	}
	return sandbox.Step{}
}

// tokensOf returns all tokens that were ever given for a person.
func (w *world) tokensOf(p *person) []string {
	if p.client == "" {
		return p.tokens
	}
	return slices.Concat(p.tokens, slices.Collect(maps.Keys(w.api.Sessions(p.client))))
}

// content is what the daemon knows a folder by that has no token.
func (f *folder) content() string {
	text := f.person.client
	for _, img := range []struct {
		step string
		data []byte
	}{{"FRONT", f.front}, {"BACK", f.back}, {"FACE", f.person.face}} {
		text += "\n" + img.step + " " + sum(img.data)
	}
	return sum([]byte(text))
}

func (w *world) pick() *folder { return w.folders[w.r.IntN(len(w.folders))] }

func (w *world) chance(percent int) bool { return w.r.IntN(100) < percent }

// at is where a folder lies.
type at struct {
	place spool.Place
	name  string
}

func (w *world) path(a at) string { return filepath.Join(w.paths[a.place], a.name) }

const marker = "who.txt"

// where returns where all folders lie.
func (w *world) where() map[int][]at {
	found := map[int][]at{}
	for _, p := range spool.Places() {
		names, err := w.spool.List(p)
		must(w.s, err)
		for _, name := range names {
			data, err := os.ReadFile(filepath.Join(w.paths[p], name, marker))
			if errors.Is(err, fs.ErrNotExist) {
				continue // it went on
			}
			must(w.s, err)
			no := 0
			_, err = fmt.Sscan(string(data), &no)
			must(w.s, err)
			found[no] = append(found[no], at{p, name})
		}
	}
	return found
}

// find returns where a folder lies; it may be about to move.
func (w *world) find(f *folder) at {
	for range 1000 {
		if list := w.where()[f.no]; len(list) > 0 {
			return list[0]
		}
	}
	w.s.Fatalf("%v is lost", f)
	return at{}
}

func (w *world) newFolder(p *person) *folder {
	f := &folder{no: len(w.folders) + 1, person: p}
	w.folders = append(w.folders, f)
	return f
}

func (w *world) token(p *person) string {
	tok := fmt.Sprintf("TOKEN-%d-%d-0123456789", p.no, len(p.tokens)+1)
	p.tokens = append(p.tokens, tok)
	return tok
}

func (w *world) give(f *folder) {
	f.ref, f.session = "", f.person.client != "" && w.chance(80)
	if f.session {
		f.token = f.person.client
		return
	}
	f.token = w.token(f.person)
	if w.chance(50) {
		f.ref = fmt.Sprintf("00000000-0000-4000-8000-%06d%06d", f.person.no, len(f.person.tokens))
		w.api.Issue(f.token, f.ref)
	}
}

// writeMeta writes meta.yaml in the way of an editor.
func (w *world) writeMeta(f *folder) at {
	f.scanner = false
	var more []string
	if f.ref != "" {
		more = append(more, "scanRef: "+f.ref)
	}
	if f.bad {
		more = append(more, "colour: red")
	}
	text := sample.Meta
	if f.session {
		text = sample.Person
	}
	return w.edit(f, "meta.yaml", []byte(text(f.token, f.country, "ID_CARD", more...)))
}

// edit writes a file of a folder, or with nil removes it, wherever the folder
// is, and returns where that was.
func (w *world) edit(f *folder, name string, data []byte) at {
	dir, a := w.open(f)
	defer dir.Close()
	if data != nil {
		if err := dir.Chmod(name, 0o660); !errors.Is(err, fs.ErrNotExist) { // it may be sealed
			must(w.s, err)
		}
		must(w.s, dir.WriteFile(name, data, 0o660))
	} else if err := dir.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		must(w.s, err)
	}
	return a
}

// open opens a folder, and returns where it was.
func (w *world) open(f *folder) (*os.Root, at) {
	for {
		a := w.find(f)
		dir, err := os.OpenRoot(w.path(a))
		if errors.Is(err, fs.ErrNotExist) { // it went on
			continue
		}
		must(w.s, err)
		return dir, a
	}
}

func (w *world) write(path string, data []byte) {
	_ = os.Chmod(path, 0o660) // it may be sealed, or not be there
	err := os.WriteFile(path, data, 0o660)
	if !errors.Is(err, fs.ErrNotExist) { // else it went on
		must(w.s, err)
	}
}

// drop is somebody's upload.
func (w *world) drop() {
	if len(w.people) == 3 {
		return
	}
	p := &person{no: len(w.people) + 1}
	p.face = tinyImage(uint64(1000 + p.no))
	p.sum = sum(p.face)
	if w.chance(40) {
		p.client = fmt.Sprintf("client-%d", p.no)
	}
	w.people = append(w.people, p)
	f := w.newFolder(p)
	f.country, f.front, f.back = "LT", tinyImage(1), tinyImage(2)
	w.give(f)
	if w.chance(10) {
		f.bad = true
	}
	name := fmt.Sprintf("case%d", f.no)
	if f.scanner = f.session && w.chance(50); f.scanner {
		name, f.bad = p.client, false
		w.byDefault("LT")
	}
	dir := w.path(at{spool.Inbox, name})
	must(w.s, sample.Write(dir, map[string][]byte{
		"FRONT.jpg": f.front, "BACK.jpg": f.back, "FACE.jpg": p.face, marker: fmt.Append(nil, f.no),
	}))
	if !f.scanner {
		w.writeMeta(f)
	}
	w.say("dropped: %v, clientId %v (by its name: %v), scanRef %v, bad key %v", f, f.session, f.scanner, f.ref != "", f.bad)
}

// byDefault has images alone taken in the inbox.
func (w *world) byDefault(country string) {
	w.cfg.Defaults = map[string]meta.Defaults{"inbox": {Country: country, DocumentType: "ID_CARD", ByFolder: true, Optional: true}}
	if w.running() {
		w.batch.Set(w.cfg)
	}
}

// script says how the service treats the next requests of a folder.
func (w *world) script() {
	f := w.pick()
	bad := sandbox.Step{Status: 400, Identifier: "BAD_VALUE", Message: "no"}
	if f.session && w.chance(40) {
		list := [][]sandbox.Step{
			{{Fault: sandbox.LoseAnswer}},
			{{Fault: sandbox.Garbage}, {Status: 409, Identifier: "VALIDATION_ERROR", Message: "active"}},
			{{Status: 503}, {Status: 503}, {Status: 503}, {Status: 503}},
			{bad},
		}[w.r.IntN(4)]
		w.api.ScriptSessions(f.token, list...)
		w.say("the service will answer %v, for a session: %+v", f, list)
		return
	}
	list := [][]sandbox.Step{
		{{Fault: sandbox.LoseAnswer}},
		{{Fault: sandbox.HalfAnswer}},
		{{Fault: sandbox.ResetInBody}},
		{{Fault: sandbox.Garbage}},
		{bad},
		{{Status: 400, Identifier: "TOKEN_NOT_VALID", Message: "no"}},
		{{Status: 503}},
		{{Status: 503}, {Status: 503}, {Status: 503}, {Status: 503}},
		{{Fault: sandbox.LoseAnswer}, {Status: 503}, {Status: 503}, {Status: 503}, {Status: 503}},
		{{Fault: sandbox.ResetInBody}, {Status: 503}, {Status: 503}, {Status: 503}},
		{{Fault: sandbox.ResetInBody}, {Status: 400, Identifier: "TOKEN_NOT_VALID", Message: "no"}},
		{{Status: 503}, bad},
		{{Status: 503}, {Status: 400, Identifier: "TOKEN_NOT_VALID", Message: "no"}},
	}[w.r.IntN(13)]
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps[f.token] = append(w.steps[f.token], list...)
	var told []string
	for _, s := range list {
		told = append(told, strings.TrimSpace(fmt.Sprintf("%s %d %s", s.Fault, s.Status, s.Identifier)))
	}
	w.say("the service will answer %v: %s", f, strings.Join(told, ", "))
}

// expire lets the session of an unused token expire.
func (w *world) expire() {
	f := w.pick()
	if f.ref == "" && !f.session || w.running() && !w.atRest() {
		return
	}
	if f.session {
		w.api.Expire(f.token)
		w.say("the sessions of %v expire", f)
		return
	}
	if w.api.Token(f.token).Processed == 0 {
		w.mu.Lock()
		w.may[f.token] = true // from now on it says only that
		w.mu.Unlock()
		w.api.SetStatus(f.token, "EXPIRED")
		w.say("the session of %v expires", f)
	}
}

func (w *world) newToken() {
	f := w.pick()
	w.give(f)
	a := w.writeMeta(f)
	w.say("%v gets a new token, in %s/%s, scanRef %v", f, a.place, a.name, f.ref != "")
	w.connected(f.person)
}

func (w *world) editImage() {
	f := w.pick()
	f.front = tinyImage(uint64(10 + w.r.IntN(1000)))
	a := w.edit(f, "FRONT.jpg", f.front)
	w.say("%v gets another FRONT, in %s/%s", f, a.place, a.name)
	w.connected(f.person)
}

func (w *world) editCountry() {
	f := w.pick()
	f.country = []string{"LT", "LV", "EE"}[w.r.IntN(3)]
	a := w.writeMeta(f)
	w.say("%v gets country %s, in %s/%s", f, f.country, a.place, a.name)
}

func (w *world) badKey() {
	f := w.pick()
	f.bad = true
	a := w.writeMeta(f)
	w.say("%v gets a bad key, in %s/%s", f, a.place, a.name)
}

// mend makes a folder fit to be sent.
func (w *world) mend() {
	f := w.pick()
	f.bad, f.expired = false, false
	a := w.edit(f, "FRONT.png", nil)
	if !f.scanner {
		w.writeMeta(f)
	}
	if f.back == nil {
		f.back = tinyImage(2)
		w.edit(f, "BACK.jpg", f.back)
	}
	w.say("%v is mended, in %s/%s", f, a.place, a.name)
}

// incomplete takes an image away, or has one too many.
func (w *world) incomplete() {
	f := w.pick()
	if w.chance(30) {
		a := w.edit(f, "FRONT.png", f.front)
		w.say("%v has a FRONT too many, in %s/%s", f, a.place, a.name)
		return
	}
	if f.back == nil {
		return
	}
	f.back, f.expired = nil, w.chance(60)
	a := w.edit(f, "BACK.jpg", nil)
	w.say("%v loses BACK, in %s/%s, and the time is over: %v", f, a.place, a.name, f.expired)
}

// tamper does something to the results in a folder.
func (w *world) tamper() {
	f := w.pick()
	dir, a := w.open(f)
	defer dir.Close()
	path := filepath.Join(w.path(a), sidecar.Name)
	data, err := dir.ReadFile(sidecar.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	must(w.s, err)
	id := spool.NewID()
	var res sidecar.Result
	if r, err := sidecar.Read(dir); err == nil {
		res, id = *r, r.ID
	}
	res.ID, res.Folder = id, a.name
	what := w.r.IntN(9)
	switch what {
	case 0:
		w.write(path, data[:len(data)/2])
	case 1:
		w.edit(f, sidecar.Name, nil)
	case 2:
		w.write(path, append(data, bytes.Repeat([]byte{' '}, 5<<20)...))
	case 3:
		w.write(path, append(bytes.Repeat([]byte{' '}, 5<<20), data...))
	case 4:
		w.write(path, []byte("\x00 nothing that can be read"))
	case 5:
		res.Decisions = append(res.Decisions, sidecar.Decision{At: sidecar.Now(), Action: sidecar.Requeued, Forced: true, Result: id, Outcome: res.Outcome})
		w.write(path, encoded(w.s, &res))
	case 6:
		res.Outcome = []sidecar.Outcome{sidecar.Accepted, sidecar.Rejected, sidecar.GaveUp, sidecar.Invalid}[w.r.IntN(4)]
		res.Attempts, res.Reasons = nil, nil
		w.write(path, encoded(w.s, &res))
	case 7:
		res.ID = spool.NewID()
		w.write(path, encoded(w.s, &res))
	case 8: // all of them
		names, err := sidecar.Files(dir)
		must(w.s, err)
		for _, name := range names {
			w.edit(f, name, nil)
		}
	}
	f.weak = f.weak || f.copied
	f.forged, f.touched = true, a.place != spool.Inbox
	w.say("result.json of %v in %s/%s is %s", f, a.place, a.name, []string{"cut in half", "deleted", "5 MiB longer at its end", "5 MiB longer at its head",
		"garbage", "given a decision", fmt.Sprintf("made %s", res.Outcome), "given another id", "deleted, with those of before"}[what])
	w.connected(f.person)
}

// tells reports whether the service can say of all that was processed of a
// person, without doubt, that it was.
func (w *world) tells(p *person) bool {
	n := 0
	for _, tok := range w.tokensOf(p) {
		if seen := w.api.Token(tok); seen.Processed > 0 {
			if n++; seen.ScanRef == "" {
				return false
			}
		}
	}
	return n > 0 && !p.split && p.permits == 1 && // by that decision
		slices.IndexFunc(w.folders, func(f *folder) bool { return f.person == p && f.copied }) < 0
}

func encoded(t testing.TB, r *sidecar.Result) []byte {
	data, err := sidecar.Encode(r)
	must(t, err)
	return data
}

// free returns a name in the place that is not taken.
func (w *world) free(p spool.Place, name string) string {
	for n := 1; ; n++ {
		try := name
		if n > 1 {
			try = fmt.Sprintf("%s-%d", name, n)
		}
		if _, err := os.Lstat(w.path(at{p, try})); errors.Is(err, fs.ErrNotExist) {
			return try
		}
	}
}

// move is mv, from anywhere to anywhere.
func (w *world) move() {
	f := w.pick()
	from := w.find(f)
	to := at{place: spool.Inbox, name: from.name}
	if w.chance(35) {
		to.place = spool.Places()[w.r.IntN(5)]
	}
	if to.place == from.place {
		return
	}
	if from.place == spool.Work && w.chance(80) {
		to.name, _, _ = spool.Split(from.name)
	}
	if from.place.Final() && w.chance(40) { // where it was called by its name once
		if _, err := os.Lstat(filepath.Join(w.path(from), sidecar.Name)); err == nil {
			to.name = fmt.Sprintf("renamed%d", f.no)
		}
	}
	if to.place == spool.Work {
		w.stopped() // it looks into work when it starts
		from = w.find(f)
		if from.place == spool.Work {
			return
		}
		dir, err := os.OpenRoot(w.path(from))
		must(w.s, err)
		id, err := sidecar.ID(dir, sidecar.Name)
		must(w.s, errors.Join(err, dir.Close()))
		switch n := w.r.IntN(10); {
		case n < 7 && id != "":
			to.name += "." + id
		case n < 8:
			to.name += "." + spool.NewID()
		}
	}
	to.name = w.free(to.place, to.name)
	if to.place == spool.Work {
		if _, id, ok := spool.Split(to.name); ok { // two of one id are a copy's affair
			names, err := w.spool.List(spool.Work)
			must(w.s, err)
			if slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, id) }) {
				return
			}
		}
	}
	w.carry(f, from, to)
}

func (w *world) carry(f *folder, from, to at) {
	if err := os.Rename(w.path(from), w.path(to)); errors.Is(err, fs.ErrNotExist) {
		return
	} else if err != nil {
		must(w.s, err)
	}
	f.touched = to.place.Final() || to.place == spool.Work && f.forged
	if to.place == spool.Work {
		w.meant(f)
	}
	w.say("mv %s/%s %s/%s: %v", from.place, from.name, to.place, to.name, f)
}

// copy is cp -r to the inbox, or beside.
func (w *world) copy() {
	if len(w.folders) > 5 {
		return
	}
	f := w.pick()
	src, from := w.open(f)
	defer src.Close()
	to := at{spool.Inbox, from.name}
	if from.place == spool.Work {
		to.name, _, _ = spool.Split(from.name)
	} else if w.chance(30) {
		to.place = from.place
	}
	c := w.newFolder(f.person)
	no := c.no
	to.name = w.free(to.place, to.name+"-copy")
	if w.cfg.Defaults != nil { // where one may have to wait for the other
		to.name = w.free(to.place, fmt.Sprintf("copy%d", no))
	}
	*c = *f
	c.no, c.copied, c.touched = no, true, to.place.Final()
	without := w.chance(50)
	c.weak = without || f.forged
	hidden := filepath.Join(w.paths[to.place], ".copying")
	must(w.s, os.Mkdir(hidden, 0o770))
	entries, err := fs.ReadDir(src.FS(), ".")
	must(w.s, err)
	if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return sidecar.IsOwn(e.Name()) }) {
		c.weak = true
	}
	for _, e := range entries {
		if without && sidecar.IsOwn(e.Name()) {
			continue
		}
		if data, err := src.ReadFile(e.Name()); err == nil {
			w.write(filepath.Join(hidden, e.Name()), data)
		}
	}
	w.write(filepath.Join(hidden, marker), fmt.Append(nil, c.no))
	if f.scanner { // else the copy would be another person's, see TestNameOfLives
		c.scanner = false
		w.write(filepath.Join(hidden, "meta.yaml"), []byte(sample.Person(c.token, c.country, "ID_CARD")))
	}
	must(w.s, os.Rename(hidden, w.path(to)))
	w.say("cp -r %s/%s %s/%s: %v, as %v, without the results: %v", from.place, from.name, to.place, to.name, f, c, without)
	w.connected(f.person)
}

// desk returns the desk of the daemon, or that of a command while none runs.
func (w *world) desk() (d *decision.Desk, done func()) {
	j, inWork, done := w.journal, w.batch.InWork, func() {}
	if !w.running() {
		inWork = w.paths.Has
		var err error
		j, err = journal.Open(w.bench.where)
		must(w.s, err)
		done = func() { must(w.s, j.Close()) }
	}
	d = &decision.Desk{Paths: w.paths, Journal: j, InWork: inWork}
	if w.chance(60) {
		d.Status = w.client.Status
	}
	return d, done
}

// insist is what people do whose folder came back, and who want it sent: a new
// token, what is wrong mended, and back to the inbox, by hand or by decision.
func (w *world) insist() {
	f := w.pick()
	a := w.find(f)
	if !a.place.Final() {
		return
	}
	f.bad = false
	if w.chance(70) {
		w.give(f)
	}
	w.writeMeta(f)
	w.edit(f, "FRONT.png", nil)
	w.say("%v gets what its people believe is missing, in %s/%s, %s", f, a.place, a.name, f.token)
	w.connected(f.person)
	if w.chance(30) {
		w.carry(f, a, at{spool.Inbox, w.free(spool.Inbox, a.name)})
		return
	}
	dec := decision.Decision{Action: sidecar.Requeued, By: sidecar.Person{UID: 7}, Force: w.chance(40)}
	if a.place == spool.Hold {
		dec.Action = []sidecar.Action{sidecar.Denied, sidecar.Resubmit, sidecar.Resubmit}[w.r.IntN(3)]
	}
	w.make(f, a, dec)
}

// decide is what a person decides, as often in the usual way as against it.
func (w *world) decide() {
	f := w.pick()
	a := w.find(f)
	if !a.place.Final() {
		return
	}
	dec := decision.Decision{
		Action: []sidecar.Action{sidecar.Requeued, sidecar.Confirmed, sidecar.Denied, sidecar.Resubmit}[w.r.IntN(4)],
		By:     sidecar.Person{UID: 7}, Force: w.chance(30),
	}
	if w.chance(50) { // the usual
		dec.Action = sidecar.Requeued
		if a.place == spool.Hold {
			dec.Action = []sidecar.Action{sidecar.Denied, sidecar.Resubmit}[w.r.IntN(2)]
		}
	}
	w.make(f, a, dec)
}

func (w *world) make(f *folder, a at, dec decision.Decision) {
	d, done := w.desk()
	defer done()
	to, name, err := d.Make(w.s.Context(), string(a.place)+"/"+a.name, dec)
	for tries := 0; errors.Is(err, journal.ErrChanged) && tries < 10; tries++ { // as the error says
		to, name, err = d.Make(w.s.Context(), string(a.place)+"/"+a.name, dec)
	}
	w.decided(f, a, dec, err, fmt.Sprintf("%s/%s", to, name))
	if err == nil && !dec.Force && d.Status != nil && dec.Action == sidecar.Denied && !f.forged && w.tells(f.person) {
		w.s.Errorf("%s of %v was allowed, though the service would say that it was taken", dec.Action, f)
	}
	var refused *decision.RefusedError
	if err != nil && !errors.As(err, &refused) && !errors.Is(err, journal.ErrChanged) {
		w.s.Fatalf("deciding: %v", err)
	}
}

// decided notes what a decision allows.
func (w *world) decided(f *folder, a at, dec decision.Decision, err error, to string) {
	force := map[bool]string{true: " --force"}[dec.Force]
	if _, refused := errors.AsType[*decision.RefusedError](err); refused || errors.Is(err, journal.ErrChanged) { // an attempt ended just then
		w.say("%s%s of %v in %s/%s is refused: %v", dec.Action, force, f, a.place, a.name, err)
		return
	}
	w.say("%s%s of %v in %s/%s: %s, %v", dec.Action, force, f, a.place, a.name, to, err)
	done := w.api.Persons()[f.person.sum] > 0 || w.working(f.person)
	switch dec.Action {
	case sidecar.Confirmed:
		f.person.taken = true
	case sidecar.Denied:
		if done { // that is wrong, but a person's word
			f.person.permits++
			w.wanted(f.person)
		}
	default:
		if done && dec.Force {
			f.person.permits++
			w.wanted(f.person)
		}
	}
	w.meant(f)
	f.touched = f.touched && !strings.HasPrefix(to, string(spool.Inbox))
}

// wanted allows what a person wants: tokens that were used may be sent again,
// in vain.
func (w *world) wanted(p *person) {
	for _, tok := range w.tokensOf(p) {
		for range 100 * w.api.Token(tok).Processed {
			w.api.Forgive(tok)
		}
	}
}

// meant notes that something happened to the submission of a folder, which may
// be that of its copies, too.
func (w *world) meant(f *folder) {
	for _, c := range w.folders {
		c.touched = c.touched || c.person == f.person && c != f
	}
}

// working reports whether a folder of the person is in work, and may yet be
// processed.
func (w *world) working(p *person) bool {
	where := w.where()
	return slices.ContainsFunc(w.folders, func(f *folder) bool {
		return f.person == p && slices.ContainsFunc(where[f.no], func(a at) bool { return a.place == spool.Work })
	})
}

// decideCut is a decision during which the process ends.
func (w *world) decideCut() {
	f := w.pick()
	a := w.find(f)
	if !a.place.Final() {
		return
	}
	w.stopped()
	if a = w.find(f); !a.place.Final() {
		return
	}
	dec := decision.Decision{Action: sidecar.Requeued, Force: w.chance(50)}
	if a.place == spool.Hold {
		dec.Action = []sidecar.Action{sidecar.Confirmed, sidecar.Denied, sidecar.Resubmit}[w.r.IntN(3)]
	}
	d, done := w.desk()
	w.faults(1+w.r.Int64N(10), 0, w.chance(50), true)
	to, name, err := d.Make(w.s.Context(), string(a.place)+"/"+a.name, dec)
	w.say("the next decision is cut off at step %d (done: %v)", w.plan.n, w.plan.applied)
	w.noFaults()
	done()
	w.decided(f, a, dec, err, fmt.Sprintf("%s/%s", to, name))
	f.touched = true
}

// set changes the settings.
func (w *world) set() {
	w.cfg.Concurrency = 1 + w.r.IntN(3)
	w.cfg.Retry.GiveUpAfter = []time.Duration{time.Nanosecond, time.Hour}[w.r.IntN(2)]
	if w.cfg.Defaults != nil {
		w.byDefault([]string{"LT", "EE"}[w.r.IntN(2)])
	}
	w.say("settings: %d at once, given up after %s", w.cfg.Concurrency, w.cfg.Retry.GiveUpAfter)
	if w.running() {
		w.batch.Set(w.cfg)
	}
}

func (w *world) running() bool { return w.stop != nil }

// started starts the daemon, if it does not run.
func (w *world) started() {
	if !w.running() {
		w.told()
		w.broke.Store(false)
		w.start()
		w.say("the daemon starts")
	}
}

// stopped stops it, if it runs; what it was sending is cut off. What it had
// sent and could not record may be sent once more.
func (w *world) stopped() {
	if !w.running() {
		return
	}
	w.end()
	w.told()
	w.say("the daemon stops")
	w.forgive()
}

// forgive is bench.forgive, for what was cut off as well: the service may have
// taken its answer for read.
func (w *world) forgive() {
	// What it had is answered before people do anything: else the service would
	// take what nobody waits for any more, after a person was told that it had not.
	for end := time.Now().Add(2 * time.Second); w.api.Report().InFlight > 0 && time.Now().Before(end); {
		time.Sleep(100 * time.Microsecond)
	}
	for _, p := range w.people {
		if p.split { // what was forced for one folder may meet the token of another
			w.wanted(p)
		}
	}
	w.attempted(func(hashed, _ string, s sidecar.State) {
		if s != sidecar.Sending && s != sidecar.NoAnswer {
			return
		}
		for _, p := range w.people {
			for _, tok := range w.tokensOf(p) {
				if hash(tok) == hashed { // it may only just be reading the request
					w.api.Forgive(tok)
				}
			}
		}
	})
}

// faults lets steps of the disk fail from now on.
func (w *world) faults(n, more int64, applied, crash bool) {
	w.plan = &plan{n: n, more: more, applied: applied, crash: crash}
	disks.Store(w.root, w.plan)
}

func (w *world) noFaults() {
	w.plan = &plan{}
	disks.Store(w.root, w.plan)
}

// up ends an outage.
func (w *world) up() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		w.say("the service is there again")
	}
	w.down = false
}

// ready hands on what is ready in the inbox, and reports whether anything was.
func (w *world) ready() bool {
	names, err := w.spool.List(spool.Inbox)
	must(w.s, err)
	found := false
	for _, name := range names {
		a, ok := w.watch(name)
		if !ok {
			continue
		}
		found = true
		select {
		case w.in <- a:
		case <-time.After(time.Millisecond):
		}
	}
	return found
}

// watch tells of a folder what the watcher would.
func (w *world) watch(name string) (a drop.Arrival, ok bool) {
	parent, err := os.OpenRoot(w.paths[spool.Inbox])
	must(w.s, err)
	defer parent.Close()
	root, err := drop.Open(parent, name)
	if err != nil { // it went on
		return a, false
	}
	defer root.Close()
	list, err := meta.List(root, limits)
	if err != nil {
		return a, true
	}
	lim := limits
	lim.Defaults = w.cfg.Defaults["inbox"]
	rep := meta.Inspect(root, name, list, lim, false)
	a = drop.Arrival{Dir: w.paths[spool.Inbox], Name: name, Content: list.Content, FirstSeen: time.Now(), Complete: time.Now()}
	if len(rep.Invalid) > 0 || len(rep.Waits) == 0 {
		return a, true
	}
	data, err := root.ReadFile(marker)
	if err != nil {
		return a, true // it went on
	}
	no := 0
	if _, err = fmt.Sscan(string(data), &no); err != nil || no < 1 {
		return a, true
	}
	a.Expired = w.folders[no-1].expired
	return a, a.Expired
}

// atRest reports whether there is nothing to do.
func (w *world) atRest() bool {
	names, err := w.spool.List(spool.Work)
	must(w.s, err)
	return len(names) == 0 && w.ev.turns.Load() > 0 && w.ev.inFlight.Load() == 0
}

// drive lets the daemon work until cond holds, or nothing is to be done. It
// reports whether cond holds.
func (w *world) drive(cond func() bool) bool {
	rests := 0
	for end := time.Now().Add(30 * time.Second); rests < 2; {
		if cond() {
			return true
		}
		if w.broke.Load() { // as systemd would
			w.say("the daemon ends by itself")
			w.stopped()
			w.started()
		}
		before := w.ev.turns.Load()
		if !w.ready() && w.atRest() && w.ev.turns.Load() == before {
			rests++
			continue
		}
		rests = 0
		if time.Now().After(end) {
			w.s.Fatalf("it does not come to rest; %v", w.where())
		}
		time.Sleep(100 * time.Microsecond)
	}
	return cond()
}

func never() bool { return false }

func (w *world) run() {
	w.up()
	w.started()
	w.drive(never)
}

// halt only stops it.
func (w *world) halt() { w.stopped() }

// crash ends the process at a step of the disk.
func (w *world) crash() {
	w.up()
	w.faults(1+w.r.Int64N(45), 0, w.chance(50), true)
	w.say("the process ends at step %d (done: %v)", w.plan.n, w.plan.applied)
	w.started()
	dead := w.plan.dead.Load
	w.drive(dead)
	if failed, ok := w.plan.failed.Load().(string); ok {
		w.say("it was %s", failed)
	}
	w.end()
	w.told()
	w.noFaults()
	w.forgive()
}

// fullDisk lets some steps of the disk fail.
func (w *world) fullDisk() {
	w.up()
	w.faults(1+w.r.Int64N(40), w.r.Int64N(6), w.chance(50), false)
	w.say("the disk fails at steps %d to %d (done: %v)", w.plan.n, w.plan.n+w.plan.more, w.plan.applied)
	w.started()
	w.drive(never)
	w.noFaults()
}

// outage lets the service refuse the account, so that folders wait in work.
func (w *world) outage() {
	w.mu.Lock()
	w.down = true
	w.mu.Unlock()
	w.say("the service refuses the account")
	w.started()
	w.drive(func() bool { return w.ev.has("shut") && w.ev.inFlight.Load() == 0 })
}

// cutOff stops the daemon while the service has a request.
func (w *world) cutOff() {
	w.up()
	f := w.pick()
	fault := []sandbox.Fault{sandbox.Stall, sandbox.StallAnswer}[w.r.IntN(2)]
	w.mu.Lock()
	w.steps[f.token] = []sandbox.Step{{Fault: fault}}
	w.mu.Unlock()
	before := w.api.Report().ByAnswer[string(fault)]
	w.say("the daemon is stopped while %v is with the service: %s", f, fault)
	w.started()
	w.drive(func() bool { return w.api.Report().ByAnswer[string(fault)] > before })
	w.stopped()
	w.mu.Lock()
	w.steps[f.token] = nil
	w.mu.Unlock()
}

// hidden has something lie over work for a while.
func (w *world) hidden() {
	w.started()
	work := w.paths[spool.Work]
	w.plan.mounted.Store(true)
	must(w.s, os.Rename(work, work+".hidden"))
	must(w.s, os.Mkdir(work, 0o700))
	w.say("something lies over work")
	paused := w.ev.count("shut")
	w.drive(func() bool { return w.ev.count("shut") > paused || w.broke.Load() })
	if err := os.Remove(work); err != nil {
		w.s.Errorf("something was put into the wrong work: %v; there is %q", err, w.all())
		_ = os.Rename(work, work+".wrong")
	}
	must(w.s, os.Rename(work+".hidden", work))
	w.plan.mounted.Store(false)
	w.say("nothing lies over work any more")
	if w.broke.Load() { // it had just begun
		w.stopped()
	}
}

// check holds the end against what was promised.
func (w *world) check() {
	w.story = append(w.story, "and at last:")
	w.stopped()
	w.run()
	w.stopped()
	w.note()
	where := w.where()
	for _, f := range w.folders {
		if list := where[f.no]; len(list) != 1 {
			w.s.Errorf("%v is in %d places: %v; there is %q", f, len(list), list, w.all())
			continue
		}
		a := where[f.no][0]
		w.say("%v lies in %s/%s", f, a.place, a.name)
		w.whole(f, a)
	}
	j, err := journal.Open(w.bench.where)
	must(w.s, err)
	defer func() { must(w.s, j.Close()) }()
	lives, err := j.InWork(w.s.Context())
	must(w.s, err)
	w.noTokens(true)
	if len(lives) > 0 {
		w.s.Errorf("the journal has lives in work: %v", lives)
	}
	w.nobodys()
	sums := w.api.Persons()
	for _, p := range w.people {
		n := sums[p.sum]
		w.processed += n
		w.forced += max(n-1, 0)
		if p.split {
			w.apart++
		}
		w.say("person %d was processed %d times, %d decisions allowed another; connected %v", p.no, n, p.permits, !p.split)
		if n > 1+p.permits && !p.split {
			w.s.Errorf("person %d was processed %d times, and %d decisions allowed another", p.no, n, p.permits)
		}
	}
	for _, f := range w.folders {
		if list := where[f.no]; len(list) == 1 && list[0].place.Final() && !f.touched {
			w.explained(f, list[0], j, where)
		}
	}
	if !slices.ContainsFunc(w.folders, func(f *folder) bool { return f.touched || f.forged || f.copied }) {
		w.verified(j.Reader(), func(f verify.Finding) bool { // images and meta.yaml are edited where a folder lies
			return strings.HasPrefix(f.Code, "image_") || strings.HasPrefix(f.Code, "meta_") || strings.HasPrefix(f.Code, "file_")
		})
	}
}

// nobodys looks for clientIds that no person has: a folder was called otherwise,
// and taken for another's.
func (w *world) nobodys() {
	db := w.database()
	defer db.Close()
	each(w.s, db, "SELECT DISTINCT client_id, 0, '' FROM life WHERE client_id IS NOT NULL", func(client string, _ int, _ string) {
		if !slices.ContainsFunc(w.people, func(p *person) bool { return p.client == client }) {
			w.s.Errorf("a folder was taken for one of %s", client)
		}
	})
}

// all returns the paths of all that there is.
func (w *world) all() (paths []string) {
	must(w.s, fs.WalkDir(os.DirFS(w.root), ".", func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	}))
	return paths
}

// stands reports whether a folder says, by its place or its reasons, that its
// person was, or may have been, taken.
func (w *world) stands(a at) bool {
	if a.place == spool.Done || a.place == spool.Hold {
		return true
	}
	dir, err := os.OpenRoot(w.path(a))
	must(w.s, err)
	defer dir.Close()
	r, err := sidecar.Read(dir)
	return err == nil && slices.Contains(codes(r), sidecar.SentBefore)
}

// whole looks at the images.
func (w *world) whole(f *folder, a at) {
	files := map[string][]byte{"FRONT.jpg": f.front, "FACE.jpg": f.person.face}
	if f.back != nil {
		files["BACK.jpg"] = f.back
	}
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(w.path(a), name)); err != nil || !bytes.Equal(got, want) {
			w.s.Errorf("%s of %v is not whole: %v", name, f, err)
		}
	}
}

// explained holds a result against the journal and against what happened.
func (w *world) explained(f *folder, a at, j *journal.Journal, where map[int][]at) {
	dir, err := os.OpenRoot(w.path(a))
	must(w.s, err)
	defer dir.Close()
	r, err := sidecar.Read(dir)
	if err != nil {
		w.s.Errorf("%v in %s/%s: %v", f, a.place, a.name, err)
		return
	}
	w.say("%v is %s: %v", f, r.Outcome, codes(r))
	w.entered(j.Reader(), a.place, a.name)
	l, err := j.Load(w.s.Context(), r.ID)
	must(w.s, err)
	switch {
	case l == nil:
		w.s.Errorf("%v: the journal doesn't know %s", f, r.ID)
	case l.Outcome() != r.Outcome, l.Place != string(a.place), l.Name != a.name:
		w.s.Errorf("%v is %s in %s/%s; the journal says %s in %s/%s", f, r.Outcome, a.place, a.name, l.Outcome(), l.Place, l.Name)
	}
	p := f.person
	n := w.api.Persons()[p.sum]
	if r.Outcome == sidecar.Accepted && n == 0 && !p.taken {
		w.s.Errorf("%v is accepted, and was never processed", f)
	}
	if n == 0 || p.permits > 0 || p.split || f.weak || !r.Times.Finished.After(p.first.Add(time.Millisecond)) {
		return
	}
	var ok bool
	switch a.place {
	case spool.Done:
		ok = r.Outcome == sidecar.Accepted
	case spool.Hold:
		ok = r.Outcome == sidecar.Unknown
	default:
		ok = r.Outcome == sidecar.Invalid && slices.ContainsFunc(codes(r), func(c string) bool {
			return c == sidecar.SentBefore || strings.HasSuffix(c, "_used") || strings.HasSuffix(c, "_undecided")
		})
		if (r.Outcome == sidecar.Invalid || r.Outcome == sidecar.Incomplete) && len(r.Attempts) == 0 {
			ok = ok || slices.ContainsFunc(w.folders, func(c *folder) bool { // a copy, and another one stands for the person, or did until somebody moved it
				return c != f && c.person == p && (c.touched || w.stands(where[c.no][0]))
			})
		}
	}
	if !ok {
		w.s.Errorf("%v was processed, and is %s in %s: %v", f, r.Outcome, a.place, codes(r))
	}
}

// connected notes when nothing but the FACE connects the folders of a person,
// with each other and with what was sent before: then nobody can know.
func (w *world) connected(p *person) {
	db := w.database()
	defer db.Close()
	rows, err := db.QueryContext(context.Background(), "SELECT id, kase, coalesce(dir, ''), coalesce(token, ''), coalesce(content, '') FROM life")
	must(w.s, err)
	defer rows.Close()
	cases := map[string][]string{} // by id, directory, token and content
	for rows.Next() {
		var id, kase, dir, token, content string
		must(w.s, rows.Scan(&id, &kase, &dir, &token, &content))
		for _, key := range []string{id, dir, token, content} {
			if key != "" {
				cases[key] = append(cases[key], kase)
			}
		}
	}
	must(w.s, rows.Err())
	all := map[string]bool{}
	known := func(keys ...string) map[string]bool {
		found := map[string]bool{}
		for _, key := range keys {
			for _, k := range cases[key] {
				found[k], all[k] = true, true
			}
		}
		return found
	}
	for _, tok := range w.tokensOf(p) {
		known(hash(tok))
	}
	where := w.where()
	var each []map[string]bool
	tokens := map[string]bool{}
	for _, f := range w.folders {
		if f.person != p || len(where[f.no]) == 0 {
			continue
		}
		dir, _ := w.open(f)
		keys, err := sidecar.IDs(dir)
		must(w.s, err)
		identity, err := drop.Identity(dir)
		must(w.s, errors.Join(err, dir.Close()))
		own := hash(f.token)
		if f.session {
			own = f.content()
		}
		tokens[own] = true
		each = append(each, known(append(keys, identity, own)...))
	}
	together := len(all) > 0 || len(tokens) <= 1
	for _, k := range each {
		together = together && len(k) == len(all)
	}
	if !together && !p.split {
		p.split = true
		w.say("(nothing but FACE connects what there is of person %d now)", p.no)
	}
}

func hash(tok string) string { return sum([]byte(tok)) }

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}
