TRUNCATE page, touched, part, audited RESTART IDENTITY;
INSERT INTO page (title) VALUES ('By SQL');
INSERT INTO touched VALUES (1, 'x');
