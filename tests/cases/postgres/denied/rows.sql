DELETE FROM own; DELETE FROM catalogue;
INSERT INTO own VALUES (1, 'me'), (3, 'you'); INSERT INTO catalogue VALUES (1, 'x');
