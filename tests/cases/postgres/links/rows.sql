TRUNCATE land, topic, word, feeling, town, day, base, derived;
INSERT INTO land VALUES ('DE', 'Germany');
INSERT INTO topic VALUES ('Rust', 'a language'), ('go', 'a game');
INSERT INTO word VALUES ('a', 'a'), ('a ', 'a and a space');
INSERT INTO feeling VALUES ('good', 'fine'), ('bad', 'not so');
INSERT INTO town VALUES (1, 'DE', 'Rust', 'a', 'bad', '2024-01-01'), (2, 'de', 'rust', NULL, 'good', '2024-01-02');
INSERT INTO day VALUES ('2024-01-01 00:00', 'new year'), ('2024-01-02 12:00', 'noon');
INSERT INTO base VALUES (1, 'own');
INSERT INTO derived VALUES (1, 'derived', 'x'), (2, 'derived', 'y');
