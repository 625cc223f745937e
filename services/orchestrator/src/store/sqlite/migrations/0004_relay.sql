-- Messages of the outbox that NATS can never take, with the reason. Bounded; an operator retries or discards.
CREATE TABLE outbox_parked (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at INTEGER NOT NULL,
    parked_at  INTEGER NOT NULL,
    subject    TEXT    NOT NULL,
    msg_id     TEXT    NOT NULL,
    code       TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    payload    BLOB    NOT NULL
) STRICT;

-- Jobs are claimed queue by queue, so that one that cannot leave is passed over without a look at its rows.
DROP INDEX jobs_claimable;
CREATE INDEX jobs_due ON jobs (queue, claimable_at, seq) WHERE claimable_at IS NOT NULL;
