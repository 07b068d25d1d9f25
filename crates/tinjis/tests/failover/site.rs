//! Both services on the cluster, the list of the provider's executions between them, and one failover during a run.
//! Decides nothing about what is right.

use std::collections::BTreeSet;
use std::time::Duration;

use testkit::postgres::DatabaseClient;
use testkit::postgres::cluster::{Blow, Cluster, Mode};
use testkit::proof::{Verified, progress};
use testkit::proxy::{Execution, Pace, Proxy};
use testkit::services::Progress;
use testkit::wait::{SeededRng, pause, wait_until};
use testkit::{Database, Services, http};
use tokio::time::Instant;

use crate::operator::Operator;
use crate::report::{Failover, Judged, charged, doubles};
use crate::table::{Ledger, Route, Setup};

pub(crate) const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");
/// Maximum duration of a step, on any machine.
pub(crate) const WITHIN: Duration = Duration::from_secs(180);
/// The proxy adds no fault, and its delay is longer than billing's timeout.
pub(crate) const PACE: Pace = Pace { call_timeout: Duration::from_secs(10), delay: Duration::from_secs(60) };
/// Number of charges that standbys lack when an asynchronous leader is lost. The standbys have billing's attempts for
/// them, since billing claims ahead.
const BEHIND: usize = 50;
/// The number of charges for standbys that lack the attempts too: more than billing claims ahead (64 in flight and
/// three claims of 256).
const FAR_BEHIND: usize = 900;
/// One failover of this many is that far behind, beginning with the first.
const FAR_BEHIND_EVERY: usize = 4;
/// Maximum time for the leader to make these charges, if the run does not end before.
const BEHIND_WITHIN: Duration = Duration::from_secs(60);
/// Pause between two requests for a run.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Maximum time for which a lost leader stays away after the first charge.
const AWAY_MS: u64 = 3_000;

const OPEN: &str = "SELECT count(*) FROM attempts WHERE state IN ('INTENT', 'IN_DOUBT')";
const PAID: &str = "SELECT count(*) FROM invoices WHERE state = 'PAID'";
const RUNNING: &str = "SELECT count(*) FROM runs WHERE state = 'running'";

pub(crate) struct Site {
    services: Services,
    proxy: Proxy,
    operator: Operator,
    setup: Setup,
    billing: String,
    ledger: LedgerPlace,
    /// Keys of charges that the ledger has lost so far.
    forgotten: BTreeSet<String>,
    /// Output of failed repairs.
    not_repaired: Vec<String>,
}

enum LedgerPlace {
    InCluster { name: String, url: String },
    Elsewhere(Database),
}

impl Site {
    #[track_caller]
    pub(crate) fn start(cluster: &Cluster, setup: &Setup, number: usize) -> Self {
        let route = |name: &str| match setup.route {
            Route::AllNodes => cluster.url(name),
            Route::Haproxy => cluster.haproxy_url(name),
        };
        let billing = format!("billing_{number}");
        cluster.create(&billing);
        let ledger = match setup.ledger {
            Ledger::InCluster => {
                let name = format!("payments_{number}");
                cluster.create(&name);
                LedgerPlace::InCluster { url: route(&name), name }
            }
            Ledger::Elsewhere => LedgerPlace::Elsewhere(
                Database::fresh("a ledger elsewhere").expect("PostgreSQL is installed"),
            ),
        };
        let proxy = Proxy::start(0, PACE);
        let failover = if setup.mode == Mode::Synchronous { "synchronous" } else { "manual" };
        let services = Services::of(TINJIS)
            .payments_flags(["--success-rate=0.9", "--seed=3"])
            .payments_env("LEDGER_FAILOVER", failover)
            .billing_env("PAYMENT_PROVIDER_ENDPOINT", proxy.url())
            .databases(&route(&billing), ledger.url())
            .start();
        proxy.lead_to(vec![services.payments.address()]);
        let operator = Operator::new(services.dir());
        Self {
            services,
            proxy,
            operator,
            setup: *setup,
            billing,
            ledger,
            forgotten: BTreeSet::new(),
            not_repaired: Vec::new(),
        }
    }

