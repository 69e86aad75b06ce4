-- Keys that the database takes for equal and that are read otherwise.
CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public;
CREATE TABLE land (code char(3) PRIMARY KEY, name text);
CREATE TABLE town (id int PRIMARY KEY, land_code varchar(3) REFERENCES land, land_text text REFERENCES land);
CREATE TABLE topic (name public.citext PRIMARY KEY, about text);
CREATE TABLE article (id int PRIMARY KEY, topic_id public.citext REFERENCES topic);
CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE shelf (k text COLLATE nocase PRIMARY KEY, label text);
CREATE TABLE book (id int PRIMARY KEY, shelf_id text COLLATE nocase REFERENCES shelf);
CREATE TABLE day (d timestamp PRIMARY KEY, label text);
CREATE TABLE entry (id int PRIMARY KEY, day_id date REFERENCES day);
CREATE TABLE span (k interval PRIMARY KEY, label text);
CREATE TABLE task (id int PRIMARY KEY, span_id interval REFERENCES span);
CREATE TABLE weight (k float8 PRIMARY KEY, label text);
CREATE TABLE parcel (id int PRIMARY KEY, weight_id float4 REFERENCES weight);
CREATE TABLE part (maker public.citext, number numeric, label text, PRIMARY KEY (maker, number));
CREATE TABLE stock (id int PRIMARY KEY, maker public.citext, number int, FOREIGN KEY (maker, number) REFERENCES part);
