-- schemas: crm hr
CREATE SCHEMA crm;
CREATE SCHEMA hr;
CREATE EXTENSION citext SCHEMA crm;
CREATE TABLE crm.client (id int PRIMARY KEY, name text, owner text, secret text, "zip code" text);
CREATE TABLE crm.note (id int PRIMARY KEY, client_id int REFERENCES crm.client, body text);
CREATE TABLE crm.vault (id int PRIMARY KEY, code text);
CREATE TABLE crm.settled (id int PRIMARY KEY, total int);
CREATE TABLE bill (id int PRIMARY KEY, client_id int REFERENCES crm.client, vault_id int REFERENCES crm.vault, amount int);
CREATE TABLE note (id int PRIMARY KEY, client_id int REFERENCES crm.client, bill_id int REFERENCES bill, body text);
CREATE TABLE vault (id int PRIMARY KEY, code text);
CREATE TABLE draft (id int PRIMARY KEY, client_id int REFERENCES crm.client);
CREATE TABLE crm.reminder (id int PRIMARY KEY, bill_id int REFERENCES bill, owner text, level int);
CREATE TABLE crm.member (id int PRIMARY KEY, name text);
CREATE TABLE crm.guild (id int PRIMARY KEY, name text);
CREATE TABLE crm.badge (id int PRIMARY KEY, member_id int REFERENCES crm.member, guild_id int REFERENCES crm.guild,
    word crm.citext, owner text);
CREATE TABLE badge (id int PRIMARY KEY, member_id int REFERENCES crm.member, guild_id int REFERENCES crm.guild, owner text);
CREATE TABLE visit (id int PRIMARY KEY, member_id int REFERENCES crm.member, guild_id int REFERENCES crm.guild);
CREATE TABLE hr.shift (day int, nr int, after_day int, after_nr int, name text, PRIMARY KEY (day, nr),
    FOREIGN KEY (after_day, after_nr) REFERENCES hr.shift (day, nr));
CREATE TABLE crm.call (id int PRIMARY KEY, client_id int REFERENCES crm.client, day int, nr int,
    FOREIGN KEY (day, nr) REFERENCES hr.shift (day, nr));
