//! The steps of each transaction on subscriptions and on their schedule, once for every database, by SQL that each
//! understands. Decides nothing: that is `subscription`'s and `changeset::generation`'s.

use std::collections::{HashMap, HashSet};

use jiff::civil::Date;
use serde_json::json;

use super::rows::{self, AnyRow, CurrencySum, KnownCustomer, OPERATOR_ACTION, SCHEDULE_RUN, TakenReference};
use super::statements::{Column, Sql, Statements};
use super::{
    DueDate, GenerateBatch, Generated, OperatorAction, ScheduleDecision, SubscriptionChange,
    SubscriptionChanged, SubscriptionImported,
};
use crate::invoice::{CustomerId, Reference};
use crate::money::Currency;
use crate::schedule::calendar::format_time;
use crate::schedule::run::{SCHEDULE, ScheduleRun, ScheduleRunState, Sums};
use crate::schedule::{Holidays, zone_data_version};
use crate::store::changeset::generation::{self, Generation};
use crate::store::reads::{Reader, Value};
use crate::store::{BATCH_MAX, Result as StoreResult};
use crate::subscription::{NewSubscription, Subscription, SubscriptionState};

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

fn optional_text(text: Option<impl Into<String>>) -> Value {
    Value::OptionalText(text.map(Into::into))
}

fn limit_of(limit: usize) -> Value {
    Value::Integer(i64::try_from(limit.min(BATCH_MAX)).unwrap_or(i64::MAX))
}

fn subscriptions_where(sql: Sql, condition: &str) -> String {
    format!("SELECT {} FROM subscriptions AS s WHERE {condition}", rows::subscription(sql.prices()))
}

/// What an import knows of a batch before it decides.
struct KnownSubscriptions {
    customers: HashMap<CustomerId, Currency>,
    subscriptions: HashMap<Reference, Subscription>,
}

/// Rows of one batch see each other.
fn decide<'a>(
    batch: &'a [NewSubscription],
    known: &mut KnownSubscriptions,
) -> (Vec<SubscriptionImported>, Vec<&'a NewSubscription>, Vec<(CustomerId, Currency)>) {
    let (mut answers, mut created, mut customers) = (Vec::new(), Vec::<&NewSubscription>::new(), Vec::new());
    let mut places: HashMap<&Reference, usize> = HashMap::new();
    for new in batch {
        let answer = match (known.customers.get(&new.customer_id), known.subscriptions.get(&new.reference)) {
            (Some(&currency), _) if currency != new.currency => {
                SubscriptionImported::CurrencyMismatch(currency)
            }
            (_, Some(stored)) if stored.is_same(new) => SubscriptionImported::Unchanged,
            (_, Some(_)) => SubscriptionImported::Differs,
            (_, None) => match places.get(&new.reference) {
                Some(&place) if created[place] == new => SubscriptionImported::Unchanged,
                Some(_) => SubscriptionImported::Differs,
                None => SubscriptionImported::Created,
            },
        };
        if answer == SubscriptionImported::Created {
            places.insert(&new.reference, created.len());
            created.push(new);
            if known.customers.insert(new.customer_id, new.currency).is_none() {
                customers.push((new.customer_id, new.currency));
            }
        }
        answers.push(answer);
    }
    (answers, created, customers)
}

pub(in crate::store) async fn import<S: Statements>(
    tx: &S,
    batch: &[NewSubscription],
    dry_run: bool,
) -> Result<Vec<SubscriptionImported>, S::Error> {
    let names = json!(
        batch
            .iter()
            .map(|new| json!({ "id": new.customer_id.0, "reference": new.reference.as_str() }))
            .collect::<Vec<_>>()
    );
    const NAMES: [Column; 2] = [("id", "bigint"), ("reference", "text")];
    let names_of = |condition: &str| format!("{condition} FROM {})", S::SQL.records(&NAMES));
    let customers = names_of("SELECT id, currency FROM customers WHERE id IN (SELECT u.id");
    let subscriptions = names_of(&subscriptions_where(S::SQL, "s.reference IN (SELECT u.reference"));
    let names = names.to_string();
    let customers: Vec<KnownCustomer> = tx.rows(customers, vec![text(names.clone())]).await?;
    let subscriptions: Vec<Subscription> = tx.rows(subscriptions, vec![text(names)]).await?;
    let mut known = KnownSubscriptions {
        customers: customers.into_iter().map(|KnownCustomer(id, currency)| (id, currency)).collect(),
        subscriptions: subscriptions.into_iter().map(|stored| (stored.reference.clone(), stored)).collect(),
    };
    let (answers, created, customers) = decide(batch, &mut known);
    if !dry_run {
        insert_customers(tx, &customers).await?;
        insert_subscriptions(tx, &created).await?;
    }
    Ok(answers)
}

async fn insert_customers<S: Statements>(
    tx: &S,
    customers: &[(CustomerId, Currency)],
) -> Result<(), S::Error> {
    let records: Vec<_> =
        customers.iter().map(|(id, currency)| json!({ "id": id.0, "currency": currency.code() })).collect();
    let sql = format!(
        "INSERT INTO customers (id, currency) SELECT u.id, u.currency FROM {} WHERE true ORDER BY u.id
         ON CONFLICT DO NOTHING",
        S::SQL.records(&[("id", "bigint"), ("currency", "text")])
    );
    insert_all(tx, sql, &records).await
}

