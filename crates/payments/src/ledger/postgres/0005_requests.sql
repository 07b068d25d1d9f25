-- A deployment that another account claimed and never charged under is recorded under the account that charges.
DROP INDEX ledger_deployments_undeclared;

-- What a repeated key is compared by, and what the minor units of an amount are. Rows from before, and those of the
-- previous version, compare without the reference and hold hundredths.
ALTER TABLE ledger ADD COLUMN fingerprint_version smallint NOT NULL DEFAULT 1;
ALTER TABLE ledger ADD COLUMN exponent smallint NOT NULL DEFAULT 2;
