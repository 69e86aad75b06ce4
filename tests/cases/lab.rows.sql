DELETE FROM article;
DELETE FROM writer;
DELETE FROM child;
DELETE FROM t;
DELETE FROM pair_item;
DELETE FROM pair;
DELETE FROM keyless;
DELETE FROM tag;
DELETE FROM "odd ""name""; drop";
INSERT INTO t (id, a, b, c, x, flag, price, ratio, big, at, day, hour, doc, ref) VALUES
    (1, 1, 2, 'x', 9, TRUE, 0.99, 1.5, 9007199254740993, '2009-01-01 00:00:00', '2009-01-01', '13:14:15', '{"k": 1}', '00000000-0000-4000-8000-000000000001'),
    (2, 2, 2, 'xy', 9, FALSE, 1.98, 0.1, -9223372036854775808, '2009-02-03 04:05:06.5', '2009-02-03', '00:00:00', '[1, 2]', '00000000-0000-4000-8000-000000000002'),
    (3, 3, 3, 'O''Hara "é"', 1, NULL, 10.00, -2.25, 9223372036854775807, '2010-12-31 23:59:59.123456', '2010-12-31', '23:59:59.25', '"s"', '00000000-0000-4000-8000-000000000003'),
    (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (5, 5, 1, '', 9, TRUE, -3.50, 3.25, 0, '1969-07-20 20:17:40', '1969-07-20', '20:17:40', '{"k": {"l": [null, true]}}', '00000000-0000-4000-8000-000000000005');
INSERT INTO child (id, t_id, label) VALUES (1, 1, 'one'), (2, 1, 'two'), (3, 2, 'three'), (4, NULL, 'orphan');
INSERT INTO pair (left_id, right_id, note) VALUES (1, 1, 'a'), (1, 2, 'b'), (2, 1, NULL);
INSERT INTO pair_item (id, left_id, right_id) VALUES (1, 1, 1), (2, 1, 2), (3, 1, 2), (4, NULL, 1);
INSERT INTO keyless (name, n) VALUES ('a', 1), ('b', 2);
INSERT INTO tag (id, name) VALUES (1, 'red'), (2, 'green');
INSERT INTO "odd ""name""; drop" (id, "select", "1=1 or id", "naïve é") VALUES (1, 'from', 7, 'ü');
INSERT INTO writer (id, email, team) VALUES (1, 'ann@a', 7), (2, 'bob@b', 7), (3, 'cy@c', NULL);
INSERT INTO article (id, writer_id, writer_email, editor_id, hidden) VALUES
    (1, 1, 'bob@b', 3, FALSE), (2, 1, 'ann@a', 3, FALSE), (3, 2, 'bob@b', NULL, FALSE), (4, 9, NULL, 1, FALSE), (5, 2, 'bob@b', 1, TRUE);
