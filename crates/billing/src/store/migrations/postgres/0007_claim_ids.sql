-- The transaction that claimed the attempt last, so that it is read back when the answer to its commit was lost.
-- A column of ours: `xmin` does not survive a dump, logical replication or a failover. NULL: an older version claimed it.
ALTER TABLE attempts ADD COLUMN claim_id text;
