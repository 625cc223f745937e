-- What becomes of turns that overlap or were missed (numbers of turns::Overlap and turns::CatchUp), how long after
-- its time a turn's job may end, and what became of the last ones. The defaults are how schedules were before.
ALTER TABLE schedules ADD COLUMN overlap SMALLINT NOT NULL DEFAULT 0;
ALTER TABLE schedules ADD COLUMN catch_up SMALLINT NOT NULL DEFAULT 0;
ALTER TABLE schedules ADD COLUMN turn_deadline_us BIGINT;
ALTER TABLE schedules ADD COLUMN updated_at BIGINT;
ALTER TABLE schedules ADD COLUMN last_scheduled_at BIGINT;
ALTER TABLE schedules ADD COLUMN waiting_turn BIGINT;
-- While paused: the first turn that was missed for it.
ALTER TABLE schedules ADD COLUMN paused_turn BIGINT;
ALTER TABLE schedules ADD COLUMN turns_skipped BIGINT NOT NULL DEFAULT 0;
ALTER TABLE schedules ADD COLUMN last_skipped_at BIGINT;
ALTER TABLE schedules ADD COLUMN last_skip_reason TEXT;
ALTER TABLE schedules ADD COLUMN last_skip_detail TEXT;

CREATE INDEX schedules_waiting ON schedules (waiting_turn) WHERE waiting_turn IS NOT NULL;

-- The time that a job stands for: its turn of the schedule.
ALTER TABLE job_payloads ADD COLUMN scheduled_at BIGINT;
