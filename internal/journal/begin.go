package journal

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"idenfy-batch/internal/ledger"
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
	Client  string // the clientId, if the session was, or is to be, opened by the daemon
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
	Life *Life // with the token, and the attempt that it wants to make as its last
	// Opens tells that it wants to open a session, and has that as its last
	// Opening: nothing can be taken by that, but who may not send may not open.
	Opens bool
	Sums  []string // SHA-256 of its images, as far as they are known
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
// by, by the ids of its results, by the directory itself, and by its token or,
// where the daemon opens the session, by its content.
func (j *Journal) Begin(q Question) (Answer, error) {
	var a Answer
	err := j.write(func(t *tx) error {
		a = Answer{}
		l := q.Life
		if l.Took && !q.Only { // it was asked at its first attempt
			a.Verdict, a.Forced = Send, l.Forced
			t.put(sending(l, l.Forced, q.Opens))
			return t.err
		}
		kase, named, own := t.join(l, q.Sums)
		others := t.others(append(named, kase), l.ID)
		if l.Dir != "" { // a folder that had been taken away is back, and this life stands for it
			t.exec("UPDATE life SET state = 'filed' WHERE dir = ? AND id <> ? AND state = 'away'", l.Dir, l.ID)
		}
		if t.err != nil {
			return t.err
		}
		a = t.judge(kase, others, q)
		a.Own = own
		if a.Verdict == Send && !q.Only {
			t.put(sending(l, a.Forced, q.Opens))
			t.exec("UPDATE decision SET used = ? WHERE kase = ? AND used IS NULL", l.ID, kase)
		} else {
			t.put(waiting(l))
		}
		return t.err
	})
	return a, err
}

// Outside is Begin, and Put, of a life that is another journal's: of a folder
// that somebody submits without the daemon. With an attempt that is sending it
// is asked for, and, if the verdict is Send, known from then on as one that may
// have been taken; without one, what is known of it is brought up to date.
func (j *Journal) Outside(l *Life) (Answer, error) {
	var a Answer
	err := j.write(func(t *tx) error {
		a = Answer{Verdict: Send}
		c := *l
		c.State, c.Took, c.Place, c.Name = Filed, true, "", ""
		var mine bool // the daemon's own life
		known := t.row("SELECT state <> 'filed' OR place <> '' FROM life WHERE id = ?", []any{l.ID}, &mine)
		if last := l.Result.LastAttempt(); last == nil || last.State != sidecar.Sending {
			if known && !mine {
				t.outsideEnd(&c)
				t.put(&c)
				t.meet(c.ID)
			}
			return t.err
		}
		if !known {
			t.insert(&Life{ID: l.ID, State: Claimed, Fate: Unsent, Result: l.Result}, t.newCase())
		}
		kase, named, _ := t.join(&c, nil)
		others := t.others(append(named, kase), l.ID)
		if t.err != nil {
			return t.err
		}
		a = t.judge(kase, others, Question{Life: &c})
		var decided bool // by a person: what is sent now would be sent a second time
		t.row("SELECT 1 FROM life WHERE id = ? AND fate = 'taken'", []any{l.ID}, &decided)
		if decided {
			a.Verdict, a.Other = Before, Other{ID: l.ID, Folder: l.Result.Folder}
		}
		if mine {
			a.Verdict, a.Other = Wait, Other{ID: l.ID, Folder: l.Result.Folder}
		}
		switch {
		case a.Verdict == Send:
			c.Fate, c.Forced = Unsettled, a.Forced
			t.put(&c)
			t.exec("UPDATE decision SET used = ? WHERE kase = ? AND used IS NULL", l.ID, kase)
		case !known:
			t.exec("DELETE FROM attempt WHERE life = ?", l.ID)
			t.exec("DELETE FROM session WHERE life = ?", l.ID)
			t.exec("DELETE FROM life WHERE id = ?", l.ID)
		}
		return t.err
	})
	return a, err
}

// outsideEnd enters the end of a life that is another journal's, once.
func (t *tx) outsideEnd(l *Life) {
	var was sidecar.Outcome
	t.row("SELECT outcome FROM life WHERE id = ?", []any{l.ID}, &was)
	if now := l.Result.Outcome; !was.Final() && now.Final() {
		t.enter(ledger.Entry{Kind: ledger.Ended, At: sidecar.Now(), ID: l.ID, Outcome: now})
	}
}

