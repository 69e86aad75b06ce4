CREATE TABLE t (
    id INTEGER PRIMARY KEY,
    a INTEGER,
    b INTEGER,
    c TEXT,
    x INTEGER,
    flag BOOLEAN,
    price NUMERIC(10, 2),
    ratio DOUBLE,
    big BIGINT,
    at TIMESTAMP,
    day DATE,
    hour TIME,
    raw BLOB,
    doc JSON,
    ref UUID
);
CREATE TABLE child (
    id INTEGER PRIMARY KEY,
    t_id INTEGER REFERENCES t (id),
    label TEXT NOT NULL DEFAULT 'none',
    CHECK (label <> 'forbidden')
);
CREATE TABLE pair (
    left_id INTEGER NOT NULL,
    right_id INTEGER NOT NULL,
    note TEXT,
    PRIMARY KEY (left_id, right_id)
);
CREATE TABLE pair_item (
    id INTEGER PRIMARY KEY,
    left_id INTEGER,
    right_id INTEGER,
    FOREIGN KEY (left_id, right_id) REFERENCES pair (left_id, right_id)
);
CREATE TABLE keyless (name TEXT, n INTEGER);
CREATE TABLE tag (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, twice INTEGER GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE "odd ""name""; drop" (id INTEGER PRIMARY KEY, "select" TEXT, "1=1 or id" INTEGER, "naïve é" TEXT);
CREATE VIEW t_view AS SELECT DISTINCT id, a FROM t WHERE a IS NOT NULL;
CREATE TABLE writer (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, team INTEGER);
CREATE TABLE article (
    id INTEGER PRIMARY KEY,
    writer_id INTEGER,
    writer_email TEXT,
    editor_id INTEGER REFERENCES writer (id),
    hidden BOOLEAN
);
CREATE TABLE closed (id INTEGER PRIMARY KEY);
