//! Subscriptions in currencies with no, two and three decimals, from the import to the ledger and back: no factor of a
//! hundred, and no third decimal lost. Compares everything with exact values.

use serde_json::{Value, json};
use testkit::proof::Verified;
use testkit::{Database, http};

use crate::site::{CHARGES, Site, TINJIS};

/// A subscription with its first price, its second price from April on, and the legacy form of both.
struct Row {
    reference: &'static str,
    customer: i64,
    currency: &'static str,
    exponent: i64,
    /// Each price as written, in minor units, and in the legacy lists.
    first: (&'static str, i64, &'static str),
    second: (&'static str, i64, &'static str),
}

const ROWS: [Row; 5] = [
    Row {
        reference: "dinar",
        customer: 1,
        currency: "KWD",
        exponent: 3,
        first: ("1.234", 1234, "1.234"),
        second: ("10.005", 10_005, "10.005"),
    },
    Row {
        reference: "euro",
        customer: 2,
        currency: "EUR",
        exponent: 2,
        first: ("12.15", 1215, "12.15"),
        second: ("12.10", 1210, "12.10"),
    },
    Row {
        reference: "forint",
        customer: 3,
        currency: "HUF",
        exponent: 2,
        first: ("1234.50", 123_450, "1234.50"),
        second: ("1300", 130_000, "1300.00"),
    },
    Row {
        reference: "peso",
        customer: 4,
        currency: "CLP",
        exponent: 0,
        first: ("990", 990, "990.00"),
        second: ("1001", 1001, "1001.00"),
    },
    Row {
        reference: "yen",
        customer: 5,
        currency: "JPY",
        exponent: 0,
        first: ("1500", 1500, "1500.00"),
        second: ("1", 1, "1.00"),
    },
];

/// All dates are the 31st; the last period has the second price.
const DATES: [&str; 3] = ["2024-01-31", "2024-03-31", "2024-05-31"];

impl Row {
    /// The price of each date, in the form of `first`.
    fn prices(&self) -> [(&'static str, i64, &'static str); 3] {
        [self.first, self.first, self.second]
    }

    fn sum_minor(&self) -> i64 {
        2 * self.first.1 + self.second.1
    }
}

on_both! {
    five_currencies_keep_their_amounts_from_the_import_to_the_ledger_and_back,
}

fn items(url: &str) -> Vec<Value> {
    http::get(url).json()["items"].as_array().expect("a list").clone()
}

/// Reference, amount, decimals and currency of each item, ordered.
fn amounts(url: &str) -> Vec<[String; 4]> {
    let shown = |item: &Value| {
        ["reference", "amount_minor", "exponent", "currency"]
            .map(|name| item[name].as_str().map_or_else(|| item[name].to_string(), str::to_owned))
    };
    let mut amounts: Vec<_> = items(url).iter().map(shown).collect();
    amounts.sort();
    amounts
}

fn five_currencies_keep_their_amounts_from_the_import_to_the_ledger_and_back(database: Option<&Database>) {
    let site = Site::by_hand(database, &[]);
    import(&site);
    preview_is_exact(&site);
    let run = site.ends(0, &["schedule", "run", "--until", "2024-12-31"]);
    assert!(run.result.contains("15 invoices made"), "{run:?}");
    assert_eq!(site.services.ask_payments(CHARGES), 15);

    let mut expected = Vec::new();
    for row in &ROWS {
        expected.extend(DATES.into_iter().zip(row.prices()).map(|(on, (_, minor, _))| {
            let reference = format!("{}@{on}", row.reference);
            [reference, minor.to_string(), row.exponent.to_string(), row.currency.to_owned()]
        }));
    }
    let (billing, payments) = (site.services.billing_url(), site.services.payments_url());
    for url in
        [format!("{billing}/v1/invoices"), format!("{billing}/v1/attempts"), format!("{payments}/v1/ledger")]
    {
        assert_eq!(amounts(&url), expected, "{url}");
    }
    legacy_lists_are_exact(&billing);
    verify_is_exact(&site);
    site.assert_each_is_charged_once();
}

