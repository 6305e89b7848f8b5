package meta

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/imagefile"
	"idenfy-batch/sidecar"
)

// Limits bounds what a folder may ask for.
type Limits struct {
	Request int64  // the whole request, in bytes
	Image   int64  // one image file, in bytes; 0: no limit of its own
	Files   int    // files in the folder
	Marker  string // name of the ready marker; empty: there is none

	Defaults Defaults // for what meta.yaml leaves out
}

// envelope is more than a request's body has beside the images' Base64, in
// bytes: keys, the token and the other short values.
const envelope = 512

// Image is a file that is to be sent.
type Image struct {
	Step   string // FRONT, BACK or FACE
	File   drop.Entry
	Format imagefile.Format
	Width  int
	Height int
	SHA256 string // as meta.yaml demands it; empty: it doesn't
}

// Report is what an inspection found.
type Report struct {
	Meta    *Meta    // nil when there is none, and one is needed
	Filled  []string // keys that the defaults have filled in; Present: there is no meta.yaml, and none is needed
	Images  []Image  // to send, in order; those that are there, when the folder is not complete
	Extra   []string // other files and directories, these with a slash; at most mostExtra
	More    int      // how many there are beyond those of Extra
	Invalid []Reason // wrong, and no further upload mends it
	Waits   []Reason // what is not there yet

	// Passing says that something could not be read, which may change without
	// the folder doing so.
	Passing bool

	SHA256 string // of meta.yaml as it was read, lower-case hex; empty: it wasn't, or there is none

	// Proven says that the folder is complete by hashes or by the marker, so
	// that nobody has to wait for it to be quiet.
	Proven bool
	// Doubtful says that meta.yaml has no line break at its end, so that it
	// may have been cut off, however sensible it reads; or that there is none and
	// none is needed, so that it may still be on its way.
	Doubtful bool
}

// Complete reports whether rules 1 to 3 of completeness hold; those about open
// files and quiet are the watcher's.
func (r *Report) Complete() bool { return len(r.Invalid) == 0 && len(r.Waits) == 0 }

// List reads the listing of the folder's tree. Files that are called as those
// that the daemon itself puts into a folder are its records.
func List(root *os.Root, lim Limits) (drop.Listing, error) {
	return drop.List(root, lim.Files, func(e drop.Entry) bool { return e.Regular() && sidecar.IsOwn(e.Name) })
}

// Foreign returns the names of records that are not the daemon's, but somebody
// else's files.
func Foreign(l drop.Listing) (names []string) {
	for _, e := range l.Records {
		if e.UID != uint32(os.Geteuid()) && e.UID != 0 {
			names = append(names, e.Name)
		}
	}
	return names
}

// Inspect checks the folder as it was listed. With quick set, images are read
// only if that could prove the folder complete; otherwise it waits for the
// folder to be quiet, before which reading is a waste.
func Inspect(root *os.Root, name string, l drop.Listing, lim Limits, quick bool) Report {
	i := inspector{root: root, folder: name, l: l, lim: lim}
	if !i.look() {
		return i.rep
	}
	files := i.rep.Images // what is found out about them is filled in
	marker, marked := l.Find(lim.Marker)
	proof := lim.Marker != "" && marked && marker.Regular() || hashed(files)
	if quick && (!proof || !i.rep.Complete()) {
		i.rep.Waits = append(i.rep.Waits, StillChanging("."))
		return i.rep
	}
	i.content(files, quick)
	i.rep.Proven = proof && i.rep.Complete()
	return i.rep
}

// Sent returns the names of the files that are to be sent, meta.yaml among
// them, and a reason for each that is a link to somebody else's file instead.
// It reads no image, and nothing where no file has another link: a seal has no
// copies to make then, and need not know what comes first.
func Sent(root *os.Root, l drop.Listing, lim Limits) (names []string, foreign []Reason) {
	if !slices.ContainsFunc(l.Entries, func(e drop.Entry) bool { return e.Regular() && e.Links > 1 }) {
		return nil, nil
	}
	i := inspector{root: root, l: l, lim: lim}
	i.look()
	names = []string{Name}
	for _, img := range i.rep.Images {
		names = append(names, img.File.Name)
	}
	return names, slices.DeleteFunc(i.rep.Invalid, func(r Reason) bool { return r.Code != ForeignLink })
}

