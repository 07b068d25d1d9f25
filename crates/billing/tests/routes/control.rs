//! What operators stop and resume through `/v1`, and the effect on the legacy routes.

use billing::protocol::transition::Idempotency;

use crate::provider::Provider;
use crate::support::{Billing, NOT_FOUND, START};

const JSON: &str = "application/json";
const PAY: &str = "/rest/v1/invoices/pay";
const NOTE: &str = r#"{"reason":"a dispute","actor":"kim"}"#;

fn lines(count: u32) -> String {
    (1..=count)
        .map(|n| {
            format!(r#"{{"reference":"I{n}","customer_id":{},"currency":"EUR","amount":"12.15"}}"#, n % 2 + 1)
                + "\n"
        })
        .collect()
}

fn charged(_: u64) -> (u16, &'static str) {
    (200, r#"{"result":"true"}"#)
}

fn doubtful(_: u64) -> (u16, &'static str) {
    (500, "")
}

/// Customer 1 without a network.
fn customer_of_none(held: bool) -> String {
    format!(r#"{{"id":1,"currency":"EUR","held":{held},"network":"none","instrument_changed_at":null}}"#)
}

/// ANT-30 INV-14
#[tokio::test]
async fn a_cancelled_invoice_is_gone_from_the_legacy_routes_and_not_to_be_paid() {
    let (provider, url) = Provider::start(charged).await;
    let billing = Billing::charging(&lines(3), &url, Idempotency::Keys).await;
    let cancelled = billing.call("POST", "/v1/invoices/I2/cancel", NOTE).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.body);
    assert_eq!(cancelled.json()["state"], "CANCELLED");
    billing.call("POST", PAY, "").await.is(200, JSON, "true");
    assert_eq!(provider.asked(), [1, 3]);
    let ids = |body: &str, key: &str| body.matches(key).count();
    assert_eq!(ids(&billing.get("/rest/v1/invoices").await.body, "\"id\":"), 2);
    assert_eq!(ids(&billing.get("/invoices").await.body, "\"InvoiceId\":"), 2);
    billing.get("/rest/v1/invoices/2").await.is(404, JSON, NOT_FOUND);
    assert_eq!(billing.get("/v1/invoices/I2").await.json()["state"], "CANCELLED");
    let listed = billing.get("/v1/invoices?state=CANCELLED").await.json();
    assert_eq!(listed["items"][0]["reference"], "I2");
    assert_eq!(billing.get("/v1/deployment").await.json()["counts"]["cancelled"], 1);
    // The state is final: the invoice is neither held nor paid again, and another cancellation changes nothing.
    let held = billing.call("POST", "/v1/invoices/I2/hold", NOTE).await;
    assert_eq!((held.status, &held.json()["type"]), (409, &"urn:tinjis:problem:invoice-final".into()));
    assert_eq!(billing.call("POST", "/v1/invoices/I2/cancel", NOTE).await.status, 200);
    let paid = billing.call("POST", "/v1/invoices/I1/cancel", NOTE).await;
    assert_eq!(paid.status, 409, "{}", paid.body);
}

#[tokio::test]
async fn a_legacy_list_is_complete_and_well_formed_whatever_is_cancelled() {
    let billing = Billing::with(&lines(1200)).await;
    // The first page of 500 has no row to show; the second has some.
    billing.spoil("UPDATE invoices SET state = 'CANCELLED' WHERE id <= 700 OR id = 1200");
    for path in ["/rest/v1/invoices", "/invoices"] {
        let rows = billing.get(path).await.json();
        assert_eq!(rows.as_array().unwrap().len(), 499, "{path}");
    }
    billing.spoil("UPDATE invoices SET state = 'CANCELLED'");
    assert_eq!(billing.get("/rest/v1/invoices").await.json(), serde_json::json!([]));
}

#[tokio::test]
async fn held_invoices_and_customers_are_left_out_until_their_release() {
    let (provider, url) = Provider::start(charged).await;
    let billing = Billing::charging(&lines(4), &url, Idempotency::Keys).await;
    let act = async |path: &str| billing.call("POST", path, NOTE).await;
    let held = act("/v1/invoices/I1/hold").await;
    assert_eq!((held.status, held.json()["held"].as_bool()), (200, Some(true)), "{}", held.body);
    let customer = act("/v1/customers/1/hold").await;
    customer.is(200, JSON, &customer_of_none(true));
    billing.call("POST", PAY, "").await.is(200, JSON, "false");
    assert_eq!(provider.asked(), [3]);
    act("/v1/customers/1/release").await.is(200, JSON, &customer_of_none(false));
    billing.call("POST", PAY, "").await.is(200, JSON, "false");
    assert_eq!(act("/v1/invoices/I1/release").await.json()["held"], false);
    billing.call("POST", PAY, "").await.is(200, JSON, "true");
    assert_eq!(provider.asked(), [1, 2, 3, 4]);
}

#[tokio::test]
async fn an_operator_sets_the_network_of_a_customer_and_says_that_the_instrument_has_changed() {
    let billing = Billing::with(&lines(2)).await;
    billing.spoil("UPDATE invoices SET dunning = 'exhausted' WHERE id = 2");
    let shown = billing.get("/v1/invoices/I2").await.json();
    assert_eq!((&shown["dunning"], &shown["exhausted"]), (&"exhausted".into(), &true.into()));
    let dry = billing.call("POST", "/v1/runs", r#"{"dry_run":true}"#).await.json();
    assert_eq!(dry["count"], 1, "a dry run counts as a run claims: {dry}");
    let network = async |network: &str| {
        let body = format!(r#"{{"network":"{network}","reason":"a dispute","actor":"kim"}}"#);
        billing.call("POST", "/v1/customers/1/network", &body).await
    };
    let set = network("visa").await;
    assert_eq!((set.status, &set.json()["network"]), (200, &"visa".into()), "{}", set.body);
    assert_eq!(network("VISA").await.status, 400);
    assert_eq!(billing.call("POST", "/v1/customers/1/network", NOTE).await.status, 400);
    let changed = billing.call("POST", "/v1/customers/1/instrument-changed", NOTE).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert!(changed.json()["instrument_changed_at"].as_str().is_some_and(|at| at.starts_with(&START[..11])));
    let shown = billing.get("/v1/invoices/I2").await.json();
    assert_eq!((&shown["dunning"], &shown["exhausted"]), (&serde_json::Value::Null, &false.into()));
    for path in ["/v1/customers/9/instrument-changed", "/v1/customers/x/instrument-changed"] {
        assert_eq!(billing.call("POST", path, NOTE).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn nothing_is_held_or_cancelled_while_an_attempt_is_open() {
    let (_provider, url) = Provider::start(doubtful).await;
    let billing = Billing::charging(&lines(1), &url, Idempotency::None).await;
    billing.call("POST", PAY, "").await.is(200, JSON, "false");
    for path in ["/v1/invoices/I1/hold", "/v1/invoices/I1/cancel", "/v1/customers/2/hold"] {
        let refused = billing.call("POST", path, NOTE).await;
        let problem = refused.json();
        assert_eq!((refused.status, &problem["type"]), (409, &"urn:tinjis:problem:attempt-open".into()));
    }
}

#[tokio::test]
async fn a_stop_charges_nothing_and_is_shown_and_a_start_lets_it_go_on() {
    let (provider, url) = Provider::start(charged).await;
    let billing = Billing::charging(&lines(2), &url, Idempotency::Keys).await;
    let running = r#"{"stopped":false,"reason":null,"actor":null,"since":null}"#;
    billing.get("/v1/charging").await.is(200, JSON, running);
    let stopped = billing.call("POST", "/v1/charging/stop", NOTE).await;
    let said = stopped.json();
    let fields = ["stopped", "actor", "reason"].map(|field| said[field].to_string());
    assert_eq!((stopped.status, fields), (200, ["true", "\"kim\"", "\"a dispute\""].map(str::to_owned)));
    assert!(said["since"].as_str().is_some_and(|since| since.starts_with(&START[..11])), "{said}");
    let stopped = stopped.body;
    let again = r#"{"reason":"other","actor":"robin"}"#;
    billing.call("POST", "/v1/charging/stop", again).await.is(200, JSON, &stopped);
    billing.get("/v1/charging").await.is(200, JSON, &stopped);
    billing.call("POST", PAY, "").await.is(200, JSON, "false");
    let run = billing.call("POST", "/v1/runs", "").await.json();
    assert_eq!(run["last_problem"]["reason"], "charging-stopped");
    assert_eq!(provider.asked(), [0; 0]);
    billing.call("POST", "/v1/charging/start", NOTE).await.is(200, JSON, running);
    billing.call("POST", PAY, "").await.is(200, JSON, "true");
    assert_eq!(provider.asked(), [1, 2]);
}

#[tokio::test]
async fn an_action_needs_a_reason_an_actor_and_a_name_that_is_known() {
    let billing = Billing::with(&lines(1)).await;
    for path in ["/v1/invoices/I1/hold", "/v1/customers/1/hold", "/v1/charging/stop"] {
        for (body, status) in [("", 400), ("{}", 400), (r#"{"reason":" ","actor":"kim"}"#, 400)] {
            assert_eq!(billing.call("POST", path, body).await.status, status, "{path} {body}");
        }
    }
    for path in ["/v1/invoices/I9/hold", "/v1/customers/9/hold", "/v1/customers/x/hold", "/v1/charging/pause"]
    {
        assert_eq!(billing.call("POST", path, NOTE).await.status, 404, "{path}");
    }
    assert_eq!(billing.get("/v1/charging").await.json()["stopped"], false);
    assert_eq!(billing.get("/v1/invoices/I1").await.json()["held"], false);
}
