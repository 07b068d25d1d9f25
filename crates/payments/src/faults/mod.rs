//! Faults on demand: which deliveries a script hits, and with what. Counts deliveries in memory and in bounds;
//! a restart counts from 1 again. Knows neither HTTP nor the ledger: others do what is decided here.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub mod draw;
pub mod script;

use draw::{Delivery, Seed, Subject};
use script::{Fault, Rule, Script};

/// How many subjects are remembered at least; the oldest are forgotten in one go beyond twice as many.
pub const SUBJECTS_MAX: usize = 1 << 18;

/// The rules in force and what they have seen.
#[derive(Debug)]
pub struct Faults {
    seed: Seed,
    rules: Vec<(Rule, AtomicU64)>,
    deliveries: Mutex<Generations>,
}

impl Faults {
    /// Puts a script's rules into force.
    #[must_use]
    pub fn new(seed: Seed, script: Script) -> Self {
        let rules = script.rules.into_iter().map(|rule| (rule, AtomicU64::new(0))).collect();
        Self { seed, rules, deliveries: Mutex::default() }
    }

    /// Counts one more delivery of a subject. Keys are not counted while there are no rules.
    pub fn deliver<'a>(&self, subject: Subject<'a>) -> Delivery<'a> {
        if self.rules.is_empty() && matches!(subject, Subject::Key(_)) {
            return Delivery { subject, nth: 1 };
        }
        let mut hasher = DefaultHasher::new();
        subject.hash(&mut hasher);
        let mut deliveries = self.deliveries.lock().expect("counting never panics");
        Delivery { subject, nth: deliveries.count(hasher.finish()) }
    }

    /// The fault that hits this delivery: the first rule that matches. Rules with `nth` count every delivery that
    /// their other fields match, whichever rule wins.
    pub fn select_fault(&self, delivery: Delivery<'_>, customer_id: i64, amount_minor: i64) -> Option<Fault> {
        let mut winner = None;
        for (at, (rule, seen)) in self.rules.iter().enumerate() {
            if !rule.lets_through(customer_id, amount_minor)
                || !rule.may_hit(delivery)
                || !rule.share.holds(delivery.draw(self.seed, &format!("rule {}", at + 1)))
            {
                continue;
            }
            let nth = seen.fetch_add(1, Ordering::Relaxed) + 1;
            if rule.nth.is_none_or(|wanted| wanted == nth) && winner.is_none() {
                winner = Some(rule.fault);
            }
        }
        winner
    }
}

impl Rule {
    fn lets_through(&self, customer_id: i64, amount_minor: i64) -> bool {
        self.customer_id.is_none_or(|only| only == customer_id)
            && self.amount_minor_min.is_none_or(|min| amount_minor >= min)
            && self.amount_minor_max.is_none_or(|max| amount_minor <= max)
    }

    /// A transport fault hits the first deliveries of a key only, so that resending ends; a refusal is no transport
    /// fault, and deliveries without a key are independent of each other.
    fn may_hit(&self, delivery: Delivery<'_>) -> bool {
        let keyed = matches!(delivery.subject, Subject::Key(_));
        !keyed || self.fault == Fault::Refuse || delivery.nth <= self.times
    }
}

/// Counts by subject in two generations, so that memory is bounded and forgetting costs nothing.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u64, u32>,
    old: HashMap<u64, u32>,
}

impl Generations {
    fn count(&mut self, subject: u64) -> u32 {
        if self.young.len() >= SUBJECTS_MAX && !self.young.contains_key(&subject) {
            self.old = std::mem::take(&mut self.young);
        }
        let before = self.old.get(&subject).copied().unwrap_or(0);
        let count = self.young.entry(subject).or_insert(before);
        *count = count.saturating_add(1);
        *count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn faults(rules: &str) -> Faults {
        Faults::new(Seed(8213), Script::parse(rules).unwrap())
    }

    /// The faults of one delivery each of these keys, for customer 1 and 10.00.
    fn hits(faults: &Faults, keys: &[String]) -> Vec<Option<&'static str>> {
        let hit =
            |key: &String| faults.select_fault(faults.deliver(Subject::Key(key)), 1, 1000).map(Fault::as_str);
        keys.iter().map(hit).collect()
    }

