-- The problem that kept a run from charging.
ALTER TABLE runs ADD COLUMN problem text, ADD COLUMN problem_status bigint,
    ADD COLUMN problem_count bigint NOT NULL DEFAULT 0;
