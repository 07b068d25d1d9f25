//! The primitives of a transaction: invoices are locked in the order of their numbers, facts are loaded after that, and
//! a changeset is written by one statement per table, whatever its size. Decides nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use chassis::postgres::{Param, PgError, Result, Row, Tx, Type, get};

use super::{changed, claims, control, dunning, imports, ledgers, ms, runs};
use crate::invoice::{
    Attempt, AttentionReason, CustomerId, Decline, Invoice, InvoiceId, Network, PaidBy, Reference, RunId,
};
use crate::protocol::dunning::InstrumentHistory;
use crate::protocol::key::Key;
use crate::run_order::RunLimits;
use crate::store::changeset::control::CustomerFacts;
use crate::store::changeset::dunning::{LadderFacts, Postponed};
use crate::store::changeset::import::{ImportPlan, KnownRows};
use crate::store::changeset::{
    AdoptedAttempt, AttemptChange, AttemptFact, Changeset, ClaimAgain, CustomersAndAmounts, InvoiceChange,
    LEASE_NEVER, LoadedFacts, Owner, ResolutionAudit, SendTimes,
};
use crate::store::control::OperatorNote;
use crate::store::located::{Located, Wanted};
use crate::store::rows::{self, Columns, FromRow};
use crate::store::transaction::{Candidates, ClaimOrder, PendingClaim, Transaction};
use crate::store::{ImportRow, LedgerSeen, Resolution};

/// An open transaction. Attempts that it claims get this lease and this claim id.
pub(super) struct PostgresTransaction {
    pub(super) tx: Tx,
    pub(super) lease: Duration,
    pub(super) claim_id: String,
    /// Whether candidates of a claim, and their customers, are locked until the transaction ends.
    locks_candidates: bool,
}

impl PostgresTransaction {
    pub(super) fn new(tx: Tx, lease: Duration, claim_id: String) -> Self {
        Self { tx, lease, claim_id, locks_candidates: true }
    }

    /// A transaction that claims nothing: it locks no candidate and skips no locked one, and sees only candidates of
    /// customers whose network is known.
    pub(super) fn looking_on(self) -> Self {
        Self { locks_candidates: false, ..self }
    }
}

/// The previous version looks up keys by their index, which therefore stays one version longer than this version needs
/// it.
const LOCATE: &str = "
    SELECT a.key, a.invoice_id, a.number FROM unnest($1::text[], $2::text[]) AS u (key, reference)
    JOIN invoices AS i ON i.reference = u.reference JOIN attempts AS a ON a.invoice_id = i.id AND a.key = u.key
    UNION ALL SELECT a.key, a.invoice_id, a.number FROM attempts AS a WHERE a.key = ANY($3)";

/// A transaction that changes the state of an attempt locks its invoice first, always in this order.
const LOCK: &str = "
    SELECT i.id, i.state FROM invoices AS i
    WHERE i.id = ANY($1
        || ARRAY(SELECT named.id FROM invoices AS named WHERE named.reference = ANY($2)))
    ORDER BY i.id FOR UPDATE";

/// Read after the lock, so that no other transaction can change these rows.
const FACTS: &str = "
    SELECT a.key, a.invoice_id, a.number, a.run_id, a.state FROM attempts AS a
    WHERE a.invoice_id = ANY($1) AND (a.state IN ('INTENT', 'IN_DOUBT', 'CHARGED') OR a.key = ANY($2))";

/// Uses the database's clock, not this process's.
const SEND_TIMES: &str = "
    SELECT a.created_at, a.lease_until, i.updated_at, billing_now_ms()
    FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id
    WHERE a.invoice_id = $1 AND a.number = $2 AND a.key = $3";

const AUDIT: &str = "
    INSERT INTO resolutions (key, charged, reason, actor, created_at, attempt_from, attempt_to, invoice_from,
        invoice_to, invoice_id) VALUES ($1, $2, $3, $4, billing_now_ms(), $5, $6, $7, $8, $9)";

impl Transaction for PostgresTransaction {
    type Error = PgError;

