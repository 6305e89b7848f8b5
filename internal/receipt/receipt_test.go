package receipt

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/sys/unix"

	"idenfy-batch/internal/durable"
	"idenfy-batch/internal/events"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// yard is an inbox with receipts, its journal, and its clerk, whose rounds a
// test makes itself.
type yard struct {
	t       *testing.T
	where   journal.Where
	journal *journal.Journal
	inbox   string
	path    string // of the receipts
	clerk   *Clerk

	mu       sync.Mutex
	troubles []error // as they were told; nil: it is over
	owed     int
}

const inboxName = "branch-1"

func newYard(t *testing.T) *yard {
	t.Helper()
	root := t.TempDir()
	y := &yard{t: t, where: journal.Where{Dir: filepath.Join(root, "journal"), Mark: filepath.Join(root, "work")}, inbox: filepath.Join(root, "inbox"), path: filepath.Join(root, "receipts")}
	for _, dir := range []string{y.where.Mark, y.inbox, y.path} {
		must(t, os.Mkdir(dir, 0o700))
	}
	j, err := journal.Create(y.where)
	must(t, err)
	y.use(j)
	t.Cleanup(func() { must(t, y.journal.Close()) })
	return y
}

// use has the journal, as after a start.
func (y *yard) use(j *journal.Journal) {
	y.t.Helper()
	y.journal = j
	must(y.t, j.Receive([]journal.Receiver{{Inbox: inboxName, Verdict: true}}))
	y.clerk = NewClerk(inboxName, j, Settings{Inbox: y.inbox, Path: y.path, Keep: time.Hour}, y.see)
}

func (y *yard) see(e events.Event) {
	y.mu.Lock()
	defer y.mu.Unlock()
	switch e := e.(type) {
	case events.ReceiptTrouble:
		y.troubles = append(y.troubles, e.Err)
	case events.Receipts:
		y.owed = e.Owed
	}
}

// claim begins a life of a folder.
func (y *yard) claim(folder string) *journal.Life {
	y.t.Helper()
	id := spool.NewID()
	must(y.t, y.journal.Claim(id, inboxName, folder))
	l, err := y.journal.Load(y.t.Context(), id)
	must(y.t, err)
	l.State, l.Result.Times.FirstSeen = journal.Pending, sidecar.Now()
	l.Token, l.ScanRef = strings.ToLower(id), "ref-"+id
	must(y.t, y.journal.Put(l))
	return l
}

// end ends a life.
func (y *yard) end(l *journal.Life, o sidecar.Outcome, reasons ...sidecar.Reason) {
	y.t.Helper()
	l.State, l.Place, l.Result.Outcome, l.Result.Reasons, l.Result.Times.Finished = journal.Ended, "failed", o, reasons, sidecar.Now()
	if o == sidecar.Accepted {
		l.Fate, l.Place = journal.Taken, "done"
	}
	must(y.t, y.journal.End(l))
	y.journal.Filed(l.ID, l.Place, l.Result.Folder)
}

// round makes a round, which is well.
func (y *yard) round() {
	y.t.Helper()
	err := y.clerk.round(y.t.Context())
	must(y.t, err)
	y.clerk.tell(y.t.Context(), err)
}

var schema = sync.OnceValue(func() *jsonschema.Schema {
	return jsonschema.NewCompiler().MustCompile("../../sidecar/receipt.schema.json")
})

