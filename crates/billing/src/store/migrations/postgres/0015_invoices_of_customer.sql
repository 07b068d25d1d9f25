-- The invoices of a customer, newest first.
CREATE INDEX invoices_of_customer ON invoices (customer_id, id);
