-- Which request wrote the row, so that it knows its own row from an equal one when the answer to its commit was lost.
-- Null of what an earlier version wrote.
ALTER TABLE ledger ADD COLUMN write_id bigint;
