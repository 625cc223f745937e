-- The X-Request-ID of a job's submission, which its messages carry.
ALTER TABLE job_payloads ADD COLUMN request_id TEXT;
