-- One row if a simulation created the store: how far its clock is ahead of the database clock. Otherwise no row.
CREATE TABLE virtual_clock (
    one integer PRIMARY KEY CHECK (one = 1),
    ahead_ms bigint NOT NULL
);
