package verify

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/record"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

const (
	maxResult = 64 << 20 // bytes
	maxNames  = 10_000   // of a folder's tree
)

type place struct {
	place spool.Place
	name  string
}

// folders looks at all that lies in final places.
func (r *run) folders() error {
	var all []place
	for _, p := range []spool.Place{spool.Done, spool.Failed, spool.Hold} {
		names, err := r.Paths.List(p)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		for _, name := range names {
			all = append(all, place{p, name})
		}
	}
	look := func(id string) (*known, error) { return r.all[id], nil } //nolint:unparam // see lookup
	r.inbox = nil
	group, ctx := errgroup.WithContext(r.ctx)
	group.SetLimit(min(4, runtime.NumCPU()))
	for i, at := range all {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return r.folder(at.place, at.name, look) })
		r.Told(i, len(all))
	}
	if err := group.Wait(); err != nil {
		return err
	}
	r.Told(len(all), len(all))
	return r.ctx.Err()
}

// lookup tells what is known of a life, or nil.
type lookup func(id string) (*known, error)

// folder looks at one. What can't be read of it is reported, and keeps nobody
// from looking at the others.
func (r *run) folder(p spool.Place, name string, look lookup) error {
	err := r.lookInto(p, name, look)
	if err == nil || !drop.Own(err) && !errors.Is(err, syscall.EIO) {
		return err
	}
	r.mu.Lock()
	r.shut[place{p, name}] = true
	r.mu.Unlock()
	r.found("unreadable", nil, string(p), name, "it can't be looked at, or only in part: %v", err)
	return nil
}

func (r *run) lookInto(p spool.Place, name string, look lookup) error {
	dir, err := r.Paths.OpenFolder(p, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil // it went on
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	r.count(&r.sum.Folders)
	if err := r.earlier(dir, look); err != nil {
		return err
	}
	id, err := sidecar.ID(dir, sidecar.Name)
	if err == nil && id == "" {
		if _, err = drop.ReadHead(dir, sidecar.Name, 1); !errors.Is(err, fs.ErrPermission) {
			err = nil // it is not there, or another one
		}
	}
	if err != nil {
		return err
	}
	var k *known
	if id != "" {
		if k, err = look(id); err != nil {
			return err
		}
	}
	switch {
	case k == nil || !k.row && !k.listed:
		r.found("added", nil, string(p), name, "the folder never went through the daemon: its %s is missing, or of a submission that nobody knows", sidecar.Name)
		return nil
	case k.working() || !k.listed:
		r.saw(k) // what the journal says of it is judged elsewhere
		return nil
	}
	if copied := r.where(k, p, name, id); copied {
		return nil
	}
	r.saw(k)
	if !k.row {
		r.found("journal_differs", k, string(p), name, "the ledger says that it ended as %s, and the journal doesn't know it", k.entry.Outcome)
	}
	gone, err := r.content(k, dir, p, name)
	if err != nil {
		return err
	}
	return r.verdict(k, dir, p, name, gone)
}

// undone reports whether the newest entry may be one that is still to be carried
// out: a decision, or the end of what was held by itself.
func (k *known) undone() bool {
	return k.entry.Kind == ledger.Decided || k.entry.Kind == ledger.Ended && k.before != ""
}

func (r *run) saw(k *known) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k.seen = true
}

// where holds the place of a folder against the one it was put into.
func (r *run) where(k *known, p spool.Place, name, id string) (copied bool) {
	at, is := spool.Place(k.life.Place), k.entry.Place == string(p)
	if is && at == p && k.life.Name == name {
		return false
	}
	if (at != p || k.life.Name != name) && record.LiesAt(r.Paths, at, k.life.Name, id) {
		r.found("added", k, string(p), name, "the folder is a copy of %s/%s", at, meta.Show(k.life.Name))
		return true
	}
	switch {
	case is, k.doubt: // by another name; what is in it is looked at
	case k.undone() && k.wasIn == string(p): // and not carried out, or just now
		r.count(&r.sum.Undone)
	case k.entry.Place == "":
		// it had been taken out of work, and lies here now: the journal says so too
	default:
		r.found("moved", k, string(p), name, "the folder was put into %s, and somebody moved it to %s", k.entry.Place, p)
	}
	return false
}

