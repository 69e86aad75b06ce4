DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, extensions', current_database()); END $$;
CREATE SCHEMA extensions;
CREATE EXTENSION citext SCHEMA extensions;
CREATE EXTENSION isn SCHEMA extensions;
CREATE TABLE account (email extensions.citext PRIMARY KEY, n int);
CREATE TABLE book (isbn extensions.isbn PRIMARY KEY, title text);
