package journal

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"idenfy-batch/internal/ledger"
	"idenfy-batch/sidecar"
)

// Counted is what a report counts of a life.
type Counted struct {
	ID        string          `json:"id"`
	Inbox     string          `json:"inbox"`
	Folder    string          `json:"folder"` // name that it was dropped with
	Place     string          `json:"place"`  // where the daemon, or a command, put it; empty: somebody took it out of work
	Name      string          `json:"name"`   // its name there
	Outcome   sidecar.Outcome `json:"outcome"`
	Reasons   []Why           `json:"reasons,omitempty"`
	ScanRef   string          `json:"scan_ref,omitempty"`
	ClientID  string          `json:"client_id,omitempty"`
	Attempts  int             `json:"attempts"`
	Complete  sidecar.Time    `json:"complete,omitzero"`
	Claimed   sidecar.Time    `json:"claimed,omitzero"`
	Submitted sidecar.Time    `json:"submitted,omitzero"` // when the first attempt began; missing: nothing was sent
	Finished  sidecar.Time    `json:"finished,omitzero"`  // missing: not yet

	Verdict      string       `json:"verdict,omitempty"` // iDenfy's word; empty: none came
	Final        bool         `json:"final,omitempty"`
	Awaited      bool         `json:"awaited,omitempty"`      // accepted, and without a final one
	Contradicted bool         `json:"contradicted,omitempty"` // final ones have two words
	Accepted     sidecar.Time `json:"accepted,omitzero"`      // when iDenfy took it, where that is known
	Decided      sidecar.Time `json:"decided,omitzero"`       // when the first final verdict came

	Purges []Erased `json:"purges,omitempty"` // what was deleted of the folder, the oldest first

	Again bool `json:"again,omitempty"` // the folder came again, and counts as its later life
}

// Why is a reason without its text.
type Why struct {
	Code   string         `json:"code"`
	Source sidecar.Source `json:"source"`
}

// Erased is what a purge took, without the names of the files.
type Erased struct {
	At      sidecar.Time    `json:"at"`
	Rule    sidecar.Rule    `json:"rule"`
	By      *sidecar.Person `json:"by,omitempty"` // nil: the daemon, as it was configured
	Files   int             `json:"files"`
	Bytes   int64           `json:"bytes"`
	Remote  ledger.Remote   `json:"remote,omitempty"`  // what became of the session; empty: iDenfy was not asked
	Emptied bool            `json:"emptied,omitempty"` // it took what the folder was sent with
}

// erased are the purges of a record.
func erased(list []sidecar.Purge) (short []Erased) {
	for i := range list {
		p := &list[i]
		e := Erased{At: p.At, Rule: p.Rule, By: p.By, Bytes: p.Bytes(), Remote: ledger.RemoteOf(p.Remote), Emptied: p.Empties()}
		for k := range p.Files {
			if !strings.HasSuffix(p.Files[k].File, "/") {
				e.Files++
			}
		}
		short = append(short, e)
	}
	return short
}

// Span is a time, and a page in it. Lives are counted in it by when they were
// taken, decisions by when they were made.
type Span struct {
	Since time.Time `json:"since,omitzero"` // at that time or later
	Until time.Time `json:"until,omitzero"` // before it
	After *Cursor   `json:"after,omitempty"`
	Most  int       `json:"most"`
}

// bounds are those of a question: the end is of the page before, if there was one.
func (s *Span) bounds() (since, until int64, after Cursor) {
	until = math.MaxInt64
	if !s.Until.IsZero() {
		until = millis(s.Until)
	}
	if s.After != nil {
		after = *s.After
		if !after.Claimed.IsZero() { // some of that very moment may be left
			until = min(until, millis(after.Claimed.Time)+1)
		}
	}
	return millis(s.Since), until, after
}

