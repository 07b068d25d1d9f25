-- Held customers are few: claims look them up in an index that holds nobody else.
CREATE INDEX customers_held ON customers (id) WHERE held <> 0;
