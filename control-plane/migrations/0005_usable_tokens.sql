-- What filters know of each token, in the order in which they take it in: a snapshot is read from one
-- end to the other, however many keys there are. Kept with every change; what a token stands for is said
-- by `tokens` and `keys`.
CREATE TABLE usable_tokens (
  profile TEXT NOT NULL,
  hash BLOB NOT NULL,
  key TEXT NOT NULL,
  kind TEXT NOT NULL,
  account TEXT NOT NULL,
  rules TEXT NOT NULL,
  allowed_networks TEXT NOT NULL,
  limits TEXT NOT NULL,
  -- When its key expires or its own grace ends, whichever comes first.
  ends_at_ms INTEGER,
  is_enforced INTEGER NOT NULL,
  PRIMARY KEY (profile, hash)
) STRICT, WITHOUT ROWID;

INSERT INTO usable_tokens
SELECT accounts.profile, tokens.hash, keys.id, keys.kind, keys.account, keys.rules,
       keys.allowed_networks, keys.limits,
       CASE
         WHEN tokens.grace_ends_at_ms IS NULL THEN keys.expires_at_ms
         WHEN keys.expires_at_ms IS NULL THEN tokens.grace_ends_at_ms
         ELSE min(tokens.grace_ends_at_ms, keys.expires_at_ms)
       END,
       keys.is_enforced
FROM tokens
JOIN keys ON keys.id = tokens.key
JOIN accounts ON accounts.id = keys.account
WHERE keys.revoked_at_ms IS NULL AND NOT keys.is_suspended;

CREATE INDEX accounts_by_profile ON accounts (profile, id);
