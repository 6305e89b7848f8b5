package journal

import (
	"context"
	"encoding/json"
)

// NamesOf returns the names that a folder was dropped with in all its lives, as they
// may be shown, the oldest first: by the directory itself, or, where that has no
// name (see Life.Dir), by the ids in its results.
func (r *Reader) NamesOf(ctx context.Context, dir string, ids []string) ([]string, error) {
	const inOrder = " ORDER BY claimed, id LIMIT 100"
	if dir != "" {
		return texts(r.db.QueryContext(ctx, "SELECT folder FROM life WHERE dir = ?"+inOrder, dir))
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	return texts(r.db.QueryContext(ctx, "SELECT folder FROM life WHERE id IN (SELECT value FROM json_each(?))"+inOrder, string(list)))
}
