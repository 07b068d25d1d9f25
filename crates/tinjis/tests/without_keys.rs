//! Providers without idempotency keys: an invoice is sent at most once, whatever a gateway does to the response, and
//! any new kind of fault brings at most five invoices to an operator. Knows billing from outside only.
#![cfg(test)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use testkit::process::{Process, Spec, run_by};
use testkit::wait::pause;
use testkit::{Proof, Services, http, runs};

const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");
/// Maximum duration of a step, on any machine.
const WITHIN: Duration = Duration::from_secs(120);
/// Maximum number of invoices in ATTENTION for a new kind of fault.
const PARKED_MAX: usize = 5;
const PENDING: usize = 2_000;
/// Number of pay calls during the fault, like a script that repeats them.
const PAY_CALLS: usize = 4;

/// A provider's reply to a request that it has executed.
#[derive(Clone, Debug)]
enum Reply {
    /// Answers with this status, content type and body.
    Says(u16, &'static str, &'static str),
    /// Closes the connection.
    Closes,
    /// Resets the connection.
    Resets,
    /// Answers the first request of each connection with yes, and sends a copy of that answer after this time. Answers
    /// later requests with no, once the copy has been sent.
    YesTwice(Duration),
}

const YES: Reply = Reply::Says(200, "application/json", r#"{"result":"true"}"#);
const NO: Reply = Reply::Says(200, "application/json", r#"{"result":"false"}"#);

/// A provider that executes every request; it ends with the test's process.
struct Provider {
    url: String,
    inner: Arc<Inner>,
}

struct Inner {
    reply: Mutex<Reply>,
    recorded: Mutex<Recorded>,
}

/// Requests that the provider has executed.
#[derive(Clone, Debug, Default)]
struct Recorded {
    /// Number of requests for each reference.
    executed: BTreeMap<String, usize>,
    /// Whether the last request of a reference was charged.
    charged: BTreeMap<String, bool>,
    /// Maximum number of requests on one connection.
    on_one_connection: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Provider {
    fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("a bound address"));
        let inner = Arc::new(Inner { reply: Mutex::new(reply), recorded: Mutex::default() });
        let serving = Arc::clone(&inner);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let inner = Arc::clone(&serving);
                std::thread::spawn(move || serve(socket, &inner));
            }
        });
        Self { url, inner }
    }

    fn now(&self, reply: Reply) {
        *lock(&self.inner.reply) = reply;
    }

    fn recorded(&self) -> Recorded {
        lock(&self.inner.recorded).clone()
    }

    fn requests(&self) -> usize {
        self.recorded().executed.values().sum()
    }
}

fn serve(mut socket: TcpStream, inner: &Inner) {
    let mut requests = 0;
    loop {
        let reply = lock(&inner.reply).clone();
        // The kernel resets a connection that ends with unread bytes.
        let leaves_it_unread = matches!(reply, Reply::Resets);
        let Some(reference) = read_request(&mut socket, leaves_it_unread) else { return };
        requests += 1;
        let charged = match reply {
            Reply::YesTwice(_) => requests == 1,
            _ => true,
        };
        {
            let mut recorded = lock(&inner.recorded);
            *recorded.executed.entry(reference.clone()).or_default() += 1;
            recorded.charged.insert(reference, charged);
            recorded.on_one_connection = recorded.on_one_connection.max(requests);
        }
        // A peer that has closed the connection is no error of the test.
        let _ = match reply {
            Reply::Says(..) => socket.write_all(&response(&reply)),
            Reply::Closes | Reply::Resets => return,
            Reply::YesTwice(_) if !charged => {
                pause(Duration::from_millis(50));
                socket.write_all(&response(&NO))
            }
            Reply::YesTwice(after) => socket.write_all(&response(&YES)).and_then(|()| {
                let mut copy = socket.try_clone()?;
                std::thread::spawn(move || {
                    pause(after);
                    let _ = copy.write_all(&response(&YES));
                });
                Ok(())
            }),
        };
    }
}

/// A complete response that leaves the connection open.
fn response(reply: &Reply) -> Vec<u8> {
    let Reply::Says(status, content_type, body) = reply else { return Vec::new() };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body.as_bytes()].concat()
}

/// Reads the reference of the next request; `None` when there is none.
fn read_request(socket: &mut TcpStream, leaves_it_unread: bool) -> Option<String> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str::<serde_json::Value>(body)
        {
            return body["id"].as_str().map(ToOwned::to_owned);
        }
        let read = match leaves_it_unread {
            true => {
                // This peeks, so each read sees all received bytes again.
                bytes.clear();
                pause(Duration::from_millis(1));
                socket.peek(&mut buffer)
            }
            false => socket.read(&mut buffer),
        };
        match read.ok()? {
            0 => return None,
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// Billing that charges at this provider without keys.
struct Billing {
    process: Process,
    _dir: tempfile::TempDir,
}

impl Billing {
    fn charging(provider: &Provider, invoices: usize) -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let mut spec = Spec::new(run_by(TINJIS, "billing"), "billing", dir.path());
        spec.env.insert("PAYMENT_PROVIDER_ENDPOINT".to_owned(), provider.url.clone());
        let billing = Self { process: Process::start(spec), _dir: dir };
        let row = |number| {
            format!(
                "{{\"reference\":\"W{number}\",\"customer_id\":1,\"currency\":\"EUR\",\"amount\":\"1.50\"}}\n"
            )
        };
        let rows: String = (1..=invoices).map(row).collect();
        let url = format!("{}/v1/imports", billing.process.url());
        let answer = http::call("POST", &url, &[("Content-Type", "application/x-ndjson")], rows.as_bytes());
        assert_eq!(answer.status, 200, "import: {}", answer.text());
        billing
    }

    /// Makes one pay call, and waits for the end of its run.
    fn pay(&self) {
        let _ended = runs::wait(&runs::start(&self.process.url()), WITHIN);
    }

    /// The references of invoices in this state.
    fn in_state(&self, state: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let url = format!("{}/v1/invoices?state={state}&limit=1000{after}", self.process.url());
            let page = http::get(&url).json();
            let items = page["items"].as_array().expect("items");
            found.extend(items.iter().filter_map(|item| Some(item["reference"].as_str()?.to_owned())));
            match &page["next"] {
                serde_json::Value::Null => return found,
                next => after = format!("&after={}", next.to_string().trim_matches('"')),
            }
        }
    }
}

