//! Everything that follows from the demo's seed: the deployment, the invoices and the provider's faults. Pure. Starts
//! nothing.

use std::fmt::Write;

use billing::invoice::Reference;
use billing::money::{Amount, Currency};
use chassis::clock::Random;
use reconcile::{InvoiceFact, InvoiceState, PaidBy};
use uuid::Uuid;

use crate::import::Row;

/// Number of customers with invoices.
const CUSTOMERS: u64 = 100;

/// Currencies of the customers, in turn.
const CURRENCIES: [Currency; 5] = [Currency::EUR, Currency::USD, Currency::DKK, Currency::SEK, Currency::GBP];
/// Amounts, in hundredths.
const AMOUNT_MINOR_MIN: u64 = 1000;
const AMOUNT_MINOR_MAX: u64 = 50_000;

/// Share of answers that are lost after the charge, in percent.
pub(super) const LOST_PERCENT: u32 = 5;

/// The inputs of the demo, the same for each demo with this seed.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) deployment_id: Uuid,
    pub(super) invoices: Vec<Row>,
    /// Number of answers that are held back, each for a kill.
    pub(super) kills: u32,
}

impl World {
    pub(super) fn new(seed: u64, invoices: u64, kills: u32) -> Self {
        let random = Random::seeded(seed);
        let deployment_id = random.uuid();
        let invoices = (1..=invoices).map(|number| invoice(seed, number, &random)).collect();
        Self { seed, deployment_id, invoices, kills }
    }

    /// The provider's faults: some responses are lost, and at equal intervals one is held until a process is killed.
    pub(super) fn faults(&self, forget_key: bool) -> String {
        let mut script = format!("seed = {}\n", self.seed);
        let parts = u64::from(self.kills) + 1;
        for kill in 1..parts {
            let nth = self.invoices.len() as u64 * kill / parts;
            let _ = write!(script, "\n[[rule]]\nfault = \"hold\"\nnth = {}\n", nth.max(kill));
        }
        let _ = write!(script, "\n[[rule]]\nfault = \"reply-lost\"\nshare = 0.{LOST_PERCENT:02}\n");
        if forget_key {
            script.push_str("\n[[rule]]\nfault = \"forget-key\"\ntimes = 1000\n");
        }
        script
    }

    /// The requests' bodies for the naive biller, a line each: the same as billing's, without a key.
    pub(super) fn bodies(&self) -> impl Iterator<Item = String> {
        (1..).zip(&self.invoices).map(|(number, row): (u64, _)| {
            let Row { reference, customer_id, currency, amount, .. } = row;
            format!(
                r#"{{"id":"{}","invoice_id":{number},"customer_id":{customer_id},"currency":"{currency}","value":{amount}}}"#,
                reference.as_str()
            )
        })
    }

    /// The naive biller's invoices for verification: those whose body is in `paid` are marked as paid.
    pub(super) fn naive_invoices(&self, paid: &str) -> Vec<InvoiceFact> {
        let paid: std::collections::HashSet<&str> = paid.lines().collect();
        (1..)
            .zip(self.invoices.iter().zip(self.bodies()))
            .map(|(id, (row, body))| {
                let is_paid = paid.contains(body.as_str());
                InvoiceFact {
                    id,
                    reference: row.reference.as_str().to_owned(),
                    customer_id: row.customer_id.into(),
                    currency: row.currency.code().to_owned(),
                    amount_minor: row.amount.minor(),
                    exponent: row.currency.exponent(),
                    state: if is_paid { InvoiceState::Paid } else { InvoiceState::Pending },
                    paid_by: is_paid.then_some(PaidBy::Charge),
                }
            })
            .collect()
    }
}

fn invoice(seed: u64, number: u64, random: &Random) -> Row {
    let customer = number % CUSTOMERS;
    let currencies = CURRENCIES.len() as u64;
    let currency = usize::try_from(customer % currencies).ok().and_then(|at| CURRENCIES.get(at));
    let currency = *currency.expect("the remainder is below the length");
    let minor = AMOUNT_MINOR_MIN + random.below(AMOUNT_MINOR_MAX - AMOUNT_MINOR_MIN);
    Row {
        line: number,
        index: None,
        reference: Reference::new(format!("D{seed}-{number:05}"))
            .expect("digits and letters are a reference"),
        customer_id: i32::try_from(customer + 1).expect("there are few customers"),
        currency,
        amount: i64::try_from(minor)
            .ok()
            .and_then(|minor| Amount::from_minor(minor, currency).ok())
            .expect("amounts are small"),
        paid: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_world_and_another_seed_another() {
        let (one, same, other) = (World::new(8213, 20, 3), World::new(8213, 20, 3), World::new(8214, 20, 3));
        assert_eq!((one.deployment_id, &one.invoices), (same.deployment_id, &same.invoices));
        assert_ne!(one.deployment_id, other.deployment_id);
        assert_ne!(one.invoices, other.invoices);
    }

    #[test]
    fn a_body_holds_what_a_row_says() {
        let world = World::new(1, 1, 0);
        let body: serde_json::Value = serde_json::from_str(&world.bodies().next().unwrap()).unwrap();
        assert_eq!(body["id"], "D1-00001");
        assert_eq!(body["value"].to_string(), world.invoices[0].amount.to_string());
    }

    #[test]
    fn kills_stand_at_even_distances() {
        let script = World::new(1, 1000, 3).faults(false);
        for nth in ["nth = 250", "nth = 500", "nth = 750", "share = 0.05"] {
            assert!(script.contains(nth), "{script}");
        }
    }
}
