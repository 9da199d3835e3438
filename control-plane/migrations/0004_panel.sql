-- People who sign in to the panel. The password is an Argon2id hash in PHC form.
CREATE TABLE people (
  id TEXT PRIMARY KEY,
  email TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  password TEXT NOT NULL,
  is_operator INTEGER NOT NULL DEFAULT 0,
  created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE members (
  account TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
  person TEXT NOT NULL REFERENCES people (id) ON DELETE CASCADE,
  role TEXT NOT NULL,
  since_ms INTEGER NOT NULL,
  PRIMARY KEY (account, person)
) STRICT, WITHOUT ROWID;

CREATE INDEX members_by_person ON members (person);

-- By the SHA-256 of what the cookie holds.
CREATE TABLE sessions (
  hash BLOB PRIMARY KEY,
  person TEXT NOT NULL REFERENCES people (id) ON DELETE CASCADE,
  address TEXT NOT NULL,
  agent TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  seen_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_by_person ON sessions (person);

-- One-time links, by the SHA-256 of what they end with. One with an account invites a member, one
-- with a person gives that person a new password, any other makes an operator.
CREATE TABLE links (
  hash BLOB PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  email TEXT,
  account TEXT REFERENCES accounts (id) ON DELETE CASCADE,
  role TEXT,
  person TEXT REFERENCES people (id) ON DELETE CASCADE,
  made_by TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX links_by_account ON links (account);

-- The token, encrypted; where a sealing key is configured.
ALTER TABLE tokens ADD COLUMN sealed BLOB;

-- The key that a key was made to replace.
ALTER TABLE keys ADD COLUMN replaces TEXT;

CREATE INDEX audit_by_actor ON audit (actor, id);
