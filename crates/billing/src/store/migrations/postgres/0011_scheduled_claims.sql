-- A scheduled run claims in the order of ids, and must not read imported invoices that wait for another run.
CREATE INDEX invoices_scheduled_by_id ON invoices (id)
    WHERE next_attempt_at IS NOT NULL AND state = 'PENDING';
