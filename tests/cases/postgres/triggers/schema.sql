CREATE TABLE booking (id integer PRIMARY KEY, v text);
CREATE TABLE stock (id integer PRIMARY KEY, n integer NOT NULL CHECK (n >= 0), name text UNIQUE);
CREATE TABLE held (id integer PRIMARY KEY);
ALTER TABLE held ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION booking_check() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE found stock;
BEGIN
  CASE NEW.v
    WHEN 'plain' THEN RAISE EXCEPTION 'sold out: % ☃', NEW.id USING DETAIL = 'secret', HINT = 'secret';
    WHEN 'own code' THEN RAISE EXCEPTION 'sold out' USING ERRCODE = '45000';
    WHEN 'http code' THEN RAISE EXCEPTION 'pay first' USING ERRCODE = 'PT402';
    WHEN 'code of a class of the server' THEN RAISE EXCEPTION 'no such plan' USING ERRCODE = '42P01';
    WHEN 'code of time' THEN RAISE EXCEPTION 'closed today' USING ERRCODE = '57014';
    WHEN 'taken' THEN RAISE EXCEPTION 'the seat is taken' USING ERRCODE = 'unique_violation';
    WHEN 'privilege' THEN RAISE insufficient_privilege USING MESSAGE = 'not yours';
    WHEN 'later' THEN RAISE EXCEPTION 'busy, come again' USING ERRCODE = 'serialization_failure';
    WHEN 'no data' THEN RAISE no_data_found USING MESSAGE = 'no such room';
    WHEN 'strict' THEN SELECT * INTO STRICT found FROM stock WHERE id = 99;
    WHEN 'no text' THEN RAISE EXCEPTION '';
    WHEN 'again' THEN BEGIN PERFORM 1 FROM audit_log; EXCEPTION WHEN undefined_table THEN RAISE; END;
    WHEN 'check' THEN UPDATE stock SET n = n - 10;
    WHEN 'unique' THEN INSERT INTO stock VALUES (3, 1, 'one');
    WHEN 'fault: column' THEN NEW.v = NEW."createdAt";
    WHEN 'fault: table' THEN PERFORM 1 FROM audit_log;
    WHEN 'fault: column of a statement' THEN PERFORM "createdAt" FROM stock;
    WHEN 'fault: function' THEN PERFORM audit('x');
    WHEN 'fault: type' THEN PERFORM 'x'::nowhere;
    WHEN 'fault: syntax' THEN EXECUTE 'SELEC 1';
    WHEN 'fault: assertion' THEN ASSERT false, 'secret';
    WHEN 'fault: recursion' THEN INSERT INTO booking VALUES (NEW.id + 1, NEW.v);
    WHEN 'value' THEN PERFORM NEW.v::integer;
    WHEN 'division' THEN PERFORM 1 / (NEW.id - 2);
    WHEN 'read-only' THEN SET LOCAL transaction_read_only = on; INSERT INTO stock VALUES (4, 4, 'four');
    ELSE NULL;
  END CASE;
  RETURN NEW;
END $$;
CREATE TRIGGER booking_check BEFORE INSERT ON booking FOR EACH ROW EXECUTE FUNCTION booking_check();
CREATE FUNCTION opened(id integer) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN
  IF id = 2 THEN RAISE EXCEPTION 'room 2 is closed'; END IF;
  RETURN id;
END $$;
CREATE VIEW room AS SELECT id, opened(id) AS opened FROM stock;
CREATE VIEW ratio AS SELECT id, 1 / (n - 1) AS part FROM stock;
CREATE FUNCTION misses() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT count(*) FROM nowhere); END $$;
CREATE VIEW broken AS SELECT id, misses() AS n FROM stock;
