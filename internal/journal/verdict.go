package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"idenfy-batch/internal/ledger"
	"idenfy-batch/sidecar"
)

// What iDenfy says of a session is an event, recorded as it comes. It is held
// against the lives by the session's scanRef: at once, where one has it, and
// else when a folder is filed that does. From then on there is a verdict of
// that session, which is what its events come to.

// Event is something that iDenfy said of a session.
type Event struct {
	ScanRef string // empty: it could not be read
	Said    sidecar.VerdictEvent
	Body    []byte // nil: it is not kept
}

// strayKept is how long an event is kept for which there is no folder.
const strayKept = 7 * 24 * time.Hour

// Hear records an event. The same one again, by its SHA-256, changes nothing.
func (j *Journal) Hear(e Event) (h Hearing, err error) {
	said, err := json.Marshal(&e.Said)
	if err != nil {
		return h, err
	}
	err = j.write(func(t *tx) error {
		fresh := t.exec(`INSERT INTO event (sum, at, scan_ref, overall, final, said, body, joined) VALUES (?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (sum) DO NOTHING`,
			e.Said.SHA256, millis(e.Said.Received.Time), nullable(e.ScanRef), e.Said.Overall, e.Said.Final, string(said), e.Body) == 1
		h = Hearing{Known: e.ScanRef != "" && t.joinEvents(e.ScanRef)}
		if fresh && !h.Known && e.ScanRef != "" {
			h.Disputed = t.disputed(e.ScanRef)
		}
		return t.err
	})
	return h, err
}

// Hearing tells what became of an event.
type Hearing struct {
	Known    bool    // there is a folder of that session
	Disputed []Other // lives that name it, so that nobody knows whose it is; once, with the first event that waits for that
}

// adoptVerdict enters what a verdict.json tells: it has been told, and lies
// there.
func (t *tx) adoptVerdict(v *sidecar.Verdict) {
	for i := range v.Events {
		e := &v.Events[i]
		said, err := json.Marshal(e)
		t.err = errors.Join(t.err, err)
		t.exec(`INSERT INTO event (sum, at, scan_ref, overall, final, said, body, joined) VALUES (?, ?, ?, ?, ?, ?, NULL, 0) ON CONFLICT (sum) DO NOTHING`,
			e.SHA256, millis(e.Received.Time), v.ScanRef, e.Overall, e.Final, string(said))
	}
	known := t.joinEvents(v.ScanRef)
	if !known && t.row("SELECT 1 FROM life WHERE id = ? AND scan_ref = ?", []any{v.ID, v.ScanRef}, &known) { // it was certain when it was written
		t.joinTo(v.ID, v.ScanRef)
	}
	if known {
		t.exec("UPDATE verdict SET told = newest, written = newest WHERE scan_ref = ?", v.ScanRef)
	}
}

// joinEvents brings the verdict of a session up to date by its events, and
// enters the final ones into the ledger. known tells whether it is certain of which
// life that session is; else they wait.
func (t *tx) joinEvents(ref string) (known bool) {
	life, known := t.owner(ref)
	if !known {
		return t.joinOther(ref)
	}
	t.joinTo(life, ref)
	return true
}

// joinTo is joinEvents with the life whose the session is.
func (t *tx) joinTo(life, ref string) {
	var v struct {
		overall      string
		final, clash bool
		newest       int64
	}
	t.row("SELECT overall, final, clash, newest FROM verdict WHERE scan_ref = ?", []any{ref}, &v.overall, &v.final, &v.clash, &v.newest)
	was := v.newest
	type event struct {
		n, at        int64
		sum, overall string
		final        bool
	}
	var fresh []event
	t.each("SELECT n, at, sum, overall, final FROM event WHERE scan_ref = ? AND n > ? ORDER BY n", []any{ref, v.newest}, func(rows *sql.Rows) error {
		var e event
		err := rows.Scan(&e.n, &e.at, &e.sum, &e.overall, &e.final)
		fresh = append(fresh, e)
		return err
	})
	for _, e := range fresh {
		v.newest = e.n
		switch {
		case e.overall == "":
		case e.final:
			v.clash = v.clash || v.final && v.overall != e.overall
			v.overall, v.final = e.overall, true
			t.enter(ledger.Entry{Kind: ledger.Verdict, At: fromMillis(e.at), ID: life, Verdict: text(e.overall), SHA256: e.sum})
		case !v.final:
			v.overall = e.overall
		}
	}
	if v.newest != was {
		t.exec("INSERT INTO verdict (scan_ref, life, overall, final, clash, newest, written, told, accepted, asked, due) VALUES (?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0)"+
			" ON CONFLICT (scan_ref) DO UPDATE SET life = excluded.life, overall = excluded.overall, final = excluded.final, clash = excluded.clash, newest = excluded.newest",
			ref, life, v.overall, v.final, v.clash, v.newest)
		t.exec("UPDATE event SET joined = 1 WHERE scan_ref = ? AND joined = 0", ref)
		t.oweVerdict(life)
	}
}

