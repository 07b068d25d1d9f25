//! Proof: a highly available PostgreSQL (Patroni) loses its leader during a run, in three ways, with synchronous and
//! asynchronous replication, by a URL of all nodes and through HAProxy. No customer is charged twice, and no charge is
//! lost, according to `tinjis verify` and to a list of executions outside the databases. A naive biller (control group)
//! charges twice. `make failover` is the full size. Knows the services from outside only.
//! group) charges twice. `make failover` is the full size. Knows the services from outside only.

mod control;
mod operator;
mod report;
mod site;
mod table;

use testkit::postgres::cluster::{Blow, Cluster};
use testkit::proof::progress;
use testkit::{Proof, SeededRng, size};

use control::Control;
use report::{Report, Totals};
use site::Site;
use table::SETUPS;

/// Number of failovers of the full size, and the share of them that must leave attempts open.
const FAILOVERS_FULL: usize = 50;
const OPEN_SHARE_PERCENT: usize = 80;

#[test]
fn no_failover_charges_a_customer_twice_or_loses_a_charge() {
    let Some(mut cluster) = Cluster::start("failovers of PostgreSQL", SETUPS[0].mode) else { return };
    let proof = Proof::of("failovers, PostgreSQL");
    let (failovers, invoices) = (size("FAILOVERS", 1), size("FAILOVER_INVOICES", 2_000));
    let (mut rng, report) = (SeededRng::random(), Report::open());
    progress(&format!("SEED={}", rng.seed()));
    let control = Control::start(&cluster, rng.below(u64::MAX));
    let mut totals = Totals::default();
    for (setup, share) in SETUPS.iter().zip(table::shares(failovers, SETUPS.len())) {
        if share == 0 {
            continue;
        }
        cluster.set_mode(setup.mode);
        let mut site = Site::start(&cluster, setup, totals.failovers);
        for _ in 0..share {
            let blow = Blow::ALL[totals.failovers % Blow::ALL.len()];
            totals.failovers += 1;
            let failover = site.fail_over(&mut cluster, blow, totals.failovers, invoices, &mut rng);
            report.failover(&failover);
            totals.add(&failover);
        }
        let judged = site.judge(&cluster);
        report.setup(setup, &judged);
        totals.judge(&judged);
        judged.assert_right(setup);
    }
    totals.control_doubles = control.end(&cluster);
    report.totals(&totals);
    // It is random whether one failover hits a naive charge between its execution and its mark.
    if failovers >= FAILOVERS_FULL {
        assert!(
            totals.control_doubles > 0,
            "the naive biller charged no customer twice: these failovers prove nothing"
        );
        let least = failovers * OPEN_SHARE_PERCENT / 100;
        assert!(totals.with_open >= least, "{} of {failovers} failovers met open attempts", totals.with_open);
    }
    proof.end(&totals.how_many(), totals.double, totals.lost);
}
