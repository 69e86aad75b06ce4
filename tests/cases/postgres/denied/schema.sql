-- role: perigee_guest
DO $$ BEGIN CREATE ROLE perigee_guest LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
CREATE TABLE catalogue (id integer PRIMARY KEY, v text);
CREATE TABLE audit (id integer);
CREATE TABLE own (id integer PRIMARY KEY, owner text);
ALTER TABLE own ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_mine ON own USING (owner = 'me') WITH CHECK (owner = 'me');
CREATE TABLE audited (id integer PRIMARY KEY);
CREATE FUNCTION note_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit VALUES (NEW.id); RETURN NEW; END $$;
CREATE TRIGGER note_it BEFORE INSERT ON audited FOR EACH ROW EXECUTE FUNCTION note_it();
GRANT SELECT ON catalogue TO perigee_guest;
GRANT ALL ON own, audited TO perigee_guest;
