//! A subscription: its checked fields, and the effect of an operator's change. Pure; must not know a store, HTTP or the
//! clock. [`NewSubscription::read`] reads subscriptions from the API, CSV and NDJSON.

use std::str::FromStr;

use jiff::civil::Date;

use crate::customer::CustomerName;
use crate::import_row;
use crate::invoice::{CustomerId, Reference};
use crate::money::{Currency, Money};
use crate::schedule::calendar::{DATE_MAX, parse_date, parse_time};
use crate::schedule::{
    AnchorDay, EveryMonths, HolidayRule, Holidays, InvalidField, Period, Price, Prices, Terms, Zone, periods,
};

/// Fields of a subscription, in the order of the documentation. `amount` is the first price if there is only one.
/// `state` is there for listed subscriptions that are imported again, and must be active.
pub const FIELDS: [&str; 14] = [
    "reference",
    "customer_id",
    "customer_reference",
    "currency",
    "amount",
    "prices",
    "anchor_day",
    "every_months",
    "zone",
    "at",
    "starts_on",
    "ends_on",
    "holidays",
    "state",
];

/// The length of `@YYYY-MM-DD`, which is appended in an invoice's reference.
const PERIOD_SUFFIX_BYTES: usize = 11;

/// Default local time of a due date.
const AT_DEFAULT: &str = "06:00";
const ZONE_DEFAULT: &str = "UTC";

/// State of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionState {
    /// Each due period is invoiced.
    Active,
    /// No period is invoiced until it is resumed.
    Paused,
    /// No period is left; final.
    Ended,
}

impl SubscriptionState {
    /// All states, in the order of a subscription's life.
    pub const ALL: [Self; 3] = [Self::Active, Self::Paused, Self::Ended];

    /// The value in SQL and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Ended => "ended",
        }
    }
}

impl FromStr for SubscriptionState {
    type Err = crate::invoice::UnknownValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(crate::invoice::UnknownValue)
    }
}

/// The first period that has no invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextPeriod {
    /// The due date of the period.
    pub on: Date,
    /// The time from which the period may be charged, in milliseconds since the Unix epoch.
    pub charge_at: i64,
}

impl NextPeriod {
    fn of(period: Period) -> Self {
        Self { on: period.on, charge_at: period.charge_instant.unix_ms() }
    }

    /// The first period due on this date or later.
    #[must_use]
    pub fn from(terms: &Terms, holidays: &Holidays, from: Date) -> Option<Self> {
        periods(terms, holidays, from, DATE_MAX).next().map(Self::of)
    }

    /// The first period after that of this date.
    #[must_use]
    pub fn after(terms: &Terms, holidays: &Holidays, on: Date) -> Option<Self> {
        Self::from(terms, holidays, on.tomorrow().ok()?)
    }
}

/// The fields before any check, as text; `None` for an absent field.
#[derive(Clone, Debug, Default)]
pub struct RawFields<'a> {
    pub reference: Option<&'a str>,
    pub customer_id: Option<&'a str>,
    pub customer_reference: Option<&'a str>,
    pub currency: Option<&'a str>,
    pub amount: Option<&'a str>,
    /// Date and amount of each price.
    pub prices: Option<Vec<(&'a str, &'a str)>>,
    pub anchor_day: Option<&'a str>,
    pub every_months: Option<&'a str>,
    pub zone: Option<&'a str>,
    pub at: Option<&'a str>,
    pub starts_on: Option<&'a str>,
    pub ends_on: Option<&'a str>,
    pub holidays: Option<&'a str>,
}

/// A checked subscription that a store may not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSubscription {
    pub reference: Reference,
    pub customer: CustomerName,
    pub currency: Currency,
    pub prices: Prices,
    pub terms: Terms,
    /// The first period; `None` if the subscription ends before it.
    pub next: Option<NextPeriod>,
}

