package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"

	"idenfy-batch/sidecar"
)

// Verdict answers whether a life may send.
type Verdict int

// The verdicts.
const (
	Send   Verdict = iota + 1 // it may: the attempt is recorded as sending, and the token is this life's
	Wait                      // another life of the folder, or of its token, is in work and undecided
	Before                    // an earlier life was taken
	Maybe                     // an earlier life may have been taken
)

// Other is another life of the same folder, or of the same token.
type Other struct {
	ID      string
	Folder  string
	Place   string
	Name    string
	State   State
	Outcome sidecar.Outcome
	Fate    Fate
	Took    bool
	Token   string
	ScanRef string
	Claimed sidecar.Time
	Ended   sidecar.Time // zero: not by the daemon
}

// last is when something last happened in the life, as far as is known.
func (o *Other) last() sidecar.Time {
	if o.Ended.IsZero() {
		return o.Claimed
	}
	return o.Ended
}

// Where names the folder of o for people.
func (o *Other) Where() string {
	switch {
	case o.Name != "":
		return o.Place + "/" + o.Name
	case o.Place != "":
		return o.Folder + ", in " + o.Place
	default:
		return o.Folder
	}
}

// Answer is the verdict with its reason.
type Answer struct {
	Verdict Verdict
	Other   Other   // whose life it is about; of several, the newest
	Open    []Other // lives that may have been taken, the newest first
	Own     bool    // the folder itself came with a result of one of these lives
	Forced  bool    // Send, because a person forced it
}

// Question asks whether a life may send.
type Question struct {
	Life  *Life    // with the token, and the attempt that it wants to make as its last
	Prior []string // ids in the results that came with the folder
	// Unused tells that the session of the life's token was just found unused,
	// so that the same token may be sent again.
	Unused bool
	// Only asks, and makes the life known with what it has: it won't be sent,
	// whatever the answer is.
	Only bool
}

// Begin answers a question, and in the same transaction, if the verdict is
// Send, records the attempt, makes the token the life's own, and uses up what
// a person had decided. With any other verdict the attempt is not recorded.
//
// What is asked is the history of the folder: of all lives that it is known
// by, by the ids of its results, and by its token.
func (j *Journal) Begin(q Question) (Answer, error) {
	var a Answer
	err := j.write(func(t *tx) error {
		a = Answer{}
		l := q.Life
		if l.Took && !q.Only { // it was asked at its first attempt
			a.Verdict, a.Forced = Send, l.Forced
			t.put(sending(l, l.Forced))
			return t.err
		}
		kase, own := t.join(l, q.Prior)
		others := t.others(kase, l.ID)
		if t.err != nil {
			return t.err
		}
		a = t.judge(kase, others, q)
		a.Own = own
		if a.Verdict == Send && !q.Only {
			t.put(sending(l, a.Forced))
			t.exec("UPDATE decision SET used = ? WHERE kase = ? AND used IS NULL", l.ID, kase)
		} else {
			t.put(waiting(l))
		}
		return t.err
	})
	return a, err
}

// sending is l as it is with the verdict Send.
func sending(l *Life, forced bool) *Life {
	c := *l
	c.State, c.Fate, c.Took, c.Forced = Pending, Unsettled, true, forced
	return &c
}

// waiting is l as it is with any other: without the attempt.
func waiting(l *Life) *Life {
	c, r := *l, *l.Result
	if last := r.LastAttempt(); last != nil && last.State == sidecar.Sending {
		r.Attempts = r.Attempts[:len(r.Attempts)-1]
	}
	c.State, c.Result = Pending, &r
	return &c
}

func (t *tx) newCase() int64 {
	var n int64
	t.row("SELECT coalesce(max(kase), 0) + 1 FROM life", nil, &n)
	return n
}

// join makes l a life of the cases that its folder is known by, which become
// one. own tells that it is known by the results in it.
func (t *tx) join(l *Life, prior []string) (kase int64, own bool) {
	var cases []int64
	add := func(query string, args ...any) (found bool) {
		t.each(query, args, func(rows *sql.Rows) error {
			var k int64
			err := rows.Scan(&k)
			if !slices.Contains(cases, k) {
				cases = append(cases, k)
			}
			found = true
			return err
		})
		return found
	}
	add("SELECT kase FROM life WHERE id = ?", l.ID)
	for _, id := range prior {
		if id != l.ID && add("SELECT kase FROM life WHERE id = ?", id) {
			own = true
		}
	}
	if l.Dir != "" { // whatever became of the results in it
		own = add("SELECT DISTINCT kase FROM life WHERE dir = ? AND id <> ?", l.Dir, l.ID) || own
	}
	if l.Token != "" {
		add("SELECT DISTINCT kase FROM life WHERE token = ?", l.Token)
	}
	if len(cases) == 0 {
		t.err = fmt.Errorf("the journal has no life %s", l.ID)
		return 0, false
	}
	kase = slices.Min(cases)
	for _, k := range cases {
		if k != kase {
			t.exec("UPDATE life SET kase = ? WHERE kase = ?", kase, k)
			t.exec("UPDATE decision SET kase = ? WHERE kase = ?", kase, k)
		}
	}
	return kase, own
}

