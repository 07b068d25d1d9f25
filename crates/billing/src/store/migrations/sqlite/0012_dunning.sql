-- Networks of customers, and what declines leave on their invoices. Columns without a value and indexes: the version
-- before writes rows as before, and what it records is `unknown`.
ALTER TABLE customers ADD COLUMN instrument_changed_at INTEGER;
CREATE INDEX customers_network ON customers (id) WHERE network <> 'none';

-- `dunning`: `waiting` until `next_attempt_at`, or no further attempt by itself. Only of a PENDING invoice.
ALTER TABLE invoices ADD COLUMN dunning TEXT
    CHECK (dunning = 'waiting' OR dunning = 'exhausted' OR dunning = 'hard' OR dunning = 'fix');
CREATE INDEX invoices_dunning ON invoices (customer_id, dunning) WHERE dunning IS NOT NULL;

-- Declines by instrument, for the limits of networks. A charge that succeeds pays for neither.
CREATE INDEX attempts_refused ON attempts (customer_id, settled_at) WHERE state = 'REFUSED';
CREATE INDEX attempts_hard ON attempts (customer_id, settled_at) WHERE decline_class = 'hard';
