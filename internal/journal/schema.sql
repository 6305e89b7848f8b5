-- Version 1; what later ones add is in schema2.sql and so on. Times are milliseconds since 1970, UTC. Folder names stand as
-- they may be shown; tokens by their SHA-256 only.

CREATE TABLE journal (
	only    INTEGER PRIMARY KEY CHECK (only = 1),
	id      TEXT NOT NULL,    -- of this journal, see the mark
	seq     INTEGER NOT NULL, -- commits so far
	adopted INTEGER NOT NULL  -- 1: what lay in the spool when it was made is in it
) STRICT;

-- One row a life: from a folder's claim to its end. A folder that comes again
-- begins another life of the same case.
CREATE TABLE life (
	id       TEXT PRIMARY KEY,
	kase     INTEGER NOT NULL,                 -- lives with one number are lives of one folder, or of one token
	state    TEXT NOT NULL,                    -- claimed, pending, ended, filed
	outcome  TEXT NOT NULL,                    -- as in result.json
	fate     TEXT NOT NULL,                    -- unsent, refused, unsettled, taken: of what was sent in this life
	took     INTEGER NOT NULL,                 -- 1: it was allowed to send
	forced   INTEGER NOT NULL,                 -- 1: because a person forced it
	folder   TEXT NOT NULL,                    -- name that it was dropped with
	token    TEXT,                             -- SHA-256, hex
	scan_ref TEXT,
	dir      TEXT,                             -- the directory itself, wherever it lies: inode and time of birth
	place    TEXT NOT NULL,                    -- where it lies, or is to lie
	name     TEXT NOT NULL,                    -- its name there, or that it is to have if it is free
	attempts INTEGER NOT NULL,                 -- all of them; the rows of the middle ones are folded away
	charged  INTEGER NOT NULL,                 -- of these, failures of its own
	spent_ms INTEGER NOT NULL,                 -- time that it was tried for in vain
	claimed  INTEGER NOT NULL,
	ended    INTEGER NOT NULL,                 -- 0: not yet
	record   TEXT NOT NULL                     -- the rest of result.json
) STRICT, WITHOUT ROWID;
CREATE INDEX life_kase ON life (kase);
CREATE INDEX life_token ON life (token) WHERE token IS NOT NULL;
CREATE INDEX life_dir ON life (dir) WHERE dir IS NOT NULL;
CREATE INDEX life_scan_ref ON life (scan_ref) WHERE scan_ref IS NOT NULL;
CREATE INDEX life_work ON life (state) WHERE state <> 'filed';

CREATE TABLE attempt (
	life        TEXT NOT NULL REFERENCES life (id),
	n           INTEGER NOT NULL,
	started     INTEGER NOT NULL,
	finished    INTEGER NOT NULL,  -- 0: not yet
	state       TEXT NOT NULL,
	http_status INTEGER NOT NULL,
	identifier  TEXT NOT NULL,
	message     TEXT NOT NULL,
	duration_ms INTEGER NOT NULL,
	retry_after INTEGER NOT NULL,  -- seconds
	PRIMARY KEY (life, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempt_started ON attempt (started);

CREATE TABLE decision (
	n       INTEGER PRIMARY KEY,
	kase    INTEGER NOT NULL,
	life    TEXT NOT NULL,
	at      INTEGER NOT NULL,
	action  TEXT NOT NULL,
	forced  INTEGER NOT NULL,
	outcome TEXT NOT NULL,          -- that the life had ended with
	person  TEXT NOT NULL,          -- JSON, as in result.json
	comment TEXT NOT NULL,
	used    TEXT                    -- what it let be sent, or why it lets nothing
) STRICT;
CREATE INDEX decision_kase ON decision (kase);
