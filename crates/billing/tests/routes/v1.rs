//! The `/v1` API over a real store: pages, single rows, and responses to wrong calls.

use serde_json::json;

use crate::support::{Billing, DEPLOYMENT, START};

const LEDGER: &str = "00000000-0000-4000-8000-000000000009";

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

fn lines(count: u32) -> String {
    (1..=count)
        .map(|n| {
            format!(r#"{{"reference":"R{n}","customer_id":1,"currency":"EUR","amount":"{n}.50"}}"#) + "\n"
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_invoice_shows_its_columns() {
    let line = r#"{"reference":"A/ü 1","customer_id":7,"currency":"SEK","amount":"145.4","status":"PAID"}"#;
    let billing = Billing::with(line).await;
    let row = format!(
        concat!(
            r#"{{"id":1,"reference":"A/ü 1","customer_id":7,"currency":"SEK","amount_minor":14540,"#,
            r#""exponent":2,"state":"PAID","paid_by":"import","attention_reason":null,"#,
            r#""due_at":null,"next_attempt_at":null,"dunning":null,"exhausted":false,"#,
            r#""created_at":"{at}","updated_at":"{at}","held":false}}"#
        ),
        at = START
    );
    billing.get("/v1/invoices/A%2F%C3%BC%201").await.is(200, JSON, &row);
    billing.get("/v1/invoices").await.is(200, JSON, &format!(r#"{{"items":[{row}],"next":null}}"#));
}

#[tokio::test]
async fn pages_follow_each_other_by_their_cursors_to_the_end() {
    let billing = Billing::with(&lines(7)).await;
    let mut references = Vec::new();
    let mut path = "/v1/invoices?limit=3".to_owned();
    loop {
        let page = billing.get(&path).await.json();
        let items = page["items"].as_array().unwrap();
        references.extend(items.iter().map(|item| item["reference"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        assert_eq!(items.len(), 3);
        path = format!("/v1/invoices?limit=3&after={next}");
    }
    assert_eq!(references, ["R1", "R2", "R3", "R4", "R5", "R6", "R7"]);
    let empty = billing.get("/v1/invoices?after=7").await;
    empty.is(200, JSON, r#"{"items":[],"next":null}"#);
}

#[tokio::test]
async fn a_page_has_a_hundred_items_unless_asked_otherwise() {
    let billing = Billing::with(&lines(101)).await;
    let length = |page: serde_json::Value| page["items"].as_array().unwrap().len();
    assert_eq!(length(billing.get("/v1/invoices").await.json()), 100);
    assert_eq!(length(billing.get("/v1/invoices?limit=1000").await.json()), 101);
}

#[tokio::test]
async fn invoices_are_filtered_by_state() {
    let paid = r#"{"reference":"P","customer_id":1,"currency":"EUR","amount":"1","status":"PAID"}"#;
    let billing = Billing::with(&(lines(2) + paid)).await;
    let page = billing.get("/v1/invoices?state=PAID").await.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(page["items"][0]["reference"], "P");
    let none = billing.get("/v1/invoices?state=ATTENTION").await;
    none.is(200, JSON, r#"{"items":[],"next":null}"#);
}

#[tokio::test]
async fn faulty_parameters_are_named() {
    let billing = Billing::empty().await;
    for (path, fields) in [
        ("/v1/invoices?limit=0", json!(["limit"])),
        ("/v1/invoices?limit=1001&state=paid&after=x", json!(["state", "after", "limit"])),
        ("/v1/invoices?page=2", json!(["page"])),
        ("/v1/attempts?after=7", json!(["after"])),
        ("/v1/attempts?state=CHARGED", json!(["state"])),
    ] {
        let answer = billing.get(path).await;
        assert_eq!((answer.status, answer.content_type().as_str()), (400, PROBLEM), "{path}");
        let errors = answer.json()["errors"].clone();
        let named: Vec<_> = errors.as_array().unwrap().iter().map(|error| error["field"].clone()).collect();
        assert_eq!(json!(named), fields, "{path}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    let billing = Billing::with(&lines(1)).await;
    for path in [
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/v1/invoices/",
        "/v1/invoices/r1",
        "/v1/invoices/%ff",
        "/v1/invoices/%20",
        "/v1/runs/1",
        "/v1/runs/x",
    ] {
        let answer = billing.get(path).await;
        assert_eq!((answer.status, answer.content_type().as_str()), (404, PROBLEM), "{path}");
    }
    let key = "bca1897f57e947286a9d2dcb4be588f1";
    for key in [key, "no-key"] {
        let body = r#"{"decision":"charged","reason":"seen in the books","actor":"anna"}"#;
        let answer = billing.call("POST", &format!("/v1/attempts/{key}/resolve"), body).await;
        assert_eq!((answer.status, answer.content_type().as_str()), (404, PROBLEM), "{key}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_reported_the_right_ones() {
    let billing = Billing::empty().await;
    for (method, path, allow) in [
        ("POST", "/v1/invoices", "GET,HEAD"),
        ("DELETE", "/v1/invoices/R1", "GET,HEAD"),
        ("DELETE", "/v1/runs", "GET,HEAD,POST"),
        ("GET", "/v1/imports", "POST"),
        ("GET", "/v1/attempts/bca1897f57e947286a9d2dcb4be588f1/resolve", "POST"),
        ("POST", "/v1/deployment", "GET,HEAD"),
    ] {
        let answer = billing.call(method, path, "").await;
        assert_eq!((answer.status, answer.content_type().as_str()), (405, PROBLEM), "{method} {path}");
        assert_eq!(answer.header("allow").as_deref(), Some(allow), "{method} {path}");
    }
}

#[tokio::test]
async fn the_deployment_shows_its_id_its_ledger_and_its_counts() {
    let billing = Billing::with(&lines(2)).await;
    let shown = |ledger: &str, run: &str| {
        format!(
            concat!(
                r#"{{"deployment_id":"{}","ledger_id":{},"unfinished_run":{},"#,
                r#""last_problem":null,"charging_unsent":0,"#,
                r#""counts":{{"pending":2,"charging":0,"paid":0,"attention":0,"cancelled":0}}}}"#
            ),
            DEPLOYMENT, ledger, run
        )
    };
    billing.get("/v1/deployment").await.is(200, JSON, &shown("null", "null"));
    billing.store.remember_ledger("L1").await.unwrap();
    billing.get("/v1/deployment").await.is(200, JSON, &shown("\"L1\"", "null"));
}

#[tokio::test]
async fn a_decision_that_is_not_whole_is_not_taken() {
    let billing = Billing::empty().await;
    let path = "/v1/attempts/bca1897f57e947286a9d2dcb4be588f1/resolve";
    for body in [
        "",
        "{}",
        "[]",
        r#"{"decision":"paid","reason":"r","actor":"a"}"#,
        r#"{"decision":"charged","actor":"a"}"#,
        r#"{"decision":"charged","reason":"  ","actor":"a"}"#,
        r#"{"decision":"charged","reason":"r","actor":""}"#,
        r#"{"decision":"charged","reason":"r","actor":"a","force":true}"#,
        r#"{"decision":"charged","decision":"not_charged","reason":"r","actor":"a"}"#,
    ] {
        let answer = billing.call("POST", path, body).await;
        assert_eq!((answer.status, answer.content_type().as_str()), (400, PROBLEM), "{body}");
    }
}

#[tokio::test]
async fn a_parameter_that_a_route_does_not_take_is_refused_before_anything_is_done() {
    let billing = Billing::with(&lines(1)).await;
    let refused = billing.call("POST", "/v1/runs?dry_run=true", "").await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.content_type(), PROBLEM);
    assert_eq!(refused.json()["errors"][0]["field"], "dry_run");
    assert_eq!(billing.get("/v1/deployment").await.json()["unfinished_run"], json!(null));
    assert_eq!(billing.get("/v1/runs/1").await.status, 404, "no run was begun");
    let key = "bca1897f57e947286a9d2dcb4be588f1";
    for path in [&format!("/v1/attempts/{key}/resolve?x")[..], "/v1/ledger/accept?x=1", "/v1/repairs?x=1"] {
        assert_eq!(billing.call("POST", path, "{}").await.json()["errors"][0]["field"], "x", "{path}");
    }
    for path in ["/v1/deployment?x", "/v1/invoices/R1?x", "/v1/runs/1?x", "/v1/attempts?x", "/v1/invoices?x"]
    {
        assert_eq!(billing.get(path).await.json()["errors"][0]["field"], "x", "{path}");
    }
    assert_eq!(billing.get("/v1/invoices/R1").await.status, 200);
}

/// The console is for people: it serves pages, which the document does not list.
#[tokio::test]
async fn the_document_lists_every_route_and_no_other() {
    let billing = Billing::empty().await;
    let findings =
        testkit::routes::differences(&format!("{:?}", billing.router), billing::http::OPENAPI, "/console");
    assert_eq!(findings, Vec::<String>::new(), "crates/tinjis/tests/tidy/openapi/billing.rs");
    billing.get("/v1/openapi.json").await.is(200, JSON, billing::http::OPENAPI);
}

#[tokio::test]
async fn only_a_charge_can_be_acknowledged_as_lost() {
    const PATH: &str = "/v1/ledger/unbacked-acknowledgements";
    let line = r#"{"reference":"R","customer_id":1,"currency":"EUR","amount":"1.00"}"#;
    let billing = Billing::with(line).await;
    let body = |reference: &str, reason: &str| {
        json!({ "ledger_id": LEDGER, "reference": reference, "reason": reason, "actor": "ann" }).to_string()
    };
    let refused = billing.call("POST", PATH, &body("R", "the ledger was restored")).await;
    assert_eq!((refused.status, &refused.json()["type"]), (409, &"urn:tinjis:problem:not-unbacked".into()));
    assert_eq!(billing.call("POST", PATH, &body("X", "the ledger was restored")).await.status, 404);
    let no_reason = billing.call("POST", PATH, &body("R", " ")).await;
    assert_eq!((no_reason.status, &no_reason.json()["errors"][0]["field"]), (400, &"reason".into()));
    billing.store.remember_ledger(LEDGER).await.unwrap();
    billing.spoil("UPDATE invoices SET state = 'PAID', paid_by = 'charge'");
    let recorded = billing.call("POST", PATH, &body("R", "the ledger was restored")).await;
    assert_eq!(recorded.status, 201, "{}", recorded.body);
    let list = billing.get(PATH).await.json();
    assert_eq!(list["items"], json!([recorded.json()]));
    assert_eq!((&list["items"][0]["reference"], &list["items"][0]["actor"]), (&"R".into(), &"ann".into()));
}
