//! Several deployments that share the customers: an import sends each reference to one of them, even after the table
//! has changed, and `verify` over all of them finds references that two deployments have. Real services, each pair with
//! stores of its own. Knows the services from outside only.
#![cfg(test)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};
use testkit::{Services, http};

const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");
/// Maximum time until another invoice is paid, on any machine.
const PAID_WITHIN: Duration = Duration::from_secs(60);
const BUCKETS: usize = 1024;
/// Its bucket is 822, which belongs to the second of two deployments.
const SUBSCRIPTION: &str = "S1";

/// Several deployments, and a folder for their table and for files.
struct Site {
    pairs: Vec<Services>,
    folder: tempfile::TempDir,
}

impl Site {
    fn of(pairs: usize) -> Self {
        let start = |_| Services::of(TINJIS).payments_flags(["--success-rate=1", "--seed=1"]).start();
        let folder = tempfile::tempdir().expect("a folder can be made");
        Self { pairs: (0..pairs).map(start).collect(), folder }
    }

    fn ids(&self) -> Vec<String> {
        let id = |pair: &Services| {
            let deployment = http::get(&format!("{}/v1/deployment", pair.billing_url())).json();
            deployment["deployment_id"].as_str().expect("a deployment has an id").to_owned()
        };
        self.pairs.iter().map(id).collect()
    }

    /// A table with these ids, in which all deployments have the same number of buckets.
    fn table(&self, ids: &[String]) -> String {
        let mut table = String::new();
        for (place, (pair, id)) in self.pairs.iter().zip(ids).enumerate() {
            let first = place * BUCKETS / ids.len();
            let last = (place + 1) * BUCKETS / ids.len() - 1;
            write!(
                table,
                "[[deployment]]\nid = \"{id}\"\nbilling = \"{}\"\npayments = \"{}\"\nbuckets = [\"{first}-{last}\"]\n",
                pair.billing_url(),
                pair.payments_url()
            )
            .expect("a text can be written");
        }
        table
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("a file can be written");
        path
    }

