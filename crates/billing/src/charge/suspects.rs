//! Attempts that the provider answers as if the endpoint were wrong: is the endpoint at fault, or the item? Only other
//! items can show that: if they succeed while an item fails, the item is at fault. Knows no provider, no store and no
//! clock: keys and the current time are parameters.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::key::Key;

/// Failures of one item while others succeed, after which the item is at fault. A provider with one broken backend of
/// three fails one item in 243 so many times in a row.
pub const FAILURES_TO_SUSPECT_ITEM: u32 = 5;
/// Items that may fail for the first time since another item succeeded. One more puts the endpoint in question: then no
/// failure counts against an item, so that an outage leaves no more items than these to an operator.
pub const FIRST_FAILURES_MAX: u32 = 5;
/// How long the success of one item proves that the endpoint works.
const PROOF_HOLDS: Duration = Duration::from_secs(60);
/// Items that are remembered. Further failing items keep the endpoint in question until a place is free.
const REMEMBERED_MAX: usize = 10_000;
/// An item without a failure for this time may be forgotten: another process or an operator has settled it.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// The suspected cause of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// Not known yet.
    Unclear,
    /// The endpoint or the credentials: too many different items fail.
    Endpoint,
    /// The item: it fails again and again while others succeed.
    Item,
}

/// The success of another item that proves for this item that the endpoint works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Any recent success: the failing items may be the last ones of a run.
    Recent,
    /// A success after this item's first failure: replaced credentials fail all items from some moment on.
    Later,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    failures: u32,
    first_failed_at: Instant,
    failed_at: Instant,
}

/// The failed items of one engine.
#[derive(Debug, Default)]
pub struct Suspects {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    items: HashMap<Key, Suspect>,
    succeeded_at: Option<Instant>,
    first_failures: u32,
}

impl Suspects {
    /// Records that the provider charged or refused this item, so the endpoint works.
    pub fn succeeded(&self, key: &Key, now: Instant) {
        let mut inner = self.lock();
        inner.items.remove(key);
        inner.succeeded_at = Some(now);
        inner.first_failures = 0;
    }

