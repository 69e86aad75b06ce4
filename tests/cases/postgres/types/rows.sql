DELETE FROM thing;
DELETE FROM log;
INSERT INTO thing VALUES (1, '(1,"b c")', '10.0.0.1', '::1', '10.0.0.0/8', '(1,2)', '(1,1),(0,0)', '<a/>', '[1,5)', '1.5', '101', 'pg_class', '7'),
  (2, NULL, '10.0.0.1/8', NULL, '10.0.0.1/32', NULL, NULL, NULL, 'empty', NULL, NULL, NULL, NULL);
