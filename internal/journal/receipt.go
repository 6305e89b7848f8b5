package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"idenfy-batch/sidecar"
)

// What an uploader is to be told of his folders is owed from the transaction
// on in which it happens, until its receipt is written: so neither a crash
// between the two nor a full disk loses any.

// Receiver is an inbox that has receipts.
type Receiver struct {
	Inbox   string
	Verdict bool // verdicts are told as well
}

// Receive says which inboxes have receipts. What happened in others before is
// owed to nobody.
func (j *Journal) Receive(list []Receiver) error {
	return j.write(func(t *tx) error {
		t.exec("UPDATE receiver SET verdict = -1")
		for _, r := range list {
			t.exec("INSERT INTO receiver (inbox, verdict) VALUES (?1, ?2) ON CONFLICT (inbox) DO UPDATE SET verdict = ?2", r.Inbox, r.Verdict)
		}
		t.exec("DELETE FROM receipt WHERE inbox IN (SELECT inbox FROM receiver WHERE verdict = -1)")
		t.exec("DELETE FROM receiver WHERE verdict = -1")
		return t.err
	})
}

// The planner would rather read all receipts of the inbox.
const (
	selectOwed    = "SELECT folder, life || ' ' || earlier, older, waits, due FROM receipt INDEXED BY receipt_due WHERE told < due AND inbox = ? AND folder > ? ORDER BY folder LIMIT ?"
	countOwed     = "SELECT count(*) FROM receipt INDEXED BY receipt_due WHERE told < due AND inbox = ?"
	selectWaiting = "SELECT folder FROM receipt INDEXED BY receipt_waits WHERE waits IS NOT NULL AND inbox = ? AND folder > ? ORDER BY folder LIMIT ?"
)

// mostEarlier bounds how many lives before the newest a receipt lists.
const mostEarlier = 20

// owe notes that the uploader of a life is to be told how it stands.
func (t *tx) owe(id string) {
	if l, is := t.received(id); is {
		t.oweAs(l, false)
	}
}

// oweEnd is owe of a life that ends now.
func (t *tx) oweEnd(id string) {
	if l, is := t.received(id); is {
		t.oweAs(l, true)
	}
}

// received is a life whose inbox has receipts, by the name that its uploader
// knows.
type received struct {
	id, inbox, folder string
	claimed           int64
}

func (t *tx) received(id string) (l received, is bool) {
	l.id = id
	is = t.row("SELECT inbox, folder, claimed FROM life WHERE id = ? AND inbox IN (SELECT inbox FROM receiver)", []any{id}, &l.inbox, &l.folder, &l.claimed)
	if is && numbered.MatchString(l.folder) {
		t.called(&l)
	}
	return l, is
}

// oweAs is owe by the name that the uploader knows. What has not been told of
// before and begins, or ends, now is newer than any that has ended, also by a
// clock that was set back meanwhile.
func (t *tx) oweAs(l received, now bool) {
	var was, earlier string
	var wasClaimed int64
	var open bool
	known := t.row(`SELECT receipt.life, earlier, coalesce(life.claimed, 0), coalesce(life.state IN ('claimed', 'pending'), 0)
		FROM receipt LEFT JOIN life ON life.id = receipt.life WHERE receipt.inbox = ? AND receipt.folder = ?`, []any{l.inbox, l.folder}, &was, &earlier, &wasClaimed, &open)
	list := append(strings.Fields(was), strings.Fields(earlier)...)
	switch {
	case !known:
		t.exec("INSERT INTO receipt (inbox, folder, life, earlier, older, seen, due, told, at) VALUES (?, ?, ?, '', 0, 0, 1, 0, 0)", l.inbox, l.folder, l.id)
		return
	case slices.Contains(list, l.id):
		t.exec("UPDATE receipt SET due = due + 1 WHERE inbox = ? AND folder = ?", l.inbox, l.folder)
		return
	case wasClaimed <= l.claimed || now && !open:
		list = slices.Insert(list, 0, l.id)
	case now:
		list = slices.Insert(list, 1, l.id)
	default: // it is older than all that is told
		return
	}
	over := max(len(list)-1-mostEarlier, 0)
	// What is known to wait is this folder; or one that came after it.
	t.exec("UPDATE receipt SET due = due + 1, life = ?, earlier = ?, older = older + ?, waits = iif(seen <= ?, NULL, waits) WHERE inbox = ? AND folder = ?",
		list[0], strings.Join(list[1:len(list)-over], " "), over, l.claimed, l.inbox, l.folder)
}

