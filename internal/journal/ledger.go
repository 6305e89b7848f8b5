package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"idenfy-batch/internal/ledger"
	"idenfy-batch/sidecar"
)

// enter makes an entry of the ledger. It is made in the transaction that makes
// the fact, and only where this transaction itself finds that it isn't made
// yet: so a step that is repeated after a failed commit or a crash enters
// nothing twice.
func (t *tx) enter(e ledger.Entry) {
	if t.err != nil {
		return
	}
	if e.Kind != ledger.Started && e.Kind != ledger.Verdict {
		e.Outcome = word(e.Outcome)
	}
	line, err := e.Encode()
	if err != nil {
		t.err = err
		return
	}
	var n int64
	t.row("SELECT coalesce(max(n) + 1, 0) FROM entry WHERE ? = 0", []any{0}, &n)
	if t.err != nil {
		return
	}
	hashes, err := ledger.Append(n, line, ledger.Hashes(t.kept))
	if err != nil {
		t.err = errors.Join(t.err, err)
		return
	}
	t.exec("INSERT INTO entry (n, life, line, hashes) VALUES (?, ?, ?, ?)", n, nullable(e.ID), string(line), hashes)
}

// word is an outcome as the ledger may have it: that of a folder of before is
// whatever stood in its result.
func word(o sidecar.Outcome) sidecar.Outcome {
	switch o {
	case sidecar.Accepted, sidecar.Rejected, sidecar.Invalid, sidecar.Incomplete, sidecar.GaveUp:
		return o
	default:
		return sidecar.Unknown
	}
}

// kept implements ledger.Hashes.
func (t *tx) kept(n int64) (hashes []byte, err error) {
	if !t.row("SELECT hashes FROM entry WHERE n = ?", []any{n}, &hashes) {
		return nil, errors.Join(t.err, noEntry(n))
	}
	return hashes, nil
}

func noEntry(n int64) error {
	return fmt.Errorf("entry %d of the ledger is missing; see idenfy-batch ledger verify", n)
}

// newest returns the newest entry about a life's result, or none.
func (t *tx) newest(life string) (e ledger.Entry, found bool) {
	var line string
	if found = t.row(`SELECT line FROM entry WHERE life = ? AND line NOT LIKE '{"kind":"verdict",%' ORDER BY n DESC LIMIT 1`, []any{life}, &line); found {
		var err error
		if e, err = ledger.Parse([]byte(line)); err != nil {
			t.err = errors.Join(t.err, err)
		}
	}
	return e, found
}

// End records that a life has come to its end, with the result that was just
// written, and enters that.
func (j *Journal) End(l *Life) error {
	sum, err := sidecar.Sum(l.Result)
	if err != nil {
		return err
	}
	at := l.Result.Times.Finished
	if at.IsZero() {
		at = sidecar.Now()
	}
	return j.write(func(t *tx) error {
		var was State
		t.row("SELECT state FROM life WHERE id = ?", []any{l.ID}, &was)
		t.put(l)
		if was != Ended && was != l.State { // also of one that had been filed, and was put into work by hand
			t.enter(ledger.Entry{Kind: ledger.Ended, At: at, ID: l.ID, Outcome: l.Result.Outcome, Place: kind(l.Place), SHA256: sum})
		}
		t.oweEnd(l.ID)
		return t.err
	})
}

// kind is a place as the ledger has it: the name of an inbox, which may be a
// partner's, is not in it.
func kind(place string) string {
	if strings.HasPrefix(place, firstInbox+"/") {
		return firstInbox
	}
	return place
}

// decided enters what a person decided about a life, with the result as it is
// to be written.
func (t *tx) decided(l *Life, d sidecar.Decision) {
	e := ledger.Entry{Kind: ledger.Decided, At: d.At, ID: l.ID, Action: d.Action, Forced: d.Forced, Outcome: l.Result.Outcome, Place: kind(l.Place)}
	if l.Place != "" { // else there is no folder to write it into
		sum, err := sidecar.Sum(l.Result)
		t.err = errors.Join(t.err, err)
		e.SHA256 = sum
	}
	t.enter(e)
}

// Redecided is for a decision that is on record and was not carried out: when
// the result that is written now is another one than was entered with it, as
// more was decided about the folder since, that is entered.
func (j *Journal) Redecided(l *Life, d sidecar.Decision) error {
	sum, err := sidecar.Sum(l.Result)
	if err != nil {
		return err
	}
	return j.write(func(t *tx) error {
		if e, found := t.newest(l.ID); l.Place != "" && (!found || e.SHA256 != sum) {
			t.decided(l, d)
		}
		return t.err
	})
}

// text is text from outside as the ledger may have it.
func text(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 64)]
}

