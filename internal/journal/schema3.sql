
-- Version 3. The table of lives with a rowid: its rows are too large for the
-- other kind (sqlite.org, "Clustered Indexes and the WITHOUT ROWID
-- Optimization"), with which it takes twice the space, and reading a row ten
-- times as long. The columns are as they were.

CREATE TABLE life3 (
	id       TEXT PRIMARY KEY NOT NULL,
	kase     INTEGER NOT NULL,
	state    TEXT NOT NULL,
	outcome  TEXT NOT NULL,
	fate     TEXT NOT NULL,
	took     INTEGER NOT NULL,
	forced   INTEGER NOT NULL,
	folder   TEXT NOT NULL,
	token    TEXT,
	scan_ref TEXT,
	dir      TEXT,
	place    TEXT NOT NULL,
	name     TEXT NOT NULL,
	attempts INTEGER NOT NULL,
	charged  INTEGER NOT NULL,
	spent_ms INTEGER NOT NULL,
	claimed  INTEGER NOT NULL,
	ended    INTEGER NOT NULL,
	record   TEXT NOT NULL
) STRICT;
INSERT INTO life3 SELECT id, kase, state, outcome, fate, took, forced, folder, token, scan_ref, dir, place, name, attempts, charged, spent_ms, claimed, ended, record FROM life;
DROP TABLE life;
ALTER TABLE life3 RENAME TO life;

-- All indexes of earlier versions, which went with the table; and with the time, for what asks for the newest, see query.go.
CREATE INDEX life_kase ON life (kase, claimed, id);
CREATE INDEX life_token ON life (token) WHERE token IS NOT NULL;
CREATE INDEX life_dir ON life (dir, claimed, id) WHERE dir IS NOT NULL;
CREATE INDEX life_scan_ref ON life (scan_ref) WHERE scan_ref IS NOT NULL;
CREATE INDEX life_work ON life (state) WHERE state <> 'filed';
CREATE INDEX life_place ON life (place) WHERE state = 'filed';
CREATE INDEX life_answered ON life (ended) WHERE outcome IN ('accepted', 'rejected') AND took = 1;

-- What people look for, see query.go.
CREATE INDEX life_claimed ON life (claimed, place, outcome);
CREATE INDEX life_folder ON life (folder, kase, claimed, id);
CREATE INDEX life_dirless ON life (folder, kase, claimed, id) WHERE dir IS NULL;
CREATE INDEX life_renamed ON life (name) WHERE name <> folder AND name <> '';
