-- The last known row of each ledger, in shards like the counters. A ledger that lacks this row was set back, and must
-- not charge.
CREATE TABLE ledger_seen (
    ledger_id text COLLATE "C" NOT NULL,
    shard integer NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (ledger_id, shard)
) WITH (fillfactor = 20);
