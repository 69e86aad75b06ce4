CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN label AS text[];
CREATE TABLE film (id int PRIMARY KEY, features text[], runs int[], grid int[][], moods mood[], seen timestamptz[], sums numeric[],
  raw bytea[], keys uuid[], docs jsonb[], ratios float8[], hosts inet[], labels label, owner text);
CREATE TABLE guarded (id int PRIMARY KEY, tags text[]);
CREATE TABLE elsewhere (id int PRIMARY KEY, grid int[], moods mood[], sums numeric[], labels label, marks xid[]);
