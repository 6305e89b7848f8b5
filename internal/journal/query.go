package journal

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"idenfy-batch/sidecar"
)

// Reader answers what people ask of a journal.
type Reader struct {
	db *sql.DB
	v  int // of its schema
}

// Reader returns the reader of an open journal, which ends with it.
func (j *Journal) Reader() *Reader { return &Reader{j.reads, version} }

// OpenReader opens a journal that another process may be writing, and writes
// nothing. What there isn't is fs.ErrNotExist, what isn't this user's to read
// fs.ErrPermission.
func OpenReader(ctx context.Context, w Where) (*Reader, error) {
	// Not by opening it: SQLite's locks on it would go with the descriptor (fcntl(2)).
	if err := unix.Faccessat(unix.AT_FDCWD, w.path(), unix.R_OK, unix.AT_EACCESS); err != nil {
		return nil, fmt.Errorf("%s: %w", w.path(), err)
	}
	db, err := openReads(w.path())
	if err != nil {
		return nil, err
	}
	var v int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
		if cantOpen(err) { // its log is not there, and can't be made by this user
			err = fmt.Errorf("%s-wal or -shm: %w (%w)", w.path(), unix.EACCES, err)
		}
		return nil, errors.Join(err, db.Close())
	}
	if v > version {
		return nil, errors.Join(newer(v), db.Close())
	}
	return &Reader{db, v}, nil
}

// Close ends it.
func (r *Reader) Close() error { return r.db.Close() }

// Query says which folders are asked for. What is empty sets no bound.
type Query struct {
	Place   string          `json:"place,omitempty"`
	Outcome sidecar.Outcome `json:"outcome,omitempty"`
	Since   time.Time       `json:"since,omitzero"`    // taken at that time or later
	Until   time.Time       `json:"until,omitzero"`    // taken before it
	Verdict string          `json:"verdict,omitempty"` // iDenfy's word, or waiting, or contradicted; in any case
	Client  string          `json:"client,omitempty"`  // clientId of the session that the daemon opened
	Inbox   string          `json:"inbox,omitempty"`   // name of the inbox that they came from
	After   *Cursor         `json:"after,omitempty"`
	Most    int             `json:"most"`
	Brief   bool            `json:"brief,omitempty"` // without reasons and request, which takes half the time
}

// Cursor is where a list ended that is to go on.
type Cursor struct {
	ID      string       `json:"id"`
	Claimed sidecar.Time `json:"claimed"`
}

// Folder is one folder as it is by now.
type Folder struct {
	ID           string          `json:"id"`      // of its newest submission
	Folder       string          `json:"folder"`  // name that it was dropped with
	Place        string          `json:"place"`   // where the daemon, or a command, put it; empty: somebody took it out of work
	Name         string          `json:"name"`    // its name there; empty while it is in work
	Outcome      sidecar.Outcome `json:"outcome"` // as in result.json
	Reasons      []string        `json:"reasons"` // their codes
	Country      string          `json:"country"`
	DocumentType string          `json:"document_type"`
	TokenHint    string          `json:"token_hint"`
	ScanRef      string          `json:"scan_ref"`
	ClientID     string          `json:"client_id"` // empty: it came with a token
	Verdict      string          `json:"verdict"`   // iDenfy's word; empty: none came
	Final        bool            `json:"verdict_final"`
	Attempts     int             `json:"attempts"`
	Claimed      sidecar.Time    `json:"claimed,omitzero"`  // when it was taken into work; missing: of a folder of before the journal
	Finished     sidecar.Time    `json:"finished,omitzero"` // missing: not yet
	Purged       sidecar.Time    `json:"purged,omitzero"`   // when its images were deleted; missing: they were not, or it was asked for in brief
	Inbox        string          `json:"inbox"`             // that it came from; empty: of none, as far as is known
}

// later is of a life that next is a later one of the same case.
const later = "next.kase = life.kase AND (next.claimed, next.id) > (life.claimed, life.id)"

