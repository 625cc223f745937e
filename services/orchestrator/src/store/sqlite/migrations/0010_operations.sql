-- Work on many jobs that continues without its caller (numbers of operation::Kind and operation::State). `spec` is what
-- was asked for, `progress` how far it is; a process that carries it out holds a claim that it renews.
CREATE TABLE operations (
    id           BLOB NOT NULL PRIMARY KEY,
    kind         INTEGER NOT NULL,
    state        INTEGER NOT NULL,
    cancel_asked INTEGER NOT NULL DEFAULT 0,
    claim_owner  TEXT,
    claim_until  INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    spec         TEXT NOT NULL,
    progress     TEXT NOT NULL
) STRICT;

CREATE INDEX operations_open ON operations (claim_until) WHERE state <= 2;
