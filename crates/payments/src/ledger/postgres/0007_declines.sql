-- Why a charge was refused. Null for other rows, and for rows that the previous version writes.
ALTER TABLE ledger ADD COLUMN decline_class text;
ALTER TABLE ledger ADD COLUMN decline_code text;

-- What operators set at run time, in the form in which they sent it; null once they have reset it. Only the last
-- revision is stored.
CREATE TABLE run_time_settings (
    name text PRIMARY KEY,
    value text,
    revision bigint NOT NULL,
    set_at bigint NOT NULL
);