// alone is the condition that the folder of a life did not come again, as
// another life: the same directory, or, where one of the two is not known, the
// same name. Each part is found by an index of its own, so that it takes no
// longer in a case of thousands of lives.
const alone = `NOT EXISTS (SELECT 1 FROM life next WHERE next.dir = life.dir AND ` + later + `)
	AND (life.dir IS NOT NULL OR NOT EXISTS (SELECT 1 FROM life next WHERE next.folder = life.folder AND ` + later + `))
	AND (life.dir IS NULL OR NOT EXISTS (SELECT 1 FROM life next WHERE next.dir IS NULL AND next.folder = life.folder AND ` + later + `))`

// Words that a list may be asked for in place of a verdict of iDenfy's.
const (
	Awaited      = "waiting"      // accepted, and without a final one
	Contradicted = "contradicted" // final ones that have two words
)

const selectFolders = `SELECT id, folder, place, name, outcome, life.scan_ref, attempts, claimed, ended, CASE WHEN ?7 THEN '{}' ELSE record END,
	coalesce(overall, ''), coalesce(final, 0), coalesce(client_id, ''), life.inbox FROM life LEFT JOIN verdict ON verdict.scan_ref = life.scan_ref AND ` + itsVerdict + `
	WHERE claimed >= ?1 AND claimed < ?2 AND (?4 = '' OR (claimed, id) < (?3, ?4)) AND (?5 = '' OR place = ?5 OR ?5 = 'inbox' AND place LIKE 'inbox/%') AND (?6 = '' OR outcome = ?6)
	AND (?9 = '' OR ?9 = 'waiting' COLLATE NOCASE AND accepted > 0 AND final = 0 OR ?9 = 'contradicted' COLLATE NOCASE AND clash = 1 OR overall = ?9 COLLATE NOCASE)
	AND (?11 = '' OR life.inbox = ?11) AND folder <> '' AND ` + alone + ` ORDER BY claimed DESC, id DESC LIMIT ?8`

// selectOfClient is selectFolders of one clientId: by the index of these, which
// has the time too.
var selectOfClient = strings.Replace(selectFolders, "WHERE claimed", "WHERE client_id = ?10 AND claimed", 1)

// selectOfInbox is selectFolders of one inbox, by the index of those that have a
// name.
var selectOfInbox = strings.Replace(selectFolders, "WHERE claimed", "WHERE life.inbox = ?11 AND life.inbox <> 'inbox' AND claimed", 1)

// before makes a question one to a journal that has one inbox, no verdicts, or no
// sessions, yet.
func before(version int, query string) string {
	if version < 7 {
		query = strings.ReplaceAll(query, "life.inbox", "'"+firstInbox+"'")
	}
	if version < 6 {
		query = strings.Replace(query, "verdict ON verdict.scan_ref = life.scan_ref AND "+itsVerdict,
			"(SELECT NULL AS overall, NULL AS final, NULL AS clash, NULL AS accepted) ON 0", 1)
	}
	if version < 5 {
		query = strings.ReplaceAll(query, "client_id", "NULL")
	}
	return query
}

// Bounds of a question: whoever may read may ask anything.
const (
	mostRows = 1000
	mostKey  = 1 << 10 // bytes; the longest name of a folder is shorter, however it is shown
)

func bounded(most int) int { return min(max(most, 1), mostRows) }

// check refuses what nobody can be called.
func (s *Search) check() error {
	s.Most = bounded(s.Most)
	if len(s.Key) > mostKey {
		return fmt.Errorf("the name has %d bytes, and no folder's has more than %d", len(s.Key), mostKey)
	}
	return nil
}

