-- Times are milliseconds since the epoch (UTC). Lists and maps are JSON.

CREATE TABLE plans (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  limits TEXT NOT NULL,
  max_user_keys INTEGER NOT NULL
) STRICT;

-- Profiles whose plans were put in; a plan that is then removed does not come back.
CREATE TABLE installed_profiles (
  name TEXT PRIMARY KEY
) STRICT;

CREATE TABLE accounts (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  plan TEXT NOT NULL REFERENCES plans (id),
  profile TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX accounts_by_plan ON accounts (plan);

CREATE TABLE resources (
  account TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  relations TEXT NOT NULL,
  PRIMARY KEY (account, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  account TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  rules TEXT NOT NULL,
  environment TEXT,
  note TEXT,
  allowed_networks TEXT NOT NULL,
  limits TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER,
  is_suspended INTEGER NOT NULL DEFAULT 0,
  revoked_at_ms INTEGER,
  last_used_at_ms INTEGER
) STRICT;

CREATE INDEX keys_by_account ON keys (account, sequence);

-- A key has one token, and during the grace after a regeneration the one before it as well.
CREATE TABLE tokens (
  hash BLOB PRIMARY KEY,
  key TEXT NOT NULL REFERENCES keys (id) ON DELETE CASCADE,
  hint TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  grace_ends_at_ms INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX tokens_by_key ON tokens (key);

-- The change log: each change has the next revision and random bits that no other log has there.
CREATE TABLE changes (
  revision INTEGER PRIMARY KEY,
  mark INTEGER NOT NULL,
  at_ms INTEGER NOT NULL
) STRICT;

INSERT INTO changes (revision, mark, at_ms)
VALUES (0, random(), CAST(unixepoch('subsec') * 1000 AS INTEGER));

-- Which tokens to look at again, per change.
CREATE TABLE changed_tokens (
  revision INTEGER NOT NULL REFERENCES changes (revision) ON DELETE CASCADE,
  profile TEXT NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (revision, profile, hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms INTEGER NOT NULL,
  actor TEXT NOT NULL,
  origin TEXT NOT NULL,
  account TEXT,
  action TEXT NOT NULL,
  subject TEXT NOT NULL,
  details TEXT NOT NULL
) STRICT;

CREATE INDEX audit_by_account ON audit (account, id);

CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

CREATE TRIGGER audit_is_never_removed BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
