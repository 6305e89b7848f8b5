-- Version 7.
ALTER TABLE life ADD COLUMN inbox TEXT;
