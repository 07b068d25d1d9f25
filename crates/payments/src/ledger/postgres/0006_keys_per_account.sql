-- A key is unique within its account, at once in a ledger without rows. In one with rows the previous version may be
-- running, which needs the index over all accounts: it stays until `payments keys-per-account`.
DO $$
BEGIN
    LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT 1 FROM ledger) THEN
        ALTER TABLE ledger DROP CONSTRAINT ledger_key_key;
        CREATE UNIQUE INDEX ledger_key_of_account ON ledger (key, account);
        UPDATE payments_migrations SET breaks_older = true WHERE name = 'requests';
    END IF;
END
$$;
