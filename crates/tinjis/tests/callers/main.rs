//! Proof: unauthenticated callers are rejected for the reason that the server counts. Each attempt has a positive
//! control that differs in one property and is accepted. `make prove-callers` prints the table; each test run makes all
//! attempts. Knows the services from outside only.
#![cfg(test)]

mod credentials;
mod handshakes;
mod jwts;
mod operators;
mod presented;
mod site;
mod table;
mod tokens;

use site::Site;
use table::Table;

/// Minimum number of attempts, so that lost cases are noticed.
const ATTEMPTS_MIN: usize = 100;

#[test]
fn each_attempt_is_refused_for_its_reason_and_its_twin_succeeds() {
    let site = Site::start();
    let mut table = Table::new(&site);
    handshakes::attempts(&mut table);
    tokens::attempts(&mut table);
    jwts::attempts(&mut table);
    operators::attempts(&mut table);
    credentials::change(&mut table);
    let refused = table.end();
    assert!(refused >= ATTEMPTS_MIN, "{refused} attempts, of at least {ATTEMPTS_MIN}");
}

#[test]
fn billing_proves_itself_by_a_signed_token_that_is_replaced_while_it_runs() {
    credentials::billing_shows_a_signed_token_and_its_successor(&Site::of(&[]));
}
