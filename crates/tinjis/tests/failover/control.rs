//! The control group: a naive biller with several workers and a random key for each attempt, on the same cluster during
//! the same failovers. It shows that these failovers can charge a customer twice. Knows nothing of our billing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use testkit::http;
use testkit::postgres::DatabaseClient;
use testkit::postgres::cluster::Cluster;
use testkit::process::{Process, Spec, run_by};
use testkit::proxy::{Pace, Proxy};
use testkit::wait::{SeededRng, pause};

use crate::report::doubles;
use crate::site::{PACE, TINJIS, ledger_rows};

const WORKERS: u64 = 3;
/// Pause between two attempts, so that the control group leaves CPU to the proof.
const BETWEEN: Duration = Duration::from_millis(10);

pub(crate) struct Control {
    proxy: Arc<Proxy>,
    is_over: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
    _payments: Process,
    _folder: tempfile::TempDir,
}

/// One worker: it charges its invoices one after the other, and marks each as paid afterwards.
struct Worker {
    number: u64,
    sql: DatabaseClient,
    provider: String,
    rng: SeededRng,
    is_over: Arc<AtomicBool>,
}

impl Control {
    pub(crate) fn start(cluster: &Cluster, seed: u64) -> Self {
        const PACE_OF_CONTROL: Pace = PACE;
        cluster.create("control");
        cluster.create("control_ledger");
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut spec = Spec::new(run_by(TINJIS, "payments"), "control-payments", folder.path());
        spec.env.insert("DATABASE_URL".to_owned(), cluster.haproxy_url("control_ledger"));
        // Untrue where replication is asynchronous, but the naive biller has no operator.
        spec.env.insert("LEDGER_FAILOVER".to_owned(), "synchronous".to_owned());
        spec.flags.push("--success-rate=1".to_owned());
        Process::new(spec.clone()).run_to_end("migrate");
        let payments = Process::start(spec);
        let proxy = Arc::new(Proxy::start(seed, PACE_OF_CONTROL));
        proxy.lead_to(vec![payments.address()]);
        let sql = DatabaseClient::to(&cluster.haproxy_url("control"));
        sql.run("CREATE TABLE invoices (worker bigint PRIMARY KEY, paid bigint NOT NULL)");
        let is_over = Arc::new(AtomicBool::new(false));
        let workers = (0..WORKERS).map(|number| {
            sql.run(&format!("INSERT INTO invoices VALUES ({number}, 0)"));
            let (provider, is_over) = (proxy.url(), Arc::clone(&is_over));
            let rng = SeededRng::seeded(seed.wrapping_add(number));
            let worker = Worker { number, sql: sql.clone(), provider, rng, is_over };
            std::thread::spawn(move || worker.bill())
        });
        let workers = workers.collect();
        Self { proxy, is_over, workers, _payments: payments, _folder: folder }
    }

    /// Stops the workers; returns the number of invoices that were charged twice.
    pub(crate) fn end(self, cluster: &Cluster) -> u64 {
        self.is_over.store(true, Ordering::SeqCst);
        for worker in self.workers {
            worker.join().expect("a worker ends");
        }
        let rows = ledger_rows(&cluster.direct_url(cluster.leader(), "control_ledger"));
        doubles(&self.proxy.executed(), &rows)
    }
}

impl Worker {
    fn bill(mut self) {
        while !self.is_over() {
            pause(BETWEEN);
            let paid = self.sql.rows(&format!("SELECT paid FROM invoices WHERE worker = {}", self.number));
            let paid = paid.ok().and_then(|rows| rows.first()?.first()?.as_deref()?.parse::<u64>().ok());
            let Some(next) = paid.map(|paid| paid + 1) else { continue };
            while !self.charge(next) && !self.is_over() {
                pause(BETWEEN);
            }
            // If this statement fails, the invoice is charged again: the mistake that billing does not make.
            let _lost =
                self.sql.rows(&format!("UPDATE invoices SET paid = {next} WHERE worker = {}", self.number));
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    fn charge(&mut self, number: u64) -> bool {
        let key = format!("{:016x}{:016x}", self.rng.below(u64::MAX), self.rng.below(u64::MAX));
        let body = format!(
            r#"{{"id":"C{}-{number}","customer_id":{},"currency":"EUR","value":1.25}}"#,
            self.number,
            self.number + 1
        );
        let answer = http::try_call(
            "POST",
            &format!("{}/", self.provider),
            &[("Idempotency-Key", &key)],
            body.as_bytes(),
        );
        answer.is_ok_and(|answer| answer.status == 200)
    }
}
