-- When a token was last used during its grace, as far as filters have told: so that one sees whether clients
-- still send it.
ALTER TABLE tokens ADD COLUMN last_used_at_ms INTEGER;
