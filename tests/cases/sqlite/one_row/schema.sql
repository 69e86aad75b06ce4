CREATE TABLE named (rowid TEXT, v TEXT);
CREATE TABLE twice_named (rowid TEXT, _ROWID_ TEXT, v TEXT);
CREATE TABLE all_named (rowid TEXT, _rowid_ TEXT, oid TEXT, v TEXT);
CREATE TABLE key_without (a TEXT, b TEXT, v TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE nullable (id TEXT PRIMARY KEY, v TEXT);
-- Not another name of the rowid, unlike without DESC.
CREATE TABLE descending (id INTEGER PRIMARY KEY DESC, v TEXT);
CREATE TABLE pair (a INTEGER, b INTEGER, v TEXT, PRIMARY KEY (a, b));
