-- Keys that the database takes for equal and that are read otherwise, or that are stored in another form than they are
-- read in.
CREATE TABLE land (code TEXT COLLATE NOCASE PRIMARY KEY, name TEXT);
CREATE TABLE town (id INTEGER PRIMARY KEY, land_id TEXT REFERENCES land);
CREATE TABLE shelf (k TEXT COLLATE RTRIM PRIMARY KEY, label TEXT);
CREATE TABLE book (id INTEGER PRIMARY KEY, shelf_id TEXT REFERENCES shelf);
CREATE TABLE number (n INTEGER PRIMARY KEY, label TEXT);
CREATE TABLE line (id INTEGER PRIMARY KEY, number_id TEXT REFERENCES number);
CREATE TABLE word (w TEXT PRIMARY KEY, label TEXT);
CREATE TABLE mark (id INTEGER PRIMARY KEY, word_id INTEGER REFERENCES word);
CREATE TABLE raw (k PRIMARY KEY, label TEXT);
CREATE TABLE copy (id INTEGER PRIMARY KEY, raw_id REFERENCES raw);
CREATE TABLE day (d DATE PRIMARY KEY, label TEXT);
CREATE TABLE entry (id INTEGER PRIMARY KEY, day_id DATE REFERENCES day);
