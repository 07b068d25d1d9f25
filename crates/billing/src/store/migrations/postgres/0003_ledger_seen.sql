-- How far each ledger is known to go, by shards as the counters: one that lacks the last row was set back, and must not
-- charge.
CREATE TABLE ledger_seen (
    ledger_id text COLLATE "C" NOT NULL,
    shard integer NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (ledger_id, shard)
) WITH (fillfactor = 20);