    async fn locate(&self, wanted: &[Wanted<'_>]) -> Result<Vec<Located>> {
        let (named, unnamed): (Vec<&Wanted<'_>>, Vec<_>) =
            wanted.iter().partition(|of| of.reference.is_some());
        let keys = |some: &[&Wanted<'_>]| -> Vec<String> {
            some.iter().map(|of| of.key.as_str().to_owned()).collect()
        };
        let (named_keys, keys) = (keys(&named), keys(&unnamed));
        let references: Vec<&str> = named.iter().filter_map(|of| Some(of.reference?.as_str())).collect();
        let params: &[Param<'_>] =
            &[(&named_keys, Type::TEXT_ARRAY), (&references, Type::TEXT_ARRAY), (&keys, Type::TEXT_ARRAY)];
        let located = |row: &Row| {
            let (key, invoice) = (row.parsed(0, Key::parse)?, InvoiceId(get(row, 1)?));
            Ok(Located { key, invoice, number: row.count(2)? })
        };
        self.tx.query(LOCATE, params).await?.iter().map(located).collect()
    }

    async fn load_facts(&self, located: &[Located], references: &[&Reference]) -> Result<LoadedFacts> {
        let Places { keys, invoices: named, .. } = places(located);
        let references = texts(references);
        let params: &[Param<'_>] = &[(&named, Type::INT8_ARRAY), (&references, Type::TEXT_ARRAY)];
        let mut invoices = BTreeMap::new();
        for row in &self.tx.query(LOCK, params).await? {
            invoices.insert(InvoiceId(get(row, 0)?), row.value(1)?);
        }
        let ids: Vec<i64> = invoices.keys().map(|id: &InvoiceId| id.0).collect();
        let found = self.tx.query(FACTS, &[(&ids, Type::INT8_ARRAY), (&keys, Type::TEXT_ARRAY)]).await?;
        let mut attempts = Vec::with_capacity(found.len());
        for row in &found {
            let (key, invoice) = (row.parsed(0, Key::parse)?, InvoiceId(get(row, 1)?));
            let (number, run) = (row.count(2)?, RunId(get(row, 3)?));
            attempts.push(AttemptFact { key, invoice, number, run, state: row.value(4)? });
        }
        Ok(LoadedFacts { invoices, attempts })
    }

    async fn load_owners(&self, references: &[&Reference]) -> Result<HashMap<String, Owner>> {
        let sql = format!(
            "SELECT {}, (SELECT coalesce(max(a.number), 0) FROM attempts AS a WHERE a.invoice_id = i.id)
             FROM invoices AS i WHERE i.reference = ANY($1)",
            rows::INVOICE
        );
        let references = texts(references);
        let found = self.tx.query(&sql, &[(&references, Type::TEXT_ARRAY)]).await?;
        let mut owners = HashMap::with_capacity(found.len());
        for row in &found {
            let invoice = Invoice::from_row(row)?;
            owners.insert(
                invoice.reference.as_str().to_owned(),
                Owner { invoice, last_number: row.count(rows::INVOICE_COLUMNS)? },
            );
        }
        Ok(owners)
    }

    async fn load_send_times(&self, of: &Located) -> Result<Option<SendTimes>> {
        let number = number(of.number);
        let params: &[Param<'_>] =
            &[(&of.invoice.0, Type::INT8), (&number, Type::INT4), (&of.key.as_str(), Type::TEXT)];
        let found = self.tx.query(SEND_TIMES, params).await?;
        let read = |row| {
            let (created_at, lease_until) = (get(row, 0)?, get(row, 1)?);
            Ok(SendTimes { created_at, lease_until, parked_at: get(row, 2)?, now: get(row, 3)? })
        };
        found.first().map(read).transpose()
    }

    async fn load_customers_and_amounts(
        &self,
        located: &[Located],
    ) -> Result<HashMap<Key, CustomersAndAmounts>> {
        let sql = format!(
            "SELECT {} FROM unnest($1::text[], $2::bigint[], $3::integer[]) AS u (key, invoice_id, number)
             JOIN attempts AS a ON a.invoice_id = u.invoice_id AND a.number = u.number AND a.key = u.key
             JOIN invoices AS i ON i.id = a.invoice_id",
            rows::TERMS
        );
        let Places { keys, invoices, numbers } = places(located);
        let params: &[Param<'_>] =
            &[(&keys, Type::TEXT_ARRAY), (&invoices, Type::INT8_ARRAY), (&numbers, Type::INT4_ARRAY)];
        let found = self.tx.query(&sql, params).await?;
        found.iter().map(<(Key, CustomersAndAmounts)>::from_row).collect()
    }

    async fn load_known(&self, rows: &[ImportRow], for_update: bool) -> Result<KnownRows> {
        imports::load(&self.tx, rows, for_update).await
    }

    async fn load_order(&self, run: RunId) -> Result<Option<ClaimOrder>> {
        control::lock_for_claim(&self.tx).await?;
        runs::order(&self.tx, run).await
    }

    async fn save_limits(&self, run: RunId, limits: &RunLimits) -> Result<()> {
        runs::save_limits(&self.tx, run, limits).await
    }

    async fn load_candidates(&self, claim: &PendingClaim, order: &ClaimOrder) -> Result<Candidates> {
        claims::candidates(&self.tx, claim, order, self.locks_candidates).await
    }

    async fn insert_attempts(&self, attempts: Vec<Attempt>) -> Result<Vec<Attempt>> {
        claims::insert(self, attempts).await
    }

    async fn load_instruments(
        &self,
        customers: &BTreeSet<CustomerId>,
        now_ms: i64,
    ) -> Result<HashMap<CustomerId, InstrumentHistory>> {
        dunning::instruments(&self.tx, customers, now_ms, self.locks_candidates).await
    }

    async fn load_ladders(&self, invoices: &BTreeSet<InvoiceId>) -> Result<BTreeMap<InvoiceId, LadderFacts>> {
        dunning::ladders(&self.tx, invoices).await
    }

    async fn change_instrument(&self, customer: CustomerId) -> Result<()> {
        dunning::change_instrument(&self.tx, customer).await
    }

    async fn load_retried(&self, customer: CustomerId) -> Result<BTreeSet<InvoiceId>> {
        dunning::retried(&self.tx, customer).await
    }

    async fn set_network(&self, customer: CustomerId, network: Network) -> Result<()> {
        dunning::set_network(&self.tx, customer, network).await
    }

    async fn lease_due(&self, limit: usize) -> Result<Vec<Attempt>> {
        claims::lease_due(self, limit).await
    }

    async fn load_hold(&self, reference: &Reference) -> Result<Option<(InvoiceId, bool)>> {
        control::hold_of(&self.tx, reference).await
    }

    async fn load_customer(&self, customer: CustomerId) -> Result<Option<CustomerFacts>> {
        control::load_customer_facts(&self.tx, customer).await
    }

    async fn hold_invoice(&self, invoice: InvoiceId, held: bool) -> Result<()> {
        control::hold_invoice(&self.tx, invoice, held).await
    }

    async fn hold_customer(&self, customer: CustomerId, held: bool) -> Result<()> {
        control::hold_customer(&self.tx, customer, held).await
    }

    async fn set_halt(&self, halts: bool, note: &OperatorNote) -> Result<bool> {
        control::set_halt(&self.tx, halts, note).await
    }

    async fn record_action(&self, action: &str, subject: &str, note: &OperatorNote) -> Result<()> {
        control::record_action(&self.tx, action, subject, note).await
    }

    async fn insert_audit(
        &self,
        resolution: &Resolution,
        invoice: InvoiceId,
        audit: ResolutionAudit,
    ) -> Result<()> {
        let params: &[Param<'_>] = &[
            (&resolution.key.as_str(), Type::TEXT),
            (&resolution.charged, Type::BOOL),
            (&resolution.reason, Type::TEXT),
            (&resolution.actor, Type::TEXT),
            (&audit.attempt.0.as_str(), Type::TEXT),
            (&audit.attempt.1.as_str(), Type::TEXT),
            (&audit.invoice.0.as_str(), Type::TEXT),
            (&audit.invoice.1.as_str(), Type::TEXT),
            (&invoice.0, Type::INT8),
        ];
        self.tx.execute(AUDIT, params).await.map(drop)
    }

    async fn see(&self, seen: &LedgerSeen) -> Result<()> {
        ledgers::see(&self.tx, seen).await
    }

    async fn postpone(&self, postponed: &[Postponed]) -> Result<()> {
        dunning::postpone(&self.tx, postponed).await
    }

    /// Changes attempts, then invoices, whose triggers count them, and counters last, because many transactions share
    /// their rows.
    async fn apply(&self, changes: &Changeset) -> Result<()> {
        insert_adopted(&self.tx, &changes.adopted).await?;
        set_attempts(&self.tx, &changes.attempts).await?;
        set_invoices(&self.tx, &changes.invoices).await?;
        if changes.joins_run {
            runs::join(&self.tx).await?;
        }
        runs::add(&self.tx, &changes.counters).await
    }

    async fn apply_import(&self, plan: &ImportPlan<'_>) -> Result<()> {
        imports::apply(&self.tx, plan).await
    }
}

/// The columns of [`Located`] as arrays.
struct Places<'a> {
    keys: Vec<&'a str>,
    invoices: Vec<i64>,
    numbers: Vec<i32>,
}

fn places(located: &[Located]) -> Places<'_> {
    Places {
        keys: located.iter().map(|of| of.key.as_str()).collect(),
        invoices: located.iter().map(|of| of.invoice.0).collect(),
        numbers: located.iter().map(|of| number(of.number)).collect(),
    }
}

fn texts<'a>(references: &[&'a Reference]) -> Vec<&'a str> {
    references.iter().map(|reference| reference.as_str()).collect()
}

const SET_ATTEMPTS: &str = "
    WITH now AS MATERIALIZED (SELECT billing_now_ms() AS ms)
    UPDATE attempts AS a SET state = u.after, sends = greatest(a.sends - u.taken_back, 0),
        lease_until = CASE WHEN u.again_ms IS NULL THEN a.lease_until WHEN u.again_ms < 0 THEN $7
            ELSE least(now.ms + u.again_ms, $7 - 1) END,
        settled_at = CASE WHEN u.closes THEN now.ms ELSE a.settled_at END,
        decline_class = coalesce(u.decline_class, a.decline_class),
        decline_code = coalesce(u.decline_code, a.decline_code)
    FROM now, unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::bigint[], $6::boolean[], $8::text[],
        $9::text[], $10::bigint[], $11::integer[])
        AS u (key, before, after, taken_back, again_ms, closes, decline_class, decline_code, invoice_id, number)
    WHERE a.invoice_id = u.invoice_id AND a.number = u.number AND a.key = u.key AND a.state = u.before";

