-- Version 4: the ledger. Nothing of it is ever changed.

CREATE TABLE entry (
	n      INTEGER PRIMARY KEY,  -- from 0, without gaps
	life   TEXT,                 -- that it is about, as in line
	line   TEXT NOT NULL,        -- the fact, see internal/ledger: its bytes are a leaf of the tree
	hashes BLOB NOT NULL         -- of the subtrees that it completes, its own first (RFC 6962)
) STRICT;
CREATE INDEX entry_life ON entry (life) WHERE life IS NOT NULL;
CREATE INDEX entry_started ON entry (n) WHERE life IS NULL;
CREATE TRIGGER entry_kept BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER entry_fixed BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

ALTER TABLE journal ADD COLUMN entered INTEGER NOT NULL DEFAULT 0; -- 1: what ended before there was a ledger is in it
