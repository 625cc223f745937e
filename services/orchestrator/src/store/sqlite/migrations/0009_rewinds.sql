-- How often a schedule was planned again because the clock was set back: its turns come a second time, under keys
-- of their own.
ALTER TABLE schedules ADD COLUMN rewinds INTEGER NOT NULL DEFAULT 0;
