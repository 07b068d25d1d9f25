//! The operator after a failover that may have lost commits: runs the commands of `docs/how-to/postgresql-failover.md`,
//! with the list of executed charges. Decides nothing that is not on the page.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::page::Page;
use testkit::proxy::Execution;
use testkit::wait::wait_until;
use testkit::{Services, http};

use crate::site::{TINJIS, WITHIN};

/// Headings of the page, in their order.
const STOP: &str = "Stop charging";
const NEW_ID: &str = "Give the ledger a new id";
const COMPARE: &str = "Compare both sides";
const DECIDE: &str = "Tell billing what moved money";
const ACCEPT: &str = "Accept the ledger and go on";
const REPAIR: &str = "Repair billing from the ledger";
/// Maximum length of a page of a list.
const PAGE_MAX: usize = 1_000;

pub(crate) struct Operator {
    page: Page,
    folder: PathBuf,
}

impl Operator {
    pub(crate) fn new(folder: &Path) -> Self {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/how-to/postgresql-failover.md");
        Self { page: Page::open(&page, TINJIS, folder), folder: folder.to_owned() }
    }

    /// Stops billing and gives the ledger a new id: nothing is charged until [`Self::accept`].
    #[track_caller]
    pub(crate) fn declare(&self, services: &mut Services, payments_db: &str) {
        self.runs(services, STOP, &[]);
        let said = self.runs(services, NEW_ID, &[("PAYMENTS_DB", payments_db)]);
        let payments = &mut services.payments;
        wait_until(&format!("payments with the old id to end: {said}"), WITHIN, || {
            payments.ended().is_some()
        });
        // Kubernetes would also start it again.
        payments.kill();
        payments.start_again();
    }

    /// Tells billing which executed charges the ledger lacks; returns how many of them billing had lost too.
    #[track_caller]
    pub(crate) fn decide(&self, services: &Services, forgotten: &[Execution]) -> usize {
        self.compare(services);
        let open: BTreeSet<String> = attempts(services)
            .into_iter()
            .filter(|attempt| matches!(attempt["state"].as_str(), Some("INTENT" | "IN_DOUBT")))
            .filter_map(|attempt| attempt["key"].as_str().map(str::to_owned))
            .collect();
        let paid = |execution: &&Execution| {
            let url = format!("{}/v1/invoices/{}", services.billing_url(), execution.reference());
            http::get(&url).json()["state"] == "PAID"
        };
        let (known, unknown): (Vec<&Execution>, Vec<&Execution>) =
            forgotten.iter().partition(|execution| open.contains(&execution.key));
        let unknown: Vec<&Execution> = unknown.into_iter().filter(|execution| !paid(execution)).collect();
        let keys: String = known.iter().map(|execution| format!("{}\n", execution.key)).collect();
        let rows: String = unknown.iter().map(|execution| format!("{}\n", row(&execution.charge))).collect();
        let (keys_file, rows_file) = (self.folder.join("open-keys"), self.folder.join("moved.ndjson"));
        std::fs::write(&keys_file, keys).expect("a list can be written");
        std::fs::write(&rows_file, rows).expect("a list can be written");
        let text = |path: &Path| path.to_str().expect("a test's path is UTF-8").to_owned();
        let (keys_file, rows_file) = (text(&keys_file), text(&rows_file));
        self.runs(services, DECIDE, &[("OPEN_KEYS", keys_file.as_str()), ("MOVED", rows_file.as_str())]);
        unknown.len()
    }

    /// Runs the comparison of the page, which ends with any verdict: the ledger's new id is not accepted yet.
    #[track_caller]
    fn compare(&self, services: &Services) {
        let (code, said) = self.run(services, COMPARE, &[]);
        assert!(matches!(code, Some(0..=2)), "{COMPARE}: {code:?} {said}");
    }

    #[track_caller]
    pub(crate) fn accept(&self, services: &Services) {
        let answer = http::get(&format!("{}/v1/ledger?limit=1", services.payments_url()));
        let id = answer.header("ledger-id").expect("payments name their ledger").to_owned();
        self.runs(services, ACCEPT, &[("LEDGER_ID", id.as_str())]);
    }

    /// Repairs billing from a ledger that has lost nothing; the error contains the command's output.
    pub(crate) fn repair(&self, services: &Services) -> Result<(), String> {
        match self.run(services, REPAIR, &[]) {
            (Some(0), _) => Ok(()),
            (code, said) => Err(format!("{REPAIR}: {code:?} {said}")),
        }
    }

    #[track_caller]
    fn runs(&self, services: &Services, heading: &str, more: &[(&str, &str)]) -> String {
        let (code, said) = self.run(services, heading, more);
        assert_eq!(code, Some(0), "{heading}: {said}");
        said
    }

    fn run(&self, services: &Services, heading: &str, more: &[(&str, &str)]) -> (Option<i32>, String) {
        let (billing, payments) = (services.billing_url(), services.payments_url());
        let mut variables = vec![("BILLING", billing.as_str()), ("PAYMENTS", payments.as_str())];
        variables.extend_from_slice(more);
        let output = self.page.run(&self.page.commands(heading), &variables);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }
}

/// An import row with the data of a charge.
fn row(charge: &Value) -> Value {
    json!({
        "reference": charge["id"], "customer_id": charge["customer_id"], "currency": charge["currency"],
        "amount": charge["value"].to_string(), "status": "PAID",
    })
}

/// All attempts of billing.
fn attempts(services: &Services) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let url = format!("{}/v1/attempts?limit={PAGE_MAX}{after}", services.billing_url());
        let mut page = testkit::wait::wait_for("a page of attempts", Duration::from_secs(30), || {
            http::try_call("GET", &url, &[], b"")
                .ok()
                .filter(|answer| answer.status == 200)
                .map(|answer| answer.json())
        });
        if let Some(items) = page["items"].as_array_mut() {
            all.append(items);
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}
