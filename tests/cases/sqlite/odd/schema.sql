CREATE TABLE pic (id INTEGER PRIMARY KEY, data BLOB);
-- A collation that only another program defines cannot be declared here.
CREATE TABLE word (id INTEGER PRIMARY KEY, name TEXT COLLATE binary, n INTEGER);
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, 'COLLATE binary', 'COLLATE elsewhere') WHERE name = 'word';
PRAGMA writable_schema = RESET;
