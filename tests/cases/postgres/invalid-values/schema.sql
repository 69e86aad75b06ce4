CREATE TYPE mood AS ENUM ('sad', 'happy', 'so-so');
CREATE DOMAIN feeling AS mood;
CREATE DOMAIN sku AS varchar(4);
CREATE TABLE person (id integer PRIMARY KEY, m mood, f feeling, ip inet, other_ip inet, wait interval, code varchar(3),
    fixed char(2), item sku, n numeric(5, 2), small smallint, big bigint, tags mood[], spot point, boss integer REFERENCES person);
CREATE VIEW person_view AS SELECT * FROM person;
