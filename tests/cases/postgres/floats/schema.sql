CREATE TABLE sample (id integer PRIMARY KEY, f8 double precision NOT NULL, f4 real NOT NULL, n numeric NOT NULL);