// look is Inspect without the images' content. False: there is no meta.yaml to
// go by, and one is needed.
func (i *inspector) look() bool {
	i.names()
	if i.holdsFolders() {
		return false
	}
	data, ok := i.readMeta()
	if !ok {
		return false
	}
	d := i.lim.Defaults
	d.Folder = cmp.Or(d.Folder, i.folder)
	var wrong []Reason
	i.rep.Meta, i.rep.Filled, wrong = Parse(data, d)
	i.rep.Invalid = append(i.rep.Invalid, wrong...)
	i.rep.Doubtful = !bytes.HasSuffix(data, []byte("\n"))
	if data == nil {
		i.rep.Filled = append(i.rep.Filled, Present)
	} else {
		sum := sha256.Sum256(data)
		i.rep.SHA256 = hex.EncodeToString(sum[:])
	}
	i.rep.Images = i.choose()
	return true
}

func hashed(images []Image) bool {
	for _, img := range images {
		if img.SHA256 == "" {
			return false
		}
	}
	return len(images) > 0
}

type inspector struct {
	root   *os.Root
	folder string
	l      drop.Listing
	lim    Limits
	rep    Report
}

func (i *inspector) invalid(code, field, format string, args ...any) {
	i.rep.Invalid = append(i.rep.Invalid, Reason{Code: code, Field: field, Message: fmt.Sprintf(format, args...)})
}

func (i *inspector) wait(code, field, format string, args ...any) {
	i.rep.Waits = append(i.rep.Waits, Reason{Code: code, Field: field, Message: fmt.Sprintf(format, args...)})
}

// names judges the folder by its names alone.
func (i *inspector) names() {
	if wrong := drop.CleanName(i.folder); wrong != "" {
		i.invalid("bad_folder_name", "", "the folder's name %s; rename it and drop it again", wrong)
	}
	if drop.Temporary(i.folder) {
		i.wait("temporary_name", "", "the folder has the name of an upload in progress; rename it when it is whole")
	}
	if i.l.More {
		i.invalid("too_many_files", "", "the folder holds more than %d files and directories (limits.files); one folder is one submission, so split it up", i.lim.Files)
	}
	if i.l.Deep != "" {
		i.invalid("too_deep", i.l.Deep, "%s: directories lie more than %d deep; one folder is one submission, so drop only what belongs to it", Show(i.l.Deep), drop.MaxDepth)
	}
	for _, e := range i.l.Entries {
		if drop.Temporary(path.Base(e.Name)) {
			i.wait("temporary_name", e.Name, "%s: the name of an upload in progress", Show(e.Name))
		}
	}
}

// holdsFolders tells a folder that has nothing of a submission in it, but folders
// that have: somebody uploaded one level too many.
func (i *inspector) holdsFolders() bool {
	var inside []string
	for _, e := range i.l.Entries {
		top, rest, nested := strings.Cut(e.Name, "/")
		stem, _, _ := strings.Cut(strings.ToUpper(path.Base(e.Name)), ".")
		switch {
		case !e.Regular():
		case !nested && (stem == "META" || isImage(e.Name)):
			return false
		case nested && (rest == Name || slices.Contains(stepNames, stem) && isImage(rest)) && !strings.Contains(rest, "/") && !drop.Junk(top) && !slices.Contains(inside, top):
			inside = append(inside, top)
		}
	}
	if len(inside) == 0 {
		return false
	}
	const most = 3
	shown := showAll(inside[:min(len(inside), most)])
	if more := len(inside) - most; more > 0 {
		shown += fmt.Sprintf(" and %d more", more)
	}
	say := i.wait
	if i.l.More { // no further upload mends it
		say = i.invalid
	}
	say("holds_folders", inside[0], "it holds folders (%s), and nothing of a submission itself; each folder in the inbox is one submission, so upload these into the inbox itself, and remove this one", shown)
	return true
}

