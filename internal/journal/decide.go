package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"idenfy-batch/sidecar"
)

// ErrChanged says that more became known while a person was deciding.
var ErrChanged = errors.New("more became known of it just now; look at it again (idenfy-batch status), then repeat the command")

// Decide records what a person decided about a life that had ended, and with
// it how the life is from now on: l's outcome and place. With a fate, that is
// the fate of the lives in with that may have been taken.
//
// was is the fate that the life had when the person was asked: when it has
// another one by now, the answer is ErrChanged.
func (j *Journal) Decide(l *Life, was Fate, d sidecar.Decision, fate Fate, with []string) error {
	return j.write(func(t *tx) error {
		var kase int64
		var is Fate
		if !t.row("SELECT kase, fate FROM life WHERE id = ?", []any{l.ID}, &kase, &is) {
			return errors.Join(errors.New("the journal doesn't know that folder"), t.err)
		}
		if is != was {
			return ErrChanged
		}
		t.decision(kase, l.ID, d, sql.NullString{})
		t.put(l)
		t.settled(l.ID)
		t.decided(l, d)
		t.owe(l.ID)
		for _, id := range with {
			if fate != "" {
				t.exec("UPDATE life SET fate = ?, state = CASE state WHEN 'away' THEN 'filed' ELSE state END WHERE id = ? AND kase = ? AND fate = 'unsettled' AND state <> 'pending'", fate, id, kase)
				t.settled(id)
			}
		}
		return t.err
	})
}

func (t *tx) decision(kase int64, life string, d sidecar.Decision, used sql.NullString) {
	person, err := json.Marshal(d.By)
	if err != nil {
		t.err = errors.Join(t.err, err)
		return
	}
	t.exec("INSERT INTO decision (kase, life, at, action, forced, outcome, person, comment, used) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
		kase, life, millis(d.At.Time), d.Action, d.Forced, d.Outcome, string(person), d.Comment, used)
}

// MostDecisions bounds how many decisions a result shows: the newest.
const MostDecisions = 50

func decisionsOf(ctx context.Context, conn *sql.Conn, kase int64) (list []sidecar.Decision, err error) {
	rows, err := conn.QueryContext(ctx, `SELECT life, at, action, forced, outcome, person, comment FROM
		(SELECT * FROM decision WHERE kase = ? ORDER BY n DESC LIMIT ?) ORDER BY n`, kase, MostDecisions)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var d sidecar.Decision
		var at int64
		var person string
		if err := rows.Scan(&d.Result, &at, &d.Action, &d.Forced, &d.Outcome, &person, &d.Comment); err != nil {
			return nil, err
		}
		d.At = fromMillis(at)
		if err := json.Unmarshal([]byte(person), &d.By); err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, rows.Err()
}

// Adopted is a folder of before there was a journal: its lives, the oldest
// first, as its records tell them.
type Adopted struct {
	Lives     []*Life
	Decisions []sidecar.Decision
	Verdict   *sidecar.Verdict // of one of them; nil: none is known
	Dropped   bool             // it lies where anybody may have written its records
}

// Adopt enters folders of before, or of after a backup. What is known already
// is brought up to date where the records tell more, so that what was cut off
// can be done again. What people had decided is kept, and lets nothing be sent.
func (j *Journal) Adopt(folders []Adopted) error {
	return j.write(func(t *tx) error {
		for _, f := range folders {
			t.adopt(f)
		}
		return t.err
	})
}

func (t *tx) adopt(f Adopted) {
	var ids []string
	var kase int64
	for _, l := range f.Lives {
		t.adoptLife(l)
		kase, _, _ = t.join(l, nil)
		if !f.Dropped { // only the daemon puts records there
			ids = append(ids, l.ID)
			nameless := *l
			nameless.Dir, nameless.Prior = "", ids
			kase, _, _ = t.join(&nameless, nil)
		}
	}
	if f.Verdict != nil {
		t.adoptVerdict(f.Verdict)
	}
	for _, d := range f.Decisions {
		var n int64
		if !t.row("SELECT n FROM decision WHERE life = ? AND at = ? AND action = ?", []any{d.Result, millis(d.At.Time), d.Action}, &n) {
			t.decision(kase, d.Result, d, sql.NullString{String: "adopted", Valid: true})
		}
	}
}

// adoptLife enters a life, or brings what is known of it up to date. What may
// have been taken is never lowered by what anybody may have written.
func (t *tx) adoptLife(l *Life) {
	var state State
	var fate Fate
	var took bool
	var dir sql.NullString
	known := t.row("SELECT state, fate, took, dir FROM life WHERE id = ?", []any{l.ID}, &state, &fate, &took, &dir)
	if l.Dir == "" {
		l.Dir = dir.String
	}
	anybody := l.Place == "" || kind(l.Place) == firstInbox
	if anybody { // who may have written that, too
		l.Result.Purges = nil
	}
	t.adoptPurges(l, known)
	switch {
	case !known:
		t.insert(l, t.newCase())
	case fate == Taken && l.Fate != Taken: // the records know less
	case anybody && (fate == Unsettled || l.Fate == Taken):
	case state == Pending && took && l.State == Pending && l.Fate != Taken: // it goes on as what it is, and may have been sent since
		t.exec("UPDATE life SET fate = 'unsettled' WHERE id = ?", l.ID)
	case state == Away && l.Fate != Taken && l.Fate != Refused: // nobody has decided about it
	case state != Filed || l.Fate == Taken || l.Fate == Refused:
		t.put(l)
	}
}
