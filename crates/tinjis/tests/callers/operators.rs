//! Attempts on billing's writing routes. Knows an operator's token and a page's `Origin`.

use crate::presented::{Attempt, Text};
use crate::site::ServerKind;
use crate::table::Table;

/// Billing's writing routes of `/v1`.
const WRITES: [&str; 5] = [
    "/v1/runs",
    "/v1/imports",
    "/v1/repairs",
    "/v1/ledger/accept",
    "/v1/attempts/bca1897f57e947286a9d2dcb4be588f1/resolve",
];

pub(crate) fn attempts(table: &mut Table<'_>) {
    let good = Attempt::bare().bearer("operator-new");
    let word = |text: &str| vec![Text::Word(text.to_owned())];
    let at = ServerKind::Operators;
    for path in WRITES {
        let wrong = good.but(|a| a.authorization = word("guess"));
        table.pair_on(at, ("POST", path), path, &good, &wrong, "token_unknown");
        let nothing = good.but(|a| a.authorization.clear());
        table.pair_on(at, ("POST", path), path, &good, &nothing, "no_credential");
    }
    let old = good.but(|a| a.authorization = word("operator-old"));
    let third = old.but(|a| a.authorization = word("operator-third"));
    table.pair(at, "the second line is one, a third is not", &old, &third, "token_unknown");
    table.pair(at, "another scheme", &good, &good.but(|a| a.scheme = "Basic"), "no_credential");
    let twice = good.but(|a| a.authorization.push(Text::Word("operator-new".to_owned())));
    table.pair(at, "the token twice", &good, &twice, "no_credential");
    let page = Attempt::bare().but(|a| a.origin = Some("http://localhost:3000"));
    table.pair(ServerKind::Loopback, "a web page on this machine", &Attempt::bare(), &page, "origin");
}
