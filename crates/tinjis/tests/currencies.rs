//! Amounts keep their value from the import to the ledger and back, with any number of decimals: no factor of ten, and
//! no third decimal lost. Knows the command line and the routes only.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Database, Services, http};

const PAID_WITHIN: Duration = Duration::from_secs(120);

/// Reference, customer, currency, amount as written, minor units, exponent, and the number that existing clients read.
const INVOICES: [(&str, i64, &str, &str, i64, i64, &str); 6] = [
    ("yen", 1, "JPY", "1500", 1500, 0, "1500.00"),
    ("dinar", 2, "KWD", "1.234", 1234, 3, "1.234"),
    ("peso", 3, "CLP", "990", 990, 0, "990.00"),
    ("forint", 4, "HUF", "1234.50", 123_450, 2, "1234.50"),
    ("euro", 5, "EUR", "12.15", 1215, 2, "12.15"),
    ("unit", 6, "CLF", "0.0001", 1, 4, "0.0001"),
];

fn tinjis(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tinjis")).args(args).env_clear().output().expect("it can be started")
}

fn said(output: &Output) -> String {
    [&*String::from_utf8_lossy(&output.stdout), &*String::from_utf8_lossy(&output.stderr)].concat()
}

fn import(services: &Services, name: &str, text: &str, more: &[&str]) -> Output {
    let file = services.dir().join(name);
    fs::write(&file, text).expect("it can be written");
    let file = file.to_str().expect("a test's path is UTF-8");
    tinjis(&[&["import", file, "--billing", &services.billing_url()], more].concat())
}

fn items(url: &str) -> Vec<Value> {
    http::get(url).json()["items"].as_array().expect("a list").clone()
}

/// Amount, decimals and currency of each item, ordered by reference.
fn amounts(items: &[Value]) -> Vec<(String, Value)> {
    let shown = |item: &Value| {
        let reference = item["reference"].as_str().expect("each has one").to_owned();
        (reference, json!([item["amount_minor"], item["exponent"], item["currency"]]))
    };
    let mut amounts: Vec<_> = items.iter().map(shown).collect();
    amounts.sort_by(|one, other| one.0.cmp(&other.0));
    amounts
}