// content holds what is in a folder against the ledger, and returns what was
// deleted of it since its end.
func (r *run) content(k *known, dir *os.Root, p spool.Place, name string) (gone deleted, err error) {
	if k.doubt { // it is said that its entry was altered
		return nil, nil
	}
	if k.entry.SHA256 == "" {
		r.count(&r.sum.Unknown)
		return nil, nil
	}
	data, err := drop.ReadFile(dir, sidecar.Name, maxResult)
	if errors.Is(err, drop.ErrNotPlain) || errors.Is(err, fs.ErrNotExist) { // which is another one than was entered
		err = nil
	}
	if err != nil {
		return nil, err
	}
	var res sidecar.Result
	readable := json.Unmarshal(data, &res) == nil
	switch is := sidecar.SumOf(data); {
	case is == k.entry.SHA256:
	case k.undone() && is == k.before: // and not carried out
		if k.entry.Place == string(p) { // else it was counted
			r.count(&r.sum.Undone)
		}
		return nil, nil
	case k.life.Purging:
		r.count(&r.sum.Purging)
		return nil, nil
	case readable && res.Outcome != k.entry.Outcome:
		r.found("result_altered", k, string(p), name, "%s was altered: it says %s, and it was %s", sidecar.Name, meta.Show(string(res.Outcome)), k.entry.Outcome)
		return nil, nil
	default:
		r.found("result_altered", k, string(p), name, "%s was altered", sidecar.Name)
		return nil, nil
	}
	if !readable { // it was like that when it was taken over
		return nil, nil
	}
	if k.row && !k.agrees { // there are decisions in it, or something was changed
		if err := r.told(k, p, name, &res); err != nil {
			return nil, err
		}
	}
	if k.life.Purging {
		r.count(&r.sum.Purging)
		return deletedOf(&res), nil
	}
	gone = deletedOf(&res)
	return gone, r.files(k, dir, p, name, &res, gone)
}

// deleted are the names of what was deleted of a folder by its result, with the
// time; directories end with a slash.
type deleted map[string]sidecar.Time

func deletedOf(res *sidecar.Result) deleted {
	if len(res.Purges) == 0 {
		return nil
	}
	inner := slices.ContainsFunc(res.Reasons, func(r sidecar.Reason) bool { return r.Code == sidecar.NotWritable })
	gone := deleted{}
	for i := range res.Purges {
		p := &res.Purges[i]
		for _, d := range p.Files {
			gone[d.File] = p.At
			if _, rest, ok := strings.Cut(d.File, "/"); ok && inner && rest != "" { // it lay inside the uploader's folder, see wrapped
				gone[rest] = p.At
			}
		}
	}
	return gone
}

// purged reports a file that was deleted, and is there again.
func (r *run) purged(k *known, p spool.Place, name, shown string, at sidecar.Time) {
	r.found("purged_present", k, string(p), name, "%s was deleted on %s, as %s says, and is there again", shown, stamp(at), sidecar.Name)
}

// told holds what the journal says of a life against its result, which is as it
// was entered, field by field.
func (r *run) told(k *known, p spool.Place, name string, res *sidecar.Result) error {
	all, err := r.Reader.Show(r.ctx, journal.Search{Key: k.life.ID, ID: true, Most: 1})
	if r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	if err != nil {
		r.found("journal_differs", k, string(p), name, "what the journal says of it can't be read: %v", err)
		return nil
	}
	for _, story := range all.Stories {
		at := slices.IndexFunc(story.Lives, func(l journal.Told) bool { return l.Result.ID == k.life.ID })
		if at < 0 {
			continue // there are too many of that folder to be told
		}
		is := *story.Lives[at].Result
		is.Outcome = res.Outcome          // it is held against the ledger's, see row
		for _, d := range res.Decisions { // others may have come since
			if i := slices.IndexFunc(story.Decisions, func(o sidecar.Decision) bool { return o.At.Equal(d.At.Time) && o.Result == d.Result }); i >= 0 {
				d = story.Decisions[i]
			} else if len(story.Decisions) == journal.MostDecisions {
				// it is too old to be told
			} else {
				d = sidecar.Decision{}
			}
			is.Decisions = append(is.Decisions, d)
		}
		if diff, err := resultDiffers(&is, res); err != nil || diff != "" {
			r.found("journal_differs", k, string(p), name, "the journal is not as %s: %s", sidecar.Name, cmp.Or(diff, fmt.Sprint(err)))
		}
	}
	return nil
}