// Started enters that a daemon of some version begins to work with the
// journal, and the key that belongs to its signatures. With changed it does so
// only if the newest such entry says something else.
func (j *Journal) Started(version, verifier string, changed bool) error {
	e := ledger.Entry{Kind: ledger.Started, At: sidecar.Now(), Version: text(version), Key: verifier}
	return j.write(func(t *tx) error {
		var line string
		if changed && t.row("SELECT line FROM entry WHERE life IS NULL AND ? = 0 ORDER BY n DESC LIMIT 1", []any{0}, &line) {
			if was, err := ledger.Parse([]byte(line)); err == nil && was.Version == e.Version && was.Key == e.Key {
				return t.err
			}
		}
		t.enter(e)
		return t.err
	})
}

// Found is what lies where an ended life is to lie.
type Found struct {
	ID     string
	SHA256 string // of its result; empty: none could be read
}

const hasEnded = "state NOT IN ('claimed', 'pending') AND outcome <> 'pending'"

// ToEnter returns lives that have ended, by their ids, after one of them.
func (j *Journal) ToEnter(ctx context.Context, after string, most int) ([]Other, error) {
	return j.find(ctx, selectOthers+"id > ? AND "+hasEnded+" ORDER BY id LIMIT ?", after, most)
}

// CountToEnter counts them.
func (j *Journal) CountToEnter(ctx context.Context) (n int, err error) {
	err = j.reads.QueryRowContext(ctx, "SELECT count(*) FROM life WHERE "+hasEnded).Scan(&n)
	return n, err
}

// EnterAdopted enters lives that ended before there was a ledger, or that went
// on after a backup. What the ledger has as it is, it doesn't get again.
func (j *Journal) EnterAdopted(list []Found) error {
	return j.write(func(t *tx) error {
		for _, f := range list {
			e := ledger.Entry{Kind: ledger.Adopted, At: sidecar.Now(), ID: f.ID, SHA256: f.SHA256}
			if !t.row("SELECT outcome, place FROM life WHERE id = ?", []any{f.ID}, &e.Outcome, &e.Place) {
				continue
			}
			e.Place = kind(e.Place)
			was, known := t.newest(f.ID)
			if known && was.Outcome == word(e.Outcome) && was.Place == e.Place && (was.SHA256 == f.SHA256 || f.SHA256 == "") {
				continue
			}
			t.enter(e)
		}
		return t.err
	})
}

// Entered reports whether what ended before there was a ledger is in it.
func (j *Journal) Entered(ctx context.Context) (yes bool, err error) {
	err = j.reads.QueryRowContext(ctx, "SELECT entered FROM journal").Scan(&yes)
	return yes, err
}

// SetEntered notes that it is.
func (j *Journal) SetEntered() error {
	return j.write(func(t *tx) error {
		t.exec("UPDATE journal SET entered = 1")
		return t.err
	})
}

// ID names the journal.
func (j *Journal) ID() string { return j.id }

// Ledger returns the ledger as it is: only what is on the disk.
func (j *Journal) Ledger(ctx context.Context) (ledger.Present, error) {
	hashes := hashesOf(ctx, j.reads)
	var n int64
	if err := j.reads.QueryRowContext(ctx, "SELECT coalesce(max(n) + 1, 0) FROM entry").Scan(&n); err != nil {
		return ledger.Present{}, err
	}
	t, err := ledger.Head(n, hashes)
	return ledger.Present{Tree: t, Hashes: hashes}, err
}

func hashesOf(ctx context.Context, db *sql.DB) ledger.Hashes {
	return func(n int64) (kept []byte, err error) {
		err = db.QueryRowContext(ctx, "SELECT hashes FROM entry WHERE n = ?", n).Scan(&kept)
		if errors.Is(err, sql.ErrNoRows) {
			err = noEntry(n)
		}
		return kept, err
	}
}

// Entries asks for entries of the ledger: those from one on, in their order; or
// those about a life, or with Started those about no life, the newest first.
type Entries struct {
	From    int64  `json:"from,omitempty"`
	Life    string `json:"life,omitempty"`
	Started bool   `json:"started,omitempty"`
	Most    int    `json:"most"` // not more than MostEntries
}

// MostEntries bounds how many entries an answer has: a long read keeps the log
// from being settled, which the daemon needs after a failed commit.
const MostEntries = 1000

// Row is an entry of the ledger.
type Row struct {
	N      int64  `json:"n"`
	Life   string `json:"life"` // empty: it is about none
	Line   string `json:"line"`
	Hashes []byte `json:"hashes"` // that are kept with it
}

// Entries returns entries of the ledger.
func (r *Reader) Entries(ctx context.Context, q Entries) (list []Row, err error) {
	if r.v < 4 {
		return nil, unfit("the journal has no ledger yet; the next start of the daemon begins it")
	}
	query, arg := selectRows+"n >= ? ORDER BY n LIMIT ?", any(q.From)
	switch {
	case q.Life != "":
		query, arg = selectRows+"life = ? ORDER BY n DESC LIMIT ?", q.Life
	case q.Started:
		query, arg = selectRows+"life IS NULL AND n >= ? ORDER BY n DESC LIMIT ?", 0
	}
	return rowsOf(r.db.QueryContext(ctx, query, arg, min(q.Most, MostEntries)))
}

