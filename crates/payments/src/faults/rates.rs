//! The share of charges that succeed, and the declines of those that are refused. Pure; the JSON form that operators
//! and the store use is here too. Knows no request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Mistake;
use super::draw::Share;
use crate::declines::{CODES, Decline};

/// The decision for one charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The customer is charged.
    Charge,
    /// The customer is not charged.
    Decline(Decline),
}

/// The shares of all draws, in the order in which a draw is compared with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    success: Share,
    /// Sorted by code, so that the order in a request changes no draw.
    declines: Vec<(Decline, Share)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    success: Box<RawValue>,
    #[serde(default)]
    declines: BTreeMap<String, Box<RawValue>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    success: Box<RawValue>,
    declines: BTreeMap<&'a str, Box<RawValue>>,
}

impl Rates {
    /// Rates by which this share succeeds; other charges are refused without a reason.
    #[must_use]
    pub fn of_success(success: Share) -> Self {
        Self { success, declines: Vec::new() }
    }

    /// Parses the JSON form.
    ///
    /// # Errors
    /// All mistakes.
    pub fn parse(json: &[u8]) -> Result<Self, Vec<Mistake>> {
        let given: Given = serde_json::from_slice(json)
            .map_err(|error| vec![Mistake::new("body", format!("is not as expected: {error}"))])?;
        let mut mistakes = Vec::new();
        let mut share = |field: &str, raw: &RawValue| {
            let share = Share::parse_exact(raw.get());
            if share.is_none() {
                mistakes.push(Mistake::new(field, "must be a number from 0 to 1 of at most 12 decimals"));
            }
            share.unwrap_or(Share::NONE)
        };
        let success = share("success", &given.success);
        let mut declines = Vec::new();
        let mut unknown = Vec::new();
        for (code, raw) in &given.declines {
            let part = share(&format!("declines.{code}"), raw);
            match Decline::from_code(code) {
                Some(decline) => declines.push((decline, part)),
                None => unknown.push(format!("declines.{code}")),
            }
        }
        let known = CODES.map(|row| row.code).join(", ");
        let unknown = unknown.into_iter();
        mistakes.extend(unknown.map(|field| Mistake::new(field, format!("must be one of {known}"))));
        let sum = declines.iter().try_fold(success, |sum, (_, part)| sum.plus(*part));
        if sum.is_none() {
            mistakes.push(Mistake::new("declines", "and success must not be more than 1 together"));
        }
        if mistakes.is_empty() { Ok(Self { success, declines }) } else { Err(mistakes) }
    }

    /// The JSON form, which [`Self::parse`] reads.
    #[must_use]
    pub fn to_json(&self) -> String {
        let raw = |share: Share| RawValue::from_string(share.to_string()).expect("a decimal number is JSON");
        let declines = self.declines.iter().map(|(decline, part)| (&*decline.code, raw(*part)));
        let shown = Shown { success: raw(self.success), declines: declines.collect() };
        serde_json::to_string(&shown).expect("numbers and codes are JSON")
    }

    /// The decision for a draw: charged below the success rate, above it the declines in order. The declines do not
    /// change which draws succeed.
    #[must_use]
    pub fn decide(&self, draw: u64) -> Decision {
        if self.success.holds(draw) {
            return Decision::Charge;
        }
        let mut below = self.success;
        for (decline, part) in &self.declines {
            below = below.plus(*part).unwrap_or(Share::ALL);
            if below.holds(draw) {
                return Decision::Decline(decline.clone());
            }
        }
        Decision::Decline(Decline::GENERIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Vec<String> {
        Rates::parse(json.as_bytes()).unwrap_err().into_iter().map(|mistake| mistake.field).collect()
    }

    #[test]
    fn rates_read_as_they_were_written() {
        let json = r#"{"success":0.9,"declines":{"insufficient_funds":0.08,"stolen_card":0.01}}"#;
        assert_eq!(Rates::parse(json.as_bytes()).unwrap().to_json(), json);
        let all = Rates::parse(br#"{"success":1}"#).unwrap();
        assert_eq!(all, Rates::of_success(Share::ALL));
        assert_eq!(all.to_json(), r#"{"success":1,"declines":{}}"#);
    }

    #[test]
    fn each_mistake_is_named_by_its_field() {
        assert_eq!(fields("{}"), ["body"]);
        assert_eq!(fields(r#"{"success":0.5,"failure":0.5}"#), ["body"]);
        assert_eq!(fields(r#"{"success":"0.5"}"#), ["success"]);
        assert_eq!(fields(r#"{"success":0.0000000000001}"#), ["success"]);
        assert_eq!(
            fields(r#"{"success":2,"declines":{"stolen_card":-1,"nonsense":0.1}}"#),
            ["success", "declines.stolen_card", "declines.nonsense"]
        );
        assert_eq!(fields(r#"{"success":0.5,"declines":{"stolen_card":0.6}}"#), ["declines"]);
    }

    #[test]
    fn shares_that_make_one_together_leave_no_draw_without_a_reason() {
        let rates =
            Rates::parse(br#"{"success":0.1,"declines":{"stolen_card":0.2,"insufficient_funds":0.7}}"#)
                .unwrap();
        let code = |draw| match rates.decide(draw) {
            Decision::Charge => "charged".to_owned(),
            Decision::Decline(decline) => decline.code.into_owned(),
        };
        assert_eq!(code(0), "charged");
        assert_eq!(code(u64::MAX / 2), "insufficient_funds");
        assert_eq!(code(u64::MAX / 10 * 9), "stolen_card");
        assert_eq!(code(u64::MAX), "stolen_card");
        assert_eq!(Rates::of_success(Share::NONE).decide(0), Decision::Decline(Decline::GENERIC));
    }
}