// read returns the receipt of a folder, or nil.
func (y *yard) read(name string) *sidecar.Receipt {
	y.t.Helper()
	root, err := os.OpenRoot(y.path)
	must(y.t, err)
	defer root.Close()
	data, err := os.ReadFile(filepath.Join(y.path, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	must(y.t, err)
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	must(y.t, err)
	if err := schema().Validate(value); err != nil {
		y.t.Errorf("%s is not as its schema demands: %v", name, err)
	}
	r, err := sidecar.ReadReceipt(root, name)
	must(y.t, err)
	return r
}

func (y *yard) names() (names []string) {
	y.t.Helper()
	list, err := os.ReadDir(y.path)
	must(y.t, err)
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// lacks has the watcher say what a folder lacks.
func (y *yard) lacks(folder string, codes ...string) {
	e := events.FolderLacks{Inbox: inboxName, Folder: folder, Seen: time.Now(), Since: time.Date(2026, 11, 25, 10, 2, 0, 0, time.UTC)}
	for _, code := range codes {
		e.Reasons = append(e.Reasons, meta.Reason{Code: code, Field: "FACE", Message: "FACE.jpg"})
	}
	y.clerk.Take(e)
}

// A folder's way, as its uploader is told of it.
func TestStory(t *testing.T) {
	y := newYard(t)
	expect := func(step string, state sidecar.ReceiptState, outcome sidecar.Outcome, earlier int) *sidecar.Receipt {
		t.Helper()
		y.round()
		r := y.read("case-7.json")
		if r == nil || r.State != state || r.Outcome != outcome || len(r.Earlier) != earlier || r.Folder != "case-7" || r.Inbox != inboxName {
			t.Fatalf("%s: %+v", step, r)
		}
		if owed, err := y.journal.CountOwed(t.Context(), inboxName); err != nil || owed != 0 {
			t.Fatalf("%s: %d are still owed, %v", step, owed, err)
		}
		return r
	}
	y.lacks("case-7", "missing_file")
	r := expect("it waits", sidecar.Waits, "", 0)
	if want := "Since 2026-11-25 10:02 UTC it waits: FACE.jpg is missing. Put that right in the same folder; it is taken by itself then."; r.Message != want {
		t.Errorf("%q", r.Message)
	}
	y.lacks("case-7", "truncated", "missing_file")
	if r = expect("for something else", sidecar.Waits, "", 0); len(r.Reasons) != 2 || r.Reasons[0].Code != "truncated" {
		t.Errorf("%+v", r.Reasons)
	}
	y.lacks("case-7")
	y.round()
	if r := y.read("case-7.json"); r != nil {
		t.Fatalf("it waits no more: %+v", r)
	}
	one := y.claim("case-7")
	y.round()
	if r := y.read("case-7.json"); r != nil {
		t.Fatalf("it was taken: %+v", r)
	}
	y.end(one, sidecar.Invalid, sidecar.Reason{Code: "too_large", Message: "meta.yaml has 70000 bytes", Source: sidecar.FromPreflight, Field: "meta.yaml"})
	if r = expect("it ended", sidecar.Ends, sidecar.Invalid, 0); r.ID != one.ID || r.Reasons[0].Message != "meta.yaml has 70000 bytes" || r.Times.Finished.IsZero() {
		t.Errorf("%+v", r)
	}
	y.lacks("case-7", "missing_file")
	expect("it came again, and waits", sidecar.Waits, "", 1)
	two := y.claim("case-7") // without a word of the watcher's
	if r = expect("it is worked on", sidecar.Works, "", 1); r.ID != two.ID || r.Earlier[0].ID != one.ID {
		t.Errorf("%+v", r)
	}
	y.end(two, sidecar.Unknown, sidecar.Reason{Code: "may_have_been_accepted", Message: "decide with idenfy-batch resolve", Source: sidecar.FromDaemon})
	if r = expect("it is held", sidecar.Ends, sidecar.Unknown, 1); strings.Contains(r.Reasons[0].Message, "idenfy-batch") {
		t.Errorf("%+v", r.Reasons)
	}
	y.decide(two, sidecar.Confirmed, sidecar.Accepted, "done")
	if r = expect("a person decided", sidecar.Ends, sidecar.Accepted, 1); r.Decision == nil || r.Decision.Action != sidecar.Confirmed {
		t.Errorf("%+v", r.Decision)
	}
	_, err := y.journal.Hear(journal.Event{ScanRef: two.ScanRef, Said: sidecar.VerdictEvent{SHA256: strings.Repeat("0f", 32), Received: sidecar.Now(), By: sidecar.ByWebhook, Said: sidecar.Said{Overall: "DENIED", Final: true}}})
	must(t, err)
	if r = expect("the verdict came", sidecar.Ends, sidecar.Accepted, 1); r.Verdict == nil || *r.Verdict != (sidecar.ReceiptVerdict{Overall: "DENIED", Final: true}) {
		t.Errorf("%+v", r.Verdict)
	}
	y.decide(one, sidecar.Requeued, sidecar.Invalid, "inbox")
	expect("an older one was decided about", sidecar.Ends, sidecar.Accepted, 1)
	y.decide(two, sidecar.Resubmit, sidecar.Accepted, "inbox")
	expect("it is in the inbox again", sidecar.PutBack, "", 1)
}

// decide has a person decide about a life.
func (y *yard) decide(was *journal.Life, action sidecar.Action, o sidecar.Outcome, place string) {
	y.t.Helper()
	l, err := y.journal.Load(y.t.Context(), was.ID)
	must(y.t, err)
	d := sidecar.Decision{At: sidecar.Now(), Action: action, By: sidecar.Person{User: "jane"}, Comment: "Jane Doe called", Result: l.ID, Outcome: l.Result.Outcome}
	l.Result.Outcome, l.State, l.Place = o, journal.Filed, place
	fate := l.Fate
	must(y.t, y.journal.Decide(l, fate, d, "", nil))
}

// A folder that a person put into the inbox under the name that it had got in a
// final place is told of under the one that its uploader gave.
func TestNumberedName(t *testing.T) {
	y := newYard(t)
	one := y.claim("case-7")
	y.end(one, sidecar.Rejected)
	l, err := y.journal.Load(t.Context(), one.ID)
	must(t, err)
	l.Name = "case-7.2"
	must(t, y.journal.Decide(l, l.Fate, sidecar.Decision{At: sidecar.Now(), Action: sidecar.Requeued, Result: l.ID}, "", nil))
	two := y.claim("case-7.2")
	d, err := sql.Open("sqlite", "file:"+filepath.Join(y.where.Dir, journal.Name)+"?_pragma=busy_timeout(5000)")
	must(t, err)
	_, err = d.Exec("UPDATE life SET kase = (SELECT kase FROM life WHERE id = ?), name = iif(id = ?1, 'case-7.2', name) WHERE id IN (?1, ?2)", one.ID, two.ID) // the same directory
	must(t, errors.Join(err, d.Close()))
	y.end(two, sidecar.Accepted)
	other := y.claim("case-8.2") // its uploader's own name
	y.end(other, sidecar.Accepted)
	y.round()
	if r := y.read("case-7.json"); r == nil || r.ID != two.ID || len(r.Earlier) != 1 {
		t.Errorf("%+v", r)
	}
	if got := y.names(); !slices.Equal(got, []string{"case-7.json", "case-8.2.json"}) {
		t.Errorf("%q", got)
	}
}

// A clock that was set back takes no receipt from a folder that came since.
func TestClockSetBack(t *testing.T) {
	y := newYard(t)
	var lives []*journal.Life
	for n := range 3 {
		l := y.claim("case-7")
		l.Result.Times.Claimed = sidecar.Time{Time: time.Now().Add(-time.Duration(n) * 48 * time.Hour)}
		must(t, y.journal.Put(l))
		y.end(l, sidecar.Rejected)
		lives = append(lives, l)
		y.round()
		if r := y.read("case-7.json"); r == nil || r.ID != l.ID || len(r.Earlier) != n {
			t.Fatalf("folder %d: %+v", n, r)
		}
	}
	// Of two at once the one that was taken last is the newest.
	first, second := y.claim("case-7"), y.claim("case-7")
	first.Result.Times.Claimed = sidecar.Time{Time: second.Result.Times.Claimed.Add(-time.Second)}
	must(t, y.journal.Put(first))
	y.end(first, sidecar.Invalid)
	y.round()
	if r := y.read("case-7.json"); r == nil || r.State != sidecar.Works || r.ID != second.ID || r.Earlier[0].ID != first.ID {
		t.Errorf("%+v", r)
	}
	y.decide(lives[0], sidecar.Requeued, sidecar.Rejected, "inbox")
	y.end(second, sidecar.Accepted)
	y.round()
	if r := y.read("case-7.json"); r == nil || r.ID != second.ID || r.Outcome != sidecar.Accepted || len(r.Earlier) != 4 {
		t.Errorf("%+v", r)
	}
}

// Of very many folders of one name the newest is told, and some before.
func TestOneNameForAll(t *testing.T) {
	y := newYard(t)
	var last *journal.Life
	for range 50 {
		last = y.claim("scan")
		y.end(last, sidecar.Accepted)
		time.Sleep(2 * time.Millisecond) // another millisecond, by which the journal knows their order
	}
	y.round()
	r := y.read("scan.json")
	if r == nil || r.ID != last.ID || len(r.Earlier) != 20 || r.Older != 29 {
		t.Errorf("%+v", r)
	}
	y.lacks("scan", "missing_file")
	y.round()
	if r = y.read("scan.json"); r.State != sidecar.Waits || len(r.Earlier) != 20 || r.Older != 30 || r.Earlier[0].ID != last.ID {
		t.Errorf("%+v", r)
	}
}

// No receipt has more in it than an uploader may know: nothing of what the
// daemon and iDenfy say in their own words, of tokens, or of other folders.
func TestSecretsStay(t *testing.T) {
	y := newYard(t)
	const secret = "JANE-DOE-SECRET"
	l := y.claim("case-7")
	l.ClientID = secret
	l.Result.Session = &sidecar.Session{ScanRef: secret, ClientID: secret, By: sidecar.ByDaemon}
	l.Result.ExtraFiles = []string{secret}
	l.Result.Request = sidecar.Request{TokenHint: secret, TokenSHA256: secret, Endpoint: secret, Images: []sidecar.Image{{File: secret}}}
	l.Result.Attempts = []sidecar.Attempt{{N: 1, State: sidecar.Answered, Identifier: "BAD_VALUE", Message: secret}}
	l.Result.Uploader = sidecar.Uploader{User: secret}
	y.end(l, sidecar.Rejected,
		sidecar.Reason{Code: "BAD_VALUE", Message: secret, Source: sidecar.FromAPI, Field: secret},
		sidecar.Reason{Code: secret + " has no name", Message: secret, Source: sidecar.FromAPI},
		sidecar.Reason{Code: "gave_up", Message: secret, Source: sidecar.FromDaemon, Field: secret},
		sidecar.Reason{Code: "token_used", Message: "another folder, " + secret + ", was accepted", Source: sidecar.FromDaemon},
		sidecar.Reason{Code: "unknown_key", Message: `meta.yaml: line 3: unknown key "` + secret + `"; did you mean "country"?`, Source: sidecar.FromPreflight, Field: secret},
		sidecar.Reason{Code: "unknown_key", Message: secret, Source: sidecar.FromPreflight, Field: secret},
		sidecar.Reason{Code: "new_code", Message: secret, Source: "another"})
	y.decide(l, sidecar.Denied, sidecar.Rejected, "failed")
	y.round()
	data, err := os.ReadFile(filepath.Join(y.path, "case-7.json"))
	must(t, err)
	if text := string(data); strings.Contains(text, secret) || strings.Contains(text, "Jane") || strings.Contains(text, "jane") {
		t.Error(text)
	}
	r := y.read("case-7.json")
	var said []string
	for _, reason := range r.Reasons {
		said = append(said, reason.Code+": "+reason.Message)
	}
	for _, want := range []string{"BAD_VALUE: iDenfy refuses a value in it", "other: iDenfy refuses it", "unknown_key: meta.yaml: line 3: there is a key that is not known", "unknown_key: meta.yaml has a key that is not known", "new_code: whoever runs the service can tell more"} {
		if !slices.Contains(said, want) {
			t.Errorf("%q is missing in %q", want, said)
		}
	}
}

// What the look at a folder finds cites no value of its meta.yaml: what it is
// told by is the uploader's own names, and these.
func TestPreflightCitesNoValue(t *testing.T) {
	const secret = "3FA5TFPA2ZE3LMPGGS1EGOJNJE"
	for name, text := range map[string]string{
		"unknown key":     "authToken=" + secret + ": x\n",
		"secret as a key": secret + ": 1\n",
		"no mapping":      secret + "\n",
		"a list":          "authToken: [" + secret + "]\n",
		"bad values":      "authToken: " + secret + secret + "\ncountry: " + secret + "\ndocumentType: " + secret + "\nskipAnalysis: " + secret + "\nscanRef: " + secret + "!\nsha256: {FRONT: " + secret + "}\n",
		"of the person":   "clientId: \" " + secret + "\"\nfirstName: 1" + secret + "\ndateOfBirth: " + secret + "\nsex: " + secret + "\nnationality: " + secret + "\n",
		"not YAML":        "authToken: \"" + secret + "\n",
		"twice":           "authToken: " + secret + "\nauthToken: " + secret + "\n",
		"an alias":        "authToken: *" + secret + "\n",
		"a second one":    "authToken: " + secret + "\n---\nauthToken: " + secret + "\n",
		"nested unknown":  "images: {" + secret + ": " + secret + "}\n",
	} {
		_, _, wrong := meta.Parse([]byte(text), meta.Defaults{})
		if len(wrong) == 0 {
			t.Errorf("%s: nothing is wrong", name)
		}
		var list []sidecar.Reason
		for _, r := range wrong {
			list = append(list, sidecar.Reason{Code: r.Code, Message: r.Message, Source: sidecar.FromPreflight, Field: r.Field})
		}
		data, err := json.Marshal([]any{reasons(list), waits(wrong)})
		must(t, err)
		if bytes.Contains(data, []byte(secret[:12])) {
			t.Errorf("%s: %s", name, data)
		}
	}
}

// A crash between an end and its receipt loses none; what is written is not
// written again.
func TestOwedAfterCrash(t *testing.T) {
	y := newYard(t)
	for n := range 10 {
		y.end(y.claim(fmt.Sprint("case-", n)), sidecar.Accepted)
	}
	must(t, y.journal.Close())
	j, err := journal.Open(y.where)
	must(t, err)
	y.use(j)
	y.round()
	if n := len(y.names()); n != 10 {
		t.Errorf("%d receipts", n)
	}
	must(t, os.RemoveAll(y.path))
	must(t, os.Mkdir(y.path, 0o700))
	must(t, y.journal.Close())
	j, err = journal.Open(y.where)
	must(t, err)
	y.use(j)
	y.round()
	if n := len(y.names()); n != 0 {
		t.Errorf("%d receipts were written again", n)
	}
}

// Whatever step of writing fails, done or not, the receipt is owed until it is
// there, whole, and then no longer; nothing else is left in the directory.
func TestEachStepFails(t *testing.T) {
	for _, op := range []durable.Op{durable.OpCreate, durable.OpWrite, durable.OpChmod, durable.OpSync, durable.OpRename, durable.OpSyncDir} {
		for _, done := range []bool{false, true} {
			y := newYard(t)
			y.end(y.claim("case-1"), sidecar.Invalid)
			y.round()
			y.end(y.claim("case-1"), sidecar.Accepted)
			y.end(y.claim("case-2"), sidecar.Accepted)
			durable.Inject(func(is durable.Op, path string, do func() error) error {
				if is != op || !strings.HasPrefix(path, "/proc/self/fd") {
					return do()
				}
				if done {
					must(t, do())
				}
				return unix.ENOSPC
			})
			err := y.clerk.round(t.Context())
			y.clerk.tell(t.Context(), err)
			durable.Inject(nil)
			if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), y.path) {
				t.Errorf("%s: %v", op, err)
			}
			if r := y.read("case-1.json"); r == nil || r.Outcome != sidecar.Invalid && r.Outcome != sidecar.Accepted {
				t.Errorf("%s, done %v: %+v", op, done, r)
			}
			y.round()
			for _, name := range []string{"case-1.json", "case-2.json"} {
				if r := y.read(name); r == nil || r.Outcome != sidecar.Accepted {
					t.Errorf("%s, done %v: %s: %+v", op, done, name, r)
				}
			}
			if got := y.names(); len(got) != 2 {
				t.Errorf("%s, done %v: %q", op, done, got)
			}
			if len(y.troubles) != 2 || y.troubles[1] != nil || y.owed != 0 {
				t.Errorf("%s: %v, %d are owed", op, y.troubles, y.owed)
			}
		}
	}
}

// hostile holds what stands in the way of a receipt, or of all.
var hostile = map[string]struct {
	make func(y *yard) error
	mend func(y *yard) error
	own  bool // only that one receipt suffers
}{
	"a directory":                      {func(y *yard) error { return os.Mkdir(y.at("case-1.json"), 0o700) }, nil, true},
	"a directory with something in it": {func(y *yard) error { return os.MkdirAll(filepath.Join(y.at("case-1.json"), "x"), 0o700) }, nil, true},
	"somebody's file":                  {func(y *yard) error { return os.WriteFile(y.at("case-1.json"), []byte("mine"), 0o600) }, nil, true},
	"a link to a file": {func(y *yard) error {
		return errors.Join(os.WriteFile(y.inbox+"/victim", []byte("mine"), 0o600), os.Symlink(y.inbox+"/victim", y.at("case-1.json")))
	}, nil, true},
	"a link to nothing": {func(y *yard) error { return os.Symlink(y.inbox+"/nothing", y.at("case-1.json")) }, nil, true},
	"a link to itself":  {func(y *yard) error { return os.Symlink("case-1.json", y.at("case-1.json")) }, nil, true},
	"a FIFO":            {func(y *yard) error { return unix.Mkfifo(y.at("case-1.json"), 0o600) }, nil, true},
	"a hard link to somebody's file": {func(y *yard) error {
		return errors.Join(os.WriteFile(y.inbox+"/victim", []byte("mine"), 0o600), os.Link(y.inbox+"/victim", y.at("case-1.json")))
	}, nil, true},
	"no directory": {func(y *yard) error { return os.Remove(y.path) }, func(y *yard) error { return os.Mkdir(y.path, 0o700) }, false},
	"a file in place of the directory": {func(y *yard) error { return errors.Join(os.Remove(y.path), os.WriteFile(y.path, nil, 0o600)) },
		func(y *yard) error { return errors.Join(os.Remove(y.path), os.Mkdir(y.path, 0o700)) }, false},
	"a link in place of the directory": {func(y *yard) error { return errors.Join(os.Remove(y.path), os.Symlink(y.inbox, y.path)) },
		func(y *yard) error { return errors.Join(os.Remove(y.path), os.Mkdir(y.path, 0o700)) }, false},
	"a link above the directory": {func(y *yard) error {
		above := filepath.Join(filepath.Dir(y.path), "above")
		y.clerk.Set(Settings{Inbox: y.inbox, Path: filepath.Join(above, "receipts"), Keep: time.Hour})
		return os.Symlink(filepath.Dir(y.path), above)
	}, func(y *yard) error { y.clerk.Set(Settings{Inbox: y.inbox, Path: y.path, Keep: time.Hour}); return nil }, false},
	"no inbox": {func(y *yard) error { return os.Rename(y.inbox, y.inbox+"x") }, func(y *yard) error { return os.Rename(y.inbox+"x", y.inbox) }, false},
}

func (y *yard) at(name string) string { return filepath.Join(y.path, name) }

// What stands in the way is told once, hurts nothing else, is not touched, and
// once it is mended every receipt is there.
func TestHostile(t *testing.T) {
	for name, h := range hostile {
		t.Run(name, func(t *testing.T) {
			y := newYard(t)
			for n := range 3 {
				y.end(y.claim(fmt.Sprint("case-", n)), sidecar.Accepted)
			}
			must(t, h.make(y))
			for range 3 {
				err := y.clerk.round(t.Context())
				y.clerk.tell(t.Context(), err)
				if (err == nil) != h.own {
					t.Fatal(err)
				}
			}
			owed := 3
			if h.own {
				owed = 1
			}
			if len(y.troubles) != 1 || y.troubles[0] == nil || y.owed != owed {
				t.Errorf("%v, %d are owed", y.troubles, y.owed)
			}
			if data, err := os.ReadFile(y.inbox + "/victim"); err == nil && string(data) != "mine" {
				t.Errorf("the file behind it is %q", data)
			}
			if h.own {
				if got := y.names(); !slices.Equal(got, []string{"case-0.json", "case-1.json", "case-2.json"}) {
					t.Errorf("%q", got)
				}
				must(t, os.RemoveAll(y.at("case-1.json")))
				for folder, s := range y.clerk.stuck { // ten minutes later
					s.until = time.Now().Add(-time.Second)
					y.clerk.stuck[folder] = s
				}
			} else {
				must(t, h.mend(y))
			}
			y.round()
			for n := range 3 {
				if r := y.read(fmt.Sprintf("case-%d.json", n)); r == nil || r.Outcome != sidecar.Accepted {
					t.Errorf("case-%d: %+v", n, r)
				}
			}
			if got := y.names(); len(got) != 3 {
				t.Errorf("%q", got)
			}
			if len(y.troubles) != 2 || y.troubles[1] != nil || y.owed != 0 {
				t.Errorf("%v, %d are owed", y.troubles, y.owed)
			}
		})
	}
}

// Whatever a folder is called, it has a receipt of its own.
func TestOddNames(t *testing.T) {
	y := newYard(t)
	folders := []string{strings.Repeat("x", 255), strings.Repeat("x", 254) + "y", "_inbox", "case.json", `"a\nb"`, strings.Repeat("日", 85), "a b", "-rf", "~", strings.Repeat(`\xff`, 255)}
	for _, folder := range folders {
		y.end(y.claim(folder), sidecar.Accepted)
	}
	y.clerk.Take(events.Ignored{Inbox: inboxName, Loose: []events.Loose{{Name: "a\nb", Kind: "file"}}, More: 7})
	y.round()
	for _, folder := range folders {
		if r := y.read(sidecar.ReceiptName(folder)); r == nil || r.Folder != folder {
			t.Errorf("%q: %+v", folder, r)
		}
	}
	if r := y.read(sidecar.InboxReceipt); r == nil || r.State != sidecar.LeftAlone || r.Ignored[0].Name != `"a\nb"` || r.Unnamed != 7 {
		t.Errorf("%+v", r)
	}
	if got := len(y.names()); got != len(folders)+1 {
		t.Errorf("%d receipts", got)
	}
	y.clerk.Take(events.Ignored{Inbox: inboxName})
	y.round()
	if r := y.read(sidecar.InboxReceipt); r != nil {
		t.Errorf("%+v", r)
	}
}

// A receipt is the inbox's group's to read, and nobody else's.
func TestGroup(t *testing.T) {
	y := newYard(t)
	group := os.Getgid()
	if os.Geteuid() == 0 {
		group = 12345
		must(t, os.Chown(y.inbox, -1, group))
	}
	y.end(y.claim("case-7"), sidecar.Accepted)
	y.round()
	var st unix.Stat_t
	must(t, unix.Stat(y.at("case-7.json"), &st))
	if int(st.Gid) != group || st.Mode&0o777 != 0o640 || int(st.Uid) != os.Geteuid() {
		t.Errorf("group %d, mode %o, owner %d", st.Gid, st.Mode, st.Uid)
	}
}

// Old receipts go, with what is known of them; what waits, what is worked on,
// what is young and what is somebody else's stays.
func TestSweep(t *testing.T) {
	y := newYard(t)
	y.end(y.claim("old"), sidecar.Accepted)
	y.end(y.claim("young"), sidecar.Accepted)
	y.end(y.claim("lost"), sidecar.Accepted)
	y.lacks("waits", "missing_file")
	y.end(y.claim("again"), sidecar.Rejected)
	y.round()
	y.claim("again")
	y.round()
	must(t, os.Mkdir(filepath.Join(y.inbox, "waits"), 0o700))
	long := time.Now().Add(-2 * time.Hour)
	temp := durable.TempName("ABC")
	data, err := os.ReadFile(y.at("old.json"))
	must(t, err)
	for name, content := range map[string]string{"mine.json": "{}", "note.txt": "x", temp: "x", "copy.json": string(data)} {
		must(t, os.WriteFile(y.at(name), []byte(content), 0o600))
	}
	must(t, os.Mkdir(y.at("dir.json"), 0o700))
	must(t, os.Symlink("old.json", y.at("link.json")))
	for _, name := range []string{"old.json", "lost.json", "waits.json", "again.json", "mine.json", "note.txt", temp, "copy.json", "dir.json"} {
		must(t, os.Chtimes(y.at(name), long, long))
	}
	d, err := sql.Open("sqlite", "file:"+filepath.Join(y.where.Dir, journal.Name)+"?_pragma=busy_timeout(5000)")
	must(t, err)
	_, err = d.Exec("UPDATE receipt SET at = ? WHERE folder <> 'young'; DELETE FROM receipt WHERE folder = 'lost'", long.UnixMilli()) // an adopted journal doesn't know it
	must(t, errors.Join(err, d.Close()))
	must(t, y.clerk.clean(t.Context()))
	if got, want := y.names(), []string{"again.json", "copy.json", "dir.json", "link.json", "mine.json", "note.txt", "waits.json", "young.json"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	y.clerk.Set(Settings{Inbox: y.inbox, Path: y.path}) // for ever
	must(t, os.Chtimes(y.at("young.json"), long, long))
	must(t, y.clerk.clean(t.Context()))
	if y.read("young.json") == nil {
		t.Error("it went, though receipts stay for ever")
	}
}

// What was taken away while no daemon ran waits no more.
func TestGoneMeanwhile(t *testing.T) {
	y := newYard(t)
	for _, folder := range []string{"stays", "goes", "odd\nname"} {
		y.lacks(folder, "missing_file")
		must(t, os.Mkdir(filepath.Join(y.inbox, folder), 0o700))
	}
	y.round()
	must(t, os.Remove(filepath.Join(y.inbox, "goes")))
	must(t, os.Rename(y.inbox, y.inbox+"x")) // as a mount that is missing
	must(t, y.clerk.lookForWaiting(t.Context()))
	must(t, os.Rename(y.inbox+"x", y.inbox))
	y.round()
	if got := len(y.names()); got != 3 {
		t.Errorf("%d receipts", got)
	}
	must(t, y.clerk.lookForWaiting(t.Context()))
	y.round()
	if got := y.names(); !slices.Equal(got, []string{`"odd\nname".json`, "stays.json"}) {
		t.Errorf("%q", got)
	}
}

// An inbox that has no receipts owes none, and one that has none any more
// forgets them.
func TestNoReceiver(t *testing.T) {
	y := newYard(t)
	y.end(y.claim("case-1"), sidecar.Accepted)
	must(t, y.journal.Receive(nil))
	y.end(y.claim("case-2"), sidecar.Accepted)
	y.lacks("case-3", "missing_file")
	must(t, y.journal.Receive([]journal.Receiver{{Inbox: inboxName}}))
	y.end(y.claim("case-4"), sidecar.Accepted)
	must(t, y.journal.Receive([]journal.Receiver{{Inbox: inboxName}}))
	y.round()
	if got := y.names(); !slices.Equal(got, []string{"case-3.json", "case-4.json"}) {
		t.Errorf("%q", got)
	}
}

// Run writes what comes, and what came last before it ends.
func TestRun(t *testing.T) {
	y := newYard(t)
	ctx, stop := context.WithCancel(t.Context())
	stop() // as if all came just before the end
	y.end(y.claim("case-7"), sidecar.Accepted)
	y.clerk.Run(ctx)
	if r := y.read("case-7.json"); r == nil {
		t.Error("it has no receipt")
	}
}

// A stop in the midst of a look for what is old is no trouble of the receipts.
func TestCleanIsCutOff(t *testing.T) {
	y := newYard(t)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	must(t, y.clerk.clean(ctx))
}
