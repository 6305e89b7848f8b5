package sidecar_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"idenfy-batch/sidecar"
)

const receiptID = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

// fullReceipt has every field set that one of a folder may have.
func fullReceipt() *sidecar.Receipt {
	return &sidecar.Receipt{
		Inbox: "branch-1", Folder: "case-7", State: sidecar.Ends, Message: "It was rejected.", ID: receiptID, Outcome: sidecar.Rejected,
		Reasons:  []sidecar.ReceiptReason{{Code: "BAD_VALUE", Message: "iDenfy refused a value of it", Field: "FRONT"}},
		Times:    sidecar.ReceiptTimes{FirstSeen: at(0), Since: at(1), Complete: at(2), Finished: at(3)},
		Decision: &sidecar.ReceiptDecision{At: at(4), Action: sidecar.Denied},
		Verdict:  &sidecar.ReceiptVerdict{Overall: "DENIED", Final: true},
		Earlier:  []sidecar.ReceiptEarlier{{ID: receiptID, Outcome: sidecar.Invalid, Finished: at(0)}}, Older: 1, Written: at(5),
	}
}

func inboxReceipt() *sidecar.Receipt {
	return &sidecar.Receipt{
		Inbox: "branch-1", State: sidecar.LeftAlone, Message: "Put each into a folder.", Written: at(5),
		Ignored: []sidecar.ReceiptIgnored{{Name: "a.jpg", Kind: "file"}, {Name: "b", Kind: "link"}, {Name: "c", Kind: "special"}}, Unnamed: 2,
	}
}

func TestReceiptSchema(t *testing.T) {
	s := schema(t, "receipt.schema.json")
	for name, r := range map[string]*sidecar.Receipt{
		"full": fullReceipt(), "inbox": inboxReceipt(),
		"waiting": {Inbox: "inbox", Folder: "x", State: sidecar.Waits, Message: "m", Written: at(0)},
	} {
		data, err := sidecar.EncodeReceipt(r)
		must(t, err)
		if err := validate(t, s, data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*sidecar.Receipt){
		"no folder":                func(r *sidecar.Receipt) { r.Folder = "" },
		"no outcome":               func(r *sidecar.Receipt) { r.Outcome = "" },
		"an outcome of no end":     func(r *sidecar.Receipt) { r.State = sidecar.Works },
		"pending":                  func(r *sidecar.Receipt) { r.Outcome = sidecar.Pending },
		"no message":               func(r *sidecar.Receipt) { r.Message = "" },
		"a reason without a code":  func(r *sidecar.Receipt) { r.Reasons[0].Code = "" },
		"another inbox's name":     func(r *sidecar.Receipt) { r.Inbox = "../x" },
		"ignored names, and ended": func(r *sidecar.Receipt) { r.Ignored = inboxReceipt().Ignored },
	} {
		r := fullReceipt()
		change(r)
		data, err := sidecar.EncodeReceipt(r)
		must(t, err)
		if err := validate(t, s, data); err == nil {
			t.Errorf("%s passes the schema", name)
		}
	}
}

// The example in the documentation is as the schema demands.
func TestReceiptDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/receipts.md")
	must(t, err)
	_, rest, _ := strings.Cut(string(text), "```json\n")
	example, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("there is none")
	}
	if err := validate(t, schema(t, "receipt.schema.json"), []byte(example)); err != nil {
		t.Error(err)
	}
}

// Nothing is in a receipt that its schema doesn't name.
func TestReceiptSchemaIsClosed(t *testing.T) {
	s := schema(t, "receipt.schema.json")
	for _, where := range []string{"", "reasons", "times", "decision", "verdict", "earlier"} {
		data, err := sidecar.EncodeReceipt(fullReceipt())
		must(t, err)
		var v map[string]any
		must(t, json.Unmarshal(data, &v))
		at := v
		switch inner := v[where].(type) {
		case map[string]any:
			at = inner
		case []any:
			at = inner[0].(map[string]any)
		}
		at["clientId"] = "person-7"
		data, err = json.Marshal(v)
		must(t, err)
		if validate(t, s, data) == nil {
			t.Errorf("%q may have more in it", where)
		}
	}
}

func TestReceiptRead(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	data, err := sidecar.EncodeReceipt(fullReceipt())
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "case-7.json"), data, 0o600))
	got, err := sidecar.ReadReceipt(root, "case-7.json")
	must(t, err)
	again, err := sidecar.EncodeReceipt(got)
	must(t, err)
	if diff := cmp.Diff(string(data), string(again)); diff != "" {
		t.Error(diff)
	}
	must(t, os.WriteFile(filepath.Join(dir, "result.json"), []byte(`{"schema":"idenfy-batch/result/v1"}`), 0o600))
	if _, err := sidecar.ReadReceipt(root, "result.json"); !errors.Is(err, sidecar.ErrNotOurs) {
		t.Error(err)
	}
}

// Each folder has a receipt of its own, under a name that a file can have.
func TestReceiptName(t *testing.T) {
	for folder, want := range map[string]string{
		"case-7": "case-7.json", "case-7.json": "case-7.json.json", "a b": "a b.json", "ä": "ä.json",
		strings.Repeat("x", 250): strings.Repeat("x", 250) + ".json",
	} {
		if got := sidecar.ReceiptName(folder); got != want {
			t.Errorf("%q: %q", folder, got)
		}
	}
	cut := strings.TrimSuffix(sidecar.ReceiptName(strings.Repeat("x", 255)), ".json")
	seen := map[string]string{sidecar.InboxReceipt: "the inbox"}
	for _, folder := range []string{
		strings.Repeat("x", 250), strings.Repeat("x", 251), strings.Repeat("x", 255), cut, strings.Repeat("ä", 127), strings.Repeat("日", 85), strings.Repeat("日", 84),
		"_inbox", "_INBOX", "_inbox.json", "~" + strings.Repeat("0", 32), "x~" + strings.Repeat("0", 32), "x~" + strings.Repeat("0", 31), "x", "X",
		strings.Repeat(`"\n`, 83), strings.Repeat(`\x00`, 255), strings.Repeat("\xff", 255), ".hidden", "a/b", "a_b", "..",
	} {
		name := sidecar.ReceiptName(folder)
		if other, taken := seen[name]; taken {
			t.Errorf("%q and %q are both %q", folder, other, name)
		}
		seen[name] = folder
		if len(name) > 255 || !strings.HasSuffix(name, ".json") || strings.ContainsAny(name, "/\x00") || name[0] == '.' || utf8.ValidString(folder) && !utf8.ValidString(name) {
			t.Errorf("%q: %q", folder, name)
		}
	}
}
