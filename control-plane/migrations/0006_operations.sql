-- Where an account's usage has begun anew, the audit entry with which it did; tells its limits apart from
-- those of a former account of its id.
ALTER TABLE accounts ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;

-- Tokens of a suspended account are refused until it is resumed.
ALTER TABLE accounts ADD COLUMN is_suspended INTEGER NOT NULL DEFAULT 0;

-- How many calls a holder may report beside its leases, and for keys, before it is heard of again.
ALTER TABLE holders ADD COLUMN credit_room INTEGER NOT NULL DEFAULT 10000;
ALTER TABLE holders ADD COLUMN usage_room INTEGER NOT NULL DEFAULT 1000000;

-- Up to when it is certain that time has come: nothing is dropped that a window may hold after that. Where
-- the system's clock is far ahead of it, since which of that clock's moments it has been.
CREATE TABLE certain_time (
  at_ms INTEGER NOT NULL,
  ahead_since_ms INTEGER
) STRICT;

INSERT INTO certain_time (at_ms) VALUES (CAST(unixepoch('subsec') * 1000 AS INTEGER));

-- Browsers, by the SHA-256 of what their cookie holds, and networks from which people have signed in.
CREATE TABLE familiar_places (
  person TEXT NOT NULL REFERENCES people (id) ON DELETE CASCADE,
  hash BLOB NOT NULL,
  seen_at_ms INTEGER NOT NULL,
  PRIMARY KEY (person, hash)
) STRICT, WITHOUT ROWID;

-- Counts up to see whether writes reach the disk.
CREATE TABLE looks (number INTEGER NOT NULL) STRICT;

INSERT INTO looks (number) VALUES (0);

-- Answers to requests with a name of their client's, by the hash of that; encrypted with what the client knows.
CREATE TABLE answers (
  name BLOB PRIMARY KEY,
  content BLOB NOT NULL,
  at_ms INTEGER NOT NULL,
  answer BLOB
) STRICT, WITHOUT ROWID;

CREATE INDEX answers_by_age ON answers (at_ms);
