-- Work on many jobs that continues without its caller (numbers of operation::Kind and operation::State). `spec` is what
-- was asked for, `progress` how far it is; a process that carries it out holds a claim that it renews.
CREATE TABLE operations (
    id           BYTEA NOT NULL PRIMARY KEY,
    kind         SMALLINT NOT NULL,
    state        SMALLINT NOT NULL,
    cancel_asked SMALLINT NOT NULL DEFAULT 0,
    claim_owner  TEXT,
    claim_until  BIGINT NOT NULL DEFAULT 0,
    created_at   BIGINT NOT NULL,
    spec         TEXT NOT NULL,
    progress     TEXT NOT NULL
);

CREATE INDEX operations_open ON operations (claim_until) WHERE state <= 2;