// List returns folders, the newest first. A folder is told once, with its
// newest life.
func (r *Reader) List(ctx context.Context, q Query) (list []Folder, err error) {
	// Always bounds of time, so that the index by time is read, whatever else is asked for.
	until, after := int64(math.MaxInt64), Cursor{}
	if !q.Until.IsZero() {
		until = millis(q.Until)
	}
	if q.After != nil { // some of that very moment may be left
		after, until = *q.After, min(until, millis(q.After.Claimed.Time)+1)
	}
	query, args := selectFolders, []any{millis(q.Since), until, millis(after.Claimed.Time), after.ID, q.Place, q.Outcome, q.Brief, bounded(q.Most), q.Verdict, q.Client, q.Inbox}
	switch {
	case q.Client != "":
		query = selectOfClient
	case q.Inbox != "" && q.Inbox != firstInbox:
		query = selectOfInbox
	}
	rows, err := r.db.QueryContext(ctx, before(r.v, query), args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		f, err := scanFolder(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, f)
	}
	return list, rows.Err()
}

func scanFolder(rows *sql.Rows) (f Folder, err error) {
	var ref sql.NullString
	var claimed, ended int64
	var data sql.RawBytes
	var res struct { // of result.json what is listed: the rest takes longer to read than to find
		Reasons []struct{ Code string }
		Purged  []sidecar.Purge
		Request struct {
			TokenHint    string `json:"token_hint"`
			Country      string
			DocumentType string `json:"document_type"`
		}
	}
	if err := rows.Scan(&f.ID, &f.Folder, &f.Place, &f.Name, &f.Outcome, &ref, &f.Attempts, &claimed, &ended, &data, &f.Verdict, &f.Final, &f.ClientID, &f.Inbox); err != nil {
		return f, err
	}
	if err := json.Unmarshal(data, &res); err != nil {
		return f, err
	}
	f.Claimed, f.Finished = fromMillis(claimed), fromMillis(ended)
	if p := (&sidecar.Result{Purges: res.Purged}).Emptied(); p != nil {
		f.Purged = p.At
	}
	f.ScanRef, f.TokenHint = ref.String, res.Request.TokenHint
	f.Country, f.DocumentType = res.Request.Country, res.Request.DocumentType
	f.Reasons = []string{}
	for _, reason := range res.Reasons {
		f.Reasons = append(f.Reasons, reason.Code)
	}
	return f, nil
}

// Search asks for folders by what people know of them.
type Search struct {
	Key  string `json:"key"`
	ID   bool   `json:"id,omitempty"` // Key is the id of a life: names and clientIds may be the same
	Most int    `json:"most"`
}

// Stories are the newest of the folders that were found, the newest last.
type Stories struct {
	Total   int      `json:"total"`   // how many there are
	Stories []Story  `json:"stories"` //
	Near    []string `json:"near"`    // names like the one that nobody has
}

// Story is what is known of a folder, in all its lives.
type Story struct {
	Lives     []Told             `json:"lives"`                   // the oldest first
	Omitted   int                `json:"lives_omitted,omitempty"` // older ones that are not listed
	Decisions []sidecar.Decision `json:"decisions"`               // of people, the oldest first
}

// Told is one life in a story.
type Told struct {
	Place  string          `json:"place"`          // where the folder was put; empty: somebody took it out of work
	Name   string          `json:"name"`           // its name there; empty while it is in work
	State  State           `json:"state"`          // claimed, pending, ended (to be moved) or filed (it was moved)
	Fate   Fate            `json:"fate"`           // of what was sent: unsent, refused, unsettled (may have been taken) or taken
	Forced bool            `json:"forced"`         // it was sent because a person forced it
	Next   string          `json:"next,omitempty"` // id by which the same folder came again
	Result *sidecar.Result `json:"result"`         // as result.json, but for the decisions

	Verdict *sidecar.Verdict `json:"verdict,omitempty"`        // as verdict.json; null: nothing was said
	Others  []OtherEvent     `json:"other_sessions,omitempty"` // what was said of sessions that it had before
}

// OtherEvent is what was said of a session that a life had before the one that
// was submitted, as a rule that it expired.
type OtherEvent struct {
	ScanRef string `json:"scan_ref"`
	sidecar.VerdictEvent
}

