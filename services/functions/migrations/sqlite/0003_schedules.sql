-- When triggers on schedules are due next. Written in the transaction that writes the event of the time before.
CREATE TABLE schedules (
    project TEXT NOT NULL,
    trigger_id TEXT NOT NULL,
    -- The schedule that this was decided by: another one begins anew.
    schedule TEXT NOT NULL,
    -- Null: never again.
    due_ms INTEGER,
    PRIMARY KEY (project, trigger_id)
) STRICT, WITHOUT ROWID;
