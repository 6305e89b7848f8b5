// Package adopt owns taking over what lies in a spool into a journal that
// doesn't know it: of a version without a journal, or after the journal was
// lost.
package adopt

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"idenfy-batch/internal/drop"
	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// ErrHadJournal says that a result was written by a daemon with a journal, so
// that the spool isn't one of before.
var ErrHadJournal = errors.New("the results in the spool say that there has been a journal, and it is gone")

// atOnce is how many folders share a commit.
const atOnce = 200

// Spool enters all folders of a spool into j, and notes that it is complete. A
// folder that can't be read is left out and counted. told is called now and
// then, once there is something to adopt, with how many folders are done. With
// virgin a result that knows of a journal is ErrHadJournal.
func Spool(ctx context.Context, paths spool.Paths, j *journal.Journal, virgin bool, told func(done, total int)) (unread int, err error) {
	type at struct {
		place spool.Place
		name  string
	}
	var all []at
	for _, p := range append([]spool.Place{spool.Work, spool.Hold, spool.Failed, spool.Done}, paths.Inboxes()...) {
		names, err := paths.List(p)
		if err != nil && p.IsInbox() && p != spool.Inbox && !passing(err) {
			continue // that one waits alone, and nothing in it was taken
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", p, err)
		}
		slices.Sort(names)
		for _, name := range names {
			all = append(all, at{p, name})
		}
	}
	found := false
	done := 0
	for part := range slices.Chunk(all, atOnce) {
		var folders []journal.Adopted
		for _, a := range part {
			if ctx.Err() != nil {
				return unread, ctx.Err()
			}
			f, err := place(paths, a.place, a.name, virgin)
			switch {
			case passing(err):
				return unread, fmt.Errorf("%s/%s: %w", a.place, meta.Show(a.name), err)
			case err != nil:
				unread++
			case virgin && !a.place.IsInbox() && slices.ContainsFunc(f.Lives, knowsJournal):
				return unread, ErrHadJournal
			case len(f.Lives) > 0:
				folders = append(folders, f)
				found = true
			}
		}
		if err := j.Adopt(folders); err != nil {
			return unread, err
		}
		done += len(part)
		if found {
			told(done, len(all))
		}
	}
	return unread, j.SetAdopted()
}

func knowsJournal(l *journal.Life) bool {
	return l.Result.Request.MetaSHA256 != "" || len(l.Result.Defaults) > 0
}

