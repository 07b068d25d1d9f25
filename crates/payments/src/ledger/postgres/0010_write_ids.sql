-- Id of the request that wrote the row. It distinguishes the request's own row from an equal one after the response to
-- its commit was lost. Null for rows of earlier versions.
ALTER TABLE ledger ADD COLUMN write_id bigint;
