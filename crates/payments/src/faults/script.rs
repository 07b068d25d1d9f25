//! Fault scripts: TOML to checked rules, with every mistake named by rule and field.
//! Pure; knows neither requests nor what a fault does to one.

use std::fmt;
use std::time::Duration;

use toml::{Table, Value};

use super::draw::{Seed, Share};

/// The most rules of one script.
pub const RULES_MAX: usize = 100;

/// The longest wait that a rule may ask for.
pub const LATENCY_MAX: Duration = Duration::from_secs(3600);

/// How long `hold` keeps an answer back when the rule does not say.
pub const HOLD_DEFAULT: Duration = Duration::from_secs(60);

/// A fault of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The decision is "refused".
    Refuse,
    /// Waits before it decides.
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
    /// Executes twice, as if a network had doubled the delivery.
    Duplicate,
    /// Executes, then keeps the answer back for so long or until the service is being stopped. A client that has
    /// hung up looks like one that only ended its request, and is held all the same.
    Hold(Duration),
    /// Executes and records it without its key, so that a resend is executed again: a broken provider.
    ForgetKey,
}

impl Fault {
    /// The names in scripts, in their order.
    pub const NAMES: [&'static str; 10] = [
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
    ];

    /// The name in scripts and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Latency(_) => "latency",
            Self::ErrorBefore => "error-before",
            Self::ErrorAfter => "error-after",
            Self::ReplyLost => "reply-lost",
            Self::Reset => "reset",
            Self::Malformed => "malformed",
            Self::Duplicate => "duplicate",
            Self::Hold(_) => "hold",
            Self::ForgetKey => "forget-key",
        }
    }
}

/// One `[[rule]]`: a fault, and the deliveries that it hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub fault: Fault,
    /// Which part of the subjects, drawn by seed.
    pub share: Share,
    /// Only this customer.
    pub customer_id: Option<i64>,
    /// Only this amount and more.
    pub amount_minor_min: Option<i64>,
    /// Only this amount and less.
    pub amount_minor_max: Option<i64>,
    /// Only the nth of the deliveries that match all other fields.
    pub nth: Option<u64>,
    /// How many deliveries of one key are hit at most; not for `refuse`.
    pub times: u32,
}

/// A whole script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// The seed, if the script names one.
    pub seed: Option<Seed>,
    /// The first rule that matches wins.
    pub rules: Vec<Rule>,
}

/// Every mistake of a script, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError(Vec<String>);

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for ScriptError {}

impl Script {
    /// Parses and checks a script.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            ScriptError(vec![format!("this is not TOML: {}", error.to_string().trim().replace('\n', " "))])
        })?;
        let mut fields = Fields { table, place: "script".to_owned(), mistakes: Vec::new() };
        let seed = fields.integer("seed", 0, i64::MAX).map(|seed| Seed(seed.unsigned_abs()));
        let tables = fields.tables("rule");
        let mut mistakes = fields.finish();
        let mut rules = Vec::new();
        for (at, table) in tables.into_iter().enumerate() {
            let mut fields = Fields { table, place: format!("rule {}", at + 1), mistakes: Vec::new() };
            let rule = read_rule(&mut fields);
            mistakes.extend(fields.finish());
            rules.extend(rule);
        }
        if rules.len() > RULES_MAX {
            mistakes.push(format!("a script has at most {RULES_MAX} rules"));
        }
        if mistakes.is_empty() { Ok(Self { seed, rules }) } else { Err(ScriptError(mistakes)) }
    }
}

fn read_rule(fields: &mut Fields) -> Option<Rule> {
    let latency_max = i64::try_from(LATENCY_MAX.as_millis()).expect("an hour of ms fits an i64");
    let latency_ms = fields.integer("latency_ms", 0, latency_max).map(i64::unsigned_abs);
    let fault = fields.fault(latency_ms.map(Duration::from_millis));
    let share = fields.share();
    let customer_id = fields.integer("customer_id", 0, i64::MAX);
    let amount_minor_min = fields.integer("amount_minor_min", 0, i64::MAX);
    let amount_minor_max = fields.integer("amount_minor_max", 0, i64::MAX);
    if let (Some(min), Some(max)) = (amount_minor_min, amount_minor_max)
        && min > max
    {
        fields.mistake("amount_minor_max", "is less than amount_minor_min");
    }
    let nth = fields.integer("nth", 1, i64::MAX).map(i64::unsigned_abs);
    let times = fields.integer("times", 1, i64::from(u32::MAX));
    let times = times.map_or(1, |times| u32::try_from(times).expect("the range was checked"));
    Some(Rule {
        fault: fault?,
        share: share.unwrap_or(Share::ALL),
        customer_id,
        amount_minor_min,
        amount_minor_max,
        nth,
        times,
    })
}

