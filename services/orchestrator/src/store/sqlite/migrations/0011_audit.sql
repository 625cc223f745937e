-- Who did what. An entry's hash covers all of it, its place in its chain and the hash of the entry before.
CREATE TABLE audit (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    chain       INTEGER NOT NULL,
    place       INTEGER NOT NULL,
    id          TEXT NOT NULL UNIQUE,
    at          INTEGER NOT NULL,
    surface     TEXT NOT NULL,
    principal   TEXT NOT NULL,
    role        TEXT NOT NULL,
    address     TEXT,
    request_id  TEXT,
    operation   TEXT NOT NULL,
    object_kind TEXT NOT NULL,
    object_id   TEXT,
    outcome     TEXT NOT NULL,
    calls       INTEGER NOT NULL,
    detail      TEXT,
    previous    BLOB NOT NULL,
    hash        BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX audit_by_place ON audit (chain, place);

-- The last entry of each chain, and the last that was pruned.
CREATE TABLE audit_chains (
    chain      INTEGER NOT NULL PRIMARY KEY,
    place      INTEGER NOT NULL,
    hash       BLOB NOT NULL,
    base_place INTEGER NOT NULL,
    base_hash  BLOB NOT NULL
) STRICT;

INSERT INTO audit_chains (chain, place, hash, base_place, base_hash) VALUES (0, 0, zeroblob(32), 0, zeroblob(32));

-- The names of tokens; NULL: of the version before, or nobody.
ALTER TABLE jobs ADD COLUMN submitted_by TEXT;
ALTER TABLE jobs ADD COLUMN cancelled_by TEXT;
ALTER TABLE schedules ADD COLUMN created_by TEXT;
ALTER TABLE schedules ADD COLUMN updated_by TEXT;
ALTER TABLE operations ADD COLUMN started_by TEXT;
