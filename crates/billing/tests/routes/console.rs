//! The console's pages without a browser: their content, who may see them, and what their headers forbid.

use billing::http::AccessRules;
use billing::protocol::key::Key;
use chassis::caller::Callers;
use chassis::config::{Secret, TokenSource};
use http_body_util::BodyExt;

use crate::support::{Answer, Billing};

const PAGES: [&str; 5] =
    ["/console", "/console/runs", "/console/attention", "/console/subscriptions", "/console/customers/7"];
const LINES: &str = concat!(
    r#"{"reference":"A/1","customer_id":7,"currency":"EUR","amount":"12.50"}"#,
    "\n",
    r#"{"reference":"<script>alert(1)</script>&\"'","customer_id":7,"currency":"EUR","amount":"1"}"#,
    "\n",
);

fn tokens() -> AccessRules {
    let of = |token: &str| Callers::by_token(Some(TokenSource::value(Secret::new(token))), None).unwrap();
    AccessRules {
        operators: of("operator-1"),
        readers: of("reader-1"),
        anonymous_reads: false,
        ..AccessRules::open()
    }
}

fn text(answer: &Answer, status: u16) -> &str {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(answer.content_type(), "text/html; charset=utf-8");
    &answer.body
}

async fn log_in(billing: &Billing, token: &str, headers: &[(&str, &str)]) -> Answer {
    billing.with_headers("POST", "/console/login", headers, &format!("token={token}")).await
}

#[tokio::test]
async fn every_page_is_whole_and_forbids_what_it_does_not_need() {
    let billing = Billing::with(LINES).await;
    for page in PAGES.iter().chain(&["/console/invoices/A%2F1", "/console/login", "/console/runs/9"]) {
        let answer = billing.get(page).await;
        let body = text(&answer, if page.ends_with('9') { 404 } else { 200 });
        assert!(body.starts_with("<!DOCTYPE html>") && body.ends_with("</html>"), "{page}: {body}");
        for part in ["<html lang=\"en\">", "<title>", "<main ", "<h1>"] {
            assert_eq!(body.matches(part).count(), 1, "{page}: {part}");
        }
        for refused in ["style=\"", " onclick", "http://", "https://", "//"] {
            let body = body.replace("http://www.w3.org/2000/svg", "");
            assert!(!body.contains(refused), "{page}: {refused}");
        }
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options").as_deref(), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy").as_deref(), Some("same-origin"));
        assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
    }
}

#[tokio::test]
async fn a_hostile_reference_is_text() {
    let billing = Billing::with(LINES).await;
    let found = "/console/find?reference=%3Cscript%3Ealert(1)%3C%2Fscript%3E%26%22'";
    let location = billing.get(found).await.header("location").unwrap();
    let answer = billing.get(&location).await;
    let body = text(&answer, 200);
    assert!(body.contains("&lt;script&gt;alert(1)&lt;/script&gt;&amp;"), "{body}");
    assert!(!body.contains("<script>alert"), "{body}");
    billing.spoil("UPDATE invoices SET reference = 'B' || char(8238) || 'C' WHERE id = 2");
    let answer = billing.get("/console/invoices/B%E2%80%AEC").await;
    let body = text(&answer, 200);
    assert!(body.contains("B\\u202eC") && !body.contains('\u{202e}'), "{body}");
}

#[tokio::test]
async fn an_invoice_that_needs_attention_says_why_and_what_to_type() {
    let billing = Billing::with(LINES).await;
    billing.spoil("UPDATE invoices SET state = 'ATTENTION', attention_reason = 'rejected' WHERE id = 1");
    let list = billing.get("/console/attention").await;
    assert!(text(&list, 200).contains("tinjis resolve --reason-is rejected --decision"), "{}", list.body);
    assert!(list.body.contains("/console/invoices/A%2F1"), "{}", list.body);
    let key = Key::parse("0123456789abcdef0123456789abcdef").unwrap();
    billing.spoil(
        "INSERT INTO runs (id, state, started_at, finished_at, lease_until) VALUES (1, 'finished', 0, 1, 0)",
    );
    billing.spoil(&format!(
        "INSERT INTO attempts (key, invoice_id, number, customer_id, currency, amount_minor, state, sends, run_id,
             lease_until, created_at, settled_at) VALUES ('{key}', 1, 1, 7, 'EUR', 1250, 'REJECTED', 1, 1, 0, 0, 1)"
    ));
    let one = billing.get("/console/invoices/A%2F1").await;
    assert!(text(&one, 200).contains(&format!("tinjis resolve {key} --decision charged")), "{}", one.body);
}

