-- Version 6: verdicts.

-- What iDenfy said of its sessions, one row a webhook or an answer to a status request, in the order in which they came.
CREATE TABLE event (
	n        INTEGER PRIMARY KEY,
	sum      TEXT NOT NULL UNIQUE, -- SHA-256 of the body, hex: the same body twice is one event
	at       INTEGER NOT NULL,     -- when it came
	scan_ref TEXT,                 -- NULL: it could not be read
	overall  TEXT NOT NULL,        -- iDenfy's word; empty: it has none
	final    INTEGER NOT NULL,     -- 1: nothing more is to come
	said     TEXT NOT NULL,        -- as it stands in verdict.json
	body     BLOB,                 -- until it is in the folder; NULL: it is not kept
	joined   INTEGER NOT NULL      -- 1: there is a folder of that session; it stays. 0: it is kept for a while
) STRICT;
CREATE INDEX event_scan_ref ON event (scan_ref, n) WHERE scan_ref IS NOT NULL;
CREATE INDEX event_stray ON event (at) WHERE joined = 0;

-- One row a session of a folder that was taken, or of which something was said.
CREATE TABLE verdict (
	scan_ref TEXT PRIMARY KEY NOT NULL,
	life     TEXT NOT NULL,    -- whose it is
	overall  TEXT NOT NULL,    -- of the newest final event, else of the newest; empty: nothing was said
	final    INTEGER NOT NULL,
	clash    INTEGER NOT NULL, -- 1: two final events have different words
	newest   INTEGER NOT NULL, -- event
	written  INTEGER NOT NULL, -- up to which event verdict.json has them
	met      INTEGER NOT NULL DEFAULT 0, -- how often a folder came to its place since something was said
	told     INTEGER NOT NULL, -- up to which event they were reported
	accepted INTEGER NOT NULL, -- when its folder was taken by iDenfy; 0: it wasn't, as far as is known
	asked    INTEGER NOT NULL, -- status requests that were made
	due      INTEGER NOT NULL  -- of the next one, of which there are three at most; before the first: when the folder was taken; 0: never
) STRICT, WITHOUT ROWID;
CREATE INDEX verdict_unwritten ON verdict (scan_ref) WHERE written < newest;
CREATE INDEX verdict_due ON verdict (asked, due) WHERE final = 0 AND due > 0;
CREATE INDEX verdict_waiting ON verdict (accepted) WHERE final = 0 AND accepted > 0;
CREATE INDEX verdict_word ON verdict (overall) WHERE final = 1;
CREATE INDEX verdict_clash ON verdict (scan_ref) WHERE clash = 1;

-- The verdict of what was accepted of late, before there was this table, is to come as well.
-- Where it is certain whose that is, see reference.go. (id is that of the row with the maximum.)
INSERT INTO verdict (scan_ref, life, overall, final, clash, newest, written, told, accepted, asked, due)
	SELECT scan_ref, id, '', 0, 0, 0, 0, 0, max(ended), 0, max(ended) FROM life
	WHERE fate = 'taken' AND scan_ref IS NOT NULL AND scan_ref <> '' AND ended >= 1000 * (unixepoch() - 72 * 3600)
		AND (EXISTS (SELECT 1 FROM session WHERE session.scan_ref = life.scan_ref AND session.life = life.id)
			OR NOT EXISTS (SELECT 1 FROM session WHERE session.scan_ref = life.scan_ref)
			AND NOT EXISTS (SELECT 1 FROM life AS other WHERE other.scan_ref = life.scan_ref AND other.token IS NOT life.token))
	GROUP BY scan_ref;
