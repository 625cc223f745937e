-- Queues that are paused: what is accepted for them waits. Without a row a queue runs.
CREATE TABLE queue_pauses (
    mission   TEXT NOT NULL,
    queue     TEXT NOT NULL,
    paused_at INTEGER NOT NULL,
    paused_by TEXT NOT NULL,
    PRIMARY KEY (mission, queue)
) STRICT;
