package hostile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/internal/sample"
	"idenfy-batch/internal/sandbox"
)

var (
	photo  = sample.FacePNG()
	secret = sample.Pad(sample.Face(), 30_000, 7) // of somebody else
)

// whole is what is in a folder that would be accepted.
func whole(token string, lines ...string) map[string][]byte {
	return map[string][]byte{"FRONT.png": photo, "FACE.png": photo, "meta.yaml": []byte(sample.Meta(token, "LT", "PASSPORT", lines...))}
}

// Where cases may end.
var (
	// Explained in whatever way: it harms itself only.
	anywhere = []string{"accepted", "invalid", "incomplete", "rejected", "gave_up", "unknown", "inbox", "work"}
	accepted = []string{"accepted"}
	invalid  = []string{"invalid"}
	waits    = []string{"inbox", "incomplete"}
	// Nothing of it may be sent.
	unsent = []string{"invalid", "incomplete", "inbox"}
	// It never comes to rest.
	restless = []string{"incomplete"}
	// It depends on what rights the daemon has.
	perhaps = []string{"accepted", "invalid", "incomplete", "inbox"}
	alone   = []string{"alone"}
	// No answer is the service's own.
	refused = []string{"gave_up", "unknown", "rejected"}
)

// Cases returns all of them, but most of those of Answers.
func (y *Yard) Cases() []Case {
	var list []Case
	for _, some := range [][]Case{ownNames(), forged(y.Known), links(), specials(), hardLinks(), busy(), modes(), names(), trees(), moving(), sizes(), metas(), tokens(), Answers()[:2]} {
		list = append(list, some...)
	}
	return list
}

const temp = ".idenfy-batch.result.json.tmp"

// ownNames has names of the daemon's own files as other things.
func ownNames() []Case {
	planted := file("result.json", []byte(`{"schema":"idenfy-batch/result/v1","id":"AAAAAAAAAAAAAAAAAAAAAAAAAA","outcome":"rejected","reasons":[{"code":"x","message":"\u001b[31mplanted\u202e\u0007"}]}`))
	return []Case{
		{Name: "own-temp-full", Ends: anywhere, make: good(mkdir(temp + "/x"))},
		{Name: "own-temp-empty", Ends: anywhere, make: good(mkdir(temp))},
		{Name: "own-temp-tree", Ends: anywhere, make: good(file(temp+"/a/b/c", []byte("x")), file(temp+"/a/d", nil))},
		{Name: "own-temp-link", Ends: anywhere, make: good(link("@text")(temp))},
		{Name: "own-temp-fifo", Ends: anywhere, make: good(fed(temp))},
		{Name: "own-temp-and-result", Ends: anywhere, make: good(mkdir(temp+"/x"), planted)},
		{Name: "result-dir-empty", Ends: anywhere, make: good(mkdir("result.json"))},
		{Name: "result-dir-full", Ends: anywhere, make: good(mkdir("result.json/x"))},
		{Name: "result-1-dir", Ends: anywhere, make: good(mkdir("result.1.json/x"), planted)},
		{Name: "result-link", Ends: anywhere, make: good(link("@text")("result.json"))},
		{Name: "result-link-dangling", Ends: anywhere, make: good(link("@not-there")("result.json"))},
		{Name: "result-link-folder", Ends: anywhere, make: good(link("@folder")("result.json"))},
		{Name: "result-1-link", Ends: anywhere, make: good(link("@text")("result.1.json"), planted)},
		{Name: "result-fifo", Ends: anywhere, make: good(fed("result.json"))},
		{Name: "result-socket", Ends: anywhere, make: good(socket("result.json"))},
		{Name: "results-500", Ends: anywhere, make: good(numbered(500))},
		{Name: "results-1000", Ends: anywhere, make: good(numbered(1000))},
		{Name: "result-number-huge", Ends: anywhere, make: good(planted, file("result.99999999999999999999.json", nil), file("result.18446744073709551615.json", nil))},
		{Name: "verdict-dir", Ends: anywhere, make: good(mkdir("verdict.json/x"))},
		{Name: "keep-dir", Ends: anywhere, make: good(mkdir(".keep/x"))},
		{Name: "ready-dir", Ends: anywhere, make: good(mkdir(".ready/x"))},
		{Name: "ready-fifo", Ends: anywhere, make: good(fed(".ready"))},
		{Name: "ready-link", Ends: anywhere, make: good(link("@text")(".ready"))},
	}
}

