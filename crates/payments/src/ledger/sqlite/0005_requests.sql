-- If another account claimed a deployment but never charged under it, the deployment is recorded under the account that
-- charges.
DROP INDEX ledger_deployments_undeclared;

-- The rule for comparing a repeated key, and the decimals of an amount. Older rows, and those of the previous version,
-- are compared without the reference and hold hundredths.
ALTER TABLE ledger ADD COLUMN fingerprint_version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE ledger ADD COLUMN exponent INTEGER NOT NULL DEFAULT 2;
