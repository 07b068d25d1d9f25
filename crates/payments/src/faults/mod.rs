//! Faults on demand: which fault of a script hits which delivery. The fault follows from script, seed and counts;
//! counts that must survive a restart are stored through [`FaultCounts`]. Knows no HTTP and no SQL: other modules apply
//! the faults.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

pub mod draw;
pub mod rates;
pub mod script;
pub mod test_amounts;

use self::draw::{Delivery, Seed, Subject};
use self::rates::Decision;
use self::script::{Facts, Fault, Rule, Script};
use crate::keys::hex;
use crate::ledger::Result;

/// Minimum number of subjects that are remembered. Beyond twice this number, the oldest are forgotten all at once.
pub const SUBJECTS_MAX: usize = 1 << 18;

/// A mistake in one field of a script or of rates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The field.
    pub field: String,
    /// The mistake and what is allowed.
    pub message: String,
}

impl Mistake {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// Counts that survive a restart and that all replicas share. Each call is one durable transaction.
#[async_trait]
pub trait FaultCounts: Send + Sync + 'static {
    /// Adds one to the count of a subject under a script, and raises it to at least `at_least`. Returns the count.
    async fn count(&self, script: &str, subject: &str, at_least: u32) -> Result<u32>;
}

/// The id of a start's script: after a restart the same file continues its counts, an edited file begins new ones.
#[must_use]
pub fn id_of_file(script: &Script) -> String {
    const BYTES: usize = 8;
    format!("file {}", hex(&Sha256::digest(script.to_json())[..BYTES]))
}

/// The rules in force and their counts.
#[derive(Debug)]
pub struct Faults {
    /// The id under which the counts are stored.
    id: String,
    seed: Seed,
    /// When the script was set, in ms since the epoch: its windows may be relative to this time.
    set_at_ms: i64,
    script: Script,
    /// The rules of the script, then those of the test amounts.
    rules: Vec<Rule>,
    has_test_amounts: bool,
    deliveries: Mutex<Generations>,
}

impl Faults {
    #[must_use]
    pub fn new(id: String, seed: Seed, script: Script, set_at_ms: i64, has_test_amounts: bool) -> Self {
        let mut rules = script.rules.clone();
        rules.extend(test_amounts::rules().filter(|_| has_test_amounts));
        Self { id, seed, set_at_ms, script, rules, has_test_amounts, deliveries: Mutex::default() }
    }

    /// The script in force.
    #[must_use]
    pub fn script(&self) -> &Script {
        &self.script
    }

    /// The decision that follows from the amount alone, if any.
    #[must_use]
    pub fn decision(&self, facts: &Facts<'_>) -> Option<Decision> {
        if self.has_test_amounts && facts.is_keyed {
            test_amounts::decision(facts.amount_minor)
        } else {
            None
        }
    }

    /// Counts one more delivery and selects the fault that hits it: the first rule that matches. Rules with `nth` count
    /// every delivery that their other fields match, even if another rule is selected.
    ///
    /// # Errors
    /// When a count cannot be stored: the fault could occur again after a restart, so that nothing may be executed.
    pub async fn select_fault<'a>(
        &self,
        counts: &dyn FaultCounts,
        subject: Subject<'a>,
        facts: &Facts<'_>,
    ) -> Result<(Delivery<'a>, Option<Fault>)> {
        let mut delivery = self.deliver(subject, facts.account);
        // Most deliveries are not exposed to any transport fault, so that they need no write.
        if let Subject::Key(key) = subject
            && self
                .rules
                .iter()
                .enumerate()
                .any(|(at, rule)| rule.fault.is_of_transport() && self.matches(at, rule, delivery, facts))
        {
            let name = format!("key {} {key}", facts.account);
            delivery.nth = counts.count(&self.id, &name, delivery.nth).await?;
            self.catch_up(delivery, facts.account);
        }
        let mut winner = None;
        for (at, rule) in self.rules.iter().enumerate() {
            if !self.matches(at, rule, delivery, facts) {
                continue;
            }
            let is_nth = match rule.nth {
                None => true,
                Some(nth) => {
                    let name = format!("rule {}", at + 1);
                    u64::from(counts.count(&self.id, &name, 1).await?) == nth
                }
            };
            if is_nth && winner.is_none() {
                winner = Some(rule.fault.clone());
            }
        }
        Ok((delivery, winner))
    }

    fn matches(&self, at: usize, rule: &Rule, delivery: Delivery<'_>, facts: &Facts<'_>) -> bool {
        rule.only.matches(facts, self.set_at_ms)
            && rule.may_hit(delivery)
            && rule.share.holds(delivery.draw(self.seed, &format!("rule {}", at + 1)))
    }

    /// Counts one more delivery of a subject. Keys are not counted while there are no rules.
    fn deliver<'a>(&self, subject: Subject<'a>, account: &str) -> Delivery<'a> {
        if self.rules.is_empty() && matches!(subject, Subject::Key(_)) {
            return Delivery { subject, nth: 1 };
        }
        let mut deliveries = self.deliveries.lock().expect("counting never panics");
        Delivery { subject, nth: deliveries.count(name(subject, account)) }
    }

    /// Raises the count to the stored one, which includes deliveries before a restart and at other replicas.
    fn catch_up(&self, delivery: Delivery<'_>, account: &str) {
        let mut deliveries = self.deliveries.lock().expect("counting never panics");
        deliveries.raise(name(delivery.subject, account), delivery.nth);
    }
}

/// The hash that identifies a subject. The same key of two accounts is two subjects.
fn name(subject: Subject<'_>, account: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    subject.hash(&mut hasher);
    if matches!(subject, Subject::Key(_)) {
        account.hash(&mut hasher);
    }
    hasher.finish()
}

