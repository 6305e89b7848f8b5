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

-- Before, only the folder that met it waited for a Retry-After. What is left of
-- the newest is the account's, unless the service took a folder since.
INSERT INTO gate
	SELECT 'account', 'iDenfy takes no more requests for now: HTTP 429', 'it passes; if it comes often, lower rate in the configuration, or have iDenfy raise the account''s limit',
		finished, finished + 1000 * retry_after, 1000 * retry_after, 1, ''
	FROM attempt AS a
	WHERE http_status = 429 AND retry_after > 0 AND finished + 1000 * retry_after > 1000 * unixepoch()
		AND NOT EXISTS (SELECT 1 FROM attempt WHERE http_status = 200 AND started > a.started)
	ORDER BY started DESC LIMIT 1;

-- How many lie in each place, and what the API said last, without a scan of all
-- lives.
CREATE INDEX life_place ON life (place) WHERE state = 'filed';
CREATE INDEX life_answered ON life (ended) WHERE outcome IN ('accepted', 'rejected') AND took = 1;