// cameAgain is the contrary of alone, and at once answered for a life that has no later one in
// its case, as most.
const cameAgain = "(EXISTS (SELECT 1 FROM life next WHERE " + later + ") AND NOT (" + alone + "))"

// selectCounted reads lives by the index of their times, the newest first. Most
// verdicts are joined to the life itself, for which its token need not be looked at.
const selectCounted = `SELECT life.id, life.inbox, folder, place, name, outcome, coalesce(life.scan_ref, ''), coalesce(client_id, ''), attempts, claimed, ended, record,
	coalesce((SELECT started FROM attempt WHERE attempt.life = life.id AND n = 1), 0),
	coalesce(overall, ''), coalesce(final, 0), coalesce(clash, 0), coalesce(accepted, 0),
	CASE final WHEN 1 THEN (SELECT coalesce(min(at), 0) FROM event WHERE event.scan_ref = life.scan_ref AND event.final = 1) ELSE 0 END, ` + cameAgain + `
	FROM life LEFT JOIN verdict ON verdict.scan_ref = life.scan_ref AND (fate IN ('taken', 'unsettled') OR outcome = 'accepted') AND (verdict.life = life.id OR ` + itsVerdict + `)
	WHERE claimed >= ?1 AND claimed < ?2 AND (?4 = '' OR (claimed, life.id) < (?3, ?4)) AND folder <> '' ORDER BY claimed DESC, life.id DESC LIMIT ?5`

// MostCounted is how many a page has at most.
const MostCounted = mostRows

// Count returns the lives that were begun in a time, the newest first.
func (r *Reader) Count(ctx context.Context, s Span) (list []Counted, err error) {
	if r.v < 6 {
		return nil, errOld
	}
	since, until, after := s.bounds()
	rows, err := r.db.QueryContext(ctx, before(r.v, selectCounted), since, until, millis(after.Claimed.Time), after.ID, bounded(s.Most))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		c, err := scanCounted(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, rows.Err()
}

var errOld = unfit("the journal is of an earlier version; the next start of the daemon brings it up to date")

func scanCounted(rows *sql.Rows) (c Counted, err error) {
	var claimed, ended, submitted, accepted, decided int64
	var data sql.RawBytes
	if err := rows.Scan(&c.ID, &c.Inbox, &c.Folder, &c.Place, &c.Name, &c.Outcome, &c.ScanRef, &c.ClientID, &c.Attempts, &claimed, &ended, &data,
		&submitted, &c.Verdict, &c.Final, &c.Contradicted, &accepted, &decided, &c.Again); err != nil {
		return c, err
	}
	c.Claimed, c.Finished, c.Submitted = fromMillis(claimed), fromMillis(ended), fromMillis(submitted)
	c.Accepted, c.Decided = fromMillis(accepted), fromMillis(decided)
	c.Awaited = accepted > 0 && !c.Final
	if accepted == 0 && c.Outcome == sidecar.Accepted { // no verdict was waited for, as of what was adopted later
		c.Accepted = c.Finished
	}
	if complete, found := onlyComplete(data); found && !bytes.Contains(data, []byte(`"purged":[`)) {
		c.Complete = complete
		return c, nil
	}
	var res struct {
		Reasons []Why
		Times   struct{ Complete time.Time }
		Purged  []sidecar.Purge
	}
	err = json.Unmarshal(data, &res)
	c.Reasons, c.Complete = res.Reasons, sidecar.Time{Time: res.Times.Complete}
	c.Purges = erased(res.Purged)
	return c, err
}

// onlyComplete finds when a folder was complete in a record without reasons, as
// most are: to read it as a whole takes thirty times as long. A quotation mark in
// a text is written with a backslash, so what is found are keys, and only the
// record itself has them.
func onlyComplete(record []byte) (t sidecar.Time, found bool) {
	if !bytes.Contains(record, []byte(`"reasons":[],`)) && !bytes.Contains(record, []byte(`"reasons":null,`)) {
		return t, false
	}
	_, rest, _ := bytes.Cut(record, []byte(`"times":{`))
	times, _, _ := bytes.Cut(rest, []byte("}"))
	_, rest, _ = bytes.Cut(times, []byte(`"complete":"`))
	text, _, ends := bytes.Cut(rest, []byte(`"`))
	at, err := time.Parse(time.RFC3339, string(text))
	return sidecar.Time{Time: at}, ends && err == nil
}

// Judged is a decision of a person, and the folder that it is about.
type Judged struct {
	N      int64  `json:"n"`
	Folder string `json:"folder"`
	Inbox  string `json:"inbox"`
	sidecar.Decision
}

// Judged returns the decisions that were made in a time, the newest first; a
// page ends with the number of a decision, as the id of its cursor.
func (r *Reader) Judged(ctx context.Context, s Span) (list []Judged, err error) {
	since, until, after := s.bounds()
	last := int64(math.MaxInt64)
	if after.ID != "" {
		if last, err = strconv.ParseInt(after.ID, 10, 64); err != nil {
			return nil, err
		}
	}
	rows, err := r.db.QueryContext(ctx, before(r.v, `SELECT n, life, at, action, decision.forced, decision.outcome, person, comment, coalesce(folder, ''), coalesce(life.inbox, '')
		FROM decision LEFT JOIN life ON life.id = decision.life WHERE n < ?3 AND at >= ?1 AND at < ?2 ORDER BY n DESC LIMIT ?4`), since, until, last, bounded(s.Most))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var d Judged
		var at int64
		var person string
		err := rows.Scan(&d.N, &d.Result, &at, &d.Action, &d.Forced, &d.Outcome, &person, &d.Comment, &d.Folder, &d.Inbox)
		if err == nil {
			err = json.Unmarshal([]byte(person), &d.By)
		}
		if err != nil {
			return nil, err
		}
		d.At = fromMillis(at)
		list = append(list, d)
	}
	return list, rows.Err()
}

