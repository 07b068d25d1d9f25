//! `/v1/subscriptions`, `/v1/schedule` and runs of some invoices: shapes, mistakes by field, and states that forbid an
//! action. The clock of each service here shows 14 November 2023.

use billing::protocol::transition::Idempotency;
use serde_json::{Value, json};

use crate::support::Billing;

const PROBLEM: &str = "application/problem+json";
const S1: &str = r#"{"reference":"S1","customer_id":1,"currency":"EUR","prices":[{"from":"2023-08-01","amount":"9.90"}],
    "anchor_day":31,"every_months":1,"zone":"Europe/Copenhagen","at":"06:00","starts_on":"2023-08-31","ends_on":null,
    "holidays":"as-is"}"#;

async fn with_s1() -> Billing {
    let billing = Billing::empty().await;
    assert_eq!(billing.call("POST", "/v1/subscriptions", S1).await.status, 201);
    billing
}

async fn changed(billing: &Billing, change: &str, mut body: Value) -> (u16, Value) {
    body["reason"] = "asked for".into();
    body["actor"] = "ann".into();
    let answer = billing.call("POST", &format!("/v1/subscriptions/S1/{change}"), &body.to_string()).await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn a_subscription_is_shown_as_it_was_given_with_its_next_period() {
    let billing = with_s1().await;
    assert_eq!(billing.call("POST", "/v1/subscriptions", S1).await.status, 200, "the same again");
    let other = S1.replace("9.90", "9.91");
    assert_eq!(billing.call("POST", "/v1/subscriptions", &other).await.status, 409);
    let mut shown = billing.get("/v1/subscriptions/S1").await.json();
    for time in ["created_at", "updated_at"] {
        assert!(shown[time].take().as_str().is_some_and(|text| text.starts_with("2023-11-14T22:13:2")));
    }
    let mut expected: Value = serde_json::from_str(S1).unwrap();
    for (field, value) in [
        ("state", json!("active")),
        ("next_on", json!("2023-08-31")),
        ("next_charge_at", json!("2023-08-31T04:00:00.000Z")),
        ("last_on", Value::Null),
        ("created_at", Value::Null),
        ("updated_at", Value::Null),
    ] {
        expected[field] = value;
    }
    assert_eq!(shown, expected);
    let page = billing.get("/v1/subscriptions?state=active").await.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(billing.get("/v1/subscriptions?state=gone").await.status, 400);
    assert_eq!(billing.get("/v1/subscriptions/S2").await.status, 404);
}

#[tokio::test]
async fn a_mistake_is_named_by_its_field_in_each_way_in() {
    let billing = Billing::empty().await;
    for (from, to, field) in [
        ("\"S1\"", "\"\"", "reference"),
        ("31,", "32,", "anchor_day"),
        ("Europe/Copenhagen", "Mars/Olympus", "zone"),
        ("06:00", "6", "at"),
        ("\"2023-08-31\"", "\"2023-02-30\"", "starts_on"),
        ("9.90", "9.999", "prices"),
        ("EUR", "XXX", "currency"),
        ("as-is", "never", "holidays"),
    ] {
        let line = S1.replace('\n', " ").replacen(from, to, 1);
        let answer = billing.call("POST", "/v1/subscriptions", &line).await;
        assert_eq!((answer.status, answer.content_type().as_str()), (400, PROBLEM), "{to}");
        assert_eq!(answer.json()["errors"][0]["field"], field, "{}", answer.body);
        let report = billing.call("POST", "/v1/subscriptions/imports", &line).await.json();
        assert_eq!((&report["errors_total"], &report["errors"][0]["field"]), (&json!(1), &json!(field)));
    }
    let doubled = S1.replacen('{', "{\"zone\":\"UTC\",", 1);
    assert_eq!(billing.call("POST", "/v1/subscriptions", &doubled).await.status, 400, "a field twice");
    assert!(billing.get("/v1/subscriptions").await.json()["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_customer_is_named_by_its_id_or_by_its_reference_and_by_one_of_them() {
    let billing = Billing::empty().await;
    let by = |name: &str, customer: &str| {
        S1.replace('\n', " ").replacen("\"S1\"", &format!("{name:?}"), 1).replacen(
            "\"customer_id\":1",
            customer,
            1,
        )
    };
    let acme = r#""customer_id":null,"customer_reference":"acme""#;
    let made = billing.call("POST", "/v1/subscriptions", &by("S1", acme)).await;
    assert_eq!((made.status, &made.json()["customer_reference"]), (201, &json!("acme")), "{}", made.body);
    let id = made.json()["customer_id"].as_i64().unwrap();
    assert!(id <= i64::from(i32::MAX), "existing clients read it");
    assert_eq!(
        billing.call("POST", "/v1/subscriptions", &by("S1", acme)).await.status,
        200,
        "the same again"
    );
    let lines = [by("S2", acme), by("S3", r#""customer_reference":"other""#)].join("\n");
    let report = billing.call("POST", "/v1/subscriptions/imports", &lines).await.json();
    assert_eq!((&report["created"], &report["errors_total"]), (&json!(2), &json!(0)));
    assert_eq!(billing.get("/v1/subscriptions/S2").await.json()["customer_id"], id, "the same customer");
    assert_ne!(billing.get("/v1/subscriptions/S3").await.json()["customer_id"], id);
    let customers = billing.get("/rest/v1/customers").await.json();
    assert_eq!(customers.as_array().unwrap().len(), 2);

    for (customer, field) in [
        (r#""customer_id":7,"customer_reference":"acme""#, "customer_reference"),
        (r#""customer_reference":" acme""#, "customer_reference"),
        (r#""customer_id":null,"customer_reference":null"#, "customer_id"),
    ] {
        let refused = billing.call("POST", "/v1/subscriptions", &by("S9", customer)).await;
        assert_eq!(refused.status, 400, "{customer}");
        assert_eq!(refused.json()["errors"][0]["field"], field, "{}", refused.body);
    }
    let dollars = by("S9", acme).replace("EUR", "USD");
    let refused = billing.call("POST", "/v1/subscriptions", &dollars).await.json();
    assert_eq!(refused["errors"][0]["field"], "currency");
    assert!(refused["errors"][0]["message"].as_str().unwrap().contains("customer acme pays in EUR"));

    let (status, made) = run_until(&billing, "2023-08-31", "each").await;
    assert_eq!((status, &made["invoices"]), (200, &json!(3)));
    assert_eq!(billing.get("/v1/invoices/S2@2023-08-31").await.json()["customer_id"], id);
}

#[tokio::test]
async fn changes_are_audited_and_refused_by_field_or_state() {
    let billing = with_s1().await;
    let (status, shown) = changed(&billing, "pause", json!({})).await;
    assert_eq!((status, &shown["state"]), (200, &json!("paused")));
    let (status, problem) = changed(&billing, "pause", json!({})).await;
    assert_eq!((status, &problem["type"]), (409, &json!("urn:tinjis:problem:subscription-state")));
    assert_eq!(changed(&billing, "resume", json!({ "amount": "1" })).await.0, 400);
    let (_, shown) = changed(&billing, "resume", json!({})).await;
    assert_eq!(shown["next_on"], "2023-11-30", "the first that has not come yet");
    let price = json!({ "from": "2023-12-01", "amount": "12.90" });
    let (_, shown) = changed(&billing, "change-price", price).await;
    assert_eq!(shown["prices"][1], json!({ "from": "2023-12-01", "amount": "12.90" }));
    let (status, problem) = changed(&billing, "change-price", json!({ "from": "2024-01-01" })).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (400, &json!("amount")));
    assert_eq!(changed(&billing, "rename", json!({})).await.0, 404);
    let (_, shown) = changed(&billing, "end", json!({ "ends_on": "2023-12-31" })).await;
    assert_eq!((&shown["state"], &shown["ends_on"]), (&json!("active"), &json!("2023-12-31")));
    let no_actor = billing.call("POST", "/v1/subscriptions/S1/end", r#"{"reason":"x","actor":" "}"#).await;
    assert_eq!(no_actor.status, 400);
    let actions = billing.get("/v1/subscriptions/S1/actions").await.json();
    let kept: Vec<&str> =
        actions["items"].as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap()).collect();
    let expected =
        ["subscription-pause", "subscription-resume", "subscription-change-price", "subscription-end"];
    assert_eq!(kept, expected);
}

async fn run_until(billing: &Billing, until: &str, catch_up: &str) -> (u16, Value) {
    let body = json!({ "until": until, "catch_up": catch_up, "reason": "a test", "actor": "ann" });
    let answer = billing.call("POST", "/v1/schedule/runs", &body.to_string()).await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn the_schedule_shows_what_waits_and_makes_what_an_operator_asks_for() {
    let billing = with_s1().await;
    let status = billing.get("/v1/schedule").await.json();
    assert_eq!((&status["schedule"], &status["next_on"]), (&json!("off"), &json!("2023-08-31")));
    assert_eq!(run_until(&billing, "2024-11-30", "each").await.0, 400, "none can be due so soon");
    assert_eq!(run_until(&billing, "2023-10-31", "all").await.0, 400);
    let (_, made) = run_until(&billing, "2023-10-31", "ask").await;
    assert_eq!((&made["invoices"], &made["run_id"]), (&json!(0), &Value::Null));
    assert_eq!(made["waiting"][0], json!({ "period_on": "2023-08-31", "reason": "late" }));
    let waiting = billing.get("/v1/schedule").await.json()["waiting"].take();
    assert_eq!(
        (&waiting[0]["planned_count"], &waiting[0]["planned_sums"]),
        (&json!(1), &json!({ "EUR": "9.90" }))
    );
    let (status, made) = run_until(&billing, "2023-09-30", "each").await;
    assert_eq!((status, &made["invoices"], &made["more"]), (200, &json!(2), &json!(false)));
    let runs = billing.get("/v1/schedule/runs").await.json();
    let shown: Vec<_> = runs["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| (&run["period_on"], &run["confirmed_by"]))
        .collect();
    assert_eq!(shown, [(&json!("2023-08-31"), &json!("ann")), (&json!("2023-09-30"), &json!("ann"))]);
    let invoice = billing.get("/v1/invoices/S1@2023-09-30").await.json();
    assert_eq!(
        (&invoice["due_at"], &invoice["amount_minor"]),
        (&json!("2023-09-30T04:00:00.000Z"), &json!(990))
    );
}

#[tokio::test]
async fn a_dry_run_shows_what_a_run_would_claim_and_starts_none() {
    let lines = r#"{"reference":"A1","customer_id":1,"currency":"EUR","amount":"5.00"}
{"reference":"A2","customer_id":2,"currency":"EUR","amount":"7.00"}
{"reference":"B1","customer_id":3,"currency":"USD","amount":"1.00"}"#;
    let billing = Billing::charging(lines, crate::engine::UNREACHABLE, Idempotency::Keys).await;
    for (body, count, sums) in [
        (json!({}), 3, json!({ "EUR": "12.00", "USD": "1.00" })),
        (json!({ "reference_prefix": "A" }), 2, json!({ "EUR": "12.00" })),
        (json!({ "customer_id": 3 }), 1, json!({ "USD": "1.00" })),
        (json!({ "max_count": 1 }), 1, json!({ "EUR": "5.00" })),
        (json!({ "max_amount": { "EUR": "11.99", "USD": "0.99" } }), 1, json!({ "EUR": "5.00" })),
        (json!({ "due_before": "2030-01-01" }), 0, json!({})),
    ] {
        let mut asked = body.clone();
        asked["dry_run"] = true.into();
        let answer = billing.call("POST", "/v1/runs", &asked.to_string()).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.body);
        assert_eq!(answer.json(), json!({ "dry_run": true, "count": count, "sums": sums }), "{body}");
    }
    assert!(billing.get("/v1/runs").await.json()["items"].as_array().unwrap().is_empty());
    for (body, field) in [
        (json!({ "max_count": 0 }), "max_count"),
        (json!({ "max_amount": { "EUR": "x" } }), "max_amount.EUR"),
        (json!({ "due_before": "soon" }), "due_before"),
        (json!({ "reason": " " }), "reason"),
        (json!({ "dry_rum": true }), "dry_rum"),
    ] {
        let problem = billing.call("POST", "/v1/runs", &body.to_string()).await;
        assert_eq!((problem.status, &problem.json()["errors"][0]["field"]), (400, &json!(field)), "{body}");
    }
}
