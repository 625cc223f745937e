-- What the commands of a worker's tools file are not confined by, as words; NULL without such commands.
ALTER TABLE agents ADD COLUMN unconfined TEXT;