// Extent says what else a journal has.
type Extent struct {
	Outside int   `json:"outside"` // lives that were begun at another time
	Entries int64 `json:"entries"` // of the ledger
}

// Extent counts what is not in a time, and the ledger.
func (r *Reader) Extent(ctx context.Context, s Span) (e Extent, err error) {
	since, until, _ := s.bounds()
	err = r.db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM life WHERE folder <> '' AND (claimed < ?1 OR claimed >= ?2)),
		(SELECT coalesce(max(n) + 1, 0) FROM entry)`, since, until).Scan(&e.Outside, &e.Entries)
	return e, err
}

// Line is a folder as the overview shows it.
type Line struct {
	Folder  string
	Place   string
	Name    string
	Outcome sidecar.Outcome
	Codes   []Why
	At      sidecar.Time // zero: not yet
	Claimed sidecar.Time
	Verdict string
	Final   bool
}

// Newest lives for the overview, and those that wait there. Each is found by an index, or in the
// ledger, whose end is the newest.
const (
	ofLife = `SELECT folder, place, name, outcome, record, claimed, ended, coalesce(overall, ''), coalesce(final, 0)
		FROM life LEFT JOIN verdict ON verdict.scan_ref = life.scan_ref AND ` + itsVerdict
	selectEnds = ofLife + ` WHERE ended > 0 AND id IN (SELECT life FROM (SELECT life, n FROM entry WHERE n > (SELECT max(n) FROM entry) - 2000 AND life IS NOT NULL AND line LIKE '{"kind":"ended",%' ORDER BY n DESC LIMIT ?1))
		ORDER BY ended DESC, id LIMIT ?1`
	selectPending = ofLife + ` WHERE state <> 'filed' AND state IN ('claimed', 'pending', 'ended') AND folder <> '' ORDER BY claimed LIMIT ?1`
	selectHeld    = ofLife + ` WHERE state = 'filed' AND place = 'hold' AND ` + alone + ` ORDER BY claimed LIMIT ?1`
	selectAwaited = `SELECT folder, place, name, outcome, '{}', claimed, accepted, overall, 0 FROM verdict JOIN life ON life.id = verdict.life
		WHERE final = 0 AND accepted > 0 ORDER BY accepted LIMIT ?1`
)

// Ends returns the folders that ended last, the newest first.
func (r *Reader) Ends(ctx context.Context, most int) ([]Line, error) {
	return r.ends(ctx, selectEnds, most)
}

// InWork returns folders that are in work, the oldest first.
func (r *Reader) InWork(ctx context.Context, most int) ([]Line, error) {
	return r.ends(ctx, selectPending, most)
}

// Held returns folders in hold, the oldest first.
func (r *Reader) Held(ctx context.Context, most int) ([]Line, error) {
	return r.ends(ctx, selectHeld, most)
}

// Awaited returns folders whose final verdict is to come, the oldest first, with
// the time when they were taken by iDenfy.
func (r *Reader) Awaited(ctx context.Context, most int) ([]Line, error) {
	return r.ends(ctx, selectAwaited, most)
}

func (r *Reader) ends(ctx context.Context, query string, most int) (list []Line, err error) {
	rows, err := r.db.QueryContext(ctx, query, bounded(most))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var e Line
		var data sql.RawBytes
		var claimed, ended int64
		var res struct{ Reasons []Why }
		err := rows.Scan(&e.Folder, &e.Place, &e.Name, &e.Outcome, &data, &claimed, &ended, &e.Verdict, &e.Final)
		if err == nil {
			err = json.Unmarshal(data, &res)
		}
		if err != nil {
			return nil, err
		}
		e.Codes, e.Claimed, e.At = res.Reasons, fromMillis(claimed), fromMillis(ended)
		list = append(list, e)
	}
	return list, rows.Err()
}

// Hour is how many lives were begun in an hour, and what became of them.
type Hour struct {
	N       int // from the beginning that was asked for
	Outcome sidecar.Outcome
	Lives   int
}

// Hours counts the lives of the hours since a time, by an index alone.
func (r *Reader) Hours(ctx context.Context, since time.Time) (list []Hour, err error) {
	rows, err := r.db.QueryContext(ctx, "SELECT (claimed - ?1) / 3600000 AS hour, outcome, count(*) FROM life WHERE claimed >= ?1 GROUP BY hour, outcome", millis(since))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var h Hour
		if err := rows.Scan(&h.N, &h.Outcome, &h.Lives); err != nil {
			return nil, err
		}
		list = append(list, h)
	}
	return list, rows.Err()
}

// FinalSince counts the final events since a time, by iDenfy's word. Events are
// numbered as they come, so the first of them is found by halving.
func (r *Reader) FinalSince(ctx context.Context, since time.Time) (words map[string]int, err error) {
	if r.v < 6 {
		return nil, nil
	}
	var from, to int64
	if err := r.db.QueryRowContext(ctx, "SELECT 0, coalesce(max(n), 0) FROM event").Scan(&from, &to); err != nil {
		return nil, err
	}
	for from < to {
		half := (from + to) / 2
		var n, at int64
		if err := r.db.QueryRowContext(ctx, "SELECT n, at FROM event WHERE n > ? ORDER BY n LIMIT 1", half).Scan(&n, &at); err != nil {
			return nil, err
		}
		if at >= millis(since) {
			to = half
		} else {
			from = n
		}
	}
	rows, err := r.db.QueryContext(ctx, "SELECT overall, count(*) FROM event WHERE n > ? AND final = 1 AND joined = 1 GROUP BY overall LIMIT 100", from)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	words = map[string]int{}
	for rows.Next() {
		var word string
		var n int
		if err := rows.Scan(&word, &n); err != nil {
			return nil, err
		}
		words[word] = n
	}
	return words, rows.Err()
}
