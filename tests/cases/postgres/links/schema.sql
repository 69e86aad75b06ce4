-- Columns that no foreign key relates, of types that differ.
CREATE EXTENSION IF NOT EXISTS citext;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE land (code char(3) PRIMARY KEY, name text);
CREATE TABLE topic (name citext PRIMARY KEY, about text);
CREATE TABLE word (w varchar(9) PRIMARY KEY, label text);
CREATE TABLE feeling (mood mood UNIQUE, label text);
CREATE TABLE town (id int PRIMARY KEY, land text, topic text, padded char(4), mood mood, seen date);
CREATE TABLE day (at timestamp UNIQUE, label text);
CREATE TABLE base (id int PRIMARY KEY, v text);
CREATE TABLE derived (more text) INHERITS (base);
