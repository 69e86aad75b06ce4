-- Columns that no foreign key relates, and that the database compares otherwise than as they are read.
CREATE TABLE land (code TEXT COLLATE NOCASE PRIMARY KEY, name TEXT);
CREATE TABLE town (id INTEGER PRIMARY KEY, land TEXT, number INTEGER, day DATETIME);
CREATE TABLE word (w TEXT PRIMARY KEY, label TEXT);
CREATE TABLE day (d DATETIME UNIQUE, label TEXT);
CREATE VIEW shown AS SELECT id, number FROM town;
