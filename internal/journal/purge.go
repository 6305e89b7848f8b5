package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"idenfy-batch/internal/ledger"
	"idenfy-batch/sidecar"
)

// What is deleted of a folder is on record before that begins: in the life's
// record, and in the ledger with the result.json that says so. It is open until
// the result was written and the files are gone; a start, or the next pass,
// finishes it.

// ErrPurging says that what was recorded before is still to be deleted.
var ErrPurging = errors.New("what is recorded as deleted is not yet")

// Purge records what is about to be deleted of a folder that has ended: the last
// of l's purges, of which l.Result is the result with it. It is ErrChanged when
// the life is not what it was, and ErrPurging while an earlier one is open.
func (j *Journal) Purge(l *Life) error {
	p := &l.Result.Purges[len(l.Result.Purges)-1]
	return j.write(func(t *tx) error {
		var filed bool
		if !t.row("SELECT state = 'filed' AND place IN ('done', 'failed', 'hold') AND place = ? FROM life WHERE id = ?", []any{l.Place, l.ID}, &filed) || !filed {
			return errors.Join(ErrChanged, t.err)
		}
		var n int
		if t.row("SELECT 1 FROM purge WHERE life = ? AND done = 0", []any{l.ID}, &n) {
			return ErrPurging
		}
		t.put(l)
		t.exec("INSERT INTO purge (life, at, asked, done) VALUES (?, ?, ?, 0)", l.ID, millis(p.At.Time), asked(p))
		t.purged(l, p)
		return t.err
	})
}

// PurgeAnswered records what iDenfy answered in the last purge of l.
func (j *Journal) PurgeAnswered(l *Life) error {
	p := &l.Result.Purges[len(l.Result.Purges)-1]
	return j.write(func(t *tx) error {
		t.put(l)
		t.exec("UPDATE purge SET asked = ? WHERE life = ? AND at = ?", asked(p), l.ID, millis(p.At.Time))
		t.purged(l, p)
		return t.err
	})
}

// asked is when a request left, for the account's quota; 0: none did.
func asked(p *sidecar.Purge) int64 {
	if p.Remote == nil || p.Remote.State == sidecar.NotSent {
		return 0
	}
	return millis(p.Remote.Started.Time)
}

func (t *tx) purged(l *Life, p *sidecar.Purge) {
	sum, err := sidecar.Sum(l.Result)
	t.err = errors.Join(t.err, err)
	t.enter(ledger.Entry{Kind: ledger.Purged, At: p.At, ID: l.ID, Rule: p.Rule, Remote: ledger.RemoteOf(p.Remote), Outcome: l.Result.Outcome, Place: l.Place, SHA256: sum})
}

// Purged notes that what the life's purges name is gone, and its result says so.
func (j *Journal) Purged(id string) error {
	return j.write(func(t *tx) error {
		t.exec("UPDATE purge SET done = 1 WHERE life = ? AND done = 0", id)
		return t.err
	})
}

// Purging returns the ids of lives of which something is still to be deleted, as
// is on record.
func (j *Journal) Purging(ctx context.Context) ([]string, error) {
	return texts(j.reads.QueryContext(ctx, "SELECT DISTINCT life FROM purge WHERE done = 0 ORDER BY life"))
}

// adoptPurges enters what the record of a life tells beyond what is known; it may
// have been written, and nothing deleted yet. It is written with the life.
func (t *tx) adoptPurges(l *Life, known bool) {
	news := false
	for i := range l.Result.Purges {
		p := &l.Result.Purges[i]
		if p.At.IsZero() {
			continue
		}
		var n int
		news = !t.row("SELECT 1 FROM purge WHERE life = ? AND at = ?", []any{l.ID, millis(p.At.Time)}, &n) || news
		t.exec("INSERT INTO purge (life, at, asked, done) VALUES (?, ?, ?, 0) ON CONFLICT DO NOTHING", l.ID, millis(p.At.Time), asked(p))
	}
	if !known || !news {
		return
	}
	is, _, err := loadUndecided(context.Background(), t.w.conn, l.ID)
	t.err = errors.Join(t.err, err)
	if t.err == nil {
		is.Result.Purges = l.Result.Purges
		data, err := record(is)
		t.err = errors.Join(t.err, err)
		t.exec("UPDATE life SET record = ? WHERE id = ?", data, l.ID)
	}
}

