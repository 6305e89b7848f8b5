package daemon_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"idenfy-batch/internal/config"
	"idenfy-batch/internal/control"
	"idenfy-batch/internal/daemon"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
	"idenfy-batch/sidecar"
)

// branches makes a lab with two inboxes, each with receipts: a and b.
func branches(t *testing.T, change func(*config.Config)) *lab {
	t.Helper()
	return newLab(t, func(c *config.Config) {
		for _, name := range []string{"a", "b"} {
			in := config.Inbox{Name: name, Path: filepath.Join(c.Root, "..", name, "inbox"), Receipts: filepath.Join(c.Root, "..", name, "receipts")}
			must(t, os.MkdirAll(in.Path, 0o700))
			must(t, os.MkdirAll(in.Receipts, 0o700))
			c.Inboxes = append(c.Inboxes, in)
		}
		if change != nil {
			change(c)
		}
	})
}

// upload puts a folder into an inbox: a whole one, but for files that are left
// out, or that more replaces.
func (l *lab) upload(inbox, name string, more map[string][]byte, without ...string) {
	l.t.Helper()
	files := map[string][]byte{"FRONT.jpg": sample.Front(), "FACE.jpg": sample.Face(), "meta.yaml": []byte(sample.Meta(token(inbox+"-"+name), "LT", "PASSPORT"))}
	maps.Copy(files, more)
	for _, file := range without {
		delete(files, file)
	}
	must(l.t, sample.Write(filepath.Join(l.root, "..", inbox, "inbox", name), files))
}

// receipts returns the receipts of an inbox, by the files' names.
func (l *lab) receipts(inbox string) map[string]*sidecar.Receipt {
	l.t.Helper()
	all := map[string]*sidecar.Receipt{}
	dir := filepath.Join(l.root, "..", inbox, "receipts")
	root, err := os.OpenRoot(dir)
	if err != nil {
		return all
	}
	defer root.Close()
	list, err := os.ReadDir(dir)
	must(l.t, err)
	for _, e := range list {
		if r, err := sidecar.ReadReceipt(root, e.Name()); err == nil {
			all[e.Name()] = r
		}
	}
	return all
}

// stands waits until a receipt says this: a state, or an outcome.
func (l *lab) stands(inbox, name, what string) (r *sidecar.Receipt) {
	l.t.Helper()
	l.until(fmt.Sprintf("the receipt %s of %s says %s", name, inbox, what), func() bool {
		r = l.receipts(inbox)[name]
		return r != nil && (string(r.State) == what || string(r.Outcome) == what)
	})
	return r
}

