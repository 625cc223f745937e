-- What listings walk along, newest first. None of these columns changes while a job goes from accepted to queued to
-- succeeded, but for finished_at at its end.

-- The states that few jobs are in: running (3), and the ends without success (from 5 on). A column of its own, because an
-- index that names the state would be written at each change of it.
ALTER TABLE jobs ADD COLUMN listed SMALLINT GENERATED ALWAYS AS (CASE WHEN state = 3 OR state >= 5 THEN state END) STORED;
CREATE INDEX jobs_listed ON jobs (listed, seq) WHERE listed IS NOT NULL;
-- Who asked for what, and where: never changes.
CREATE INDEX jobs_kinds ON jobs (mission, queue, tool, submitted_by NULLS FIRST, seq);
-- Times by blocks of 4,096 row numbers: rows are nearly in the order of their times, but only nearly, and a block without
-- a time that is asked for is passed over in one step.
CREATE INDEX jobs_created_blocks ON jobs ((seq >> 12), created_at, seq);
CREATE INDEX jobs_finished_blocks ON jobs ((seq >> 12), finished_at, seq) WHERE finished_at IS NOT NULL;

-- Labels, a row each. Triggers write them, so that the version before does too; a job without labels does not pay.
CREATE TABLE job_labels (
    key   TEXT   NOT NULL,
    value TEXT   NOT NULL,
    seq   BIGINT NOT NULL,
    PRIMARY KEY (key, value, seq)
);

INSERT INTO job_labels (key, value, seq)
    SELECT l.key, l.value, j.seq FROM jobs AS j, json_each_text(j.labels::json) AS l WHERE j.labels IS NOT NULL;

CREATE FUNCTION jobs_note_labels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO job_labels (key, value, seq) SELECT l.key, l.value, NEW.seq FROM json_each_text(NEW.labels::json) AS l;
    ELSE
        DELETE FROM job_labels AS l USING json_each_text(OLD.labels::json) AS o
            WHERE l.key = o.key AND l.value = o.value AND l.seq = OLD.seq;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER jobs_labelled AFTER INSERT ON jobs
    FOR EACH ROW WHEN (NEW.labels IS NOT NULL) EXECUTE FUNCTION jobs_note_labels();
CREATE TRIGGER jobs_unlabelled AFTER DELETE ON jobs
    FOR EACH ROW WHEN (OLD.labels IS NOT NULL) EXECUTE FUNCTION jobs_note_labels();
