-- Every decision, one row each; never updated, never deleted. A key is known for as long as the ledger lives. The
-- inserting statement draws positions while it holds a lock that a page waits for; gaps mean nothing.
CREATE SEQUENCE ledger_positions;
CREATE TABLE ledger (
    seq bigint PRIMARY KEY,
    key text COLLATE "C" UNIQUE,
    account text NOT NULL,
    fingerprint text NOT NULL,
    reference text,
    customer_id bigint NOT NULL,
    currency text NOT NULL,
    amount_minor bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('CHARGED', 'REFUSED', 'VOIDED')),
    route text NOT NULL,
    created_at bigint NOT NULL
);

-- One row: the id of this ledger. A restored copy gets a new id (`new-ledger-id`).
CREATE TABLE ledger_meta (ledger_id text NOT NULL);
CREATE UNIQUE INDEX ledger_meta_has_one_row ON ledger_meta ((1));
