-- The transaction that claimed the attempt last, so that a claim can be read back when the answer to its commit was
-- lost. Not `xmin`, which does not survive a dump, logical replication or a failover. NULL: an older version claimed
-- it.
ALTER TABLE attempts ADD COLUMN claim_id text;
