-- Version 7: several inboxes.

-- The name of the inbox that a folder came from; empty: of none, as far as is known. Those of before came from the only one.
ALTER TABLE life ADD COLUMN inbox TEXT NOT NULL DEFAULT 'inbox';
CREATE INDEX life_inbox ON life (inbox, claimed, id) WHERE inbox <> 'inbox';
