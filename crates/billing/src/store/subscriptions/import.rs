//! The steps of an import of subscriptions, once for every database. Decides nothing: decisions are in
//! `changeset::subscription_import`.

use serde_json::json;

use super::SubscriptionImported;
use super::rows::{KNOWN_CUSTOMER, OPERATOR_PRICE};
use super::statements::{Column, Statements};
use super::steps::{subscriptions_where, text};
use crate::customer::{CustomerName, numbers};
use crate::schedule::calendar::format_time;
use crate::store::changeset::subscription_import::{
    self, CreatedSubscription, KnownCustomer, KnownSubscriptions, OperatorPrice,
};
use crate::store::reads::Value;
use crate::subscription::{CHANGE_PRICE, NewSubscription, Subscription};

pub(in crate::store) async fn import<S: Statements>(
    tx: &S,
    batch: &[NewSubscription],
    dry_run: bool,
) -> Result<Vec<SubscriptionImported>, S::Error> {
    let known = KnownSubscriptions::new(
        known_customers(tx, batch).await?,
        known_subscriptions(tx, batch).await?,
        operator_prices(tx, batch).await?,
    );
    let plan = subscription_import::plan(batch, known);
    if !dry_run {
        insert_customers(tx, &plan.customers).await?;
        insert_subscriptions(tx, &plan.created).await?;
    }
    Ok(plan.answers)
}

/// The customers that the batch names, and the owners of numbers that a new customer might get.
async fn known_customers<S: Statements>(
    tx: &S,
    batch: &[NewSubscription],
) -> Result<Vec<KnownCustomer>, S::Error> {
    let (mut ids, mut references) = (Vec::new(), Vec::new());
    for new in batch {
        match &new.customer {
            CustomerName::Id(id) => ids.push(json!({ "id": id.0 })),
            CustomerName::Reference(reference) => {
                ids.extend(numbers(reference).map(|id| json!({ "id": id.0 })));
                references.push(json!({ "reference": reference.as_str() }));
            }
        }
    }
    let find = |condition: &str, column: Column| {
        let records = S::SQL.records(&[column]);
        format!(
            "SELECT {KNOWN_CUSTOMER} FROM customers AS c WHERE {condition} IN (SELECT u.{} FROM {records})",
            column.0
        )
    };
    let sql = find("c.id", ("id", "bigint"));
    let mut known: Vec<KnownCustomer> = tx.rows(sql, vec![text(json!(ids).to_string())]).await?;
    if !references.is_empty() {
        let sql = find("c.reference IS NOT NULL AND c.reference", ("reference", "text"));
        known.extend(tx.rows::<KnownCustomer>(sql, vec![text(json!(references).to_string())]).await?);
    }
    Ok(known)
}

fn references(batch: &[NewSubscription]) -> Vec<Value> {
    let references: Vec<_> = batch.iter().map(|new| json!({ "reference": new.reference.as_str() })).collect();
    vec![text(json!(references).to_string())]
}

async fn known_subscriptions<S: Statements>(
    tx: &S,
    batch: &[NewSubscription],
) -> Result<Vec<Subscription>, S::Error> {
    let records = S::SQL.records(&[("reference", "text")]);
    let condition = format!("s.reference IN (SELECT u.reference FROM {records})");
    tx.rows(subscriptions_where(S::SQL, &condition), references(batch)).await
}

async fn operator_prices<S: Statements>(
    tx: &S,
    batch: &[NewSubscription],
) -> Result<Vec<OperatorPrice>, S::Error> {
    let sql = format!(
        "SELECT {OPERATOR_PRICE} FROM operator_actions
         WHERE action = '{CHANGE_PRICE}' AND detail IS NOT NULL AND subject IN (SELECT u.reference FROM {})",
        S::SQL.records(&[("reference", "text")])
    );
    tx.rows(sql, references(batch)).await
}

