-- Sums of the CHARGED attempts by UTC day of their settlement and by currency, so that no page sums a million rows.
-- Filled at the start of the program, which also adds charges that an earlier version recorded since. The triggers
-- update the sums for statements typed by hand; the store's writer adds by itself. An amount stops at the limit of the
-- column instead of failing: these sums must not keep a settlement from being recorded.
CREATE TABLE charged_days (
    day INTEGER NOT NULL,
    currency TEXT NOT NULL,
    charges INTEGER NOT NULL,
    amount_minor INTEGER NOT NULL,
    PRIMARY KEY (day, currency)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER attempts_charged_in AFTER INSERT ON attempts WHEN NEW.state = 'CHARGED' BEGIN
    INSERT INTO charged_days VALUES (NEW.settled_at / 86400000, NEW.currency, 1, NEW.amount_minor)
        ON CONFLICT (day, currency) DO UPDATE SET charges = charges + 1,
            amount_minor = min(max(amount_minor + excluded.amount_minor, -9223372036854775808), 9223372036854775807);
END;
CREATE TRIGGER attempts_charged_out AFTER DELETE ON attempts WHEN OLD.state = 'CHARGED' BEGIN
    UPDATE charged_days SET charges = charges - 1, amount_minor = amount_minor - OLD.amount_minor
        WHERE day = OLD.settled_at / 86400000 AND currency = OLD.currency;
END;
CREATE TRIGGER attempts_charged_from AFTER UPDATE ON attempts WHEN OLD.state = 'CHARGED' BEGIN
    UPDATE charged_days SET charges = charges - 1, amount_minor = amount_minor - OLD.amount_minor
        WHERE day = OLD.settled_at / 86400000 AND currency = OLD.currency;
END;
CREATE TRIGGER attempts_charged_to AFTER UPDATE ON attempts WHEN NEW.state = 'CHARGED' BEGIN
    INSERT INTO charged_days VALUES (NEW.settled_at / 86400000, NEW.currency, 1, NEW.amount_minor)
        ON CONFLICT (day, currency) DO UPDATE SET charges = charges + 1,
            amount_minor = min(max(amount_minor + excluded.amount_minor, -9223372036854775808), 9223372036854775807);
END;
