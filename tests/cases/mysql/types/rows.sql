DELETE FROM kind;
INSERT INTO kind VALUES
    (1, 255, 9223372036854775807, 5, 'sad', 'x,y', 2020, '2020-01-02 03:04:05.678', 0.1, x'00ff', '::1', '{"a":[1,null]}', 1234.5678, 1, 0, '-25:00:00'),
    (2, 0, 5, 255, 'happy', '', 1999, '2001-01-01 00:00:00', 1.5, x'', '2001:db8::1', '1', 0, 5, 1, '01:02:03'),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL);
