TRUNCATE crm.client, crm.note, crm.vault, crm.settled, crm.reminder, bill, note, vault;
INSERT INTO crm.client VALUES (1, 'Ann', 'u1', 'x', '10115'), (2, 'Bob', 'u2', 'y', '20095');
INSERT INTO crm.note VALUES (1, 1, 'called'), (2, 2, 'wrote');
INSERT INTO crm.vault VALUES (1, 'open');
INSERT INTO crm.settled VALUES (1, 7);
INSERT INTO bill VALUES (1, 1, 1, 10), (2, 1, NULL, 20), (3, 2, NULL, 30);
INSERT INTO note VALUES (1, 1, 1, 'paid'), (2, 2, 3, 'open');
INSERT INTO vault VALUES (1, 'own');
INSERT INTO crm.reminder VALUES (1, 1, 'u1', 1), (2, 1, 'u2', 2), (3, 3, 'u2', 1);
