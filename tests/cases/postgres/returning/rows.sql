DELETE FROM note; INSERT INTO note (id, v) VALUES (1, 'Old');