fn keep_their_value(services: &Services) {
    let rows = INVOICES
        .map(|(name, customer, currency, amount, ..)| format!("{name},{customer},{currency},{amount}\n"));
    let file = format!("reference,customer_id,currency,amount\n{}", rows.concat());
    let imported = import(services, "all.csv", &file, &[]);
    assert!(imported.status.success(), "{}", said(&imported));
    let again = import(services, "again.csv", &file, &[]);
    assert!(again.status.success() && said(&again).contains("unchanged"), "{}", said(&again));
    services.pay_until_true(PAID_WITHIN);

    let mut expected: Vec<(String, Value)> = INVOICES
        .map(|(name, _, currency, _, minor, exponent, _)| {
            (name.to_owned(), json!([minor, exponent, currency]))
        })
        .to_vec();
    expected.sort_by(|one, other| one.0.cmp(&other.0));
    let (billing, payments) = (services.billing_url(), services.payments_url());
    assert_eq!(amounts(&items(&format!("{billing}/v1/invoices"))), expected);
    assert_eq!(amounts(&items(&format!("{billing}/v1/attempts"))), expected);
    assert_eq!(amounts(&items(&format!("{payments}/v1/ledger"))), expected);

    let antaeus = http::get(&format!("{billing}/rest/v1/invoices")).text();
    let invoice_app = http::get(&format!("{billing}/invoices")).text();
    for (name, _, currency, _, _, _, legacy) in INVOICES {
        let amount = format!(r#""amount":{{"value":{legacy},"currency":"{currency}"}}"#);
        assert!(antaeus.contains(&amount), "{amount} in {antaeus}");
        let amount = format!(r#""InvoiceId":"{name}","Value":{legacy},"Currency":"{currency}""#);
        assert!(invoice_app.contains(&amount), "{amount} in {invoice_app}");
    }

    let sides = ["verify", "--billing", &billing, "--payments", &payments];
    let verified = tinjis(&[&sides[..], &["--json"]].concat());
    let json: Value = serde_json::from_slice(&verified.stdout).expect("one line of JSON");
    assert_eq!((verified.status.code(), &json["verdict"]), (Some(0), &json!("ok")), "{json}");
    for (_, _, currency, _, minor, exponent, _) in INVOICES {
        let sum = json!({
            "currency": currency, "paid_minor": minor, "charged_minor": minor, "exponent": exponent
        });
        assert!(json["sums"].as_array().expect("a list").contains(&sum), "{sum} in {json}");
    }
    let shown = said(&tinjis(&sides));
    for line in
        ["JPY: paid 1,500, charged 1,500", "KWD: paid 1.234, charged 1.234", "EUR: paid 12.15, charged 12.15"]
    {
        assert!(shown.contains(line), "{line} in {shown}");
    }
}

#[test]
fn amounts_keep_their_value_from_import_to_ledger_and_back() {
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate=1"]).start();
    keep_their_value(&services);
}

#[test]
fn amounts_keep_their_value_on_postgres() {
    let Some(database) = Database::fresh("currencies on PostgreSQL") else { return };
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate=1"]);
    keep_their_value(&services.on(Some(&database)).start());
}

#[test]
fn what_a_currency_has_no_decimals_for_is_refused_and_minor_units_are_its_own() {
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate=1"]).start();
    let header = "reference,customer_id,currency,amount\n";
    for (row, why) in [
        ("a,1,JPY,1.5", "an amount in JPY has no decimals"),
        ("b,1,JPY,1500.00", "an amount in JPY has no decimals"),
        ("c,1,KWD,1.2345", "an amount in KWD has at most 3 decimals"),
        ("d,1,EUR,1.234", "an amount in EUR has at most 2 decimals"),
        ("e,1,XXX,1", "ISO 4217"),
    ] {
        let refused = import(&services, "refused.csv", &format!("{header}{row}\n"), &[]);
        assert!(!refused.status.success() && said(&refused).contains(why), "{row}: {}", said(&refused));
    }
    let file = format!("{header}m1,1,JPY,1500\nm2,2,KWD,1234\nm3,3,EUR,1215\n");
    let imported = import(&services, "minor.csv", &file, &["--minor-units"]);
    assert!(imported.status.success(), "{}", said(&imported));
    let minor: Vec<i64> = items(&format!("{}/v1/invoices", services.billing_url()))
        .iter()
        .filter_map(|item| item["amount_minor"].as_i64())
        .collect();
    assert_eq!(minor, [1500, 1234, 1215]);
}

/// Existing clients send no key; their amounts are always hundredths, and the row records it.
#[test]
fn amounts_without_a_key_are_hundredths_whatever_their_currency() {
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate=1"]).start();
    let url = format!("{}/", services.payments_url());
    let body = |value: &str, currency: &str| {
        format!(r#"{{"customer_id":1,"currency":"{currency}","value":{value}}}"#)
    };
    for (value, currency) in [("1500", "JPY"), ("1.235", "KWD")] {
        assert_eq!(http::call("POST", &url, &[], body(value, currency).as_bytes()).status, 200);
    }
    let keyed = |key, value, currency| {
        http::call("POST", &url, &[("Idempotency-Key", key)], body(value, currency).as_bytes()).status
    };
    assert_eq!(
        [keyed("k1", "1500", "JPY"), keyed("k1", "1500.00", "JPY"), keyed("k2", "1.235", "KWD")],
        [200; 3]
    );
    assert_eq!([keyed("k3", "1500.5", "JPY"), keyed("k4", "1.2345", "KWD")], [400; 2]);
    let rows: Vec<Value> = items(&format!("{}/v1/ledger", services.payments_url()))
        .iter()
        .map(|row| json!([row["amount_minor"], row["exponent"]]))
        .collect();
    assert_eq!(rows, [json!([150_000, 2]), json!([124, 2]), json!([1500, 0]), json!([1235, 3])]);
}

/// A row that an earlier version wrote under the key contains hundredths; a resend must match it.
#[test]
fn a_row_in_hundredths_is_replayed_to_a_resend_in_the_currencys_own_units() {
    let services = Services::of(env!("CARGO_BIN_EXE_tinjis")).payments_flags(["--success-rate=1"]).start();
    let send = || {
        let body = br#"{"id":"I1","customer_id":1,"currency":"JPY","value":1500}"#;
        http::call("POST", &format!("{}/", services.payments_url()), &[("Idempotency-Key", "k")], body)
    };
    assert_eq!(send().status, 200);
    let store = rusqlite::Connection::open(services.payments.db()).expect("it is there");
    store.busy_timeout(PAID_WITHIN).expect("a time");
    let earlier = "UPDATE ledger SET amount_minor = 150000, exponent = 2, fingerprint_version = 1";
    assert_eq!(store.execute(earlier, []).expect("it is written"), 1);
    let again = send();
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")), "{}", again.text());
}