func numbered(n int) step {
	return func(f *Folder) error {
		for i := range n {
			if err := file(fmt.Sprintf("result.%d.json", i+1), nil)(f); err != nil {
				return err
			}
		}
		return nil
	}
}

// forged has results that the daemon did not write. They are kept as files and
// nothing of them is believed.
func forged(known string) []Case {
	result := func(id, outcome string) step {
		return file("result.json", fmt.Appendf(nil, `{"schema":"idenfy-batch/result/v1","id":%q,"folder":"case","outcome":%q}`, id, outcome))
	}
	return []Case{
		{Name: "forged-accepted", Ends: accepted, make: good(result("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "accepted"))},
		{Name: "forged-pending", Ends: accepted, make: good(result("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "pending"))},
		{Name: "forged-known-id", Ends: []string{"accepted", "invalid", "unknown"}, make: good(result(known, "rejected"))},
		{Name: "forged-bad-id", Ends: accepted, make: good(result("../../x", "accepted"))},
		{Name: "forged-5-mb", Ends: accepted, make: good(file("result.json", bytes.Repeat([]byte("[1,2],"), 900_000)))},
		{Name: "forged-nested", Ends: accepted, make: good(file("result.json", bytes.Repeat([]byte(`{"id":`), 100_000)))},
		{Name: "forged-binary", Ends: accepted, make: good(file("result.json", photo))},
		{Name: "forged-empty", Ends: accepted, make: good(file("result.json", nil))},
		{Name: "forged-sparse", Ends: accepted, make: good(truncate("result.json", 1<<40))},
	}
}

// links are symbolic ones.
func links() []Case {
	return []Case{
		{Name: "meta-link-inside", Ends: unsent, make: good(file("m.yaml", whole(Token("meta-link-inside"))["meta.yaml"]), instead("meta.yaml", link("m.yaml")))},
		{Name: "meta-link-outside", Ends: unsent, make: good(instead("meta.yaml", link("@meta.yaml")))},
		{Name: "meta-link-dangling", Ends: unsent, make: good(instead("meta.yaml", link("@not-there")))},
		{Name: "meta-link-loop", Ends: unsent, make: good(instead("meta.yaml", link("meta.yaml")))},
		{Name: "image-link-inside", Ends: unsent, make: good(instead("FACE.png", link("FRONT.png")))},
		{Name: "image-link-outside", Ends: unsent, make: good(instead("FACE.png", link("@secret.jpg")))},
		{Name: "image-link-up", Ends: unsent, make: good(instead("FACE.png", link("../forged-empty/FACE.png")))},
		{Name: "image-link-dangling", Ends: unsent, make: good(instead("FACE.png", link("@not-there")))},
		{Name: "image-link-zero", Ends: unsent, make: good(instead("FACE.png", link("/dev/zero")))},
		{Name: "image-link-fd", Ends: unsent, make: good(instead("FACE.png", link("/proc/self/fd/0")))},
		{Name: "image-link-folder", Ends: unsent, make: good(instead("FACE.png", link("@folder")))},
		{Name: "extra-link-outside", Ends: perhaps, make: good(link("@text")("notes.txt"))},
		{Name: "extra-link-dangling", Ends: perhaps, make: good(link("@not-there")("notes.txt"))},
		{Name: "extra-link-root", Ends: perhaps, make: good(link("/")("originals"))},
		{Name: "sub-link-outside", Ends: perhaps, make: good(mkdir("originals"), link("@folder")("originals/p1"))},
		{Name: "sub-link-loop", Ends: perhaps, make: good(mkdir("originals"), link("..")("originals/up"))},
		{Name: "is-a-link", Ends: alone, make: link("@folder")("")},
		{Name: "is-a-link-dangling", Ends: alone, make: link("@not-there")("")},
		{Name: "is-a-link-loop", Ends: alone, make: link("is-a-link-loop")("")},
		{Name: "is-a-file", Ends: alone, make: func(f *Folder) error { return os.WriteFile(f.dir, photo, 0o660) }},
		{Name: "is-a-fifo", Ends: alone, make: fed("")},
		{Name: "image-turns-into-link", Ends: anywhere, make: good(file(".ready", nil), swap("FACE.png", link("@secret.jpg"), image))},
		{Name: "image-turns-into-dangling", Ends: anywhere, make: good(file(".ready", nil), swap("FACE.png", link("@not-there"), image))},
		{Name: "meta-turns-into-link", Ends: anywhere, make: good(file(".ready", nil), swap("meta.yaml", link("@meta.yaml"), ownMeta))},
	}
}

func image(path string) step { return file(path, photo) }

func ownMeta(path string) step {
	return func(f *Folder) error { return file(path, whole(f.Token)["meta.yaml"])(f) }
}

// SecretSum is the SHA-256 of an image that lies outside of every folder, in
// lower-case hex: nobody may have been sent it as a FACE.
func SecretSum() string {
	sum := sha256.Sum256(secret)
	return hex.EncodeToString(sum[:])
}

// specials are no regular files.
func specials() []Case {
	return []Case{
		{Name: "meta-fifo", Ends: unsent, make: good(instead("meta.yaml", fifo))},
		{Name: "meta-fifo-fed", Ends: unsent, make: good(instead("meta.yaml", fed))},
		{Name: "image-fifo", Ends: unsent, make: good(instead("FACE.png", fifo))},
		{Name: "image-fifo-fed", Ends: unsent, make: good(instead("FACE.png", fed))},
		{Name: "image-socket", Ends: unsent, make: good(instead("FACE.png", socket))},
		{Name: "image-device", Ends: unsent, rooted: true, make: good(instead("FACE.png", device))},
		{Name: "image-directory", Ends: unsent, make: good(instead("FACE.png", mkdir))},
		{Name: "meta-directory", Ends: unsent, make: good(instead("meta.yaml", mkdir))},
		{Name: "extra-fifo", Ends: perhaps, make: good(fed("pipe"))},
		{Name: "extra-device", Ends: perhaps, rooted: true, make: good(device("zero"))},
		{Name: "sub-fifo", Ends: perhaps, make: good(mkdir("originals"), fed("originals/pipe"))},
		{Name: "image-turns-into-fifo", Ends: anywhere, make: good(file(".ready", nil), swap("FACE.png", fifo, image))},
		{Name: "meta-turns-into-fifo", Ends: anywhere, make: good(file(".ready", nil), swap("meta.yaml", fifo, ownMeta))},
		{Name: "result-turns-into-fifo", Ends: anywhere, make: good(file("result.json", nil), swap("result.json", fifo, func(path string) step { return file(path, nil) }))},
	}
}

// hardLinks are names of the same file. What is outside must stay as it is,
// mode and owner included; what was sent must, whoever keeps another name of
// it.
func hardLinks() []Case {
	kept := func(name string) step {
		return func(f *Folder) error {
			return os.Link(f.path(name), filepath.Join(f.y.kept, f.Case.Name))
		}
	}
	return []Case{
		{Name: "hard-two-names", Ends: perhaps, make: good(func(f *Folder) error { return os.Link(f.path("FACE.png"), f.path("same.png")) })},
		{Name: "hard-kept-image", Ends: perhaps, make: good(kept("FACE.png")), after: keptIsHarmless("FACE.png")},
		{Name: "hard-kept-meta", Ends: perhaps, make: good(kept("meta.yaml")), after: keptIsHarmless("meta.yaml")},
		{Name: "hard-kept-extra", Ends: perhaps, make: good(file("p1.tif", photo), kept("p1.tif")), after: keptIsHarmless("p1.tif")},
		{Name: "hard-kept-sub", Ends: perhaps, make: good(file("originals/p1.tif", photo), kept("originals/p1.tif")), after: keptIsHarmless("originals/p1.tif")},
		{Name: "hard-two-folders", Ends: perhaps, make: good(remove("FACE.png"), func(f *Folder) error {
			return os.Link(filepath.Join(f.y.Inbox, "hard-two-names", "FACE.png"), f.path("FACE.png"))
		})},
		{Name: "hard-strangers-image", Ends: perhaps, make: good(remove("FACE.png"), hard("FACE.png", "stranger.png"))},
		{Name: "hard-strangers-extra", Ends: perhaps, make: good(hard("p1.png", "stranger.png"))},
		{Name: "hard-strangers-result", Ends: anywhere, make: good(hard("result.json", "stranger.png"))},
		{Name: "hard-outside-meta", Ends: anywhere, make: good(remove("meta.yaml"), hard("meta.yaml", "meta.yaml"))},
		{Name: "hard-outside-sub", Ends: perhaps, make: good(mkdir("originals"), hard("originals/text", "text"))},
	}
}

// keptIsHarmless writes to the name that the uploader kept.
func keptIsHarmless(name string) func(*Folder, string, string) error {
	return func(f *Folder, place, path string) error {
		if place != "done" {
			return nil
		}
		err := f.y.as(func() error {
			err := os.WriteFile(filepath.Join(f.y.kept, f.Case.Name), []byte("altered"), 0o660)
			if errors.Is(err, fs.ErrPermission) { // it is no longer his
				return nil
			}
			return err
		})
		data, readErr := os.ReadFile(filepath.Join(path, name))
		if string(data) == "altered" {
			return fmt.Errorf("%s was altered after its end", name)
		}
		return errors.Join(err, readErr)
	}
}

// busy has files in use.
func busy() []Case {
	sub := "originals/p1.tif"
	return []Case{
		{Name: "lease-image", Ends: waits, make: good(leased("FACE.png", 0))},
		{Name: "lease-meta", Ends: waits, make: good(leased("meta.yaml", 0))},
		{Name: "lease-extra", Ends: waits, make: good(file("p1.tif", photo), leased("p1.tif", 0))},
		{Name: "lease-sub", Ends: waits, make: good(file(sub, photo), leased(sub, 0))},
		{Name: "lease-marked", Ends: waits, make: good(file(".ready", nil), leased("FACE.png", 0))},
		{Name: "lease-result", Ends: anywhere, make: good(file("result.json", nil), leased("result.json", 0))},
		{Name: "lease-passes", Ends: accepted, make: good(leased("FACE.png", 1500*time.Millisecond))},
		{Name: "lease-meta-passes", Ends: accepted, make: good(leased("meta.yaml", 1500*time.Millisecond))},
		{Name: "open-image", Ends: perhaps, make: good(writing("FACE.png"))},
		{Name: "open-extra", Ends: perhaps, make: good(file("p1.tif", photo), writing("p1.tif"))},
		{Name: "open-sub", Ends: perhaps, make: good(file(sub, photo), writing(sub))},
		{Name: "open-result", Ends: anywhere, make: good(file("result.json", nil), writing("result.json"))},
		{Name: "locked-image", Ends: perhaps, make: good(writing("FACE.png"), func(f *Folder) error { return unix.Flock(int(f.file.Fd()), unix.LOCK_EX) })},
	}
}

// modes forbid things.
func modes() []Case {
	c := []Case{
		{Name: "mode-image-0000", Ends: perhaps, Says: "chmod", make: good(chmod("FACE.png", 0))},
		{Name: "mode-meta-0000", Ends: perhaps, Says: "chmod", make: good(chmod("meta.yaml", 0))},
		{Name: "mode-extra-0000", Ends: anywhere, make: good(file("p1.tif", photo), chmod("p1.tif", 0))},
		{Name: "mode-folder-0000", Ends: perhaps, Says: "chmod", make: good(chmod("", 0))},
		{Name: "mode-folder-0660", Ends: perhaps, Says: "chmod", make: good(chmod("", 0o660))},
		{Name: "mode-folder-0550", Ends: perhaps, Says: "chmod", make: good(chmod("", 0o550))},
		{Name: "mode-folder-0330", Ends: perhaps, Says: "chmod", make: good(chmod("", 0o330))},
		{Name: "mode-sticky", Ends: anywhere, make: good(chmod("", fs.ModeSticky|0o770))},
		{Name: "mode-sticky-result", Ends: anywhere, make: good(file("result.json", nil), chmod("", fs.ModeSticky|0o770))},
		{Name: "mode-sticky-temp", Ends: anywhere, make: good(file(temp, nil), chmod("", fs.ModeSticky|0o770))},
		{Name: "mode-setuid", Ends: perhaps, make: good(chmod("FACE.png", fs.ModeSetuid|fs.ModeSetgid|0o770))},
		{Name: "mode-0777", Ends: perhaps, make: good(chmod("FACE.png", 0o777), chmod("", fs.ModeSetgid|0o777))},
		{Name: "mode-sub-0000", Ends: anywhere, make: good(file("originals/p1.tif", photo), chmod("originals", 0))},
		{Name: "mode-sub-0440", Ends: anywhere, make: good(file("originals/p1.tif", photo), chmod("originals", 0o440))},
		{Name: "mode-sub-sticky", Ends: anywhere, make: good(file("originals/result.json", nil), chmod("originals", fs.ModeSticky|0o770))},
	}
	for _, f := range []struct {
		name, path string
		flag       int
	}{
		{"immutable-image", "FACE.png", immutable}, {"immutable-meta", "meta.yaml", immutable},
		{"immutable-folder", "", immutable}, {"immutable-result", "result.json", immutable},
		{"append-only-folder", "", appendOnly},
	} {
		c = append(c, Case{Name: f.name, Ends: anywhere, rooted: true, make: good(file("result.json", nil), flags(f.path, f.flag))})
	}
	return c
}

// names are those of the folder, and of files in it.
func names() []Case {
	var c []Case
	for _, name := range []string{
		strings.Repeat("n", 255), strings.Repeat("ž", 127), "name\nof two lines", "name\x1b[2J\x1b]0;title\x07escapes", "name\xff\xfenot-utf8", "-rf", "--config=x",
		"  name with spaces  ", `name "quoted" 'twice' $(reboot) ` + "`id`", "name\u202egnp.exe", "name\u200b\ufeff", `name\back`, "name%s%n{{.}}", "name.ABCDEFGHIJKLMNOPQRSTUVWXYZ",
		"name.2", "name", "inbox", "result.json", "journal", "name.", "..2", "name\ttab",
	} {
		ends := perhaps
		if strings.HasPrefix(name, ".") {
			ends = alone
		}
		c = append(c, Case{Name: name, Ends: ends, make: good()})
	}
	for i, name := range []string{strings.Repeat("n", 251) + ".tif", "a\nb.tif", "\x1b[31mred.tif", "\xff\xfe.tif", "\u202egnp.tif", "-rf", ` "q" '`} {
		c = append(c, Case{Name: fmt.Sprint("file-name-", i), Ends: perhaps, make: good(file(name, photo), file("originals/"+name, photo))})
	}
	return append(c,
		Case{Name: "name.part", Ends: waits, Says: "upload in progress", make: good()},
		Case{Name: "file-name-escape-waits", Ends: waits, make: good(remove("FACE.png"), file("FACE\x1b[31m.filepart", photo))},
		Case{Name: "image-name-long", Ends: perhaps, make: good(remove("FACE.png"), file("FACE."+strings.Repeat("x", 250), photo))},
	)
}

// trees are below the folder.
func trees() []Case {
	deep := strings.Repeat("d/", 200)
	many := func(n int, dir string) step {
		return func(f *Folder) error {
			err := mkdir(dir)(f)
			for i := range n {
				// Links to one empty file are quicker to make than files.
				first, path := f.path(dir, fmt.Sprint("z", i/10_000)), f.path(dir, fmt.Sprint("e", i))
				if i%10_000 == 0 {
					err = errors.Join(err, os.WriteFile(first, nil, 0o660), os.Chmod(first, 0o660))
				} else if err == nil {
					err = os.Link(first, path)
				}
			}
			return err
		}
	}
	return []Case{
		{Name: "tree-200-deep", Ends: perhaps, make: good(file(deep+"p1.tif", photo))},
		{Name: "tree-20000", Ends: perhaps, make: good(many(20_000, "originals"))},
		{Name: "tree-65", Ends: perhaps, make: good(many(65, "originals"))},
		{Name: "folder-2000", Ends: invalid, make: good(many(2000, ""))},
		{Name: "tree-of-empty", Ends: perhaps, make: good(func(f *Folder) error {
			for i := range 500 {
				if err := os.MkdirAll(f.path("originals", strconv.Itoa(i)), 0o770); err != nil {
					return err
				}
			}
			return nil
		})},
		{Name: "sub-grows", Ends: restless, make: good(file("originals/p1.tif", photo), grow("originals/p1.tif"))},
		{Name: "sub-gets-more", Ends: []string{"incomplete", "invalid"}, make: good(mkdir("originals"), again(20*time.Millisecond, func(f *Folder, i int) error {
			return os.WriteFile(f.path("originals", strconv.Itoa(i)), nil, 0o660)
		}))},
		{Name: "sub-sub-grows", Ends: restless, make: good(file("a/b/c/p1.tif", photo), grow("a/b/c/p1.tif"))},
		{Name: "sub-uploading", Ends: unsent, make: good(file("originals/p1.tif.filepart", photo))},
	}
}

// moving never rest.
func moving() []Case {
	two := func(f *Folder) error { // folders for one name
		other := filepath.Join(f.y.Inbox, ".other-"+f.Case.Name)
		err := errors.Join(good()(f), f.y.write(other, whole(Token("other-"+f.Case.Name))))
		info, statErr := os.Lstat(other)
		if err = errors.Join(err, statErr); err != nil {
			return err
		}
		f.stands(info)
		return again(10*time.Millisecond, func(f *Folder, _ int) error {
			return unix.Renameat2(unix.AT_FDCWD, f.dir, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
		})(f)
	}
	return []Case{
		{Name: "moving-grows", Ends: restless, make: good(grow("FACE.png"))},
		{Name: "moving-extra-grows", Ends: restless, make: good(file("p1.tif", photo), grow("p1.tif"))},
		{Name: "moving-touched", Ends: restless, make: good(again(50*time.Millisecond, func(f *Folder, _ int) error {
			now := time.Now()
			return os.Chtimes(f.path("FACE.png"), now, now)
		}))},
		{Name: "moving-chmod", Ends: restless, make: good(again(50*time.Millisecond, func(f *Folder, i int) error {
			return os.Chmod(f.path("FACE.png"), fs.FileMode(0o660+i%2*4))
		}))},
		{Name: "moving-meta", Ends: anywhere, make: good(again(50*time.Millisecond, func(f *Folder, i int) error {
			return errors.Join(file(".meta", whole(Token(fmt.Sprint("moving-meta", i%2)))["meta.yaml"])(f), os.Rename(f.path(".meta"), f.path("meta.yaml")))
		}))},
		{Name: "moving-meta-marked", Ends: anywhere, make: good(file(".ready", nil), again(time.Millisecond, func(f *Folder, i int) error {
			return errors.Join(file(".meta", whole(Token(fmt.Sprint("moving-meta-marked", i%2)))["meta.yaml"])(f), os.Rename(f.path(".meta"), f.path("meta.yaml")))
		}))},
		{Name: "moving-to-and-fro", Ends: anywhere, make: good(again(50*time.Millisecond, func(f *Folder, i int) error {
			names := []string{f.dir, f.dir + "-fro"}
			return os.Rename(names[i%2], names[1-i%2])
		}))},
		{Name: "moving-replaced", Ends: append([]string{"alone"}, anywhere...), make: two},
		{Name: "moving-vanishes", Ends: append([]string{"gone"}, anywhere...), make: good(again(100*time.Millisecond, func(f *Folder, i int) error {
			if i%2 == 0 {
				return os.RemoveAll(f.dir)
			}
			return good()(f)
		}))},
		{Name: "moving-files-vanish", Ends: anywhere, make: good(file(".ready", nil), again(time.Millisecond, func(f *Folder, i int) error {
			if i%2 == 0 {
				return os.Remove(f.path("FACE.png"))
			}
			return image("FACE.png")(f)
		}))},
	}
}

// sizes are beyond measure, or claim to be.
func sizes() []Case {
	return []Case{
		{Name: "size-image-1-tb", Ends: invalid, make: good(truncate("FACE.png", 1<<40))},
		{Name: "size-meta-1-tb", Ends: invalid, make: good(truncate("meta.yaml", 1<<40))},
		{Name: "size-extra-5-gb", Ends: perhaps, make: good(truncate("p1.tif", 5<<30))},
		{Name: "size-sub-1-tb", Ends: perhaps, make: good(truncate("originals/p1.tif", 1<<40))},
		{Name: "size-image-0", Ends: waits, Says: "empty", make: good(file("FACE.png", nil))},
		{Name: "size-image-zeros", Ends: waits, make: good(truncate("FACE.png", 10_000_000))},
		{Name: "size-image-bomb", Ends: perhaps, make: good(file("FACE.png", pixels(65535, 65535)))},
		{Name: "size-image-cut", Ends: waits, Says: "truncated", make: good(file("FACE.png", photo[:len(photo)/2]))},
		{Name: "size-image-chunks", Ends: unsent, make: good(file("FACE.png", chunks(900_000)))},
		{Name: "size-image-markers", Ends: unsent, make: good(file("FACE.png", append([]byte("\xff\xd8"), bytes.Repeat([]byte("\xff\xfe\x00\x02"), 3_000_000)...)))},
		{Name: "size-image-garbage", Ends: unsent, make: good(file("FACE.png", bytes.Repeat([]byte("garbage\n"), 100_000)))},
	}
}

// pixels returns the photo with other dimensions in its head.
func pixels(width, height uint32) []byte {
	png := bytes.Clone(photo)
	binary.BigEndian.PutUint32(png[16:], width)
	binary.BigEndian.PutUint32(png[20:], height)
	binary.BigEndian.PutUint32(png[29:], crc32.ChecksumIEEE(png[12:29]))
	return png
}

// chunks returns a PNG of n empty chunks without an end.
func chunks(n int) []byte {
	chunk := binary.BigEndian.AppendUint32([]byte("\x00\x00\x00\x00teSt"), crc32.ChecksumIEEE([]byte("teSt")))
	return append(bytes.Clone(photo[:33]), bytes.Repeat(chunk, n)...)
}

// metas are contents of meta.yaml.
func metas() []Case {
	is := func(text string) func(*Folder) error {
		return func(f *Folder) error {
			return good(file("meta.yaml", []byte(strings.ReplaceAll(text, "TOKEN", f.Token))))(f)
		}
	}
	bomb := []string{"a: &a [x,x,x,x,x,x,x,x,x,x]\n"}
	for c := 'b'; c <= 'i'; c++ {
		bomb = append(bomb, fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 10), ",")))
	}
	return []Case{
		{Name: "meta-bomb", Ends: invalid, make: is(strings.Join(bomb, ""))},
		{Name: "meta-1-mb", Ends: invalid, make: is(strings.Repeat("# x\n", 1<<18))},
		{Name: "meta-nested", Ends: invalid, make: is(strings.Repeat("[", 30_000) + "\n")},
		{Name: "meta-twice", Ends: invalid, Says: "duplicate_key", make: withLines("country: LV")},
		{Name: "meta-token-lines", Ends: invalid, make: is("authToken: \"TOKEN\\nX-Evil: 1\"\ncountry: LT\ndocumentType: PASSPORT\n")},
		{Name: "meta-token-quotes", Ends: anywhere, make: is("authToken: 'TO\",\"images\":{}'\ncountry: LT\ndocumentType: PASSPORT\n")},
		{Name: "meta-client", Ends: anywhere, make: is("clientId: person-1\ncountry: LT\ndocumentType: PASSPORT\n")},
		{Name: "meta-escapes", Ends: invalid, make: is("authToken: TOKEN\ncountry: LT\ndocumentType: PASSPORT\n\"\\e[31mred\\u202e\": x\n")},
		{Name: "meta-path", Ends: invalid, make: withLines("images: {FRONT: FRONT.png, FACE: ../outside/secret.jpg}")},
		{Name: "meta-path-own", Ends: invalid, make: withLines("images: {FRONT: FRONT.png, FACE: result.json}")},
		{Name: "meta-path-sub", Ends: invalid, make: withLines("images: {FRONT: FRONT.png, FACE: originals/FACE.png}")},
		{Name: "meta-no-end", Ends: append([]string{"accepted"}, waits...), make: is("authToken: TOKEN\ncountry: LT\ndocumentType: PASSPORT")},
		{Name: "meta-zeros", Ends: unsent, make: is(strings.Repeat("\x00", 4096))},
		{Name: "meta-missing", Ends: waits, make: good(remove("meta.yaml"))},
		{Name: "meta-alone", Ends: waits, make: good(remove("FRONT.png"), remove("FACE.png"))},
		{Name: "meta-hash-wrong", Ends: waits, make: withLines("sha256: {FACE: " + strings.Repeat("ab", 32) + "}")},
		{Name: "nothing", Ends: waits, make: mkdirSelf},
	}
}

func mkdirSelf(f *Folder) error { return f.y.write(f.dir, nil) }

// tokens are used more than once.
func tokens() []Case {
	var c []Case
	for i := range 5 {
		c = append(c, Case{Name: fmt.Sprint("token-shared-", i), Ends: []string{"accepted", "invalid", "unknown"}, make: func(f *Folder) error {
			f.Token = Token("token-shared")
			return good()(f)
		}})
	}
	return append(c, Case{Name: "token-used", Ends: []string{"invalid", "unknown"}, make: func(f *Folder) error {
		f.Token = Token(Before)
		return good()(f)
	}})
}

// Before is the name of a good folder that is to have ended before the others
// are dropped.
const Before = "before"

// Answers returns cases of answers that come to this folder's requests alone, as
// from something between the daemon and the service that dislikes what is in
// it. More than two of them at once may rightly be taken for the service's
// fault.
func Answers() []Case {
	const page = "<html><title>Blocked</title>Your request was blocked (ray 4711).</html>"
	say := func(status int, kind, body string) func(int) sandbox.Step {
		return func(int) sandbox.Step { return sandbox.Step{Status: status, ContentType: kind, Body: body} }
	}
	fault := func(f sandbox.Fault) func(int) sandbox.Step {
		return func(int) sandbox.Step { return sandbox.Step{Fault: f} }
	}
	const html = "text/html"
	return []Case{
		{Name: "answer-403", Ends: refused, make: good(), answer: say(403, html, page)},
		{Name: "answer-400", Ends: refused, make: good(), answer: say(400, html, page)},
		{Name: "answer-403-json", Ends: refused, make: good(), answer: say(403, "application/json", `{"error":"blocked"}`)},
		{Name: "answer-400-empty", Ends: refused, make: good(), answer: say(400, "text/plain", "")},
		{Name: "answer-404", Ends: refused, make: good(), answer: say(404, html, page)},
		{Name: "answer-405", Ends: refused, make: good(), answer: say(405, html, page)},
		{Name: "answer-406", Ends: refused, make: good(), answer: say(406, html, page)},
		{Name: "answer-413", Ends: refused, make: good(), answer: say(413, html, page)},
		{Name: "answer-429", Ends: refused, make: good(), answer: say(429, html, page)},
		{Name: "answer-200", Ends: refused, make: good(), answer: say(200, html, page)},
		{Name: "answer-302", Ends: refused, make: good(), answer: say(302, html, page)},
		{Name: "answer-500", Ends: refused, make: good(), answer: say(500, html, page)},
		{Name: "answer-503", Ends: refused, make: good(), answer: say(503, html, page)},
		{Name: "answer-error", Ends: []string{"rejected"}, make: good(), answer: func(int) sandbox.Step {
			return sandbox.Step{Status: 400, Identifier: "BAD_VALUE", Message: "\x1b[31mBad\u202e value"}
		}},
		{Name: "answer-reset", Ends: refused, make: good(), answer: fault(sandbox.ResetInBody)},
		{Name: "answer-garbage", Ends: refused, make: good(), answer: fault(sandbox.Garbage)},
		{Name: "answer-none", Ends: append([]string{"work"}, refused...), make: good(), answer: fault(sandbox.Stall)},
		{Name: "answer-drips", Ends: append([]string{"work"}, refused...), make: good(), answer: fault(sandbox.Drip)},
	}
}
