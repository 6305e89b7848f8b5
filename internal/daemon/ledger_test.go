package daemon

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	_ "modernc.org/sqlite" // to alter a journal

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/internal/spool"
)

// office is a spool with a journal, and what a notary reported.
type office struct {
	t   *testing.T
	cfg config.Config
	j   *journal.Journal
	ev  []string
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{t: t, cfg: config.Default()}
	o.cfg.Root = t.TempDir()
	for _, p := range o.cfg.Spool() {
		ok(t, os.Mkdir(p, 0o700))
	}
	o.open()
	t.Cleanup(func() { _ = o.j.Close() }) // it may be closed by then
	return o
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (o *office) open() {
	o.t.Helper()
	var err error
	o.j, err = OpenJournal(o.t.Context(), Journal(&o.cfg), o.cfg.Spool(), func(events.Event) {})
	ok(o.t, err)
}

// start is what a start of the daemon does.
func (o *office) start() (*notary, error) {
	o.t.Helper()
	n, err := newNotary(o.t.Context(), &o.cfg, o.j, func(e events.Event) {
		tr, _ := e.(events.Trouble)
		o.ev = append(o.ev, tr.What+": "+tr.Err.Error())
	})
	if err == nil {
		err = o.j.Started("test", n.key.Verifier(), false)
	}
	return n, err
}

func (o *office) path(name string) string { return filepath.Join(o.cfg.Root, "journal", name) }

// size is how many entries the checkpoint has; it has to be the journal's own.
func (o *office) size(n *notary) int64 {
	o.t.Helper()
	data, err := os.ReadFile(o.path(CheckpointName))
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	ok(o.t, err)
	c, err := ledger.Open(data, n.key.Verifier())
	ok(o.t, err)
	return c.N
}

// A checkpoint is written each minute in which something was entered, and in
// no other.
func TestSigned(t *testing.T) {
	o := newOffice(t)
	n, err := o.start()
	ok(t, err)
	ok(t, o.j.Close())
	synctest.Test(t, func(t *testing.T) {
		j, err := journal.Open(Journal(&o.cfg))
		ok(t, err)
		defer j.Close()
		n.journal = j
		ctx, stop := context.WithCancel(t.Context())
		go n.run(ctx)
		minute := func() (int64, time.Time) {
			time.Sleep(time.Minute)
			synctest.Wait()
			info, err := os.Stat(o.path(CheckpointName))
			ok(t, err)
			return o.size(n), info.ModTime()
		}
		if size, _ := minute(); size != 1 {
			t.Errorf("%d", size)
		}
		ok(t, os.Chtimes(o.path(CheckpointName), time.Unix(1, 0), time.Unix(1, 0)))
		if _, at := minute(); at.Unix() != 1 {
			t.Error("it was written, and nothing was entered")
		}
		ok(t, j.Started("test", n.key.Verifier(), false))
		ok(t, j.Started("test", n.key.Verifier(), false))
		if size, _ := minute(); size != 3 {
			t.Errorf("%d", size)
		}
		// What fails is tried again.
		ok(t, j.Started("test", n.key.Verifier(), false))
		durable.Inject(func(op durable.Op, path string, do func() error) error {
			if op != durable.OpCommit && strings.Contains(path, CheckpointName) {
				return errors.New("injected")
			}
			return do()
		})
		size, _ := minute()
		durable.Inject(nil)
		if size != 3 || len(o.ev) != 1 || !strings.Contains(o.ev[0], "not written") {
			t.Errorf("%d, %v", size, o.ev)
		}
		if size, _ := minute(); size != 4 {
			t.Errorf("%d", size)
		}
		stop()
		synctest.Wait()
	})
	info, err := os.Stat(o.path(CheckpointName))
	ok(t, err)
	key, err := os.Stat(o.path(keyName))
	ok(t, err)
	if info.Mode().Perm() != 0o640 || key.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), key.Mode())
	}
}

