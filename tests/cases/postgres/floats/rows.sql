DELETE FROM sample;
INSERT INTO sample VALUES (1, 'NaN', 'NaN', 'NaN'), (2, 'Infinity', '-Infinity', 'Infinity'), (3, 1.5, 1.5, 1.5);
