
-- Version 3: what people look for, see query.go.

CREATE INDEX life_claimed ON life (claimed, place, outcome);
CREATE INDEX life_folder ON life (folder);
CREATE INDEX life_renamed ON life (name) WHERE name <> folder AND name <> '';
