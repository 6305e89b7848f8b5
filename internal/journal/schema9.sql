-- Version 9: what is deleted of folders that had ended.

-- One row for each time that something of a life's folder was deleted; what that was stands in the life's record.
CREATE TABLE purge (
	life  TEXT NOT NULL REFERENCES life (id),
	at    INTEGER NOT NULL,
	asked INTEGER NOT NULL,  -- when iDenfy was asked to delete the session; 0: it was not
	done  INTEGER NOT NULL,  -- 0: it is on record, and begun at most
	PRIMARY KEY (life, at)
) STRICT, WITHOUT ROWID;
CREATE INDEX purge_open ON purge (life, at) WHERE done = 0;
CREATE INDEX purge_asked ON purge (asked) WHERE asked > 0;

-- The daily pass.
CREATE TABLE retention (
	only  INTEGER PRIMARY KEY CHECK (only = 1),
	day   TEXT NOT NULL, -- of the last one, by the host's zone: 2026-01-31
	rules TEXT NOT NULL  -- by which it was made
) STRICT;