// others returns the other lives of a case that count, the newest first.
func (t *tx) others(kase int64, id string) (list []Other) {
	t.each(selectOthers+"kase = ? AND id <> ? AND (fate IN ('taken', 'unsettled') OR state = 'pending')"+newestFirst, []any{kase, id}, func(rows *sql.Rows) error {
		o, err := scanOther(rows)
		list = append(list, o)
		return err
	})
	return list
}

func scanOther(rows *sql.Rows) (o Other, err error) {
	var token, ref sql.NullString
	var claimed, ended int64
	err = rows.Scan(&o.ID, &o.Folder, &o.Place, &o.Name, &o.State, &o.Outcome, &o.Fate, &o.Took, &token, &ref, &claimed, &ended)
	o.Token, o.ScanRef, o.Claimed, o.Ended = token.String, ref.String, fromMillis(claimed), fromMillis(ended)
	return o, err
}

// permit is what a person decided about a case and what was not made use of.
type permit struct{ any, sameToken bool }

// What was decided before the newest doubt doesn't cover that.
func (t *tx) permit(kase int64, doubts ...[]Other) (p permit) {
	var since int64
	for _, list := range doubts {
		for i := range list {
			since = max(since, millis(list[i].last().Time))
		}
	}
	t.each("SELECT forced, action FROM decision WHERE kase = ? AND used IS NULL AND at >= ?", []any{kase, since}, func(rows *sql.Rows) error {
		var forced bool
		var action sidecar.Action
		err := rows.Scan(&forced, &action)
		if action == sidecar.Requeued || action == sidecar.Resubmit {
			p.any, p.sameToken = p.any || forced, true
		}
		return err
	})
	return p
}

// judge is the rule itself: what was ever sent for a folder, or with a token,
// counts until it is known that it was not taken.
func (t *tx) judge(kase int64, others []Other, q Question) Answer {
	a := Answer{Verdict: Send}
	token := q.Life.Token
	sameOnly := true // the open ones, and of these only such as may be tried on
	var taken []Other
	for _, o := range others {
		switch {
		case o.State == Pending && o.Took && a.Verdict == Send:
			a.Verdict, a.Other = Wait, o
		case o.Fate == Taken:
			taken = append(taken, o)
		case o.Fate == Unsettled && o.State != Pending:
			a.Open = append(a.Open, o)
			sameOnly = sameOnly && o.Token == token
		}
	}
	if a.Verdict == Wait {
		return a
	}
	p := t.permit(kase, taken, a.Open)
	switch {
	case len(taken) > 0:
		used := slices.ContainsFunc(taken, func(o Other) bool { return o.Token == token })
		if p.any && !used {
			a.Forced = true
			return a
		}
		a.Verdict, a.Other = Before, taken[0]
	case len(a.Open) > 0:
		retried := sameOnly && !slices.ContainsFunc(a.Open, func(o Other) bool { return o.Outcome != sidecar.GaveUp })
		switch {
		case p.any:
			a.Forced = true
		case sameOnly && (p.sameToken || q.Unused), retried:
		default:
			a.Verdict, a.Other = Maybe, a.Open[0]
		}
	}
	return a
}

// History tells what is known of the earlier lives of a folder: the newest one
// that was taken, and all that may have been.
type History struct {
	Taken *Other
	Open  []Other
}

// History returns what of the other lives of a life's folder was, or may have
// been, taken.
func (j *Journal) History(ctx context.Context, id string) (h History, err error) {
	list, err := j.find(ctx, selectOthers+"kase = (SELECT kase FROM life WHERE id = ?) AND id <> ?"+newestFirst, id, id)
	for _, o := range list {
		switch {
		case o.Fate == Taken && h.Taken == nil:
			h.Taken = &o
		case o.Fate == Unsettled && o.State != Pending:
			h.Open = append(h.Open, o)
		}
	}
	return h, err
}

// WithToken returns the lives that had a token, by its SHA-256.
func (j *Journal) WithToken(ctx context.Context, token string) ([]Other, error) {
	return j.find(ctx, selectOthers+"token = ?"+newestFirst, token)
}

const (
	selectOthers = "SELECT id, folder, place, name, state, outcome, fate, took, token, scan_ref, claimed, ended FROM life WHERE "
	newestFirst  = " ORDER BY claimed DESC, id"
)

func (j *Journal) find(ctx context.Context, query string, args ...any) (list []Other, err error) {
	rows, err := j.reads.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		o, err := scanOther(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, o)
	}
	return list, rows.Err()
}

// PeekToken is Journal.WithToken of a journal that another process may have
// open. One that isn't there, or isn't this user's to read, knows none.
func PeekToken(ctx context.Context, w Where, token string) (list []Other, err error) {
	err = peek(w, func(j *Journal) error {
		list, err = j.WithToken(ctx, token)
		return err
	})
	return list, err
}

// PeekGate is Journal.Gate likewise.
func PeekGate(ctx context.Context, w Where) (g *Gate, err error) {
	err = peek(w, func(j *Journal) error {
		g, err = j.Gate(ctx)
		return err
	})
	return g, err
}

func peek(w Where, f func(*Journal) error) error {
	if file, err := os.Open(w.path()); err != nil {
		return nil
	} else if err := file.Close(); err != nil {
		return err
	}
	reads, err := openReads(w.path())
	if err != nil {
		return err
	}
	defer reads.Close()
	return f(&Journal{reads: reads})
}
