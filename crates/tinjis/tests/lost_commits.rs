//! A small failover: during a run, connections to PostgreSQL are cut just before a commit, or after it and before its
//! answer. Both services read unknown results back by key. Knows the services from outside only.

use std::time::Duration;

use testkit::postgres::{Cut, CutPlan, Cutter};
use testkit::proof::Verified;
use testkit::{Database, Proof, Services, size};

/// Maximum time until all is paid, on any machine.
const PAID_WITHIN: Duration = Duration::from_secs(300);
/// Claims, settlements and runs of billing; charges of payments.
const COMMITS: &[&str] = &["COMMIT\0", "INSERT INTO ledger "];
/// Minimum number of cut connections.
const CUTS_MIN: usize = 12;
/// Maximum number of rounds until both kinds of loss have occurred.
const ROUNDS_MAX: usize = 20;

#[test]
fn commits_without_an_answer_charges_no_customer_twice_and_lose_nothing() {
    let Some(database) = Database::fresh("commits without an answer") else { return };
    let proof = Proof::of("commits without an answer, PostgreSQL");
    let invoices = size("LOST_COMMITS_INVOICES", 1_000);
    let cutter = Cutter::before(database.url());
    let tinjis = env!("CARGO_BIN_EXE_tinjis");
    let services = Services::of(tinjis)
        .payments_flags(["--success-rate=0.8", "--seed=3"])
        .database(&cutter.url(database.url()))
        .start();
    let cuts = &[Cut::Answer, Cut::Answer, Cut::Request];
    let plan = CutPlan { with: COMMITS, after: "", every: 4, cuts, times: invoices / 10 };
    let read_back = || services.billing.log().matches("read the claim back").count();
    let mut rounds = 0;
    // The machine decides which commits come when: a round may lose no answer to a claim.
    while cutter.cuts() < CUTS_MIN || read_back() == 0 {
        rounds += 1;
        assert!(rounds <= ROUNDS_MAX, "{} connections cut, {} claims read back", cutter.cuts(), read_back());
        services.import(&format!("L{rounds}-"), invoices);
        cutter.follow(plan);
        services.pay_until_true(PAID_WITHIN);
        // The import and the verdict are not disturbed.
        cutter.follow(CutPlan { times: 0, ..plan });
    }
    let cut = cutter.cuts();
    let judged = services.judge();
    assert_eq!((judged.double, judged.lost, judged.unbacked, judged.open), (0, 0, 0, 0), "{judged:?}");
    let verified = Verified::of(tinjis, &services, &[]);
    verified.assert_all_paid("after commits without an answer");
    let how_many =
        format!("{cut} cuts, {} claims read back, {} invoices", read_back(), verified.number("invoices"));
    proof.end(&how_many, verified.number("double"), verified.number("lost"));
}
