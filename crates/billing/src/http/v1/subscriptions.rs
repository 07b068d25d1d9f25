//! `/v1/subscriptions`: create, import, list and change subscriptions, and list operators' actions on one. Knows how a
//! subscription is written; not when it is due.

use std::borrow::Cow;
use std::collections::BTreeMap;

use api::billing::{ChangeRequest, Price as PriceItem, Subscription as Item, SubscriptionAction};
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::response::Response;
use chassis::problem::{FieldError, Problem};
use chassis::server::Connection;
use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::attempts::validate_reason_and_actor;
use super::imports::{self, RowOutcome, Rows};
use super::page::{Params, format_timestamp, json_response, page};
use super::row::Fault;
use super::{body, not_found_problem};
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::import_row;
use crate::invoice::Reference;
use crate::money::Currency;
use crate::schedule::calendar::{format_time, parse_date};
use crate::schedule::{Holidays, Price};
use crate::store::subscriptions::{
    OperatorAction, SubscriptionChange, SubscriptionChanged, SubscriptionImported,
};
use crate::store::{Store, StoreError};
use crate::subscription::{
    Change, Mistake, NewSubscription, RawFields, Subscription, SubscriptionState, minor_text, price_minor,
};

fn to_item(row: &Subscription) -> Item {
    let price = |price: &Price| PriceItem {
        from: price.from.to_string(),
        amount: minor_text(row.currency, price.amount_minor),
    };
    Item {
        reference: row.reference.as_str().to_owned(),
        customer_id: row.customer_id.0,
        customer_reference: row.customer_reference.as_ref().map(|name| name.as_str().to_owned()),
        currency: row.currency.code().into(),
        prices: row.prices.as_slice().iter().map(price).collect(),
        anchor_day: row.terms.anchor_day.day(),
        every_months: row.terms.every_months.months(),
        zone: row.terms.zone.name().into(),
        at: format_time(row.terms.at),
        starts_on: row.terms.starts_on.to_string(),
        ends_on: row.terms.ends_on.map(|on| on.to_string()),
        holidays: row.terms.holidays.as_str().into(),
        state: row.state.as_str().into(),
        next_on: row.next.map(|next| next.on.to_string()),
        next_charge_at: row.next.map(|next| format_timestamp(next.charge_at)),
        last_on: row.last_on.map(|on| on.to_string()),
        created_at: format_timestamp(row.created_at),
        updated_at: format_timestamp(row.updated_at),
    }
}

/// Parses one object. Numbers may be text, as in rows of a CSV file.
fn parse(line: &[u8], holidays: &Holidays) -> Result<NewSubscription, Fault> {
    let fault = |reference: Option<&str>, (field, message): Mistake| Fault {
        reference: reference.map(str::to_owned),
        field,
        message,
    };
    let whole = |message: String| fault(None, ("line", message));
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err(whole("is no JSON object".to_owned()));
    }
    let given: Given<'_> = serde_json::from_slice(line).map_err(|error| whole(error.to_string()))?;
    if given.state.is_some_and(|state| state.get() != "\"active\"") {
        return Err(fault(None, ("state", "of a new subscription must be active".to_owned())));
    }
    let texts = given.texts().map_err(|mistake| fault(None, mistake))?;
    let listed = given.prices.map(parse_listed_prices).transpose().map_err(|mistake| fault(None, mistake))?;
    let text = |field: &str| texts.get(field).map(|text| &**text);
    let prices =
        listed.as_ref().map(|prices| prices.iter().map(|(from, amount)| (&**from, &**amount)).collect());
    let fields = RawFields {
        reference: text("reference"),
        customer_id: text("customer_id"),
        customer_reference: text("customer_reference"),
        currency: text("currency"),
        amount: text("amount"),
        prices,
        anchor_day: text("anchor_day"),
        every_months: text("every_months"),
        zone: text("zone"),
        at: text("at"),
        starts_on: text("starts_on"),
        ends_on: text("ends_on"),
        holidays: text("holidays"),
    };
    NewSubscription::read(&fields, holidays).map_err(|mistake| fault(fields.reference, mistake))
}