/// The value of [`ClaimAgain::Never`] in [`SET_ATTEMPTS`].
const NEVER_MS: i64 = -1;

async fn set_attempts(tx: &Tx, changes: &[AttemptChange]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let keys: Vec<&str> = changes.iter().map(|change| change.read.key.as_str()).collect();
    let invoices: Vec<i64> = changes.iter().map(|change| change.read.invoice.0).collect();
    let numbers: Vec<i32> = changes.iter().map(|change| number(change.read.number)).collect();
    let before: Vec<&str> = changes.iter().map(|change| change.read.state.as_str()).collect();
    let after: Vec<&str> = changes.iter().map(|change| change.state.as_str()).collect();
    let taken_back: Vec<i32> = changes.iter().map(|change| change.sends_taken_back).collect();
    let again = |change: &AttemptChange| {
        change.claim_again.map(|again| match again {
            ClaimAgain::In(pause) => ms(pause),
            ClaimAgain::Never => NEVER_MS,
        })
    };
    let again: Vec<Option<i64>> = changes.iter().map(again).collect();
    let closes: Vec<bool> = changes.iter().map(AttemptChange::closes).collect();
    let (classes, codes): (Vec<Option<&str>>, Vec<Option<&str>>) =
        changes.iter().map(|change| Decline::columns(change.decline.as_ref())).unzip();
    let params: &[Param<'_>] = &[
        (&keys, Type::TEXT_ARRAY),
        (&before, Type::TEXT_ARRAY),
        (&after, Type::TEXT_ARRAY),
        (&taken_back, Type::INT4_ARRAY),
        (&again, Type::INT8_ARRAY),
        (&closes, Type::BOOL_ARRAY),
        (&LEASE_NEVER, Type::INT8),
        (&classes, Type::TEXT_ARRAY),
        (&codes, Type::TEXT_ARRAY),
        (&invoices, Type::INT8_ARRAY),
        (&numbers, Type::INT4_ARRAY),
    ];
    let done = tx.execute(SET_ATTEMPTS, params).await?;
    changed(done, keys.len(), "attempts are changed from the state that was read")
}

