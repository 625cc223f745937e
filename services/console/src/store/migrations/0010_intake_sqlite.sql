-- The intake board. Times are microseconds since 1970, states are numbers of intake::item::Status; ids are UUIDs of
-- version 7 as text, so that their order is that of their making. `tags` is a JSON list; intake_tags is for looking them
-- up. An owner that is empty is none.
CREATE TABLE intake_items (
    id         TEXT NOT NULL PRIMARY KEY,
    text       TEXT NOT NULL,
    problem    TEXT,
    hypothesis TEXT,
    tags       TEXT NOT NULL DEFAULT '[]',
    owner      TEXT NOT NULL DEFAULT '',
    impact     INTEGER,
    status     INTEGER NOT NULL,
    job_id     TEXT,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER,
    version    INTEGER NOT NULL DEFAULT 1
) STRICT, WITHOUT ROWID;

CREATE INDEX intake_items_owner ON intake_items (owner, id);
CREATE INDEX intake_items_status ON intake_items (status, id);

CREATE TABLE intake_tags (
    tag     TEXT NOT NULL,
    item_id TEXT NOT NULL,
    PRIMARY KEY (tag, item_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX intake_tags_item ON intake_tags (item_id);

-- The same submission sent again is the same item, while that exists.
CREATE TABLE intake_keys (
    maker   TEXT NOT NULL,
    key     TEXT NOT NULL,
    item_id TEXT NOT NULL,
    PRIMARY KEY (maker, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX intake_keys_item ON intake_keys (item_id);

-- Events of changes that the stream does not have yet, in the order of the commits.
CREATE TABLE intake_outbox (
    sequence INTEGER NOT NULL PRIMARY KEY,
    event_id TEXT NOT NULL,
    body     TEXT NOT NULL
) STRICT;

-- `sequence` is the number of the last event, `items` how many items there are.
CREATE TABLE intake_counters (
    name  TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO intake_counters (name, value) VALUES ('sequence', 0), ('items', 0);
