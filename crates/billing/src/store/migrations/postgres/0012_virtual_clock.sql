-- One row: the store was created by a simulation, whose clock is so far ahead of the database's. None: it was not.
CREATE TABLE virtual_clock (
    one integer PRIMARY KEY CHECK (one = 1),
    ahead_ms bigint NOT NULL
);