/// The field at fault, and what is allowed, as a text that follows the field's name.
pub type Mistake = (&'static str, String);

impl NewSubscription {
    /// Checks the fields of one subscription. There is no other validator.
    ///
    /// # Errors
    /// The first mistake.
    pub fn read(fields: &RawFields<'_>, holidays: &Holidays) -> Result<Self, Mistake> {
        let reference = reference(given("reference", fields.reference)?)?;
        let customer = CustomerName::read(fields.customer_id, fields.customer_reference)?;
        let currency = import_row::parse_currency(given("currency", fields.currency)?)
            .map_err(|problem| ("currency", problem))?;
        let starts_on = parse_date("starts_on", given("starts_on", fields.starts_on)?).map_err(mistake)?;
        let terms = terms(fields, starts_on).map_err(mistake)?;
        let prices = prices(fields, currency, starts_on)?;
        prices.check_covers(&terms).map_err(mistake)?;
        let next = NextPeriod::from(&terms, holidays, terms.starts_on);
        if next.is_none() {
            return Err(("ends_on", "must not be before the first due date".to_owned()));
        }
        Ok(Self { reference, customer, currency, prices, terms, next })
    }
}

fn mistake(bad: InvalidField) -> Mistake {
    (bad.field, bad.problem)
}

fn given<'a>(field: &'static str, text: Option<&'a str>) -> Result<&'a str, Mistake> {
    text.ok_or_else(|| (field, "is missing".to_owned()))
}

/// The reference of a subscription is part of its invoices' references. It must leave room for a date, and be the same
/// text in every normal form.
fn reference(text: &str) -> Result<Reference, Mistake> {
    const LEN_MAX: usize = Reference::LEN_MAX - PERIOD_SUFFIX_BYTES;
    let reference = import_row::parse_reference(text).map_err(|problem| ("reference", problem))?;
    if text.len() > LEN_MAX {
        return Err(("reference", format!("must have at most {LEN_MAX} bytes, this one has {}", text.len())));
    }
    if reference.nfc_if_other().is_some() {
        return Err(("reference", "must be in Unicode normal form C".to_owned()));
    }
    Ok(reference)
}

fn terms(fields: &RawFields<'_>, starts_on: Date) -> Result<Terms, InvalidField> {
    let number = |field: &'static str, text: Option<&str>, default: i64| match text {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| InvalidField { field, problem: format!("must be a whole number, not {text:?}") }),
    };
    let ends_on = fields.ends_on.map(|text| parse_date("ends_on", text)).transpose()?;
    let terms = Terms {
        anchor_day: AnchorDay::new(number("anchor_day", fields.anchor_day, starts_on.day().into())?)?,
        every_months: EveryMonths::new(number("every_months", fields.every_months, 1)?)?,
        zone: Zone::named(fields.zone.unwrap_or(ZONE_DEFAULT))?,
        at: parse_time("at", fields.at.unwrap_or(AT_DEFAULT))?,
        starts_on,
        ends_on,
        holidays: fields.holidays.map_or(Ok(HolidayRule::AsIs), str::parse)?,
    };
    terms.check()?;
    Ok(terms)
}

fn prices(fields: &RawFields<'_>, currency: Currency, starts_on: Date) -> Result<Prices, Mistake> {
    let minor =
        |field: &'static str, text: &str| price_minor(currency, text).map_err(|problem| (field, problem));
    let listed = match (&fields.prices, fields.amount) {
        (Some(_), Some(_)) => {
            return Err(("amount", "must not be given beside prices; give one of the two".to_owned()));
        }
        (None, None) => return Err(("prices", "is missing".to_owned())),
        (None, Some(amount)) => vec![Price { from: starts_on, amount_minor: minor("amount", amount)? }],
        (Some(prices), None) => prices
            .iter()
            .map(|(from, amount)| {
                let from = parse_date("prices", from).map_err(mistake)?;
                Ok(Price { from, amount_minor: minor("prices", amount)? })
            })
            .collect::<Result<_, Mistake>>()?,
    };
    Prices::new(listed).map_err(mistake)
}

/// Parses an amount of this currency by the rules for invoices.
///
/// # Errors
/// What is allowed.
pub fn price_minor(currency: Currency, text: &str) -> Result<i64, String> {
    import_row::parse_amount(text, currency).map(|amount| amount.minor())
}

