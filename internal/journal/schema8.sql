-- Version 8: receipts, by which the uploaders of folders are told.

-- Inboxes that have receipts.
CREATE TABLE receiver (
	inbox   TEXT PRIMARY KEY NOT NULL,
	verdict INTEGER NOT NULL  -- 1: verdicts are told as well
) STRICT, WITHOUT ROWID;

-- One row a receipt. Only what happened since the inbox has receipts makes one.
CREATE TABLE receipt (
	inbox   TEXT NOT NULL,
	folder  TEXT NOT NULL,     -- name that the uploader gave it, as it may be shown
	life    TEXT NOT NULL,     -- the newest one that it is about; empty: none yet
	earlier TEXT NOT NULL,     -- ids of those before, the newest first, with spaces between; at most 20
	older   INTEGER NOT NULL,  -- how many there were before these
	waits   TEXT,              -- JSON: what the folder of that name that lies in the inbox waits for; NULL: none is known that waits
	seen    INTEGER NOT NULL,  -- when that folder was seen first
	due     INTEGER NOT NULL,  -- goes up when there is something to tell
	told    INTEGER NOT NULL,  -- up to which of these the receipt has it
	at      INTEGER NOT NULL,  -- when it was written last; 0: never
	PRIMARY KEY (inbox, folder)
) STRICT, WITHOUT ROWID;
CREATE INDEX receipt_due ON receipt (inbox, folder) WHERE told < due;
CREATE INDEX receipt_waits ON receipt (inbox, folder) WHERE waits IS NOT NULL;
