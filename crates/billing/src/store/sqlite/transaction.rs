//! The primitives of a transaction on the writer's connection: facts are loaded and changes applied row by row, by
//! cached statements. Decides nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::{Ready, ready};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Columns, FromRow, Lease, charged_days, claims, control, dunning, imports, keys, ledgers, list, one,
    one_row, read, runs,
};
use crate::invoice::{
    Attempt, AttentionReason, CustomerId, Decline, Invoice, InvoiceId, InvoiceState, Network, PaidBy,
    Reference, RunId,
};
use crate::protocol::dunning::InstrumentHistory;
use crate::protocol::key::Key;
use crate::run_order::RunLimits;
use crate::store::changeset::control::CustomerFacts;
use crate::store::changeset::dunning::{LadderFacts, Postponed};
use crate::store::changeset::import::{ImportPlan, KnownRows};
use crate::store::changeset::{
    AdoptedAttempt, AttemptFact, Changeset, ClaimAgain, CustomersAndAmounts, LEASE_NEVER, LoadedFacts, Owner,
    ResolutionAudit, SendTimes, StateCountDeltas, needs_others,
};
use crate::store::control::OperatorNote;
use crate::store::located::{Located, Wanted};
use crate::store::transaction::{Candidates, ClaimOrder, PendingClaim, Transaction};
use crate::store::{ImportRow, LedgerSeen, Resolution, rows};

/// A job on the writer, which runs each job in a transaction.
pub(super) struct SqliteTransaction<'c> {
    pub(super) connection: &'c Connection,
    pub(super) lease: Lease,
}

type Done<T> = Ready<rusqlite::Result<T>>;

#[expect(refining_impl_trait_internal, reason = "SQLite does nothing that would be waited for")]
impl Transaction for SqliteTransaction<'_> {
    type Error = rusqlite::Error;

    fn locate(&self, wanted: &[Wanted<'_>]) -> Done<Vec<Located>> {
        ready(keys::locate(self.connection, wanted))
    }

    fn load_facts(&self, located: &[Located], references: &[&Reference]) -> Done<LoadedFacts> {
        ready(load_facts(self.connection, located, references))
    }

    fn load_owners(&self, references: &[&Reference]) -> Done<HashMap<String, Owner>> {
        ready(load_owners(self.connection, references))
    }

    fn load_send_times(&self, located: &Located) -> Done<Option<SendTimes>> {
        ready(load_send_times(self.connection, located, self.lease.now))
    }

    fn load_customers_and_amounts(&self, located: &[Located]) -> Done<HashMap<Key, CustomersAndAmounts>> {
        ready(load_customers_and_amounts(self.connection, located))
    }

    fn load_known(&self, rows: &[ImportRow], _: bool) -> Done<KnownRows> {
        ready(imports::load(self.connection, rows))
    }

    fn load_order(&self, run: RunId) -> Done<Option<ClaimOrder>> {
        ready(runs::order(self.connection, run, self.lease.now))
    }

    fn save_limits(&self, run: RunId, limits: &RunLimits) -> Done<()> {
        ready(runs::save_limits(self.connection, run, limits))
    }

    fn load_candidates(&self, claim: &PendingClaim, order: &ClaimOrder) -> Done<Candidates> {
        ready(claims::candidates(self.connection, claim, order))
    }

    fn insert_attempts(&self, attempts: Vec<Attempt>) -> Done<Vec<Attempt>> {
        ready(claims::insert(self.connection, attempts, self.lease))
    }

    fn load_instruments(
        &self,
        customers: &BTreeSet<CustomerId>,
        now_ms: i64,
    ) -> Done<HashMap<CustomerId, InstrumentHistory>> {
        ready(dunning::instruments(self.connection, customers, now_ms))
    }

    fn load_ladders(&self, invoices: &BTreeSet<InvoiceId>) -> Done<BTreeMap<InvoiceId, LadderFacts>> {
        ready(dunning::ladders(self.connection, invoices))
    }

    fn change_instrument(&self, customer: CustomerId) -> Done<()> {
        ready(dunning::change_instrument(self.connection, customer, self.lease.now))
    }

    fn load_retried(&self, customer: CustomerId) -> Done<BTreeSet<InvoiceId>> {
        ready(dunning::retried(self.connection, customer))
    }

    fn set_network(&self, customer: CustomerId, network: Network) -> Done<()> {
        ready(dunning::set_network(self.connection, customer, network))
    }

    fn lease_due(&self, limit: usize) -> Done<Vec<Attempt>> {
        ready(claims::lease_due(self.connection, limit, self.lease))
    }

    fn load_hold(&self, reference: &Reference) -> Done<Option<(InvoiceId, bool)>> {
        ready(control::hold_of(self.connection, reference))
    }

    fn load_customer(&self, customer: CustomerId) -> Done<Option<CustomerFacts>> {
        ready(control::load_customer_facts(self.connection, customer))
    }

    fn hold_invoice(&self, invoice: InvoiceId, held: bool) -> Done<()> {
        ready(control::hold_invoice(self.connection, invoice, held, self.lease.now))
    }

    fn hold_customer(&self, customer: CustomerId, held: bool) -> Done<()> {
        ready(control::hold_customer(self.connection, customer, held))
    }

    fn set_halt(&self, halts: bool, note: &OperatorNote) -> Done<bool> {
        ready(control::set_halt(self.connection, halts, note, self.lease.now))
    }

    fn record_action(&self, action: &str, subject: &str, note: &OperatorNote) -> Done<()> {
        ready(control::record_action(self.connection, action, subject, note, self.lease.now))
    }

    fn insert_audit(&self, resolution: &Resolution, invoice: InvoiceId, audit: ResolutionAudit) -> Done<()> {
        ready(insert_audit(self.connection, resolution, invoice, audit, self.lease.now))
    }

    fn see(&self, seen: &LedgerSeen) -> Done<()> {
        ready(ledgers::see(self.connection, seen))
    }

    fn postpone(&self, postponed: &[Postponed]) -> Done<()> {
        ready(dunning::postpone(self.connection, postponed))
    }

    fn apply(&self, changes: &Changeset) -> Done<()> {
        ready(apply(self.connection, changes, self.lease))
    }

    fn apply_import(&self, plan: &ImportPlan<'_>) -> Done<()> {
        ready(imports::apply(self.connection, plan, self.lease.now))
    }
}

