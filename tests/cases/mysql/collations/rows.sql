DELETE FROM used;
DELETE FROM word;
INSERT INTO word (id, folded, padded, exact, latin, code) VALUES
    (1, 'Ann', 'Ann', 'Ann', 'Ann', 'A'),
    (2, 'ann', 'ann', 'ann', 'ann', 'b'),
    (3, 'ánn', 'ann ', 'ann ', 'ánn', 'c'),
    (4, 'bob', 'bob', 'bob', 'bob', 'd'),
    (5, NULL, NULL, NULL, NULL, 'e');
INSERT INTO used (id, code) VALUES (1, 'a'), (2, 'B'), (3, NULL), (4, 'A');