// What becomes of a journal, or its checkpoint, between two starts.
func TestResumed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(o *office)
		unfit  string // what the start refuses with
		says   string // what it reports
	}{
		"nothing":          {func(*office) {}, "", ""},
		"no checkpoint":    {func(o *office) { ok(o.t, os.Remove(o.path(CheckpointName))) }, "", ""},
		"cut off":          {func(o *office) { o.alter("DELETE FROM entry WHERE n >= 2") }, "is behind its own checkpoint: its ledger has 2 entries, and had at least 3", ""},
		"all is gone":      {func(o *office) { o.alter("DELETE FROM entry") }, "has 0 entries, and had at least 3", ""},
		"tree replaced":    {func(o *office) { o.alter("UPDATE entry SET hashes = zeroblob(length(hashes)) WHERE n = 2") }, "does not go on from its own checkpoint", ""},
		"another key":      {func(o *office) { ok(o.t, os.Remove(o.path(keyName))) }, "", "goes on with another key"},
		"a bad key":        {func(o *office) { ok(o.t, os.WriteFile(o.path(keyName), []byte("x"), 0o600)) }, "ledger.key: this is no key", ""},
		"a readable key":   {func(o *office) { ok(o.t, os.Chmod(o.path(keyName), 0o644)) }, "chmod 600", ""},
		"a cut checkpoint": {func(o *office) { ok(o.t, os.Truncate(o.path(CheckpointName), 40)) }, "", "set aside"},
		"a link": {func(o *office) {
			ok(o.t, os.Remove(o.path(CheckpointName)))
			ok(o.t, os.Symlink("x", o.path(CheckpointName)))
		}, "", "set aside"},
		"made anew": {func(o *office) {
			_, _, err := Adopt(o.t.Context(), Journal(&o.cfg), o.cfg.Spool(), "", true, func(int, int) {})
			ok(o.t, err)
			if list, err := filepath.Glob(o.path(CheckpointName + ".aside-*")); err != nil || len(list) != 1 {
				o.t.Errorf("the old checkpoint: %v, %v", list, err)
			}
		}, "", ""},
		"another journal": {func(o *office) {
			w := Journal(&o.cfg)
			_, err := journal.SetAside(w)
			ok(o.t, err)
			j, err := journal.Create(w)
			ok(o.t, err)
			ok(o.t, j.Close())
		}, "", "set aside"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t)
			for range 3 {
				n, err := o.start()
				ok(t, err)
				ok(t, n.sign(t.Context()))
			}
			before, err := o.start()
			ok(t, err)
			was := before.key.Verifier()
			ok(t, o.j.Close())
			c.change(o)
			o.open()
			n, err := o.start()
			var config *ConfigError
			var behind *journal.UnfitError
			if c.unfit != "" {
				if err == nil || !strings.Contains(err.Error(), c.unfit) || !errors.As(err, &config) && !errors.As(err, &behind) {
					t.Errorf("%v; want %s", err, c.unfit)
				}
				return
			}
			ok(t, err)
			if got := strings.Join(o.ev, "\n"); c.says == "" && got != "" || !strings.Contains(got, c.says) {
				t.Errorf("it reports %q; want %q", got, c.says)
			}
			ok(t, n.sign(t.Context()))
			present, err := o.j.Ledger(t.Context())
			ok(t, err)
			if o.size(n) != present.Tree.N {
				t.Errorf("%d of %d entries are signed", o.size(n), present.Tree.N)
			}
			keyOf := func(v string) string { return strings.SplitN(v, "+", 3)[2] }
			if same := keyOf(was) == keyOf(n.key.Verifier()); same != (name != "another key") {
				t.Errorf("the same key: %v", same)
			}
		})
	}
}

// alter changes the database as only somebody with the daemon's rights can.
func (o *office) alter(query string) {
	o.t.Helper()
	db, err := sql.Open("sqlite", "file:"+o.path(journal.Name))
	ok(o.t, err)
	defer db.Close()
	_, err = db.ExecContext(context.Background(), "DROP TRIGGER entry_kept; DROP TRIGGER entry_fixed; "+query)
	ok(o.t, err)
}

// A key that comes from elsewhere is taken, under the ledger's own name.
func TestKeyOfElsewhere(t *testing.T) {
	o := newOffice(t)
	text, err := ledger.NewKey("elsewhere.example/key")
	ok(t, err)
	o.cfg.Ledger.KeyFile = filepath.Join(t.TempDir(), "key")
	ok(t, os.WriteFile(o.cfg.Ledger.KeyFile, []byte(text), 0o600))
	n, err := o.start()
	ok(t, err)
	ok(t, n.sign(t.Context()))
	if _, err := os.Stat(o.path(keyName)); !errors.Is(err, os.ErrNotExist) {
		t.Error("a key was made", err)
	}
	if o.size(n) != 1 || !strings.HasPrefix(n.key.Verifier(), ledger.Origin(o.j.ID())+"+") {
		t.Error(n.key.Verifier())
	}
}

// A whole run signs what it entered when it ends; one that has nothing to do
// enters nothing.
func TestSignedAtTheEnd(t *testing.T) {
	api := sandbox.New(sandbox.Options{Key: "key", Secret: "secret"})
	url, stop, err := api.Start()
	ok(t, err)
	defer stop()
	t.Setenv("IDENFY_API_KEY", "key")
	t.Setenv("IDENFY_API_SECRET", "secret")
	o := newOffice(t)
	ok(t, o.j.Close())
	o.cfg.API.BaseURL = url
	o.cfg.Completeness.Settle = config.Duration(100 * time.Millisecond)
	ok(t, sample.Write(filepath.Join(o.cfg.Spool()[spool.Inbox], "case"), map[string][]byte{
		"FRONT.jpg": sample.Front(), "FACE.jpg": sample.Face(), "meta.yaml": []byte(sample.Meta("TOKEN-0123456789", "LT", "PASSPORT")),
	}))
	for range 2 {
		_, err := Run(t.Context(), Options{Load: func() (config.Config, error) { return o.cfg, nil }, Version: "test", Log: io.Discard, Once: true})
		ok(t, err)
		o.open()
		n, err := newNotary(t.Context(), &o.cfg, o.j, func(events.Event) {})
		ok(t, err)
		if size := o.size(n); size != 2 || n.signed != 2 {
			t.Errorf("%d entries are signed: of the start, and of the folder", size)
		}
		ok(t, o.j.Close())
	}
	o.open()
	o.alter("DELETE FROM entry WHERE n = 1")
	ok(t, o.j.Close())
	_, err = Run(t.Context(), Options{Load: func() (config.Config, error) { return o.cfg, nil }, Version: "test", Log: io.Discard, Once: true})
	if wrong, is := errors.AsType[*ConfigError](err); !is || !strings.Contains(wrong.Error(), "behind its own checkpoint") {
		t.Error(err)
	}
}
