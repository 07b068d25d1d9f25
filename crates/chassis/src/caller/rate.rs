//! The rate limit of each account, with a burst of one second. Knows no credential.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Account;

/// Default rate limit of one account: none of our callers needs so many, and the limit protects other accounts from a
/// runaway caller.
pub const RATE_MAX: NonZeroU32 = NonZeroU32::new(50_000).expect("it is not zero");

/// Maximum number of accounts with a limit of their own; all further accounts share one limit.
const ACCOUNTS_MAX: usize = 1024;

/// The burst, as a duration.
const BURST: Duration = Duration::from_secs(1);

/// A limit, and how much of it each account has used.
#[derive(Debug)]
pub(super) struct Rate {
    /// Interval between two calls at exactly the limit.
    every: Duration,
    /// The time until which each account has used up its calls.
    used: Mutex<HashMap<Account, Instant>>,
}

impl Rate {
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        Self { every: BURST / per_second.get(), used: Mutex::default() }
    }

    /// Consumes one request of this account, or returns the time until a request is available.
    pub(super) fn take(&self, account: &Account) -> Result<(), Duration> {
        let now = Instant::now();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let crowd = Account::default();
        let is_new = !used.contains_key(account);
        let key = if is_new && used.len() >= ACCOUNTS_MAX { &crowd } else { account };
        let until = used.get(key).copied().unwrap_or(now).max(now) + self.every;
        let ahead = until - now;
        if ahead > BURST {
            return Err(ahead - BURST);
        }
        match used.get_mut(key) {
            Some(known) => *known = until,
            None => {
                used.insert(key.clone(), until);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rate: &Rate, account: &Account, calls: usize) -> usize {
        (0..calls).filter(|_| rate.take(account).is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_has_a_seconds_worth_at_once_and_then_its_rate() {
        let rate = Rate::new(NonZeroU32::new(10).unwrap());
        let (shop, other) = (Account::named("shop"), Account::named("other"));
        assert_eq!(taken(&rate, &shop, 50), 10);
        assert_eq!(taken(&rate, &other, 50), 10, "one account takes nothing from another");
        let wait = rate.take(&shop).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(100), "{wait:?}");
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(taken(&rate, &shop, 50), 5);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(taken(&rate, &shop, 50), 10, "what was not used is not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_accounts_as_one_likes_take_no_more_room() {
        let rate = Rate::new(NonZeroU32::MIN);
        for number in 0..2 * ACCOUNTS_MAX {
            // Whether the call is accepted does not matter here.
            let _ = rate.take(&Account::named(&format!("a{number}")));
        }
        assert!(rate.used.lock().unwrap().len() <= ACCOUNTS_MAX + 1);
    }
}
