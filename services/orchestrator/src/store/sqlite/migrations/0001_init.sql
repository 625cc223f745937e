-- Times are microseconds since 1970, ids 16 bytes, states the numbers of model::State.
--
-- A column that a timer waits on (claimable_at, expires_at, checked_at, finished_at) is NULL while
-- that timer does not run, and its index is partial: a job stands in two or three small indexes at
-- a time, and an update that leaves such a column alone leaves its index alone.

-- Narrow and updated in place: a job's text that never changes is in job_payloads.
CREATE TABLE jobs (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    id              BLOB    NOT NULL UNIQUE,
    state           INTEGER NOT NULL,
    attempt         INTEGER NOT NULL,
    attempt_limit   INTEGER NOT NULL,
    max_attempts    INTEGER NOT NULL,
    version         INTEGER NOT NULL,
    republished     INTEGER NOT NULL,
    stream_seq      INTEGER,
    created_at      INTEGER NOT NULL,
    available_at    INTEGER NOT NULL,
    -- While accepted: when the next claim may be made; that is available_at, or the end of a claim.
    claimable_at    INTEGER,
    claim_owner     TEXT,
    deadline        INTEGER,
    -- While open: the deadline.
    expires_at      INTEGER,
    -- While queued or running: when it was last looked at.
    checked_at      INTEGER,
    queued_at       INTEGER,
    started_at      INTEGER,
    finished_at     INTEGER,
    mission         TEXT    NOT NULL,
    queue           TEXT    NOT NULL,
    tool            TEXT    NOT NULL,
    worker          TEXT,
    labels          TEXT,
    idempotency_key TEXT,
    body_hash       BLOB,
    error_class     TEXT,
    error_message   TEXT,
    error_log       TEXT
) STRICT;

CREATE UNIQUE INDEX jobs_by_key ON jobs (mission, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_claimable ON jobs (claimable_at, seq) WHERE claimable_at IS NOT NULL;
CREATE INDEX jobs_expiring ON jobs (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX jobs_checked ON jobs (checked_at) WHERE checked_at IS NOT NULL;
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;

-- Written once: a change to a job never rewrites a mebibyte of arguments.
CREATE TABLE job_payloads (
    seq         INTEGER PRIMARY KEY,
    timeout_us  INTEGER NOT NULL,
    run_at      INTEGER,
    reuse       INTEGER NOT NULL,
    task        TEXT,
    schedule_id BLOB,
    traceparent TEXT,
    args        TEXT    NOT NULL
) STRICT;

-- One committed result for a job: the key says so.
CREATE TABLE job_results (
    seq        INTEGER PRIMARY KEY,
    output_ref TEXT,
    replay_of  BLOB,
    output     TEXT
) STRICT;

CREATE TABLE job_attempts (
    seq           INTEGER NOT NULL,
    attempt       INTEGER NOT NULL,
    outcome       TEXT    NOT NULL,
    delivery      INTEGER NOT NULL,
    started_at    INTEGER,
    finished_at   INTEGER NOT NULL,
    retry_at      INTEGER,
    worker        TEXT,
    error_class   TEXT,
    error_message TEXT,
    error_log     TEXT,
    PRIMARY KEY (seq, attempt)
) STRICT, WITHOUT ROWID;

-- Messages that wait for their PubAck. claim_until is 0 while nobody publishes the row.
CREATE TABLE outbox (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    claim_until INTEGER NOT NULL,
    claim_owner TEXT,
    created_at  INTEGER NOT NULL,
    subject     TEXT    NOT NULL,
    msg_id      TEXT    NOT NULL,
    payload     BLOB    NOT NULL
) STRICT;

CREATE TABLE dead_letters (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT    NOT NULL UNIQUE,
    job_id        BLOB,
    mission       TEXT    NOT NULL,
    queue         TEXT    NOT NULL,
    tool          TEXT    NOT NULL,
    reason        TEXT    NOT NULL,
    created_at    INTEGER NOT NULL,
    redriven_at   INTEGER,
    error_class   TEXT    NOT NULL,
    error_message TEXT    NOT NULL,
    error_log     TEXT    NOT NULL
) STRICT;

CREATE INDEX dead_letters_by_job ON dead_letters (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX dead_letters_without_job ON dead_letters (created_at) WHERE job_id IS NULL;

CREATE TABLE schedules (
    id          BLOB    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    cron        TEXT    NOT NULL,
    time_zone   TEXT    NOT NULL,
    template    TEXT    NOT NULL,
    paused      INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    last_run_at INTEGER,
    last_job_id BLOB,
    next_run_at INTEGER
) STRICT;

CREATE INDEX schedules_due ON schedules (next_run_at) WHERE next_run_at IS NOT NULL;

CREATE TABLE agents (
    id                     TEXT    NOT NULL PRIMARY KEY,
    mission                TEXT    NOT NULL,
    site                   TEXT    NOT NULL,
    host                   TEXT    NOT NULL,
    version                TEXT    NOT NULL,
    tools                  TEXT    NOT NULL,
    queues                 TEXT    NOT NULL,
    capacity               INTEGER NOT NULL,
    inflight               INTEGER NOT NULL,
    interval_us            INTEGER NOT NULL,
    has_left               INTEGER NOT NULL,
    first_seen_at          INTEGER NOT NULL,
    last_seen_at           INTEGER NOT NULL,
    certificate_expires_at INTEGER
) STRICT;
