package journal

import (
	"context"
	"database/sql"
)

// Whose a session is: an uploader may write any scanRef into meta.yaml, and a
// folder that is copied, or gets another token, keeps the one it had.
//
// A scanRef is certain for a life for which the daemon opened that session; or,
// as long as it opened it for none, where no life with another token names it.
// Where it isn't certain, what iDenfy says of the session tells nothing about
// the life: it isn't asked for, isn't believed, and joined to nobody's folder.

// selectRival finds another life whose the session ?1 is, or may be, just as
// well as that of the life ?2, with the token ?3; none: it is certain.
const selectRival = selectOthers + `id IN (SELECT life FROM session WHERE scan_ref = ?1 UNION ALL SELECT id FROM life WHERE scan_ref = ?1 AND coalesce(token, '') <> ?3)
	AND id <> ?2 AND NOT EXISTS (SELECT 1 FROM session WHERE scan_ref = ?1 AND life = ?2) ORDER BY claimed, id LIMIT 1`

// Rival returns another life whose a session is, or may be, just as well as that
// of the life id, with a token; nil: the session is certain for that life.
func (j *Journal) Rival(ctx context.Context, ref, id, token string) (*Other, error) {
	list, err := j.find(ctx, selectRival, ref, id, token)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// certain reports whether a session is for certain that of a life.
func (t *tx) certain(ref, id string) bool {
	var token string
	t.row("SELECT coalesce(token, '') FROM life WHERE id = ?", []any{id}, &token)
	rivals := 0
	t.each(selectRival, []any{ref, id, token}, func(*sql.Rows) error { rivals++; return nil })
	return rivals == 0
}

// owner returns the life whose a session is for certain: of several with one
// token, which are one session's, the one that was taken comes first.
func (t *tx) owner(ref string) (life string, found bool) {
	found = t.row("SELECT id FROM life WHERE scan_ref = ?1 ORDER BY id IN (SELECT life FROM session WHERE scan_ref = ?1) DESC, "+firstTaken+" LIMIT 1", []any{ref}, &life)
	return life, found && t.certain(ref, life)
}

// named is for a life that names a session from now on. Where it isn't certain
// any more whose that is, no verdict of it is waited for.
func (t *tx) named(ref string) {
	if ref == "" {
		return
	}
	if _, found := t.owner(ref); !found {
		t.exec("UPDATE verdict SET accepted = 0, due = 0 WHERE scan_ref = ? AND final = 0 AND (accepted > 0 OR due > 0)", ref)
	}
}

// disputed returns some of the lives that name a session of which the first
// event came that is joined to none of them.
func (t *tx) disputed(ref string) (list []Other) {
	t.each(selectOthers+`(SELECT count(*) FROM (SELECT 1 FROM event WHERE scan_ref = ?1 AND joined = 0 LIMIT 2)) = 1
		AND id IN (SELECT life FROM session WHERE scan_ref = ?1 UNION SELECT id FROM life WHERE scan_ref = ?1) ORDER BY claimed, id LIMIT 5`, []any{ref}, func(rows *sql.Rows) error {
		o, err := scanOther(rows)
		list = append(list, o)
		return err
	})
	return list
}

// firstTaken sorts the lives of one session: whose it is comes first.
const firstTaken = "fate = 'taken' DESC, fate = 'unsettled' DESC, claimed, id"

// itsVerdict is the condition that a verdict is about a life: it was joined to
// it, or to another one with its token; and that one may have been taken.
const itsVerdict = "(fate IN ('taken', 'unsettled') OR outcome = 'accepted') AND life.token IS (SELECT its.token FROM life AS its WHERE its.id = verdict.life)"

// ofSession finds the lives that a session's verdict is about.
const ofSession = "scan_ref = ?1 AND token IS (SELECT its.token FROM life AS its WHERE its.id = (SELECT life FROM verdict WHERE scan_ref = ?1)) ORDER BY " + firstTaken
