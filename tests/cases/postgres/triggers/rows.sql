DELETE FROM booking; DELETE FROM stock;
INSERT INTO booking VALUES (1, 'fine'); INSERT INTO stock VALUES (1, 1, 'one'), (2, 2, 'two');
