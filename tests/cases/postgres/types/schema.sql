CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN host AS inet;
CREATE TABLE thing (id int PRIMARY KEY, p pair, address inet, own host, network cidr, spot point, area box, doc xml, span int4range, cost money, flags bit(3),
  kind regclass, tx xid);
CREATE TABLE logged (id int PRIMARY KEY, v text);
CREATE TABLE log (id int PRIMARY KEY, v text);
CREATE RULE to_log AS ON INSERT TO logged DO INSTEAD INSERT INTO log VALUES (NEW.id, NEW.v);
