//! The report of each failover: a line of text, a line of JSON in the file `FAILOVER_OUT`, and the verdict. Starts and
//! queries nothing.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::postgres::cluster::Blow;
use testkit::proof::progress;
use testkit::proxy::Execution;

use crate::table::{Ledger, Setup};

/// One failover.
pub(crate) struct Failover {
    pub(crate) number: usize,
    pub(crate) blow: Blow,
    pub(crate) setup: Setup,
    /// Charges per second before the failure.
    pub(crate) rate: u64,
    /// Time from the failure until a standby was promoted.
    pub(crate) to_leader: Duration,
    /// Time from the promotion until the provider answered the first charge, with the operator's steps.
    pub(crate) to_charge: Duration,
    /// Open attempts on the new leader.
    pub(crate) open: i64,
    /// Executed charges that billing on the new leader did not know: without keys they would be charged again.
    pub(crate) unsettled: usize,
    /// Executed charges that the new leader's ledger lacks.
    pub(crate) forgotten: usize,
    /// Those of the lacking charges that billing had lost too.
    pub(crate) imported: usize,
}

/// The totals of a setup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) invoices: usize,
    /// Double charges in executions and ledger together.
    pub(crate) double: u64,
    /// Invoices that were executed and are not PAID, or are PAID and were never executed.
    pub(crate) lost: u64,
    pub(crate) unpaid: u64,
    /// PAID invoices whose charge the ledger has lost, as `verify` names them.
    pub(crate) unbacked: u64,
    /// Maximum number of unbacked invoices that the failovers explain.
    pub(crate) explained: u64,
    /// Output of failed repairs.
    pub(crate) not_repaired: Vec<String>,
    /// Findings of `verify` of all other kinds.
    pub(crate) findings: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) failovers: usize,
    pub(crate) with_open: usize,
    pub(crate) unsettled: usize,
    pub(crate) forgotten: usize,
    pub(crate) invoices: usize,
    pub(crate) double: u64,
    pub(crate) lost: u64,
    pub(crate) control_doubles: u64,
}

pub(crate) struct Report(Option<RefCell<File>>);

impl Report {
    pub(crate) fn open() -> Self {
        let path = std::env::var_os("FAILOVER_OUT").filter(|path| !path.is_empty());
        Self(path.map(|path| RefCell::new(File::create(path).expect("the report can be written"))))
    }

    fn json(&self, line: &Value) {
        if let Some(file) = &self.0 {
            writeln!(file.borrow_mut(), "{line}").expect("the report can be written");
        }
    }

    pub(crate) fn failover(&self, failover: &Failover) {
        let Failover { number, blow, setup, rate, open, unsettled, forgotten, imported, .. } = failover;
        let (to_leader, to_charge) = (failover.to_leader, failover.to_charge);
        let (is_inside, needs_operator) = (setup.ledger == Ledger::InCluster, setup.loses_ledger_rows());
        progress(&format!(
            "{number}: {}, {}, ledger {}: {rate} charges/s before; new leader after {}, first charge {} later{}; {open} \
             attempts open; charges unknown to billing {unsettled}, to the ledger {forgotten}; imported {imported}",
            blow.as_str(),
            describe(setup),
            if is_inside { "in the cluster" } else { "elsewhere" },
            seconds(to_leader),
            seconds(to_charge),
            if needs_operator { ", operator's steps included" } else { "" },
        ));
        self.json(&json!({
            "failover": number,
            "blow": blow.as_str(),
            "mode": setup.mode.as_str(),
            "route": setup.route.as_str(),
            "ledger_in_cluster": is_inside,
            "operator": needs_operator,
            "charges_per_second": rate,
            "to_leader_ms": millis(to_leader),
            "to_first_charge_ms": millis(to_charge),
            "open": open,
            "met_open_attempts": *open > 0,
            "unsettled": unsettled,
            "forgotten": forgotten,
            "imported": imported,
        }));
    }

