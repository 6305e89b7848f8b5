package ledger_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"idenfy-batch/internal/ledger"
	"idenfy-batch/sidecar"
)

func TestEntry(t *testing.T) {
	vkey := fixedKey(t, id(0)).Verifier()
	good := []ledger.Entry{
		{Kind: ledger.Started, At: at(0), Version: "development-0123456789ab <&>", Key: vkey},
		{Kind: ledger.Adopted, At: at(1), ID: id(1), Outcome: sidecar.Unknown},
		entry(2),
		{Kind: ledger.Ended, At: at(3), ID: id(3), Outcome: sidecar.Unknown},
		{Kind: ledger.Purged, At: at(5), ID: id(1), Rule: sidecar.OfDone, Outcome: sidecar.Accepted, Place: "done", SHA256: entry(1).SHA256},
		{Kind: ledger.Purged, At: at(5), ID: id(1), Rule: sidecar.OfList, Remote: ledger.Erased, Outcome: sidecar.Accepted, Place: "done", SHA256: entry(1).SHA256},
		{Kind: ledger.Decided, At: at(4), ID: id(1), Action: sidecar.Requeued, Outcome: sidecar.Rejected, Place: "inbox", SHA256: entry(1).SHA256},
	}
	for _, e := range good {
		l, err := e.Encode()
		must(t, err)
		if bytes.ContainsAny(l, "\n\\") {
			t.Errorf("not one plain line: %s", l)
		}
		is, err := ledger.Parse(l)
		must(t, err)
		again, err := is.Encode()
		must(t, err)
		if !bytes.Equal(l, again) || is.Kind != e.Kind || is.ID != e.ID || is.At.UnixMilli() != e.At.UnixMilli() {
			t.Errorf("%s became %s", l, again)
		}
	}
	bad := func(change func(*ledger.Entry)) ledger.Entry {
		e := entry(1)
		change(&e)
		return e
	}
	for name, e := range map[string]ledger.Entry{
		"nothing":             {},
		"unknown kind":        bad(func(e *ledger.Entry) { e.Kind = "deleted" }),
		"no id":               bad(func(e *ledger.Entry) { e.ID = "" }),
		"a folder's name":     bad(func(e *ledger.Entry) { e.ID = "mustermann-max" }),
		"no outcome":          bad(func(e *ledger.Entry) { e.Outcome = "" }),
		"words of people":     bad(func(e *ledger.Entry) { e.Outcome = "Max Mustermann" }),
		"hash in upper case":  bad(func(e *ledger.Entry) { e.SHA256 = strings.ToUpper(e.SHA256) }),
		"another kind's":      bad(func(e *ledger.Entry) { e.Version = "1" }),
		"forced without need": bad(func(e *ledger.Entry) { e.Forced = true }),
		"year 10000":          bad(func(e *ledger.Entry) { e.At.Time = e.At.AddDate(9000, 0, 0) }),
		"version of lines":    {Kind: ledger.Started, At: at(0), Version: "1\n2", Key: vkey},
		"a key that is none":  {Kind: ledger.Started, At: at(0), Version: "1", Key: "Max Mustermann"},
	} {
		if l, err := e.Encode(); !errors.Is(err, ledger.ErrEntry) {
			t.Errorf("%s: %s, %v", name, l, err)
		}
	}
	l := string(line(t, 1))
	for name, text := range map[string]string{
		"empty":           "",
		"null":            "null",
		"line break":      l + "\n",
		"space":           strings.Replace(l, ",", ", ", 1),
		"another order":   strings.Replace(l, `"kind":"ended",`, "", 1)[:len(l)-len(`"kind":"ended",`)-1] + `,"kind":"ended"}`,
		"key twice":       strings.Replace(l, `"kind":"ended",`, `"kind":"ended","kind":"ended",`, 1),
		"key in capitals": strings.Replace(l, `"kind"`, `"Kind"`, 1),
		"unknown key":     strings.Replace(l, "}", `,"name":"x"}`, 1),
		"escape":          strings.Replace(l, "done", `d\u006fne`, 1),
		"another zone":    strings.Replace(l, "Z", "+00:00", 1),
		"microseconds":    strings.Replace(l, "Z", "000Z", 1),
		"no such day":     strings.Replace(l, "-09-21", "-02-30", 1),
		"no such time":    strings.Replace(l, "T14", "T24", 1),
		"long":            strings.Replace(l, "done", strings.Repeat("d", 600), 1),
		"deep":            strings.Repeat("[", 100_000),
	} {
		if text == l {
			t.Errorf("%s: nothing was changed", name)
		}
		if e, err := ledger.Parse([]byte(text)); !errors.Is(err, ledger.ErrEntry) || len(err.Error()) > 3000 {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}

// A tree that doesn't fit its entries is met where it doesn't.
func TestAudit(t *testing.T) {
	flip := func(b []byte, at int) []byte { c := bytes.Clone(b); c[at] ^= 1; return c }
	for name, c := range map[string]struct {
		alter func(b *book)
		bad   []int64
	}{
		"nothing":                 {func(*book) {}, nil},
		"one line":                {func(b *book) { b.lines[5] = flip(b.lines[5], 9) }, []int64{5}},
		"two lines":               {func(b *book) { b.lines[5] = flip(b.lines[5], 9); b.lines[11] = flip(b.lines[11], 9) }, []int64{5, 11}},
		"a line's own hash":       {func(b *book) { b.kept[4] = flip(b.kept[4], 0) }, []int64{4, 5}},
		"hash of a pair":          {func(b *book) { b.kept[5] = flip(b.kept[5], 32) }, []int64{5, 7}},
		"the uppermost hash":      {func(b *book) { b.kept[15] = flip(b.kept[15], 4*32) }, []int64{15}},
		"a hash too few":          {func(b *book) { b.kept[7] = b.kept[7][:3*32] }, []int64{7}},
		"no hash":                 {func(b *book) { b.kept[7] = nil }, []int64{7}},
		"a hash too many":         {func(b *book) { b.kept[6] = append(bytes.Clone(b.kept[6]), make([]byte, 7)...) }, []int64{6}},
		"removed from the middle": {func(b *book) { b.lines, b.kept = slices.Delete(b.lines, 16, 17), slices.Delete(b.kept, 16, 17) }, []int64{16, 17, 18}},
		"two changed places":      {func(b *book) { b.lines[2], b.lines[3] = b.lines[3], b.lines[2] }, []int64{2, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			b := filled(t, 20)
			c.alter(b)
			a, bad := b.audit(t)
			if !slices.Equal(bad, c.bad) {
				t.Errorf("%v; want %v", bad, c.bad)
			}
			head, err := a.Head()
			must(t, err)
			if want := mth(b.lines); len(bad) == 0 && [32]byte(head.Hash) != want {
				t.Errorf("head %v; want %x", head, want)
			}
		})
	}
}

// A checkpoint that was sent away tells what became of the ledger since.
func TestCompare(t *testing.T) {
	key, _ := newKey(t, "J")
	newer, _ := newKey(t, "J")
	elsewhere, file := newKey(t, "K")
	sameElsewhere, err := ledger.ParseKey([]byte(file), ledger.Origin("J"))
	must(t, err)
	// other is a history that goes another way from n on.
	other := func(t *testing.T, n, most int) *book {
		b := filled(t, n)
		for i := n; i < most; i++ {
			b.add(t, line(t, i+1000))
		}
		return b
	}
	for name, c := range map[string]struct {
		was, is  func(t *testing.T) *book
		signedBy *ledger.Key
		signed   bool
		want     ledger.Relation
	}{
		"the same":                      {at13, at13, key, true, ledger.Same},
		"grown by one":                  {at13, at14, key, true, ledger.Grown},
		"grown to a power of two":       {at13, filledTo(16), key, true, ledger.Grown},
		"grown from a power of two":     {filledTo(8), at13, key, true, ledger.Grown},
		"grown much":                    {at13, filledTo(1000), key, true, ledger.Grown},
		"grown from one":                {filledTo(1), at13, key, true, ledger.Grown},
		"the last one cut off":          {at14, at13, key, true, ledger.CutOff},
		"all but one cut off":           {at14, filledTo(1), key, false, ledger.CutOff},
		"one removed from the middle":   {at13, without(5, 20), key, false, ledger.Altered},
		"the first one removed":         {at13, without(0, 20), key, false, ledger.Altered},
		"the last one replaced":         {at13, func(t *testing.T) *book { return other(t, 12, 13) }, key, false, ledger.Altered},
		"removed, and signed anew":      {at13, without(5, 20), key, true, ledger.Forked},
		"two daemons":                   {func(t *testing.T) *book { return other(t, 10, 13) }, filledTo(15), key, true, ledger.Forked},
		"two daemons, as many entries":  {func(t *testing.T) *book { return other(t, 10, 15) }, filledTo(15), key, true, ledger.Forked},
		"two daemons, the other ahead":  {func(t *testing.T) *book { return other(t, 10, 19) }, filledTo(15), key, true, ledger.CutOff},
		"another key goes on":           {at13, at14, newer, true, ledger.Rekeyed},
		"another key, nothing since":    {at13, at13, newer, true, ledger.Rekeyed},
		"another key, another history":  {at13, without(5, 20), newer, true, ledger.Replaced},
		"another key, cut off":          {at14, at13, newer, true, ledger.Replaced},
		"another ledger":                {at13, at14, elsewhere, true, ledger.Other},
		"a key that was made elsewhere": {at13, at14, sameElsewhere, true, ledger.Rekeyed},
	} {
		t.Run(name, func(t *testing.T) {
			earlier := c.was(t).sign(t, c.signedBy)
			r, cp, err := ledger.Compare(earlier, key.Verifier(), c.is(t).present(t, c.signed))
			must(t, err)
			if r != c.want {
				t.Errorf("%q; want %q", r, c.want)
			}
			if cp.N == 0 || cp.Origin == "" {
				t.Errorf("it says nothing: %+v", cp)
			}
		})
	}
}

func at13(t *testing.T) *book { return filled(t, 13) }
func at14(t *testing.T) *book { return filled(t, 14) }

func filledTo(n int) func(t *testing.T) *book {
	return func(t *testing.T) *book { return filled(t, n) }
}

// without is a whole ledger that never had the entry gone.
func without(gone, most int) func(t *testing.T) *book {
	return func(t *testing.T) *book {
		b := &book{}
		for i := range most {
			if i != gone {
				b.add(t, line(t, i))
			}
		}
		return b
	}
}

// Hashes that can't be read are no answer.
func TestCompareUnread(t *testing.T) {
	key, _ := newKey(t, "J")
	b := filled(t, 20)
	p := b.present(t, true)
	b.kept[7] = b.kept[7][:32]
	_, _, err := ledger.Compare(filled(t, 8).sign(t, key), key.Verifier(), p)
	must(t, err) // it doesn't need that one
	if r, _, err := ledger.Compare(filled(t, 12).sign(t, key), key.Verifier(), p); err == nil {
		t.Errorf("%q", r)
	} else if _, ok := errors.AsType[*ledger.MisfitError](err); !ok {
		t.Error(err)
	}
}

func TestOpen(t *testing.T) {
	key, _ := newKey(t, "J")
	newer, _ := newKey(t, "J")
	elsewhere, file := newKey(t, "K")
	same, err := ledger.ParseKey([]byte(file), ledger.Origin("L"))
	must(t, err)
	good := string(filled(t, 13).sign(t, key))
	lines := strings.Split(good, "\n")
	replace := func(n int, with string) string {
		c := slices.Clone(lines)
		c[n] = with
		return strings.Join(c, "\n")
	}
	signed := func(text string) string { // whatever it says
		_, secret := newKey(t, "X")
		s, err := note.NewSigner(strings.TrimSpace(secret))
		must(t, err)
		b, err := note.Sign(&note.Note{Text: text}, s)
		must(t, err)
		return string(b)
	}
	root := lines[2]
	for name, c := range map[string]struct {
		text, verifier string
		want           error
	}{
		"good":                     {good, key.Verifier(), nil},
		"key with a line break":    {good, key.Verifier() + "\n", nil},
		"more signatures":          {good + signatures(16, 5000), key.Verifier(), nil},
		"empty":                    {"", key.Verifier(), ledger.ErrForm},
		"no signature":             {strings.Join(lines[:4], "\n"), key.Verifier(), ledger.ErrForm},
		"cut":                      {good[:len(good)-1], key.Verifier(), ledger.ErrForm},
		"carriage returns":         {strings.ReplaceAll(good, "\n", "\r\n"), key.Verifier(), ledger.ErrForm},
		"large":                    {good + signatures(90, 2000), key.Verifier(), ledger.ErrForm},
		"extension":                {signed("o\n1\n" + root + "\nmore\n"), key.Verifier(), ledger.ErrForm},
		"leading zero":             {signed("o\n01\n" + root + "\n"), key.Verifier(), ledger.ErrForm},
		"sign":                     {signed("o\n+1\n" + root + "\n"), key.Verifier(), ledger.ErrForm},
		"negative":                 {signed("o\n-1\n" + root + "\n"), key.Verifier(), ledger.ErrForm},
		"nothing in it":            {signed("o\n0\n" + root + "\n"), key.Verifier(), ledger.ErrForm},
		"too many":                 {signed("o\n9223372036854775807\n" + root + "\n"), key.Verifier(), ledger.ErrForm},
		"short root":               {signed("o\n1\nAAAA\n"), key.Verifier(), ledger.ErrForm},
		"no origin":                {signed("\n1\n" + root + "\n"), key.Verifier(), ledger.ErrForm},
		"size altered":             {replace(1, "14"), key.Verifier(), ledger.ErrSignature},
		"root altered":             {replace(2, strings.Replace(root, root[:1], map[bool]string{true: "B", false: "A"}[root[0] == 'A'], 1)), key.Verifier(), ledger.ErrSignature},
		"origin altered":           {replace(0, "idenfy-batch/K"), key.Verifier(), ledger.ErrSignature},
		"the key was replaced":     {good, newer.Verifier(), ledger.ErrOtherKey},
		"signature of another":     {replace(4, strings.Split(string(filled(t, 13).sign(t, newer)), "\n")[4]), key.Verifier(), ledger.ErrOtherKey},
		"another ledger":           {good, elsewhere.Verifier(), ledger.ErrOtherLedger},
		"another of the same key":  {string(filled(t, 13).sign(t, same)), elsewhere.Verifier(), ledger.ErrOtherLedger},
		"no key":                   {good, "", ledger.ErrVerifier},
		"a secret key as verifier": {good, strings.TrimSpace(file), ledger.ErrVerifier},
		"key cut":                  {good, key.Verifier()[:len(key.Verifier())-2], ledger.ErrVerifier},
		"key renamed":              {good, strings.Replace(key.Verifier(), "/J", "/K", 1), ledger.ErrVerifier},
	} {
		cp, err := ledger.Open([]byte(c.text), c.verifier)
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v; want %v", name, err, c.want)
		}
		if c.want == nil && (cp.N != 13 || cp.Origin != "idenfy-batch/J" || cp.Hash.String() != root) {
			t.Errorf("%s: %+v", name, cp)
		}
		if c.want != nil && name != "the key was replaced" && len(err.Error()) > 500 {
			t.Errorf("%s: %d bytes", name, len(err.Error()))
		}
	}
}

// signatures are n lines of keys that nobody knows, each of that many bytes.
func signatures(n, size int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "— w%d %s\n", i, base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{byte(i)}, size)))
	}
	return b.String()
}

