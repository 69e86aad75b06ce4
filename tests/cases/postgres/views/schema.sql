CREATE TABLE account (id int PRIMARY KEY, name text, secret text, kind text NOT NULL DEFAULT 'plain');
CREATE VIEW profile AS SELECT id, name, upper(name) AS loud FROM account;
CREATE VIEW plain_profile AS SELECT id, name, kind FROM account WHERE kind = 'plain' WITH CHECK OPTION;
CREATE VIEW per_kind AS SELECT kind, count(*) AS n FROM account GROUP BY kind;
CREATE VIEW joined AS SELECT a.id, a.name, b.name AS other FROM account a JOIN account b ON b.id = a.id + 1;
CREATE FUNCTION joined_write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO account VALUES (NEW.id, NEW.name), (NEW.id + 1, NEW.other);
    ELSE
        UPDATE account SET name = NEW.name WHERE id = NEW.id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER joined_write INSTEAD OF INSERT OR UPDATE ON joined FOR EACH ROW EXECUTE FUNCTION joined_write();
