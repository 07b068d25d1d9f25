-- Version of the program that began the run: during an upgrade two versions run at once.
ALTER TABLE runs ADD COLUMN begun_by text;