pub(super) const FIND: &str = "SELECT a.run_id, a.state, i.state FROM attempts AS a
     JOIN invoices AS i ON i.id = a.invoice_id WHERE a.invoice_id = ?1 AND a.number = ?2 AND a.key = ?3";

/// Two look-ups by their partial indexes, however many final attempts the invoice has.
pub(super) const OPEN_OR_CHARGED: &str =
    "SELECT key, number, run_id, state FROM attempts WHERE invoice_id = ?1 AND state IN ('INTENT', 'IN_DOUBT')
     UNION ALL SELECT key, number, run_id, state FROM attempts WHERE invoice_id = ?1 AND state = 'CHARGED'";

fn load_facts(
    connection: &Connection,
    located: &[Located],
    references: &[&Reference],
) -> rusqlite::Result<LoadedFacts> {
    let mut facts = LoadedFacts { invoices: BTreeMap::new(), attempts: Vec::with_capacity(located.len()) };
    let mut shared = BTreeSet::new();
    let mut asked = HashSet::with_capacity(located.len());
    let mut find = connection.prepare_cached(FIND)?;
    for Located { key, invoice, number } in located {
        if asked.contains(key) {
            continue;
        }
        let read = |row: &rusqlite::Row<'_>| {
            let (key, run) = (key.clone(), RunId(row.integer(0)?));
            let fact = AttemptFact { key, invoice: *invoice, number: *number, run, state: row.value(1)? };
            Ok((fact, row.value(2)?))
        };
        let found = find.query_row(params![invoice.0, number, key.as_str()], read).optional()?;
        let Some((fact, state)) = found else { continue };
        asked.insert(key);
        if needs_others(fact.state, state) {
            shared.insert(fact.invoice);
        }
        facts.invoices.insert(fact.invoice, state);
        facts.attempts.push(fact);
    }
    for reference in references {
        let sql = "SELECT id, state FROM invoices WHERE reference = ?1";
        let found = one(connection, sql, [reference.as_str()], |row| {
            Ok((InvoiceId(row.integer(0)?), row.value(1)?))
        })?;
        facts.invoices.extend(found);
        shared.extend(found.map(|(id, _)| id));
    }
    for invoice in shared {
        let others = list(connection, OPEN_OR_CHARGED, [invoice.0], |row| {
            let (key, run) = (row.parsed(0, Key::parse)?, RunId(row.integer(2)?));
            Ok(AttemptFact { key, invoice, number: row.count(1)?, run, state: row.value(3)? })
        })?;
        facts.attempts.extend(others.into_iter().filter(|other| !asked.contains(&other.key)));
    }
    Ok(facts)
}