// mostLives bounds how many lives a story lists: the newest.
const mostLives = 50

// Show returns the stories of the folders that have an id, a scanRef, a clientId,
// or a name: that they were dropped with, or have where they lie, or place/name.
func (r *Reader) Show(ctx context.Context, s Search) (all Stories, err error) {
	if err := s.check(); err != nil {
		return all, err
	}
	conn, err := r.db.Conn(ctx)
	if err != nil {
		return all, err
	}
	defer conn.Close()
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // so that all is of one moment
	if err != nil {
		return all, err
	}
	defer func() {
		if end := tx.Rollback(); !errors.Is(end, sql.ErrTxDone) { // of a context that ended, which is said already
			err = errors.Join(err, end)
		}
	}()
	cases, total, err := search(ctx, conn, s, r.v)
	if err != nil {
		return all, err
	}
	all.Total = total
	for _, kase := range cases {
		story, err := tell(ctx, conn, kase)
		if err == nil && r.v >= 6 {
			err = tellVerdicts(ctx, conn, &story)
		}
		if err != nil {
			return all, err
		}
		all.Stories = append(all.Stories, story)
	}
	if total == 0 {
		all.Near, err = near(ctx, conn, s.Key)
	}
	return all, err
}

// search returns the newest cases, the oldest of these first, and how many there
// are in all.
func search(ctx context.Context, conn *sql.Conn, s Search, version int) (cases []int64, total int, err error) {
	name, place := s.Key, ""
	if key := strings.TrimRight(s.Key, "/"); strings.LastIndexByte(key, '/') > 0 {
		cut := strings.LastIndexByte(key, '/') // an inbox's place has one as well
		place, name = key[:cut], key[cut+1:]
	}
	sessions := ""
	if version >= 5 { // what isn't brought up to date yet has none
		sessions = `UNION SELECT kase FROM life WHERE client_id = ?1
		UNION SELECT kase FROM life WHERE id IN (SELECT life FROM session WHERE scan_ref = lower(?1))`
	}
	hit := `SELECT kase FROM life WHERE id = upper(?1)
		UNION SELECT kase FROM life WHERE scan_ref = ?1
		UNION SELECT kase FROM life WHERE scan_ref = lower(?1)
		` + sessions + `
		UNION SELECT kase FROM life WHERE folder = ?2 AND folder <> '' AND (?3 = '' OR place = ?3)
		UNION SELECT kase FROM life WHERE name = ?2 AND name <> folder AND name <> '' AND (?3 = '' OR place = ?3)`
	if s.ID {
		hit = "SELECT kase FROM life WHERE id = ?1"
	}
	rows, err := conn.QueryContext(ctx, `WITH hit (kase) AS (`+hit+`)
		SELECT kase, count(*) OVER () FROM hit ORDER BY (SELECT max(claimed) FROM life WHERE life.kase = hit.kase) DESC, kase DESC LIMIT ?4`,
		s.Key, name, place, s.Most)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var kase int64
		if err := rows.Scan(&kase, &total); err != nil {
			return nil, 0, err
		}
		cases = append([]int64{kase}, cases...)
	}
	return cases, total, rows.Err()
}

// tell returns the story of a case.
func tell(ctx context.Context, conn *sql.Conn, kase int64) (s Story, err error) {
	var ids []string
	rows, err := conn.QueryContext(ctx, "SELECT id, count(*) OVER () FROM life WHERE kase = ? AND folder <> '' ORDER BY claimed DESC, id DESC LIMIT ?", kase, mostLives)
	if err != nil {
		return s, err
	}
	for rows.Next() && err == nil {
		var id string
		err = rows.Scan(&id, &s.Omitted)
		ids = append([]string{id}, ids...)
	}
	if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
		return s, err
	}
	s.Omitted -= len(ids)
	lives := make([]*Life, 0, len(ids))
	for _, id := range ids {
		l, err := load(ctx, conn, id)
		if err != nil {
			return s, err
		}
		s.Decisions, l.Result.Decisions = l.Result.Decisions, nil
		lives = append(lives, l)
	}
	for i, l := range lives {
		t := Told{Place: l.Place, Name: l.Name, State: l.State, Fate: l.Fate, Forced: l.Forced, Result: l.Result}
		for _, next := range lives[i+1:] {
			if same(l, next) {
				t.Next = next.ID
				break
			}
		}
		s.Lives = append(s.Lives, t)
	}
	return s, nil
}