// resultDiffers is differences of two results.
func resultDiffers(is, file *sidecar.Result) (string, error) {
	data, err := sidecar.Encode(is) // some lists are cut as they are written
	if err != nil {
		return "", err
	}
	stands, err := json.Marshal(file)
	if err != nil {
		return "", err
	}
	return differences(data, stands)
}

// differences names the fields in which what the journal says is not what
// stands in the file.
func differences(is, file []byte) (string, error) {
	says, stands := map[string]string{}, map[string]string{}
	if err := errors.Join(flatten(is, says), flatten(file, stands)); err != nil {
		return "", err
	}
	var list []string
	for _, path := range slices.Sorted(maps.Keys(union(says, stands))) {
		if a, b := says[path], stands[path]; a != b {
			list = append(list, fmt.Sprintf("%s is %s, and was %s", path, cmp.Or(a, "missing"), cmp.Or(b, "missing")))
		}
	}
	if more := len(list) - 3; more > 0 {
		list = append(list[:3], fmt.Sprintf("and %d fields more", more))
	}
	return strings.Join(list, "; "), nil
}

func union(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// flatten puts the values of a JSON text into a map, by their paths.
func flatten(data []byte, into map[string]string) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return err
	}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, below := range v {
				walk(strings.TrimPrefix(path+"."+key, "."), below)
			}
		case []any:
			for n, below := range v {
				walk(fmt.Sprintf("%s[%d]", path, n), below)
			}
		case nil: // an empty list
		default:
			into[path] = meta.Show(fmt.Sprint(v))
		}
	}
	walk("", tree)
	return nil
}

// files holds the files of a folder against its result, which is as it was
// entered.
func (r *run) files(k *known, dir *os.Root, p spool.Place, name string, res *sidecar.Result, gone deleted) error {
	list, err := drop.List(dir, maxNames, func(drop.Entry) bool { return false })
	if err != nil {
		return err
	}
	but := sidecar.Name // which is the daemon's
	if inner := wrapped(list, res); inner != "" {
		but = ""
		for _, e := range list.Entries {
			if top, _, _ := strings.Cut(e.Name, "/"); top != inner && !own(top) {
				r.found("file_added", k, string(p), name, "%s was put into the folder", meta.Show(e.Name))
			}
		}
		if dir, err = drop.Open(dir, inner); err != nil {
			return err
		}
		defer dir.Close()
		if list, err = drop.List(dir, maxNames, func(drop.Entry) bool { return false }); err != nil {
			return err
		}
	}
	for _, e := range list.Entries {
		shown := meta.Show(e.Name)
		if e.Mode.IsDir() {
			shown += "/"
		}
		if at, was := gone[shown]; was && !strings.HasPrefix(path.Base(e.Name), ".idenfy-batch.") { // the daemon's own are made anew
			r.purged(k, p, name, shown, at)
		}
	}
	if err := r.results(k, dir, p, name, res, but, gone); err != nil {
		return err
	}
	for _, img := range res.Request.Images {
		if _, was := gone[meta.Show(img.File)]; was {
			r.count(&r.sum.Deleted)
			continue
		}
		if img.SHA256 == "" {
			continue
		}
		r.count(&r.sum.Images)
		code, what, err := compare(dir, list, img.File, img.SHA256, img.Bytes)
		if err != nil {
			return err
		}
		if code != "" {
			r.found("image_"+code, k, string(p), name, "%s (%s) %s", meta.Show(img.File), img.Step, what)
		}
	}
	if _, was := gone["meta.yaml"]; !was && res.Request.MetaSHA256 != "" {
		code, what, err := compare(dir, list, "meta.yaml", res.Request.MetaSHA256, -1)
		if err != nil {
			return err
		}
		if code != "" {
			r.found("meta_"+code, k, string(p), name, "meta.yaml %s%s", what, differs(dir, res))
		}
	}
	if len(res.Attempts) > 0 { // else not all that lay in it may have been listed
		r.extras(k, list, p, name, res, gone)
	}
	return nil
}

