-- Few customers are held: claims look them up in an index that contains no other customers.
CREATE INDEX customers_held ON customers (id) WHERE held;

-- The previous version neither reads nor writes CANCELLED; its statements fire the same function.
ALTER TABLE invoice_counts ADD COLUMN cancelled bigint NOT NULL DEFAULT 0;
CREATE OR REPLACE FUNCTION count_invoices() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moved record;
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT count(*) FILTER (WHERE state = 'PENDING') AS pending,
            count(*) FILTER (WHERE state = 'CHARGING') AS charging,
            count(*) FILTER (WHERE state = 'PAID') AS paid,
            count(*) FILTER (WHERE state = 'ATTENTION') AS attention,
            count(*) FILTER (WHERE state = 'CANCELLED') AS cancelled
        INTO moved FROM after_rows;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT -count(*) FILTER (WHERE state = 'PENDING') AS pending,
            -count(*) FILTER (WHERE state = 'CHARGING') AS charging,
            -count(*) FILTER (WHERE state = 'PAID') AS paid,
            -count(*) FILTER (WHERE state = 'ATTENTION') AS attention,
            -count(*) FILTER (WHERE state = 'CANCELLED') AS cancelled
        INTO moved FROM before_rows;
    ELSE
        SELECT coalesce(sum(sign) FILTER (WHERE state = 'PENDING'), 0) AS pending,
            coalesce(sum(sign) FILTER (WHERE state = 'CHARGING'), 0) AS charging,
            coalesce(sum(sign) FILTER (WHERE state = 'PAID'), 0) AS paid,
            coalesce(sum(sign) FILTER (WHERE state = 'ATTENTION'), 0) AS attention,
            coalesce(sum(sign) FILTER (WHERE state = 'CANCELLED'), 0) AS cancelled
        INTO moved FROM (SELECT state, 1 AS sign FROM after_rows
            UNION ALL SELECT state, -1 FROM before_rows) AS both_sides;
    END IF;
    IF moved.pending <> 0 OR moved.charging <> 0 OR moved.paid <> 0 OR moved.attention <> 0
        OR moved.cancelled <> 0 THEN
        UPDATE invoice_counts AS c SET pending = c.pending + moved.pending,
            charging = c.charging + moved.charging, paid = c.paid + moved.paid,
            attention = c.attention + moved.attention, cancelled = c.cancelled + moved.cancelled
        WHERE c.shard = pg_backend_pid() % 16;
    END IF;
    RETURN NULL;
END $$;
