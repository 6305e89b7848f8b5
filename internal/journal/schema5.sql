-- Version 5: sessions that the daemon opens.

-- Of a life for which the daemon opens the session: the clientId, and the SHA-256, in hex, of it and the images, by which the same
-- again is known.
ALTER TABLE life ADD COLUMN client_id TEXT;
ALTER TABLE life ADD COLUMN content TEXT;
CREATE INDEX life_client ON life (client_id, claimed, id) WHERE client_id IS NOT NULL;
CREATE INDEX life_content ON life (content) WHERE content IS NOT NULL;

-- Tries at opening a session.
CREATE TABLE session (
	life        TEXT NOT NULL REFERENCES life (id),
	n           INTEGER NOT NULL,
	after       INTEGER NOT NULL,  -- the attempt that came before; 0: none
	started     INTEGER NOT NULL,
	finished    INTEGER NOT NULL,  -- 0: not yet
	state       TEXT NOT NULL,     -- as of an attempt
	http_status INTEGER NOT NULL,
	identifier  TEXT NOT NULL,
	message     TEXT NOT NULL,
	duration_ms INTEGER NOT NULL,
	retry_after INTEGER NOT NULL,  -- seconds
	scan_ref    TEXT,              -- of the session that was opened
	PRIMARY KEY (life, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX session_started ON session (started);
CREATE INDEX session_scan_ref ON session (scan_ref) WHERE scan_ref IS NOT NULL;