// begins notes that a life is being worked on. Its uploader is told only where
// there is a receipt that says something else.
func (t *tx) begins(id string) {
	l, is := t.received(id)
	var was string
	if is && t.row("SELECT life FROM receipt WHERE inbox = ? AND folder = ?", []any{l.inbox, l.folder}, &was) && was != id {
		t.oweAs(l, true)
	}
}

// numbered is a name that a folder may have got in a final place, since its own
// was taken there.
var numbered = regexp.MustCompile(`\.[0-9]{1,9}$`)

// called finds the name that the uploader knows a folder by: not the one that it
// got in a final place before it came into the inbox again.
func (t *tx) called(l *received) {
	t.row(`SELECT folder FROM life WHERE kase = (SELECT kase FROM life WHERE id = ?1) AND id <> ?1 AND name = ?2 AND folder <> ?2 AND inbox = ?3
		AND (dir = (SELECT dir FROM life WHERE id = ?1) OR EXISTS (SELECT 1 FROM decision WHERE decision.life = life.id AND action IN ('requeued', 'resubmit')))
		ORDER BY claimed DESC LIMIT 1`, []any{l.id, l.folder, l.inbox}, &l.folder)
}

// oweVerdict is owe of a life of which a verdict came. With its end it is told
// anyway.
func (t *tx) oweVerdict(id string) {
	var tells bool
	if t.row("SELECT verdict FROM receiver WHERE inbox = (SELECT inbox FROM life WHERE id = ? AND state NOT IN ('claimed', 'pending'))", []any{id}, &tells); tells {
		t.owe(id)
	}
}

// Awaiting is what a folder in the inbox waits for.
type Awaiting struct {
	Folder  string                  `json:"-"`    // as it may be shown
	Over    bool                    `json:"-"`    // it waits no more: the rest is empty
	Seen    sidecar.Time            `json:"seen"` // first
	Since   sidecar.Time            `json:"since"`
	Reasons []sidecar.ReceiptReason `json:"reasons"`
}

// Waits records what folders in an inbox wait for.
func (j *Journal) Waits(inbox string, list []Awaiting) error {
	return j.write(func(t *tx) error {
		for i := range list {
			w := &list[i]
			if w.Over {
				t.exec("UPDATE receipt SET waits = NULL, due = due + 1 WHERE inbox = ? AND folder = ? AND waits IS NOT NULL", inbox, w.Folder)
				continue
			}
			data, err := json.Marshal(w)
			if err != nil {
				return err
			}
			t.exec(`INSERT INTO receipt (inbox, folder, life, earlier, older, waits, seen, due, told, at) SELECT ?1, ?2, '', '', 0, ?3, ?4, 1, 0, 0 FROM receiver WHERE inbox = ?1
				ON CONFLICT (inbox, folder) DO UPDATE SET waits = excluded.waits, seen = excluded.seen, due = due + 1 WHERE waits IS NOT excluded.waits`,
				inbox, w.Folder, string(data), millis(w.Seen.Time))
		}
		return t.err
	})
}

// Waiting returns the folders of an inbox that are known to wait, after one of
// them.
func (j *Journal) Waiting(ctx context.Context, inbox, after string, most int) ([]string, error) {
	return texts(j.reads.QueryContext(ctx, selectWaiting, inbox, after, most))
}

// Owed is what the uploader of a folder is to be told.
type Owed struct {
	Folder  string
	Life    *Life // the newest one; nil: there was none
	Verdict *sidecar.ReceiptVerdict
	Earlier []sidecar.ReceiptEarlier // those before that have ended
	Older   int
	Wait    *Awaiting // nil: nothing is known to lie in the inbox and wait
	due     int64
}