// results holds the results of earlier lives in a folder against those that lay
// there at its end.
func (r *run) results(k *known, dir *os.Root, p spool.Place, name string, res *sidecar.Result, but string, gone deleted) error {
	if res.Earlier == nil { // of a version that noted none
		return nil
	}
	names, err := sidecar.Files(dir)
	if err != nil {
		return err
	}
	for _, e := range res.Earlier {
		if _, was := gone[meta.Show(e.File)]; was {
			continue
		}
		if !slices.Contains(names, e.File) || e.File == but {
			r.found("file_removed", k, string(p), name, "%s is not there any more", meta.Show(e.File))
			continue
		}
		is, err := sidecar.OtherSum(dir, e.File)
		switch {
		case e.SHA256 == "" && (err == nil || drop.Own(err)):
		case err != nil && !errors.Is(err, drop.ErrNotPlain):
			return err
		case is != e.SHA256:
			r.found("result_altered", k, string(p), name, "%s was altered", meta.Show(e.File))
		}
	}
	for _, file := range names {
		if _, was := gone[meta.Show(file)]; was {
			continue
		}
		if file != but && !slices.ContainsFunc(res.Earlier, func(e sidecar.Earlier) bool { return e.File == file }) && len(res.Earlier) < sidecar.MostOthers {
			r.found("file_added", k, string(p), name, "%s was put into the folder", meta.Show(file))
		}
	}
	return nil
}

// wrapped returns the name of the uploader's folder when that lies inside the
// one with the result, since the daemon could not write into it; else "".
func wrapped(list drop.Listing, res *sidecar.Result) (inner string) {
	if !slices.ContainsFunc(res.Reasons, func(r sidecar.Reason) bool { return r.Code == sidecar.NotWritable }) {
		return ""
	}
	dirs := 0
	for _, e := range list.Entries {
		shown := meta.Show(e.Name)
		switch {
		case strings.ContainsRune(e.Name, '/'):
		case e.Mode.IsDir() && shown == res.Folder:
			return e.Name
		case e.Mode.IsDir() && !slices.Contains(res.ExtraFiles, shown+"/"):
			inner = e.Name // whose name may have been too long for it
			dirs++
		}
	}
	if dirs > 1 {
		return ""
	}
	return inner
}

// compare holds a file against the SHA-256 that it had; size -1: any.
func compare(dir *os.Root, list drop.Listing, file, want string, size int64) (code, what string, err error) {
	e, there := list.Find(file)
	switch {
	case !there:
		return "missing", "is not there any more", nil
	case !e.Regular():
		return "altered", "is no file any more", nil
	case size >= 0 && e.Size != size:
		return "altered", fmt.Sprintf("is not as it was: it has %d bytes, and had %d", e.Size, size), nil
	}
	is, err := drop.Sum(dir, e)
	if err != nil || is == want {
		return "", "", err
	}
	return "altered", "is not as it was", nil
}

// differs says in which keys meta.yaml is not what was asked for.
func differs(dir *os.Root, res *sidecar.Result) string {
	m, err := meta.Read(dir, meta.DefaultsOf(res, "any"))
	if err != nil {
		return ""
	}
	var keys []string
	if res.Request.Country != "" && m.Country != res.Request.Country {
		keys = append(keys, fmt.Sprintf("country is %s, and was %s", meta.Show(m.Country), meta.Show(res.Request.Country)))
	}
	if res.Request.DocumentType != "" && m.DocumentType != res.Request.DocumentType {
		keys = append(keys, fmt.Sprintf("documentType is %s, and was %s", meta.Show(m.DocumentType), meta.Show(res.Request.DocumentType)))
	}
	if len(keys) == 0 {
		return ""
	}
	return ": " + strings.Join(keys, ", ")
}

// extras holds the other names in a folder against those that it had.
func (r *run) extras(k *known, list drop.Listing, p spool.Place, name string, res *sidecar.Result, gone deleted) {
	if list.More {
		return
	}
	had, more := map[string]bool{}, 0
	for _, f := range res.ExtraFiles {
		if _, was := gone[f]; !was {
			had[f] = true
		}
	}
	for _, e := range list.Entries {
		shown := meta.Show(e.Name)
		if e.Mode.IsDir() {
			shown += "/"
		}
		if _, was := gone[shown]; was {
			continue // that is said
		}
		if own(path.Base(e.Name)) || e.Name == "meta.yaml" && !slices.Contains(res.Defaults, meta.Present) || e.Name == r.Marker || had[shown] ||
			slices.ContainsFunc(res.Request.Images, func(img sidecar.Image) bool { return img.File == e.Name }) {
			delete(had, shown)
			continue
		}
		if more++; res.MoreFiles == 0 {
			r.found("file_added", k, string(p), name, "%s was put into the folder", shown)
		}
	}
	if res.MoreFiles > 0 && more != res.MoreFiles && res.Emptied() == nil { // these are not listed by name
		r.found(map[bool]string{true: "file_added", false: "file_removed"}[more > res.MoreFiles], k, string(p), name,
			"of the files that travelled along, beside those that are listed, there are %d, and were %d", more, res.MoreFiles)
	}
	for f := range had {
		if !own(path.Base(f)) {
			r.found("file_removed", k, string(p), name, "%s is not there any more", f)
		}
	}
}

