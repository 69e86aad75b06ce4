DELETE FROM pic;
DELETE FROM word;
INSERT INTO pic VALUES (1, x'414243'), (2, 'ABC'), (3, 'text'), (4, NULL);
INSERT INTO word VALUES (1, 'a', 1), (2, 'b', 2);