    /// Loses the leader during a run, and waits until all is paid on the next leader and the cluster is complete again.
    #[track_caller]
    pub(crate) fn fail_over(
        &mut self,
        cluster: &mut Cluster,
        blow: Blow,
        number: usize,
        invoices: usize,
        rng: &mut SeededRng,
    ) -> Failover {
        cluster.wait_whole();
        let leader = cluster.leader();
        let rate = self.charge_a_part(cluster, leader, number, invoices, rng);
        let began = Instant::now();
        cluster.strike(leader, blow);
        let (next, seen) = cluster.new_leader(leader);
        let open = DatabaseClient::to(&cluster.direct_url(next, &self.billing)).ask(OPEN);
        let unsettled = self.unsettled(cluster, next);
        let must_operate = self.setup.loses_ledger_rows();
        if must_operate {
            self.declare();
        }
        let forgotten = self.forgotten_now(cluster, next);
        let count = forgotten.len();
        if self.setup.mode == Mode::Synchronous {
            assert_eq!(count, 0, "a synchronous standby lacks no charge that was answered");
        }
        let imported = if must_operate { self.decide(&forgotten) } else { 0 };
        let first = self.first_charge(seen);
        pause(Duration::from_millis(rng.below(AWAY_MS)));
        cluster.heal(leader);
        cluster.wait_whole();
        if self.setup.ledger == Ledger::Elsewhere {
            // A failed repair is judged at the end, after worse results.
            self.not_repaired.extend(self.operator.repair(&self.services).err());
        }
        self.pay_until_true();
        let (to_leader, to_charge) = (seen - began, first - seen);
        let setup = self.setup;
        Failover {
            number,
            blow,
            setup,
            rate,
            to_leader,
            to_charge,
            open,
            unsettled,
            forgotten: count,
            imported,
        }
    }

    /// Charges a part of the invoices, and returns while attempts are open; the result is charges per second. Standbys
    /// of an asynchronous leader are then some charges behind.
    #[track_caller]
    fn charge_a_part(
        &self,
        cluster: &mut Cluster,
        leader: usize,
        number: usize,
        invoices: usize,
        rng: &mut SeededRng,
    ) -> u64 {
        let sql = DatabaseClient::to(&cluster.direct_url(leader, &self.billing));
        let before = usize::try_from(sql.ask(PAID)).expect("a count");
        self.services.import(&format!("F{number}-"), invoices);
        let (began, executed) = (Instant::now(), self.proxy.executions());
        let _run = self.services.start_run();
        let tenth = invoices / 10;
        let part = tenth + usize::try_from(rng.below(tenth as u64 * 4)).expect("a small number");
        wait_until("a part is paid", WITHIN, || {
            usize::try_from(sql.ask(PAID)).is_ok_and(|paid| paid >= before + part)
        });
        let (charges, took) = (self.proxy.executions() - executed, began.elapsed().as_millis().max(1));
        let rate = u64::try_from(charges as u128 * 1000 / took).expect("a rate is a small number");
        if self.setup.mode == Mode::Asynchronous {
            cluster.hold_replication(leader);
            let is_far = number % FAR_BEHIND_EVERY == 1;
            let behind = self.proxy.executions() + if is_far { FAR_BEHIND } else { BEHIND };
            wait_until("standbys are behind, or the run is over", BEHIND_WITHIN, || {
                self.proxy.executions() >= behind || sql.ask(RUNNING) == 0
            });
        }
        wait_until("attempts are open, or the run is over", WITHIN, || {
            sql.ask(OPEN) > 0 || sql.ask(RUNNING) == 0
        });
        rate
    }

    /// Executed charges that the ledger on this node lacks, without those of earlier failovers.
    fn forgotten_now(&mut self, cluster: &Cluster, node: usize) -> Vec<Execution> {
        let rows = self.ledger_rows(cluster, node);
        let keys: BTreeSet<&str> = rows.iter().map(|(_, key)| key.as_str()).collect();
        let mut executed = self.proxy.executed();
        executed.retain(|execution| {
            !keys.contains(execution.key.as_str()) && !self.forgotten.contains(&execution.key)
        });
        self.forgotten.extend(executed.iter().map(|execution| execution.key.clone()));
        executed
    }

    /// Executed charges that billing on this node does not know: without keys they would be charged again.
    fn unsettled(&self, cluster: &Cluster, node: usize) -> usize {
        let url = cluster.direct_url(node, &self.billing);
        let settled = pairs(&url, "SELECT key, state FROM attempts WHERE state = 'CHARGED'");
        let settled: BTreeSet<&str> = settled.iter().map(|(key, _)| key.as_str()).collect();
        let executed = self.proxy.executed();
        let unsettled = executed.iter().filter(|execution| !settled.contains(execution.key.as_str()));
        unsettled.filter(|execution| !self.forgotten.contains(&execution.key)).count()
    }

    fn ledger_rows(&self, cluster: &Cluster, node: usize) -> Vec<(String, String)> {
        match &self.ledger {
            LedgerPlace::InCluster { name, .. } => ledger_rows(&cluster.direct_url(node, name)),
            LedgerPlace::Elsewhere(database) => ledger_rows(database.url()),
        }
    }