const SET_INVOICES: &str = "
    WITH now AS MATERIALIZED (SELECT billing_now_ms() AS ms)
    UPDATE invoices AS i SET state = u.after, paid_by = u.paid_by, attention_reason = u.reason, updated_at = now.ms,
        next_attempt_at = CASE WHEN u.after = 'PENDING' THEN i.next_attempt_at END, dunning = NULL
    FROM now, unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[])
        AS u (id, before, after, paid_by, reason)
    WHERE i.id = u.id AND i.state = u.before";

async fn set_invoices(tx: &Tx, changes: &[InvoiceChange]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = changes.iter().map(|change| change.id.0).collect();
    let before: Vec<&str> = changes.iter().map(|change| change.read.as_str()).collect();
    let after: Vec<&str> = changes.iter().map(|change| change.status.state.as_str()).collect();
    let paid_by: Vec<Option<&str>> =
        changes.iter().map(|change| change.status.paid_by.map(PaidBy::as_str)).collect();
    let reasons: Vec<Option<&str>> =
        changes.iter().map(|change| change.status.attention.map(AttentionReason::as_str)).collect();
    let params: &[Param<'_>] = &[
        (&ids, Type::INT8_ARRAY),
        (&before, Type::TEXT_ARRAY),
        (&after, Type::TEXT_ARRAY),
        (&paid_by, Type::TEXT_ARRAY),
        (&reasons, Type::TEXT_ARRAY),
    ];
    let done = tx.execute(SET_INVOICES, params).await?;
    changed(done, ids.len(), "invoices are changed from the state that was read")
}