/// Minor units of a currency as decimal text, also for a sum.
#[must_use]
pub fn minor_text(currency: Currency, minor: i64) -> String {
    Money { amount_minor: minor, currency }.amount().to_string()
}

/// A stored subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The subscription's number in this store.
    pub id: i64,
    pub reference: Reference,
    pub customer_id: CustomerId,
    /// The customer's reference, if the customer was named by one.
    pub customer_reference: Option<Reference>,
    pub currency: Currency,
    pub prices: Prices,
    pub terms: Terms,
    pub state: SubscriptionState,
    pub next: Option<NextPeriod>,
    /// The last period that was invoiced.
    pub last_on: Option<Date>,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
    /// Milliseconds since the Unix epoch.
    pub updated_at: i64,
}

impl Subscription {
    /// Whether an imported subscription is the same as this one, apart from operators' changes. Fields that operators
    /// cannot change must agree, and so must the prices of dates for which no operator set a price.
    #[must_use]
    pub fn is_same(&self, new: &NewSubscription, is_operators: impl Fn(Price) -> bool) -> bool {
        let terms = Terms { ends_on: new.terms.ends_on, ..self.terms.clone() };
        let is_customer = match &new.customer {
            CustomerName::Id(id) => self.customer_id == *id,
            CustomerName::Reference(reference) => self.customer_reference.as_ref() == Some(reference),
        };
        is_customer
            && self.currency == new.currency
            && terms == new.terms
            && new.prices.as_slice().iter().all(|price| {
                let stored = self.prices.as_slice().iter().find(|stored| stored.from == price.from);
                stored.is_some_and(|stored| stored == price || is_operators(*stored))
            })
    }

    /// The reference of a period's invoice. It is the same on each replica and after a restore, and so is the key of
    /// its charge.
    ///
    /// # Errors
    /// When the stored reference is too long.
    pub fn invoice_reference(&self, on: Date) -> Result<Reference, crate::invoice::BadReference> {
        Reference::stored(format!("{}@{on}", self.reference.as_str()))
    }

    /// The subscription after an operator's change.
    ///
    /// # Errors
    /// Why the change cannot be made.
    pub fn changed(&self, change: &Change, holidays: &Holidays, now_ms: i64) -> Result<Self, Mistake> {
        let refuse = |problem: &str| Err(("state", problem.to_owned()));
        match (change, self.state) {
            (_, SubscriptionState::Ended) => refuse("is ended, which is final: make a new subscription"),
            (Change::Pause, SubscriptionState::Paused) => refuse("is paused already"),
            (Change::Resume { .. }, SubscriptionState::Active) => refuse("is active already"),
            (Change::Pause, _) => Ok(Self { state: SubscriptionState::Paused, ..self.clone() }),
            (Change::Resume { from }, _) => Ok(self.resumed(*from, holidays, now_ms)),
            (Change::End { on }, _) => self.ended(*on),
            (Change::Price(price), _) => self.with_price(*price),
        }
    }

    /// Periods during a pause are not billed: a pause promises that to the customer.
    fn resumed(&self, from: Option<Date>, holidays: &Holidays, now_ms: i64) -> Self {
        let first = self.last_on.and_then(|last| last.tomorrow().ok()).unwrap_or(self.terms.starts_on);
        let from_on = from.map_or(first, |from| from.max(first));
        let next = periods(&self.terms, holidays, from_on, DATE_MAX)
            .map(NextPeriod::of)
            .find(|next| from.is_some() || next.charge_at > now_ms);
        Self { next, ..self.clone() }.active_while_periods_are_left()
    }

    fn ended(&self, on: Option<Date>) -> Result<Self, Mistake> {
        let Some(on) = on else {
            return Ok(Self { next: None, state: SubscriptionState::Ended, ..self.clone() });
        };
        if let Some(last) = self.last_on.filter(|last| on < *last) {
            return Err(("ends_on", format!("must not be before {last}, which is invoiced")));
        }
        let terms = Terms { ends_on: Some(on), ..self.terms.clone() };
        terms.check().map_err(mistake)?;
        let next = self.next.filter(|next| next.on <= on);
        let state = if next.is_some() { self.state } else { SubscriptionState::Ended };
        Ok(Self { terms, next, state, ..self.clone() })
    }

