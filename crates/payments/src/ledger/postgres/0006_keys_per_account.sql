-- A key is unique within its account, immediately in a ledger without rows. On a ledger with rows the previous version
-- may be running, and needs the index over all accounts: this index stays until `payments keys-per-account`.
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