// readMeta returns what is in meta.yaml: nil, if there is none and none is
// needed; not ok, if it can't be gone by.
func (i *inspector) readMeta() (data []byte, ok bool) {
	e, ok := i.l.Find(Name)
	switch {
	case !ok && i.l.More:
		return nil, false // it may be among what was not looked at
	case !ok:
		meant := i.similar(func(name string) bool {
			lower := strings.ToLower(name)
			return lower == Name || lower == "meta.yml" || strings.HasPrefix(lower, "meta.yaml.")
		})
		if i.lim.Defaults.Optional && meant == "" {
			return nil, true
		}
		i.wait("missing_file", Name, "%s%s", Name, meant)
	case !i.plainFile(e, Name):
	case e.Size == 0:
		i.wait("empty_file", Name, "%s is empty", Name)
	case e.Size > maxSize:
		i.invalid("too_large", Name, "%s has %d bytes, and more than %d can't be right", Name, e.Size, maxSize)
	default:
		f, ok := i.open(e)
		if !ok {
			return nil, false
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, maxSize))
		if err != nil {
			i.unreadable(e.Name, err)
			return nil, false
		}
		if len(bytes.Trim(data, "\x00")) == 0 {
			i.wait("not_written", Name, "%s holds only zeros: its content is not written yet", Name)
			return nil, false
		}
		return data, true
	}
	return nil, false
}

// similar hints at a file that was perhaps meant.
func (i *inspector) similar(match func(name string) bool) string {
	for _, e := range i.l.Entries {
		if match(path.Base(e.Name)) && !drop.Temporary(path.Base(e.Name)) {
			return fmt.Sprintf(" (there is %s; rename it if that is meant)", Show(e.Name))
		}
	}
	return ""
}

// choose finds the images to send, and notes what is missing.
func (i *inspector) choose() []Image {
	m := i.rep.Meta
	byStem := map[string][]string{}
	for _, e := range i.l.Entries {
		stem, _, dot := strings.Cut(strings.ToUpper(e.Name), ".")
		if dot && !strings.Contains(e.Name, "/") && !drop.Temporary(e.Name) {
			byStem[stem] = append(byStem[stem], e.Name)
		}
	}
	known := map[string]bool{Name: true, i.lim.Marker: true}
	var images []Image
	for _, step := range m.steps(func(step string) bool { return len(byStem[step]) > 0 }) {
		name := m.Images.get(step)
		if m.Images == nil {
			switch names := byStem[step]; len(names) {
			case 0:
				if m.DocumentType != "" && !i.l.More {
					i.wait("missing_file", step, "%s (a file %s.jpg, .png or .pdf)", step, step)
				}
				continue
			case 1:
				name = names[0]
			default:
				for _, n := range names {
					known[n] = true
				}
				i.invalid("ambiguous_file", step, "several files are for %s (%s); say which in images: of %s", step, showAll(names), Name)
				continue
			}
		}
		known[name] = true
		e, ok := i.l.Find(name)
		switch {
		case m.Images != nil && badFileName(name) != "":
			continue // Parse has said so
		case !ok && !i.l.More:
			i.wait("missing_file", name, "%s%s", name, i.similar(func(n string) bool { return strings.EqualFold(n, name) }))
			continue
		case !ok:
			continue
		}
		if wrong := drop.CleanName(name); wrong != "" {
			i.invalid("bad_file_name", step, "the name of the file for %s %s; rename it", step, wrong)
		}
		if i.plainFile(e, name) {
			images = append(images, Image{Step: step, File: e, SHA256: m.SHA256.get(step)})
		}
	}
	i.unnamed(known)
	i.extra(known)
	return images
}

