// Package verify owns holding the ledger, its checkpoints, the journal and the
// folders against each other. It reads only, and may do so beside a working
// daemon.
package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unique"

	"idenfy-batch/internal/journal"
	"idenfy-batch/internal/ledger"
	"idenfy-batch/internal/meta"
	"idenfy-batch/internal/spool"
	"idenfy-batch/sidecar"
)

// Reader reads the journal.
type Reader interface {
	Entries(ctx context.Context, q journal.Entries) ([]journal.Row, error)
	Lives(ctx context.Context, q journal.Lives) ([]journal.Standing, error)
	Show(ctx context.Context, s journal.Search) (journal.Stories, error)
}

// Finding is something that was altered, or that can't be explained.
type Finding struct {
	Code  string `json:"code"`            // for programs
	ID    string `json:"id,omitempty"`    // of the submission
	Place string `json:"place,omitempty"` // of the folder
	Name  string `json:"name,omitempty"`  // there
	What  string `json:"what"`            // for people
}

// Options say what is held against each other.
type Options struct {
	Paths   spool.Paths
	Reader  Reader
	Own     []byte                // the checkpoint beside the journal; nil: there is none
	Earlier []byte                // one that was sent away; nil: none
	Key     string                // the verifier key; empty: that of the newest start
	Marker  string                // of a complete folder, which is no extra file
	Settle  time.Duration         // that what seems wrong has before it is looked at again; 0: no daemon works
	Told    func(done, total int) // of folders; total 0: of lines of the ledger and the journal, before these
	Found   func(Finding)
}

// Summary is what was looked at.
type Summary struct {
	Entries  int64  `json:"entries"`
	Folders  int    `json:"folders"`
	Images   int    `json:"images"`
	Findings int    `json:"findings"`
	Working  int    `json:"working"`           // lives that are being worked on, or are to be moved
	Unknown  int    `json:"without_result"`    // of before the ledger, without a result that could be read then
	Undone   int    `json:"not_carried_out"`   // decisions on record; the same command again carries them out
	Purging  int    `json:"purging"`           // folders of which something is being deleted, or was cut off; the daemon finishes that
	Deleted  int    `json:"deleted"`           // images that were deleted as recorded
	Relation string `json:"earlier,omitempty"` // how the earlier checkpoint stands to the ledger
	Root     string `json:"root"`              // of the tree
	Key      string `json:"key"`               // by which checkpoints were verified
}

// known is what the ledger and the journal know of a life.
type known struct {
	id      string
	n       int64 // of the newest entry
	entry   ledger.Entry
	before  string // SHA-256 by the entry before
	wasIn   string // place by the entry before
	doubt   bool   // the newest entry was altered
	decided int    // decisions in the ledger
	purged  int    // times that something of it was deleted, by the ledger
	life    journal.Standing
	agrees  bool // the journal's record is the result that was entered
	row     bool // the journal has it
	listed  bool // the ledger has it
	words   []word
	differs []string // between final verdicts in the ledger and in the journal
	seen    bool     // its folder, or its result in a later life's, was met
}

type run struct {
	Options
	ctx   context.Context //nolint:containedctx // of one run, which the object is
	sum   Summary
	mu    sync.Mutex
	all   map[string]*known
	words map[string]bool // final verdicts in the ledger, by their SHA-256
	list  []Finding
	keys  []string
	shut  map[place]bool // folders that can't be looked at

	inbox map[string]bool // ids of what lies in the inbox, and in work; nil: not read
	blind string          // what can't be seen there
}

// All holds all against all. Beside a working daemon what seems wrong is looked
// at again at the end, so that what only was in motion is not reported.
func All(ctx context.Context, o Options) (Summary, error) {
	r := &run{Options: o, ctx: ctx, all: map[string]*known{}, words: map[string]bool{}, shut: map[place]bool{}}
	present, err := r.ledger()
	if err == nil {
		err = r.checkpoints(present)
	}
	if err == nil {
		err = r.lives()
	}
	for _, f := range r.list { // these are no folder's
		r.Found(f)
	}
	r.sum.Findings, r.list = len(r.list), nil
	if err != nil {
		return r.sum, err
	}
	for _, k := range r.all {
		r.row(k)
	}
	if err := r.folders(); err != nil {
		return r.sum, err
	}
	r.missing()
	err = r.again()
	return r.sum, err
}

