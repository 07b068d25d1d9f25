//! Amounts that decide a charge by themselves, for clients under test (`--test-amounts`). Pure; concerns keyed requests
//! only.

use std::sync::Arc;

use super::draw::Share;
use super::rates::Decision;
use super::script::{Fault, Match, Rule, StatusFault};
use crate::declines::Decline;

/// The effect of an amount, in the minor units of its currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestAmount {
    /// Refused with this code.
    Declined(&'static str),
    /// Charged; the first response is lost.
    ReplyLost,
    /// The first delivery gets a 429; the next one is charged.
    TooManyRequests,
}

/// All such amounts.
pub const AMOUNTS: [(i64, TestAmount); 5] = [
    (4001, TestAmount::Declined("insufficient_funds")),
    (4002, TestAmount::Declined("stolen_card")),
    (4003, TestAmount::Declined("expired_card")),
    (4004, TestAmount::ReplyLost),
    (4005, TestAmount::TooManyRequests),
];

/// The decision for an amount, independent of the rates.
#[must_use]
pub fn decision(amount_minor: i64) -> Option<Decision> {
    let (_, meaning) = AMOUNTS.into_iter().find(|(amount, _)| *amount == amount_minor)?;
    match meaning {
        TestAmount::Declined(code) => Decline::from_code(code).map(Decision::Decline),
        TestAmount::ReplyLost | TestAmount::TooManyRequests => Some(Decision::Charge),
    }
}

/// The rules of the amounts that disturb a response; they follow a script's rules.
pub fn rules() -> impl Iterator<Item = Rule> {
    AMOUNTS.into_iter().filter_map(|(amount, meaning)| {
        let fault = match meaning {
            TestAmount::Declined(_) => return None,
            TestAmount::ReplyLost => Fault::ReplyLost,
            TestAmount::TooManyRequests => Fault::Status(Arc::new(StatusFault::of(429))),
        };
        let only = Match {
            amount_minor_min: Some(amount),
            amount_minor_max: Some(amount),
            is_keyed: true,
            ..Match::default()
        };
        Some(Rule { fault, share: Share::ALL, only, nth: None, times: 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_amount_decides_and_no_other_one_does() {
        let code = |amount| match decision(amount)? {
            Decision::Charge => Some("charged".to_owned()),
            Decision::Decline(decline) => Some(decline.to_string()),
        };
        assert_eq!(code(4000), None);
        assert_eq!(code(4001).as_deref(), Some("class=soft; code=insufficient_funds"));
        assert_eq!(code(4002).as_deref(), Some("class=hard; code=stolen_card"));
        assert_eq!(code(4003).as_deref(), Some("class=fix; code=expired_card"));
        assert_eq!((code(4004), code(4005)), (Some("charged".to_owned()), Some("charged".to_owned())));
        assert_eq!(code(4006), None);
    }
}