fn load_owners(
    connection: &Connection,
    references: &[&Reference],
) -> rusqlite::Result<HashMap<String, Owner>> {
    let sql = format!(
        "SELECT {}, (SELECT coalesce(max(a.number), 0) FROM attempts AS a WHERE a.invoice_id = i.id)
         FROM invoices AS i WHERE i.reference = ?1",
        rows::INVOICE
    );
    let mut owners = HashMap::with_capacity(references.len());
    for &reference in references {
        let owner = one(connection, &sql, [reference.as_str()], |row| {
            Ok(Owner { invoice: Invoice::from_row(row)?, last_number: row.count(rows::INVOICE_COLUMNS)? })
        })?;
        owners.extend(owner.map(|owner| (reference.as_str().to_owned(), owner)));
    }
    Ok(owners)
}

const SEND_TIMES: &str = "SELECT a.created_at, a.lease_until, i.updated_at FROM attempts AS a
     JOIN invoices AS i ON i.id = a.invoice_id WHERE a.invoice_id = ?1 AND a.number = ?2 AND a.key = ?3";

fn load_send_times(connection: &Connection, of: &Located, now: i64) -> rusqlite::Result<Option<SendTimes>> {
    one(connection, SEND_TIMES, params![of.invoice.0, of.number, of.key.as_str()], |row| {
        Ok(SendTimes { created_at: row.get(0)?, lease_until: row.get(1)?, parked_at: row.get(2)?, now })
    })
}

fn load_customers_and_amounts(
    connection: &Connection,
    located: &[Located],
) -> rusqlite::Result<HashMap<Key, CustomersAndAmounts>> {
    let sql = format!(
        "SELECT {} FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id
         WHERE a.invoice_id = ?1 AND a.number = ?2 AND a.key = ?3",
        rows::TERMS
    );
    let found = |of: &Located| {
        let place = params![of.invoice.0, of.number, of.key.as_str()];
        one(connection, &sql, place, read::<(Key, CustomersAndAmounts)>).transpose()
    };
    located.iter().filter_map(found).collect()
}

pub(super) const SET_ATTEMPT: &str = "UPDATE attempts SET state = ?3, sends = max(sends - ?4, 0),
     lease_until = coalesce(?5, lease_until), settled_at = coalesce(?6, settled_at),
     decline_class = coalesce(?7, decline_class), decline_code = coalesce(?8, decline_code)
     WHERE invoice_id = ?9 AND number = ?10 AND key = ?1 AND state = ?2";

const SET_INVOICE: &str =
    "UPDATE invoices SET state = ?3, paid_by = ?4, attention_reason = ?5, updated_at = ?6,
         next_attempt_at = CASE WHEN ?3 = 'PENDING' THEN next_attempt_at END, dunning = NULL
     WHERE id = ?1 AND state = ?2";