    /// Follows the page until payments run under the new id. Earlier processes have ended then, and no answer is in
    /// flight: the executed charges are known.
    #[track_caller]
    fn declare(&mut self) {
        let url = self.ledger.url().to_owned();
        wait_until("payments to name what helps", WITHIN, || {
            self.restart_payments();
            self.services.payments.readiness().1.contains("`payments new-ledger-id`")
        });
        // The page requires this first: before, its first command is refused.
        wait_until("billing to reach the new leader", WITHIN, || self.services.billing.readiness().0 == 200);
        self.operator.declare(&mut self.services, &url);
    }

    /// Follows the rest of the page; returns how many charges both sides had lost.
    #[track_caller]
    fn decide(&self, forgotten: &[Execution]) -> usize {
        let executed = self.proxy.executions();
        let imported = self.operator.decide(&self.services, forgotten);
        assert_eq!(self.proxy.executions(), executed, "nothing is executed before the operator has decided");
        self.operator.accept(&self.services);
        imported
    }

    /// The time of the first charge that the provider answered after `after`; meanwhile a client requests runs.
    #[track_caller]
    fn first_charge(&mut self, after: Instant) -> Instant {
        let url = format!("{}/v1/runs", self.services.billing_url());
        let began = Instant::now();
        loop {
            self.restart_payments();
            let _busy = http::try_call("POST", &url, &[], b"");
            if let Some(first) = self.proxy.first_charge_after(after) {
                return first;
            }
            let condition = || self.services.condition();
            assert!(began.elapsed() < WITHIN, "no charge after the failover; {}", condition());
            pause(ASK_AGAIN);
        }
    }

    #[track_caller]
    fn pay_until_true(&mut self) {
        let mut paid = Progress::within(WITHIN);
        while !self.services.is_all_paid() {
            self.restart_payments();
            self.services.assert_progress(&mut paid);
        }
    }

    /// Restarts ended payments, as Kubernetes does. A former leader that continues may answer through HAProxy for a
    /// moment with the ledger's former id, and payments that read it end.
    #[track_caller]
    fn restart_payments(&mut self) {
        if self.services.payments.restart_if_ended() {
            progress("payments ended by themselves, and were started again");
        }
    }

    /// Compares executions, ledger and billing, read directly from the databases, and runs `verify` where they agree.
    #[track_caller]
    pub(crate) fn judge(&self, cluster: &Cluster) -> Judged {
        let leader = cluster.leader();
        let rows = self.ledger_rows(cluster, leader);
        let executed = self.proxy.executed();
        let charged = charged(&executed, &rows);
        let invoices =
            pairs(&cluster.direct_url(leader, &self.billing), "SELECT reference, state FROM invoices");
        let paid: BTreeSet<&str> = invoices
            .iter()
            .filter(|(_, state)| state == "PAID")
            .map(|(reference, _)| reference.as_str())
            .collect();
        let count = |number: usize| u64::try_from(number).expect("a proof is smaller than 2^64");
        let judged = Judged {
            invoices: invoices.len(),
            double: doubles(&executed, &rows),
            lost: count(charged.symmetric_difference(&paid).count()),
            unpaid: count(invoices.len() - paid.len()),
            explained: count(self.forgotten.len()),
            not_repaired: self.not_repaired.clone(),
            ..Judged::default()
        };
        if judged.double > 0 || judged.lost > 0 {
            return judged;
        }
        let verified = Verified::of(TINJIS, &self.services, &[]);
        let unbacked = verified.json["mismatch"]["unbacked"].as_u64().unwrap_or(u64::MAX);
        let findings = verified.number("findings_total").saturating_sub(unbacked);
        Judged { unbacked, findings, ..judged }
    }
}

impl LedgerPlace {
    fn url(&self) -> &str {
        match self {
            Self::InCluster { url, .. } => url,
            Self::Elsewhere(database) => database.url(),
        }
    }
}

/// CHARGED rows, as reference and key.
pub(crate) fn ledger_rows(url: &str) -> Vec<(String, String)> {
    pairs(url, "SELECT reference, key FROM ledger WHERE state = 'CHARGED'")
}

#[track_caller]
fn pairs(url: &str, query: &str) -> Vec<(String, String)> {
    let rows = DatabaseClient::to(url).rows(query).expect("a database past the services can be read");
    let pair = |row: Vec<Option<String>>| {
        let mut texts = row.into_iter().map(Option::unwrap_or_default);
        (texts.next().unwrap_or_default(), texts.next().unwrap_or_default())
    };
    rows.into_iter().map(pair).collect()
}
