CREATE TABLE term (id int PRIMARY KEY, ts timestamp, tz timestamptz, d date, t time, ttz timetz);
CREATE TABLE ended (id int PRIMARY KEY, at timestamptz);
