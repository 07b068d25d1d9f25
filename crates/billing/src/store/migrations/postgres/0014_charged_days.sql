-- Sums of the CHARGED attempts by UTC day of their settlement and by currency, so that no page sums a million rows. In
-- shards like the other counters. Triggers add once per statement, because the previous version charges at the same
-- time and does not know the table. Each amount has a limit far below that of the column, so that the sum of 16 shards
-- cannot fail: these sums must not keep a settlement from being recorded.
CREATE TABLE charged_days (
    day bigint NOT NULL,
    currency text COLLATE "C" NOT NULL,
    shard integer NOT NULL,
    charges bigint NOT NULL,
    amount_minor bigint NOT NULL,
    PRIMARY KEY (day, currency, shard)
) WITH (fillfactor = 50);

CREATE FUNCTION charged_amount(amount numeric) RETURNS bigint LANGUAGE sql IMMUTABLE
    AS $$ SELECT least(greatest(amount, -576460752303423487), 576460752303423487)::bigint $$;

-- The lock until the end of the transaction is for a transaction that fires the trigger twice: otherwise rows of two
-- statements could be locked in two orders.
CREATE FUNCTION add_charged_days() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    this_shard integer := pg_backend_pid() % 16;
    is_charged boolean;
BEGIN
    IF TG_OP = 'INSERT' THEN
        is_charged := EXISTS (SELECT 1 FROM after_rows WHERE state = 'CHARGED');
    ELSIF TG_OP = 'DELETE' THEN
        is_charged := EXISTS (SELECT 1 FROM before_rows WHERE state = 'CHARGED');
    ELSE
        is_charged := EXISTS (SELECT 1 FROM after_rows WHERE state = 'CHARGED')
            OR EXISTS (SELECT 1 FROM before_rows WHERE state = 'CHARGED');
    END IF;
    IF NOT is_charged THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('billing charged days'), this_shard);
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO charged_days AS c
        SELECT settled_at / 86400000, currency, this_shard, count(*), charged_amount(sum(amount_minor))
        FROM after_rows WHERE state = 'CHARGED' GROUP BY 1, 2
        ON CONFLICT (day, currency, shard) DO UPDATE SET charges = c.charges + EXCLUDED.charges,
            amount_minor = charged_amount(c.amount_minor::numeric + EXCLUDED.amount_minor);
    END IF;
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO charged_days AS c
        SELECT settled_at / 86400000, currency, this_shard, -count(*), charged_amount(-sum(amount_minor))
        FROM before_rows WHERE state = 'CHARGED' GROUP BY 1, 2
        ON CONFLICT (day, currency, shard) DO UPDATE SET charges = c.charges + EXCLUDED.charges,
            amount_minor = charged_amount(c.amount_minor::numeric + EXCLUDED.amount_minor);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER attempts_charged_in AFTER INSERT ON attempts REFERENCING NEW TABLE AS after_rows
    FOR EACH STATEMENT EXECUTE FUNCTION add_charged_days();
CREATE TRIGGER attempts_charged_out AFTER DELETE ON attempts REFERENCING OLD TABLE AS before_rows
    FOR EACH STATEMENT EXECUTE FUNCTION add_charged_days();
CREATE TRIGGER attempts_charged_over AFTER UPDATE ON attempts
    REFERENCING OLD TABLE AS before_rows NEW TABLE AS after_rows
    FOR EACH STATEMENT EXECUTE FUNCTION add_charged_days();

-- The lock of the triggers lets no other transaction charge until this one ends.
INSERT INTO charged_days
SELECT settled_at / 86400000, currency, 0, count(*), charged_amount(sum(amount_minor))
FROM attempts WHERE state = 'CHARGED' GROUP BY 1, 2;
