DELETE FROM film;
DELETE FROM guarded;
DELETE FROM elsewhere;
INSERT INTO film VALUES (1, '{Trailers,"Deleted Scenes",NULL}', '{1,2}', '{{1,2},{3,4}}', '{happy}', '{2020-01-01 10:00:00+02,infinity}', '{1.50,NaN}',
  '{"\\x00ff"}', '{0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1d}', ARRAY['{"a":[1]}', '[1,2]', NULL]::jsonb[], '{0.5,-Infinity}', '{10.0.0.1,10.0.0.0/8}', '{x}', 'ann'),
  (2, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'bob'),
  (3, '{"NULL","a,b","c\"d","{e}"}', '[-1:1]={7,8,9}', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO guarded VALUES (1, '{open}'), (2, '{secret}'), (3, NULL);
INSERT INTO elsewhere VALUES (1, '[0:1][5:6]={{1,NULL},{3,4}}', '[0:1]={happy,NULL}', '[-5:-5]={1.50}', '[7:7]={"a,b"}', '[3:3]={7}');