    fn with_price(&self, price: Price) -> Result<Self, Mistake> {
        if let Some(last) = self.last_on.filter(|last| price.from <= *last) {
            return Err(("from", format!("must be after {last}, which is invoiced")));
        }
        let mut prices = self.prices.as_slice().to_vec();
        prices.retain(|known| known.from != price.from);
        prices.push(price);
        prices.sort_by_key(|price| price.from);
        Ok(Self { prices: Prices::new(prices).map_err(mistake)?, ..self.clone() })
    }

    fn active_while_periods_are_left(self) -> Self {
        let state = if self.next.is_some() { SubscriptionState::Active } else { SubscriptionState::Ended };
        Self { state, ..self }
    }

    /// The subscription after its next period was invoiced or skipped.
    #[must_use]
    pub fn advanced(&self, on: Date, invoiced: bool, holidays: &Holidays) -> Self {
        let last_on = if invoiced { Some(on) } else { self.last_on };
        let next = NextPeriod::after(&self.terms, holidays, on);
        Self { next, last_on, ..self.clone() }.active_while_periods_are_left()
    }
}

/// The name of a price change in the audit row.
pub const CHANGE_PRICE: &str = "subscription-change-price";

/// A change by an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Pause,
    /// Bills the first period from this date on; without a date, the first period that is not due yet.
    Resume {
        from: Option<Date>,
    },
    /// The last date on which a period may be due; without a date, no further period is invoiced.
    End {
        on: Option<Date>,
    },
    /// The price of periods from its date on, until the next price.
    Price(Price),
}

