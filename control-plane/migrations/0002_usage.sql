-- What was used and what is leased. A subject is `account ID`, `account ID IDENTITY`,
-- `key ACCOUNT ID` or `address PROFILE ADDRESS`. Buckets are numbered from the epoch (UTC).

CREATE TABLE counters (
  subject TEXT NOT NULL,
  bucket_seconds INTEGER NOT NULL,
  bucket INTEGER NOT NULL,
  count INTEGER NOT NULL,
  -- When no window can hold the bucket any more.
  drops_at_ms INTEGER NOT NULL,
  PRIMARY KEY (subject, bucket_seconds, bucket)
) STRICT, WITHOUT ROWID;

CREATE INDEX counters_by_end ON counters (drops_at_ms);

CREATE TABLE daily_counts (
  subject TEXT NOT NULL,
  day INTEGER NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (subject, day)
) STRICT, WITHOUT ROWID;

CREATE INDEX daily_counts_by_age ON daily_counts (day);

-- The highest number is remembered, so that none is given twice.
CREATE TABLE leases (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  subject TEXT NOT NULL,
  holder TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  amount INTEGER NOT NULL,
  spent INTEGER NOT NULL,
  starts_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX leases_by_subject ON leases (subject);
CREATE INDEX leases_by_end ON leases (expires_at_ms);

-- The last call of each holder that was taken in.
CREATE TABLE holders (
  name TEXT PRIMARY KEY,
  sequence INTEGER NOT NULL,
  seen_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Calls per key: hours for some days, days for longer.
CREATE TABLE key_usage (
  account TEXT NOT NULL,
  key TEXT NOT NULL,
  bucket_seconds INTEGER NOT NULL,
  bucket INTEGER NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (account, key, bucket_seconds, bucket)
) STRICT, WITHOUT ROWID;

CREATE INDEX key_usage_by_age ON key_usage (bucket_seconds, bucket);

-- Whose limits to look at again, per change.
CREATE TABLE changed_accounts (
  revision INTEGER NOT NULL REFERENCES changes (revision) ON DELETE CASCADE,
  account TEXT NOT NULL,
  PRIMARY KEY (revision, account)
) STRICT, WITHOUT ROWID;

CREATE TABLE changed_plans (
  revision INTEGER NOT NULL REFERENCES changes (revision) ON DELETE CASCADE,
  plan TEXT NOT NULL,
  PRIMARY KEY (revision, plan)
) STRICT, WITHOUT ROWID;
