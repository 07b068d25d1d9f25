//! Demo data through the import of a real store.

use billing::demo_data::{self, Demo};
use chassis::clock::Random;
use serde_json::Value;

use crate::support::Billing;

/// ANT-21
#[tokio::test]
async fn antaeus_demo_has_two_customers_with_five_invoices_each() {
    let billing = Billing::demo(Demo::Antaeus).await;
    let customers = r#"[{"id":1,"currency":"USD"},{"id":2,"currency":"DKK"}]"#;
    assert_eq!(billing.get("/rest/v1/customers").await.body, customers);
    let invoices = billing.get("/rest/v1/invoices").await.json();
    let invoices = invoices.as_array().unwrap();
    let ids: Vec<i64> = invoices.iter().map(|invoice| invoice["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, (1..=10).collect::<Vec<i64>>());
    for invoice in invoices {
        let id = invoice["id"].as_i64().unwrap();
        let (customer, currency) = if id <= 5 { (1, "USD") } else { (2, "DKK") };
        assert_eq!(invoice["customerId"], customer);
        assert_eq!(invoice["amount"]["currency"], currency);
        assert_eq!(invoice["status"], if id % 5 == 1 { "PAID" } else { "PENDING" });
    }
    let rows = billing.get("/v1/invoices").await.json();
    for row in rows["items"].as_array().unwrap() {
        let minor = row["amount_minor"].as_i64().unwrap();
        assert!((1_000..=50_000).contains(&minor), "{row}");
        assert_eq!(row["reference"], format!("antaeus-{}", row["id"]));
        let paid_by = if row["state"] == "PAID" { Value::from("import") } else { Value::Null };
        assert_eq!(row["paid_by"], paid_by);
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_demo() {
    let one = Billing::demo(Demo::Antaeus).await.get("/rest/v1/invoices").await.body;
    let two = Billing::demo(Demo::Antaeus).await.get("/rest/v1/invoices").await.body;
    assert_eq!(one, two);
}

/// ANT-22
#[tokio::test]
async fn demo_data_go_into_an_empty_store_only() {
    let billing =
        Billing::with(r#"{"reference":"A","customer_id":9,"currency":"SEK","amount":"1.00"}"#).await;
    for demo in [Demo::None, Demo::Antaeus, Demo::InvoiceApp] {
        let loaded = demo_data::load(billing.store.as_ref(), demo, &Random::seeded(1)).await.unwrap();
        assert_eq!(loaded, 0);
    }
    assert_eq!(billing.get("/rest/v1/customers").await.body, r#"[{"id":9,"currency":"SEK"}]"#);
}