    /// Runs a command with this table; returns its exit code and both outputs.
    fn with_table(&self, table: &str, words: &[&str]) -> (Option<i32>, String, String) {
        let table = self.file("deployments.toml", table);
        let output = Command::new(TINJIS)
            .args(words)
            .arg("--deployments")
            .arg(table)
            .env_clear()
            .output()
            .expect("the command can be started");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Runs a command with the right table.
    fn tinjis(&self, words: &[&str]) -> (Option<i32>, String, String) {
        self.with_table(&self.table(&self.ids()), words)
    }

    #[track_caller]
    fn imported(&self, command: &[&str], name: &str, text: &str, begins: &str) {
        let file = self.file(name, text);
        let file = file.to_str().expect("a test's path is UTF-8");
        let (code, said, notes) = self.tinjis(&[command, &[file]].concat());
        assert_eq!(code, Some(0), "{said}{notes}");
        assert!(said.starts_with(begins), "{said}{notes}");
    }

    fn verify(&self) -> (Option<i32>, Value) {
        let (code, said, notes) = self.tinjis(&["verify", "--json"]);
        (code, serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{notes}")))
    }

    fn pay(&self) {
        for pair in &self.pairs {
            pair.pay_until_true(PAID_WITHIN);
        }
    }

    /// For each reference, the indexes of the deployments whose stores have its invoice.
    fn places(&self) -> BTreeMap<String, Vec<usize>> {
        let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, pair) in self.pairs.iter().enumerate() {
            let store = Connection::open(pair.billing.db()).expect("a store can be opened");
            let mut all = store.prepare("SELECT reference FROM invoices").expect("the query is right");
            let references = all.query_map([], |row| row.get::<_, String>(0)).expect("it can be asked");
            for reference in references {
                places.entry(reference.expect("a reference is text")).or_default().push(place);
            }
        }
        places
    }
}

const HEADER: &str = "reference,customer_id,currency,amount\n";

fn rows(numbers: impl Iterator<Item = usize>) -> String {
    numbers.fold(HEADER.to_owned(), |rows, number| rows + &row(&format!("I{number}"), number))
}

fn row(reference: &str, number: usize) -> String {
    format!("{reference},{},EUR,{}.15\n", number % 97 + 1, number % 50 + 1)
}

/// The sum of these rows in minor units.
fn sum(numbers: impl Iterator<Item = usize>) -> usize {
    numbers.map(|number| (number % 50 + 1) * 100 + 15).sum()
}

/// Asserts that each invoice is in one deployment, and that the sums match, for this number of deployments.
fn spread_over(deployments: usize) {
    const INVOICES: usize = 2000;
    let site = Site::of(deployments);
    let file = rows(1..=INVOICES);
    site.imported(&["import"], "invoices.csv", &file, "2,000 created, 0 unchanged");
    let places = site.places();
    assert_eq!(places.len(), INVOICES);
    assert!(places.values().all(|places| places.len() == 1), "each reference is in one deployment");
    for place in 0..deployments {
        let count = places.values().filter(|places| **places == [place]).count();
        assert!(count * deployments > INVOICES * 3 / 4, "deployment {place} has {count}");
    }
    site.imported(&["import"], "invoices.csv", &file, "0 created, 2,000 unchanged");
    assert_eq!(site.places(), places, "the same import again creates nothing");
    site.pay();
    let (code, json) = site.verify();
    assert_eq!((code, &json["verdict"]), (Some(0), &json!("ok")), "{json}");
    for figure in ["invoices", "paid", "charges"] {
        assert_eq!(json[figure], INVOICES, "{figure}: {json}");
    }
    for figure in ["double", "duplicate", "lost", "open", "findings_total"] {
        assert_eq!(json[figure], 0, "{figure}: {json}");
    }
    let sum = sum(1..=INVOICES);
    let expected = json!([{"currency": "EUR", "paid_minor": sum, "charged_minor": sum, "exponent": 2}]);
    assert_eq!(json["sums"], expected);
    let each = json["deployments"].as_array().expect("each deployment is reported");
    let ids: Vec<&Value> = each.iter().map(|one| &one["deployment_id"]).collect();
    assert_eq!(json!(ids), json!(site.ids()));
    let invoices: u64 = each.iter().filter_map(|one| one["invoices"].as_u64()).sum();
    assert_eq!(invoices, INVOICES as u64);
}

#[test]
fn one_deployment_in_a_table_is_as_without() {
    spread_over(1);
}

#[test]
fn two_deployments_share_the_references_and_each_is_charged_once() {
    spread_over(2);
}

#[test]
fn four_deployments_share_the_references_and_each_is_charged_once() {
    spread_over(4);
}

#[test]
fn a_reference_that_two_deployments_have_is_found_before_and_after_both_have_charged_it() {
    let site = Site::of(2);
    site.imported(&["import"], "invoices.csv", &rows(1..=40), "40 created");
    let places = site.places();
    let (first, _) = places.iter().find(|(_, places)| **places == [0]).expect("the first one has some");
    let (other, _) = places.iter().find(|(_, places)| **places == [1]).expect("the second one has some");
    // Imports past the table: an import into one billing does not know the others.
    for (planted, to) in [(first, 1), (other, 0)] {
        let file = site.file("planted.csv", &(HEADER.to_owned() + &row(planted, 1)));
        let billing = site.pairs[to].billing_url();
        let mut import = Command::new(TINJIS);
        let output = import.arg("import").arg(file).args(["--billing", &billing]).env_clear().output();
        assert!(output.expect("the command can be started").status.success());
    }
    let cancel = format!("{}/v1/invoices/{other}/cancel", site.pairs[0].billing_url());
    let why = json!({"reason": "surplus", "actor": "test"}).to_string();
    let answer = http::call("POST", &cancel, &[("Content-Type", "application/json")], why.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());

    let finding = |kind: &str| json!({"kind": kind, "reference": first, "deployments": site.ids()});
    let (code, json) = site.verify();
    assert_eq!((code, &json["verdict"]), (Some(1), &json!("wrong")), "{json}");
    assert_eq!((&json["duplicate"], &json["double"]), (&json!(1), &json!(0)), "{json}");
    assert_eq!(json["findings"], json!([finding("duplicate")]), "a cancelled one is no duplicate");
    site.pay();
    let (code, json) = site.verify();
    assert_eq!(code, Some(1), "{json}");
    assert_eq!((&json["duplicate"], &json["double"]), (&json!(1), &json!(1)), "{json}");
    assert_eq!(json["findings"], json!([finding("double"), finding("duplicate")]));
    let each = json["deployments"].as_array().expect("each deployment is reported");
    assert!(each.iter().all(|one| one["verdict"] == "ok"), "each by itself is right: {json}");
    let (_, said, _) = site.tinjis(&["verify"]);
    for line in [
        "WRONG: 42 invoices in 2 deployments".to_owned(),
        format!("  double: {first}   deployments {}", site.ids().join(", ")),
        "  invoices in a deployment that the table does not send them to: 2".to_owned(),
        format!("deployment {} {}: right: ", site.ids()[1], site.pairs[1].billing_url()),
    ] {
        assert!(said.contains(&line), "{line}: {said}");
    }
}

#[test]
fn a_deployment_with_another_id_than_the_table_says_gets_nothing() {
    let site = Site::of(2);
    let mut ids = site.ids();
    ids.reverse();
    let table = site.table(&ids);
    let file = site.file("invoices.csv", &rows(1..=20));
    let (code, said, notes) =
        site.with_table(&table, &["import", file.to_str().expect("a test's path is UTF-8")]);
    assert_eq!((code, said.as_str()), (Some(2), ""), "{notes}");
    for id in &ids {
        assert!(notes.contains(&format!("is deployment {id}, and ")), "{notes}");
    }
    assert!(notes.contains("correct the table; nothing was sent"), "{notes}");
    assert_eq!(site.places(), BTreeMap::new());
    let (code, said, notes) = site.with_table(&table, &["verify", "--json"]);
    assert_eq!(code, Some(2), "{said}{notes}");
    assert!(
        said.starts_with("{\"verdict\":\"unknown\"") && notes.contains("nothing was verified"),
        "{said}{notes}"
    );
}

#[test]
fn what_the_first_deployment_has_stays_there_when_a_second_one_shares_the_buckets() {
    let site = Site::of(2);
    let alone = |words: &[&str]| {
        let billing = site.pairs[0].billing_url();
        let output = Command::new(TINJIS).args(words).args(["--billing", &billing]).env_clear().output();
        assert!(output.expect("the command can be started").status.success(), "{words:?}");
    };
    let text = |path: PathBuf| path.to_str().expect("a test's path is UTF-8").to_owned();
    let subscriptions =
        format!("reference,customer_id,currency,amount,starts_on\n{SUBSCRIPTION},1,EUR,9.90,2035-01-31\n");
    alone(&["import", &text(site.file("old.csv", &rows(1..=300)))]);
    alone(&["subscriptions", "import", &text(site.file("old-subscriptions.csv", &subscriptions))]);

    let changed = rows(1..=300).replace(".15\n", ".20\n");
    site.imported(&["import"], "old.csv", &rows(1..=300), "0 created, 300 unchanged");
    site.imported(&["import", "--update"], "changed.csv", &changed, "0 created, 0 unchanged, 300 updated");
    site.imported(&["import", "--update"], "old.csv", &rows(1..=300), "0 created, 0 unchanged, 300 updated");
    assert!(
        site.places().values().all(|places| *places == [0]),
        "a reference that is known goes nowhere else"
    );

    // Known and new references alternate; one period of a subscription is not invoiced yet.
    let period = format!("{SUBSCRIPTION}@2035-01-31");
    let mixed = rows((1..=300).flat_map(|number| [number, number + 1000])) + &row(&period, 1);
    site.imported(&["import"], "mixed.csv", &mixed, "301 created, 300 unchanged");
    let more = subscriptions.clone() + "S2,1,EUR,9.90,2035-01-31\n";
    site.imported(&["subscriptions", "import"], "subscriptions.csv", &more, "1 created, 1 unchanged");
    let places = site.places();
    assert_eq!(places.len(), 601);
    for number in 1..=300 {
        assert_eq!(places[&format!("I{number}")], [0], "I{number}");
    }
    assert_eq!(places[&period], [0], "a period is invoiced where its subscription is");
    let new_on =
        |place: usize| (1001..=1300).filter(|number| places[&format!("I{number}")] == [place]).count();
    assert!(new_on(0) > 100 && new_on(1) > 100, "new ones go by the table: {} and {}", new_on(0), new_on(1));
    let known = |place: usize| {
        let url = format!("{}/v1/subscriptions/{SUBSCRIPTION}", site.pairs[place].billing_url());
        http::call("GET", &url, &[], b"").status
    };
    assert_eq!([known(0), known(1)], [200, 404]);
    let (code, json) = site.verify();
    assert_eq!((code, &json["duplicate"]), (Some(0), &json!(0)), "{json}");
}

#[test]
fn without_an_answer_of_each_deployment_nothing_is_imported_and_verify_proves_nothing() {
    let mut site = Site::of(2);
    site.imported(&["import"], "invoices.csv", &rows(1..=40), "40 created");
    site.pay();
    let table = site.table(&site.ids());
    site.pairs[1].stop_billing();
    let file = site.file("invoices.csv", &rows(1..=80));
    let (code, said, notes) =
        site.with_table(&table, &["import", file.to_str().expect("a test's path is UTF-8")]);
    assert_eq!(code, Some(2), "{said}{notes}");
    assert!(notes.contains("nothing was sent") && notes.contains("not reachable"), "{notes}");
    assert_eq!(site.places().len(), 40);
    let (code, said, notes) = site.with_table(&table, &["verify", "--json"]);
    assert_eq!(code, Some(2), "{said}{notes}");
    let json: Value = serde_json::from_str(&said).expect("one object");
    let verdicts: Vec<&Value> = [0, 1].iter().map(|at| &json["deployments"][*at]["verdict"]).collect();
    assert_eq!(json!(verdicts), json!(["ok", "unknown"]), "{json}");
    assert_eq!(json["verdict"], "unknown");
}

#[test]
fn each_deployment_gets_the_tokens_of_its_own_files() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let token = |name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("token-of-the-{name}\n")).expect("a file can be written");
        path.to_str().expect("a test's path is UTF-8").to_owned()
    };
    let start = |place: usize| {
        Services::of(TINJIS)
            .payments_flags(["--success-rate=1"])
            .billing_env("OPERATOR_TOKEN_FILE", token(&format!("billing-{place}")))
            .billing_env("PAYMENTS_API_TOKEN_FILE", token(&format!("payments-{place}")))
            .payments_env("PAYMENTS_API_TOKEN_FILE", token(&format!("payments-{place}")))
            .start()
    };
    let pairs = vec![start(0), start(1)];
    let site = Site { pairs, folder };
    let mut table = String::new();
    for (place, entry) in site.table(&site.ids()).split("[[deployment]]").skip(1).enumerate() {
        write!(
            table,
            "[[deployment]]{entry}billing_token_file = \"billing-{place}\"\npayments_token_file = \"payments-{place}\"\n"
        )
        .expect("a text can be written");
    }
    let file = site.file("invoices.csv", &rows(1..=40));
    let import = ["import", file.to_str().expect("a test's path is UTF-8")];
    let (code, said, notes) = site.with_table(&table.replace("\"billing-1\"", "\"billing-0\""), &import);
    assert_eq!(code, Some(2), "the second one refuses the first one's token: {said}{notes}");
    assert_eq!(site.places().len(), 0);
    let (code, said, notes) = site.with_table(&table, &import);
    assert_eq!(code, Some(0), "{said}{notes}");
    site.pay();
    let (code, said, notes) = site.with_table(&table, &["verify"]);
    assert_eq!(code, Some(0), "{said}{notes}");
    assert!(said.starts_with("right: 40 invoices in 2 deployments"), "{said}");
    let wrong = table.replace("\"payments-1\"", "\"payments-0\"");
    let (code, said, notes) = site.with_table(&wrong, &["verify"]);
    assert_eq!(code, Some(2), "the second payments refuse the first one's token: {said}{notes}");
}

#[test]
fn a_table_with_mistakes_is_refused_with_all_of_them() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let table = folder.path().join("deployments.toml");
    fs::write(&table, "[[deployment]]\nid = 'x'\nbilling = 'b'\npayments = 'p'\nbuckets = ['0-1024']\n")
        .expect("a file can be written");
    let table = table.to_str().expect("a test's path is UTF-8");
    for (words, mistakes) in [
        (&["verify"][..], &["deployments.toml", "\"0-1024\" must be", "UUID"][..]),
        (&["verify", "--repair"], &["--repair: is for one deployment"]),
        (&["import", "x.csv", "--billing", "http://127.0.0.1:9"], &["--billing", "cannot be used with"]),
    ] {
        let output = Command::new(TINJIS).args(words).args(["--deployments", table]).env_clear().output();
        let output = output.expect("the command can be started");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(mistakes.iter().all(|mistake| said.contains(mistake)), "{mistakes:?}: {said}");
    }
}
