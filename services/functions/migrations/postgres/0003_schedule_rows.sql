-- Each schedule of a trigger has a row: nodes may have different ones in force for a while.
ALTER TABLE schedules DROP CONSTRAINT schedules_pkey;
ALTER TABLE schedules ADD PRIMARY KEY (project, trigger_id, schedule);
-- A number that nodes raise which have the schedule in force.
ALTER TABLE schedules ADD COLUMN beat BIGINT NOT NULL DEFAULT 0;
