package journal

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"time"

	"idenfy-batch/sidecar"
)

// Gate is the account's gate while it is shut: kept so that a restart knows
// what the service asked for, and how often it was tried in vain.
type Gate struct {
	Reason  string        // why
	Mend    string        // what a person can do
	Since   time.Time     //
	Until   time.Time     // of the next try
	Asked   time.Duration // that the service wanted to be left alone, after the last try
	Tries   int           // that failed
	Refusal string        // that everybody met, see Refusal.Key; empty: it is another fault
}

// KeepGate records the account's gate; nil: it is open. Nobody waits for that
// to be on the disk: it costs a request too many at the worst.
func (j *Journal) KeepGate(g *Gate) {
	_ = j.send(&op{done: make(chan struct{}), do: func(t *tx) error { // of a closed journal: nothing more will be sent
		t.exec("DELETE FROM gate WHERE owner = ?", "account")
		if g != nil {
			t.exec("INSERT INTO gate (owner, reason, mend, since, until, asked, tries, refusal) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
				"account", g.Reason, g.Mend, millis(g.Since), millis(g.Until), g.Asked.Milliseconds(), g.Tries, g.Refusal)
		}
		return t.err
	}})
}

// Gate returns the account's gate as it was recorded, or nil when it was open.
func (r *Reader) Gate(ctx context.Context) (*Gate, error) {
	var g Gate
	var since, until, asked int64
	err := r.db.QueryRowContext(ctx, "SELECT reason, mend, since, until, asked, tries, refusal FROM gate WHERE owner = 'account'").
		Scan(&g.Reason, &g.Mend, &since, &until, &asked, &g.Tries, &g.Refusal)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	g.Since, g.Until, g.Asked = fromMillis(since).Time, fromMillis(until).Time, time.Duration(asked)*time.Millisecond
	return &g, err
}

// Refusal is the API's no to one folder.
type Refusal struct {
	ID  string // of the life
	Key string // identifier and message: what makes two of them the same
}

// Refused returns the newest rejections by the API since it last accepted a
// folder, the newest first, and no more than most.
func (j *Journal) Refused(ctx context.Context, most int) (list []Refusal, err error) {
	rows, err := j.reads.QueryContext(ctx, `SELECT l.id, l.outcome, coalesce(s.state, a.state), coalesce(s.http_status, a.http_status), coalesce(s.identifier, a.identifier), coalesce(s.message, a.message)
		FROM life l LEFT JOIN attempt a ON a.life = l.id AND a.n = l.attempts
		LEFT JOIN session s ON s.life = l.id AND s.after = l.attempts AND s.http_status >= 400 AND s.n = (SELECT max(n) FROM session WHERE life = l.id)
		WHERE l.outcome IN ('accepted', 'rejected') AND l.took = 1 AND (s.life IS NOT NULL OR a.life IS NOT NULL) ORDER BY l.ended DESC LIMIT ?`, most)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id string
		var outcome sidecar.Outcome
		var a sidecar.Attempt
		if err := rows.Scan(&id, &outcome, &a.State, &a.HTTPStatus, &a.Identifier, &a.Message); err != nil {
			return nil, err
		}
		if outcome == sidecar.Accepted {
			break
		}
		if a.State == sidecar.Answered { // else it was settled in another way
			list = append(list, Refusal{id, RefusalKey(&a)})
		}
	}
	return list, rows.Err()
}

// RefusalKey makes the key of the rejection that ended an attempt.
func RefusalKey(a *sidecar.Attempt) string {
	if a.Identifier == "" && a.Message == "" {
		return "HTTP " + strconv.Itoa(a.HTTPStatus)
	}
	return a.Identifier + ": " + a.Message
}

// Filings counts the lives that ended in each place, as they were filed: what
// somebody takes away from there by hand is counted on.
func (j *Journal) Filings(ctx context.Context) (in map[string]int, err error) {
	rows, err := j.reads.QueryContext(ctx, "SELECT place, count(*) FROM life WHERE state = 'filed' GROUP BY place")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	in = map[string]int{}
	for rows.Next() {
		var place string
		var n int
		if err := rows.Scan(&place, &n); err != nil {
			return nil, err
		}
		in[place] = n
	}
	return in, rows.Err()
}
