//! Demo invoices of the two replaced systems, written into an empty store only. Knows the store by its contract; knows
//! no caller.

use std::str::FromStr;

use chassis::clock::Random;

use crate::invoice::{CustomerId, InvoiceId, Reference};
use crate::money::{Currency, Money};
use crate::store::{self, ImportMode, ImportRow, Store};

/// Which invented invoices to load; setting `--demo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Demo {
    /// No invoices: a production store must not charge invented ones.
    #[default]
    None,
    /// The invoices of Antaeus: two customers with five invoices each.
    Antaeus,
    /// The invoices of the invoice-app: I1, I2 and I3.
    InvoiceApp,
}

impl FromStr for Demo {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "antaeus" => Ok(Self::Antaeus),
            "invoice-app" => Ok(Self::InvoiceApp),
            _ => Err("must be none, antaeus or invoice-app"),
        }
    }
}

/// Invoices of each customer of Antaeus.
const ANTAEUS_INVOICES_EACH: u64 = 5;

/// The least and the most that an invoice of Antaeus may cost, in minor units.
const ANTAEUS_MINOR: std::ops::RangeInclusive<i64> = 1_000..=50_000;

/// Loads the demo's invoices if the store is empty; returns their number.
pub async fn load(store: &dyn Store, demo: Demo, random: &Random) -> store::Result<usize> {
    let rows = match demo {
        Demo::None => return Ok(0),
        Demo::Antaeus => antaeus(random),
        Demo::InvoiceApp => invoice_app(),
    };
    let used = !store.invoices(None, InvoiceId(i64::MIN), 1).await?.is_empty()
        || !store.customers(CustomerId(i64::MIN), 1).await?.is_empty();
    if used {
        return Ok(0);
    }
    let imported = store.import(&rows, ImportMode::default()).await?;
    Ok(imported.iter().filter(|row| **row == store::Imported::Created).count())
}

/// Customers 1 (USD) and 2 (DKK), five invoices each, the first of each PAID.
fn antaeus(random: &Random) -> Vec<ImportRow> {
    let span = ANTAEUS_MINOR.end().abs_diff(*ANTAEUS_MINOR.start()) + 1;
    let customers = [(1, Currency::USD), (2, Currency::DKK)];
    let each = |(customer, currency)| (0..ANTAEUS_INVOICES_EACH).map(move |nth| (customer, currency, nth));
    let numbered = (1..).zip(customers.into_iter().flat_map(each));
    let row = |(number, (customer, currency, nth)): (u64, _)| {
        let amount_minor = ANTAEUS_MINOR.start().saturating_add_unsigned(random.below(span));
        row(format!("antaeus-{number}"), customer, Money { amount_minor, currency }, nth == 0)
    };
    numbered.map(row).collect()
}

/// I1, I2 and I3, all PENDING.
fn invoice_app() -> Vec<ImportRow> {
    [(1, 1_215, Currency::EUR), (2, 1_025, Currency::GBP), (3, 6_613, Currency::DKK)]
        .into_iter()
        .map(|(nth, amount_minor, currency)| {
            row(format!("I{nth}"), nth, Money { amount_minor, currency }, false)
        })
        .collect()
}

fn row(reference: String, customer: i64, money: Money, paid: bool) -> ImportRow {
    let reference = Reference::new(reference).expect("a demo's references are short plain words");
    ImportRow { reference, customer_id: CustomerId(customer), money, paid }
}
