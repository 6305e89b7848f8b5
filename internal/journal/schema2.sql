-- Version 2.

-- The account's gate, while it is shut.
CREATE TABLE gate (
	owner   TEXT PRIMARY KEY,  -- account; the disk's can't be kept where the disk is at fault
	reason  TEXT NOT NULL,
	mend    TEXT NOT NULL,     -- what a person can do
	since   INTEGER NOT NULL,
	until   INTEGER NOT NULL,  -- of the next try
	asked   INTEGER NOT NULL,  -- milliseconds that the service wanted to be left alone
	tries   INTEGER NOT NULL,  -- that failed
	refusal TEXT NOT NULL      -- identifier and message that everybody met, or empty
) STRICT;

-- How many lie in each place, and what the API said last, without a scan of all
-- lives.
CREATE INDEX life_place ON life (place) WHERE state = 'filed';
CREATE INDEX life_answered ON life (ended) WHERE outcome IN ('accepted', 'rejected') AND took = 1;