// sending is l as it is with the verdict Send.
func sending(l *Life, forced, opens bool) *Life {
	c := *l
	c.State, c.Took, c.Forced = Pending, true, forced
	if !opens {
		c.Fate = Unsettled
	}
	return &c
}

// waiting is l as it is with any other: without the attempt, or the opening.
func waiting(l *Life) *Life {
	c, r := *l, *l.Result
	if last := r.LastAttempt(); last != nil && last.State == sidecar.Sending {
		r.Attempts = r.Attempts[:len(r.Attempts)-1]
	}
	if last := r.LastOpening(); last != nil && last.State == sidecar.Sending {
		r.Sessions = r.Sessions[:len(r.Sessions)-1]
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
// one: by the directory itself, by its token, and by its content.
//
// The ids in its results are whatever an uploader puts there. They join only
// lives that the journal's own facts agree with, see agrees. The cases of the
// others are returned as named: l is held against them, and they are not held
// against l, so that nobody's folder is held up by a copy of its result in
// another one. own tells that l's folder is known by its results, or by the
// directory.
func (t *tx) join(l *Life, sums []string) (kase int64, named []int64, own bool) {
	cases := t.cases("id = ?", l.ID)
	if len(cases) == 0 && t.err == nil {
		t.err = fmt.Errorf("the journal has no life %s", l.ID)
	}
	if l.Dir != "" { // whatever became of the results in it
		same := t.cases("dir = ? AND id <> ?", l.Dir, l.ID)
		cases, own = append(cases, same...), len(same) > 0
	}
	if l.Token != "" {
		cases = append(cases, t.cases("token = ?", l.Token)...)
	}
	if l.Content != "" { // the token of each session is another one
		cases = append(cases, t.cases("content = ?", l.Content)...)
	}
	prior := slices.Clone(l.Prior)
	for _, k := range cases { // what the folder came with before, and may have lost since
		t.each(selectPrior+"kase = ?", []any{k}, func(rows *sql.Rows) error {
			var id string
			err := rows.Scan(&id)
			prior = append(prior, id)
			return err
		})
	}
	for _, id := range prior {
		for _, k := range t.cases("id = ? AND id <> ?", id, l.ID) {
			own = own || slices.Contains(l.Prior, id)
			if l.Dir == "" || t.agrees(id, l, sums) { // without a name of the directory there is nothing better
				cases = append(cases, k)
			} else {
				named = append(named, k)
			}
		}
	}
	if t.err != nil {
		return 0, nil, false
	}
	kase = slices.Min(cases)
	for _, k := range cases {
		if k != kase {
			t.exec("UPDATE life SET kase = ? WHERE kase = ?", kase, k)
			t.exec("UPDATE decision SET kase = ? WHERE kase = ?", kase, k)
		}
	}
	named = slices.DeleteFunc(named, func(k int64) bool { return slices.Contains(cases, k) })
	slices.Sort(named)
	return kase, slices.Compact(named), own
}

// cases returns the cases of some lives.
func (t *tx) cases(where string, args ...any) (list []int64) {
	t.each("SELECT DISTINCT kase FROM life WHERE "+where, args, func(rows *sql.Rows) error {
		var k int64
		err := rows.Scan(&k)
		list = append(list, k)
		return err
	})
	return list
}

// agrees reports whether what the journal knows of the life id is true of l's
// folder as well, and can't be learnt from a result: the meta.yaml, or an image.
func (t *tx) agrees(id string, l *Life, sums []string) bool {
	var data string
	if !t.row("SELECT record FROM life WHERE id = ?", []any{id}, &data) {
		return false
	}
	var was sidecar.Result
	if err := json.Unmarshal([]byte(data), &was); err != nil {
		t.err = err
		return false
	}
	if sum := was.Request.MetaSHA256; sum != "" && sum == l.Result.Request.MetaSHA256 && l.ClientID == "" { // with a clientId it can be guessed
		return true
	}
	return slices.ContainsFunc(was.Request.Images, func(img sidecar.Image) bool {
		return img.SHA256 != "" && (slices.Contains(sums, img.SHA256) ||
			slices.ContainsFunc(l.Result.Request.Images, func(own sidecar.Image) bool { return own.SHA256 == img.SHA256 }))
	})
}

// others returns the other lives of some cases that count, the newest first.
func (t *tx) others(cases []int64, id string) (list []Other) {
	for _, kase := range cases {
		t.each(selectOthers+"kase = ? AND id <> ? AND (fate IN ('taken', 'unsettled') OR state = 'pending')", []any{kase, id}, func(rows *sql.Rows) error {
			o, err := scanOther(rows)
			list = append(list, o)
			return err
		})
	}
	slices.SortFunc(list, newest)
	return list
}

// newest sorts the newest first.
func newest(a, b Other) int {
	return cmp.Or(b.Claimed.Compare(a.Claimed.Time), cmp.Compare(a.ID, b.ID))
}

func scanOther(rows *sql.Rows) (o Other, err error) {
	var token, ref, client sql.NullString
	var claimed, ended int64
	err = rows.Scan(&o.ID, &o.Folder, &o.Place, &o.Name, &o.State, &o.Outcome, &o.Fate, &o.Took, &token, &ref, &client, &claimed, &ended)
	o.Token, o.ScanRef, o.Client, o.Claimed, o.Ended = token.String, ref.String, client.String, fromMillis(claimed), fromMillis(ended)
	return o, err
}

// permit is what a person decided about a case and what was not made use of.
type permit struct{ any, sameToken, resubmit bool }

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
			p.any, p.sameToken, p.resubmit = p.any || forced, true, p.resubmit || action == sidecar.Resubmit
		}
		return err
	})
	return p
}

