CREATE TABLE t (
    id serial PRIMARY KEY,
    a bigint,
    b bigint,
    c text,
    x bigint,
    flag boolean,
    price numeric(10, 2),
    ratio double precision,
    big bigint,
    at timestamp,
    day date,
    hour time,
    raw bytea,
    doc jsonb,
    ref uuid
);
CREATE TABLE child (
    id serial PRIMARY KEY,
    t_id integer REFERENCES t (id),
    label text NOT NULL DEFAULT 'none',
    CHECK (label <> 'forbidden')
);
CREATE TABLE pair (
    left_id integer NOT NULL,
    right_id integer NOT NULL,
    note text,
    PRIMARY KEY (left_id, right_id)
);
CREATE TABLE pair_item (
    id serial PRIMARY KEY,
    left_id integer,
    right_id integer,
    FOREIGN KEY (left_id, right_id) REFERENCES pair (left_id, right_id)
);
CREATE TABLE keyless (name text, n bigint);
CREATE TABLE tag (id serial PRIMARY KEY, name text NOT NULL UNIQUE, twice integer GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE "odd ""name""; drop" (id serial PRIMARY KEY, "select" text, "1=1 or id" integer, "naïve é" text);
CREATE VIEW t_view AS SELECT DISTINCT id, a FROM t WHERE a IS NOT NULL;
CREATE TABLE writer (id integer PRIMARY KEY, email text NOT NULL UNIQUE, team integer);
CREATE TABLE article (
    id integer PRIMARY KEY,
    writer_id integer,
    writer_email text,
    editor_id integer REFERENCES writer (id),
    hidden boolean
);
CREATE TABLE closed (id serial PRIMARY KEY);
ALTER SEQUENCE t_id_seq RESTART WITH 1000;
ALTER SEQUENCE child_id_seq RESTART WITH 1000;
ALTER SEQUENCE pair_item_id_seq RESTART WITH 1000;
ALTER SEQUENCE tag_id_seq RESTART WITH 1000;
