TRUNCATE account;
INSERT INTO account VALUES (1, 'a', 's'), (2, 'b', 's'), (3, 'x', 's');
UPDATE account SET kind = 'special' WHERE id = 3;
