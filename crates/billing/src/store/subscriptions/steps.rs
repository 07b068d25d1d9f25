//! The steps of each transaction on subscriptions and on their schedule, once for every database, by SQL that both
//! understand. Decides nothing: decisions are in `subscription` and `changeset::generation`.

use std::collections::HashSet;

use jiff::civil::Date;
use serde_json::json;

use super::rows::{self, TakenReference};
use super::statements::{Column, Sql, Statements};
use super::{GenerateBatch, Generated, ScheduleDecision, SubscriptionChange, SubscriptionChanged};
use crate::invoice::Reference;
use crate::schedule::run::SCHEDULE;
use crate::schedule::{Holidays, zone_data_version};
use crate::store::BATCH_MAX;
use crate::store::changeset::generation::{self, Generation};
use crate::store::reads::Value;
use crate::subscription::Subscription;

pub(super) fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

fn optional_text(text: Option<impl Into<String>>) -> Value {
    Value::OptionalText(text.map(Into::into))
}

pub(super) fn limit_of(limit: usize) -> Value {
    Value::Integer(i64::try_from(limit.min(BATCH_MAX)).unwrap_or(i64::MAX))
}

pub(super) fn subscriptions_where(sql: Sql, condition: &str) -> String {
    format!("SELECT {} FROM subscriptions AS s WHERE {condition}", rows::subscription(sql.prices()))
}

pub(in crate::store) async fn change<S: Statements>(
    tx: &S,
    reference: &Reference,
    change: &SubscriptionChange,
    holidays: &Holidays,
) -> Result<SubscriptionChanged, S::Error> {
    let sql = format!("{} {}", subscriptions_where(S::SQL, "s.reference = $1"), S::SQL.lock());
    let found: Vec<Subscription> = tx.rows(sql, vec![text(reference.as_str())]).await?;
    let Some(stored) = found.into_iter().next() else { return Ok(SubscriptionChanged::Unknown) };
    let now = tx.now_ms().await?;
    let changed = match stored.changed(&change.change, holidays, now) {
        Ok(changed) => Subscription { updated_at: now, ..changed },
        Err((field, problem)) => return Ok(SubscriptionChanged::Refused(field, problem)),
    };
    update(tx, std::slice::from_ref(&changed), now).await?;
    if let crate::subscription::Change::Price(price) = change.change {
        let sql = "INSERT INTO prices (subscription_id, from_on, amount_minor) VALUES ($1, $2, $3)
             ON CONFLICT (subscription_id, from_on) DO UPDATE SET amount_minor = excluded.amount_minor";
        let params = vec![
            Value::Integer(changed.id),
            text(price.from.to_string()),
            Value::Integer(price.amount_minor),
        ];
        tx.change(sql.to_owned(), params).await?;
    }
    let sql = "INSERT INTO operator_actions (action, subject, detail, reason, actor, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)";
    let params = vec![
        text(change.change.as_str()),
        text(reference.as_str()),
        optional_text(change.change.detail()),
        text(&*change.reason),
        text(&*change.actor),
        Value::Integer(now),
    ];
    tx.change(sql.to_owned(), params).await?;
    Ok(SubscriptionChanged::Applied(Box::new(changed)))
}

/// Writes the columns of a subscription that can change; all other columns never do.
async fn update<S: Statements>(tx: &S, subscriptions: &[Subscription], now: i64) -> Result<(), S::Error> {
    const COLUMNS: [Column; 7] = [
        ("id", "bigint"),
        ("state", "text"),
        ("ends_on", "text"),
        ("next_on", "text"),
        ("next_at", "bigint"),
        ("last_on", "text"),
        ("now", "bigint"),
    ];
    let date = |on: Option<Date>| on.map(|on| on.to_string());
    let records: Vec<_> = subscriptions
        .iter()
        .map(|after| {
            json!({
                "id": after.id, "state": after.state.as_str(), "ends_on": date(after.terms.ends_on),
                "next_on": date(after.next.map(|next| next.on)),
                "next_at": after.next.map(|next| next.charge_at), "last_on": date(after.last_on),
                "now": now,
            })
        })
        .collect();
    let sql = format!(
        "UPDATE subscriptions AS s SET state = u.state, ends_on = u.ends_on, next_on = u.next_on,
             next_at = u.next_at, last_on = u.last_on, updated_at = u.now FROM {} WHERE s.id = u.id",
        S::SQL.records(&COLUMNS)
    );
    let changed = tx.change(sql, vec![text(json!(records).to_string())]).await?;
    if usize::try_from(changed) == Ok(subscriptions.len()) {
        return Ok(());
    }
    Err(tx.corrupt(format!("{changed} subscriptions were changed instead of {}", subscriptions.len())))
}