func TestKey(t *testing.T) {
	key, file := newKey(t, "J")
	if strings.Contains(key.Verifier(), file[len(file)-20:len(file)-1]) || !strings.HasSuffix(file, "\n") {
		t.Error("the verifier key tells the secret")
	}
	again, err := ledger.ParseKey([]byte(file), ledger.Origin("J"))
	must(t, err)
	if again.Verifier() != key.Verifier() {
		t.Error("it is another one")
	}
	moved, err := ledger.ParseKey([]byte(file), ledger.Origin("K"))
	must(t, err)
	encoded := func(k *ledger.Key) string { return strings.SplitN(k.Verifier(), "+", 3)[2] }
	if encoded(moved) != encoded(key) || !strings.HasPrefix(moved.Verifier(), "idenfy-batch/K+") {
		t.Errorf("%s, of %s", moved.Verifier(), key.Verifier())
	}
	for name, bad := range map[string]string{
		"empty": "", "a verifier key": key.Verifier(), "cut": file[:len(file)-3], "two": file + file, "spaces": strings.Replace(file, "+J", " J", 1),
		"large": file + strings.Repeat(" ", 2000), "renamed": strings.Replace(file, "/J", "/K", 1),
	} {
		k, err := ledger.ParseKey([]byte(bad), ledger.Origin("J"))
		if bad != file && err == nil {
			t.Errorf("%s: %v", name, k)
		} else if err != nil && (strings.Contains(err.Error(), "idenfy-batch/J") || !strings.Contains(err.Error(), "bring the right file back")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProof(t *testing.T) {
	key, _ := newKey(t, id(0))
	newer, _ := newKey(t, id(0))
	elsewhere, _ := newKey(t, "K")
	b := filled(t, 20)
	started, err := ledger.Entry{Kind: ledger.Started, At: at(20), Version: "1", Key: key.Verifier()}.Encode()
	must(t, err)
	b.add(t, started)
	checkpoint := b.sign(t, key)
	prove := func(n int64) string {
		p, err := ledger.Prove(n, b.lines[n], checkpoint, ledger.Hashes(b.hashes))
		must(t, err)
		return string(p)
	}
	good := prove(6)
	lines := strings.Split(good, "\n")
	replace := func(n int, with string) string {
		c := slices.Clone(lines)
		c[n] = with
		return strings.Join(c, "\n")
	}
	extra := func(l []byte) string { return "extra " + base64.StdEncoding.EncodeToString(l) }
	flipped := func(n int) string { // one bit of the hash in the n-th line
		h, err := base64.StdEncoding.DecodeString(lines[n])
		must(t, err)
		h[7] ^= 16
		return replace(n, base64.StdEncoding.EncodeToString(h))
	}
	forged := entry(6)
	forged.Outcome = sidecar.Rejected
	lie, err := forged.Encode()
	must(t, err)
	is := result(6)
	for name, c := range map[string]struct {
		proof    string
		verifier string
		result   []byte
		want     error
	}{
		"good":                    {good, key.Verifier(), is, nil},
		"result altered":          {good, key.Verifier(), bytes.Replace(is, []byte("accepted"), []byte("rejected"), 1), ledger.ErrAltered},
		"a space more":            {good, key.Verifier(), append(bytes.Clone(is), ' '), ledger.ErrAltered},
		"result cut":              {good, key.Verifier(), is[:40], ledger.ErrAltered},
		"no result":               {good, key.Verifier(), nil, ledger.ErrAltered},
		"another result":          {good, key.Verifier(), result(7), ledger.ErrOtherResult},
		"proof of another":        {prove(7), key.Verifier(), is, ledger.ErrOtherResult},
		"of no result":            {prove(20), key.Verifier(), is, ledger.ErrOtherResult},
		"the key was replaced":    {good, newer.Verifier(), is, ledger.ErrOtherKey},
		"key of another ledger":   {good, elsewhere.Verifier(), is, ledger.ErrOtherLedger},
		"no key":                  {good, "x", is, ledger.ErrVerifier},
		"another entry":           {replace(1, extra(b.lines[7])), key.Verifier(), is, ledger.ErrNotIncluded},
		"entry forged":            {replace(1, extra(lie)), key.Verifier(), is, ledger.ErrNotIncluded},
		"index altered":           {replace(2, "index 7"), key.Verifier(), is, ledger.ErrNotIncluded},
		"index beyond":            {replace(2, "index 21"), key.Verifier(), is, ledger.ErrNotIncluded},
		"index huge":              {replace(2, "index 9223372036854775807"), key.Verifier(), is, ledger.ErrNotIncluded},
		"first hash altered":      {flipped(3), key.Verifier(), is, ledger.ErrNotIncluded},
		"last hash altered":       {flipped(7), key.Verifier(), is, ledger.ErrNotIncluded},
		"a hash too few":          {strings.Join(slices.Delete(slices.Clone(lines), 3, 4), "\n"), key.Verifier(), is, ledger.ErrNotIncluded},
		"a hash too many":         {strings.Join(slices.Insert(slices.Clone(lines), 3, lines[3]), "\n"), key.Verifier(), is, ledger.ErrNotIncluded},
		"size altered":            {replace(10, "22"), key.Verifier(), is, ledger.ErrSignature},
		"a signed one beneath":    {strings.Join(lines[:9], "\n") + "\n" + string(filled(t, 20).sign(t, key)), key.Verifier(), is, ledger.ErrNotIncluded},
		"empty":                   {"", key.Verifier(), is, ledger.ErrProof},
		"a checkpoint":            {string(checkpoint), key.Verifier(), is, ledger.ErrProof},
		"version 2":               {strings.Replace(good, "@v1", "@v2", 1), key.Verifier(), is, ledger.ErrProof},
		"without the entry":       {strings.Join(slices.Delete(slices.Clone(lines), 1, 2), "\n"), key.Verifier(), is, ledger.ErrProof},
		"leading zero":            {replace(2, "index 06"), key.Verifier(), is, ledger.ErrProof},
		"negative":                {replace(2, "index -6"), key.Verifier(), is, ledger.ErrProof},
		"hash cut":                {replace(3, lines[3][4:]), key.Verifier(), is, ledger.ErrProof},
		"carriage returns":        {strings.ReplaceAll(good, "\n", "\r\n"), key.Verifier(), is, ledger.ErrProof},
		"hashes without end":      {strings.Replace(good, lines[3], strings.Repeat(lines[3]+"\n", 100)+lines[3], 1), key.Verifier(), is, ledger.ErrProof},
		"large":                   {good + strings.Repeat("x", 200_000), key.Verifier(), is, ledger.ErrProof},
		"without its checkpoint":  {strings.Join(lines[:9], "\n") + "\n", key.Verifier(), is, ledger.ErrForm},
		"one line more, unsigned": {good + "x\n", key.Verifier(), is, ledger.ErrForm},
	} {
		p, err := ledger.Verify([]byte(c.proof), c.verifier, c.result)
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v; want %v", name, err, c.want)
		}
		if c.want == nil && (p.N != 6 || p.Entry.ID != id(6) || p.Checkpoint.N != 21) {
			t.Errorf("%s: %+v", name, p)
		}
		// The second way agrees about what is not of this program alone.
		if second := checkProof(c.proof, c.verifier, b.lines[6]); c.want == nil && second != nil {
			t.Errorf("%s: the second way: %v", name, second)
		}
	}
	if _, err := ledger.Prove(6, b.lines[6], filled(t, 6).sign(t, key), ledger.Hashes(b.hashes)); !errors.Is(err, ledger.ErrNotCovered) {
		t.Errorf("beyond the checkpoint: %v", err)
	}
	if _, err := ledger.Prove(6, b.lines[5], checkpoint, ledger.Hashes(b.hashes)); err == nil || !strings.Contains(err.Error(), "ledger verify") {
		t.Errorf("a line that isn't there: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(line(f, 1))
	f.Add([]byte(`{"kind":"started","at":"2026-09-21T14:13:20.123Z","version":"1","key":"` + fixedKey(f, id(0)).Verifier() + `"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ledger.Parse(data)
		if err != nil {
			return
		}
		same, err := e.Encode()
		if err != nil || !bytes.Equal(same, data) {
			t.Errorf("%q is also %q (%v)", data, same, err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	key := fixedKey(f, "J")
	good := filled(f, 13).sign(f, key)
	f.Add(good)
	p := filled(f, 20).present(f, true)
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := ledger.Open(data, key.Verifier()); err == nil && !bytes.HasPrefix(data, good[:bytes.Index(good, []byte("\n\n"))+2]) {
			t.Errorf("signed by nobody: %q", data)
		}
		if r, _, err := ledger.Compare(data, key.Verifier(), p); err == nil && r == "" {
			t.Error("no answer")
		}
	})
}

func FuzzVerify(f *testing.F) {
	key := fixedKey(f, "J")
	b := filled(f, 20)
	for _, n := range []int64{0, 6, 19} {
		p, err := ledger.Prove(n, b.lines[n], b.sign(f, key), ledger.Hashes(b.hashes))
		must(f, err)
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := ledger.Verify(data, key.Verifier(), result(6)); err == nil {
			if p.N != 6 || p.Entry.ID != id(6) {
				t.Errorf("proven: %+v", p)
			}
			must(t, checkProof(string(data), key.Verifier(), b.lines[6]))
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	bk := &book{}
	lines := make([][]byte, 1000)
	for i := range lines {
		lines[i] = line(b, i)
	}
	for b.Loop() {
		bk.add(b, lines[len(bk.lines)%len(lines)])
	}
}

// One step is all of verifying a ledger: each line parsed, each hash made.
func BenchmarkAudit200000(b *testing.B) {
	const n = 200_000
	bk := filled(b, n)
	for b.Loop() {
		a := &ledger.Audit{}
		for i := range n {
			if _, err := ledger.Parse(bk.lines[i]); err != nil {
				b.Fatal(err)
			}
			must(b, a.Next(bk.lines[i], bk.kept[i]))
		}
		if _, err := a.Head(); err != nil {
			b.Fatal(err)
		}
	}
}
