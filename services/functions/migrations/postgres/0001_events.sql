-- How far the log of changes of a table was taken. Written in the transaction that writes the events of these changes.
CREATE TABLE followed_tables (
    project TEXT NOT NULL,
    database_id TEXT NOT NULL,
    table_name TEXT NOT NULL,
    -- Position of the log.
    position BYTEA NOT NULL,
    -- The transaction that it ends with, and how many changes of that were taken: the next one may go on with it.
    transaction_id BIGINT NOT NULL,
    changes BIGINT NOT NULL,
    -- Who follows it, and a number that it raises while it does; 0: nobody.
    holder BIGINT NOT NULL DEFAULT 0,
    beat BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (project, database_id, table_name)
);

CREATE TABLE events (
    -- In the order in which they were made durable.
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL,
    trigger_id TEXT NOT NULL,
    type TEXT NOT NULL,
    body BYTEA NOT NULL,
    -- Bytes of the message.
    bytes BIGINT NOT NULL,
    -- Events of a trigger with the same key are delivered one after the other; null: in any order.
    order_key BYTEA,
    -- 1 while another event of its order key is to be delivered before it.
    blocked BIGINT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'running', 'processed', 'failed')),
    -- Those that were begun.
    attempts BIGINT NOT NULL DEFAULT 0,
    created_ms BIGINT NOT NULL,
    -- Since when the attempts count that its trigger allows: when it was made, or replayed.
    since_ms BIGINT NOT NULL,
    due_ms BIGINT NOT NULL,
    -- Who delivers it, and how long an attempt may have it, by the clock of whoever watches it.
    lease_owner BIGINT,
    lease_ms BIGINT,
    -- Of the last attempt: the status of its answer, and the beginning of that, or what went wrong.
    code BIGINT,
    last TEXT NOT NULL DEFAULT '',
    finished_ms BIGINT
    -- Rows are written often and read once.
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX events_due ON events (project, trigger_id, due_ms, seq, bytes) WHERE status = 'pending' AND blocked = 0;
CREATE INDEX events_waiting ON events (project, trigger_id, due_ms, seq, bytes) WHERE status = 'pending';
CREATE INDEX events_running ON events (lease_owner) WHERE status = 'running';
CREATE INDEX events_first ON events (project, trigger_id, order_key, seq) WHERE order_key IS NOT NULL AND finished_ms IS NULL;
CREATE UNIQUE INDEX events_head ON events (project, trigger_id, order_key)
    WHERE order_key IS NOT NULL AND finished_ms IS NULL AND blocked = 0;
CREATE INDEX events_finished ON events (status, finished_ms) WHERE finished_ms IS NOT NULL;

-- Triggers that nodes have in force, and a number that they raise while they have.
CREATE TABLE served_triggers (
    project TEXT NOT NULL,
    trigger_id TEXT NOT NULL,
    beat BIGINT NOT NULL,
    PRIMARY KEY (project, trigger_id)
);

-- The latest time that the clock of the queue has told; it is the only row.
CREATE TABLE queue_clock (id BIGINT PRIMARY KEY CHECK (id = 1), latest_ms BIGINT NOT NULL);
INSERT INTO queue_clock VALUES (1, 0);
