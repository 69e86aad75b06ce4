CREATE TABLE t (
    id integer AUTO_INCREMENT PRIMARY KEY,
    a bigint,
    b bigint,
    c text,
    x bigint,
    flag boolean,
    price numeric(10, 2),
    ratio double,
    big bigint,
    at datetime(6),
    day date,
    hour time(6),
    raw blob,
    doc json,
    ref uuid
);
CREATE TABLE child (
    id integer AUTO_INCREMENT PRIMARY KEY,
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
    id integer AUTO_INCREMENT PRIMARY KEY,
    left_id integer,
    right_id integer,
    FOREIGN KEY (left_id, right_id) REFERENCES pair (left_id, right_id)
);
CREATE TABLE keyless (name text, n bigint);
CREATE SEQUENCE tag_id START WITH 1000;
CREATE TABLE tag (id integer DEFAULT nextval(tag_id) PRIMARY KEY, name text NOT NULL UNIQUE, twice integer GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE "odd ""name""; drop" (id integer AUTO_INCREMENT PRIMARY KEY, "select" text, "1=1 or id" integer, "naïve é" text);
CREATE VIEW t_view AS SELECT DISTINCT id, a FROM t WHERE a IS NOT NULL;
CREATE TABLE writer (id integer PRIMARY KEY, email text NOT NULL UNIQUE, team integer);
CREATE TABLE article (
    id integer PRIMARY KEY,
    writer_id integer,
    writer_email text,
    editor_id integer REFERENCES writer (id),
    hidden boolean
);
CREATE TABLE closed (id integer AUTO_INCREMENT PRIMARY KEY);
ALTER TABLE t AUTO_INCREMENT = 1000;
ALTER TABLE child AUTO_INCREMENT = 1000;
ALTER TABLE pair_item AUTO_INCREMENT = 1000;