/// The fields before any check. `state` is accepted because a listed subscription has it too.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given<'a> {
    #[serde(borrow, default)]
    reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    customer_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    customer_reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    currency: Option<&'a RawValue>,
    #[serde(borrow, default)]
    amount: Option<&'a RawValue>,
    #[serde(borrow, default)]
    prices: Option<&'a RawValue>,
    #[serde(borrow, default)]
    anchor_day: Option<&'a RawValue>,
    #[serde(borrow, default)]
    every_months: Option<&'a RawValue>,
    #[serde(borrow, default)]
    zone: Option<&'a RawValue>,
    #[serde(borrow, default)]
    at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    starts_on: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ends_on: Option<&'a RawValue>,
    #[serde(borrow, default)]
    holidays: Option<&'a RawValue>,
    #[serde(borrow, default)]
    state: Option<&'a RawValue>,
}

impl<'a> Given<'a> {
    fn texts(&self) -> Result<BTreeMap<&'static str, Cow<'a, str>>, Mistake> {
        let fields = [
            ("reference", self.reference),
            ("customer_id", self.customer_id),
            ("customer_reference", self.customer_reference),
            ("currency", self.currency),
            ("amount", self.amount),
            ("anchor_day", self.anchor_day),
            ("every_months", self.every_months),
            ("zone", self.zone),
            ("at", self.at),
            ("starts_on", self.starts_on),
            ("ends_on", self.ends_on),
            ("holidays", self.holidays),
        ];
        let mut texts = BTreeMap::new();
        for (field, raw) in fields {
            let text = raw.map(|raw| text_of(field, raw)).transpose()?.flatten();
            texts.extend(text.map(|text| (field, text)));
        }
        Ok(texts)
    }
}

/// Text, or a number as text; `None` for null and for an empty text, which is an empty cell of a CSV file.
fn text_of<'a>(field: &'static str, raw: &'a RawValue) -> Result<Option<Cow<'a, str>>, Mistake> {
    let json = raw.get();
    let text: Cow<'a, str> = match json.as_bytes().first() {
        Some(b'"') => {
            let text: Result<String, _> = serde_json::from_str(json);
            let text = text.map_err(|_| (field, import_row::LONE_SURROGATE.to_owned()))?;
            Cow::Owned(text)
        }
        Some(b'-' | b'0'..=b'9') => Cow::Borrowed(json),
        _ if json == "null" => return Ok(None),
        _ => return Err((field, "must be text or a number".to_owned())),
    };
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn parse_listed_prices(raw: &RawValue) -> Result<Vec<(String, String)>, Mistake> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Listed<'a> {
        from: String,
        #[serde(borrow)]
        amount: &'a RawValue,
    }
    const SHAPE: &str = "must be a list of {\"from\",\"amount\"}";
    let wrong = |error: serde_json::Error| ("prices", format!("{SHAPE}: {error}"));
    let listed: Vec<Listed<'_>> = serde_json::from_str(raw.get()).map_err(wrong)?;
    let price = |price: Listed<'_>| {
        let amount = text_of("prices", price.amount)?.ok_or_else(|| ("prices", SHAPE.to_owned()))?;
        Ok((price.from, amount.into_owned()))
    };
    listed.into_iter().map(price).collect()
}

/// Rows of subscriptions for an import.
struct Subscriptions<'a> {
    store: &'a dyn Store,
    holidays: &'a Holidays,
}

impl Rows for Subscriptions<'_> {
    type Row = NewSubscription;

    fn parse(&self, line: &[u8]) -> Result<NewSubscription, Fault> {
        parse(line, self.holidays)
    }

    fn reference<'r>(&self, row: &'r NewSubscription) -> &'r Reference {
        &row.reference
    }

    /// Does not search for other spellings: subscriptions are few, and each is written by hand or by one source.
    async fn stored_spellings(&self, rows: &[NewSubscription]) -> Result<Vec<Option<String>>, StoreError> {
        Ok(vec![None; rows.len()])
    }

    async fn take(&self, rows: &[NewSubscription], dry_run: bool) -> Result<Vec<RowOutcome>, StoreError> {
        let imported = self.store.import_subscriptions(rows, dry_run).await?;
        let taken =
            |(row, outcome): (&NewSubscription, SubscriptionImported)| match mistake_of_outcome(row, outcome)
            {
                Some((field, message)) => RowOutcome::Refused(Fault {
                    reference: Some(row.reference.as_str().to_owned()),
                    field,
                    message,
                }),
                None if outcome == SubscriptionImported::Created => RowOutcome::Created,
                None => RowOutcome::Unchanged,
            };
        Ok(rows.iter().zip(imported).map(taken).collect())
    }
}

