DELETE FROM booking; DELETE FROM kept; DELETE FROM parent;
INSERT INTO booking VALUES (1, 'fine', 'x'); INSERT INTO parent VALUES (1); INSERT INTO kept VALUES (1, 1);
