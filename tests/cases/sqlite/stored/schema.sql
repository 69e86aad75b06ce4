-- Values in columns without a type, and in spellings that other programs write.
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, dept TEXT, level);
INSERT INTO item VALUES (1, 'open', 'x', 1), (2, 'secret', 'x', 9), (3, 'open too', 'y', 2);
CREATE VIEW per_dept AS SELECT dept, count(*) AS n, sum(level) AS levels FROM item GROUP BY dept;
CREATE TABLE strict_any (id INTEGER PRIMARY KEY, v ANY) STRICT;
CREATE TABLE guarded (id INTEGER PRIMARY KEY, name TEXT, level);
INSERT INTO guarded VALUES (1, 'open', 1), (2, 'secret', 9);
CREATE VIEW guarded_view AS SELECT id, name, level * 1 AS level FROM guarded;
CREATE TABLE post (id INTEGER PRIMARY KEY, at DATETIME);
INSERT INTO post VALUES (1, '2020-07-17 21:56:16'), (2, '2020-07-17T21:56:16Z'), (3, '2020-07-17 21:56:16.000'),
  (4, '2020-07-17 23:56:16.000 +02:00'), (5, 1595022976), (6, 2459048.41407407), (7, '2020-07-17 21:56:16.000Z'),
  (8, 1595022976000), (9, 'soon'), (10, '2020-07-17 21:56:17'), (11, '2020-07-17T21:56:15Z');
CREATE INDEX post_at ON post (at);
CREATE TABLE ord (id INTEGER PRIMARY KEY, placed DATETIME);
INSERT INTO ord VALUES (1, '2016-07-04'), (2, '2016-07-05'), (3, '2016-07-06');
CREATE TABLE made (id INTEGER PRIMARY KEY, d DATE NOT NULL DEFAULT CURRENT_TIMESTAMP);
INSERT INTO made VALUES (1, '2020-07-17'), (2, '2020-07-17 21:56:16'), (3, '2020-07-18');
CREATE TABLE flag (id INTEGER PRIMARY KEY, b BOOLEAN DEFAULT 'true');
INSERT INTO flag VALUES (1, 'true'), (2, 1), (3, 0), (4, 'false'), (5, 2), (6, NULL), (7, 'perhaps');
CREATE TABLE device (id UUID PRIMARY KEY, n INT);
CREATE TABLE secret (id INTEGER PRIMARY KEY, name TEXT, hidden BOOLEAN, publish_at DATETIME);
INSERT INTO secret VALUES (1, 'open', 0, '2020-01-01 00:00:00'), (2, 'hidden as text', 'true', '2020-01-01 00:00:00'),
  (3, 'hidden as 2', 2, '2020-01-01 00:00:00'), (4, 'of the year 2100', 0, 4102444800),
  (5, 'of the next hour', 0, '2025-12-31 23:00:00 -02:00'), (6, 'no boolean', 'perhaps', '2020-01-01 00:00:00'),
  (7, 'no time', 0, 1595022976000);

-- Errors that keep what a statement has changed before.
CREATE TABLE code (id INTEGER PRIMARY KEY, v TEXT UNIQUE ON CONFLICT FAIL);
CREATE TABLE raising (id INTEGER PRIMARY KEY, v TEXT);
CREATE TRIGGER no_bad BEFORE INSERT ON raising WHEN NEW.v = 'bad' BEGIN SELECT RAISE(FAIL, 'refused'); END;
CREATE TRIGGER no_worse BEFORE UPDATE ON raising WHEN NEW.id = 2 BEGIN SELECT RAISE(FAIL, 'refused'); END;
CREATE TRIGGER no_end BEFORE DELETE ON raising WHEN OLD.id = 2 BEGIN SELECT RAISE(ROLLBACK, 'refused'); END;
