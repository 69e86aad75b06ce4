-- Each schedule of a trigger has a row: nodes may have different ones in force for a while.
CREATE TABLE schedule_rows (
    project TEXT NOT NULL,
    trigger_id TEXT NOT NULL,
    -- The schedule that this was decided by: another one begins anew.
    schedule TEXT NOT NULL,
    -- Null: never again.
    due_ms INTEGER,
    -- A number that nodes raise which have the schedule in force.
    beat INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (project, trigger_id, schedule)
) STRICT, WITHOUT ROWID;

INSERT INTO schedule_rows (project, trigger_id, schedule, due_ms) SELECT project, trigger_id, schedule, due_ms FROM schedules;
DROP TABLE schedules;
ALTER TABLE schedule_rows RENAME TO schedules;