const selectRows = "SELECT n, coalesce(life, ''), line, hashes FROM entry WHERE "

// rowsOf reads the rows that a question was answered with.
func rowsOf(found *sql.Rows, failed error) (list []Row, err error) {
	if failed != nil {
		return nil, failed
	}
	defer func() { err = errors.Join(err, found.Close()) }()
	for found.Next() {
		var e Row
		if err := found.Scan(&e.N, &e.Life, &e.Line, &e.Hashes); err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, found.Err()
}

// Lives asks how lives stand: one of them, or all by their ids, after one.
type Lives struct {
	ID    string `json:"id,omitempty"`
	After string `json:"after,omitempty"`
	Most  int    `json:"most"` // not more than MostEntries
}

// Standing is how a life stands.
type Standing struct {
	ID        string          `json:"id"`
	State     State           `json:"state"`
	Outcome   sidecar.Outcome `json:"outcome"`
	Place     string          `json:"place"`
	Name      string          `json:"name"`
	Folder    string          `json:"folder"`
	Came      bool            `json:"came"`      // its folder came again, as another life
	Decisions int             `json:"decisions"` // about it
	Purges    int             `json:"purges"`    // times that something of it was deleted, or is being
	Purging   bool            `json:"purging"`   // it is, and that is not yet done
	SHA256    string          `json:"sha256"`    // that result.json would have by what the journal says, if nobody had decided anything; empty: it can't be read
	Verdict   Word            `json:"verdict"`
	Entries   []Row           `json:"entries,omitempty"` // all about it, the oldest first, of the same moment; only of a life that is asked for by its id
}

// Word is what the journal knows of what iDenfy said of the session of a life.
type Word struct {
	SHA256 string  `json:"sha256,omitempty"` // that verdict.json would have in the folder of the life; empty: none is to lie there
	Owner  string  `json:"owner,omitempty"`  // id of the life whose the session is; others only name it
	Late   bool    `json:"late,omitempty"`   // verdict.json is still to be written
	Finals []Final `json:"finals,omitempty"` // the oldest first

	Whole *sidecar.Verdict `json:"whole,omitempty"` // as verdict.json would be; only of a life that is asked for by its id
}

// Final is a final event.
type Final struct {
	SHA256  string       `json:"sha256"` // of what iDenfy sent
	At      sidecar.Time `json:"at"`
	Verdict string       `json:"verdict"`         // iDenfy's word, as the ledger has it
	Other   bool         `json:"other,omitempty"` // of a session that the life had before
}

// Lives returns how lives stand.
func (r *Reader) Lives(ctx context.Context, q Lives) (list []Standing, err error) {
	conn, err := r.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // so that all is of one moment
	if err != nil {
		return nil, err
	}
	defer func() {
		if end := tx.Rollback(); !errors.Is(end, sql.ErrTxDone) { // of a context that ended, which is said already
			err = errors.Join(err, end)
		}
	}()
	if list, err = standing(ctx, conn, q, r.v); err != nil {
		return nil, err
	}
	for i := range list {
		l, _, err := loadUndecided(ctx, conn, list[i].ID)
		if err == nil {
			list[i].SHA256, err = sidecar.Sum(l.Result)
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if err != nil { // one that can't be read keeps nobody from the others
			list[i].SHA256 = ""
		}
		if r.v < 6 { // it has no verdicts yet
			continue
		}
		if list[i].Verdict, err = wordOf(ctx, conn, list[i].ID, q.ID != ""); err != nil {
			return nil, err
		}
	}
	if len(list) > 0 && q.ID != "" && r.v >= 4 {
		list[0].Entries, err = rowsOf(conn.QueryContext(ctx, selectRows+"life = ? ORDER BY n", q.ID))
	}
	return list, err
}

func standing(ctx context.Context, conn *sql.Conn, q Lives, version int) (list []Standing, err error) {
	purges := "(SELECT count(*) FROM purge WHERE purge.life = life.id), EXISTS (SELECT 1 FROM purge WHERE purge.life = life.id AND done = 0)"
	if version < 9 { // it has none yet
		purges = "0, 0"
	}
	columns := "SELECT id, state, outcome, place, name, folder, NOT (" + alone + "), (SELECT count(*) FROM decision WHERE kase = life.kase AND decision.life = life.id), " + purges + " FROM life WHERE "
	query, arg := columns+"id > ? ORDER BY id LIMIT ?", q.After
	if q.ID != "" {
		query, arg = columns+"id = ? LIMIT ?", q.ID
	}
	rows, err := conn.QueryContext(ctx, query, arg, min(q.Most, MostEntries))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var s Standing
		if err := rows.Scan(&s.ID, &s.State, &s.Outcome, &s.Place, &s.Name, &s.Folder, &s.Came, &s.Decisions, &s.Purges, &s.Purging); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, rows.Err()
}
