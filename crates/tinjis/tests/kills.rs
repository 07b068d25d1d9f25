//! Proof: billing or payments is killed by SIGKILL at random moments of runs and started again, until all is paid: no
//! invoice is charged twice or lost. Small here; `make kills` is the full size. Knows the services from outside only.

use std::io::Write;
use std::time::Duration;

use testkit::ledger::{Verdict, ask, charged_and_unsettled, judge};
use testkit::wait::{pause, wait_until};
use testkit::{Process, SeededRng, Services, size};

/// Maximum time until a run makes progress, on any machine.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);
/// Maximum time until a round is paid, on any machine.
const PAID_WITHIN: Duration = Duration::from_secs(300);
/// Number of kills at full size, as `make kills` makes them.
const KILLS_FULL: usize = 20;
/// A share of refusals, so that second attempts are part of the proof.
const SUCCESS_RATE: &str = "--success-rate=0.9";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Billing,
    Payments,
}

#[derive(Debug, Default)]
struct KillCounts {
    rounds: usize,
    kills: usize,
    idle_kills: usize,
    open: i64,
    unsettled: i64,
}

#[test]
fn billing_killed_at_random_moments_charges_every_invoice_once() {
    prove(Victim::Billing);
}

#[test]
fn payments_killed_at_random_moments_charge_every_invoice_once() {
    prove(Victim::Payments);
}

fn prove(victim: Victim) {
    let (kills_wanted, invoices) = (size("KILLS", 3), size("KILL_INVOICES", 2000));
    let mut rng = SeededRng::random();
    let seed = rng.seed();
    let mut services =
        Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags([SUCCESS_RATE, "--seed=1"]).start();
    let mut counts = KillCounts::default();
    while counts.kills < kills_wanted {
        counts.rounds += 1;
        services.import(&format!("R{}-", counts.rounds), invoices);
        let _run = services.start_run();
        while counts.kills < kills_wanted
            && kill_in_mid_run(&mut services, victim, invoices, &mut rng, &mut counts)
        {
            // Continue with the next kill in the same round.
        }
        services.pay_until_true(PAID_WITHIN);
        let verdict = judge(&services.billing.db(), &services.payments.db());
        report(victim, &counts, &verdict, seed);
        let all = i64::try_from(counts.rounds * invoices).expect("a proof is smaller than 2^63");
        let wanted = Verdict { invoices: all, paid: all, charges: all, ..Verdict::default() };
        assert_eq!(verdict, wanted, "SEED={seed}: each invoice is charged once, and known to be");
    }
    // A few kills may all miss the moments between a charge and its settlement; many kills do not.
    if kills_wanted >= KILLS_FULL {
        assert!(counts.unsettled > 0, "SEED={seed}: no kill hit a charge that was not settled yet");
    }
}

/// Waits for a random amount of progress and kills. `false` when the round was over before.
fn kill_in_mid_run(
    services: &mut Services,
    victim: Victim,
    invoices: usize,
    rng: &mut SeededRng,
    counts: &mut KillCounts,
) -> bool {
    let db = services.billing.db();
    let unpaid = || ask(&db, "SELECT count(*) FROM invoices WHERE state <> 'PAID'");
    let part = u64::try_from(invoices / 4).expect("a proof is smaller than 2^64");
    let target = unpaid() - i64::try_from(rng.below(part)).expect("a proof is smaller than 2^63");
    if target <= 0 {
        return false;
    }
    // A run may end above the target, with refusals among the rest: then the round is over too.
    let running = || ask(&db, "SELECT count(*) FROM runs WHERE state = 'running'");
    wait_until("a run to make progress", PROGRESS_WITHIN, || unpaid() <= target || running() == 0);
    pause(Duration::from_micros(rng.below(5000)));
    if running() == 0 {
        return false;
    }
    let process: &mut Process =
        if victim == Victim::Billing { &mut services.billing } else { &mut services.payments };
    process.kill();
    let open = ask(&db, "SELECT count(*) FROM attempts WHERE state IN ('INTENT', 'IN_DOUBT')");
    if open == 0 {
        counts.idle_kills += 1;
    } else {
        counts.kills += 1;
        counts.open += open;
        counts.unsettled += charged_and_unsettled(&db, &services.payments.db());
    }
    let process: &mut Process =
        if victim == Victim::Billing { &mut services.billing } else { &mut services.payments };
    pause(Duration::from_millis(rng.below(200)));
    process.start_again();
    true
}

fn report(victim: Victim, counts: &KillCounts, verdict: &Verdict, seed: u64) {
    let line = format!(
        "{victim:?}: {} kills in {} rounds ({} more hit nothing open), {} attempts open, {} of them charged already; \
         {} invoices, {} charges, double {}, lost {}; SEED={seed}\n",
        counts.kills,
        counts.rounds,
        counts.idle_kills,
        counts.open,
        counts.unsettled,
        verdict.invoices,
        verdict.charges,
        verdict.double,
        verdict.lost,
    );
    std::io::stdout().write_all(line.as_bytes()).expect("the report can be written");
}
