//! Fault scripts: TOML or JSON to checked rules, with every mistake named by rule and field. Pure; knows by which
//! properties a rule matches a charge, but not what a fault does.

mod fields;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use toml::{Table, Value};

use self::fields::Fields;
use super::Mistake;
use super::draw::{Seed, Share};
use crate::declines::Decline;

/// Maximum number of rules in a script.
pub const RULES_MAX: usize = 100;

/// Maximum wait of a rule.
pub const LATENCY_MAX: Duration = Duration::from_secs(3600);

/// Time for which `hold` delays an answer when the rule has none.
pub const HOLD_DEFAULT: Duration = Duration::from_secs(60);

/// The longest body of `status`, in bytes.
pub const STATUS_BODY_BYTES_MAX: usize = 4096;

/// The longest `Retry-After` of `status`, in seconds.
pub const RETRY_AFTER_MAX_S: u32 = 3600;

/// The longest text that a rule compares with, in bytes.
pub const TEXT_LEN_MAX: usize = 256;

/// The routes by which charges come.
pub const ROUTES: [&str; 3] = ["/", "/payments", "/payments/pay"];

/// A fault of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The charge is refused, for this reason.
    Refuse(Decline),
    /// Waits before the decision.
    Latency(Duration),
    /// Answers 500 and executes nothing.
    ErrorBefore,
    /// Executes, then answers 500.
    ErrorAfter,
    /// Executes, then closes the connection without an answer.
    ReplyLost,
    /// Resets the connection and executes nothing.
    Reset,
    /// Executes, then answers 200 with a body that is cut off.
    Malformed,
    /// Executes twice, as if a network had duplicated the delivery.
    Duplicate,
    /// Executes, then delays the answer for this time or until the service drains. The delay applies also after the
    /// client has disconnected, which looks as if it had only ended its request.
    Hold(Duration),
    /// Executes and records the charge without its key, so that a resend is executed again: a broken provider.
    ForgetKey,
    /// Gives another answer than the decision, if there is one.
    Status(Arc<StatusFault>),
    /// Executes, then sends the body in pieces over this time or until the service drains.
    SlowBody(Duration),
    /// Executes, then closes the connection after half of the body.
    TruncatedBody,
}

/// The answer of `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusFault {
    pub status: u16,
    pub body: String,
    pub content_type: String,
    /// The header `Retry-After`, in seconds.
    pub retry_after_s: Option<u32>,
    /// Whether the charge is executed before the answer.
    pub execute: bool,
}

impl StatusFault {
    /// A fault with this status, no body and nothing executed. 429 and 503 have a `Retry-After`.
    #[must_use]
    pub fn of(status: u16) -> Self {
        Self {
            status,
            body: String::new(),
            content_type: "text/plain; charset=utf-8".to_owned(),
            retry_after_s: matches!(status, 429 | 503).then_some(1),
            execute: false,
        }
    }
}

impl Fault {
    /// The faults' names in scripts, in their order.
    pub const NAMES: [&'static str; 13] = [
        "refuse",
        "latency",
        "error-before",
        "error-after",
        "reply-lost",
        "reset",
        "malformed",
        "duplicate",
        "hold",
        "forget-key",
        "status",
        "slow-body",
        "truncated-body",
    ];

    /// The fault's name in scripts and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Refuse(_) => "refuse",
            Self::Latency(_) => "latency",
            Self::ErrorBefore => "error-before",
            Self::ErrorAfter => "error-after",
            Self::ReplyLost => "reply-lost",
            Self::Reset => "reset",
            Self::Malformed => "malformed",
            Self::Duplicate => "duplicate",
            Self::Hold(_) => "hold",
            Self::ForgetKey => "forget-key",
            Self::Status(_) => "status",
            Self::SlowBody(_) => "slow-body",
            Self::TruncatedBody => "truncated-body",
        }
    }

    /// Whether the fault hits a delivery, so that resends must get past it; a refusal is a decision.
    #[must_use]
    pub fn is_of_transport(&self) -> bool {
        !matches!(self, Self::Refuse(_))
    }
}

/// A time in a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A time in ms since the epoch.
    At(i64),
    /// A time in ms after the script was set.
    After(i64),
}

impl Moment {
    fn in_ms(self, set_at_ms: i64) -> i64 {
        match self {
            Self::At(ms) => ms,
            Self::After(ms) => set_at_ms.saturating_add(ms),
        }
    }
}

