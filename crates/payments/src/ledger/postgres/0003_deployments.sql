-- Which deployments of billing charge under which account; never updated, never deleted. At most one deployment of an
-- account was recorded without a declaration, and a deployment was recorded like this under one account only. All
-- others were declared.
CREATE TABLE ledger_deployments (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    deployment_id text COLLATE "C" NOT NULL,
    account text NOT NULL,
    how text NOT NULL CHECK (how IN ('first', 'adopted', 'declared')),
    why text,
    actor text,
    created_at bigint NOT NULL,
    UNIQUE (account, deployment_id)
);
CREATE UNIQUE INDEX ledger_deployments_undeclared_of_account ON ledger_deployments (account) WHERE how <> 'declared';
CREATE UNIQUE INDEX ledger_deployments_undeclared ON ledger_deployments (deployment_id) WHERE how <> 'declared';
