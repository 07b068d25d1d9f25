//! Billing's schema as ordered steps, one numbered SQL file each. Steps are appended and never changed: databases
//! record them by number and name. Each step leaves the previous version working (expand now, contract one version
//! later).

use chassis::schema::Migration;

macro_rules! step {
    ($name:literal, $file:literal) => {
        Migration { name: $name, sql: include_str!($file), breaks_older: false }
    };
}

pub(super) static SQLITE: [Migration; 17] = [
    step!("billing", "sqlite/0001_billing.sql"),
    step!("resolutions", "sqlite/0002_resolutions.sql"),
    step!("ledger acceptances", "sqlite/0003_ledger_acceptances.sql"),
    step!("run joins", "sqlite/0004_run_joins.sql"),
    step!("run versions", "sqlite/0005_run_versions.sql"),
    step!("ledger seen", "sqlite/0006_ledger_seen.sql"),
    step!("run problems", "sqlite/0007_run_problems.sql"),
    step!("ledger acknowledgements", "sqlite/0008_ledger_acknowledgements.sql"),
    step!("reference nfc", "sqlite/0009_reference_nfc.sql"),
    step!("subscriptions", "sqlite/0010_subscriptions.sql"),
    step!("operator control", "sqlite/0011_operator_control.sql"),
    step!("dunning", "sqlite/0012_dunning.sql"),
    step!("scheduled claims", "sqlite/0013_scheduled_claims.sql"),
    step!("unbacked acknowledgements", "sqlite/0014_unbacked_acknowledgements.sql"),
    step!("charged days", "sqlite/0015_charged_days.sql"),
    step!("invoices of customer", "sqlite/0016_invoices_of_customer.sql"),
    step!("attempts by invoice", "sqlite/0017_attempts_by_invoice.sql"),
];

/// PostgreSQL's support came later, so its first step contains what SQLite's earlier steps had added.
pub(super) static POSTGRES: [Migration; 16] = [
    step!("billing", "postgres/0001_billing.sql"),
    step!("run versions", "postgres/0002_run_versions.sql"),
    step!("ledger seen", "postgres/0003_ledger_seen.sql"),
    step!("run problems", "postgres/0004_run_problems.sql"),
    step!("ledger acknowledgements", "postgres/0005_ledger_acknowledgements.sql"),
    step!("reference nfc", "postgres/0006_reference_nfc.sql"),
    step!("claim ids", "postgres/0007_claim_ids.sql"),
    step!("subscriptions", "postgres/0008_subscriptions.sql"),
    step!("operator control", "postgres/0009_operator_control.sql"),
    step!("dunning", "postgres/0010_dunning.sql"),
    step!("scheduled claims", "postgres/0011_scheduled_claims.sql"),
    step!("virtual clock", "postgres/0012_virtual_clock.sql"),
    step!("unbacked acknowledgements", "postgres/0013_unbacked_acknowledgements.sql"),
    step!("charged days", "postgres/0014_charged_days.sql"),
    step!("invoices of customer", "postgres/0015_invoices_of_customer.sql"),
    step!("resolutions by invoice", "postgres/0016_resolutions_by_invoice.sql"),
];
