-- Networks of customers, and the effects of declines on their invoices. All new columns are optional: the previous
-- version can still write rows, and its declines count as `unknown`.
ALTER TABLE customers ADD COLUMN instrument_changed_at INTEGER;
CREATE INDEX customers_network ON customers (id) WHERE network <> 'none';

-- `dunning`: `waiting` until `next_attempt_at`, or no further attempt by itself. Set only for a PENDING invoice.
ALTER TABLE invoices ADD COLUMN dunning TEXT
    CHECK (dunning = 'waiting' OR dunning = 'exhausted' OR dunning = 'hard' OR dunning = 'fix');
CREATE INDEX invoices_dunning ON invoices (customer_id, dunning) WHERE dunning IS NOT NULL;

-- Declines by instrument, for the limits of networks. A successful charge does not count for these limits.
CREATE INDEX attempts_refused ON attempts (customer_id, settled_at) WHERE state = 'REFUSED';
CREATE INDEX attempts_hard ON attempts (customer_id, settled_at) WHERE decline_class = 'hard';