    pub(crate) fn setup(&self, setup: &Setup, judged: &Judged) {
        let Judged { invoices, double, lost, unpaid, unbacked, findings, .. } = judged;
        progress(&format!(
            "{}: {invoices} invoices, double {double}, lost {lost}, unpaid {unpaid}; verify: {unbacked} unbacked, \
             {findings} other findings",
            describe(setup)
        ));
        self.json(&json!({
            "setup": describe(setup), "invoices": invoices, "double": double, "lost": lost, "unpaid": unpaid,
            "unbacked": unbacked, "findings": findings,
        }));
    }

    pub(crate) fn totals(&self, totals: &Totals) {
        self.json(&json!({
            "failovers": totals.failovers, "met_open_attempts": totals.with_open, "invoices": totals.invoices,
            "unsettled": totals.unsettled,
            "forgotten": totals.forgotten, "double": totals.double, "lost": totals.lost,
            "naive_double": totals.control_doubles,
        }));
    }
}

impl Totals {
    pub(crate) fn add(&mut self, failover: &Failover) {
        self.with_open += usize::from(failover.open > 0);
        self.unsettled += failover.unsettled;
        self.forgotten += failover.forgotten;
    }

    pub(crate) fn judge(&mut self, judged: &Judged) {
        self.invoices += judged.invoices;
        self.double += judged.double;
        self.lost += judged.lost;
    }

    pub(crate) fn how_many(&self) -> String {
        let Self { failovers, with_open, unsettled, invoices, forgotten, control_doubles, .. } = self;
        format!(
            "{failovers} failovers, {with_open} met open attempts, {invoices} invoices, {unsettled} charges unknown to \
             billing, {forgotten} to the ledger; naive: {control_doubles} double"
        )
    }
}

impl Judged {
    #[track_caller]
    pub(crate) fn assert_right(&self, setup: &Setup) {
        let wrong = [self.double, self.lost, self.unpaid, self.findings];
        assert_eq!(wrong, [0; 4], "{setup:?}: double, lost, unpaid, findings: {self:?}");
        assert!(self.unbacked <= self.explained, "{setup:?}: more unbacked than the ledger lost: {self:?}");
        assert_eq!(self.not_repaired, [""; 0], "{setup:?}");
    }
}

/// Number of references that were charged more than once. Counts each execution, and each ledger row (reference and
/// key) without a recorded execution.
pub(crate) fn doubles(executed: &[Execution], rows: &[(String, String)]) -> u64 {
    let mut charges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for execution in executed {
        charges.entry(execution.reference()).or_default().push(&execution.key);
    }
    for (reference, key) in rows {
        let seen = charges.entry(reference).or_default();
        if !seen.contains(&key.as_str()) {
            seen.push(key);
        }
    }
    let doubles = charges.values().filter(|keys| keys.len() > 1).count();
    u64::try_from(doubles).expect("a proof is smaller than 2^64")
}

/// The references of executions and rows.
pub(crate) fn charged<'a>(executed: &'a [Execution], rows: &'a [(String, String)]) -> BTreeSet<&'a str> {
    executed
        .iter()
        .map(Execution::reference)
        .chain(rows.iter().map(|(reference, _)| reference.as_str()))
        .collect()
}

fn describe(setup: &Setup) -> String {
    format!("{}, {}", setup.mode.as_str(), setup.route.as_str())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(time: Duration) -> String {
    format!("{}.{} s", time.as_secs(), time.subsec_millis() / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn execution(reference: &str, key: &str) -> Execution {
        Execution { key: key.to_owned(), charge: json!({"id": reference}) }
    }

    #[test]
    fn a_customer_is_charged_twice_by_two_keys_by_one_key_twice_or_by_a_row_that_was_not_seen() {
        let row = |reference: &str, key: &str| (reference.to_owned(), key.to_owned());
        let once = [execution("a", "1"), execution("b", "2")];
        assert_eq!(
            doubles(&once, &[row("a", "1")]),
            0,
            "the ledger forgot one, and nothing was charged again"
        );
        assert_eq!(doubles(&once, &[row("a", "1"), row("b", "3"), row("c", "4")]), 1);
        assert_eq!(doubles(&[execution("a", "1"), execution("a", "1")], &[row("a", "1")]), 1);
        assert_eq!(doubles(&[execution("a", "1"), execution("a", "2")], &[]), 1);
    }
}
