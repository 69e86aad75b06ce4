TRUNCATE person, keyless, inbox, file, folder, page, paper;
INSERT INTO person VALUES (1, 'Ann', 'secret');
INSERT INTO keyless VALUES ('Ann', 'secret'), ('Bob', 'secret');
INSERT INTO folder VALUES (1, 'a'), (2, 'b');
INSERT INTO file VALUES (1, 1), (2, 1);
INSERT INTO paper VALUES (1, 'a'), (2, 'kept');
INSERT INTO page VALUES (1, 1), (2, 2);
