package control

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"idenfy-batch/internal/journal"
	"idenfy-batch/sidecar"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve runs a server on root until the returned function is called.
func serve(t *testing.T, root string, s *Server) (end func()) {
	t.Helper()
	l, err := Listen(root)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return end
}

func TestReload(t *testing.T) {
	root := t.TempDir()
	if _, err := Dial(root); !errors.Is(err, ErrNoDaemon) {
		t.Fatalf("without a daemon: %v", err)
	}
	var refuse error
	end := serve(t, root, &Server{Reload: func(context.Context) (string, error) { return "note", refuse }})
	c, err := Dial(root)
	must(t, err)
	defer c.Close()
	if note, err := c.Reload(t.Context()); note != "note" || err != nil {
		t.Errorf("%q, %v", note, err)
	}
	refuse = errors.New("line 1: bad\nline 2: bad")
	var refused *RefusedError
	if _, err := c.Reload(t.Context()); !errors.As(err, &refused) || err.Error() != refuse.Error() {
		t.Errorf("refused with %v", err)
	}
	for path, mode := range map[string]os.FileMode{"journal": os.ModeDir | 0o750, "journal/control.sock": os.ModeSocket | 0o660} {
		if info, err := os.Lstat(filepath.Join(root, path)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	end()
	if _, err := c.Reload(t.Context()); err == nil {
		t.Error("a daemon that has ended answers")
	}
	if _, err := Dial(root); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("after its end: %v", err)
	}
}

func TestDecide(t *testing.T) {
	root := t.TempDir()
	var got Decision
	serve(t, root, &Server{Decide: func(_ context.Context, d Decision) []Decided {
		got = d
		return []Decided{{Name: "a", Place: "inbox", NewName: "a.2"}, {Name: "b", Err: "no"}}
	}})
	c, err := Dial(root)
	must(t, err)
	defer c.Close()
	other, login := uint32(12345), uint32(1000)
	list, err := c.Decide(t.Context(), Decision{
		Names: []string{"a", "b"}, Action: sidecar.Requeued, Force: true, Comment: "why",
		By: sidecar.Person{UID: other, User: "somebody", EUID: &other, LoginUID: &login, Sudo: "else"},
	})
	if err != nil || len(list) != 2 || list[0].NewName != "a.2" || list[1].Err != "no" {
		t.Errorf("%+v, %v", list, err)
	}
	if got.By.UID != uint32(os.Geteuid()) || got.By.User == "somebody" || got.By.EUID != nil || got.By.Sudo != "" || *got.By.LoginUID != login {
		t.Errorf("by %+v", got.By)
	}
	if len(got.Names) != 2 || !got.Force || got.Comment != "why" || got.Action != sidecar.Requeued {
		t.Errorf("asked %+v", got)
	}
	var refused *RefusedError
	if _, err := c.Decide(t.Context(), Decision{Comment: strings.Repeat("x", maxRequest)}); !errors.As(err, &refused) {
		t.Errorf("too large: %v", err)
	}
}

// What is asked of the journal comes back as the journal has it, through the
// socket as without it; for whoever the socket lets in, and not only for those
// who may decide.
func TestRead(t *testing.T) {
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "work"), 0o700))
	j, err := journal.Create(journal.Where{Dir: filepath.Join(root, "journal"), Mark: filepath.Join(root, "work")})
	must(t, err)
	defer j.Close()
	must(t, j.Claim("AAAAAAAAAAAAAAAAAAAAAAAAAA", "inbox", "case-1"))
	server := &Server{Reader: j.Reader()}
	serve(t, root, server)
	c, err := Dial(root)
	must(t, err)
	defer c.Close()
	for _, r := range []Reader{j.Reader(), c} {
		list, err := r.List(t.Context(), journal.Query{Place: "work", Since: time.Now().Add(-time.Hour), Most: 5})
		if err != nil || len(list) != 1 || list[0].Folder != "case-1" || time.Since(list[0].Claimed.Time) > time.Minute {
			t.Errorf("%T: %+v, %v", r, list, err)
		}
		all, err := r.Show(t.Context(), journal.Search{Key: "case-1", Most: 5})
		if err != nil || all.Total != 1 || all.Stories[0].Lives[0].State != journal.Claimed || all.Stories[0].Lives[0].Result.Folder != "case-1" {
			t.Errorf("%T: %+v, %v", r, all, err)
		}
		names, err := r.Names(t.Context(), journal.Search{Key: "ca", Most: 5})
		if err != nil || len(names) != 1 || names[0] != "case-1" {
			t.Errorf("%T: %v, %v", r, names, err)
		}
	}
	w := httptest.NewRecorder()
	read(server, j.Reader().Names).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/names", strings.NewReader(`{"key":"c","most":1}`)))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "case-1") {
		t.Errorf("whoever the socket lets in: %d, %s", w.Code, w.Body)
	}
}