// passing reports whether an error is the machine's, so that another try may
// do.
func passing(err error) bool {
	for _, e := range []error{syscall.EIO, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func place(paths spool.Paths, p spool.Place, name string, virgin bool) (f journal.Adopted, err error) {
	dir, err := paths.OpenFolder(p, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return f, nil // gone just now, or no folder
	}
	if err != nil {
		return f, err
	}
	defer dir.Close()
	f, err = Folder(dir, p, name)
	if err == nil && p == spool.Work && !virgin {
		doubt(&f)
	}
	if err == nil && p.Final() {
		f.Verdict, err = verdict(dir, &f)
	}
	return f, err
}

var sumForm = regexp.MustCompile("^[0-9a-f]{64}$")

// verdict returns what lies beside the records of a folder in a final place, if
// it is of one of its lives.
func verdict(dir *os.Root, f *journal.Adopted) (*sidecar.Verdict, error) {
	v, _, err := sidecar.ReadVerdict(dir)
	if err != nil {
		if passing(err) {
			return nil, err
		}
		return nil, nil // it is evidence, and nothing is taken over of it
	}
	if !slices.ContainsFunc(f.Lives, func(l *journal.Life) bool { return l.ID == v.ID && l.ScanRef != "" && l.ScanRef == v.ScanRef }) {
		return nil, nil
	}
	v.Events = slices.DeleteFunc(v.Events, func(e sidecar.VerdictEvent) bool { return !sumForm.MatchString(e.SHA256) })
	return v, nil
}

// doubt makes the newest life of a folder in work one that may have been
// accepted, unless its final result says otherwise: with a journal, what lies
// in the folder before its end is no record of what was sent.
func doubt(f *journal.Adopted) {
	if len(f.Lives) == 0 {
		return
	}
	l := f.Lives[len(f.Lives)-1]
	if l.State == journal.Filed || l.Result.Outcome.Final() {
		return
	}
	l.State, l.Fate, l.Result.Outcome = journal.Pending, journal.Unsettled, sidecar.Unknown
	l.Result.Times.Finished = sidecar.Now()
	l.Result.Reasons = append(l.Result.Reasons, sidecar.Reason{
		Code: "not_understood", Source: sidecar.FromDaemon,
		Message: "it was in work when the journal was made anew, so it may have been accepted; look the session up in the iDenfy dashboard, then decide with idenfy-batch resolve",
	})
}

// Folder returns what the records in a folder tell of its lives.
func Folder(dir *os.Root, p spool.Place, name string) (journal.Adopted, error) {
	f := journal.Adopted{Dropped: p.IsInbox()}
	names, err := sidecar.Files(dir)
	if err != nil {
		return f, err
	}
	itself, err := drop.Identity(dir)
	if err != nil {
		return f, err
	}
	var now asks
	if m, err := meta.Read(dir, meta.Defaults{}); err == nil {
		now = asks{sidecar.TokenHint(m.AuthToken), m.TokenSHA256(), m.ScanRef, m.ClientID}
	} else if passing(err) {
		return f, err
	}
	own, id := name, ""
	if p == spool.Work {
		own, id, _ = spool.Split(name)
	}
	for _, file := range names {
		res, err := read(dir, file, own)
		if err != nil {
			return f, err
		}
		if res == nil {
			continue
		}
		l := now.life(res, file, p)
		if f.Dropped && res.Inbox != "" { // what lies there says anything
			res.Inbox = p.InboxName()
		}
		if file == sidecar.Name {
			l.Place, l.Name, l.Dir = string(p), name, itself
			f.Decisions = res.Decisions
		}
		f.Lives = append(f.Lives, l)
	}
	if id == "" {
		if n := len(f.Lives); (p == spool.Done || p == spool.Hold) && (n == 0 || f.Lives[n-1].Name == "") {
			f.Lives = append(f.Lives, unintelligible(p, name, itself, now.token, now.ref))
		}
		return f, nil
	}
	if n := len(f.Lives); n > 0 && f.Lives[n-1].ID == id {
		l := f.Lives[n-1]
		l.State, l.Name = journal.Pending, ""
		return f, nil
	}
	// Claimed, and nothing was sent: a daemon without a journal wrote its
	// result before that. For one with a journal see doubt.
	f.Lives = append(f.Lives, &journal.Life{ID: id, State: journal.Claimed, Fate: journal.Unsent, Token: now.token, ScanRef: now.ref, ClientID: now.client, Dir: itself, Place: string(spool.Work), Result: &sidecar.Result{
		ID: id, Folder: meta.Show(own), Outcome: sidecar.Pending, Times: sidecar.Times{Claimed: sidecar.Now()},
	}})
	return f, nil
}

// asks is what the meta.yaml in a folder asks for by now.
type asks struct{ hint, token, ref, client string }

// life is the life that the result in a file tells of, with what of meta.yaml is
// certain to belong to it.
func (now asks) life(res *sidecar.Result, file string, p spool.Place) *journal.Life {
	l := life(res)
	l.Token = res.Request.TokenSHA256
	if res.Session != nil {
		l.ClientID = res.Session.ClientID
	}
	if now.client != "" && file == sidecar.Name && l.Token == "" {
		l.ClientID = now.client
	}
	if l.Token == "" && now.token != "" && (res.Request.TokenHint == now.hint || file == sidecar.Name && damaged(res)) {
		l.Token, l.ScanRef = now.token, now.ref
	}
	if damaged(res) && file == sidecar.Name && p == spool.Done {
		l.Fate, res.Outcome = journal.Taken, sidecar.Accepted
	}
	if res.Outcome != sidecar.Accepted && l.Fate == journal.Taken {
		l.Token = "" // an earlier life was taken, with another one
	}
	return l
}

// unintelligible is the life of a folder in a place where only the daemon puts
// one, without a result that says what became of it: what lies in done was
// accepted, what lies in hold may have been. Its id is the directory's own, so
// that it is the same each time.
func unintelligible(p spool.Place, name, itself, token, ref string) *journal.Life {
	sum := sha256.Sum256([]byte(cmp.Or(itself, string(p)+"/"+name)))
	id := base32.StdEncoding.EncodeToString(sum[:])[:26]
	l := &journal.Life{ID: id, State: journal.Filed, Fate: journal.Unsettled, Token: token, ScanRef: ref, Dir: itself, Place: string(p), Name: name, Result: &sidecar.Result{
		ID: id, Folder: meta.Show(name), Outcome: sidecar.Unknown, Times: sidecar.Times{Claimed: sidecar.Now()},
		Reasons: []sidecar.Reason{{Code: "no_result", Source: sidecar.FromDaemon, Message: "when it was adopted it had no " + sidecar.Name + " that could be read and understood"}},
	}}
	if p == spool.Done {
		l.Fate, l.Result.Outcome = journal.Taken, sidecar.Accepted
	}
	return l
}

// read returns a result that the daemon wrote, or nil. Of a damaged one the id
// is known at most, so that it may have been anything.
func read(dir *os.Root, file, folder string) (*sidecar.Result, error) {
	res, err := sidecar.ReadNamed(dir, file)
	if err == nil && idForm(res.ID) {
		return res, nil
	}
	if passing(err) {
		return nil, err
	}
	id, err := sidecar.ID(dir, file)
	if err != nil || id == "" {
		return nil, err
	}
	return &sidecar.Result{ID: id, Folder: meta.Show(folder), Outcome: sidecar.Unknown, Reasons: []sidecar.Reason{{
		Code: "damaged", Source: sidecar.FromDaemon, Message: file + " was damaged when it was adopted, so it may have been accepted",
	}}}, nil
}

func damaged(res *sidecar.Result) bool {
	return len(res.Reasons) == 1 && res.Reasons[0].Code == "damaged"
}

func idForm(id string) bool {
	return len(id) == 26 && strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// life is what a result tells of a life that has ended.
func life(res *sidecar.Result) *journal.Life {
	return &journal.Life{ID: res.ID, State: journal.Filed, Fate: fate(res), Took: len(res.Attempts) > 0, ScanRef: scanRef(res), Result: res}
}

func scanRef(res *sidecar.Result) string {
	if res.Session == nil {
		return ""
	}
	return res.Session.ScanRef
}

// fate is what a result tells of what was sent; in doubt it may have been
// taken.
func fate(res *sidecar.Result) journal.Fate {
	open := res.Omitted > 0 || slices.ContainsFunc(res.Attempts, func(a sidecar.Attempt) bool {
		return a.State == sidecar.Sending || a.State == sidecar.NoAnswer || a.State == sidecar.Answered && a.HTTPStatus >= 500
	})
	switch {
	case res.WasAccepted():
		return journal.Taken
	case res.Outcome == sidecar.Unknown:
		return journal.Unsettled
	case res.Outcome == sidecar.Rejected:
		return journal.Refused
	case open:
		return journal.Unsettled
	case len(res.Attempts) > 0:
		return journal.Refused
	default:
		return journal.Unsent
	}
}