// Owes returns what is owed to an inbox's uploaders, by the folders' names,
// after one of them.
func (j *Journal) Owes(ctx context.Context, inbox, after string, most int) (list []Owed, err error) {
	conn, err := j.reads.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var tells bool
	if err := conn.QueryRowContext(ctx, "SELECT verdict FROM receiver WHERE inbox = ?", inbox).Scan(&tells); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			err = nil
		}
		return nil, err
	}
	var lives []string
	var waits []sql.NullString
	rows, err := conn.QueryContext(ctx, selectOwed, inbox, after, most)
	if err != nil {
		return nil, err
	}
	for rows.Next() && err == nil {
		var o Owed
		var ids string
		var w sql.NullString
		err = rows.Scan(&o.Folder, &ids, &o.Older, &w, &o.due)
		list, lives, waits = append(list, o), append(lives, ids), append(waits, w)
	}
	if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	for i := range list {
		o := &list[i]
		if waits[i].Valid {
			o.Wait = &Awaiting{Folder: o.Folder}
			if err := json.Unmarshal([]byte(waits[i].String), o.Wait); err != nil {
				return nil, err
			}
		}
		if err := o.fill(ctx, conn, strings.Fields(lives[i]), tells); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// fill loads what is owed of lives, by their ids, the newest first. One that was
// given back to the inbox is none.
func (o *Owed) fill(ctx context.Context, conn *sql.Conn, lives []string, tells bool) (err error) {
	for o.Life == nil && len(lives) > 0 {
		if o.Life, err = load(ctx, conn, lives[0]); err != nil {
			return err
		}
		lives = lives[1:]
	}
	if o.Life != nil && tells && o.Life.ScanRef != "" {
		var v sidecar.ReceiptVerdict
		err := conn.QueryRowContext(ctx, "SELECT overall, final FROM verdict WHERE scan_ref = ? AND life = ? AND overall <> ''", o.Life.ScanRef, o.Life.ID).Scan(&v.Overall, &v.Final)
		if err == nil {
			o.Verdict = &v
		} else if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
	}
	for _, id := range lives {
		e := sidecar.ReceiptEarlier{ID: id}
		var ended int64
		err := conn.QueryRowContext(ctx, "SELECT outcome, ended FROM life WHERE id = ? AND state NOT IN ('claimed', 'pending')", id).Scan(&e.Outcome, &ended)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return err
		}
		e.Outcome, e.Finished = word(e.Outcome), fromMillis(ended)
		o.Earlier = append(o.Earlier, e)
	}
	return nil
}

// Receipted notes that what was owed is in receipts, or that there is nothing
// to tell any more, with none left. What happened since is still owed.
func (j *Journal) Receipted(inbox string, list []Owed, now time.Time) error {
	return j.write(func(t *tx) error {
		for i := range list {
			o := &list[i]
			if o.Wait == nil && o.Life == nil && len(o.Earlier) == 0 {
				t.exec("DELETE FROM receipt WHERE inbox = ? AND folder = ? AND due = ?", inbox, o.Folder, o.due)
			}
			t.exec("UPDATE receipt SET told = ?, at = ? WHERE inbox = ? AND folder = ?", o.due, millis(now), inbox, o.Folder)
		}
		return t.err
	})
}

// CountOwed counts the receipts of an inbox that are still to be written.
func (j *Journal) CountOwed(ctx context.Context, inbox string) (n int, err error) {
	err = j.reads.QueryRowContext(ctx, countOwed, inbox).Scan(&n)
	return n, err
}

// Outlive forgets receipts of an inbox that were written before a time and say
// how a folder ended, at most so many. It returns how many.
func (j *Journal) Outlive(ctx context.Context, inbox string, before time.Time, most int) (n int, err error) {
	old, err := texts(j.reads.QueryContext(ctx, `SELECT folder FROM receipt WHERE inbox = ? AND at < ? AND told = due AND waits IS NULL
		AND NOT EXISTS (SELECT 1 FROM life WHERE id = receipt.life AND state IN ('claimed', 'pending', 'ended')) LIMIT ?`, inbox, millis(before), most))
	if err != nil || len(old) == 0 {
		return 0, err
	}
	return len(old), j.write(func(t *tx) error {
		for _, folder := range old { // but for what is owed by now
			t.exec("DELETE FROM receipt WHERE inbox = ? AND folder = ? AND told = due AND waits IS NULL", inbox, folder)
		}
		return t.err
	})
}

// Receipts returns which of some folders of an inbox have a receipt that is not
// outlived.
func (j *Journal) Receipts(ctx context.Context, inbox string, folders []string) (known map[string]bool, err error) {
	known = map[string]bool{}
	for _, folder := range folders {
		var is bool
		if err := j.reads.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM receipt WHERE inbox = ? AND folder = ?)", inbox, folder).Scan(&is); err != nil {
			return nil, err
		}
		known[folder] = is
	}
	return known, nil
}
