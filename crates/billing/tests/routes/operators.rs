//! Who may read and write through `/v1` and the legacy routes, on loopback and elsewhere, with and without tokens.

use billing::http::{AccessRules, LegacyRoutes};
use chassis::caller::Callers;
use chassis::config::{Secret, TokenSource};

use crate::support::{Billing, NOT_FOUND};

const WRITES: [&str; 20] = [
    "/v1/charging/start",
    "/v1/charging/stop",
    "/v1/customers/1/hold",
    "/v1/customers/1/instrument-changed",
    "/v1/customers/1/network",
    "/v1/customers/1/release",
    "/v1/invoices/R/cancel",
    "/v1/invoices/R/hold",
    "/v1/invoices/R/release",
    "/v1/runs",
    "/v1/imports",
    "/v1/repairs",
    "/v1/ledger/accept",
    "/v1/ledger/acknowledgements",
    "/v1/ledger/unbacked-acknowledgements",
    "/v1/attempts/bca1897f57e947286a9d2dcb4be588f1/resolve",
    "/v1/schedule/runs",
    "/v1/subscriptions",
    "/v1/subscriptions/S/pause",
    "/v1/subscriptions/imports",
];
const READS: [&str; 15] = [
    "/v1/charging",
    "/v1/invoices",
    "/v1/attempts",
    "/v1/deployment",
    "/v1/invoices/R",
    "/v1/runs/1",
    "/v1/resolutions",
    "/v1/ledger/acknowledgements",
    "/v1/ledger/unbacked-acknowledgements",
    "/v1/runs",
    "/v1/schedule",
    "/v1/schedule/runs",
    "/v1/subscriptions",
    "/v1/subscriptions/S",
    "/v1/subscriptions/S/actions",
];
const LEGACY_PAYS: [&str; 3] = ["/rest/v1/invoices/pay", "/REST/v1/Invoices/Pay/", "/invoices/pay"];
const LEGACY_READS: [&str; 4] =
    ["/rest/v1/invoices", "/rest/v1/customers", "/Rest/V1/Customers/", "/invoices"];
const HEALTH: [&str; 3] = ["/rest/health", "/REST/health/", "/healthz"];
const ELSEWHERE: [&str; 3] = ["0.0.0.0:8000", "[::]:8000", "192.0.2.1:8000"];

/// Headers by which a browser marks requests from pages of other sites.
const PAGES: [(&str, &str); 4] = [
    ("origin", "http://evil.example"),
    ("origin", "null"),
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-site", "same-site"),
];

/// An operator and a reader, each with a token.
fn tokens() -> AccessRules {
    let of = |token: &str| Callers::by_token(Some(TokenSource::value(Secret::new(token))), None).unwrap();
    AccessRules { operators: of("operator-1"), readers: of("reader-1"), ..AccessRules::open() }
}