    fn keys(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("key-{n}")).collect()
    }

    #[test]
    fn a_transport_fault_hits_only_the_first_deliveries_of_a_key() {
        let faults = faults("[[rule]]\nfault = \"reset\"\ntimes = 2");
        let one = keys(1);
        let words: Vec<_> = (0..4).map(|_| hits(&faults, &one)[0]).collect();
        assert_eq!(words, [Some("reset"), Some("reset"), None, None]);
    }

    #[test]
    fn a_refusal_holds_for_every_delivery_of_a_key() {
        let faults = faults("[[rule]]\nfault = \"refuse\"\nshare = 0.5");
        let keys = keys(50);
        let first = hits(&faults, &keys);
        assert_eq!(first, hits(&faults, &keys));
        assert!(first.contains(&None) && first.contains(&Some("refuse")), "{first:?}");
    }

    #[test]
    fn the_first_matching_rule_wins() {
        let faults = faults(
            "[[rule]]\nfault = \"reset\"\ncustomer_id = 2\n[[rule]]\nfault = \"hold\"\namount_minor_min = 1000\n\
             [[rule]]\nfault = \"malformed\"\namount_minor_max = 999",
        );
        let word = |key: &str, customer, amount| {
            faults.select_fault(faults.deliver(Subject::Key(key)), customer, amount).map(Fault::as_str)
        };
        assert_eq!(word("a", 2, 1000), Some("reset"));
        assert_eq!(word("b", 1, 1000), Some("hold"));
        assert_eq!(word("c", 1, 999), Some("malformed"));
    }

    #[test]
    fn nth_counts_what_the_other_fields_let_through_whichever_rule_wins() {
        let faults = faults(
            "[[rule]]\nfault = \"hold\"\nnth = 2\n[[rule]]\nfault = \"reset\"\nnth = 3\ncustomer_id = 1\n\
             [[rule]]\nfault = \"malformed\"\nnth = 2",
        );
        let mut keys = keys(4);
        keys.insert(1, "key-0".to_owned());
        assert_eq!(hits(&faults, &keys), [None, None, Some("hold"), Some("reset"), None]);
    }

    #[test]
    fn deliveries_without_a_key_draw_each_for_itself() {
        let faults = faults("[[rule]]\nfault = \"reply-lost\"\nshare = 0.5");
        let lost = |_| faults.select_fault(faults.deliver(Subject::Reference("I1")), 1, 1000).is_some();
        let pattern: Vec<bool> = (0..40).map(lost).collect();
        assert!(pattern.contains(&true) && pattern.contains(&false), "{pattern:?}");
    }

    #[test]
    fn what_is_counted_is_bounded() {
        let mut counts = Generations::default();
        for subject in 0..(3 * SUBJECTS_MAX as u64) {
            assert_eq!(counts.count(subject), 1);
        }
        assert!(counts.young.len() + counts.old.len() <= 2 * SUBJECTS_MAX);
        assert_eq!(counts.count(3 * SUBJECTS_MAX as u64 - 1), 2);
    }

    proptest! {
        #[test]
        fn the_order_of_keys_changes_no_share(order in Just(keys(60)).prop_shuffle()) {
            let rules = "[[rule]]\nfault = \"reset\"\nshare = 0.3\n[[rule]]\nfault = \"hold\"\nshare = 0.3";
            let sorted = keys(60);
            let expected: HashMap<_, _> = sorted.iter().zip(hits(&faults(rules), &sorted)).collect();
            let shuffled = faults(rules);
            for (key, hit) in order.iter().zip(hits(&shuffled, &order)) {
                prop_assert_eq!(expected[key], hit);
            }
        }
    }
}
