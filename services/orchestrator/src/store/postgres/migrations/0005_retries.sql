-- From the moment a job may run to its first deadline, as a retry grants it again. NULL: of the version before.
ALTER TABLE jobs ADD COLUMN lifetime_us BIGINT;
-- Waits between attempts; NULL: the orchestrator's own.
ALTER TABLE jobs ADD COLUMN retry_base_us BIGINT;
ALTER TABLE jobs ADD COLUMN retry_cap_us BIGINT;
-- SHA-256 of what the caller gave; body_hash is what that came to, which the version before compares.
ALTER TABLE jobs ADD COLUMN given_hash BYTEA;
-- The key that the job was submitted with, where another job has it now.
ALTER TABLE jobs ADD COLUMN former_key TEXT;
