-- Held customers are few: claims look them up in an index that holds no other customers.
CREATE INDEX customers_held ON customers (id) WHERE held <> 0;
