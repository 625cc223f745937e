-- What listings walk along, newest first. None of these indexes moves while a job goes from accepted to queued to
-- succeeded, but for jobs_finished_blocks at its end.

-- Jobs in the states that few are in: running (3), and the ends without success (from 5 on).
CREATE INDEX jobs_listed ON jobs (state) WHERE state = 3 OR state >= 5;
-- Who asked for what, and where: never changes.
CREATE INDEX jobs_kinds ON jobs (mission, queue, tool, submitted_by);
-- Times by blocks of 4,096 row numbers: rows are nearly in the order of their times, but only nearly, and a block without
-- a time that is asked for is passed over in one step.
CREATE INDEX jobs_created_blocks ON jobs ((seq >> 12), created_at);
CREATE INDEX jobs_finished_blocks ON jobs ((seq >> 12), finished_at) WHERE finished_at IS NOT NULL;

-- Labels, a row each. The orchestrator writes them with their job; what the version before stored without them is found
-- by the index at the next start. A job without labels does not pay.
CREATE TABLE job_labels (
    key   TEXT    NOT NULL,
    value TEXT    NOT NULL,
    seq   INTEGER NOT NULL,
    PRIMARY KEY (key, value, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX jobs_labelled ON jobs (seq) WHERE labels IS NOT NULL;

INSERT INTO job_labels (key, value, seq)
    SELECT l.key, l.value, j.seq FROM jobs AS j, json_each(j.labels) AS l WHERE j.labels IS NOT NULL ORDER BY 1, 2, 3;

CREATE TRIGGER jobs_unlabelled AFTER DELETE ON jobs WHEN OLD.labels IS NOT NULL
BEGIN
    DELETE FROM job_labels WHERE (key, value, seq) IN (SELECT key, value, OLD.seq FROM json_each(OLD.labels));
END;