impl Rule {
    /// A transport fault hits the first deliveries of a key only, so that resending ends; a refusal is no transport
    /// fault, and deliveries without a key are independent of each other.
    fn may_hit(&self, delivery: Delivery<'_>) -> bool {
        let keyed = matches!(delivery.subject, Subject::Key(_));
        !keyed || !self.fault.is_of_transport() || delivery.nth <= self.times
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

    fn raise(&mut self, subject: u64, count: u32) {
        if let Some(counted) = self.young.get_mut(&subject) {
            *counted = count.max(*counted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// Counts as a database stores them.
    #[derive(Default)]
    struct Kept(Mutex<HashMap<(String, String), u32>>);

    #[async_trait]
    impl FaultCounts for Kept {
        async fn count(&self, script: &str, subject: &str, at_least: u32) -> Result<u32> {
            let mut kept = self.0.lock().unwrap();
            let count = kept.entry((script.to_owned(), subject.to_owned())).or_default();
            *count = (*count + 1).max(at_least);
            Ok(*count)
        }
    }

    /// A script in a process, and its stored counts.
    struct Process {
        faults: Faults,
        kept: Arc<Kept>,
    }

    impl Process {
        fn restarted(&self) -> Self {
            let Faults { id, seed, script, set_at_ms, .. } = &self.faults;
            let faults = Faults::new(id.clone(), *seed, script.clone(), *set_at_ms, false);
            Self { faults, kept: Arc::clone(&self.kept) }
        }

        fn hit(&self, subject: Subject<'_>, facts: &Facts<'_>) -> Option<&'static str> {
            let selected = self.faults.select_fault(&*self.kept, subject, facts);
            futures_util::FutureExt::now_or_never(selected).unwrap().unwrap().1.map(|fault| fault.as_str())
        }
    }

    const FACTS: Facts<'static> = Facts {
        is_keyed: true,
        account: "antaeus",
        route: "/",
        reference: Some("I1"),
        customer_id: 1,
        currency: "EUR",
        amount_minor: 1000,
        now_ms: 0,
    };

    fn faults(rules: &str) -> Process {
        let faults = Faults::new("one".to_owned(), Seed(8213), Script::parse(rules).unwrap(), 0, false);
        Process { faults, kept: Arc::default() }
    }

    /// The faults that one delivery of each key meets, for customer 1 and 10.00.
    fn hits(faults: &Process, keys: &[String]) -> Vec<Option<&'static str>> {
        keys.iter().map(|key| faults.hit(Subject::Key(key), &FACTS)).collect()
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
        let word = |key: &str, customer_id, amount_minor| {
            faults.hit(Subject::Key(key), &Facts { customer_id, amount_minor, ..FACTS })
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
        let lost = |_| faults.hit(Subject::Reference("I1"), &Facts { is_keyed: false, ..FACTS }).is_some();
        let pattern: Vec<bool> = (0..40).map(lost).collect();
        assert!(pattern.contains(&true) && pattern.contains(&false), "{pattern:?}");
    }

    #[test]
    fn a_restart_goes_on_counting_keys_and_matches() {
        let script = "[[rule]]\nfault = \"hold\"\nnth = 3\n[[rule]]\nfault = \"reset\"\ntimes = 2";
        let mut process = faults(script);
        let keys = ["a", "a", "a", "b", "b", "b", "c"].map(str::to_owned);
        let without = hits(&faults(script), &keys);
        let mut with = Vec::new();
        for key in &keys {
            process = process.restarted();
            with.extend(hits(&process, std::slice::from_ref(key)));
        }
        assert_eq!(with, without);
        let (hit, none) = (Some("reset"), None);
        assert_eq!(without, [hit, hit, none, hit, hit, none, Some("hold")]);
    }

    #[test]
    fn the_same_key_of_two_accounts_is_counted_apart() {
        let faults = faults("[[rule]]\nfault = \"reset\"");
        let hit = |account| faults.hit(Subject::Key("k"), &Facts { account, ..FACTS });
        assert_eq!([hit("antaeus"), hit("other"), hit("other")], [Some("reset"), Some("reset"), None]);
    }

    #[test]
    fn each_field_of_a_rule_lets_only_its_own_deliveries_through() {
        let others = [
            ("customer_id = 1", Facts { customer_id: 2, ..FACTS }),
            ("amount_minor_min = 1000", Facts { amount_minor: 999, ..FACTS }),
            ("amount_minor_max = 1000", Facts { amount_minor: 1001, ..FACTS }),
            ("route = \"/\"", Facts { route: "/payments", ..FACTS }),
            ("reference = \"I1\"", Facts { reference: Some("I12"), ..FACTS }),
            ("reference = \"I1\"", Facts { reference: None, ..FACTS }),
            ("reference_prefix = \"I\"", Facts { reference: Some("J1"), ..FACTS }),
            ("currency = \"EUR\"", Facts { currency: "USD", ..FACTS }),
            ("account = \"antaeus\"", Facts { account: "other", ..FACTS }),
            ("until = 10", Facts { now_ms: 10_000, ..FACTS }),
            ("until = \"1970-01-01T01:00:10+01:00\"", Facts { now_ms: 10_000, ..FACTS }),
            ("until = 1970-01-01T00:00:10Z", Facts { now_ms: 10_000, ..FACTS }),
            ("from = 0", Facts { now_ms: -1, ..FACTS }),
        ];
        for (field, other) in others {
            let faults = faults(&format!("[[rule]]\nfault = \"reset\"\n{field}"));
            assert_eq!(faults.hit(Subject::Key("other"), &other), None, "{field}");
            assert_eq!(faults.hit(Subject::Key("own"), &FACTS), Some("reset"), "{field}");
        }
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