/// The fields of one table that were not read yet, and what was wrong with the others.
struct Fields {
    table: Table,
    place: String,
    mistakes: Vec<String>,
}

impl Fields {
    fn mistake(&mut self, field: &str, what: &str) {
        self.mistakes.push(format!("{}: {field} {what}", self.place));
    }

    fn integer(&mut self, field: &str, min: i64, max: i64) -> Option<i64> {
        match self.table.remove(field)? {
            Value::Integer(number) if (min..=max).contains(&number) => Some(number),
            Value::Integer(_) if max == i64::MAX => {
                self.mistake(field, &format!("must be at least {min}"));
                None
            }
            Value::Integer(_) => {
                self.mistake(field, &format!("must be from {min} to {max}"));
                None
            }
            _ => {
                self.mistake(field, "must be an integer");
                None
            }
        }
    }

    fn share(&mut self) -> Option<Share> {
        let text = match self.table.remove("share")? {
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            other => other.to_string(),
        };
        let share = Share::parse(&text);
        if share.is_none() {
            self.mistake("share", "must be a number from 0 to 1");
        }
        share
    }

    fn fault(&mut self, latency: Option<Duration>) -> Option<Fault> {
        let word = match self.table.remove("fault") {
            Some(Value::String(word)) => word,
            _ => String::new(),
        };
        let fault = match (word.as_str(), latency) {
            ("refuse", _) => Fault::Refuse,
            ("latency", Some(wait)) => Fault::Latency(wait),
            ("latency", None) => {
                self.mistake("latency_ms", "is missing");
                return None;
            }
            ("error-before", _) => Fault::ErrorBefore,
            ("error-after", _) => Fault::ErrorAfter,
            ("reply-lost", _) => Fault::ReplyLost,
            ("reset", _) => Fault::Reset,
            ("malformed", _) => Fault::Malformed,
            ("duplicate", _) => Fault::Duplicate,
            ("hold", wait) => Fault::Hold(wait.unwrap_or(HOLD_DEFAULT)),
            ("forget-key", _) => Fault::ForgetKey,
            _ => {
                self.mistake("fault", &format!("must be one of {}", Fault::NAMES.join(", ")));
                return None;
            }
        };
        if latency.is_some() && !matches!(fault, Fault::Latency(_) | Fault::Hold(_)) {
            self.mistake("latency_ms", "means something for latency and hold only");
        }
        Some(fault)
    }

    fn tables(&mut self, field: &str) -> Vec<Table> {
        let Some(value) = self.table.remove(field) else { return Vec::new() };
        let Value::Array(items) = value else {
            self.mistake(field, "must be written as [[rule]]");
            return Vec::new();
        };
        let tables: Vec<Table> = items.iter().filter_map(|item| item.as_table().cloned()).collect();
        if tables.len() != items.len() {
            self.mistake(field, "must be written as [[rule]]");
        }
        tables
    }

    /// Whatever is left is unknown.
    fn finish(mut self) -> Vec<String> {
        let unknown: Vec<String> = self.table.keys().cloned().collect();
        for field in unknown {
            self.mistake(&field, "is no field that this version knows");
        }
        self.mistakes
    }
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
            let latency = if word == "latency" { "latency_ms = 5" } else { "" };
            let script = Script::parse(&format!("[[rule]]\nfault = \"{word}\"\n{latency}")).unwrap();
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
            customer_id: Some(7),
            amount_minor_min: Some(100),
            amount_minor_max: Some(200),
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
        assert!(mistakes("fault = reset").starts_with("this is not TOML"));
        assert!(mistakes("rule = 5").contains("[[rule]]"));
        assert!(mistakes("[rule]\nfault = \"reset\"").contains("[[rule]]"));
    }
}
