package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"idenfy-batch/internal/ledger"
	"idenfy-batch/sidecar"
)

// State says how far a life has come.
type State string

// The states of a life.
const (
	Claimed State = "claimed" // the folder is being taken into work, or was; nothing was sent in this life
	Pending State = "pending" // it is in work: being submitted, or waiting
	Ended   State = "ended"   // decided, and to be moved to its place
	Filed   State = "filed"   // it was moved there, or somebody took it away before
	Away    State = "away"    // somebody took its folder out of work, and what became of it is for a person to say
)

// Fate says what is known of what was sent in a life.
type Fate string

// The fates.
const (
	Unsent    Fate = "unsent"    // nothing was
	Refused   Fate = "refused"   // it was not taken, for certain
	Unsettled Fate = "unsettled" // it may have been taken
	Taken     Fate = "taken"     // it was taken
)

// Life is one life of a folder. What result.json says of it is in Result; the
// rest is what only the daemon needs to know.
type Life struct {
	ID      string
	State   State
	Fate    Fate
	Took    bool   // it was allowed to send
	Forced  bool   // because a person forced it
	Token   string // SHA-256, hex; empty while it isn't known
	ScanRef string
	Dir     string   // names the directory itself, see drop.Identity; empty where the file system can't
	Place   string   // where it lies, or is to lie
	Name    string   // its name there, or that it is to have if it is free; empty while it is in work
	Prior   []string // ids in the results that its folder came with: what it claims to be, and nothing more
	Charged int      // failures of its own
	Spent   time.Duration
	Result  *sidecar.Result

	// Of one for which the daemon opens the session; Token and ScanRef are those
	// of the newest one that was opened.
	ClientID string // names the person
	Content  string // SHA-256 of it and of the images, hex, by which the same again is known; empty while it isn't known
}

// Outcome is what result.json says of it.
func (l *Life) Outcome() sidecar.Outcome { return l.Result.Outcome }

// Attempts of a life that are kept: the first and the last ones. Those between
// are a count only, so that an outage of a day can't grow a record without
// bound.
const (
	keepFirst = 10
	keepLast  = 40
)

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) sidecar.Time {
	if ms == 0 {
		return sidecar.Time{}
	}
	return sidecar.Time{Time: time.UnixMilli(ms)}
}

// nullable makes an empty text none, so that the partial indexes leave it out.
func nullable(s string) sql.NullString { return sql.NullString{String: s, Valid: s != ""} }

// stored is what of a life has no column of its own, or one only to be found
// by: that came with a later schema, and a reader may meet an earlier one.
type stored struct {
	*sidecar.Result
	Prior    []string `json:"prior,omitempty"`
	ClientID string   `json:"client,omitempty"`
	Content  string   `json:"content,omitempty"`
}

func record(l *Life) (string, error) {
	c := *l.Result
	c.Attempts, c.Sessions, c.Decisions = nil, nil, nil
	c.Unlisted = 0
	data, err := json.Marshal(stored{&c, l.Prior, l.ClientID, l.Content})
	return string(data), err
}