    /// Records that this item failed, and returns the suspected cause.
    pub fn failed(&self, key: &Key, proof: Proof, now: Instant) -> Suspicion {
        let mut inner = self.lock();
        let is_first = !inner.items.contains_key(key);
        if is_first {
            inner.first_failures = inner.first_failures.saturating_add(1);
            if inner.items.len() >= REMEMBERED_MAX {
                inner.items.retain(|_, item| now.duration_since(item.failed_at) < FORGOTTEN_AFTER);
            }
            if inner.items.len() >= REMEMBERED_MAX {
                return Suspicion::Endpoint;
            }
        }
        let succeeded_at = inner.succeeded_at.filter(|at| now.duration_since(*at) < PROOF_HOLDS);
        let in_question = inner.first_failures > FIRST_FAILURES_MAX;
        let new = Suspect { failures: 0, first_failed_at: now, failed_at: now };
        let item = inner.items.entry(key.clone()).or_insert(new);
        let proven = match proof {
            Proof::Recent => succeeded_at.is_some(),
            Proof::Later => succeeded_at.is_some_and(|at| at > item.first_failed_at),
        };
        item.failed_at = now;
        // During an outage the failure does not count against the item.
        item.failures += u32::from(proven && !in_question);
        if item.failures >= FAILURES_TO_SUSPECT_ITEM {
            inner.items.remove(key);
            return Suspicion::Item;
        }
        if is_first && in_question { Suspicion::Endpoint } else { Suspicion::Unclear }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invoice::Reference;
    use crate::protocol::key::DeploymentId;

    fn key(name: u32) -> Key {
        let reference = Reference::new(format!("I{name}")).unwrap();
        Key::new(DeploymentId(uuid::Uuid::nil()), &reference, 1)
    }

    /// Fails this item until the item is at fault; returns the number of failures.
    fn fail_until_at_fault(suspects: &Suspects, name: u32, at_most: u32) -> Option<u32> {
        (1..=at_most).find(|_| suspects.failed(&key(name), Proof::Recent, Instant::now()) == Suspicion::Item)
    }

    #[tokio::test(start_paused = true)]
    async fn an_item_that_fails_while_others_succeed_is_at_fault_after_five_failures() {
        let suspects = Suspects::default();
        assert_eq!(
            suspects.failed(&key(1), Proof::Recent, Instant::now()),
            Suspicion::Unclear,
            "no other has succeeded yet"
        );
        suspects.succeeded(&key(2), Instant::now());
        assert_eq!(fail_until_at_fault(&suspects, 1, 10), Some(FAILURES_TO_SUSPECT_ITEM));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_success_of_another_no_item_is_at_fault() {
        let suspects = Suspects::default();
        for _ in 0..100 {
            assert_eq!(fail_until_at_fault(&suspects, 1, 10), None);
        }
        suspects.succeeded(&key(2), Instant::now());
        tokio::time::advance(PROOF_HOLDS).await;
        assert_eq!(fail_until_at_fault(&suspects, 1, 10), None, "a success of a minute ago proves nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_that_begins_in_mid_run_leaves_no_item_at_fault() {
        let suspects = Suspects::default();
        suspects.succeeded(&key(1000), Instant::now());
        let mut found = Vec::new();
        for _ in 0..50 {
            found.extend((1..=64).map(|name| suspects.failed(&key(name), Proof::Recent, Instant::now())));
        }
        assert!(!found.contains(&Suspicion::Item));
        assert_eq!(found.iter().position(|found| *found == Suspicion::Endpoint), Some(5));
        // Once the outage is over, its failures do not count against an item.
        suspects.succeeded(&key(1001), Instant::now());
        assert_eq!(suspects.failed(&key(64), Proof::Recent, Instant::now()), Suspicion::Unclear);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_that_begins_with_the_last_items_leaves_no_more_than_five_at_fault() {
        for left in [1, FIRST_FAILURES_MAX, FIRST_FAILURES_MAX + 1, 64] {
            let suspects = Suspects::default();
            suspects.succeeded(&key(1000), Instant::now());
            let mut open: Vec<u32> = (1..=left).collect();
            for _ in 0..50 {
                open.retain(|&name| {
                    suspects.failed(&key(name), Proof::Recent, Instant::now()) != Suspicion::Item
                });
            }
            let at_fault = left - u32::try_from(open.len()).unwrap();
            assert_eq!(at_fault, if left > FIRST_FAILURES_MAX { 0 } else { left });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_are_the_item_s_fault_only_if_another_succeeded_after_it_failed() {
        let suspects = Suspects::default();
        let fail = || {
            let failed = |_: &u32| suspects.failed(&key(1), Proof::Later, Instant::now()) == Suspicion::Item;
            (1..=100).find(failed)
        };
        suspects.succeeded(&key(2), Instant::now());
        assert_eq!(fail(), None, "the credentials may have been replaced since");
        tokio::time::advance(Duration::from_millis(1)).await;
        suspects.succeeded(&key(3), Instant::now());
        assert_eq!(fail(), Some(FAILURES_TO_SUSPECT_ITEM));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_of_the_item_itself_clears_it() {
        let suspects = Suspects::default();
        suspects.succeeded(&key(2), Instant::now());
        assert_eq!(fail_until_at_fault(&suspects, 1, FAILURES_TO_SUSPECT_ITEM - 1), None);
        suspects.succeeded(&key(1), Instant::now());
        assert_eq!(fail_until_at_fault(&suspects, 1, FAILURES_TO_SUSPECT_ITEM - 1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_items_are_remembered_than_there_are_places() {
        let suspects = Suspects::default();
        for name in 0..u32::try_from(REMEMBERED_MAX).unwrap() + 10 {
            suspects.failed(&key(name), Proof::Recent, Instant::now());
        }
        assert_eq!(suspects.lock().items.len(), REMEMBERED_MAX);
        tokio::time::advance(FORGOTTEN_AFTER).await;
        suspects.failed(&key(u32::MAX), Proof::Recent, Instant::now());
        assert_eq!(suspects.lock().items.len(), 1);
    }
}
