-- Which deployments of billing charge under which account; never updated, never deleted. At most one deployment of an
-- account was recorded without a declaration, and a deployment was recorded like this under one account only. All
-- others were declared.
CREATE TABLE ledger_deployments (
    id INTEGER PRIMARY KEY,
    deployment_id TEXT NOT NULL,
    account TEXT NOT NULL,
    how TEXT NOT NULL CHECK (how = 'first' OR how = 'adopted' OR how = 'declared'),
    why TEXT,
    actor TEXT,
    created_at INTEGER NOT NULL,
    UNIQUE (account, deployment_id)
) STRICT;
CREATE UNIQUE INDEX ledger_deployments_undeclared_of_account ON ledger_deployments (account) WHERE how <> 'declared';
CREATE UNIQUE INDEX ledger_deployments_undeclared ON ledger_deployments (deployment_id) WHERE how <> 'declared';