async fn insert_subscriptions<S: Statements>(tx: &S, created: &[&NewSubscription]) -> Result<(), S::Error> {
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
        .map(|new| {
            json!({
                "reference": new.reference.as_str(), "customer_id": new.customer_id.0,
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
        .flat_map(|new| {
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

/// Another import was faster with some of these: what was decided no longer holds.
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

/// Writes what changes in the life of a subscription; nothing else of its row ever does.
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
    let due: Vec<Subscription> = tx.rows(sql, params).await?;
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

/// Whether the invoice that has a period's reference is what the period would have made. If not, no second invoice is
/// made: it is logged, and an operator decides.
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
    // An import that committed one of these references since they were looked for: look again.
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

/// Plain reads, which need no transaction.
pub(in crate::store) struct Reads<'a, R>(pub(in crate::store) &'a R, pub(in crate::store) Sql);

impl<R: Reader> Reads<'_, R> {
    pub(in crate::store) async fn subscriptions(
        &self,
        state: Option<SubscriptionState>,
        after: i64,
        limit: usize,
    ) -> StoreResult<Vec<Subscription>> {
        let state = state.map_or(String::new(), |state| format!("s.state = '{}' AND", state.as_str()));
        let sql = subscriptions_where(self.1, &format!("{state} s.id > $1 ORDER BY s.id LIMIT $2"));
        self.0.page(sql, vec![Value::Integer(after), limit_of(limit)]).await
    }

    pub(in crate::store) async fn subscription(
        &self,
        reference: &Reference,
    ) -> StoreResult<Option<Subscription>> {
        self.0.row(subscriptions_where(self.1, "s.reference = $1"), vec![text(reference.as_str())]).await
    }

    pub(in crate::store) async fn actions_on(
        &self,
        subject: &str,
        after: i64,
        limit: usize,
    ) -> StoreResult<Vec<OperatorAction>> {
        let sql = format!(
            "SELECT {OPERATOR_ACTION} FROM operator_actions WHERE subject = $1 AND id > $2 ORDER BY id LIMIT $3"
        );
        self.0.page(sql, vec![text(subject), Value::Integer(after), limit_of(limit)]).await
    }

    /// One step in the index, however many periods are due.
    pub(in crate::store) async fn next_due_date(&self, after: Option<Date>) -> StoreResult<Option<DueDate>> {
        let sql = "SELECT next_on, next_at FROM subscriptions
             WHERE state = 'active' AND next_on IS NOT NULL AND next_on > $1 ORDER BY next_on, next_at LIMIT 1";
        self.0.row(sql.to_owned(), vec![text(after.map_or(String::new(), |on| on.to_string()))]).await
    }

    pub(in crate::store) async fn left_on(&self, on: Date) -> StoreResult<Sums> {
        let sql = "SELECT s.currency, count(*), CAST(sum((SELECT p.amount_minor FROM prices AS p
                 WHERE p.subscription_id = s.id AND p.from_on <= s.next_on ORDER BY p.from_on DESC LIMIT 1)) AS bigint)
             FROM subscriptions AS s WHERE s.state = 'active' AND s.next_on IS NOT NULL AND s.next_on = $1
             GROUP BY s.currency ORDER BY s.currency";
        let sums: Vec<CurrencySum> = self.0.page(sql.to_owned(), vec![text(on.to_string())]).await?;
        Ok(sums.into_iter().map(|CurrencySum(currency, sum)| (currency, sum)).collect())
    }

    pub(in crate::store) async fn schedule_runs(
        &self,
        state: Option<ScheduleRunState>,
        after: Option<Date>,
        limit: usize,
    ) -> StoreResult<Vec<ScheduleRun>> {
        let state = state.map_or(String::new(), |state| format!("state = '{}' AND", state.as_str()));
        let sql = format!(
            "SELECT {SCHEDULE_RUN} FROM schedule_runs WHERE {state} schedule = '{SCHEDULE}' AND period_on > $1
             ORDER BY period_on LIMIT $2"
        );
        let after = after.map_or(String::new(), |on| on.to_string());
        self.0.page(sql, vec![text(after), limit_of(limit)]).await
    }

    pub(in crate::store) async fn has_scheduled_invoice(&self, now_ms: i64) -> StoreResult<bool> {
        // As claims see it: a run that claims nothing would be begun again and again.
        let sql = "SELECT i.id FROM invoices AS i WHERE i.state = 'PENDING' AND i.next_attempt_at IS NOT NULL
             AND i.next_attempt_at <= $1 AND NOT i.held AND NOT EXISTS (SELECT 1 FROM halt)
             AND NOT EXISTS (SELECT 1 FROM customers AS c WHERE c.id = i.customer_id AND c.held) LIMIT 1";
        Ok(self.0.row::<AnyRow>(sql.to_owned(), vec![Value::Integer(now_ms)]).await?.is_some())
    }
}
