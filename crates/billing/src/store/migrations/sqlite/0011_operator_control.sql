-- Few customers are held: claims look them up in an index that contains no other customers.
CREATE INDEX customers_held ON customers (id) WHERE held <> 0;