// A root whose path is longer than a socket's address may be, a socket that a
// killed daemon left, and a runtime directory.
func TestPlaces(t *testing.T) {
	s := &Server{Reload: func(context.Context) (string, error) { return "", nil }}
	ask := func(root string) {
		t.Helper()
		c, err := Dial(root)
		must(t, err)
		defer c.Close()
		_, err = c.Reload(t.Context())
		must(t, err)
	}
	root := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	must(t, os.Mkdir(root, 0o700))
	l, err := Listen(root)
	must(t, err)
	must(t, l.Listener.Close()) // and not l: the socket stays
	if _, err := Dial(root); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("after a kill: %v", err)
	}
	end := serve(t, root, s)
	ask(root)
	end()

	run := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", run+":/nowhere")
	end = serve(t, root, s)
	ask("/nowhere") // the service's own command, whatever its root
	t.Setenv("RUNTIME_DIRECTORY", "")
	ask(root)
	if there, err := os.Readlink(filepath.Join(root, "journal/run")); err != nil || there != run {
		t.Errorf("link: %q, %v", there, err)
	}
	end()
	serve(t, root, s)
	ask(root)
	if _, err := os.Lstat(filepath.Join(root, "journal/run")); err == nil {
		t.Error("the link is still there")
	}
}

// What is not the daemon's own is not removed.
func TestInTheWay(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "journal/control.sock"), 0o700))
	if _, err := Listen(root); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := Listen(filepath.Join(root, "nowhere")); err == nil || !strings.Contains(err.Error(), "install -d") {
		t.Errorf("no root: %v", err)
	}
}

// Those who are connected and say nothing hold nobody up for long, nor the end.
func TestManyConnections(t *testing.T) {
	root := t.TempDir()
	end := serve(t, root, &Server{Reload: func(context.Context) (string, error) { return "", nil }})
	var idle []net.Conn
	for range 3 * maxConnections {
		c, err := connect(t.Context(), filepath.Join(root, "journal"))
		must(t, err)
		idle = append(idle, c)
	}
	for _, c := range idle {
		must(t, c.Close())
	}
	c, err := Dial(root)
	must(t, err)
	defer c.Close()
	_, err = c.Reload(t.Context())
	must(t, err)
	begin := time.Now()
	end()
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("the end took %s", took)
	}
}

// Whoever is neither root nor the daemon's user is told so, and nothing is done.
func TestOthersAreRefused(t *testing.T) {
	h := allow(func(http.ResponseWriter, *http.Request) { t.Error("it was done") })
	for _, ctx := range []context.Context{t.Context(), context.WithValue(t.Context(), peerKey{}, uint32(os.Geteuid()+4242))} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/reload", nil))
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "only root") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

func TestPerson(t *testing.T) {
	t.Setenv("SUDO_USER", "nobody-at-all")
	p := Self()
	if p.UID != uint32(os.Getuid()) || p.EUID != nil || p.Sudo != "" {
		t.Errorf("%+v", p)
	}
	if uid, err := parseLoginUID("1000\n"); uid != 1000 || err != nil {
		t.Errorf("%d, %v", uid, err)
	}
	for _, text := range []string{"4294967295", "", "x", "-1"} {
		if uid, err := parseLoginUID(text); err == nil {
			t.Errorf("%q is %d", text, uid)
		}
	}
}

// As many others as may be connected shut out neither root nor the daemon's
// user.
func TestOthersLeaveRoom(t *testing.T) {
	root := t.TempDir()
	l, err := Listen(root)
	must(t, err)
	var strangers atomic.Bool
	l.privileged = func(uint32) bool { return !strangers.Load() }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	s := &Server{Reload: func(context.Context) (string, error) { return "", nil }}
	go func() { done <- s.Serve(ctx, l) }()
	strangers.Store(true)
	for range 3 * maxConnections {
		c, err := connect(t.Context(), filepath.Join(root, "journal"))
		must(t, err)
		defer c.Close()
	}
	for len(l.others) < cap(l.others) {
		runtime.Gosched()
	}
	last, err := connect(t.Context(), filepath.Join(root, "journal"))
	must(t, err)
	if _, err := last.Read(make([]byte, 1)); err == nil { // it was turned away, so all before were seen
		t.Error("one too many is served")
	}
	must(t, last.Close())
	strangers.Store(false)
	begin := time.Now()
	c, err := Dial(root)
	must(t, err)
	defer c.Close()
	if _, err = c.Reload(t.Context()); err != nil || time.Since(begin) > 4*time.Second { // the silent ones are dropped after 5 s
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
	cancel()
	must(t, <-done)
}

// Nobody reads for longer than readTime.
func TestReadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, w := time.Now(), httptest.NewRecorder()
		h := read(&Server{}, func(ctx context.Context, _ journal.Search) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
		h.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/show", strings.NewReader(`{"key":"c","most":1}`)))
		if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "longer than 30s") {
			t.Errorf("%d, %s", w.Code, w.Body)
		}
		if took := time.Since(begin); took != readTime {
			t.Errorf("it took %s", took)
		}
	})
}