// joinOther keeps what was said of a session that a life had before the one that
// it has, as a rule that it expired: it is known whose that is, and no verdict
// on what was sent.
func (t *tx) joinOther(ref string) (known bool) {
	var life string
	if !t.row("SELECT life FROM session WHERE scan_ref = ? LIMIT 1", []any{ref}, &life) {
		return false
	}
	t.exec("UPDATE event SET joined = 1, body = NULL WHERE scan_ref = ? AND (joined = 0 OR body IS NOT NULL)", ref)
	return true
}

// replaced is for a session in whose place a life has another one: what was said
// of it is no verdict any more.
func (t *tx) replaced(ref string) {
	if _, known := t.owner(ref); !known {
		t.exec("DELETE FROM verdict WHERE scan_ref = ?", ref)
		t.joinOther(ref)
	}
}

// meet joins what was said of the session of a life before the life was known,
// and has verdict.json written where its folder lies now. Who looked for that
// before is told by met, see Written.
func (t *tx) meet(life string) {
	var ref string
	t.exec("UPDATE event SET joined = 1, body = NULL WHERE joined = 0 AND scan_ref IN (SELECT scan_ref FROM session WHERE life = ?1 AND scan_ref IS NOT (SELECT scan_ref FROM life WHERE id = ?1))", life)
	if !t.row("SELECT scan_ref FROM life WHERE id = ? AND scan_ref IS NOT NULL", []any{life}, &ref) {
		return
	}
	t.joinEvents(ref)
	t.exec("UPDATE verdict SET written = 0, met = met + 1 WHERE scan_ref = ?1 AND newest > 0 AND (SELECT token FROM life WHERE id = verdict.life) IS (SELECT token FROM life WHERE id = ?2)", ref, life)
}

// awaited is for how long after its end a verdict is still to come: what was
// accepted longer ago, of a spool that is adopted, is not waited for.
const awaited = 72 * time.Hour

// awaits notes that the session of a life was taken, and that its verdict is to
// come; or, where nobody knows whether it was, that a verdict would tell.
func (t *tx) awaits(life, ref string, at int64, taken bool) {
	now := time.Now()
	if at == 0 {
		at = millis(now)
	}
	if ref == "" || at < millis(now.Add(-awaited)) || !t.certain(ref, life) {
		return
	}
	t.exec("INSERT INTO verdict (scan_ref, life, overall, final, clash, newest, written, told, accepted, asked, due) VALUES (?1, ?4, '', 0, 0, 0, 0, 0, ?2 * ?3, 0, ?2)"+
		" ON CONFLICT (scan_ref) DO UPDATE SET life = excluded.life, accepted = max(accepted, excluded.accepted), due = CASE asked WHEN 0 THEN excluded.due ELSE due END WHERE accepted = 0", ref, at, taken, life)
}

// settled is for a life of which was found out after its end what became of what
// was sent: its verdict is to come, or nobody asks for it any more.
func (t *tx) settled(life string) {
	var ref string
	var fate Fate
	if !t.row("SELECT scan_ref, fate FROM life WHERE id = ? AND scan_ref IS NOT NULL", []any{life}, &ref, &fate) {
		return
	}
	switch fate {
	case Taken:
		t.awaits(life, ref, 0, true)
	case Refused:
		t.exec("UPDATE verdict SET due = 0 WHERE scan_ref = ?1 AND accepted = 0 AND (SELECT token FROM life WHERE id = verdict.life) IS (SELECT token FROM life WHERE id = ?2)", ref, life)
	}
}

// Proven records that the session of a life was taken, as iDenfy says, though
// that was not known at its end: with the result that is to be written, in the
// place where its folder goes. It is ErrChanged when somebody decided meanwhile.
func (j *Journal) Proven(l *Life) error {
	sum, err := sidecar.Sum(l.Result)
	if err != nil {
		return err
	}
	return j.write(func(t *tx) error {
		var open bool
		if t.row("SELECT state = 'filed' AND fate IN ('unsettled', 'unsent') AND outcome IN ('unknown', 'gave_up') FROM life WHERE id = ?", []any{l.ID}, &open); !open {
			return errors.Join(ErrChanged, t.err)
		}
		t.put(l)
		t.enter(ledger.Entry{Kind: ledger.Ended, At: sidecar.Now(), ID: l.ID, Outcome: l.Result.Outcome, Place: l.Place, SHA256: sum})
		t.owe(l.ID)
		return t.err
	})
}