fn import(site: &Site) {
    let header = "reference,customer_id,currency,amount,anchor_day,every_months,starts_on,ends_on\n";
    let line = |Row { reference, customer, currency, first, .. }: &Row| {
        format!("{reference},{customer},{currency},{},31,2,2024-01-31,2024-05-31\n", first.0)
    };
    let file = ROWS.iter().fold(header.to_owned(), |file, row| file + &line(row));
    let said = site.import_file("five.csv", &file);
    assert!(said.code == Some(0) && said.result.contains("5 created"), "{said:?}");
    for Row { reference, currency, first, second, .. } in &ROWS {
        let shown = site.change(&["change-price", reference, "--from", "2024-04-01", "--amount", second.0]);
        let first = format!("{currency} {} from 2024-01-31", first.0);
        assert!(shown.contains(&first), "{first} in {shown}");
    }
    let listed = items(&format!("{}/v1/subscriptions", site.services.billing_url()));
    let prices = |row: &Value| row["prices"].clone();
    let dinar =
        json!([{"from": "2024-01-31", "amount": "1.234"}, {"from": "2024-04-01", "amount": "10.005"}]);
    let yen = json!([{"from": "2024-01-31", "amount": "1500"}, {"from": "2024-04-01", "amount": "1"}]);
    assert_eq!((prices(&listed[0]), prices(&listed[4])), (dinar, yen));
    let bad = site.import_file("bad.csv", &format!("{header}x,9,JPY,1500.00,31,1,2024-01-31,\n"));
    assert!(bad.code == Some(1) && bad.notes.contains("an amount in JPY has no decimals"), "{bad:?}");
    let bad = site.import_file("bad.csv", &format!("{header}x,9,KWD,1.2345,31,1,2024-01-31,\n"));
    assert!(bad.code == Some(1) && bad.notes.contains("KWD has at most 3 decimals"), "{bad:?}");
}

fn preview_is_exact(site: &Site) {
    let words = ["schedule", "preview", "--from", "2024-01-01", "--to", "2024-12-31", "--json"];
    let preview = site.ends(0, &words).result;
    let summary: Value = serde_json::from_str(preview.lines().last().expect("a summary")).expect("JSON");
    let sums = json!({
        "CLP": "2981", "EUR": "36.40", "HUF": "3769.00", "JPY": "3001", "KWD": "12.473"
    });
    assert_eq!(summary["summary"], json!({ "count": 15, "sums": sums }));
}

/// Existing clients read numbers, with a third decimal too.
fn legacy_lists_are_exact(billing: &str) {
    let antaeus = http::get(&format!("{billing}/rest/v1/invoices")).text();
    let invoice_app = http::get(&format!("{billing}/invoices")).text();
    for row in &ROWS {
        for (on, (.., legacy)) in DATES.into_iter().zip(row.prices()) {
            let amount = format!(r#""amount":{{"value":{legacy},"currency":"{}"}}"#, row.currency);
            assert!(antaeus.contains(&amount), "{amount} in {antaeus}");
            let (reference, currency) = (row.reference, row.currency);
            let amount =
                format!(r#""InvoiceId":"{reference}@{on}","Value":{legacy},"Currency":"{currency}""#);
            assert!(invoice_app.contains(&amount), "{amount} in {invoice_app}");
        }
    }
}

fn verify_is_exact(site: &Site) {
    let verified = Verified::of(TINJIS, &site.services, &[]);
    assert_eq!((verified.code, &verified.json["verdict"]), (Some(0), &json!("ok")), "{}", verified.json);
    for row in &ROWS {
        let sum = json!({
            "currency": row.currency, "paid_minor": row.sum_minor(), "charged_minor": row.sum_minor(),
            "exponent": row.exponent
        });
        assert!(
            verified.json["sums"].as_array().expect("a list").contains(&sum),
            "{sum} in {}",
            verified.json
        );
    }
}