impl Change {
    /// The name in the audit row.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "subscription-pause",
            Self::Resume { .. } => "subscription-resume",
            Self::End { .. } => "subscription-end",
            Self::Price(_) => CHANGE_PRICE,
        }
    }

    /// The detail in the audit row, if any.
    #[must_use]
    pub fn detail(self) -> Option<String> {
        match self {
            Self::Pause => None,
            Self::Resume { from: date } | Self::End { on: date } => date.map(|date| date.to_string()),
            Self::Price(price) => Some(format!("{} from {}", price.amount_minor, price.from)),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    const FIELDS: RawFields<'static> = RawFields {
        reference: Some("S1"),
        customer_id: Some("7"),
        customer_reference: None,
        currency: Some("EUR"),
        amount: Some("9.90"),
        prices: None,
        anchor_day: Some("31"),
        every_months: None,
        zone: Some("Europe/Copenhagen"),
        at: None,
        starts_on: Some("2026-01-31"),
        ends_on: None,
        holidays: None,
    };

    fn read(change: impl FnOnce(&mut RawFields<'static>)) -> Result<NewSubscription, Mistake> {
        let mut fields = FIELDS;
        change(&mut fields);
        NewSubscription::read(&fields, &Holidays::default())
    }

    fn subscription(last_on: Option<Date>) -> Subscription {
        let NewSubscription { reference, currency, prices, terms, next, .. } =
            read(|_| ()).expect("good fields");
        let next = match last_on {
            Some(last) => NextPeriod::after(&terms, &Holidays::default(), last),
            None => next,
        };
        let state = SubscriptionState::Active;
        Subscription {
            id: 1,
            reference,
            customer_id: CustomerId(7),
            customer_reference: None,
            currency,
            prices,
            terms,
            state,
            next,
            last_on,
            created_at: 0,
            updated_at: 0,
        }
    }

    #[test]
    fn fields_have_defaults_and_the_first_period_is_known() {
        let new = read(|fields| fields.anchor_day = None).expect("good fields");
        assert_eq!(new.terms.anchor_day.day(), 31, "the day of starts_on");
        assert_eq!(new.next.map(|next| next.on), Some(date(2026, 1, 31)));
        assert_eq!(new.prices.as_slice(), [Price { from: date(2026, 1, 31), amount_minor: 990 }]);
    }

    #[test]
    fn a_mistake_names_its_field() {
        type Edit = fn(&mut RawFields<'static>);
        let cases: [(Edit, &str); 18] = [
            (|f| f.reference = None, "reference"),
            (|f| f.reference = Some(""), "reference"),
            (|f| f.reference = Some("cafe\u{301}"), "reference"),
            (|f| f.customer_id = Some("0"), "customer_id"),
            (|f| f.customer_reference = Some("acme"), "customer_reference"),
            (|f| f.currency = Some("EU"), "currency"),
            (|f| f.amount = Some("9.999"), "amount"),
            (|f| f.amount = None, "prices"),
            (|f| f.prices = Some(vec![]), "amount"),
            (|f| (f.amount, f.prices) = (None, Some(vec![])), "prices"),
            (|f| (f.amount, f.prices) = (None, Some(vec![("2026-02-01", "1")])), "prices"),
            (|f| f.anchor_day = Some("32"), "anchor_day"),
            (|f| f.every_months = Some("0"), "every_months"),
            (|f| f.zone = Some("Europe/Kopenhagen"), "zone"),
            (|f| f.at = Some("24:00"), "at"),
            (|f| f.starts_on = Some("31.01.2026"), "starts_on"),
            (|f| f.ends_on = Some("2026-01-30"), "ends_on"),
            (|f| f.holidays = Some("never"), "holidays"),
        ];
        for (change, field) in cases {
            assert_eq!(read(change).expect_err(field).0, field);
        }
        let long = "x".repeat(190);
        let fields = RawFields { reference: Some(&long), ..FIELDS };
        assert_eq!(NewSubscription::read(&fields, &Holidays::default()).expect_err("long").0, "reference");
    }

    #[test]
    fn a_resume_leaves_out_the_periods_of_the_pause() {
        let none = Holidays::default();
        let march = subscription(Some(date(2026, 2, 28)));
        let paused = march.changed(&Change::Pause, &none, 0).expect("active");
        assert_eq!(paused.changed(&Change::Pause, &none, 0).expect_err("paused").0, "state");
        let resumed = |from, now_ms| {
            paused.changed(&Change::Resume { from }, &none, now_ms).expect("paused").next.map(|next| next.on)
        };
        assert_eq!(resumed(Some(date(2026, 6, 1)), 0), Some(date(2026, 6, 30)));
        assert_eq!(resumed(Some(date(2026, 1, 1)), 0), Some(date(2026, 3, 31)), "February is invoiced");
        let may_first = 1_777_593_600_000;
        assert_eq!(resumed(None, may_first), Some(date(2026, 5, 31)));
    }

    #[test]
    fn an_end_and_a_price_never_reach_back_into_what_is_invoiced() {
        let none = Holidays::default();
        let march = subscription(Some(date(2026, 3, 31)));
        let ended = |on| march.changed(&Change::End { on }, &none, 0);
        assert_eq!(ended(Some(date(2026, 3, 30))).expect_err("too early").0, "ends_on");
        assert_eq!(ended(Some(date(2026, 4, 29))).expect("later").state, SubscriptionState::Ended);
        assert_eq!(ended(Some(date(2026, 4, 30))).expect("later").state, SubscriptionState::Active);
        let now = ended(None).expect("now");
        assert_eq!((now.state, now.next), (SubscriptionState::Ended, None));
        assert_eq!(now.changed(&Change::Pause, &none, 0).expect_err("final").0, "state");
        let price = |from| march.changed(&Change::Price(Price { from, amount_minor: 1290 }), &none, 0);
        assert_eq!(price(date(2026, 3, 31)).expect_err("invoiced").0, "from");
        let changed = price(date(2026, 4, 1)).expect("later");
        assert_eq!(changed.prices.on(date(2026, 3, 31)), Some(990));
        assert_eq!(changed.prices.on(date(2026, 4, 30)), Some(1290));
    }
}
