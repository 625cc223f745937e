-- Until when a row with several messages is claimed; claim_until is then a moment that never comes, as the version before
-- reads it and would take the row for one message.
ALTER TABLE outbox ADD COLUMN group_until INTEGER;
