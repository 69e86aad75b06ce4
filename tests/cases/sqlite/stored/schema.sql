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
CREATE TABLE ranked (id INTEGER PRIMARY KEY, level INTEGER, price DECIMAL(10,2), code TEXT, loose);
INSERT INTO ranked VALUES (1, 5, 5, 'b', 5), (2, 'unknown', 'unknown', x'7a', 'b'), (3, 1, 1, 'a', 1),
  (4, x'05', x'05', 'B', x'7a'), (5, NULL, NULL, NULL, NULL), (6, 9, 0.5, 'z', 'a');
CREATE TABLE numeric_any (id INTEGER PRIMARY KEY, owner NUM);
INSERT INTO numeric_any VALUES (1, 5), (2, 'ann');
CREATE TABLE adult (id INTEGER PRIMARY KEY, age INTEGER);
INSERT INTO adult VALUES (1, 17), (2, 'unknown'), (3, 18), (4, x'19'), (5, NULL);
CREATE TABLE minor (id INTEGER PRIMARY KEY, age);
INSERT INTO minor VALUES (1, 17), (2, 'unknown'), (3, 18), (4, x'19'), (5, NULL);
CREATE TABLE moment (id INTEGER PRIMARY KEY, at DATETIME, d DATE);
CREATE INDEX moment_at ON moment (at);
CREATE INDEX moment_d ON moment (d);
INSERT INTO moment VALUES (1, '2020-07-17 21:56:16+23:59', '2020-07-17'), (2, '2020-07-17 21:56:16-23:59', '2020-07-18 23:59:59'),
  (3, '0000-01-01 00:00:00', '0000-01-01'), (4, '9999-12-31 23:59:59.999999', '9999-12-31'), (5, -1, -1),
  (6, 253402300799, 253402300799), (7, -62167219200, -62167219200), (8, 2440587.5, 2440587.25), (9, 5373484.25, 5373484.25),
  (10, 'soon', 'soon'), (11, x'00', x'00'), (12, '0000-01-01 00:00:00+14:00', '0000-01-01 00:00:00+14:00'), (13, NULL, NULL);

-- Errors that keep what a statement has changed before.
CREATE TABLE code (id INTEGER PRIMARY KEY, v TEXT UNIQUE ON CONFLICT FAIL);
CREATE TABLE raising (id INTEGER PRIMARY KEY, v TEXT);
CREATE TRIGGER no_bad BEFORE INSERT ON raising WHEN NEW.v = 'bad' BEGIN SELECT RAISE(FAIL, 'refused'); END;
CREATE TRIGGER no_worse BEFORE UPDATE ON raising WHEN NEW.id = 2 BEGIN SELECT RAISE(FAIL, 'refused'); END;
CREATE TRIGGER no_end BEFORE DELETE ON raising WHEN OLD.id = 2 BEGIN SELECT RAISE(ROLLBACK, 'refused'); END;
