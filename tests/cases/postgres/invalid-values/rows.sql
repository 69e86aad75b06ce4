DELETE FROM person;
INSERT INTO person (id, m, ip, code, small, big) VALUES (1, 'sad', '10.0.0.1', 'abc', 32767, 9223372036854775807);