// unnamed tells of images whose names don't tell what they are, where one is
// missing: as a scanner makes them.
func (i *inspector) unnamed(known map[string]bool) {
	if !slices.ContainsFunc(i.rep.Waits, func(r Reason) bool { return r.Code == "missing_file" && slices.Contains(stepNames, r.Field) }) {
		return
	}
	const most = 5
	var names []string
	for _, e := range i.l.Entries {
		if isImage(e.Name) && e.Regular() && !known[e.Name] && !strings.Contains(e.Name, "/") && !drop.Temporary(e.Name) {
			names = append(names, e.Name)
		}
	}
	if len(names) == 0 {
		return
	}
	shown := showAll(names[:min(len(names), most)])
	if more := len(names) - most; more > 0 {
		shown += fmt.Sprintf(" and %d more", more)
	}
	i.wait("unnamed_image", names[0], "what %s shows can't be told by the name; rename it to FRONT, BACK or FACE, with the extension that it has, or say it in images: of %s", shown, Name)
}

// isImage tells by its name whether a file is one that can be sent.
func isImage(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".jpg", ".jpeg", ".png", ".pdf":
		return true
	}
	return false
}

// mostExtra bounds how many of the files that are not sent are named.
const mostExtra = 256

// extra notes what travels along.
func (i *inspector) extra(known map[string]bool) {
	for _, name := range Foreign(i.l) { // at most a hundred
		i.rep.Extra = append(i.rep.Extra, Show(name))
	}
	for _, e := range i.l.Entries {
		switch {
		case known[e.Name]:
		case len(i.rep.Extra) == mostExtra:
			i.rep.More++
		case e.Mode.IsDir():
			i.rep.Extra = append(i.rep.Extra, Show(e.Name)+"/")
		default:
			i.rep.Extra = append(i.rep.Extra, Show(e.Name))
		}
	}
}

// ForeignLink is the code of the reason that a file is a link to somebody
// else's.
const ForeignLink = "foreign_hard_link"

// plainFile judges what kind of file e is.
func (i *inspector) plainFile(e drop.Entry, name string) bool {
	shown := Show(name)
	switch {
	case e.Mode.IsDir():
		i.invalid("not_a_file", name, "%s is a directory, and has to be a file", shown)
	case e.Mode.Type() == fs.ModeSymlink:
		i.invalid("not_a_file", name, "%s is a symbolic link; put the file itself there", shown)
	case !e.Regular():
		i.invalid("not_a_file", name, "%s is a special file (%s), and has to be a regular one", shown, kindOf(e.Mode))
	case e.ForeignLink(i.l.Dir.UID):
		i.invalid(ForeignLink, name, "%s is a hard link to a file of another owner; copy the file instead", shown)
	default:
		return true
	}
	return false
}

func kindOf(m fs.FileMode) string {
	switch {
	case m&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case m&fs.ModeSocket != 0:
		return "a socket"
	default:
		return "a device"
	}
}

// content checks sizes, and reads the images to their end.
func (i *inspector) content(images []Image, quick bool) {
	total := int64(envelope)
	small := true
	for _, img := range images {
		total += int64(base64.StdEncoding.EncodedLen(int(img.File.Size)))
		if i.lim.Image > 0 && img.File.Size > i.lim.Image {
			small = false
			i.invalid("image_too_large", img.File.Name, "%s has %d bytes, over the limit for one image of %d (limits.image); make it smaller", Show(img.File.Name), img.File.Size, i.lim.Image)
		}
	}
	if total > i.lim.Request {
		small = false
		i.invalid("request_too_large", "", "the request would have about %d bytes, over the limit of %d (limits.request); Base64 makes 4 bytes of 3, so the images together may have about %d", total, i.lim.Request, (i.lim.Request-envelope)/4*3)
	}
	if !small {
		return // reading what will not be sent is a waste, and may be long
	}
	order := make([]int, len(images))
	for n := range images {
		order[n] = n
	}
	if quick {
		// The newest file is the one that is not whole yet, if any is.
		slices.SortFunc(order, func(a, b int) int {
			return cmp.Compare(images[b].File.ChangeTime(), images[a].File.ChangeTime())
		})
	}
	for _, n := range order {
		i.image(&images[n])
		if quick && !i.rep.Complete() {
			return
		}
	}
}