// Unwritten returns sessions of which something was said that verdict.json
// doesn't have yet, by their scanRef, after one of them.
func (j *Journal) Unwritten(ctx context.Context, after string, most int) ([]string, error) {
	return texts(j.reads.QueryContext(ctx, "SELECT scan_ref FROM verdict WHERE written < newest AND scan_ref > ? ORDER BY scan_ref LIMIT ?", after, most))
}

// OfSession returns the lives that a session's verdict is about: the one whose
// it is first.
func (j *Journal) OfSession(ctx context.Context, ref string) ([]Other, error) {
	return j.find(ctx, selectOthers+ofSession, ref)
}

// MostEvents bounds how many events a verdict lists: the newest.
const MostEvents = 500

// Heard is what was said of a session.
type Heard struct {
	Verdict *sidecar.Verdict  // without the ID
	Bodies  map[string][]byte // that are to be written, by their names; some, when they are many, see Written
	Newest  int64             // event in it
	News    []News            // what is to be told of it
	met     int64             // how often its folder had come to its place
	upTo    int64             // event up to which the bodies are there
}

// News is an event that was not told yet.
type News struct {
	Event    sidecar.VerdictEvent
	First    bool         // it is the session's first final one
	Clash    string       // the other word of a final event before; empty: it contradicts none
	Accepted sidecar.Time // when the folder was taken; zero: it isn't known
}

// Heard returns what was said of a session so far, or nil when that is nothing.
func (j *Journal) Heard(ctx context.Context, ref string) (*Heard, error) {
	conn, err := j.reads.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	h, err := heard(ctx, conn, ref)
	if err == nil && h != nil {
		err = h.addBodies(ctx, conn)
	}
	return h, err
}

// mostBodies bounds the bodies that are read at once, in bytes: one that takes
// more comes alone.
const mostBodies = 16 << 20

