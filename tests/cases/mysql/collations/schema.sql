CREATE TABLE word (
    id integer PRIMARY KEY,
    folded varchar(20),
    padded varchar(20) COLLATE utf8mb4_bin,
    exact varchar(20) COLLATE utf8mb4_nopad_bin,
    latin varchar(20) CHARACTER SET latin1,
    code varchar(20) NOT NULL UNIQUE
);
CREATE TABLE used (id integer PRIMARY KEY, code varchar(20), FOREIGN KEY (code) REFERENCES word (code));