fn mistake_of_outcome(row: &NewSubscription, outcome: SubscriptionImported) -> Option<Mistake> {
    match outcome {
        SubscriptionImported::Created | SubscriptionImported::Unchanged => None,
        SubscriptionImported::CurrencyMismatch(currency) => {
            Some(("currency", format!("customer {} pays in {currency}", row.customer)))
        }
        SubscriptionImported::NoNumberLeft => {
            let why = "cannot be given a number, other customers have them: name the customer in another way";
            Some((row.customer.field(), why.to_owned()))
        }
        SubscriptionImported::Differs => {
            let why =
                "is known with other fields: end that one and make a new one, or change its price or end";
            Some(("reference", why.to_owned()))
        }
    }
}

/// `POST /v1/subscriptions/imports?dry_run=`, like `/v1/imports`.
pub(in crate::http) async fn import(
    State(state): State<AppState>,
    connection: Option<Extension<Connection>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let mut params = Params::of(&uri);
    let dry_run = params.switch("dry_run");
    params.finish()?;
    let kind = Subscriptions { store: state.store.as_ref(), holidays: &state.scheduler.settings().holidays };
    imports::import(kind, dry_run, connection, &headers, body).await
}

/// `POST /v1/subscriptions`: 201 with a new subscription, 200 with an existing one that has the same data.
pub(in crate::http) async fn create(
    State(state): State<AppState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let holidays = &state.scheduler.settings().holidays;
    let wrong = |(field, message): Mistake| Problem::validation(vec![FieldError::new(field, message)]);
    let new = parse(&body::bytes(body)?, holidays).map_err(|fault| wrong((fault.field, fault.message)))?;
    let take = async || {
        let outcome = state.store.import_subscriptions(std::slice::from_ref(&new), false).await?;
        Ok((outcome.first().copied(), state.store.subscription(&new.reference).await?))
    };
    let (outcome, stored) = take().await.map_err(|error: StoreError| problem_of(&error))?;
    let outcome = outcome.unwrap_or(SubscriptionImported::Unchanged);
    if let Some((field, message)) = mistake_of_outcome(&new, outcome) {
        let differs = Problem::named(StatusCode::CONFLICT, "subscription-known", "The subscription is known");
        return match outcome {
            SubscriptionImported::Differs => Err(differs.detail(format!("{field} {message}"))),
            _ => Err(wrong((field, message))),
        };
    }
    let status = match outcome {
        SubscriptionImported::Created => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    Ok(json_response(status, &to_item(&stored.ok_or_else(|| not_found_problem("subscription"))?)))
}

/// `GET /v1/subscriptions?state=&after=&limit=`: subscriptions in the order of their creation.
pub(in crate::http) async fn list(State(state): State<AppState>, uri: Uri) -> Result<Response, Problem> {
    let mut params = Params::of(&uri);
    let only: Option<SubscriptionState> =
        params.choice("state", |text| text.parse().ok(), "active, paused and ended");
    let (after, limit) = (params.after().unwrap_or(0), params.limit());
    params.finish()?;
    let rows = state.store.subscriptions(only, after, limit).await.map_err(|error| problem_of(&error))?;
    Ok(json_response(StatusCode::OK, &page(&rows, limit, to_item, |row| row.id.to_string())))
}

fn parse_reference(text: &str) -> Result<Reference, Problem> {
    Reference::stored(text).map_err(|_| not_found_problem("subscription"))
}

/// `GET /v1/subscriptions/{reference}`
pub(in crate::http) async fn one(
    State(state): State<AppState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let reference = parse_reference(&path.map_err(|_| not_found_problem("subscription"))?)?;
    let found = state.store.subscription(&reference).await.map_err(|error| problem_of(&error))?;
    Ok(json_response(StatusCode::OK, &to_item(&found.ok_or_else(|| not_found_problem("subscription"))?)))
}

fn action_item(row: &OperatorAction) -> SubscriptionAction {
    let OperatorAction { id, action, detail, reason, actor, created_at, .. } = row.clone();
    SubscriptionAction { id, action, detail, reason, actor, created_at: format_timestamp(created_at) }
}

/// `GET /v1/subscriptions/{reference}/actions?after=&limit=`: operators' actions on the subscription.
pub(in crate::http) async fn actions(
    State(state): State<AppState>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut params = Params::of(&uri);
    let (after, limit) = (params.after().unwrap_or(0), params.limit());
    params.finish()?;
    let reference = parse_reference(&path.map_err(|_| not_found_problem("subscription"))?)?;
    let rows = state
        .store
        .subscription_actions(&reference, after, limit)
        .await
        .map_err(|error| problem_of(&error))?;
    Ok(json_response(StatusCode::OK, &page(&rows, limit, action_item, |row| row.id.to_string())))
}

/// `POST /v1/subscriptions/{reference}/pause|resume|end|change-price`: 200 with the subscription.
pub(in crate::http) async fn change(
    State(state): State<AppState>,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Path((name, change)) = path.map_err(|_| not_found_problem("subscription"))?;
    let reference = parse_reference(&name)?;
    let find = || async { state.store.subscription(&reference).await.map_err(|error| problem_of(&error)) };
    let known = find().await?.ok_or_else(|| not_found_problem("subscription"))?;
    let request: ChangeRequest = body::read(&body::bytes(body)?, body_shape_of(&change)?)?;
    validate_reason_and_actor(&request.reason, &request.actor)?;
    let parsed = parse_change(&change, &request, known.currency)?;
    let order = SubscriptionChange { change: parsed, reason: request.reason, actor: request.actor };
    let holidays = &state.scheduler.settings().holidays;
    let changed = state.store.change_subscription(&reference, &order, holidays).await;
    match changed.map_err(|error| problem_of(&error))? {
        SubscriptionChanged::Applied(changed) => {
            tracing::info!(
                subscription.reference = reference.as_str(),
                action = parsed.as_str(),
                actor = order.actor,
                "an operator changed a subscription"
            );
            Ok(json_response(StatusCode::OK, &to_item(&changed)))
        }
        SubscriptionChanged::Refused("state", problem) => {
            let refused = Problem::named(StatusCode::CONFLICT, "subscription-state", "The state forbids it");
            Err(refused.detail(format!("the subscription {problem}; nothing was changed")))
        }
        SubscriptionChanged::Refused(field, problem) => {
            Err(Problem::validation(vec![FieldError::new(field, problem)]))
        }
        SubscriptionChanged::Unknown => Err(not_found_problem("subscription")),
    }
}

fn body_shape_of(change: &str) -> Result<&'static str, Problem> {
    match change {
        "pause" => Ok(r#"{"reason","actor"}"#),
        "resume" => Ok(r#"{"reason","actor","from"}"#),
        "end" => Ok(r#"{"reason","actor","ends_on"}"#),
        "change-price" => Ok(r#"{"reason","actor","from","amount"}"#),
        _ => Err(super::unknown_path_problem()),
    }
}

fn parse_change(change: &str, request: &ChangeRequest, currency: Currency) -> Result<Change, Problem> {
    let wrong = |field: &str, problem: String| Problem::validation(vec![FieldError::new(field, problem)]);
    let date = |field: &'static str, text: &Option<String>| {
        let date = text.as_deref().map(|text| parse_date(field, text)).transpose();
        date.map_err(|bad| wrong(bad.field, bad.problem))
    };
    let (from, ends_on) = (date("from", &request.from)?, date("ends_on", &request.ends_on)?);
    let allowed: &[&str] = match change {
        "resume" => &["from"],
        "end" => &["ends_on"],
        "change-price" => &["from", "amount"],
        _ => &[],
    };
    let given =
        [("from", from.is_some()), ("ends_on", ends_on.is_some()), ("amount", request.amount.is_some())];
    if let Some((field, _)) = given.into_iter().find(|(field, given)| *given && !allowed.contains(field)) {
        return Err(wrong(field, format!("has no meaning for {change}")));
    }
    match (change, from, request.amount.as_deref()) {
        ("pause", ..) => Ok(Change::Pause),
        ("resume", from, _) => Ok(Change::Resume { from }),
        ("end", ..) => Ok(Change::End { on: ends_on }),
        (_, None, _) => Err(wrong("from", "is missing".to_owned())),
        (_, _, None) => Err(wrong("amount", "is missing".to_owned())),
        (_, Some(from), Some(amount)) => {
            let amount_minor = price_minor(currency, amount).map_err(|problem| wrong("amount", problem))?;
            Ok(Change::Price(Price { from, amount_minor }))
        }
    }
}
