-- How far a worker's clock is ahead of the orchestrator's, microseconds.
ALTER TABLE agents ADD COLUMN clock_skew_us INTEGER;