async fn insert_customers<S: Statements>(tx: &S, customers: &[KnownCustomer]) -> Result<(), S::Error> {
    let record = |KnownCustomer { id, currency, reference }: &KnownCustomer| {
        let reference = reference.as_ref().map(|reference| reference.as_str());
        json!({ "id": id.0, "currency": currency.code(), "reference": reference })
    };
    let records: Vec<_> = customers.iter().map(record).collect();
    let sql = format!(
        "INSERT INTO customers (id, currency, reference)
         SELECT u.id, u.currency, u.reference FROM {} WHERE true ORDER BY u.id
         ON CONFLICT DO NOTHING",
        S::SQL.records(&[("id", "bigint"), ("currency", "text"), ("reference", "text")])
    );
    insert_all(tx, sql, &records).await
}

async fn insert_subscriptions<S: Statements>(
    tx: &S,
    created: &[CreatedSubscription<'_>],
) -> Result<(), S::Error> {
    const COLUMNS: [Column; 13] = [
        ("reference", "text"),
        ("customer_id", "bigint"),
        ("currency", "text"),
        ("anchor_day", "integer"),
        ("every_months", "integer"),
        ("zone", "text"),
        ("at", "text"),
        ("starts_on", "text"),
        ("ends_on", "text"),
        ("holidays", "text"),
        ("next_on", "text"),
        ("next_at", "bigint"),
        ("now", "bigint"),
    ];
    let now = tx.now_ms().await?;
    let records: Vec<_> = created
        .iter()
        .map(|CreatedSubscription { new, customer_id }| {
            json!({
                "reference": new.reference.as_str(), "customer_id": customer_id.0,
                "currency": new.currency.code(), "anchor_day": new.terms.anchor_day.day(),
                "every_months": new.terms.every_months.months(), "zone": new.terms.zone.name(),
                "at": format_time(new.terms.at), "starts_on": new.terms.starts_on.to_string(),
                "ends_on": new.terms.ends_on.map(|on| on.to_string()),
                "holidays": new.terms.holidays.as_str(), "next_on": new.next.map(|next| next.on.to_string()),
                "next_at": new.next.map(|next| next.charge_at), "now": now,
            })
        })
        .collect();
    let sql = format!(
        "INSERT INTO subscriptions (reference, customer_id, currency, anchor_day, every_months, zone, at, starts_on,
             ends_on, holidays, next_on, next_at, state, created_at, updated_at)
         SELECT u.reference, u.customer_id, u.currency, u.anchor_day, u.every_months, u.zone, u.at, u.starts_on,
             u.ends_on, u.holidays, u.next_on, u.next_at, 'active', u.now, u.now FROM {} WHERE true
         ON CONFLICT DO NOTHING",
        S::SQL.records(&COLUMNS)
    );
    insert_all(tx, sql, &records).await?;
    let prices: Vec<_> = created
        .iter()
        .flat_map(|CreatedSubscription { new, .. }| {
            new.prices.as_slice().iter().map(|price| {
                let from_on = price.from.to_string();
                json!({ "reference": new.reference.as_str(), "from_on": from_on, "amount_minor": price.amount_minor })
            })
        })
        .collect();
    let sql = format!(
        "INSERT INTO prices (subscription_id, from_on, amount_minor)
         SELECT s.id, u.from_on, u.amount_minor FROM {} JOIN subscriptions AS s ON s.reference = u.reference",
        S::SQL.records(&[("reference", "text"), ("from_on", "text"), ("amount_minor", "bigint")])
    );
    insert_all(tx, sql, &prices).await
}

/// Inserts the rows. Fails if another import has inserted some of them first: then the plan is out of date.
async fn insert_all<S: Statements>(
    tx: &S,
    sql: String,
    records: &[serde_json::Value],
) -> Result<(), S::Error> {
    if records.is_empty() {
        return Ok(());
    }
    let inserted = tx.change(sql, vec![text(json!(records).to_string())]).await?;
    if usize::try_from(inserted) == Ok(records.len()) { Ok(()) } else { Err(tx.conflict()) }
}
