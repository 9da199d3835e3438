-- Whether a key's rules refuse requests; else what they would refuse is noted and let through.
ALTER TABLE keys ADD COLUMN is_enforced INTEGER NOT NULL DEFAULT 1;

-- When a key's rules were last changed, where that was after it was made.
ALTER TABLE keys ADD COLUMN rules_changed_at_ms INTEGER;

-- When each right of a key was last needed.
CREATE TABLE right_usage (
  account TEXT NOT NULL,
  key TEXT NOT NULL,
  right TEXT NOT NULL,
  last_used_at_ms INTEGER NOT NULL,
  PRIMARY KEY (account, key, right)
) STRICT, WITHOUT ROWID;

CREATE INDEX right_usage_by_age ON right_usage (last_used_at_ms);

-- Since when that is known.
CREATE TABLE right_usage_start (
  at_ms INTEGER NOT NULL
) STRICT;

-- Filters have not been told the resources of accounts. A history that begins here makes each of them
-- ask for a snapshot.
INSERT INTO changes (revision, mark, at_ms)
SELECT max(revision) + 1, random(), CAST(unixepoch('subsec') * 1000 AS INTEGER) FROM changes;

DELETE FROM changes WHERE revision < (SELECT max(revision) FROM changes);

INSERT INTO right_usage_start (at_ms) VALUES (CAST(unixepoch('subsec') * 1000 AS INTEGER));
