package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Every bad configuration stops the program with 78 and its message.
func TestBadConfigExits78(t *testing.T) {
	paths, err := filepath.Glob("../internal/config/testdata/bad/*.yaml")
	must(t, err)
	if len(paths) < 10 {
		t.Fatalf("%d fixtures", len(paths))
	}
	path, err := checked()
	must(t, err)
	want := regexp.MustCompile(`(?m)^# want: (.*)$`)
	for _, config := range paths {
		data, err := os.ReadFile(config)
		must(t, err)
		for _, command := range []string{"run", "status"} {
			var stderr bytes.Buffer
			cmd := exec.Command(path, command, "--config", config)
			cmd.Stderr = &stderr
			if err := cmd.Run(); cmd.ProcessState.ExitCode() != exitsConfig {
				t.Errorf("%s --config %s: %v", command, config, err)
			}
			for _, m := range want.FindAllSubmatch(data, -1) {
				if !strings.Contains(stderr.String(), string(m[1])) {
					t.Errorf("%s --config %s: %q is not in:\n%s", command, config, m[1], stderr.String())
				}
			}
		}
	}
}

// badDrop is a folder that must not be submitted.
type badDrop struct {
	name  string
	spoil func(dir string, f map[string][]byte) error // before f is written to dir
	after func(dir string) error                      // afterwards
	want  []string                                    // failed as invalid, with these codes and fields; or
	waits string                                      // stays, and this is among what it waits for
}

// spoilers.
func without(names ...string) func(string, map[string][]byte) error {
	return func(_ string, f map[string][]byte) error {
		for _, n := range names {
			delete(f, n)
		}
		return nil
	}
}

func with(name string, data []byte) func(string, map[string][]byte) error {
	return func(_ string, f map[string][]byte) error { f[name] = data; return nil }
}

func metaIs(text string) func(string, map[string][]byte) error {
	return with("meta.yaml", []byte(text))
}

func metaHas(lines ...string) func(string, map[string][]byte) error {
	return func(_ string, f map[string][]byte) error {
		f["meta.yaml"] = append(f["meta.yaml"], strings.Join(append(lines, ""), "\n")...)
		return nil
	}
}

// instead puts something in the place of FRONT.jpg.
func instead(put func(path string) error) func(string) error {
	return func(dir string) error {
		path := filepath.Join(dir, "FRONT.jpg")
		return errors.Join(os.Remove(path), put(path))
	}
}

