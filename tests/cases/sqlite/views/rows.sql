DELETE FROM account;
INSERT INTO account VALUES (1, 'a', 's'), (2, 'b', 's'), (3, 'c', 's');