// Each uploader is told of each of his folders, and of nobody else's, though
// they are called the same.
func TestReceipts(t *testing.T) {
	l := branches(t, func(c *config.Config) {
		c.Completeness.WarnAfter = config.Duration(200 * time.Millisecond)
	})
	for _, inbox := range []string{"a", "b"} {
		l.api.Script(token(inbox+"-case-3"), sandbox.Step{Status: 400, Identifier: "BAD_VALUE", Message: "JANE DOE of " + inbox})
		l.upload(inbox, "case-1", nil)
		l.upload(inbox, "case-2", map[string][]byte{"meta.yaml": []byte(sample.Meta(token(inbox+"-case-2"), "XX", "PASSPORT"))})
		l.upload(inbox, "case-3", nil)
		l.upload(inbox, "case-4", nil, "FACE.jpg")
	}
	l.upload("a", "only-a", nil)
	must(t, os.WriteFile(filepath.Join(l.root, "..", "a", "inbox", "loose.jpg"), sample.Front(), 0o600))
	ids := map[string]string{}
	for _, inbox := range []string{"a", "b"} {
		for name, what := range map[string]string{"case-1.json": "accepted", "case-2.json": "invalid", "case-3.json": "rejected", "case-4.json": "waiting"} {
			r := l.stands(inbox, name, what)
			if r.Inbox != inbox || ids[r.ID] != "" && r.ID != "" {
				t.Errorf("%s of %s: %+v", name, inbox, r)
			}
			ids[r.ID] = inbox
		}
	}
	if r := l.stands("a", "case-4.json", "waiting"); len(r.Reasons) != 1 || r.Reasons[0].Code != "missing_file" || !strings.Contains(r.Message, "FACE") {
		t.Errorf("%+v", r)
	}
	if r := l.stands("a", sidecar.InboxReceipt, "ignored"); len(r.Ignored) != 1 || r.Ignored[0].Name != "loose.jpg" {
		t.Errorf("%+v", r)
	}
	l.stands("a", "only-a.json", "accepted")

	l.upload("a", "case-4", nil) // what was missing
	must(t, os.RemoveAll(filepath.Join(l.root, "..", "b", "inbox", "case-4")))
	must(t, os.Remove(filepath.Join(l.root, "..", "a", "inbox", "loose.jpg")))
	l.stands("a", "case-4.json", "accepted")
	l.until("what waits no more has no receipt", func() bool {
		return l.receipts("b")["case-4.json"] == nil && l.receipts("a")[sidecar.InboxReceipt] == nil
	})

	name := "case-3" // of a, or that of b, where a's name was taken
	if r := l.result("failed", name); r.Inbox != "a" {
		name = "case-3.2"
	}
	c, err := control.Dial(l.root)
	must(t, err)
	defer c.Close()
	made, err := c.Decide(t.Context(), control.Decision{Names: []string{name}, Action: sidecar.Requeued, By: control.Self()})
	must(t, err)
	if made[0].Err != "" {
		t.Fatal(made[0].Err)
	}
	r := l.stands("a", "case-3.json", "accepted")
	if len(r.Earlier) != 1 || ids[r.Earlier[0].ID] != "a" || r.Earlier[0].Outcome != sidecar.Rejected {
		t.Errorf("%+v", r)
	}
	for inbox, want := range map[string][]string{"a": {"case-1.json", "case-2.json", "case-3.json", "case-4.json", "only-a.json"}, "b": {"case-1.json", "case-2.json", "case-3.json"}} {
		if got := l.tell(inbox); !slices.Equal(got, want) {
			t.Errorf("%s has %q", inbox, got)
		}
	}
}

// tell holds all that an uploader can read against the schema and what he may
// not know, and returns its names.
func (l *lab) tell(inbox string) (names []string) {
	l.t.Helper()
	dir := filepath.Join(l.root, "..", inbox, "receipts")
	list, err := os.ReadDir(dir)
	must(l.t, err)
	schema := jsonschema.NewCompiler().MustCompile("../../sidecar/receipt.schema.json")
	for _, e := range list {
		names = append(names, e.Name())
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(l.t, err)
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		must(l.t, err)
		if err := schema.Validate(value); err != nil {
			l.t.Errorf("%s: %v", e.Name(), err)
		}
		if bytes.Contains(data, []byte("TOKEN-")) || bytes.Contains(data, []byte("JANE")) {
			l.t.Errorf("%s", data)
		}
	}
	return names
}

