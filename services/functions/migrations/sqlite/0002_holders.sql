-- Who follows the log of a table, and a number that it raises while it does; 0: nobody.
ALTER TABLE followed_tables ADD COLUMN holder INTEGER NOT NULL DEFAULT 0;
ALTER TABLE followed_tables ADD COLUMN beat INTEGER NOT NULL DEFAULT 0;

DROP INDEX events_due;
DROP INDEX events_leased;
DROP INDEX events_ordered;

-- Bytes of the message.
ALTER TABLE events ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
-- 1 while another event of its order key is to be delivered before it.
ALTER TABLE events ADD COLUMN blocked INTEGER NOT NULL DEFAULT 0;
-- How long an attempt may have it, by the clock of whoever watches it.
ALTER TABLE events ADD COLUMN lease_ms INTEGER;
ALTER TABLE events DROP COLUMN lease_until_ms;

UPDATE events SET bytes = length(body);
UPDATE events SET blocked = 1 WHERE finished_ms IS NULL AND order_key IS NOT NULL AND EXISTS (
    SELECT 1 FROM events o WHERE o.project = events.project AND o.trigger_id = events.trigger_id
        AND o.order_key = events.order_key AND o.finished_ms IS NULL AND o.seq < events.seq);

CREATE INDEX events_due ON events (project, trigger_id, due_ms, seq, bytes) WHERE status = 'pending' AND blocked = 0;
CREATE INDEX events_waiting ON events (project, trigger_id, due_ms, seq, bytes) WHERE status = 'pending';
CREATE INDEX events_running ON events (lease_owner) WHERE status = 'running';
CREATE INDEX events_first ON events (project, trigger_id, order_key, seq) WHERE order_key IS NOT NULL AND finished_ms IS NULL;
CREATE UNIQUE INDEX events_head ON events (project, trigger_id, order_key)
    WHERE order_key IS NOT NULL AND finished_ms IS NULL AND blocked = 0;

-- Triggers that nodes have in force, and a number that they raise while they have.
CREATE TABLE served_triggers (
    project TEXT NOT NULL,
    trigger_id TEXT NOT NULL,
    beat INTEGER NOT NULL,
    PRIMARY KEY (project, trigger_id)
) STRICT, WITHOUT ROWID;

-- The latest time that the clock of the queue has told; it is the only row.
CREATE TABLE queue_clock (id INTEGER PRIMARY KEY CHECK (id = 1), latest_ms INTEGER NOT NULL) STRICT;
INSERT INTO queue_clock VALUES (1, 0);