// own reports whether a name is one of the daemon's, or of its administrator's.
func own(name string) bool {
	return sidecar.IsOwn(name) || name == ".keep"
}

// earlier finds the results of earlier lives in a folder.
func (r *run) earlier(dir *os.Root, look lookup) error {
	files, err := sidecar.Files(dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		if file == sidecar.Name {
			continue
		}
		data, err := drop.ReadFile(dir, file, maxResult)
		if err != nil {
			continue // a directory, a link: nobody's evidence
		}
		var claims struct{ ID string }
		if json.Unmarshal(data, &claims) != nil || claims.ID == "" {
			continue
		}
		k, err := look(claims.ID)
		if err != nil {
			return err
		}
		if k == nil || !k.listed || k.entry.SHA256 == "" || k.working() {
			continue
		}
		if sidecar.SumOf(data) == k.entry.SHA256 {
			r.saw(k)
		}
	}
	return nil
}

// missing looks for the folders that were not met.
func (r *run) missing() {
	for _, k := range r.all {
		if !k.seen {
			r.gone(k)
		}
	}
}

// gone judges a life whose folder was met nowhere.
func (r *run) gone(k *known) {
	at := spool.Place(k.entry.Place)
	if k.listed && !k.row {
		r.found("journal_differs", k, "", "", "the ledger says that submission %s ended as %s, and the journal doesn't know it", k.entry.ID, k.entry.Outcome)
		return
	}
	if !k.listed || !at.Final() || k.working() || k.life.Came {
		return
	}
	if k.entry.Kind == ledger.Adopted && k.entry.SHA256 == "" && k.life.Name == "" {
		return
	}
	id := k.entry.ID
	if record.LiesAt(r.Paths, spool.Place(k.life.Place), k.life.Name, id) || record.LiesAt(r.Paths, at, k.life.Name, id) {
		return // it came just now, and was entered just now; or it is said that the two differ
	}
	if r.waits(id) {
		return
	}
	if r.shut[place{at, k.life.Name}] {
		return // it is said that it can't be looked at
	}
	if dir, err := r.Paths.OpenFolder(at, k.life.Name); err == nil {
		is, err := sidecar.ID(dir, sidecar.Name)
		if err := errors.Join(err, dir.Close()); err == nil && is != id {
			r.mu.Lock()
			r.list = slices.DeleteFunc(r.list, func(f Finding) bool { return f.Code == "added" && f.Place == string(at) && f.Name == k.life.Name })
			r.mu.Unlock()
			r.found("result_altered", k, "", "", "%s is missing, or another one was put in its place", sidecar.Name)
			return
		}
	}
	r.found("removed", k, string(at), k.life.Name, "the folder was removed%s: it had ended as %s", r.blind, k.entry.Outcome)
}

// waits tells whether a folder waits in the inbox, where it may have been put
// by hand to be sent again, or is being taken from there.
func (r *run) waits(id string) bool {
	if r.inbox == nil {
		r.inbox, r.blind = map[string]bool{}, ""
		for _, p := range append(r.Paths.Inboxes(), spool.Work) {
			names, err := r.Paths.List(p)
			if err != nil {
				r.blind = ", or put into " + string(p) + ", where this user may not look"
			}
			for _, name := range names {
				dir, err := r.Paths.OpenFolder(p, name)
				if err != nil {
					continue
				}
				ids, err := sidecar.IDs(dir)
				_, own, _ := spool.Split(name)
				if errors.Join(err, dir.Close()) != nil {
					continue
				}
				for _, id := range append(ids, own) {
					r.inbox[id] = true
				}
			}
		}
	}
	return r.inbox[id]
}
