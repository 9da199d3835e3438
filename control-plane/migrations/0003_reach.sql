-- Whether a key's rules refuse requests; else what they would refuse is noted and let through.
ALTER TABLE keys ADD COLUMN is_enforced INTEGER NOT NULL DEFAULT 1;

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

INSERT INTO right_usage_start (at_ms) VALUES (CAST(unixepoch('subsec') * 1000 AS INTEGER));
