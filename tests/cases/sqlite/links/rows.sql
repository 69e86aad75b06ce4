DELETE FROM town;
DELETE FROM land;
DELETE FROM word;
DELETE FROM day;
INSERT INTO land VALUES ('DE', 'Germany');
INSERT INTO town VALUES (1, 'de', 7, '2024-01-01'), (2, 'FR', 8, '2024-01-01 00:00:00');
INSERT INTO word VALUES ('7', 'seven'), ('07', 'also seven'), ('eight', 'eight');
INSERT INTO day VALUES ('2024-01-01', 'a day'), ('2024-01-01 00:00:00', 'its midnight');
