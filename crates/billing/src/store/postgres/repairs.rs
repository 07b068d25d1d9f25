//! Repairs in PostgreSQL: what the provider's ledger says of a key, taken in by a store that may have forgotten it.
//! What it means is decided in `store::sheet` and `store::plan`; nothing is sent from here.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chassis::postgres::{Param, PgError, Result, Tx, Type, get};

use super::{counts, rows, runs, settling};
use crate::invoice::{AttemptState, CustomerId, Invoice, Reference, RunId};
use crate::protocol::key::{DeploymentId, Key};
use crate::protocol::transition::Settlement;
use crate::store::sheet::Sheet;
use crate::store::{LedgerAcceptance, LedgerFact, REPAIR_NUMBERS_MAX, Repaired, Settled};

const IDS: &str = "SELECT id FROM invoices WHERE reference = ANY($1)";

const LATEST_RUN: &str = "SELECT id FROM runs ORDER BY id DESC LIMIT 1";

const MADE_RUN: &str = "
    INSERT INTO runs (state, started_at, finished_at, lease_until)
    SELECT 'finished', now.ms, now.ms, now.ms FROM (SELECT billing_now_ms() AS ms OFFSET 0) AS now RETURNING id";

const ADOPT: &str = "
    WITH now AS MATERIALIZED (SELECT billing_now_ms() AS ms)
    INSERT INTO attempts (key, invoice_id, number, customer_id, currency, amount_minor, state, sends, run_id,
        lease_until, created_at, settled_at)
    SELECT u.key, u.invoice_id, u.number, u.customer_id, u.currency, u.amount_minor, u.state, 1, u.run_id,
        now.ms, now.ms, now.ms
    FROM now, unnest($1::text[], $2::bigint[], $3::integer[], $4::bigint[], $5::text[], $6::bigint[], $7::text[],
        $8::bigint[]) AS u (key, invoice_id, number, customer_id, currency, amount_minor, state, run_id)";

const TERMS: &str = "
    SELECT a.key, a.customer_id, a.currency, a.amount_minor, i.customer_id, i.currency, i.amount_minor
    FROM attempts AS a JOIN invoices AS i ON i.id = a.invoice_id WHERE a.key = ANY($1)";

/// An invoice that facts name, and the last number of its attempts.
struct Owner {
    invoice: Invoice,
    last: u32,
}

/// An attempt that only the ledger knew.
struct Adopted<'a> {
    fact: &'a LedgerFact,
    invoice: Invoice,
    number: i32,
    state: AttemptState,
    run: RunId,
}

pub(super) async fn repair(tx: Tx, deployment: DeploymentId, facts: &[LedgerFact]) -> Result<Vec<Repaired>> {
    tx.find_by_index().await?;
    let references: Vec<&str> =
        facts.iter().filter_map(|fact| fact.reference.as_ref().map(Reference::as_str)).collect();
    let ids = tx.query(IDS, &[(&references, Type::TEXT_ARRAY)]).await?;
    let ids: Vec<i64> = ids.iter().map(|row| get(row, 0)).collect::<Result<_>>()?;
    let keys: Vec<&Key> = facts.iter().map(|fact| &fact.key).collect();
    let mut sheet = settling::read(&tx, &keys, &ids).await?;
    let other_terms = other_terms(&tx, facts).await?;
    let mut owners = owners(&tx, &ids).await?;
    let mut run = None;
    let mut adopted = Vec::new();
    let mut repaired = Vec::with_capacity(facts.len());
    for fact in facts {
        let settlement =
            Settlement { key: fact.key.clone(), outcome: fact.outcome, again_in: Duration::ZERO };
        repaired.push(match sheet.repair(&settlement, !other_terms.contains(&fact.key)) {
            Settled::Applied => Repaired::Settled,
            Settled::Same => Repaired::Known,
            Settled::Conflict(_) => Repaired::Conflict,
            Settled::Unknown => {
                let Some(owner) = fact.reference.as_ref().and_then(|name| owners.get_mut(name)) else {
                    repaired.push(Repaired::Unknown);
                    continue;
                };
                let run = match run {
                    Some(run) => run,
                    None => *run.insert(a_run(&tx).await?),
                };
                adopt(&mut sheet, deployment, fact, owner, run, &mut adopted)
            }
        });
    }
    write_adopted(&tx, &adopted).await?;
    settling::write(&tx, &sheet).await?;
    if repaired.iter().any(|became| became.changed()) {
        runs::join(&tx).await?;
    }
    counts::settled(&tx, None, &sheet).await?;
    Ok(repaired)
}

/// Takes the attempt that the store has forgotten into the sheet, if the key is one of the invoice's.
fn adopt<'a>(
    sheet: &mut Sheet,
    deployment: DeploymentId,
    fact: &'a LedgerFact,
    owner: &mut Owner,
    run: RunId,
    adopted: &mut Vec<Adopted<'a>>,
) -> Repaired {
    let invoice = &owner.invoice;
    let mut numbers = 1..=owner.last.saturating_add(REPAIR_NUMBERS_MAX);
    let Some(number) = numbers.find(|&number| Key::new(deployment, &invoice.reference, number) == fact.key)
    else {
        return Repaired::Unknown;
    };
    let as_invoiced = fact.has_terms(invoice.customer_id, invoice.money);
    let taken = sheet.adopt((fact.key.clone(), invoice.id, run), as_invoiced, fact.outcome);
    let Some((state, calls_a_person)) = taken else { return Repaired::Unknown };
    owner.last = owner.last.max(number);
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    adopted.push(Adopted { fact, invoice: invoice.clone(), number, state, run });
    if calls_a_person { Repaired::Conflict } else { Repaired::Adopted }
}

