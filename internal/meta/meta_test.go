package meta_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/language"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/meta"
)

const good = "authToken: 3FA5TFPA2ZE3LMPGGS1EGOJNJE\ncountry: lt\ndocumentType: ID_CARD\n"

func TestParseAllKeys(t *testing.T) {
	text := good + `skipAnalysis: true
scanRef: 328c6766-934e-11ed-bb9b-025ad99a18e7
images:
  FRONT: front.jpg
  FACE: "selfie (1).png"
sha256:
  FRONT: 9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08
`
	m, _, reasons := meta.Parse([]byte(text), meta.Defaults{})
	yes := true
	want := &meta.Meta{
		AuthToken: "3FA5TFPA2ZE3LMPGGS1EGOJNJE", Country: "LT", DocumentType: "ID_CARD",
		SkipAnalysis: &yes, ScanRef: "328c6766-934e-11ed-bb9b-025ad99a18e7",
		Images: &meta.Steps{Front: "front.jpg", Face: "selfie (1).png"},
		SHA256: &meta.Steps{Front: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
	}
	if diff := cmp.Diff(want, m); diff != "" || len(reasons) > 0 {
		t.Errorf("got reasons %v and (-want +got):\n%s", reasons, diff)
	}
}

func TestParseForms(t *testing.T) {
	for name, text := range map[string]string{
		"byte order mark":        "\ufeff" + good,
		"line ends of Windows":   strings.ReplaceAll(good, "\n", "\r\n"),
		"no final line break":    strings.TrimSpace(good),
		"comments and quotes":    "# from the scanner\nauthToken: '3FA5TFPA2ZE3' # the token\ncountry: \"LT\"\ndocumentType: ID_CARD\n",
		"flow style":             "{authToken: 3FA5TFPA2ZE3, country: LT, documentType: PASSPORT}\n",
		"a token of digits":      "authToken: 0012345678901\ncountry: LT\ndocumentType: ID_CARD\n",
		"Norway is no boolean":   "authToken: 3FA5TFPA2ZE3\ncountry: NO\ndocumentType: ID_CARD\n",
		"document marks":         "---\n" + good + "...\n",
		"a person":               "clientId: customer 4711\ncountry: LT\ndocumentType: PASSPORT\nfirstName: Žygimantas-O'Neil\nlastName: de la Cruz\ndateOfBirth: 1990-02-03\nnationality: lt\npersonalNumber: 39002030000\nsex: F\naddress: Vilnius, Gedimino pr. 1\n",
		"null optional":          good + "scanRef:\nimages: ~\n",
		"skipAnalysis in words":  good + "skipAnalysis: False\n",
		"UTF-16":                 utf16(good),
		"trailing spaces, blank": "\n\n  \n" + strings.ReplaceAll(good, "\n", "   \n") + "\n",
	} {
		if m, _, reasons := meta.Parse([]byte(text), meta.Defaults{}); len(reasons) > 0 || m.Country == "" {
			t.Errorf("%s: %v", name, reasons)
		}
	}
}

func utf16(s string) string {
	var b strings.Builder
	b.WriteString("\xff\xfe")
	for _, c := range []byte(s) {
		b.WriteByte(c)
		b.WriteByte(0)
	}
	return b.String()
}

func TestParseReasons(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string // code field: message
	}{
		{"everything at once", "authToken: short\ncontry: LT\ncountry: LTU\ndocumentType: id_card\nskipAnalysis: yes\nscanRef: x\n", []string{
			`bad_value authToken: meta.yaml: line 1: authToken has to be 10 to 40 ASCII characters without spaces, and this has 5`,
			`unknown_key contry: meta.yaml: line 2: unknown key "contry"; did you mean "country"?`,
			`bad_value country: meta.yaml: line 3: country is not a code of ISO 3166-1 alpha-2, such as LT; it takes the two-letter code, not the three-letter one`,
			`bad_value documentType: meta.yaml: line 4: documentType has to be ID_CARD, PASSPORT, DRIVER_LICENSE or RESIDENCE_PERMIT, in capitals`,
			`wrong_type skipAnalysis: meta.yaml: line 5: skipAnalysis has to be true or false`,
			`bad_value scanRef: meta.yaml: line 6: scanRef has to be the one that came with the token, such as 328c6766-934e-11ed-bb9b-025ad99a18e7`,
		}},
		{"empty mapping", "{}\n", []string{
			"missing_key authToken: meta.yaml: authToken is missing; or give clientId in its place, and the daemon opens the session",
			"missing_key country: meta.yaml: country is missing",
			"missing_key documentType: meta.yaml: documentType is missing",
		}},
		{"two ways", good + "clientId: a\n", []string{
			"bad_value clientId: meta.yaml: line 4: authToken and clientId are for two ways; leave authToken out to have the daemon open the session, or clientId if you have opened it",
		}},
		{"a person with a token", good + "firstName: Jonas\nsex: M\n", []string{
			"bad_value firstName: meta.yaml: line 4: firstName is for a session that the daemon opens, and stands beside clientId only; leave it out",
			"bad_value sex: meta.yaml: line 5: sex is for a session that the daemon opens, and stands beside clientId only; leave it out",
		}},
		{"a person", "clientId: ' a'\ncountry: LT\ndocumentType: PASSPORT\nscanRef: 328c6766-934e-11ed-bb9b-025ad99a18e7\nfirstName: J0nas\nlastName: <b>\ndateOfBirth: 3.2.1990\nnationality: UK\nsex: m\npersonalNumber: " + strings.Repeat("1", 51) + "\ndocumentNumber: \"1\\n2\"\naddress: " + strings.Repeat("a", 256) + "\n", []string{
			"bad_value clientId: meta.yaml: line 1: clientId has to be 1 to 100 ASCII characters, without a space at its ends, and this has 2",
			"bad_value scanRef: meta.yaml: line 4: scanRef comes with a token, and with clientId the daemon asks for that; leave scanRef out",
			`bad_value firstName: meta.yaml: line 5: firstName may have no digits, and none of ~!@#$%^*()_+={}[]|:;",<>/?`,
			`bad_value lastName: meta.yaml: line 6: lastName may have no digits, and none of ~!@#$%^*()_+={}[]|:;",<>/?`,
			"bad_value dateOfBirth: meta.yaml: line 7: dateOfBirth has to be a day of the past, as YYYY-MM-DD",
			"bad_value nationality: meta.yaml: line 8: nationality is not a code of ISO 3166-1 alpha-2, such as LT; the United Kingdom is GB",
			"bad_value sex: meta.yaml: line 9: sex has to be M or F",
			"bad_value personalNumber: meta.yaml: line 10: personalNumber has to be one line of at most 50 characters",
			"bad_value documentNumber: meta.yaml: line 11: documentNumber has to be one line of at most 50 characters",
			"bad_value address: meta.yaml: line 12: address has to be one line of at most 255 characters",
		}},
		{"as iDenfy's, a scanRef has up to 40 characters", good + "scanRef: " + strings.Repeat("a", 40) + "\n", nil},
		{"a long scanRef", good + "scanRef: " + strings.Repeat("a", 41) + "\n", []string{
			"bad_value scanRef: meta.yaml: line 4: scanRef has to be the one that came with the token, such as 328c6766-934e-11ed-bb9b-025ad99a18e7",
		}},
		{"a list", "- a\n- b\n", []string{"not_a_mapping : meta.yaml: line 1: the document has to be keys with values (key: value), not a list"}},
		{"a text", "hello\n", []string{"not_a_mapping : meta.yaml: line 1: the document has to be keys with values (key: value), not a single value"}},
		{"not YAML", "authToken: [\n", []string{"yaml_syntax : meta.yaml: line 1: not valid YAML: did not find expected node content"}},
		{"tabs", "authToken: 3FA5TFPA2ZE3\n\tcountry: LT\n", []string{"yaml_syntax : meta.yaml: line 2: not valid YAML: found a tab character that violates indentation"}},
		{"two documents", good + "---\n" + good, []string{"yaml_syntax : meta.yaml: line 4: a second document begins here; there may be only one"}},
		{"twice", good + "country: LV\n", []string{"duplicate_key country: meta.yaml: line 4: the key country is given twice"}},
		{"alias", "authToken: &t 3FA5TFPA2ZE3\ncountry: LT\ndocumentType: ID_CARD\nscanRef: *t\n", []string{
			"alias authToken: meta.yaml: line 1: authToken: anchors and aliases (& and *) are not supported; write the value out, in quotes if it begins with such a character",
			"alias scanRef: meta.yaml: line 4: scanRef: anchors and aliases (& and *) are not supported; write the value out, in quotes if it begins with such a character",
		}},
		{"an alias to nothing does not show", "authToken: *3FA5TFPA2ZE3LMPGGS1EGOJNJE\ncountry: LT\n", []string{
			"alias : meta.yaml: not valid YAML: anchors and aliases (& and *) are not supported; write the value out, in quotes if it begins with such a character",
		}},
		{"lists for values", "authToken: [a]\ncountry: {a: b}\ndocumentType: ID_CARD\nimages: [front.jpg]\n", []string{
			"wrong_type authToken: meta.yaml: line 1: authToken has to be a single value, not a list",
			"wrong_type country: meta.yaml: line 2: country has to be a single value, not keys with values",
			"not_a_mapping images: meta.yaml: line 4: images has to be keys with values (key: value), not a list",
		}},
		{"steps", good + "images: {FRONT: a.jpg, SIDE: b.jpg}\n", []string{
			`unknown_key images.SIDE: meta.yaml: line 4: unknown key "images.SIDE"; the keys are FRONT, BACK, FACE`,
		}},
		{"no image", good + "images: {}\n", []string{"bad_value images: meta.yaml: line 4: images names no file; leave it out to have FRONT.*, BACK.* and FACE.* found by name"}},
		{"a step without its file", good + "images:\n  FRONT: a.jpg\n  FACE:\nsha256: {FRONT: ''}\n", []string{
			"bad_value images.FACE: meta.yaml: line 6: images.FACE names no file; name it, or leave the line out if FACE is not to be sent",
			"bad_value sha256.FRONT: meta.yaml: line 7: sha256.FRONT is empty; give the hash, or leave the line out",
		}},
		{"steps without files", good + "images: {FRONT: , FACE: ~}\n", []string{
			"bad_value images.FRONT: meta.yaml: line 4: images.FRONT names no file; name it, or leave the line out if FRONT is not to be sent",
			"bad_value images.FACE: meta.yaml: line 4: images.FACE names no file; name it, or leave the line out if FACE is not to be sent",
		}},
		{"traversal", good + "images:\n  FRONT: ../other/front.jpg\n  BACK: ..\n  FACE: 'a\\b.jpg'\n", []string{
			"bad_file_name images.FRONT: meta.yaml: line 5: images.FRONT has to be a plain file name in the same folder, and it has a separator in it",
			"bad_file_name images.BACK: meta.yaml: line 6: images.BACK has to be a plain file name in the same folder, and it means a directory",
			"bad_file_name images.FACE: meta.yaml: line 7: images.FACE has to be a plain file name in the same folder, and it has a separator in it",
		}},
		{"one file twice", good + "images: {FRONT: a.jpg, FACE: a.jpg}\n", []string{"bad_value images.FACE: meta.yaml: line 4: images.FACE names the same file as images.FRONT"}},
		{"own files", good + "images: {FRONT: meta.yaml, FACE: result.json}\n", []string{
			"bad_file_name images.FRONT: meta.yaml: line 4: images.FRONT has to be a plain file name in the same folder, and it means a file that is no image",
			"bad_file_name images.FACE: meta.yaml: line 4: images.FACE has to be a plain file name in the same folder, and it means a file that is no image",
		}},
		{"hash", good + "images: {FRONT: a.jpg}\nsha256: {FRONT: 123, FACE: " + strings.Repeat("a", 64) + "}\n", []string{
			"bad_value sha256.FRONT: meta.yaml: line 5: sha256.FRONT has to be 64 hexadecimal digits, as sha256sum prints",
			"bad_value sha256.FACE: meta.yaml: line 5: sha256.FACE is of an image that images does not name",
		}},
		{"United Kingdom", "authToken: 3FA5TFPA2ZE3\ncountry: UK\ndocumentType: PASSPORT\n", []string{
			"bad_value country: meta.yaml: line 2: country is not a code of ISO 3166-1 alpha-2, such as LT; the United Kingdom is GB",
		}},
	} {
		_, _, reasons := meta.Parse([]byte(c.text), meta.Defaults{})
		var got []string
		for _, r := range reasons {
			got = append(got, r.Code+" "+r.Field+": "+r.Message)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// Ten levels of ten would be ten thousand million values.
const bomb = `a: &a [x,x,x,x,x,x,x,x,x,x]
b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]
c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]
d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]
e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]
f: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]
g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f,*f]
h: &h [*g,*g,*g,*g,*g,*g,*g,*g,*g,*g]
`

func TestParseIsCheap(t *testing.T) {
	for name, text := range map[string]string{
		"alias bomb":   bomb,
		"deep nesting": strings.Repeat("[", 60_000),
		"deep mapping": strings.Repeat("{a: ", 15_000),
		"many keys":    strings.Repeat("k: v\n", 12_000),
		"long key":     strings.Repeat("k", 60_000) + ": v\n",
	} {
		begin := time.Now()
		if _, _, reasons := meta.Parse([]byte(text), meta.Defaults{}); len(reasons) == 0 {
			t.Errorf("%s is accepted", name)
		}
		// A hundred times what it takes; an expansion would take for ever.
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("%s took %s", name, took)
		}
	}
}

// A file of somebody else's is no record of the daemon's, whatever its name is.
func TestForeign(t *testing.T) {
	self := uint32(os.Geteuid())
	l := drop.Listing{Records: []drop.Entry{{Name: "result.1.json", UID: self}, {Name: "result.7.json", UID: self + 4242}, {Name: "result.json", UID: 0}}}
	if got := meta.Foreign(l); !slices.Equal(got, []string{"result.7.json"}) {
		t.Errorf("foreign: %v", got)
	}
}

// The table of countries is held against the one of golang.org/x/text.
func TestCountries(t *testing.T) {
	accepted := 0
	for a := 'A'; a <= 'Z'; a++ {
		for b := 'A'; b <= 'Z'; b++ {
			code := string([]rune{a, b})
			_, _, reasons := meta.Parse([]byte("authToken: 3FA5TFPA2ZE3\ncountry: "+code+"\ndocumentType: PASSPORT\n"), meta.Defaults{})
			region, err := language.ParseRegion(code)
			official := err == nil && region.IsCountry() && region.String() == code && region.Canonicalize() == region
			// Withdrawn, reserved for other purposes, or assigned by users: not
			// in the standard.
			switch code {
			case "AC", "CP", "CQ", "DG", "EA", "IC", "TA", "XK", "AN", "CS", "EZ", "FQ", "NT", "PC", "SU", "UN", "YU":
				official = false
			}
			if ok := len(reasons) == 0; ok != official {
				t.Errorf("%s: accepted is %v, official is %v", code, ok, official)
			} else if ok {
				accepted++
			}
		}
	}
	if accepted != 249 {
		t.Errorf("%d countries are accepted, and the standard has 249", accepted)
	}
}

// Whatever the text is, parsing ends, and a refusal has reasons that don't
// hold the token.
func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(bomb))
	f.Add([]byte(good + "images: {FRONT: a.jpg}\nsha256: {FRONT: 12}\n"))
	f.Add([]byte("country: LV\nfirstName: Jonas\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		own := all
		own.Folder = "case-7"
		if m, filled, reasons := meta.Parse(data, own); len(reasons) == 0 &&
			((m.ClientID == "") == (m.AuthToken == "") || slices.Contains(filled, "clientId") && m.ClientID != "case-7" || len(m.Country) != 2) {
			t.Errorf("by default: %+v, %v", m, filled)
		}
		m, _, reasons := meta.Parse(data, meta.Defaults{})
		for _, r := range reasons {
			if r.Code == "" || r.Message == "" {
				t.Errorf("a reason without a word: %+v", r)
			}
			if len(m.AuthToken) >= 10 && strings.Contains(r.Message, m.AuthToken) && !strings.Contains("authToken country documentType", m.AuthToken) && r.Code != "unknown_key" {
				t.Errorf("the token stands in %q", r.Message)
			}
		}
		if m.ClientID != "" && len(reasons) == 0 {
			m.AuthToken = "0123456789" // not both
		}
		if len(reasons) == 0 && (len(m.AuthToken) < 10 || len(m.AuthToken) > 40 || len(m.Country) != 2 || m.DocumentType == "") {
			t.Errorf("accepted: %+v", m)
		}
	})
}