/// A gateway creates the response, after the charge was executed.
#[test]
fn a_status_that_a_gateway_makes_after_execution_is_never_sent_again() {
    let proof = Proof::of("without keys: statuses after execution");
    for status in [401, 403, 404, 405, 412] {
        let provider = Provider::start(Reply::Says(status, "text/html", "<html><h1>No</h1></html>"));
        let billing = Billing::charging(&provider, 3);
        for _ in 0..PAY_CALLS {
            billing.pay();
        }
        let recorded = provider.recorded();
        assert!(recorded.executed.values().all(|times| *times == 1), "{status}: {recorded:?}");
        assert_eq!(billing.in_state("ATTENTION").len(), recorded.executed.len(), "{status}: {recorded:?}");
        assert_eq!(recorded.executed.len(), 3, "{status}: each was tried");
    }
    proof.end("5 statuses, 3 invoices each", 0, 0);
}

#[test]
fn a_late_copy_of_a_response_is_not_taken_for_the_response_to_another_invoice() {
    let proof = Proof::of("without keys: late copies of responses");
    for delay_ms in [5, 20, 40] {
        let provider = Provider::start(Reply::YesTwice(Duration::from_millis(delay_ms)));
        let billing = Billing::charging(&provider, 20);
        for _ in 0..PAY_CALLS {
            billing.pay();
        }
        let recorded = provider.recorded();
        let paid = billing.in_state("PAID");
        let wrong: Vec<&String> = paid.iter().filter(|reference| !recorded.charged[*reference]).collect();
        assert!(wrong.is_empty(), "{delay_ms} ms: PAID though declined: {wrong:?}");
        assert_eq!(recorded.on_one_connection, 1, "{delay_ms} ms: each call has a connection of its own");
        assert_eq!(paid.len(), 20, "{delay_ms} ms: {recorded:?}");
    }
    proof.end("3 delays, 20 invoices each", 0, 0);
}

#[test]
fn trouble_from_the_first_call_on_costs_at_most_five_of_two_thousand_invoices() {
    let proof = Proof::of("without keys: trouble from the first call on");
    let html = "<html>No</html>";
    let troubles = [
        Reply::Says(301, "text/html", html),
        Reply::Says(500, "text/html", html),
        Reply::Says(429, "text/plain", "slow down"),
        Reply::Closes,
        Reply::Resets,
        Reply::Says(200, "text/html", html),
    ];
    for trouble in troubles {
        let provider = Provider::start(trouble.clone());
        let billing = Billing::charging(&provider, PENDING);
        for _ in 0..PAY_CALLS {
            billing.pay();
        }
        let parked = billing.in_state("ATTENTION").len();
        assert!((1..=PARKED_MAX).contains(&parked), "{trouble:?}: {parked} in ATTENTION");
        assert_eq!(provider.requests(), parked, "{trouble:?}: each was sent once");
        let unsent = billing.in_state("PENDING").len() + billing.in_state("CHARGING").len();
        assert_eq!(unsent, PENDING - parked, "{trouble:?}");
    }
    proof.end(&format!("6 troubles, {PENDING} invoices each"), 0, 0);
}

#[test]
fn after_trouble_that_ends_the_others_are_paid() {
    let provider = Provider::start(Reply::Resets);
    let billing = Billing::charging(&provider, 200);
    billing.pay();
    let parked = billing.in_state("ATTENTION").len();
    assert!(parked < PARKED_MAX, "one run leaves something for the next to try: {parked}");
    provider.now(YES);
    billing.pay();
    assert_eq!(billing.in_state("PAID").len(), 200 - parked);
    let recorded = provider.recorded();
    assert!(recorded.executed.values().all(|times| *times == 1), "{recorded:?}");
}

/// The one response that certainly comes before execution: our own, to a wrong token.
#[test]
fn a_wrong_token_costs_no_invoice_and_with_the_right_one_all_are_paid() {
    let tokens = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(tokens.path(), "wrong\n").expect("a token can be written");
    let services = Services::of(TINJIS)
        .payments_env("PAYMENTS_API_TOKEN", "right")
        .payments_flags(["--success-rate=1"])
        .billing_env("PAYMENT_PROVIDER_IDEMPOTENCY", "none")
        .billing_env("PAYMENTS_API_TOKEN_FILE", tokens.path().display().to_string())
        .start();
    services.import("T", 50);
    for _ in 0..PAY_CALLS {
        let run = services.start_run();
        let _ended = runs::wait(&run, WITHIN);
    }
    let in_attention = "SELECT count(*) FROM invoices WHERE state = 'ATTENTION'";
    assert_eq!(services.ask_billing(in_attention), 0);
    assert_eq!(services.ask_payments("SELECT count(*) FROM ledger"), 0);
    std::fs::write(tokens.path(), "wrong\nright\n").expect("a token can be written");
    services.pay_until_true(WITHIN);
    assert_eq!(services.ask_billing(in_attention), 0);
    assert_eq!(services.ask_payments("SELECT count(*) FROM ledger"), 50);
}
