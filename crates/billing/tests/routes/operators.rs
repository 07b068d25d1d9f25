//! Who may write through `/v1`, on loopback and elsewhere, with and without configured tokens.

use chassis::caller::Callers;
use chassis::config::{Secret, TokenSource};

use crate::support::Billing;

const WRITES: [&str; 6] = [
    "/v1/runs",
    "/v1/imports",
    "/v1/repairs",
    "/v1/ledger/accept",
    "/v1/ledger/acknowledgements",
    "/v1/attempts/bca1897f57e947286a9d2dcb4be588f1/resolve",
];
const READS: [&str; 5] =
    ["/v1/invoices", "/v1/attempts", "/v1/deployment", "/v1/invoices/R", "/v1/ledger/acknowledgements"];

fn tokens() -> Callers {
    Callers::by_token(Some(TokenSource::Value(Secret::new("operator-1"))), None).unwrap()
}

/// A route that is added to the table and forgotten here is found.
#[test]
fn every_route_that_writes_is_tried_here() {
    let table = include_str!("../../src/http/mod.rs");
    let writing = table.lines().filter(|line| line.contains(".route(\"/v1/") && !line.contains(", get("));
    let paths: Vec<&str> = writing.filter_map(|line| line.split('"').nth(1)).collect();
    assert_eq!(paths.len(), WRITES.len(), "{paths:?}");
    for path in paths {
        let (head, tail) = path.split_once("{key}").unwrap_or((path, ""));
        assert!(WRITES.iter().any(|known| known.starts_with(head) && known.ends_with(tail)), "{path}");
    }
}

async fn refuses(billing: &Billing, headers: &[(&str, &str)]) {
    for path in WRITES {
        let answer = billing.with_headers("POST", path, headers, "").await;
        assert_eq!(answer.status, 403, "{path} {headers:?}");
        assert_eq!(answer.content_type(), "application/problem+json");
        assert!(!answer.body.contains("operator-1"));
    }
}

async fn admits(billing: &Billing, headers: &[(&str, &str)]) {
    for path in WRITES {
        let answer = billing.with_headers("POST", path, headers, "").await;
        assert_ne!(answer.status, 403, "{path} {headers:?}");
    }
}

#[tokio::test]
async fn loopback_without_tokens_is_open_but_not_to_web_pages() {
    let billing = Billing::guarded(Callers::by_token(None, None).unwrap(), "127.0.0.1:8000").await;
    admits(&billing, &[]).await;
    admits(&billing, &[("authorization", "Bearer anything")]).await;
    refuses(&billing, &[("origin", "http://example.com")]).await;
}

#[tokio::test]
async fn any_other_address_without_tokens_takes_no_writes() {
    for address in ["0.0.0.0:8000", "[::]:8000", "192.0.2.1:8000"] {
        let billing = Billing::guarded(Callers::by_token(None, None).unwrap(), address).await;
        refuses(&billing, &[]).await;
        refuses(&billing, &[("authorization", "Bearer operator-1")]).await;
    }
}

#[tokio::test]
async fn a_configured_token_is_always_needed() {
    for address in ["127.0.0.1:8000", "0.0.0.0:8000"] {
        let billing = Billing::guarded(tokens(), address).await;
        admits(&billing, &[("authorization", "Bearer operator-1")]).await;
        admits(&billing, &[("authorization", "bearer operator-1")]).await;
        for wrong in ["Bearer operator-2", "operator-1", "Basic operator-1", "Bearer", "Bearer "] {
            refuses(&billing, &[("authorization", wrong)]).await;
        }
        refuses(&billing, &[]).await;
        refuses(&billing, &[("x-token", "operator-1")]).await;
        let twice = [("authorization", "Bearer operator-1"), ("authorization", "Bearer operator-1")];
        refuses(&billing, &twice).await;
    }
}

#[tokio::test]
async fn reads_and_old_routes_need_no_token() {
    let billing = Billing::guarded(tokens(), "0.0.0.0:8000").await;
    for path in READS {
        assert_ne!(billing.get(path).await.status, 403, "{path}");
    }
    assert_eq!(billing.call("POST", "/rest/v1/invoices/pay", "").await.status, 200);
}