func (i *inspector) image(img *Image) {
	name := img.File.Name
	if img.File.Size == 0 {
		i.wait("empty_file", name, "%s is empty", Show(name))
		return
	}
	f, ok := i.open(img.File)
	if !ok {
		return
	}
	defer f.Close()
	info, err := imagefile.Walk(f, img.File.Size)
	var (
		truncated   *imagefile.Truncated
		damaged     *imagefile.Damaged
		unsupported *imagefile.Unsupported
	)
	switch {
	case errors.As(err, &truncated):
		i.wait("truncated", name, "%s %v", Show(name), err)
		return
	case errors.As(err, &damaged):
		i.wait("damaged", name, "%s %v", Show(name), err)
		return
	case errors.As(err, &unsupported):
		i.invalid("unsupported_format", name, "%s %v", Show(name), err)
		return
	case err != nil:
		i.unreadable(name, err)
		return
	}
	img.Format, img.Width, img.Height = info.Format, info.Width, info.Height
	if img.SHA256 == "" {
		if drop.Hole(f, img.File.Size) < written(info, img.File.Size) {
			i.wait("not_written", name, "%s has parts that were never written; if it is whole and was copied with holes (rsync -S, cp --sparse), give its sha256 in %s", Show(name), Name)
		}
		return
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, img.File.Size)); err != nil {
		i.unreadable(name, err)
		return
	}
	if hex.EncodeToString(h.Sum(nil)) != img.SHA256 {
		i.wait("sha256_mismatch", name, "%s does not match sha256.%s of %s", Show(name), img.Step, Name)
	}
}

// written is how much of a file has to have been written. A file of which the
// size was set first reads as zeros where nothing was written, and zeros are
// image data like any other; but not in a PNG, whose checksums cover all of it.
// What lies behind the end mark is no part of the image; but of a PDF it may be
// an update that is still to come.
func written(info imagefile.Info, size int64) int64 {
	switch info.Format {
	case imagefile.PNG:
		return 0
	case imagefile.PDF:
		return size
	default:
		return info.End
	}
}

func (i *inspector) open(e drop.Entry) (*os.File, bool) {
	f, err := drop.OpenFile(i.root, e)
	i.rep.Passing = i.rep.Passing || err != nil
	switch {
	case errors.Is(err, drop.ErrChanged):
		i.rep.Waits = append(i.rep.Waits, StillChanging(e.Name))
	case errors.Is(err, drop.ErrBusy):
		i.wait("open_for_writing", e.Name, "%s: %v", Show(e.Name), drop.ErrBusy)
	case err != nil:
		i.unreadable(e.Name, err)
	default:
		return f, true
	}
	return nil, false
}

// StillChanging is the reason that the file name of the folder keeps changing;
// "." is the folder itself.
func StillChanging(name string) Reason {
	if name == "." {
		return Reason{Code: "still_changing", Message: "still changing"}
	}
	return Reason{Code: "still_changing", Field: name, Message: "still changing: " + Show(name)}
}

func (i *inspector) unreadable(name string, err error) {
	i.rep.Passing = true
	if errors.Is(err, fs.ErrPermission) {
		i.wait("unreadable", name, "%s is unreadable for the daemon: fix with chmod g+r, in a folder whose group the daemon shares", Show(name))
		return
	}
	i.wait("unreadable", name, "%s can't be read: %v", Show(name), cause(err))
}

// cause leaves out the path that an error of package os begins with.
func cause(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
