//! Decides which subscriptions of an import are new, and which customers are created for them; later rows of a batch
//! see earlier ones. Pure; knows no SQL.

use std::collections::{HashMap, HashSet};

use crate::customer::{CustomerName, numbers};
use crate::invoice::{CustomerId, Reference};
use crate::money::Currency;
use crate::schedule::Price;
use crate::store::subscriptions::SubscriptionImported;
use crate::subscription::{Change, NewSubscription, Subscription};

/// An existing customer, or one to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCustomer {
    pub id: CustomerId,
    pub currency: Currency,
    /// The customer's reference, if it was named by one; billing then gave it its number.
    pub reference: Option<Reference>,
}

/// A price that an operator set: the subscription, and the recorded detail of the action.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OperatorPrice {
    pub subscription: Reference,
    pub detail: String,
}

/// The store's data of the customers and subscriptions in a batch.
#[derive(Debug)]
pub struct KnownSubscriptions {
    currencies: HashMap<CustomerId, Currency>,
    ids: HashMap<Reference, CustomerId>,
    subscriptions: HashMap<Reference, Subscription>,
    prices: HashSet<OperatorPrice>,
}

impl KnownSubscriptions {
    /// `customers` must include the owners of all numbers that a new customer might get.
    #[must_use]
    pub fn new(
        customers: Vec<KnownCustomer>,
        subscriptions: Vec<Subscription>,
        prices: Vec<OperatorPrice>,
    ) -> Self {
        let mut known = Self {
            currencies: HashMap::new(),
            ids: HashMap::new(),
            subscriptions: subscriptions
                .into_iter()
                .map(|stored| (stored.reference.clone(), stored))
                .collect(),
            prices: prices.into_iter().collect(),
        };
        customers.into_iter().for_each(|customer| known.add(customer));
        known
    }

    /// Whether an operator set this price: the stored price equals the recorded detail of an action.
    fn is_operators(&self, subscription: &Reference, price: Price) -> bool {
        let detail = Change::Price(price).detail().unwrap_or_default();
        self.prices.contains(&OperatorPrice { subscription: subscription.clone(), detail })
    }

    fn add(&mut self, KnownCustomer { id, currency, reference }: KnownCustomer) {
        self.currencies.insert(id, currency);
        self.ids.extend(reference.map(|reference| (reference, id)));
    }

    /// The number of a customer, known or new; `None` when no number is free for its reference.
    fn id(&self, name: &CustomerName) -> Option<CustomerId> {
        match name {
            CustomerName::Id(id) => Some(*id),
            CustomerName::Reference(reference) => {
                let is_free = |id: &CustomerId| !self.currencies.contains_key(id);
                self.ids.get(reference).copied().or_else(|| numbers(reference).into_iter().find(is_free))
            }
        }
    }
}

/// A subscription to create, and the number of its customer.
#[derive(Debug)]
pub struct CreatedSubscription<'a> {
    pub new: &'a NewSubscription,
    pub customer_id: CustomerId,
}

/// The results for the caller and, unless it is a dry run, the rows to write.
#[derive(Debug, Default)]
pub struct SubscriptionImportPlan<'a> {
    /// One result for each row.
    pub answers: Vec<SubscriptionImported>,
    pub customers: Vec<KnownCustomer>,
    pub created: Vec<CreatedSubscription<'a>>,
}

/// Decides a whole batch.
#[must_use]
pub fn plan(batch: &[NewSubscription], mut known: KnownSubscriptions) -> SubscriptionImportPlan<'_> {
    let mut plan = SubscriptionImportPlan::default();
    let mut places: HashMap<&Reference, usize> = HashMap::new();
    for new in batch {
        let id = known.id(&new.customer);
        let earlier = places.get(&new.reference).map(|place| plan.created[*place].new);
        let answer = decide(new, id, &known, earlier);
        if let (SubscriptionImported::Created, Some(customer_id)) = (answer, id) {
            places.insert(&new.reference, plan.created.len());
            plan.created.push(CreatedSubscription { new, customer_id });
            if !known.currencies.contains_key(&customer_id) {
                let reference = match &new.customer {
                    CustomerName::Id(_) => None,
                    CustomerName::Reference(reference) => Some(reference.clone()),
                };
                let customer = KnownCustomer { id: customer_id, currency: new.currency, reference };
                plan.customers.push(customer.clone());
                known.add(customer);
            }
        }
        plan.answers.push(answer);
    }
    plan
}

fn decide(
    new: &NewSubscription,
    id: Option<CustomerId>,
    known: &KnownSubscriptions,
    earlier: Option<&NewSubscription>,
) -> SubscriptionImported {
    let Some(id) = id else { return SubscriptionImported::NoNumberLeft };
    match (known.currencies.get(&id), known.subscriptions.get(&new.reference), earlier) {
        (Some(&currency), ..) if currency != new.currency => SubscriptionImported::CurrencyMismatch(currency),
        (_, Some(stored), _) if stored.is_same(new, |price| known.is_operators(&new.reference, price)) => {
            SubscriptionImported::Unchanged
        }
        (_, None, Some(earlier)) if earlier == new => SubscriptionImported::Unchanged,
        (_, None, None) => SubscriptionImported::Created,
        _ => SubscriptionImported::Differs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Holidays;
    use crate::subscription::RawFields;

    fn new(name: &str, customer: &str, currency: &str) -> NewSubscription {
        let fields = RawFields {
            reference: Some(name),
            customer_reference: Some(customer),
            currency: Some(currency),
            amount: Some("9.90"),
            starts_on: Some("2026-01-31"),
            ..RawFields::default()
        };
        NewSubscription::read(&fields, &Holidays::default()).expect("good fields")
    }

    fn taken(ids: &[CustomerId]) -> KnownSubscriptions {
        let customer = |id: &CustomerId| KnownCustomer { id: *id, currency: Currency::EUR, reference: None };
        KnownSubscriptions::new(ids.iter().map(customer).collect(), Vec::new(), Vec::new())
    }

    #[test]
    fn a_customer_gets_the_first_number_of_its_reference_that_no_other_has() {
        let batch = [new("S1", "acme", "EUR"), new("S2", "acme", "EUR"), new("S3", "acme", "USD")];
        let numbers = numbers(&Reference::new("acme").expect("a reference"));
        for used in 0..numbers.len() {
            let plan = plan(&batch, taken(&numbers[..used]));
            let expected = [
                SubscriptionImported::Created,
                SubscriptionImported::Created,
                SubscriptionImported::CurrencyMismatch(Currency::EUR),
            ];
            assert_eq!(plan.answers, expected, "{used} are taken");
            let ids: Vec<_> = plan.created.iter().map(|created| created.customer_id).collect();
            assert_eq!(ids, [numbers[used]; 2]);
            assert_eq!(plan.customers.len(), 1);
        }
        assert_eq!(plan(&batch, taken(&numbers)).answers, [SubscriptionImported::NoNumberLeft; 3]);
    }
}