// addBodies adds the bodies that are not in the folder yet, the oldest first:
// also of events that are too many for the verdict to list.
func (h *Heard) addBodies(ctx context.Context, conn *sql.Conn) (err error) {
	h.upTo = h.Newest
	rows, err := conn.QueryContext(ctx, "SELECT n, sum, body FROM event WHERE scan_ref = ? AND n <= ? AND body IS NOT NULL ORDER BY n", h.Verdict.ScanRef, h.Newest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for size := 0; rows.Next(); {
		var n int64
		var sum string
		var body []byte
		if err := rows.Scan(&n, &sum, &body); err != nil {
			return err
		}
		if size += len(body); size > mostBodies && len(h.Bodies) > 0 {
			h.upTo = n - 1
			return nil
		}
		h.Bodies[sidecar.BodyName(sum)] = body
	}
	return rows.Err()
}

func heard(ctx context.Context, conn *sql.Conn, ref string) (h *Heard, err error) {
	var told, accepted int64
	var word string // as it stands in the verdict, where all events were counted
	var final bool
	v := &sidecar.Verdict{ScanRef: ref}
	h = &Heard{Verdict: v, Bodies: map[string][]byte{}}
	var all int
	var first int64 // final event
	err = conn.QueryRowContext(ctx, `SELECT overall, final, clash, told, accepted, newest, met, (SELECT count(*) FROM event WHERE event.scan_ref = verdict.scan_ref AND n <= newest),
		(SELECT coalesce(min(n), 0) FROM event WHERE event.scan_ref = verdict.scan_ref AND event.final = 1 AND event.overall <> '') FROM verdict WHERE scan_ref = ?`, ref).
		Scan(&word, &final, &v.Contradicted, &told, &accepted, &h.Newest, &h.met, &all, &first)
	if errors.Is(err, sql.ErrNoRows) || err == nil && h.Newest == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rows, err := conn.QueryContext(ctx, selectHeard, ref, MostEvents, h.Newest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var e sidecar.VerdictEvent
		var n int64
		var said string
		err := rows.Scan(&n, &said)
		if err == nil {
			err = json.Unmarshal([]byte(said), &e)
		}
		if err != nil {
			return nil, err
		}
		if n > told && e.Overall != "" {
			news := News{Event: e, First: n == first, Accepted: fromMillis(accepted)}
			if v.Final && e.Final && v.Overall != e.Overall {
				news.Clash = v.Overall
			}
			h.News = append(h.News, news)
		}
		if e.Overall != "" && (e.Final || !v.Final) {
			v.Said = e.Said
		}
		v.Events = append(v.Events, e)
	}
	v.Overall, v.Final, v.Omitted = word, final, all-len(v.Events)
	return h, rows.Err()
}

// wordOf returns what is known of the session of a life.
func wordOf(ctx context.Context, conn *sql.Conn, id string, whole bool) (w Word, err error) {
	var ref, dir, ownerDir string
	var fate Fate
	var said bool
	err = conn.QueryRowContext(ctx, `SELECT coalesce(life.scan_ref, ''), coalesce(dir, ''), coalesce(newest > 0, 0), coalesce(written < newest, 0)
		FROM life LEFT JOIN verdict ON verdict.scan_ref = life.scan_ref WHERE id = ?`, id).Scan(&ref, &dir, &said, &w.Late)
	if err == nil {
		w.Finals, err = finals(ctx, conn, id, ref)
	}
	if err != nil || !said {
		return w, err
	}
	var its bool
	err = conn.QueryRowContext(ctx, "SELECT id, fate, coalesce(dir, ''), token IS (SELECT token FROM life WHERE id = ?2) FROM life WHERE "+ofSession+" LIMIT 1", ref, id).Scan(&w.Owner, &fate, &ownerDir, &its)
	if err != nil || !its || w.Owner != id && (dir == "" || dir != ownerDir) {
		return w, err
	}
	h, err := heard(ctx, conn, ref)
	if err != nil || h == nil {
		return w, err
	}
	if h.Verdict.ID = id; fate == Taken { // as it is written
		h.Verdict.ID = w.Owner
	}
	data, err := sidecar.EncodeVerdict(h.Verdict)
	if err != nil {
		return w, err
	}
	if w.SHA256 = sidecar.SumOf(data); whole {
		w.Whole = h.Verdict
	}
	return w, nil
}

// finals returns the final events of a life's session, which are in the ledger,
// and those of the sessions that it had before, which may be.
func finals(ctx context.Context, conn *sql.Conn, id, ref string) (list []Final, err error) {
	rows, err := conn.QueryContext(ctx, `SELECT sum, at, overall, 0 FROM event WHERE scan_ref = ?2 AND final = 1 AND overall <> '' AND n <= (SELECT newest FROM verdict WHERE scan_ref = ?2)
		UNION ALL SELECT sum, at, overall, 1 FROM event WHERE scan_ref IN (SELECT scan_ref FROM session WHERE life = ?1 AND scan_ref <> ?2) AND final = 1 AND overall <> ''`, id, ref)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var f Final
		var at int64
		if err := rows.Scan(&f.SHA256, &at, &f.Verdict, &f.Other); err != nil {
			return nil, err
		}
		f.At, f.Verdict = fromMillis(at), text(f.Verdict)
		list = append(list, f)
	}
	return list, rows.Err()
}

// selectHeard has the newest events of a session, and its newest final one,
// which may be older, in their order; up to one event.
const selectHeard = `SELECT n, said FROM event WHERE n IN (SELECT n FROM event WHERE scan_ref = ?1 AND n <= ?3 ORDER BY n DESC LIMIT ?2)
	OR n = (SELECT max(n) FROM event WHERE scan_ref = ?1 AND n <= ?3 AND final = 1) ORDER BY n`

// Told notes that the events of a session were told, up to one of them.
func (j *Journal) Told(ref string, newest int64) error {
	return j.write(func(t *tx) error {
		t.exec("UPDATE verdict SET told = max(told, ?) WHERE scan_ref = ?", newest, ref)
		return t.err
	})
}

// Written notes that what was heard is in the folder, where its bodies lie from
// then on; or that there is no folder to write it into. When one came to its
// place since it was heard, it is to be written there first. all is false when
// there are more bodies.
func (j *Journal) Written(h *Heard, inFolder bool) (all bool, err error) {
	ref := h.Verdict.ScanRef
	all = !inFolder || h.upTo == h.Newest
	err = j.write(func(t *tx) error {
		current := t.exec("UPDATE verdict SET written = CASE WHEN ? THEN ? ELSE written END WHERE scan_ref = ? AND met = ?", all, h.Newest, ref, h.met) == 1
		if current && inFolder {
			t.exec("UPDATE event SET body = NULL WHERE scan_ref = ? AND n <= ? AND body IS NOT NULL", ref, h.upTo)
		}
		return t.err
	})
	return all, err
}