#[tokio::test]
async fn off_loopback_a_token_opens_a_session_and_nothing_else_does() {
    let billing = Billing::guarded(tokens(), "0.0.0.0:8000").await;
    for page in PAGES {
        let answer = billing.get(page).await;
        assert_eq!(
            (answer.status, answer.header("location").unwrap().as_str()),
            (303, "/console/login"),
            "{page}"
        );
    }
    for token in ["", "guess", "reader-1x"] {
        let answer = log_in(&billing, token, &[]).await;
        assert!(text(&answer, 403).contains("Not logged in"), "{token}");
        assert_eq!(answer.header("set-cookie"), None);
    }
    for token in ["reader-1", "operator-1"] {
        let answer = log_in(&billing, token, &[]).await;
        assert_eq!((answer.status, answer.header("location").unwrap().as_str()), (303, "/console"));
        let cookie = answer.header("set-cookie").unwrap();
        assert!(cookie.contains("; Path=/console; HttpOnly; SameSite=Strict; Max-Age=28800"), "{cookie}");
        assert!(!cookie.contains(token) && !cookie.contains("Secure"), "{cookie}");
        let session = cookie.split(';').next().unwrap();
        for page in &PAGES[..4] {
            let shown =
                billing.with_headers("GET", page, &[("cookie", &format!("a=b; {session}"))], "").await;
            text(&shown, 200);
        }
        let broken = billing.with_headers("GET", "/console", &[("cookie", &format!("{session}0"))], "").await;
        assert_eq!(broken.status, 303);
        let write = billing.with_headers("POST", "/v1/runs", &[("cookie", session)], "").await;
        assert_eq!(write.status, 403, "a session only reads the console");
        let read = billing.with_headers("GET", "/v1/invoices", &[("cookie", session)], "").await;
        assert_eq!(read.status, 403, "a session only reads the console");
    }
    let bearer = [("authorization", "Bearer reader-1")];
    text(&billing.with_headers("GET", "/console", &bearer, "").await, 200);
}

#[tokio::test]
async fn a_login_behind_tls_is_secure_and_one_of_another_site_is_refused() {
    let billing = Billing::guarded(tokens(), "0.0.0.0:8000").await;
    let own = [("host", "billing.example"), ("origin", "https://billing.example")];
    let cookie = log_in(&billing, "reader-1", &own).await.header("set-cookie").unwrap();
    assert!(cookie.ends_with("; Secure"), "{cookie}");
    for foreign in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
    {
        let answer = log_in(&billing, "reader-1", &[("host", "billing.example"), foreign]).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (403, None), "{foreign:?}");
        let out = billing.with_headers("POST", "/console/logout", &[foreign], "").await;
        assert_eq!((out.status, out.header("set-cookie")), (403, None), "{foreign:?}");
    }
    let out = billing.with_headers("POST", "/console/logout", &[], "").await;
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
}

#[tokio::test]
async fn files_are_told_apart_by_their_content_and_small() {
    let billing = Billing::empty().await;
    for path in ["/console/style.css", "/console/script.js", "/console/icon.svg"] {
        let answer = billing.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body.len() <= 8 * 1024, "{path}: {}", answer.body.len());
        let etag = answer.header("etag").unwrap();
        let again = billing.with_headers("GET", path, &[("if-none-match", &etag)], "").await;
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
    }
    let page = billing.call("DELETE", "/console", "").await;
    assert_eq!((page.status, page.header("allow").as_deref()), (405, Some("GET,HEAD")));
}

#[tokio::test(start_paused = true)]
async fn streams_are_few_and_a_closed_one_gives_its_place_back() {
    let billing = Billing::empty().await;
    let mut streams = Vec::new();
    for _ in 0..32 {
        let mut answer = billing.answer("GET", "/console/events").await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let hello = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&hello[..], b"retry: 5000\n\n");
        streams.push(answer);
    }
    assert_eq!(billing.answer("GET", "/console/events").await.status(), 503);
    streams.pop();
    assert_eq!(billing.answer("GET", "/console/events").await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_of_changes_and_ends_after_some_minutes() {
    let billing = Billing::empty().await;
    let mut stream = billing.answer("GET", "/console/events").await;
    let body = stream.body_mut();
    let mut next = async || body.frame().await.map(|frame| frame.unwrap().into_data().unwrap());
    assert_eq!(next().await.unwrap(), "retry: 5000\n\n");
    billing.call("POST", "/v1/imports", LINES).await;
    loop {
        match next().await.unwrap() {
            beat if beat == ":\n\n" => {}
            event => break assert_eq!(event, "event: changed\ndata: 1\n\n"),
        }
    }
    while next().await.is_some() {}
}