/// The properties by which a rule matches a charge.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub is_keyed: bool,
    pub account: &'a str,
    pub route: &'a str,
    pub reference: Option<&'a str>,
    pub customer_id: i64,
    pub currency: &'a str,
    pub amount_minor: i64,
    pub now_ms: i64,
}

/// The charges that a rule concerns: those that match every set field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    pub customer_id: Option<i64>,
    /// Matches this amount and more.
    pub amount_minor_min: Option<i64>,
    /// Matches this amount and less.
    pub amount_minor_max: Option<i64>,
    pub route: Option<String>,
    pub reference: Option<String>,
    pub reference_prefix: Option<String>,
    pub currency: Option<String>,
    pub account: Option<String>,
    /// Matches from this time on.
    pub from: Option<Moment>,
    /// Matches before this time.
    pub until: Option<Moment>,
    /// Matches charges with a key only; scripts have no such field.
    pub is_keyed: bool,
}

impl Match {
    /// Whether a charge matches, under a script that was set at `set_at_ms`.
    #[must_use]
    pub fn matches(&self, facts: &Facts<'_>, set_at_ms: i64) -> bool {
        let is = |only: &Option<String>, text: &str| only.as_deref().is_none_or(|only| only == text);
        let reference = facts.reference;
        self.customer_id.is_none_or(|only| only == facts.customer_id)
            && self.amount_minor_min.is_none_or(|min| facts.amount_minor >= min)
            && self.amount_minor_max.is_none_or(|max| facts.amount_minor <= max)
            && is(&self.route, facts.route)
            && self.reference.as_deref().is_none_or(|only| reference == Some(only))
            && self
                .reference_prefix
                .as_deref()
                .is_none_or(|prefix| reference.is_some_and(|text| text.starts_with(prefix)))
            && is(&self.currency, facts.currency)
            && is(&self.account, facts.account)
            && self.from.is_none_or(|from| facts.now_ms >= from.in_ms(set_at_ms))
            && self.until.is_none_or(|until| facts.now_ms < until.in_ms(set_at_ms))
            && (facts.is_keyed || !self.is_keyed)
    }
}

/// One `[[rule]]`: a fault, and the deliveries that the fault hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub fault: Fault,
    /// The share of subjects that the rule hits, drawn by seed.
    pub share: Share,
    /// The charges that the rule concerns.
    pub only: Match,
    /// The rule hits only the nth of the deliveries that match all other fields.
    pub nth: Option<u64>,
    /// Maximum number of deliveries of one key that are hit; not for `refuse`.
    pub times: u32,
}

/// A whole script.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    /// The seed, if the script names one.
    pub seed: Option<Seed>,
    /// The first rule that matches wins.
    pub rules: Vec<Rule>,
    /// The script as it was written, without comments; times of day are texts, so that JSON can hold them.
    written: Table,
}

/// Every mistake of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError(pub Vec<Mistake>);

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> =
            self.0.iter().map(|mistake| format!("{} {}", mistake.field, mistake.message)).collect();
        f.write_str(&lines.join("; "))
    }
}

impl std::error::Error for ScriptError {}

impl Script {
    /// Parses and checks a script in TOML.
    ///
    /// # Errors
    /// All mistakes.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let table = text.parse().map_err(|error: toml::de::Error| unreadable("TOML", &error))?;
        Self::of_table(table)
    }

    /// Parses and checks a script in JSON, with the same fields: `{"seed":…,"rule":[{…}]}`.
    ///
    /// # Errors
    /// All mistakes.
    pub fn parse_json(text: &[u8]) -> Result<Self, ScriptError> {
        Self::of_table(serde_json::from_slice(text).map_err(|error| unreadable("JSON of a script", &error))?)
    }

    /// The script as JSON that [`Self::parse_json`] reads.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.written).expect("a table without times of day is JSON")
    }

    /// The script as TOML that [`Self::parse`] reads.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.written.to_string()
    }

    fn of_table(mut table: Table) -> Result<Self, ScriptError> {
        times_as_text(&mut table);
        let written = table.clone();
        let mut fields = Fields::of(table, "script".to_owned());
        let seed = fields.integer("seed", 0, i64::MAX).map(|seed| Seed(seed.unsigned_abs()));
        let tables = fields.tables("rule");
        let mut mistakes = fields.finish();
        let mut rules = Vec::new();
        for (at, table) in tables.into_iter().enumerate() {
            let mut fields = Fields::of(table, format!("rule {}", at + 1));
            let rule = read_rule(&mut fields);
            mistakes.extend(fields.finish());
            rules.extend(rule);
        }
        if rules.len() > RULES_MAX {
            mistakes.push(Mistake::new("script: rule", format!("must not come more than {RULES_MAX} times")));
        }
        if mistakes.is_empty() { Ok(Self { seed, rules, written }) } else { Err(ScriptError(mistakes)) }
    }
}

