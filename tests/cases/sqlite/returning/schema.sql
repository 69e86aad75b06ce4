CREATE TABLE note (id INTEGER PRIMARY KEY, v TEXT, slug TEXT);
CREATE TRIGGER note_slug AFTER INSERT ON note BEGIN UPDATE note SET slug = lower(NEW.v) WHERE id = NEW.id; END;
CREATE TRIGGER note_slugs AFTER UPDATE OF v ON note BEGIN UPDATE note SET slug = lower(NEW.v) WHERE id = NEW.id; END;