// Receipts that can't be written hold up nobody, pause nothing, and are told;
// once that is mended each is there.
func TestReceiptsHoldUpNothing(t *testing.T) {
	address := free(t)
	l := branches(t, func(c *config.Config) {
		c.Metrics.Listen = address
		must(t, os.Remove(c.Inboxes[0].Receipts))
		must(t, os.Mkdir(filepath.Join(c.Inboxes[1].Receipts, "case-1.json"), 0o700))
	})
	const folders = 5
	for n := range folders {
		l.upload("a", fmt.Sprint("case-", n), nil)
		l.upload("b", fmt.Sprint("case-", n), nil)
	}
	l.until("all are done", func() bool { return len(l.names("done")) == 2*folders })
	for n := range folders {
		if n != 1 {
			l.stands("b", fmt.Sprintf("case-%d.json", n), "accepted")
		}
	}
	l.until("it is told", func() bool {
		_, text := get(address, "/metrics")
		return strings.Contains(text, `idenfy_batch_receipts_trouble{inbox="a"} 1`) && strings.Contains(text, `idenfy_batch_receipts_trouble{inbox="b"} 1`) &&
			strings.Contains(text, `idenfy_batch_receipts_owed{inbox="a"} 5`) && strings.Contains(text, `idenfy_batch_receipts_owed{inbox="b"} 1`)
	})
	code, health := get(address, "/healthz")
	if code != 200 || !strings.Contains(health, "no such file or directory") {
		t.Errorf("%d %s", code, health)
	}
	must(t, os.Mkdir(filepath.Join(l.root, "..", "a", "receipts"), 0o700))
	for n := range folders {
		l.stands("a", fmt.Sprintf("case-%d.json", n), "accepted")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	told := map[string]int{}
	for _, e := range l.seen {
		switch e := e.(type) {
		case events.GateShut:
			t.Errorf("%+v", e)
		case events.ReceiptTrouble:
			if e.Err != nil {
				told[e.Inbox]++
			}
		}
	}
	if told["a"] != 1 || told["b"] != 1 {
		t.Errorf("it was told so often: %v", told)
	}
}

// A reload gives an inbox receipts, moves them, and takes them away.
func TestReceiptsReload(t *testing.T) {
	l := branches(t, func(c *config.Config) { c.Inboxes[0].Receipts = "" })
	ends := func(name string) {
		t.Helper()
		l.upload("a", name, nil)
		l.until(name+" is done", func() bool { return slices.Contains(l.names("done"), name) })
	}
	receipts := func(c *config.Config, path string) {
		c.Inboxes = slices.Clone(c.Inboxes)
		c.Inboxes[0].Receipts = path
	}
	ends("case-1")
	must(t, l.reload(func(c *config.Config) { receipts(c, filepath.Join(l.root, "..", "a", "receipts")) }, nil))
	ends("case-2")
	l.stands("a", "case-2.json", "accepted")
	if l.receipts("a")["case-1.json"] != nil {
		t.Error("what ended before has a receipt")
	}
	other := filepath.Join(l.root, "..", "other")
	must(t, os.Mkdir(other, 0o700))
	must(t, l.reload(func(c *config.Config) { receipts(c, other) }, nil))
	ends("case-3")
	l.until("it is in the other directory", func() bool {
		_, err := os.Stat(filepath.Join(other, "case-3.json"))
		return err == nil
	})
	must(t, l.reload(func(c *config.Config) { receipts(c, "") }, nil))
	ends("case-4")
	l.upload("b", "case-4", nil)
	l.stands("b", "case-4.json", "accepted")
	list, err := os.ReadDir(other)
	must(t, err)
	if len(list) != 1 {
		t.Errorf("%v", list)
	}
}

// A daemon that ends has told all that ended before, as one does that is started
// by cron.
func TestReceiptsOnce(t *testing.T) {
	l := branches(t, func(c *config.Config) { c.Inboxes[0].Receipts = "" }) // for the sandbox and the keys
	cfg := l.cfg
	cfg.Root = filepath.Join(l.root, "..", "once")
	cfg.Inboxes = []config.Inbox{{Name: "c", Path: filepath.Join(l.root, "..", "c", "inbox"), Receipts: filepath.Join(l.root, "..", "c", "receipts")}}
	for _, dir := range []string{cfg.Root, cfg.Inboxes[0].Path, cfg.Inboxes[0].Receipts} {
		must(t, os.MkdirAll(dir, 0o700))
	}
	for n := range 5 {
		l.upload("c", fmt.Sprint("case-", n), nil)
	}
	_, err := daemon.Run(context.WithoutCancel(t.Context()), daemon.Options{Load: func() (config.Config, error) { return cfg, nil }, Version: "test", Log: l.log, Once: true})
	must(t, err)
	if got := l.tell("c"); len(got) != 5 {
		t.Errorf("%q", got)
	}
}

// A directory that can't be written into is named by check.
func TestCheckReceipts(t *testing.T) {
	dir := t.TempDir()
	c := config.Default()
	c.Inboxes = []config.Inbox{{Name: "a", Path: dir, Receipts: filepath.Join(dir, "none")}, {Name: "b", Path: dir, Receipts: dir}, {Name: "c", Path: dir, Receipts: filepath.Join(dir, "link")}, {Name: "d", Path: dir}}
	must(t, os.Symlink(dir, filepath.Join(dir, "link")))
	err := daemon.CheckReceipts(&c)
	if err == nil || !strings.Contains(err.Error(), "inbox a: ") || !strings.Contains(err.Error(), "install -d") || !strings.Contains(err.Error(), "inbox c: ") || strings.Contains(err.Error(), "inbox b") {
		t.Error(err)
	}
}