// tellVerdicts adds what was said of the lives' sessions.
func tellVerdicts(ctx context.Context, conn *sql.Conn, s *Story) error {
	for i := range s.Lives {
		t := &s.Lives[i]
		if len(t.Result.Sessions) > 0 {
			var err error
			if t.Others, err = saidOfOthers(ctx, conn, t.Result.ID); err != nil {
				return err
			}
		}
		if t.Result.Session == nil || t.Fate != Taken && t.Fate != Unsettled && t.Result.Outcome != sidecar.Accepted {
			continue
		}
		h, err := heard(ctx, conn, t.Result.Session.ScanRef)
		if err != nil {
			return err
		}
		var its bool
		if h != nil {
			err = conn.QueryRowContext(ctx, "SELECT "+itsVerdict+" FROM life JOIN verdict ON verdict.scan_ref = ?1 WHERE life.id = ?2", h.Verdict.ScanRef, t.Result.ID).Scan(&its)
		}
		if err != nil {
			return err
		}
		if its {
			t.Verdict = h.Verdict
			t.Verdict.ID = t.Result.ID
		}
	}
	return nil
}

func saidOfOthers(ctx context.Context, conn *sql.Conn, id string) (list []OtherEvent, err error) {
	rows, err := conn.QueryContext(ctx, `SELECT scan_ref, said FROM event WHERE scan_ref IN
		(SELECT scan_ref FROM session WHERE life = ?1 AND scan_ref IS NOT (SELECT scan_ref FROM life WHERE id = ?1)) ORDER BY n DESC LIMIT ?2`, id, mostLives)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var e OtherEvent
		var said []byte
		err := rows.Scan(&e.ScanRef, &said)
		if err == nil {
			err = json.Unmarshal(said, &e.VerdictEvent)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	slices.Reverse(list)
	return list, rows.Err()
}

// same reports whether a life and a later one of its case are of the same
// directory, as the condition alone does.
func same(l, next *Life) bool {
	if l.Dir == "" || next.Dir == "" {
		return l.Result.Folder == next.Result.Folder
	}
	return l.Dir == next.Dir
}

// Names returns names of folders that begin with the key, in their order.
func (r *Reader) Names(ctx context.Context, s Search) ([]string, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	conn, err := r.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return names(ctx, conn, s)
}

func names(ctx context.Context, conn *sql.Conn, s Search) ([]string, error) {
	// What may be shown has no character below the space, or above U+10FFFF. The empty name is of a folder that is still to come.
	return texts(conn.QueryContext(ctx, "SELECT DISTINCT folder FROM life WHERE folder >= ? AND folder < ? ORDER BY folder LIMIT ?", cmp.Or(s.Key, " "), s.Key+"\U0010FFFF", s.Most))
}

// near returns some names that begin as name does, for as long as any does.
func near(ctx context.Context, conn *sql.Conn, name string) (list []string, err error) {
	const few = 3
	runes := []rune(name)
	// What begins with more of it begins with less of it as well.
	from, to := 1, len(runes)
	for from <= to && err == nil {
		var found []string
		half := (from + to) / 2
		if found, err = names(ctx, conn, Search{Key: string(runes[:half]), Most: few}); len(found) > 0 {
			list, from = found, half+1
		} else {
			to = half - 1
		}
	}
	return list, err
}

// newer says that a program of later wrote the journal.
func newer(v int) error {
	return unfit("the journal is of a newer idenfy-batch (schema %d, and this one knows %d); install that one again", v, version)
}