// insert makes the row of a life.
func (t *tx) insert(l *Life, kase int64) {
	data, err := record(l)
	if err != nil {
		t.err = errors.Join(t.err, err)
		return
	}
	r := l.Result
	inbox := r.Inbox
	if inbox == "" && l.Place != "" { // its result is of before there were others
		inbox = firstInbox
	}
	t.exec(`INSERT INTO life (id, kase, state, outcome, fate, took, forced, folder, token, scan_ref, dir, client_id, content, inbox, place, name, attempts, charged, spent_ms, claimed, ended, record)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		l.ID, kase, l.State, r.Outcome, l.Fate, l.Took, l.Forced, r.Folder, nullable(l.Token), nullable(l.ScanRef), nullable(l.Dir),
		nullable(l.ClientID), nullable(l.Content), inbox, l.Place, l.Name,
		len(r.Attempts)+r.Omitted, l.Charged, l.Spent.Milliseconds(), millis(r.Times.Claimed.Time), millis(r.Times.Finished.Time), data)
	for i := range r.Attempts {
		if i < keepFirst || i >= len(r.Attempts)-keepLast {
			t.attempt(l.ID, &r.Attempts[i])
		}
	}
	for i := range r.Sessions {
		t.opening(l.ID, &r.Sessions[i])
	}
	if l.Fate == Taken && !r.Times.Finished.IsZero() { // it is adopted
		t.awaits(l.ID, l.ScanRef, millis(r.Times.Finished.Time), true)
	}
	t.named(l.ScanRef)
}

// put brings the row of a life, and that of its last attempt, up to date.
func (t *tx) put(l *Life) {
	data, err := record(l)
	if err != nil {
		t.err = errors.Join(t.err, err)
		return
	}
	r := l.Result
	last := r.LastAttempt()
	n := 0
	if last != nil {
		n = last.N
		t.attempt(l.ID, last)
		if n > keepFirst+keepLast {
			t.exec("DELETE FROM attempt WHERE life = ? AND n > ? AND n <= ?", l.ID, keepFirst, n-keepLast)
		}
	}
	if o := r.LastOpening(); o != nil {
		t.opening(l.ID, o)
		if o.N > keepFirst+keepLast {
			t.exec("DELETE FROM session WHERE life = ? AND n > ? AND n <= ? AND scan_ref IS NULL", l.ID, keepFirst, o.N-keepLast)
		}
	}
	changed := t.exec(`UPDATE life SET state = ?, outcome = ?, fate = ?, took = ?, forced = ?, place = ?, name = ?,
		attempts = ?, charged = ?, spent_ms = ?, ended = ?, record = ? WHERE id = ?`,
		l.State, r.Outcome, l.Fate, l.Took, l.Forced, l.Place, l.Name,
		n, l.Charged, l.Spent.Milliseconds(), millis(r.Times.Finished.Time), data, l.ID)
	// Most indexes are of these, which seldom change; what is set is written
	// into its indexes anew, whether it changes or not.
	if t.exec(`UPDATE life SET folder = ?2, token = ?3, scan_ref = ?4, dir = ?5, client_id = ?6, content = ?7, claimed = ?8, inbox = iif(?9 = '', inbox, ?9)
		WHERE id = ?1 AND (folder, token, scan_ref, dir, client_id, content, claimed, inbox) IS NOT (?2, ?3, ?4, ?5, ?6, ?7, ?8, iif(?9 = '', inbox, ?9))`,
		l.ID, r.Folder, nullable(l.Token), nullable(l.ScanRef), nullable(l.Dir), nullable(l.ClientID), nullable(l.Content), millis(r.Times.Claimed.Time), r.Inbox) > 0 {
		t.named(l.ScanRef)
		if l.State == Pending {
			t.begins(l.ID)
		}
	}
	if t.err == nil && changed != 1 {
		t.err = fmt.Errorf("the journal has no life %s", l.ID)
	}
	if l.Fate == Taken || l.Fate == Unsettled && l.State == Ended {
		t.awaits(l.ID, l.ScanRef, millis(r.Times.Finished.Time), l.Fate == Taken)
	}
}

func (t *tx) attempt(life string, a *sidecar.Attempt) {
	t.exec(`INSERT INTO attempt (life, n, started, finished, state, http_status, identifier, message, duration_ms, retry_after)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (life, n) DO UPDATE SET finished = excluded.finished, state = excluded.state, http_status = excluded.http_status,
			identifier = excluded.identifier, message = excluded.message, duration_ms = excluded.duration_ms, retry_after = excluded.retry_after`,
		life, a.N, millis(a.Started.Time), millis(a.Finished.Time), a.State, a.HTTPStatus, a.Identifier, a.Message, a.DurationMS, a.RetryAfter)
}

// opening brings the row of a try at opening a session up to date.
func (t *tx) opening(life string, o *sidecar.Opening) {
	t.exec(`INSERT INTO session (life, n, after, started, finished, state, http_status, identifier, message, duration_ms, retry_after, scan_ref)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (life, n) DO UPDATE SET finished = excluded.finished, state = excluded.state, http_status = excluded.http_status,
			identifier = excluded.identifier, message = excluded.message, duration_ms = excluded.duration_ms, retry_after = excluded.retry_after,
			scan_ref = excluded.scan_ref`,
		life, o.N, o.After, millis(o.Started.Time), millis(o.Finished.Time), o.State, o.HTTPStatus, o.Identifier, o.Message, o.DurationMS, o.RetryAfter, nullable(o.ScanRef))
}

// Claim notes that a folder is about to be taken from an inbox into work for the
// life id. folder is its name as it may be shown.
func (j *Journal) Claim(id, inbox, folder string) error { return j.claim(id, inbox, folder, "") }

// ClaimDir is Claim of a folder that stays where it is, and is found again by
// its identity, see Life.Dir.
func (j *Journal) ClaimDir(id, folder, dir string) error { return j.claim(id, "", folder, dir) }

func (j *Journal) claim(id, inbox, folder, dir string) error {
	l := &Life{ID: id, State: Claimed, Fate: Unsent, Dir: dir, Place: "work", Result: &sidecar.Result{
		ID: id, Folder: folder, Inbox: inbox, Outcome: sidecar.Pending, Times: sidecar.Times{Claimed: sidecar.Now()},
	}}
	return j.write(func(t *tx) error {
		t.insert(l, t.newCase())
		return t.err
	})
}

// firstInbox is the name of the inbox that there was before others: it is in no
// index, and the rows of lives of before have it.
const firstInbox = "inbox"

// Reserve claims lives for folders that are still to come, in one commit, so
// that these need not wait for one.
func (j *Journal) Reserve(ids []string) error {
	return j.write(func(t *tx) error {
		for _, id := range ids {
			t.insert(&Life{ID: id, State: Claimed, Fate: Unsent, Place: "work", Result: &sidecar.Result{ID: id, Inbox: firstInbox, Outcome: sidecar.Pending}}, t.newCase())
		}
		return t.err
	})
}

// Unclaim forgets claimed lives: their folders go back to the inbox, or never
// left it, and nothing was sent. A life that has come further is left alone.
func (j *Journal) Unclaim(ids ...string) error {
	return j.write(func(t *tx) error {
		for _, id := range ids {
			t.exec("DELETE FROM life WHERE id = ? AND state = 'claimed'", id)
		}
		return t.err
	})
}

// Put records a life as it is in l, with its last attempt. It is for a life
// that has begun (see Begin).
func (j *Journal) Put(l *Life) error {
	return j.write(func(t *tx) error {
		t.put(l)
		return t.err
	})
}

// Settle records what became of a life that had ended: by a status request, a
// person, a verdict. Only one that was open is changed; but that it was taken
// goes before what a person said.
func (j *Journal) Settle(id string, fate Fate) error {
	return j.write(func(t *tx) error {
		t.exec(`UPDATE life SET fate = ?1 WHERE id = ?2 AND state <> 'pending' AND (fate = 'unsettled' OR
			?1 = 'taken' AND fate = 'refused' AND EXISTS (SELECT 1 FROM decision WHERE decision.life = life.id AND action = 'rejected'))`, fate, id)
		t.settled(id)
		return t.err
	})
}

// Filed notes under which name an ended life lies in its place. Nobody waits
// for that to be on the disk: a start finds it out again. What a person decided
// meanwhile, between the move and this, stays.
func (j *Journal) Filed(id, place, name string) {
	_ = j.send(&op{do: func(t *tx) error { // a closed journal is asked again at the next start
		t.exec("UPDATE life SET state = 'filed', name = ? WHERE id = ? AND place = ?", name, id, place)
		t.meet(id)
		return t.err
	}})
}

// Gone notes that somebody took the folder of a life out of work. What may
// have been taken of it stays open, and the life is Away until a person decides
// about it, or the folder comes again.
func (j *Journal) Gone(id string) error {
	return j.write(func(t *tx) error {
		var in bool
		if t.row("SELECT state NOT IN ('filed', 'away') FROM life WHERE id = ?", []any{id}, &in); !in {
			return t.err
		}
		t.exec(`UPDATE life SET state = CASE WHEN outcome IN ('pending', 'unknown') OR fate = 'unsettled' THEN 'away' ELSE 'filed' END,
			place = '', outcome = CASE outcome WHEN 'pending' THEN 'unknown' ELSE outcome END WHERE id = ?`, id)
		e := ledger.Entry{Kind: ledger.Ended, At: sidecar.Now(), ID: id}
		t.row("SELECT outcome FROM life WHERE id = ?", []any{id}, &e.Outcome)
		t.enter(e)
		t.meet(id)
		t.oweEnd(id)
		return t.err
	})
}

// Of the inbox only the record tells: there is no column in a journal of before,
// which somebody may read.
const selectLife = "SELECT id, kase, state, outcome, fate, took, forced, folder, token, scan_ref, dir, place, name, attempts, charged, spent_ms, claimed, ended, record FROM life WHERE id = ?"

// Load returns a life, with its attempts and all decisions about its folder,
// or nil when the journal knows none with that id.
func (j *Journal) Load(ctx context.Context, id string) (*Life, error) {
	conn, err := j.reads.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return load(ctx, conn, id)
}

// Decisions returns what people decided about the folder of a life, the
// oldest first.
func (j *Journal) Decisions(ctx context.Context, id string) (list []sidecar.Decision, err error) {
	conn, err := j.reads.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var kase int64
	if err := conn.QueryRowContext(ctx, "SELECT kase FROM life WHERE id = ?", id).Scan(&kase); err != nil {
		return nil, err
	}
	return decisionsOf(ctx, conn, kase)
}

func load(ctx context.Context, conn *sql.Conn, id string) (*Life, error) {
	l, kase, err := loadUndecided(ctx, conn, id)
	if l == nil || err != nil {
		return nil, err
	}
	l.Result.Decisions, err = decisionsOf(ctx, conn, kase)
	return l, err
}

// loadUndecided is load without the decisions. What a column says goes before
// the record.
func loadUndecided(ctx context.Context, conn *sql.Conn, id string) (l *Life, kase int64, err error) {
	l = &Life{Result: &sidecar.Result{}}
	var spent, claimed, ended int64
	var attempts int
	var token, ref, dir sql.NullString
	var outcome, folder, data string
	err = conn.QueryRowContext(ctx, selectLife, id).Scan(&l.ID, &kase, &l.State, &outcome, &l.Fate, &l.Took, &l.Forced,
		&folder, &token, &ref, &dir, &l.Place, &l.Name, &attempts, &l.Charged, &spent, &claimed, &ended, &data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, 0, nil
	}
	rest := stored{Result: l.Result}
	if err == nil {
		err = json.Unmarshal([]byte(data), &rest)
	}
	if err != nil {
		return nil, 0, err
	}
	l.Prior = rest.Prior
	l.Token, l.ScanRef, l.Dir, l.Spent = token.String, ref.String, dir.String, time.Duration(spent)*time.Millisecond
	r := l.Result
	r.ID, r.Folder, r.Outcome = l.ID, folder, sidecar.Outcome(outcome)
	r.Times.Claimed, r.Times.Finished = fromMillis(claimed), fromMillis(ended)
	if r.Request.TokenSHA256 != "" && token.Valid {
		r.Request.TokenSHA256 = token.String
	}
	if r.Session != nil && ref.Valid {
		r.Session.ScanRef = ref.String
	}
	if r.Attempts, err = attemptsOf(ctx, conn, id); err != nil {
		return nil, 0, err
	}
	r.Omitted = attempts - len(r.Attempts)
	if l.ClientID, l.Content = rest.ClientID, rest.Content; l.ClientID != "" {
		if r.Sessions, err = openingsOf(ctx, conn, id); err != nil {
			return nil, 0, err
		}
		if o := r.LastOpening(); o != nil {
			r.Unlisted = o.N - len(r.Sessions)
		}
	}
	return l, kase, nil
}

func attemptsOf(ctx context.Context, conn *sql.Conn, id string) (list []sidecar.Attempt, err error) {
	rows, err := conn.QueryContext(ctx, "SELECT n, started, finished, state, http_status, identifier, message, duration_ms, retry_after FROM attempt WHERE life = ? ORDER BY n", id)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var a sidecar.Attempt
		var started, finished int64
		if err := rows.Scan(&a.N, &started, &finished, &a.State, &a.HTTPStatus, &a.Identifier, &a.Message, &a.DurationMS, &a.RetryAfter); err != nil {
			return nil, err
		}
		a.Started, a.Finished = fromMillis(started), fromMillis(finished)
		list = append(list, a)
	}
	return list, rows.Err()
}

func openingsOf(ctx context.Context, conn *sql.Conn, id string) (list []sidecar.Opening, err error) {
	rows, err := conn.QueryContext(ctx, "SELECT n, after, started, finished, state, http_status, identifier, message, duration_ms, retry_after, scan_ref FROM session WHERE life = ? ORDER BY n", id)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var o sidecar.Opening
		var started, finished int64
		var ref sql.NullString
		if err := rows.Scan(&o.N, &o.After, &started, &finished, &o.State, &o.HTTPStatus, &o.Identifier, &o.Message, &o.DurationMS, &o.RetryAfter, &ref); err != nil {
			return nil, err
		}
		o.Started, o.Finished, o.ScanRef = fromMillis(started), fromMillis(finished), ref.String
		list = append(list, o)
	}
	return list, rows.Err()
}

// Opened records the answer to a request for a session, with the session that l
// has from now on. A token that the journal knows of another life is not new,
// and nothing is recorded: what was sent with it is not to be sent again.
func (j *Journal) Opened(l *Life) (isNew bool, err error) {
	err = j.write(func(t *tx) error {
		var known int
		isNew = !t.row("SELECT 1 FROM life WHERE token = ? LIMIT 1", []any{l.Token}, &known)
		if isNew {
			var was string
			t.row("SELECT scan_ref FROM life WHERE id = ? AND scan_ref IS NOT NULL", []any{l.ID}, &was)
			t.put(l)
			if was != "" && was != l.ScanRef {
				t.replaced(was)
			}
		}
		return t.err
	})
	return isNew, err
}

// Unfinished returns the newest life of a directory, by its identity, that has
// not come to an end, or nil.
func (j *Journal) Unfinished(ctx context.Context, dir string) (*Life, error) {
	list, err := j.find(ctx, selectOthers+"dir = ? AND state IN ('claimed', 'pending')"+newestFirst+" LIMIT 1", dir)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return j.Load(ctx, list[0].ID)
}

// OpenOutside returns the life of an id when it is of a folder that was
// submitted without the daemon, and that may have been taken; or none.
func (j *Journal) OpenOutside(ctx context.Context, id string) ([]Other, error) {
	return j.find(ctx, selectOthers+"id = ? AND state = 'filed' AND place = '' AND fate = 'unsettled'", id)
}

// Away returns the lives of folders that somebody took out of work and that
// nobody has decided about, the newest first.
func (r *Reader) Away(ctx context.Context) ([]Other, error) {
	return find(ctx, r.db, selectOthers+"state <> 'filed' AND state = 'away'"+newestFirst) // the first term is the index's
}

// InWork returns the ids of the lives whose folders are not in a final place,
// with their states.
func (j *Journal) InWork(ctx context.Context) (lives map[string]State, err error) {
	rows, err := j.reads.QueryContext(ctx, "SELECT id, state FROM life WHERE state <> 'filed' AND state <> 'away'")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	lives = map[string]State{}
	for rows.Next() {
		var id string
		var s State
		if err := rows.Scan(&id, &s); err != nil {
			return nil, err
		}
		lives[id] = s
	}
	return lives, rows.Err()
}

// SentSince counts the attempts, and the requests for a session, or for its
// deletion, that began after a time and of which something may have left, for the account's quota.
func (j *Journal) SentSince(ctx context.Context, since time.Time) (n int, err error) {
	err = j.reads.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM attempt WHERE started > ?1 AND state <> 'not_sent') +
		(SELECT count(*) FROM session WHERE started > ?1 AND state <> 'not_sent') + (SELECT count(*) FROM purge WHERE asked > ?1)`, since.UnixMilli()).Scan(&n)
	return n, err
}
