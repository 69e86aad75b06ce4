CREATE TABLE booking (id INTEGER PRIMARY KEY, v TEXT, old TEXT);
CREATE TABLE other (id INTEGER PRIMARY KEY);
CREATE TRIGGER refuse BEFORE INSERT ON booking WHEN NEW.v IN ('abort', 'fail', 'rollback', 'empty') BEGIN
  SELECT CASE NEW.v WHEN 'abort' THEN RAISE(ABORT, 'sold out ☃') WHEN 'fail' THEN RAISE(FAIL, 'sold out')
    WHEN 'rollback' THEN RAISE(ROLLBACK, 'sold out') ELSE RAISE(ABORT, '') END;
END;
CREATE TABLE of_missing_table (id INTEGER PRIMARY KEY);
CREATE TRIGGER missing_table AFTER INSERT ON of_missing_table BEGIN INSERT INTO audit_log VALUES (NEW.id); END;
CREATE TABLE of_missing_column (id INTEGER PRIMARY KEY);
CREATE TRIGGER missing_column AFTER INSERT ON of_missing_column BEGIN INSERT INTO other (nowhere) VALUES (NEW.id); END;
CREATE TABLE of_missing_name (id INTEGER PRIMARY KEY);
CREATE TRIGGER missing_name AFTER INSERT ON of_missing_name BEGIN SELECT nowhere FROM other; END;
CREATE TABLE of_missing_function (id INTEGER PRIMARY KEY);
CREATE TRIGGER missing_function AFTER INSERT ON of_missing_function BEGIN SELECT audit(NEW.id); END;
CREATE TABLE parent (id INTEGER PRIMARY KEY);
CREATE TABLE kept (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES parent ON DELETE RESTRICT);
