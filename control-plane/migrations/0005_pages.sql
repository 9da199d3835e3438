-- The profile of a token's account, which never changes: filters read all tokens of a profile in the
-- order of their hashes, page by page, however many others there are.
ALTER TABLE tokens ADD COLUMN profile TEXT NOT NULL DEFAULT '';

UPDATE tokens SET profile = (
  SELECT accounts.profile FROM keys JOIN accounts ON accounts.id = keys.account
  WHERE keys.id = tokens.key
);

CREATE INDEX tokens_by_profile ON tokens (profile, hash);

CREATE INDEX accounts_by_profile ON accounts (profile, id);
