CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT, secret TEXT);
CREATE VIEW profile AS SELECT id, name, upper(name) AS loud FROM account;
CREATE TRIGGER profile_insert INSTEAD OF INSERT ON profile BEGIN
    INSERT INTO account (id, name) VALUES (NEW.id, NEW.name);
END;
CREATE TRIGGER profile_update INSTEAD OF UPDATE OF name ON profile BEGIN
    UPDATE account SET name = NEW.name WHERE id = OLD.id;
END;
CREATE TRIGGER profile_delete INSTEAD OF DELETE ON profile BEGIN DELETE FROM account WHERE id = OLD.id; END;
CREATE VIEW renamed AS SELECT id, name, upper(name) AS loud FROM account;
CREATE TRIGGER renamed_update INSTEAD OF UPDATE OF name ON renamed BEGIN
    UPDATE account SET name = NEW.name WHERE id = OLD.id;
END;
CREATE VIEW shown AS SELECT id, name FROM account;