const ADOPT: &str = "
    WITH now AS MATERIALIZED (SELECT billing_now_ms() AS ms)
    INSERT INTO attempts (key, invoice_id, number, customer_id, currency, amount_minor, state, sends, run_id,
        lease_until, created_at, settled_at, decline_class, decline_code)
    SELECT u.key, u.invoice_id, u.number, u.customer_id, u.currency, u.amount_minor, u.state, 1, $8,
        now.ms, now.ms, now.ms, u.decline_class, u.decline_code
    FROM now, unnest($1::text[], $2::bigint[], $3::integer[], $4::bigint[], $5::text[], $6::bigint[], $7::text[],
        $9::text[], $10::text[])
        AS u (key, invoice_id, number, customer_id, currency, amount_minor, state, decline_class, decline_code)";

async fn insert_adopted(tx: &Tx, adopted: &[AdoptedAttempt]) -> Result<()> {
    if adopted.is_empty() {
        return Ok(());
    }
    let run = runs::latest_or_insert_finished(tx).await?;
    let keys: Vec<&str> = adopted.iter().map(|attempt| attempt.key.as_str()).collect();
    let invoices: Vec<i64> = adopted.iter().map(|attempt| attempt.invoice.0).collect();
    let numbers: Vec<i32> = adopted.iter().map(|attempt| number(attempt.number)).collect();
    let customers: Vec<i64> = adopted.iter().map(|attempt| attempt.customer_id.0).collect();
    let currencies: Vec<&str> = adopted.iter().map(|attempt| attempt.money.currency.code()).collect();
    let amounts: Vec<i64> = adopted.iter().map(|attempt| attempt.money.amount_minor).collect();
    let states: Vec<&str> = adopted.iter().map(|attempt| attempt.state.as_str()).collect();
    let (classes, codes): (Vec<Option<&str>>, Vec<Option<&str>>) =
        adopted.iter().map(|attempt| Decline::columns(attempt.decline.as_ref())).unzip();
    let params: &[Param<'_>] = &[
        (&keys, Type::TEXT_ARRAY),
        (&invoices, Type::INT8_ARRAY),
        (&numbers, Type::INT4_ARRAY),
        (&customers, Type::INT8_ARRAY),
        (&currencies, Type::TEXT_ARRAY),
        (&amounts, Type::INT8_ARRAY),
        (&states, Type::TEXT_ARRAY),
        (&run.0, Type::INT8),
        (&classes, Type::TEXT_ARRAY),
        (&codes, Type::TEXT_ARRAY),
    ];
    let done = tx.execute(ADOPT, params).await?;
    changed(done, adopted.len(), "an attempt that is adopted is new")
}

/// The value for an `integer` column.
pub(super) fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