/// Keys of rows that have other terms than the attempt under their key, or than that attempt's invoice.
async fn other_terms(tx: &Tx, facts: &[LedgerFact]) -> Result<HashSet<Key>> {
    let keys: Vec<&str> = facts.iter().map(|fact| fact.key.as_str()).collect();
    let by_key: HashMap<&str, &LedgerFact> = facts.iter().map(|fact| (fact.key.as_str(), fact)).collect();
    let mut other = HashSet::new();
    for row in &tx.query(TERMS, &[(&keys, Type::TEXT_ARRAY)]).await? {
        let key = rows::word(row, 0, Key::parse)?;
        let Some(fact) = by_key.get(key.as_str()) else { continue };
        let attempt = fact.has_terms(CustomerId(get(row, 1)?), rows::money(row, 2)?);
        let invoice = fact.has_terms(CustomerId(get(row, 4)?), rows::money(row, 5)?);
        if !(attempt && invoice) {
            other.insert(key);
        }
    }
    Ok(other)
}

async fn owners(tx: &Tx, ids: &[i64]) -> Result<HashMap<Reference, Owner>> {
    let sql = format!(
        "SELECT {}, (SELECT coalesce(max(a.number), 0) FROM attempts AS a WHERE a.invoice_id = i.id)
         FROM invoices AS i WHERE i.id = ANY($1)",
        rows::INVOICE
    );
    let found = tx.query(&sql, &[(&ids, Type::INT8_ARRAY)]).await?;
    let mut owners = HashMap::with_capacity(found.len());
    for row in &found {
        let invoice = rows::invoice(row)?;
        owners.insert(invoice.reference.clone(), Owner { invoice, last: rows::count(row, 10)? });
    }
    Ok(owners)
}

/// An attempt belongs to a run.
async fn a_run(tx: &Tx) -> Result<RunId> {
    let mut found = tx.query(LATEST_RUN, &[]).await?;
    if found.is_empty() {
        found = tx.query(MADE_RUN, &[]).await?;
    }
    let Some(row) = found.first() else { return Err(PgError::Corrupt("a run was not made".to_owned())) };
    Ok(RunId(get(row, 0)?))
}

async fn write_adopted(tx: &Tx, adopted: &[Adopted<'_>]) -> Result<()> {
    if adopted.is_empty() {
        return Ok(());
    }
    let money = |one: &Adopted<'_>| one.fact.money.unwrap_or(one.invoice.money);
    let keys: Vec<&str> = adopted.iter().map(|one| one.fact.key.as_str()).collect();
    let invoices: Vec<i64> = adopted.iter().map(|one| one.invoice.id.0).collect();
    let numbers: Vec<i32> = adopted.iter().map(|one| one.number).collect();
    let customers: Vec<i64> =
        adopted.iter().map(|one| one.fact.customer_id.unwrap_or(one.invoice.customer_id).0).collect();
    let currencies: Vec<&str> = adopted.iter().map(|one| money(one).currency.code()).collect();
    let amounts: Vec<i64> = adopted.iter().map(|one| money(one).amount_minor).collect();
    let states: Vec<&str> = adopted.iter().map(|one| one.state.as_str()).collect();
    let runs: Vec<i64> = adopted.iter().map(|one| one.run.0).collect();
    let params: &[Param<'_>] = &[
        (&keys, Type::TEXT_ARRAY),
        (&invoices, Type::INT8_ARRAY),
        (&numbers, Type::INT4_ARRAY),
        (&customers, Type::INT8_ARRAY),
        (&currencies, Type::TEXT_ARRAY),
        (&amounts, Type::INT8_ARRAY),
        (&states, Type::TEXT_ARRAY),
        (&runs, Type::INT8_ARRAY),
    ];
    let written = tx.execute(ADOPT, params).await?;
    rows::changed(written, adopted.len(), "an attempt that is adopted is new")
}

pub(super) async fn accept_ledger(tx: Tx, acceptance: &LedgerAcceptance) -> Result<Option<String>> {
    let found = tx.query("SELECT ledger_id FROM deployment FOR UPDATE", &[]).await?;
    let Some(row) = found.first() else { return Err(PgError::Corrupt("no deployment".to_owned())) };
    let former: Option<String> = get(row, 0)?;
    let LedgerAcceptance { ledger_id, reason, actor } = acceptance;
    if former.as_ref() == Some(ledger_id) {
        return Ok(former);
    }
    let changed = tx.execute("UPDATE deployment SET ledger_id = $1", &[(ledger_id, Type::TEXT)]).await?;
    rows::changed(changed, 1, "a store has one deployment")?;
    let sql = "INSERT INTO ledger_acceptances (ledger_from, ledger_to, reason, actor, created_at)
         VALUES ($1, $2, $3, $4, billing_now_ms())";
    let params: &[Param<'_>] =
        &[(&former, Type::TEXT), (ledger_id, Type::TEXT), (reason, Type::TEXT), (actor, Type::TEXT)];
    tx.execute(sql, params).await?;
    Ok(former)
}