// Kept is what retention asks of the life of a folder.
type Kept struct {
	ID    string
	State State
	Place string       // where it was put
	Name  string       // its name there
	Ended sidecar.Time // zero: that isn't known
}

const selectKept = "SELECT id, state, place, name, ended FROM life WHERE "

// Kept returns how a life stands; found is false when the journal doesn't know it.
func (j *Journal) Kept(ctx context.Context, id string) (k Kept, found bool, err error) {
	list, err := kept(j.reads.QueryContext(ctx, selectKept+"id = ?", id))
	if err != nil || len(list) == 0 {
		return Kept{}, false, err
	}
	return list[0], true, nil
}

func kept(rows *sql.Rows, err error) (list []Kept, _ error) {
	if err != nil {
		return nil, err
	}
	for rows.Next() && err == nil {
		var k Kept
		var ended int64
		err = rows.Scan(&k.ID, &k.State, &k.Place, &k.Name, &ended)
		k.Ended = fromMillis(ended)
		list = append(list, k)
	}
	return list, errors.Join(err, rows.Err(), rows.Close())
}

// MostNamed bounds how many folders one name, or clientId, stands for.
const MostNamed = 10_000

// What people mean by a key, see Named.
const (
	lies           = " AND state IN ('filed', 'ended') AND place IN ('done', 'failed', 'hold') AND " + alone + " LIMIT ?"
	selectByID     = selectKept + "id = upper(?)" + lies
	selectByClient = selectKept + "client_id = ?" + lies
	selectByName   = selectKept + "id IN (SELECT id FROM life WHERE folder = ?1 AND folder <> '' UNION SELECT id FROM life WHERE name = ?2 AND name <> folder AND name <> '') AND (?3 = '' OR place = ?3)" + lies
)

// Named returns the folders that lie in final places, as far as the journal
// knows, and that people mean by a key: that with the id; or all of a clientId;
// or those of that name, which they were dropped with, or have where they lie,
// or place/name. Where a clientId is the name of somebody else's folder as well,
// that one is among them, and plain is false, as it is for several of one name.
// shown is the key as a name may be shown.
func (j *Journal) Named(ctx context.Context, key, shown, place string) (list []Kept, plain bool, err error) {
	find := func(query string, args ...any) ([]Kept, error) {
		return kept(j.reads.QueryContext(ctx, query, append(args, MostNamed+1)...))
	}
	if place != "" { // neither an id nor a person lies in one
		list, err = find(selectByName, shown, key, place)
		return list, len(list) == 1, err
	}
	if list, err = find(selectByID, key); err != nil || len(list) == 1 {
		return list, true, err
	}
	client, err := find(selectByClient, key)
	if err != nil {
		return nil, false, err
	}
	named, err := find(selectByName, shown, key, place)
	if err != nil {
		return nil, false, err
	}
	for _, k := range named {
		if !slices.ContainsFunc(client, func(c Kept) bool { return c.ID == k.ID }) {
			if len(client) > 0 {
				return append(client, named...), false, nil
			}
			return named, len(named) == 1, nil
		}
	}
	if len(client) > MostNamed {
		return nil, false, fmt.Errorf("more than %d folders are of that clientId", MostNamed)
	}
	return client, true, nil
}

// LastPass returns the day and the rules of the last daily pass; empty: there
// was none.
func (j *Journal) LastPass(ctx context.Context) (day, rules string, err error) {
	err = j.reads.QueryRowContext(ctx, "SELECT day, rules FROM retention").Scan(&day, &rules)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return day, rules, err
}

// Passed notes them.
func (j *Journal) Passed(day, rules string) error {
	return j.write(func(t *tx) error {
		t.exec("INSERT INTO retention (only, day, rules) VALUES (1, ?1, ?2) ON CONFLICT (only) DO UPDATE SET day = ?1, rules = ?2", day, rules)
		return t.err
	})
}
