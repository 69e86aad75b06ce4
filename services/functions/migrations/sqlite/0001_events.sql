-- How far the log of changes of a table was taken. Written in the transaction that writes the events of these changes.
CREATE TABLE followed_tables (
    project TEXT NOT NULL,
    database_id TEXT NOT NULL,
    table_name TEXT NOT NULL,
    -- Position of the log.
    position BLOB NOT NULL,
    -- The transaction that it ends with, and how many changes of that were taken: the next one may go on with it.
    transaction_id INTEGER NOT NULL,
    changes INTEGER NOT NULL,
    PRIMARY KEY (project, database_id, table_name)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    -- In the order in which they were made durable.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL,
    trigger_id TEXT NOT NULL,
    type TEXT NOT NULL,
    body BLOB NOT NULL,
    -- Events of a trigger with the same key are delivered one after the other; null: in any order.
    order_key BLOB,
    status TEXT NOT NULL CHECK (status IN ('pending', 'running', 'processed', 'failed')),
    -- Those that were begun.
    attempts INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    -- Since when the attempts count that its trigger allows: when it was made, or replayed.
    since_ms INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    -- Who delivers it, and until when nobody else does.
    lease_owner INTEGER,
    lease_until_ms INTEGER,
    -- Of the last attempt: the status of its answer, and the beginning of that, or what went wrong.
    code INTEGER,
    last TEXT NOT NULL DEFAULT '',
    finished_ms INTEGER
) STRICT;

CREATE INDEX events_due ON events (project, trigger_id, due_ms, seq) WHERE status = 'pending';
CREATE INDEX events_leased ON events (lease_until_ms) WHERE status = 'running';
CREATE INDEX events_ordered ON events (project, trigger_id, order_key, seq)
    WHERE order_key IS NOT NULL AND status IN ('pending', 'running');
CREATE INDEX events_finished ON events (status, finished_ms) WHERE finished_ms IS NOT NULL;
