-- Requests to queue custom events that have a name, so that none is made twice.
CREATE TABLE queue_requests (
    project TEXT NOT NULL,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    -- Hash of what was asked.
    request BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (project, type, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX queue_requests_created ON queue_requests (created_ms);
