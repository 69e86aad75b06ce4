-- role: perigee_reader
DO $$ BEGIN CREATE ROLE perigee_reader LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN
  EXECUTE format('ALTER ROLE perigee_reader IN DATABASE %I SET default_transaction_read_only = on', current_database());
  EXECUTE format('ALTER ROLE perigee_reader IN DATABASE %I SET statement_timeout = %L', current_database(), '200ms');
END $$;
CREATE TABLE note (id integer PRIMARY KEY, v text);
CREATE VIEW slow AS SELECT id, (SELECT 1 FROM pg_sleep(id * 20)) AS one FROM note;
GRANT ALL ON note, slow TO perigee_reader;