func badDrops() []badDrop {
	const token = "authToken: 3FA5TFPA2ZE3LMPGGS1EGOJNJE\n"
	png := sample.FacePNG()
	broken := bytes.Clone(png)
	broken[len(broken)/2] ^= 1
	return []badDrop{
		// meta.yaml
		{name: "yaml-syntax", spoil: metaIs("authToken: [\n"), want: []string{"yaml_syntax"}},
		{name: "yaml-tab", spoil: metaIs("authToken:\n\tx: y\n"), want: []string{"yaml_syntax"}},
		{name: "yaml-list", spoil: metaIs("- a\n"), want: []string{"not_a_mapping"}},
		{name: "yaml-text", spoil: metaIs("hello\n"), want: []string{"not_a_mapping"}},
		{name: "yaml-two-documents", spoil: metaHas("---", "a: b"), want: []string{"yaml_syntax"}},
		{name: "yaml-binary", spoil: with("meta.yaml", append(bytes.Clone(front[:500]), '\n')), want: []string{"yaml_syntax"}},
		{name: "yaml-not-utf8", spoil: metaIs("authToken: \xff\xfe\xfd\n"), want: []string{"yaml_syntax"}},
		{name: "yaml-alias", spoil: metaIs(token + "country: &c LT\ndocumentType: *c\n"), want: []string{"alias country", "alias documentType"}},
		{name: "yaml-bomb", spoil: metaIs(bomb()), want: []string{"missing_key authToken", "missing_key country", "missing_key documentType", "unknown_key a", "unknown_key b", "unknown_key c", "unknown_key d", "unknown_key e", "unknown_key f"}},
		{name: "yaml-deep", spoil: metaIs(strings.Repeat("[", 50_000) + "\n"), want: []string{"yaml_syntax"}},
		{name: "yaml-huge", spoil: metaIs(strings.Repeat("# x\n", 1<<20)), want: []string{"too_large meta.yaml"}},
		{name: "key-unknown", spoil: metaHas("colour: red", "documentTypo: x"), want: []string{"unknown_key colour", "unknown_key documentTypo"}},
		{name: "key-twice", spoil: metaHas("country: LV"), want: []string{"duplicate_key country"}},
		{name: "keys-missing", spoil: metaIs("skipAnalysis: true\n"), want: []string{"missing_key authToken", "missing_key country", "missing_key documentType"}},
		{name: "types-wrong", spoil: metaIs("authToken: [a]\ncountry: {a: b}\ndocumentType: ID_CARD\nskipAnalysis: maybe\n"), want: []string{"wrong_type authToken", "wrong_type country", "wrong_type skipAnalysis"}},
		{name: "token-short", spoil: metaIs("authToken: abc\ncountry: LT\ndocumentType: ID_CARD\n"), want: []string{"bad_value authToken"}},
		{name: "token-long", spoil: metaIs("authToken: " + strings.Repeat("a", 41) + "\ncountry: LT\ndocumentType: ID_CARD\n"), want: []string{"bad_value authToken"}},
		{name: "token-not-ascii", spoil: metaIs("authToken: žžžžžžžžžžžž\ncountry: LT\ndocumentType: ID_CARD\n"), want: []string{"bad_value authToken"}},
		{name: "country-unknown", spoil: metaIs(token + "country: XX\ndocumentType: ID_CARD\n"), want: []string{"bad_value country"}},
		{name: "document-type", spoil: metaIs(token + "country: LT\ndocumentType: LIBRARY_CARD\n"), want: []string{"bad_value documentType"}},
		{name: "token-and-client", spoil: metaHas("clientId: a"), want: []string{"bad_value clientId"}},
		{name: "client-not-ascii", spoil: metaIs("clientId: žmogus\ncountry: LT\ndocumentType: ID_CARD\n"), want: []string{"bad_value clientId"}},
		{name: "client-long", spoil: metaIs("clientId: " + strings.Repeat("a", 101) + "\ncountry: LT\ndocumentType: ID_CARD\n"), want: []string{"bad_value clientId"}},
		{name: "client-with-scan-ref", spoil: metaIs("clientId: a\ncountry: LT\ndocumentType: ID_CARD\nscanRef: 328c6766-934e\nsex: X\n"), want: []string{"bad_value scanRef", "bad_value sex"}},
		{name: "person-with-token", spoil: metaHas("firstName: Jonas"), want: []string{"bad_value firstName"}},
		{name: "scan-ref", spoil: metaHas("scanRef: a b"), want: []string{"bad_value scanRef"}},
		{name: "hash-short", spoil: metaHas("sha256: {FRONT: 123}"), want: []string{"bad_value sha256.FRONT"}},
		{name: "meta-link", spoil: without("meta.yaml"), after: func(dir string) error { return os.Symlink("/etc/hostname", filepath.Join(dir, "meta.yaml")) }, want: []string{"not_a_file meta.yaml"}},
		{name: "meta-directory", spoil: without("meta.yaml"), after: func(dir string) error { return os.Mkdir(filepath.Join(dir, "meta.yaml"), 0o700) }, want: []string{"not_a_file meta.yaml"}},
		{name: "meta-fifo", spoil: without("meta.yaml"), after: func(dir string) error { return unix.Mkfifo(filepath.Join(dir, "meta.yaml"), 0o600) }, want: []string{"not_a_file meta.yaml"}},

		// where the images are
		{name: "traversal", spoil: metaHas("images: {FRONT: ../key-twice/FRONT.jpg, FACE: FACE.jpg}"), want: []string{"bad_file_name images.FRONT"}},
		{name: "absolute", spoil: metaHas("images: {FRONT: /etc/hostname, FACE: FACE.jpg}"), want: []string{"bad_file_name images.FRONT"}},
		{name: "dot-dot", spoil: metaHas("images: {FRONT: .., FACE: FACE.jpg}"), want: []string{"bad_file_name images.FRONT"}},
		{name: "names-itself", spoil: metaHas("images: {FRONT: meta.yaml, FACE: FACE.jpg}"), want: []string{"bad_file_name images.FRONT"}},
		{name: "same-file", spoil: metaHas("images: {FRONT: FACE.jpg, FACE: FACE.jpg}"), want: []string{"bad_value images.FACE"}},
		{name: "no-images", spoil: metaHas("images: {}"), want: []string{"bad_value images"}},
		{name: "step-unknown", spoil: metaHas("images: {FRONT: FRONT.jpg, SIDE: FACE.jpg}"), want: []string{"unknown_key images.SIDE"}},
		{name: "two-for-a-step", spoil: with("front.png", png), want: []string{"ambiguous_file FRONT"}},
		{name: "link", after: instead(func(p string) error { return os.Symlink("FACE.jpg", p) }), want: []string{"not_a_file FRONT.jpg"}},
		{name: "link-outside", after: instead(func(p string) error { return os.Symlink("/etc/passwd", p) }), want: []string{"not_a_file FRONT.jpg"}},
		{name: "link-to-nothing", after: instead(func(p string) error { return os.Symlink("nothing", p) }), want: []string{"not_a_file FRONT.jpg"}},
		{name: "fifo", after: instead(func(p string) error { return unix.Mkfifo(p, 0o600) }), want: []string{"not_a_file FRONT.jpg"}},
		{name: "device", after: instead(func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) }), want: []string{"not_a_file FRONT.jpg"}},
		{name: "socket", after: instead(func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o600, 0) }), want: []string{"not_a_file FRONT.jpg"}},
		{name: "directory", after: instead(func(p string) error { return os.Mkdir(p, 0o700) }), want: []string{"not_a_file FRONT.jpg"}},
		{name: "hard-link", after: func(dir string) error { // of another owner than the folder's
			path := filepath.Join(dir, "FRONT.jpg")
			return errors.Join(os.Link(path, filepath.Join(dir, "other")), os.Chown(dir, 4242, -1))
		}, want: []string{"foreign_hard_link FRONT.jpg"}},

		// what is in them
		{name: "text-image", spoil: with("FRONT.jpg", []byte("this is no image\n")), want: []string{"unsupported_format FRONT.jpg"}},
		{name: "heic", spoil: with("FRONT.jpg", []byte("\x00\x00\x00\x18ftypheic\x00\x00\x00\x00")), want: []string{"unsupported_format FRONT.jpg"}},
		{name: "gif", spoil: with("FRONT.jpg", []byte("GIF89a.........")), want: []string{"unsupported_format FRONT.jpg"}},
		{name: "too-large", spoil: with("FRONT.jpg", sample.Pad(front, 15_000_000, 3)), want: []string{"request_too_large"}},
		{name: "sparse-gigabyte", after: func(dir string) error { return os.Truncate(filepath.Join(dir, "FRONT.jpg"), 1<<30) }, want: []string{"request_too_large"}},

		// names and numbers
		{name: "10000-files", after: func(dir string) error {
			for n := range 10_000 {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.txt", n)), nil, 0o600); err != nil {
					return err
				}
			}
			return nil
		}, want: []string{"too_many_files"}},
		{name: "65-files", after: func(dir string) error {
			for n := range 61 {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("z%d.txt", n)), nil, 0o600); err != nil {
					return err
				}
			}
			return nil
		}, want: []string{"too_many_files"}},
		{name: "files-below", after: func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, "originals"), 0o700); err != nil {
				return err
			}
			for n := range 60 {
				if err := os.WriteFile(filepath.Join(dir, "originals", fmt.Sprintf("p%d.tif", n)), nil, 0o600); err != nil {
					return err
				}
			}
			return nil
		}, want: []string{"too_many_files"}},
		{name: "files-like-ours", after: func(dir string) error {
			for n := range 5000 {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("result.%d.json", n+1)), nil, 0o600); err != nil {
					return err
				}
			}
			return nil
		}, want: []string{"too_many_files"}},
		{name: "deep", after: func(dir string) error {
			return os.MkdirAll(filepath.Join(dir, strings.Repeat("d/", 200)), 0o700)
		}, want: []string{"too_deep " + strings.Repeat("d/", 15) + "d"}},
		{name: "no-file-named", spoil: metaHas("images: {FRONT: FRONT.jpg, FACE: }"), want: []string{"bad_value images.FACE"}},
		{name: "folder\nwith a line break", want: []string{"bad_folder_name"}},
		{name: "folder-\xff-not-utf8", want: []string{"bad_folder_name"}},
		{name: "folder-\x1b[2Jescape", want: []string{"bad_folder_name"}},
		{name: "image-name-not-utf8", spoil: func(_ string, f map[string][]byte) error {
			f["FRONT.\xff.jpg"] = f["FRONT.jpg"]
			delete(f, "FRONT.jpg")
			return nil
		}, want: []string{"bad_file_name FRONT"}},
		{name: "image-name-newline", spoil: func(_ string, f map[string][]byte) error {
			f["FACE.a\nb.jpg"] = f["FACE.jpg"]
			delete(f, "FACE.jpg")
			return nil
		}, want: []string{"bad_file_name FACE"}},

		// not yet
		{name: "wait-no-meta", spoil: without("meta.yaml"), waits: "meta.yaml"},
		{name: "wait-meta-yml", spoil: func(_ string, f map[string][]byte) error {
			f["META.yml"] = f["meta.yaml"]
			delete(f, "meta.yaml")
			return nil
		}, waits: "meta.yaml (there is META.yml; rename it if that is meant)"},
		{name: "wait-empty-meta", spoil: metaIs(""), waits: "meta.yaml is empty"},
		{name: "wait-no-back", spoil: without("BACK.jpg"), waits: "BACK (a file BACK.jpg, .png or .pdf)"},
		{name: "wait-named-missing", spoil: metaHas("images: {FRONT: front.jpg, FACE: FACE.jpg}"), waits: "front.jpg (there is FRONT.jpg; rename it if that is meant)"},
		{name: "wait-empty-image", spoil: with("FACE.jpg", nil), waits: "FACE.jpg is empty"},
		{name: "wait-cut", spoil: with("FACE.jpg", face[:len(face)-1]), waits: "FACE.jpg is truncated"},
		{name: "wait-cut-pdf", spoil: with("FACE.jpg", []byte("%PDF-1.7\n1 0 obj\n")), waits: "FACE.jpg is truncated"},
		{name: "wait-damaged-png", spoil: with("FACE.jpg", broken), waits: "FACE.jpg is damaged"},
		{name: "wait-zeros", spoil: with("FACE.jpg", make([]byte, 5000)), waits: "FACE.jpg begins with zeros"},
		{name: "wait-temporary-below", after: func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "originals"), 0o700), os.WriteFile(filepath.Join(dir, "originals", "p1.tif.part"), nil, 0o600))
		}, waits: "originals/p1.tif.part: the name of an upload in progress"},
		{name: "wait-temporary", spoil: with("FACE2.jpg.filepart", face), waits: "FACE2.jpg.filepart: the name of an upload in progress"},
		{name: "wait-hash", spoil: metaHas("sha256: {FACE: " + strings.Repeat("ab", 32) + "}"), waits: "FACE.jpg does not match sha256.FACE of meta.yaml"},
		{name: "wait.filepart", waits: "the folder has the name of an upload in progress"},
	}
}