func (r *run) found(code string, k *known, place, name, format string, args ...any) {
	f := Finding{Code: code, Place: place, Name: name, What: fmt.Sprintf(format, args...)}
	if k != nil {
		f.ID = cmp.Or(k.life.ID, k.entry.ID)
		if f.Place == "" {
			f.Place, f.Name = k.life.Place, cmp.Or(k.life.Name, k.life.Folder)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, f)
}

// ledger reads the entries, as many as there are now, and holds the tree
// against them.
func (r *run) ledger() (ledger.Present, error) {
	var a ledger.Audit
	var next int64
	whole := true
	for {
		rows, err := r.Reader.Entries(r.ctx, journal.Entries{From: next, Most: journal.MostEntries})
		if err != nil {
			return ledger.Present{}, err
		}
		for _, row := range rows {
			if row.N != next {
				r.found("entry_removed", nil, "", "", "entries %d to %d of the ledger were removed", next, row.N-1)
				next, whole = row.N, false
			}
			next++
			var misfit error
			if whole { // else the tree can't be made anew
				misfit = a.Next([]byte(row.Line), row.Hashes)
			}
			r.entry(row, misfit)
		}
		r.Told(int(next), 0)
		if len(rows) < journal.MostEntries {
			break
		}
	}
	r.sum.Entries = next
	present := ledger.Present{Hashes: ledger.Hashes(r.hashes)}
	if next > 0 {
		tree, err := ledger.Head(next, present.Hashes)
		if misfit, ok := errors.AsType[*ledger.MisfitError](err); ok {
			if whole {
				r.found("tree_replaced", nil, "", "", "%v", misfit)
			}
			return present, nil
		}
		if err != nil {
			return present, err
		}
		present.Tree = tree
		r.sum.Root = tree.Hash.String()
	}
	return present, nil
}

func (r *run) hashes(n int64) ([]byte, error) {
	rows, err := r.Reader.Entries(r.ctx, journal.Entries{From: n, Most: 1})
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 || rows[0].N != n {
		return nil, &ledger.MisfitError{N: n}
	}
	return rows[0].Hashes, nil
}

// entry takes one in.
func (r *run) entry(row journal.Row, misfit error) {
	e, err := ledger.Parse([]byte(row.Line))
	switch {
	case misfit != nil:
		r.found("entry_altered", nil, "", "", "%v; it is about %s", misfit, cmp.Or(row.Life, "no folder"))
	case err != nil:
		r.found("entry_altered", nil, "", "", "entry %d of the ledger is none: %v", row.N, err)
	case e.ID != row.Life:
		r.found("entry_altered", nil, "", "", "entry %d of the ledger is about %s, and is kept as one about %s", row.N, cmp.Or(e.ID, "no folder"), cmp.Or(row.Life, "none"))
	}
	if err != nil {
		return
	}
	if e.Kind == ledger.Started {
		switch n := len(r.keys); {
		case n == 0 || public(r.keys[n-1]) != public(e.Key):
			r.keys = append(r.keys, e.Key)
		default: // the same, of a journal that was made anew from a backup
			r.keys[n-1] = e.Key
		}
		return
	}
	k := r.of(e.ID)
	if e.Kind == ledger.Verdict { // it says nothing of the result
		k.words = append(k.words, wordOf(&e))
		r.words[e.SHA256] = true
		return
	}
	e.ID = k.id
	k.take(row.N, e)
	k.doubt = misfit != nil
}

// of returns what is known of a life, so far nothing if need be.
func (r *run) of(id string) *known {
	k := r.all[id]
	if k == nil {
		k = &known{id: id}
		r.all[id] = k
	}
	return k
}

// once returns s, which is one of a few, once for all.
func once[T ~string](s T) T { return T(unique.Make(string(s)).Value()) }

// stand takes in how the life stands. There are as many of these in memory as
// there ever were folders, so that texts are kept once.
func (k *known) stand(l journal.Standing) {
	k.agrees = l.SHA256 != "" && l.SHA256 == k.entry.SHA256
	l.SHA256 = ""
	if k.id == l.ID {
		l.ID = k.id
	}
	if l.Name == l.Folder {
		l.Name = l.Folder
	}
	l.State, l.Outcome, l.Place = once(l.State), once(l.Outcome), once(l.Place)
	k.life, k.row = l, true
}

// public is the key itself in a verifier key, without the ledger's name.
func public(verifier string) string {
	parts := strings.SplitN(verifier, "+", 3)
	return parts[len(parts)-1]
}

// take makes an entry the newest one.
func (k *known) take(n int64, e ledger.Entry) {
	again := (e.Kind == ledger.Decided || e.Kind == ledger.Purged) && k.entry.Kind == e.Kind && k.entry.At == e.At // see journal.Redecided, PurgeAnswered
	if !again {
		k.before, k.wasIn = k.entry.SHA256, k.entry.Place
	}
	if e.Kind == ledger.Decided && !again {
		k.decided++
	}
	if e.Kind == ledger.Purged && !again {
		k.purged++
	}
	e.Kind, e.Outcome, e.Place, e.Rule, e.Remote = once(e.Kind), once(e.Outcome), once(e.Place), once(e.Rule), once(e.Remote)
	k.n, k.entry, k.listed = n, e, true
}

// checkpoints holds the ledger against its own checkpoint, and against an
// earlier one.
func (r *run) checkpoints(p ledger.Present) error {
	r.sum.Key = r.Key
	if n := len(r.keys); r.Key == "" && n > 0 {
		r.sum.Key = r.keys[n-1]
		for _, k := range r.keys[1:] {
			r.found("key_replaced", nil, "", "", "the key was replaced: by %s. Whoever did that may say so with --key", k)
		}
	}
	if r.sum.Entries > 0 && p.Tree.N == 0 { // it is said that the tree is not whole
		return nil
	}
	if r.sum.Key == "" || p.Tree.N == 0 {
		if r.Own != nil || r.Earlier != nil {
			r.found("cut_off", nil, "", "", "there is a checkpoint, and nothing in the ledger that it could be of")
		}
		return nil
	}
	if r.Own != nil {
		relation, c, err := ledger.Compare(r.Own, r.sum.Key, p)
		misfit := new(ledger.MisfitError)
		switch {
		case errors.As(err, &misfit):
			r.found("tree_replaced", nil, "", "", "the tree of the ledger can't be held against its own checkpoint: %v", err)
		case errors.Is(err, ledger.ErrForm), errors.Is(err, ledger.ErrSignature):
			r.found("checkpoint_altered", nil, "", "", "the ledger's own checkpoint: %v", err)
		case err != nil:
			return err
		case relation == ledger.Same, relation == ledger.Grown:
			p.Signed = true
		default:
			r.found(codes[relation], nil, "", "", "by the ledger's own checkpoint of %d entries: %s", c.N, relation)
		}
	}
	if r.Earlier == nil {
		return nil
	}
	relation, c, err := ledger.Compare(r.Earlier, r.sum.Key, p)
	misfit := new(ledger.MisfitError)
	switch {
	case errors.As(err, &misfit):
		r.found("tree_replaced", nil, "", "", "the tree of the ledger can't be held against the earlier checkpoint: %v", err)
		return nil
	case err != nil:
		return fmt.Errorf("the earlier checkpoint: %w", err)
	case relation == ledger.Other:
		return fmt.Errorf("the earlier checkpoint tells nothing about this ledger: %s", relation)
	}
	r.sum.Relation = string(relation)
	if relation != ledger.Same && relation != ledger.Grown {
		r.found(codes[relation], nil, "", "", "by the earlier checkpoint of %d entries: %s", c.N, relation)
	}
	return nil
}

var codes = map[ledger.Relation]string{
	ledger.CutOff: "cut_off", ledger.Altered: "history_altered", ledger.Forked: "forked",
	ledger.Rekeyed: "key_replaced", ledger.Replaced: "history_replaced", ledger.Other: "checkpoint_of_another",
}

// lives reads how all lives stand.
func (r *run) lives() error {
	for after, read := "", 0; ; {
		list, err := r.Reader.Lives(r.ctx, journal.Lives{After: after, Most: journal.MostEntries})
		if err != nil {
			return err
		}
		for _, l := range list {
			k := r.of(l.ID)
			k.stand(l)
			r.judge(k)
			after = k.id
		}
		read += len(list)
		r.Told(int(r.sum.Entries)+read, 0)
		if len(list) < journal.MostEntries {
			return nil
		}
	}
}

// working tells that a life's folder is on its way.
func (k *known) working() bool {
	return k.row && (k.life.State == journal.Claimed || k.life.State == journal.Pending || k.life.State == journal.Ended)
}

// row holds what the journal says of a life against what the ledger says.
func (r *run) row(k *known) {
	l, e := &k.life, &k.entry
	for _, what := range k.differs {
		r.found("journal_differs", k, "", "", "%s", what)
	}
	switch {
	case l.State == journal.Claimed && l.Folder == "": // kept for a folder that is still to come
		return
	case k.working():
		r.count(&r.sum.Working)
		return
	case !k.row: // it is named with its folder, if there is one
		if !k.listed && len(k.words) > 0 {
			r.found("journal_differs", k, "", "", "the ledger has a final verdict about submission %s, and the journal doesn't know it", k.id)
		}
		return
	case !k.listed && !l.Outcome.Final(): // what somebody submits without the daemon
		return
	case !k.listed:
		r.found("journal_differs", k, "", "", "the journal says that it ended as %s, and the ledger has nothing about it", l.Outcome)
		return
	}
	if k.doubt {
		return
	}
	if e.Outcome != l.Outcome && knows(l.Outcome) || e.Place != string(spool.Place(l.Place).Kind()) {
		r.found("journal_differs", k, "", "", "the journal says that it is %s, in %s, and the ledger that it is %s, in %s", l.Outcome, cmp.Or(l.Place, "no place"), e.Outcome, cmp.Or(e.Place, "no place"))
	}
	if l.Purges < k.purged {
		r.found("journal_differs", k, "", "", "the ledger says that something of it was deleted %d times, and the journal %d", k.purged, l.Purges)
	}
	if l.Decisions < k.decided {
		r.found("journal_differs", k, "", "", "the ledger has %d decisions of people about it, and the journal %d", k.decided, l.Decisions)
	}
}

// knows reports whether an outcome is one that the ledger has as it is.
func knows(o sidecar.Outcome) bool {
	return slices.Contains([]sidecar.Outcome{sidecar.Accepted, sidecar.Rejected, sidecar.Invalid, sidecar.Incomplete, sidecar.GaveUp, sidecar.Unknown}, o)
}

func (r *run) count(n *int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*n++
}

// fresh reads anew what is known of a life: all of one moment, however fast the
// daemon writes.
func (r *run) fresh(id string) (*known, error) {
	k := &known{id: id}
	lives, err := r.Reader.Lives(r.ctx, journal.Lives{ID: id, Most: 1})
	if err != nil {
		return nil, err
	}
	var rows []journal.Row
	if len(lives) > 0 {
		rows = lives[0].Entries
	} else { // only the ledger knows it
		rows, err = r.Reader.Entries(r.ctx, journal.Entries{Life: id, Most: journal.MostEntries})
		if slices.Reverse(rows); err != nil {
			return nil, err
		}
	}
	for _, row := range rows {
		e, err := ledger.Parse([]byte(row.Line))
		switch {
		case err != nil:
		case e.Kind == ledger.Verdict:
			k.words = append(k.words, wordOf(&e))
		default:
			k.take(row.N, e)
		}
	}
	if len(lives) > 0 {
		k.stand(lives[0])
		r.judge(k)
	}
	return k, nil
}

// Settle is how long a daemon may take to note a move that it made.
const Settle = 1500 * time.Millisecond

// again looks once more at what seems wrong, and reports what still is.
func (r *run) again() error {
	first := r.list
	r.inbox = nil
	if len(first) == 0 {
		return nil
	}
	select {
	case <-r.ctx.Done():
		return r.ctx.Err()
	case <-time.After(r.Settle):
	}
	done := map[string]bool{}
	for _, f := range first {
		key := cmp.Or(f.ID, f.Place+"/"+f.Name)
		if done[key] {
			continue
		}
		done[key] = true
		r.list = nil
		if err := r.recheck(&f, first); err != nil {
			return err
		}
		for _, still := range r.list {
			r.sum.Findings++
			still.Name = meta.Show(still.Name)
			r.Found(still)
		}
	}
	return nil
}

// recheck looks at the folder, or the life, of a finding once more.
func (r *run) recheck(f *Finding, first []Finding) error {
	before := r.sum
	defer func() { // it was counted
		n := r.sum.Findings
		r.sum = before
		r.sum.Findings = n
	}()
	if f.ID == "" {
		return r.folder(spool.Place(f.Place), f.Name, r.fresh)
	}
	k, err := r.fresh(f.ID)
	if err != nil {
		return err
	}
	r.row(k)
	looked := map[string]bool{}
	for _, other := range first { // each folder in which it was met
		at := other.Place + "/" + other.Name
		if other.ID != f.ID || !spool.Place(other.Place).Final() || other.Name == "" || looked[at] {
			continue
		}
		looked[at] = true
		look := func(id string) (*known, error) {
			if id == f.ID {
				return k, nil
			}
			return r.fresh(id)
		}
		if err := r.folder(spool.Place(other.Place), other.Name, look); err != nil {
			return err
		}
	}
	if !k.seen {
		r.gone(k)
	}
	return nil
}