fn unreadable(what: &str, error: &dyn fmt::Display) -> ScriptError {
    let message = format!("is not {what}: {}", error.to_string().trim().replace('\n', " "));
    ScriptError(vec![Mistake::new("script", message)])
}

/// Turns TOML times into texts. A field with a time is either unknown or a [`Moment`], which may be a text.
fn times_as_text(table: &mut Table) {
    for (_, value) in table.iter_mut() {
        match value {
            Value::Datetime(time) => *value = Value::String(time.to_string()),
            Value::Table(table) => times_as_text(table),
            Value::Array(items) => items.iter_mut().filter_map(Value::as_table_mut).for_each(times_as_text),
            _ => {}
        }
    }
}

fn read_rule(fields: &mut Fields) -> Option<Rule> {
    let fault = fields.fault();
    let share = fields.share();
    let only = read_match(fields);
    let nth = fields.integer("nth", 1, i64::MAX).map(i64::unsigned_abs);
    let times = fields.integer("times", 1, i64::from(u32::MAX));
    let times = times.map_or(1, |times| u32::try_from(times).expect("the range was checked"));
    Some(Rule { fault: fault?, share: share.unwrap_or(Share::ALL), only, nth, times })
}

fn read_match(fields: &mut Fields) -> Match {
    let only = Match {
        customer_id: fields.integer("customer_id", 0, i64::MAX),
        amount_minor_min: fields.integer("amount_minor_min", 0, i64::MAX),
        amount_minor_max: fields.integer("amount_minor_max", 0, i64::MAX),
        route: fields.one_of("route", &ROUTES),
        reference: fields.text("reference", TEXT_LEN_MAX),
        reference_prefix: fields.text("reference_prefix", TEXT_LEN_MAX),
        currency: fields.text("currency", TEXT_LEN_MAX),
        account: fields.text("account", TEXT_LEN_MAX),
        from: fields.moment("from"),
        until: fields.moment("until"),
        is_keyed: false,
    };
    if let (Some(min), Some(max)) = (only.amount_minor_min, only.amount_minor_max)
        && min > max
    {
        fields.mistake("amount_minor_max", "is less than amount_minor_min");
    }
    let (from, until) = (only.from, only.until);
    if let (Some(Moment::At(from)), Some(Moment::At(until)))
    | (Some(Moment::After(from)), Some(Moment::After(until))) = (from, until)
        && from >= until
    {
        fields.mistake("until", "is not after from");
    }
    only
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> String {
        Script::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_fault_has_a_word_and_every_word_a_fault() {
        for word in Fault::NAMES {
            let more = match word {
                "latency" | "slow-body" => "latency_ms = 5",
                "status" => "status = 503",
                _ => "",
            };
            let script = Script::parse(&format!("[[rule]]\nfault = \"{word}\"\n{more}")).unwrap();
            assert_eq!(script.rules[0].fault.as_str(), word);
        }
    }

    #[test]
    fn a_full_rule_is_read() {
        let script = Script::parse(
            "seed = 8213\n[[rule]]\nfault = \"hold\"\nshare = 0.05\ncustomer_id = 7\namount_minor_min = 100\n\
             amount_minor_max = 200\nnth = 3\nlatency_ms = 250\ntimes = 2\n[[rule]]\nfault = \"reset\"\nshare = 1\n",
        )
        .unwrap();
        assert_eq!(script.seed, Some(Seed(8213)));
        let expected = Rule {
            fault: Fault::Hold(Duration::from_millis(250)),
            share: Share::parse("0.05").unwrap(),
            only: Match {
                customer_id: Some(7),
                amount_minor_min: Some(100),
                amount_minor_max: Some(200),
                ..Match::default()
            },
            nth: Some(3),
            times: 2,
        };
        assert_eq!(script.rules[0], expected);
        assert_eq!(script.rules[1].share, Share::ALL);
        assert_eq!(script.rules[1].times, 1);
    }

    #[test]
    fn an_empty_script_has_no_rules() {
        assert_eq!(Script::parse(""), Ok(Script::default()));
    }

    #[test]
    fn all_mistakes_come_at_once_with_rule_and_field() {
        let text = mistakes(
            "sed = 1\n[[rule]]\nfault = \"explode\"\n[[rule]]\nfault = \"reset\"\nshare = 1.5\nnth = 0\n\
             latency_ms = 5\n[[rule]]\nfault = \"latency\"\ncustomer = 3\namount_minor_min = 3\n\
             amount_minor_max = 2\ntimes = \"two\"\n",
        );
        for expected in [
            "script: sed is no field",
            "rule 1: fault must be one of refuse, latency",
            "rule 2: share must be a number from 0 to 1",
            "rule 2: nth must be at least 1",
            "rule 2: latency_ms means something",
            "rule 3: latency_ms is missing",
            "rule 3: customer is no field",
            "rule 3: amount_minor_max is less than",
            "rule 3: times must be an integer",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in {text:?}");
        }
    }

    #[test]
    fn what_is_not_toml_or_not_rules_is_said_so() {
        assert!(mistakes("fault = reset").starts_with("script is not TOML"));
        assert!(mistakes("rule = 5").contains("[[rule]]"));
        assert!(mistakes("[rule]\nfault = \"reset\"").contains("[[rule]]"));
    }

    #[test]
    fn the_fields_of_a_status_are_read_and_checked() {
        let of = |text: &str| Script::parse(&format!("[[rule]]\nfault = \"status\"\n{text}"));
        let Fault::Status(read) = of(
            "status = 418\nbody = \"no\"\ncontent_type = \"text/html\"\nretry_after_s = 7\nexecute = true",
        )
        .unwrap()
        .rules
        .remove(0)
        .fault
        else {
            panic!("no status")
        };
        let expected = StatusFault {
            status: 418,
            body: "no".to_owned(),
            content_type: "text/html".to_owned(),
            retry_after_s: Some(7),
            execute: true,
        };
        assert_eq!(*read, expected);
        let long = format!("status = 500\nbody = \"{}\"", "x".repeat(STATUS_BODY_BYTES_MAX + 1));
        for (text, mistake) in [
            ("", "rule 1: status is missing"),
            ("status = 199", "rule 1: status must be from 200 to 599"),
            ("status = 503\nretry_after_s = 3601", "rule 1: retry_after_s must be from 0 to 3600"),
            ("status = 503\ncontent_type = \"a\\nb\"", "rule 1: content_type must be"),
            ("status = 503\nexecute = 1", "rule 1: execute must be true or false"),
            (&long, "rule 1: body must be a text of at most 4096 bytes"),
        ] {
            let told = of(text).unwrap_err().to_string();
            assert!(told.contains(mistake), "{mistake:?} is not in {told:?}");
        }
    }

    #[test]
    fn fields_of_another_fault_and_windows_upside_down_are_mistakes() {
        let text = mistakes(
            "[[rule]]\nfault = \"reset\"\nstatus = 500\ndecline = \"stolen_card\"\n[[rule]]\nfault = \"refuse\"\n\
             decline = \"nonsense\"\nfrom = 10\nuntil = 5\nroute = \"/pay\"\n[[rule]]\nfault = \"reset\"\nfrom = \"noon\"\n\
             until = 1979-05-27",
        );
        for expected in [
            "rule 1: status means something for status only",
            "rule 1: decline means something for refuse only",
            "rule 2: decline must be one of insufficient_funds",
            "rule 2: until is not after from",
            "rule 2: route must be one of /, /payments",
            "rule 3: from must be",
            "rule 3: until must be",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in {text:?}");
        }
    }

    #[test]
    fn a_script_reads_the_same_in_both_forms() {
        let toml = "seed = 8213\n[[rule]]\nfault = \"refuse\"\ndecline = \"stolen_card\"\nshare = 0.05\n\
                    from = 2026-12-01T00:00:00+01:00\nuntil = 2026-12-02T00:00:00Z\nreference_prefix = \"SUB-\"\n";
        let script = Script::parse(toml).unwrap();
        assert_eq!(Script::parse_json(script.to_json().as_bytes()), Ok(script.clone()));
        assert_eq!(Script::parse(&script.to_toml()), Ok(script.clone()));
        let only = &script.rules[0].only;
        assert_eq!(
            (only.from, only.until),
            (Some(Moment::At(1_796_079_600_000)), Some(Moment::At(1_796_169_600_000)))
        );
        let told = Script::parse_json(b"{\"rule\":[{\"fault\":null}]}").unwrap_err().to_string();
        assert!(told.starts_with("script is not JSON of a script"), "{told}");
    }
}
