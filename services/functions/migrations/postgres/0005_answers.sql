-- How many events may still follow from it.
ALTER TABLE events ADD COLUMN budget BIGINT NOT NULL DEFAULT 1000;
-- 1 where somebody waits for its answer, and the response in that, JSON.
ALTER TABLE events ADD COLUMN awaited BIGINT NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN response BYTEA;
-- The ids of events that were waited for, with commas between.
ALTER TABLE queue_requests ADD COLUMN awaited TEXT NOT NULL DEFAULT '';