/// Detects a route that was added to the table and not to this test.
#[test]
fn every_route_that_writes_is_tried_here() {
    let table = include_str!("../../src/http/mod.rs");
    let writing = table.lines().filter(|line| line.contains(".route(\"/v1/") && !line.contains(", get("));
    let paths: Vec<&str> = writing.filter_map(|line| line.split('"').nth(1)).collect();
    assert_eq!(paths.len(), WRITES.len(), "{paths:?}");
    for path in paths {
        let path = path.replace("{reference}/{change}", "S/pause");
        let (head, tail) = path.split_once('{').unwrap_or((&path, "}"));
        let tail = tail.split_once('}').map_or("", |(_, tail)| tail);
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
    let billing = Billing::guarded(AccessRules::open(), "127.0.0.1:8000").await;
    admits(&billing, &[]).await;
    admits(&billing, &[("authorization", "Bearer anything")]).await;
    admits(&billing, &[("host", "localhost:8000"), ("origin", "http://localhost:8000")]).await;
    for page in PAGES {
        refuses(&billing, &[page]).await;
    }
    refuses(&billing, &[("host", "evil.example:8000")]).await;
}

#[tokio::test]
async fn any_other_address_without_tokens_takes_no_writes() {
    for address in ELSEWHERE {
        let billing = Billing::guarded(AccessRules::open(), address).await;
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
        for wrong in
            ["Bearer operator-2", "Bearer reader-1", "operator-1", "Basic operator-1", "Bearer", "Bearer "]
        {
            refuses(&billing, &[("authorization", wrong)]).await;
        }
        refuses(&billing, &[]).await;
        refuses(&billing, &[("x-token", "operator-1")]).await;
        let twice = [("authorization", "Bearer operator-1"), ("authorization", "Bearer operator-1")];
        refuses(&billing, &twice).await;
    }
}

async fn statuses(billing: &Billing, method: &str, paths: &[&str], headers: &[(&str, &str)]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for path in paths {
        statuses.push(billing.with_headers(method, path, headers, "").await.status);
    }
    statuses
}

#[tokio::test]
async fn v1_is_read_by_readers_and_operators_off_loopback_and_by_everybody_on_it() {
    let closed = AccessRules { anonymous_reads: false, ..tokens() };
    for address in ELSEWHERE {
        let billing = Billing::guarded(closed.clone(), address).await;
        for headers in [&[][..], &[("authorization", "Bearer guess")], &[("x-token", "reader-1")]] {
            assert_eq!(statuses(&billing, "GET", &READS, headers).await, [403; READS.len()], "{headers:?}");
        }
        let answer = billing.get("/v1/invoices").await;
        assert_eq!(answer.content_type(), "application/problem+json");
        assert!(answer.body.contains("--reader-token-file"), "{}", answer.body);
        for token in ["Bearer reader-1", "Bearer operator-1"] {
            let read = statuses(&billing, "GET", &READS, &[("authorization", token)]).await;
            assert!(!read.contains(&403), "{token} {read:?}");
        }
        refuses(&billing, &[("authorization", "Bearer reader-1")]).await;
    }
    let no_tokens = AccessRules { anonymous_reads: false, ..AccessRules::open() };
    let billing = Billing::guarded(no_tokens.clone(), "0.0.0.0:8000").await;
    assert_eq!(statuses(&billing, "GET", &READS, &[]).await, [403; READS.len()], "no token is configured");
    for (rules, address) in
        [(closed, "127.0.0.1:8000"), (no_tokens, "[::1]:8000"), (tokens(), "0.0.0.0:8000")]
    {
        let billing = Billing::guarded(rules, address).await;
        assert!(!statuses(&billing, "GET", &READS, &[]).await.contains(&403), "{address}");
    }
}

/// Detects a route that was added to the table and not to this test.
#[test]
fn every_route_that_reads_is_tried_here() {
    let table = include_str!("../../src/http/mod.rs");
    let reading = table.lines().filter(|line| line.contains(".route(\"/v1/") && line.contains(", get("));
    // The OpenAPI document is open, and has its own test below.
    let guarded = reading.filter(|line| !line.contains("\"/v1/openapi.json\""));
    assert_eq!(guarded.count(), READS.len());
}

#[tokio::test]
async fn open_legacy_routes_need_no_token_anywhere() {
    for address in ["127.0.0.1:8000", "0.0.0.0:8000"] {
        let billing = Billing::guarded(tokens(), address).await;
        assert_eq!(statuses(&billing, "POST", &LEGACY_PAYS, &[]).await, [200; LEGACY_PAYS.len()]);
        assert_eq!(statuses(&billing, "GET", &LEGACY_READS, &[]).await, [200; LEGACY_READS.len()]);
    }
}

#[tokio::test]
async fn no_page_of_another_site_pays_by_an_open_legacy_route() {
    for address in ["127.0.0.1:8000", "0.0.0.0:8000"] {
        let billing = Billing::guarded(tokens(), address).await;
        for page in PAGES {
            for path in LEGACY_PAYS {
                let answer = billing.with_headers("POST", path, &[page], "").await;
                assert_eq!(answer.status, 403, "{path} {page:?}");
                // A script in use runs the body as a shell command: the body is one quoted text, never an object.
                assert!(
                    answer.body.starts_with('"') && answer.body.contains("needs no credential"),
                    "{}",
                    answer.body
                );
            }
            assert_eq!(statuses(&billing, "GET", &LEGACY_READS, &[page]).await, [200; LEGACY_READS.len()]);
        }
        let rebound = billing.with_headers("POST", LEGACY_PAYS[0], &[("host", "evil.example")], "").await;
        assert_eq!(rebound.status, if address.starts_with("127") { 403 } else { 200 }, "{address}");
    }
}

#[tokio::test]
async fn legacy_routes_by_token_let_readers_read_and_operators_pay() {
    let rules = AccessRules { legacy: LegacyRoutes::Token, ..tokens() };
    for address in ["127.0.0.1:8000", "0.0.0.0:8000"] {
        let billing = Billing::guarded(rules.clone(), address).await;
        let tried = async |token: &str| {
            let headers = [("authorization", token), ("host", "evil.example"), ("origin", "http://a")];
            let paid = statuses(&billing, "POST", &LEGACY_PAYS, &headers).await;
            let read = statuses(&billing, "GET", &LEGACY_READS, &headers).await;
            assert!(
                paid.iter().all(|status| *status == paid[0]) && read.iter().all(|status| *status == read[0])
            );
            (paid[0], read[0])
        };
        assert_eq!(tried("Bearer guess").await, (403, 403), "{address}");
        assert_eq!(tried("Bearer reader-1").await, (403, 200), "{address}");
        assert_eq!(tried("Bearer operator-1").await, (200, 200), "{address}");
        assert_eq!(statuses(&billing, "GET", &HEALTH, &[]).await, [200; HEALTH.len()]);
    }
}

#[tokio::test]
async fn closed_legacy_routes_answer_as_unknown_paths_do_and_health_stays() {
    let rules = AccessRules { legacy: LegacyRoutes::Off, ..tokens() };
    let billing = Billing::guarded(rules, "0.0.0.0:8000").await;
    let operator = [("authorization", "Bearer operator-1")];
    for headers in [&[][..], &operator] {
        for (method, paths) in [("POST", &LEGACY_PAYS[..]), ("GET", &LEGACY_READS), ("DELETE", &LEGACY_READS)]
        {
            for path in paths {
                let answer = billing.with_headers(method, path, headers, "").await;
                answer.is(404, "application/json", NOT_FOUND);
            }
        }
    }
    assert_eq!(statuses(&billing, "GET", &HEALTH, &[]).await, [200; HEALTH.len()]);
    let begun = billing.with_headers("POST", "/v1/runs", &operator, "").await;
    assert_eq!(begun.status, 202, "{}", begun.body);
}

/// The document has no data: a client generator needs no token.
#[tokio::test]
async fn the_document_of_the_api_is_read_without_a_token_and_the_api_is_not() {
    let rules = AccessRules { anonymous_reads: false, ..tokens() };
    let billing = Billing::guarded(rules, "0.0.0.0:8000").await;
    assert_eq!(billing.get("/v1/openapi.json").await.status, 200);
    assert_eq!(billing.get("/v1/invoices").await.status, 403);
    assert_eq!(billing.call("POST", "/v1/openapi.json", "").await.status, 405);
}