/// Reads the prices again after the lock. In PostgreSQL the statement that locks reads prices as of its own beginning.
/// It would miss a change committed before the lock was taken, and the period would be invoiced at the old price.
async fn as_locked<S: Statements>(tx: &S, locked: Vec<Subscription>) -> Result<Vec<Subscription>, S::Error> {
    if S::SQL == Sql::Sqlite || locked.is_empty() {
        return Ok(locked);
    }
    let ids: Vec<_> = locked.iter().map(|subscription| json!({ "id": subscription.id })).collect();
    let records = S::SQL.records(&[("id", "bigint")]);
    let condition = format!("s.id IN (SELECT u.id FROM {records}) ORDER BY s.next_at, s.id");
    tx.rows(subscriptions_where(S::SQL, &condition), vec![text(json!(ids).to_string())]).await
}

pub(in crate::store) async fn generate<S: Statements>(
    tx: &S,
    batch: &GenerateBatch<'_>,
) -> Result<Generated, S::Error> {
    let now = tx.now_ms().await?;
    let on = batch.on.to_string();
    let condition = "s.state = 'active' AND s.next_on IS NOT NULL AND s.next_on = $1 AND s.next_at <= $2
         ORDER BY s.next_at, s.id LIMIT $3";
    let sql = format!("{} {}", subscriptions_where(S::SQL, condition), S::SQL.lock_free_ones());
    let params = vec![text(&*on), Value::Integer(now), limit_of(batch.limit)];
    let locked: Vec<Subscription> = tx.rows(sql, params).await?;
    let due = as_locked(tx, locked).await?;
    let (Some(first), Some(last)) = (due.first(), due.last()) else { return Ok(Generated::default()) };
    let cursor = (last.next.map(|next| next.charge_at), last.id);
    let late_ms = first.next.map_or(0, |next| now.saturating_sub(next.charge_at));
    let plan = generation::plan(&due, batch.on, now, batch.latest_until, batch.holidays)
        .map_err(|error| tx.corrupt(error.to_string()))?;
    let taken = taken_references(tx, &plan).await?;
    let invoices = insert_invoices(tx, &due, &plan, &taken, now).await?;
    let same = taken.iter().filter(|taken| is_same(taken, &due, &plan)).count();
    let others = i64::try_from(taken.len() - same).unwrap_or(i64::MAX);
    update(tx, &plan.advanced, now).await?;
    let generated = Generated { taken: due.len(), invoices, skipped: plan.skipped + others };
    let sql = "UPDATE schedule_runs SET invoices = invoices + $1, skipped = skipped + $2,
             late_ms = CASE WHEN late_ms < $3 THEN $3 ELSE late_ms END, cursor_at = $4, cursor_id = $5, updated_at = $6
         WHERE schedule = $7 AND period_on = $8";
    let params = vec![
        Value::Integer(generated.invoices),
        Value::Integer(generated.skipped),
        Value::Integer(late_ms),
        Value::OptionalInteger(cursor.0),
        Value::Integer(cursor.1),
        Value::Integer(now),
        text(SCHEDULE),
        text(on),
    ];
    tx.change(sql.to_owned(), params).await?;
    Ok(generated)
}

async fn taken_references<S: Statements>(tx: &S, plan: &Generation) -> Result<Vec<TakenReference>, S::Error> {
    let records: Vec<_> =
        plan.invoices.iter().map(|invoice| json!({ "reference": invoice.reference.as_str() })).collect();
    let sql = format!(
        "SELECT i.reference, i.customer_id, i.currency, i.amount_minor FROM invoices AS i
         WHERE i.reference IN (SELECT u.reference FROM {})",
        S::SQL.records(&[("reference", "text")])
    );
    tx.rows(sql, vec![text(json!(records).to_string())]).await
}

