-- The problem that kept a run from charging.
ALTER TABLE runs ADD COLUMN problem TEXT;
ALTER TABLE runs ADD COLUMN problem_status INTEGER;
ALTER TABLE runs ADD COLUMN problem_count INTEGER NOT NULL DEFAULT 0;