fn apply(connection: &Connection, changes: &Changeset, lease: Lease) -> rusqlite::Result<()> {
    insert_adopted(connection, &changes.adopted, lease.now)?;
    let mut set_attempt = connection.prepare_cached(SET_ATTEMPT)?;
    for change in &changes.attempts {
        let lease_until = change.claim_again.map(|again| match again {
            ClaimAgain::In(pause) => super::later(lease.now, pause),
            ClaimAgain::Never => LEASE_NEVER,
        });
        let (decline_class, decline_code) = Decline::columns(change.decline.as_ref());
        let changed = set_attempt.execute(params![
            change.read.key.as_str(),
            change.read.state.as_str(),
            change.state.as_str(),
            change.sends_taken_back,
            lease_until,
            change.closes().then_some(lease.now),
            decline_class,
            decline_code,
            change.read.invoice.0,
            change.read.number,
        ])?;
        one_row(changed, "an attempt is changed from the state that was read")?;
    }
    charged_days::add(connection, changes, lease.now)?;
    let mut set_invoice = connection.prepare_cached(SET_INVOICE)?;
    for change in &changes.invoices {
        let changed = set_invoice.execute(params![
            change.id.0,
            change.read.as_str(),
            change.status.state.as_str(),
            change.status.paid_by.map(PaidBy::as_str),
            change.status.attention.map(AttentionReason::as_str),
            lease.now,
        ])?;
        one_row(changed, "an invoice is changed from the state that was read")?;
    }
    add_state_counts(connection, &changes.state_counts)?;
    add_counters(connection, changes)?;
    if changes.joins_run { runs::join(connection).map(drop) } else { Ok(()) }
}

fn add_counters(connection: &Connection, changes: &Changeset) -> rusqlite::Result<()> {
    let sql = "UPDATE runs SET attempted = attempted + ?2, paid = paid + ?3, refused = refused + ?4,
         rejected = rejected + ?5, in_doubt = in_doubt + ?6, not_sent = not_sent + ?7 WHERE id = ?1";
    for (run, more) in &changes.counters {
        let changed = connection.prepare_cached(sql)?.execute([
            run.0,
            more.attempted,
            more.paid,
            more.refused,
            more.rejected,
            more.in_doubt,
            more.not_sent,
        ])?;
        one_row(changed, "counters belong to a run")?;
    }
    Ok(())
}

/// Adds counts, because the writer's connection has its triggers off: each would copy the pages that a statement
/// changes.
pub(super) fn add_state_counts(connection: &Connection, counts: &StateCountDeltas) -> rusqlite::Result<()> {
    let sql = "UPDATE invoice_counts SET invoices = invoices + ?2 WHERE state = ?1";
    for (state, delta) in counts.iter() {
        if state == InvoiceState::Cancelled {
            // The previous version does not know every state: the row of a state is created when it is first counted.
            let sql = "INSERT INTO invoice_counts VALUES (?1, 0) ON CONFLICT DO NOTHING";
            connection.prepare_cached(sql)?.execute([state.as_str()])?;
        }
        let changed = connection.prepare_cached(sql)?.execute(params![state.as_str(), delta])?;
        one_row(changed, "each state has its count")?;
    }
    Ok(())
}

fn insert_adopted(connection: &Connection, adopted: &[AdoptedAttempt], now: i64) -> rusqlite::Result<()> {
    if adopted.is_empty() {
        return Ok(());
    }
    let run = runs::latest_or_insert_finished(connection, now)?;
    let sql =
        "INSERT INTO attempts (key, invoice_id, number, customer_id, currency, amount_minor, state, sends,
             run_id, lease_until, created_at, settled_at, decline_class, decline_code)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, ?9, ?9, ?9, ?10, ?11)";
    let mut insert = connection.prepare_cached(sql)?;
    for attempt in adopted {
        let (decline_class, decline_code) = Decline::columns(attempt.decline.as_ref());
        insert.execute(params![
            attempt.key.as_str(),
            attempt.invoice.0,
            attempt.number,
            attempt.customer_id.0,
            attempt.money.currency.code(),
            attempt.money.amount_minor,
            attempt.state.as_str(),
            run.0,
            now,
            decline_class,
            decline_code,
        ])?;
    }
    Ok(())
}

fn insert_audit(
    connection: &Connection,
    resolution: &Resolution,
    invoice: InvoiceId,
    audit: ResolutionAudit,
    now: i64,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO resolutions (key, charged, reason, actor, created_at, attempt_from, attempt_to,
         invoice_from, invoice_to, invoice_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    connection.prepare_cached(sql)?.execute(params![
        resolution.key.as_str(),
        resolution.charged,
        resolution.reason,
        resolution.actor,
        now,
        audit.attempt.0.as_str(),
        audit.attempt.1.as_str(),
        audit.invoice.0.as_str(),
        audit.invoice.1.as_str(),
        invoice.0,
    ])?;
    Ok(())
}