/// Whether the invoice with a period's reference is the one that the period would have made. If not, no second invoice
/// is made: the mismatch is logged, and an operator decides.
fn is_same(taken: &TakenReference, due: &[Subscription], plan: &Generation) -> bool {
    let is_same = plan.invoices.iter().any(|invoice| {
        let subscription = &due[invoice.place];
        invoice.reference == taken.reference
            && subscription.customer_id == taken.customer_id
            && subscription.currency == taken.currency
            && invoice.amount_minor == taken.amount_minor
    });
    if !is_same {
        tracing::error!(
            invoice.reference = taken.reference.as_str(),
            "a period was not invoiced: another invoice has its reference"
        );
    }
    is_same
}

async fn insert_invoices<S: Statements>(
    tx: &S,
    due: &[Subscription],
    plan: &Generation,
    taken: &[TakenReference],
    now: i64,
) -> Result<i64, S::Error> {
    const COLUMNS: [Column; 8] = [
        ("reference", "text"),
        ("customer_id", "bigint"),
        ("currency", "text"),
        ("amount_minor", "bigint"),
        ("due_at", "bigint"),
        ("charge_at", "bigint"),
        ("subscription_id", "bigint"),
        ("now", "bigint"),
    ];
    let taken: HashSet<&str> = taken.iter().map(|taken| taken.reference.as_str()).collect();
    let records: Vec<_> = plan
        .invoices
        .iter()
        .filter(|invoice| !taken.contains(invoice.reference.as_str()))
        .map(|invoice| {
            let subscription = &due[invoice.place];
            json!({
                "reference": invoice.reference.as_str(), "customer_id": subscription.customer_id.0,
                "currency": subscription.currency.code(), "amount_minor": invoice.amount_minor,
                "due_at": invoice.due_at, "charge_at": invoice.charge_at, "subscription_id": subscription.id,
                "now": now,
            })
        })
        .collect();
    if records.is_empty() {
        return Ok(0);
    }
    let sql = format!(
        "INSERT INTO invoices (reference, customer_id, currency, amount_minor, state, due_at, next_attempt_at,
             subscription_id, created_at, updated_at)
         SELECT u.reference, u.customer_id, u.currency, u.amount_minor, 'PENDING', u.due_at, u.charge_at,
             u.subscription_id, u.now, u.now FROM {} WHERE true
         ON CONFLICT DO NOTHING",
        S::SQL.records(&COLUMNS)
    );
    let inserted = tx.change(sql, vec![text(json!(records).to_string())]).await?;
    // An import has committed one of these references since they were read: read them again.
    if usize::try_from(inserted) != Ok(records.len()) {
        return Err(tx.conflict());
    }
    let inserted = i64::try_from(inserted).unwrap_or(i64::MAX);
    tx.count_pending(inserted).await?;
    Ok(inserted)
}

pub(in crate::store) async fn put_run<S: Statements>(
    tx: &S,
    decision: &ScheduleDecision,
) -> Result<(), S::Error> {
    let now = tx.now_ms().await?;
    let ScheduleDecision { on, state, reason, planned, confirmed_by } = decision;
    let sql =
        "INSERT INTO schedule_runs (schedule, period_on, state, reason, planned, zone_data, confirmed_by,
             created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
         ON CONFLICT (schedule, period_on) DO UPDATE SET state = excluded.state, reason = excluded.reason,
             planned = excluded.planned, zone_data = excluded.zone_data,
             confirmed_by = coalesce(excluded.confirmed_by, schedule_runs.confirmed_by),
             updated_at = excluded.updated_at";
    let params = vec![
        text(SCHEDULE),
        text(on.to_string()),
        text(state.as_str()),
        optional_text(reason.map(|reason| reason.as_str())),
        text(json!(planned).to_string()),
        text(zone_data_version()),
        optional_text(confirmed_by.as_deref()),
        Value::Integer(now),
    ];
    tx.change(sql.to_owned(), params).await.map(drop)
}
