//! Several credentials stand for one account: a change of credentials never changes the owner of a key. Also billing as
//! a caller with only a signed token, which is replaced while it runs. Knows both services' settings.

use std::time::Duration;

use testkit::certs::replace;
use testkit::http::Answer;
use testkit::{Services, runs};

use crate::presented::{Attempt, CLIENT, Jwt};
use crate::site::{ServerKind, Site};
use crate::table::{Table, route};

/// Maximum time until all is paid, on any machine.
const PAID_WITHIN: Duration = Duration::from_secs(60);

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Under one key a charge by token is the same charge by certificate and by signed token; another account is rejected.
/// Nothing is charged twice.
pub(crate) fn change(table: &mut Table<'_>) {
    let at = ServerKind::Any;
    let tls = Attempt::bare().over_tls().but(|a| a.key = Some(KEY));
    let call = |table: &Table<'_>, attempt: &Attempt| -> Answer {
        table.make(at, route(at), attempt).expect("an answer")
    };
    let first = call(table, &tls.clone().token("new-token"));
    assert_eq!((first.status, first.header("idempotency-replayed")), (200, None), "{}", first.text());
    table.charged(at);
    let next_key = Jwt::of(table.site, "next");
    for (what, attempt) in
        [("certificate", tls.clone().certified(CLIENT)), ("signed token", tls.clone().signed(next_key))]
    {
        let again = call(table, &attempt);
        assert_eq!((again.status, &again.body), (200, &first.body), "by {what}");
        assert_eq!(again.header("idempotency-replayed"), Some("true"), "by {what}");
    }
    let foreign = call(table, &tls.token("shop-token"));
    assert_eq!(foreign.status, 403);
    assert!(foreign.text().contains("key-foreign"), "{}", foreign.text());
    println!("  one key by token, certificate and signed token: one charge; another account is refused");
}

/// Payments accept only a signed token. Billing sends one, and another after its file was replaced.
pub(crate) fn billing_shows_a_signed_token_and_its_successor(site: &Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    let show = |key| replace(&token, &Jwt::of(site, key).text(site));
    show("p256");
    let mut services = Services::of(env!("CARGO_BIN_EXE_tinjis"))
        .billing_env("PROVIDER_TOKEN_FILE", token.display().to_string())
        .payments_flags(["--success-rate", "1"]);
    for (name, value) in site.jwt_settings() {
        services = services.payments_env(name, value);
    }
    let services = services.start();
    let refused = || services.payments.metric(&["caller_refusals_total"]);
    services.import("A", 20);
    services.pay_until_true(PAID_WITHIN);
    show("rsa");
    services.import("B", 20);
    services.pay_until_true(PAID_WITHIN);
    assert_eq!(refused(), 0);
    replace(&token, "not-a-signed-token");
    let mut more = 0;
    testkit::wait_until("payments to refuse what is no signed token", PAID_WITHIN, || {
        // Invoices that are charged before the file is reloaded are paid.
        more += 1;
        services.import(&format!("C{more}-"), 1);
        let _run = runs::wait(&services.start_run(), PAID_WITHIN);
        refused() > 0
    });
    show("rsa");
    services.pay_until_true(PAID_WITHIN);
    let charges = testkit::ledger::ask(&services.payments.db(), "SELECT count(*) FROM ledger");
    assert_eq!(charges, 40 + more, "each was charged once");
}