func bomb() string {
	text := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'f'; c++ {
		text += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 10), ","))
	}
	return text
}

// Bad drops of every kind lie in one inbox with good ones. Each ends with its
// exact reasons, or waits with them; nothing of them is sent; the good ones
// are served meanwhile.
func TestBadDrops(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("devices and other owners need root")
	}
	l := newLab(t, "completeness: {settle: 300ms, rescan: 300ms}")
	l.inboxReady()
	list := badDrops()
	if len(list) < 40 {
		t.Fatalf("%d bad drops", len(list))
	}
	for i, d := range list {
		f := files(d.name)
		dir := l.path("inbox", d.name)
		if d.spoil != nil {
			must(t, d.spoil(dir, f))
		}
		must(t, sample.Write(dir, f))
		if d.after != nil {
			must(t, d.after(dir))
		}
		if i%8 == 0 {
			l.put(fmt.Sprintf("good%02d", i), files(fmt.Sprint("good", i)))
		}
	}
	l.start()
	invalid := func(d badDrop) bool { return d.waits == "" }
	l.until("all ended", func() bool {
		ended := len(l.names(spool.Failed)) + len(l.names(spool.Done))
		return ended == count(list, invalid)+(len(list)+7)/8
	})
	for _, d := range list {
		if d.waits != "" {
			continue
		}
		if p := l.place(d.name); p != spool.Failed {
			t.Errorf("%q is in %s", d.name, p)
			continue
		}
		r := l.result(spool.Failed, d.name)
		var got []string
		for _, reason := range r.Reasons {
			if reason.Message == "" || reason.Source != sidecar.FromPreflight {
				t.Errorf("%q: reason %+v", d.name, reason)
			}
			got = append(got, strings.TrimSpace(reason.Code+" "+reason.Field))
		}
		if r.Outcome != sidecar.Invalid || len(r.Attempts) != 0 || !slices.Equal(got, d.want) {
			t.Errorf("%q: %s, %d attempts, reasons %q; want %q", d.name, r.Outcome, len(r.Attempts), got, d.want)
		}
	}
	// Those that wait say for what, and go on waiting.
	waiting := map[string][]string{}
	for _, w := range l.status().Waiting {
		waiting[w.Folder] = w.WaitsFor
	}
	for _, d := range list {
		if d.waits == "" {
			continue
		}
		if p := l.place(d.name); p != spool.Inbox {
			t.Errorf("%q is in %s", d.name, p)
		}
		if got := strings.Join(waiting[d.name], "\n"); !strings.Contains(got, d.waits) {
			t.Errorf("%q waits for %q, want %q", d.name, got, d.waits)
		}
	}
	if r := l.api.Report(); r.Requests != (len(list)+7)/8 || r.Processed != r.Requests || len(r.Violations) > 0 {
		t.Errorf("the API saw %+v", r)
	}
	// Whatever stood in names, logs stay free of it.
	if log := l.logged(); !utf8.ValidString(log) || strings.Contains(log, "\x1b") || strings.Contains(log, "folder\nwith") {
		t.Error("a name stands in the log as it came")
	}
	for _, secret := range []string{"very-secret", "3FA5TFPA2ZE3LMPGGS1EGOJNJE", token("good0")} {
		if strings.Contains(l.logged(), secret) {
			t.Errorf("%q stands in the log", secret)
		}
	}
	must(t, l.stop())
	t.Logf("%d bad drops, %d of them waiting", len(list), len(list)-count(list, invalid))
}

func count(list []badDrop, such func(badDrop) bool) (n int) {
	for _, d := range list {
		if such(d) {
			n++
		}
	}
	return n
}
