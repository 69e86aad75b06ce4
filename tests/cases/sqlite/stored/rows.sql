DELETE FROM strict_any;
INSERT INTO strict_any VALUES (1, 5), (2, '5');
DELETE FROM device;
INSERT INTO device VALUES ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 1), (x'b0eebc999c0b4ef8bb6d6bb9bd380a11', 2),
  ('c0eebc999c0b4ef8bb6d6bb9bd380a11', 3), ('d0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 4),
  ('E0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 5);
DELETE FROM item WHERE id > 3;
DELETE FROM code;
INSERT INTO code VALUES (1, 'taken'), (2, 'two'), (3, 'three');
DROP TRIGGER no_end;
DELETE FROM raising;
INSERT INTO raising VALUES (1, 'one'), (2, 'two');
CREATE TRIGGER no_end BEFORE DELETE ON raising WHEN OLD.id = 2 BEGIN SELECT RAISE(ROLLBACK, 'refused'); END;
