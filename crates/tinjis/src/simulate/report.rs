//! The output of a simulation: a line or a JSON object per month, the totals, and the picture. Judges nothing.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::site::{Site, memory_peak_kib_of};
use super::{Options, counted_words};
use crate::output::grouped;
use crate::verify::VerifyVerdict;
use billing::plot::{BarChart, Group};

/// The results of a month. The names in the JSON are published.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Month {
    pub(super) month: String,
    pub(super) due: u64,
    pub(super) invoiced: u64,
    pub(super) paid: u64,
    pub(super) soft: u64,
    pub(super) hard: u64,
    /// Overdue invoices of all months so far.
    pub(super) overdue: u64,
    pub(super) resent: u64,
    /// Double and lost charges of all months so far.
    pub(super) double: u64,
    pub(super) lost: u64,
    pub(super) early: u64,
    pub(super) over_limit: u64,
    #[serde(skip)]
    pub(super) verdict: VerifyVerdict,
    #[serde(skip)]
    pub(super) complaints: Vec<String>,
}

impl Month {
    pub(super) fn json(&self) -> String {
        json!(self).to_string()
    }

    pub(super) fn line(&self) -> String {
        format!("{}  {}  {}", self.month, counted_words(self), word(self.verdict))
    }
}

fn word(verdict: VerifyVerdict) -> &'static str {
    match verdict {
        VerifyVerdict::Ok => "ok",
        VerifyVerdict::Wrong => "wrong",
        VerifyVerdict::Unknown => "unknown",
    }
}

/// All months together, and their costs.
pub(super) struct Summary {
    total: Month,
    pub(super) verdict: VerifyVerdict,
    took: Duration,
    charging: Duration,
    killed: u64,
    memory_peak_kib: u64,
    command_memory_peak_kib: u64,
}

impl Summary {
    pub(super) fn of(months: &[Month], site: &Site, took: Duration) -> Self {
        let sum = |of: fn(&Month) -> u64| months.iter().map(of).sum();
        let last = |of: fn(&Month) -> u64| months.last().map_or(0, of);
        let any = |verdict| months.iter().any(|month| month.verdict == verdict);
        let verdict = match (any(VerifyVerdict::Wrong), any(VerifyVerdict::Unknown)) {
            (true, _) => VerifyVerdict::Wrong,
            (false, true) => VerifyVerdict::Unknown,
            (false, false) => VerifyVerdict::Ok,
        };
        let total = Month {
            month: "total".to_owned(),
            due: sum(|month| month.due),
            invoiced: sum(|month| month.invoiced),
            paid: sum(|month| month.paid),
            soft: sum(|month| month.soft),
            hard: sum(|month| month.hard),
            overdue: last(|month| month.overdue),
            resent: sum(|month| month.resent),
            double: last(|month| month.double),
            lost: last(|month| month.lost),
            early: sum(|month| month.early),
            over_limit: sum(|month| month.over_limit),
            verdict,
            complaints: Vec::new(),
        };
        let (charging, killed, memory_peak_kib) = (site.charging, site.killed, site.memory_peak_kib);
        let command_memory_peak_kib = memory_peak_kib_of(std::process::id()).unwrap_or(0);
        Self { total, verdict, took, charging, killed, memory_peak_kib, command_memory_peak_kib }
    }

    pub(super) fn json(&self) -> String {
        let mut shown = json!(self.total);
        let figures = [
            ("seconds", Value::from(self.took.as_secs())),
            ("sending_seconds", Value::from(self.charging.as_secs())),
            ("kills", Value::from(self.killed)),
            ("memory_peak_kib", Value::from(self.memory_peak_kib)),
            ("command_memory_peak_kib", Value::from(self.command_memory_peak_kib)),
            ("verdict", Value::from(word(self.verdict))),
        ];
        for (name, value) in figures {
            shown[name] = value;
        }
        shown.to_string()
    }

    pub(super) fn lines(&self, options: &Options) -> [String; 2] {
        let share = self.charging.as_millis() * 100 / self.took.as_millis().max(1);
        let cost = format!(
            "{} months of {} subscriptions in {} s, {share} % of it sending; {} kills; at most {} MiB a service, {} MiB this \
             command; seed {}",
            options.months,
            grouped(options.subscriptions),
            self.took.as_secs(),
            self.killed,
            self.memory_peak_kib.div_ceil(1024),
            self.command_memory_peak_kib.div_ceil(1024),
            options.seed
        );
        [self.total.line(), cost]
    }
}

/// The months as a picture.
pub(super) fn chart(months: &[Month], options: &Options) -> BarChart {
    let group = |month: &Month| Group {
        label: month.month.clone(),
        values: vec![month.invoiced, month.paid, month.soft, month.hard],
    };
    BarChart {
        title: "Invoices, payments and declines, by month".to_owned(),
        subtitle: format!(
            "{} subscriptions on a virtual clock; {} kills; seed {}",
            options.subscriptions, options.kills, options.seed
        ),
        series: ["invoiced", "paid", "soft declines", "hard declines"].map(str::to_owned).to_vec(),
        groups: months.iter().map(group).collect(),
    }
}