// Words returns all that iDenfy has said of a session, each word once: the
// newest says less than all, since events come in any order and may contradict
// each other.
func (j *Journal) Words(ctx context.Context, ref string) ([]string, error) {
	return texts(j.reads.QueryContext(ctx, "SELECT DISTINCT overall FROM event WHERE scan_ref = ? AND overall <> ''", ref))
}

// Due is a session that is to be asked for.
type Due struct {
	ScanRef string
	Asked   int // times before
	Due     int64
}

// ToAsk returns sessions without a final verdict that are due to be asked for:
// for the first time when they were taken before first, and no more than most.
func (j *Journal) ToAsk(ctx context.Context, now, first time.Time, most int) (list []Due, err error) {
	rows, err := j.reads.QueryContext(ctx, `SELECT scan_ref, asked, due FROM (
		SELECT scan_ref, asked, due FROM verdict WHERE final = 0 AND due > 0 AND asked = 0 AND due <= ?1
		UNION ALL SELECT scan_ref, asked, due FROM verdict WHERE final = 0 AND due > 0 AND asked = 1 AND due <= ?2
		UNION ALL SELECT scan_ref, asked, due FROM verdict WHERE final = 0 AND due > 0 AND asked = 2 AND due <= ?2)
		ORDER BY due LIMIT ?3`, millis(first), millis(now), most)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var d Due
		if err := rows.Scan(&d.ScanRef, &d.Asked, &d.Due); err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, rows.Err()
}

// Ask records that a session is asked for, before it is, and when that is due
// again; zero: this is the last time. may is false when its final verdict came,
// or somebody asked meanwhile, or decided.
func (j *Journal) Ask(d Due, again time.Time) (may bool, err error) {
	err = j.write(func(t *tx) error {
		may = t.exec("UPDATE verdict SET asked = asked + 1, due = CASE ?1 WHEN 0 THEN due ELSE ?1 END WHERE scan_ref = ?2 AND asked = ?3 AND final = 0 AND due > 0",
			millis(again), d.ScanRef, d.Asked) == 1
		return t.err
	})
	return may, err
}

// Unasked takes that back: nothing of the request left, or it was not for this
// session to answer. What was decided meanwhile stays.
func (j *Journal) Unasked(d Due) error {
	return j.write(func(t *tx) error {
		t.exec("UPDATE verdict SET asked = ?1, due = ?2 WHERE scan_ref = ?3 AND asked = ?1 + 1 AND due > 0", d.Asked, d.Due, d.ScanRef)
		return t.err
	})
}

// Forget drops events for which no folder came within a week, and returns how
// many.
func (j *Journal) Forget(now time.Time) (n int, err error) {
	err = j.write(func(t *tx) error {
		n = int(t.exec("DELETE FROM event WHERE joined = 0 AND at < ?", millis(now.Add(-strayKept))))
		return t.err
	})
	return n, err
}

// Verdicts says how the verdicts stand.
type Verdicts struct {
	Waiting      int            `json:"waiting"`         // accepted folders without a final one
	Oldest       sidecar.Time   `json:"oldest,omitzero"` // when the first of these was accepted
	Final        map[string]int `json:"final"`           // by iDenfy's word
	Contradicted int            `json:"contradicted"`    // final ones that have two words
	Strays       int            `json:"strays"`          // events without a folder, which are kept for a week
}

// Verdicts counts them.
func (r *Reader) Verdicts(ctx context.Context) (v Verdicts, err error) {
	v.Final = map[string]int{}
	if r.v < 6 {
		return v, nil
	}
	var oldest int64
	err = r.db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM verdict WHERE final = 0 AND accepted > 0),
		(SELECT coalesce(min(accepted), 0) FROM verdict WHERE final = 0 AND accepted > 0),
		(SELECT count(*) FROM verdict WHERE clash = 1), (SELECT count(*) FROM event WHERE joined = 0)`).
		Scan(&v.Waiting, &oldest, &v.Contradicted, &v.Strays)
	if err != nil {
		return v, err
	}
	v.Oldest = fromMillis(oldest)
	rows, err := r.db.QueryContext(ctx, "SELECT overall, count(*) FROM verdict WHERE final = 1 GROUP BY overall ORDER BY count(*) DESC LIMIT 64")
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var word string
		var n int
		if err := rows.Scan(&word, &n); err != nil {
			return v, err
		}
		v.Final[word] = n
	}
	return v, rows.Err()
}