// judge is the rule itself: what was ever sent for a folder, or with a token,
// counts until it is known that it was not taken.
func (t *tx) judge(kase int64, others []Other, q Question) Answer {
	a := Answer{Verdict: Send}
	token, client := q.Life.Token, q.Life.ClientID
	sameOnly := token != ""    // the open ones, and of these only such as may be tried on
	sameClient := client != "" // likewise
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
			sameClient = sameClient && o.Client == client
		}
	}
	if a.Verdict == Wait {
		return a
	}
	p := t.permit(kase, taken, a.Open)
	switch {
	case len(taken) > 0:
		used := slices.ContainsFunc(taken, func(o Other) bool { return token != "" && o.Token == token })
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
		case sameClient && p.resubmit: // a person says that it was not taken, and it takes another session
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
// been, taken; and of the lives that its folder names in prior, see Begin.
func (j *Journal) History(ctx context.Context, id string, prior ...string) (h History, err error) {
	var list []Other
	before, err := j.prior(ctx, id)
	if err != nil {
		return h, err
	}
	for _, of := range slices.Concat(prior, before, []string{id}) {
		more, err := j.find(ctx, selectOthers+"kase = (SELECT kase FROM life WHERE id = ?) AND id <> ?", of, id)
		if err != nil {
			return h, err
		}
		list = append(list, more...)
	}
	slices.SortFunc(list, newest)
	for _, o := range slices.CompactFunc(list, func(a, b Other) bool { return a.ID == b.ID }) {
		switch {
		case o.Fate == Taken && h.Taken == nil:
			h.Taken = &o
		case o.Fate == Unsettled && o.State != Pending:
			h.Open = append(h.Open, o)
		}
	}
	return h, nil
}

// prior returns the ids that came with the folder of a life, at any time.
func (j *Journal) prior(ctx context.Context, id string) ([]string, error) {
	return texts(j.reads.QueryContext(ctx, selectPrior+"kase = (SELECT kase FROM life WHERE id = ?)", id))
}

// texts reads all rows of a query for one column of text.
func texts(rows *sql.Rows, failed error) (list []string, err error) {
	if failed != nil {
		return nil, failed
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		list = append(list, text)
	}
	return list, rows.Err()
}

// WithToken returns the lives that had a token, by its SHA-256.
func (r *Reader) WithToken(ctx context.Context, token string) ([]Other, error) {
	return find(ctx, r.db, selectOthers+"token = ?"+newestFirst, token)
}

const (
	selectOthers = "SELECT id, folder, place, name, state, outcome, fate, took, token, scan_ref, json_extract(record, '$.client'), claimed, ended FROM life WHERE "
	selectPrior  = "SELECT DISTINCT came.value FROM life, json_each(life.record, '$.prior') AS came WHERE "
	newestFirst  = " ORDER BY claimed DESC, id"
)

func (j *Journal) find(ctx context.Context, query string, args ...any) ([]Other, error) {
	return find(ctx, j.reads, query, args...)
}

func find(ctx context.Context, db *sql.DB, query string, args ...any) (list []Other, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
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
