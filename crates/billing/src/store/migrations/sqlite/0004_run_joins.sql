-- A run that was joined checks for new work once more before it finishes.
ALTER TABLE runs ADD COLUMN joins INTEGER NOT NULL DEFAULT 0;
