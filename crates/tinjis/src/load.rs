//! `tinjis load`, also `tinjis run load`: many requests to one URL from one client, and one line of JSON about them.
//! Tests of deployments use it to see what a client sees while pods start and stop. Sends nothing twice; knows no route
//! and no Kubernetes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use chassis::caller::Tokens;
use chassis::client::{Client, ClientConfig, Failure, http_url};
use chassis::config::{Problems, TokenSource, load};
use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::output;
use crate::reach::TlsArgs;

/// Exit codes: every request was answered with success; one was not; no request was sent.
const ALL_ANSWERED: u8 = 0;
const SOME_FAILED: u8 = 1;
const NOT_BEGUN: u8 = 2;

/// Timeout of one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// Maximum number of requests in flight at the same time.
const IN_FLIGHT_MAX: u16 = 256;
/// Maximum number of failures printed in full; all are counted.
const FAILURES_TOLD_MAX: usize = 10;
/// Maximum number of distinct responses that are counted separately.
const ANSWERS_MAX: usize = 64;

/// Sends requests to one URL and prints one line of JSON; exit code 0 if every response was a success, 1 if not.
/// SIGTERM ends it early, after the requests in flight.
#[derive(Debug, clap::Parser)]
#[command(name = "tinjis load")]
struct Args {
    /// URL to request
    #[arg(long, value_name = "URL")]
    url: String,
    /// Minimum number of requests
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = parse_whole_number)]
    requests: u64,
    /// Minimum duration in seconds
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = parse_whole_number)]
    seconds: u64,
    /// Requests in flight at the same time
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = parse_in_flight)]
    in_flight: u16,
    /// Pause after each response, in milliseconds
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = parse_whole_number)]
    rest_ms: u64,
    /// POST instead of GET
    #[arg(long)]
    post: bool,
    /// JSON body; implies --post
    #[arg(long, value_name = "JSON")]
    body: Option<String>,
    /// Open a new connection for each request
    #[arg(long)]
    fresh: bool,
    /// File whose first token is sent as X-Token
    #[arg(long, env = "PAYMENTS_API_TOKEN_FILE", value_name = "FILE")]
    payments_api_token_file: Option<String>,
    /// File whose first token is sent as Authorization: Bearer
    #[arg(long, env = "OPERATOR_TOKEN_FILE", value_name = "FILE")]
    operator_token_file: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// The requests to send, and how many.
struct Load {
    client: Client,
    fresh: bool,
    method: Method,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    requests: u64,
    least: Duration,
    in_flight: u16,
    rest: Duration,
}

/// The result of a load.
#[derive(Debug, Default, Serialize)]
struct Report {
    url: String,
    requests: u64,
    ok: u64,
    failed: u64,
    statuses: BTreeMap<u16, u64>,
    not_sent: u64,
    no_answer: u64,
    distinct_answers: usize,
    slowest_ms: u128,
    elapsed_ms: u128,
    stopped: bool,
    failures: Vec<String>,
    #[serde(skip)]
    answers: BTreeSet<Vec<u8>>,
}

/// Runs the subcommand.
pub(crate) fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(&error.into());
            return ExitCode::from(NOT_BEGUN);
        }
    };
    runtime.block_on(async {
        match load(words, Args::resolve) {
            Err(code) => code,
            Ok(load) => load.drive().await.map_or_else(
                |error| {
                    output::error(&error);
                    ExitCode::from(NOT_BEGUN)
                },
                |report| report.print_and_exit_code(),
            ),
        }
    })
}

impl Args {
    fn resolve(self, problems: &mut Problems) -> Option<Load> {
        let uri = problems.check("--url", http_url(&self.url, "http://antaeus-service:8000/rest/health"));
        let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        headers.extend(self.credentials(problems)?);
        let uri = uri?;
        let config = ClientConfig { deadline: DEADLINE, ..ClientConfig::default() };
        let client = self.tls.client(&uri, config, problems)?;
        let method = if self.post || self.body.is_some() { Method::POST } else { Method::GET };
        Some(Load {
            client,
            fresh: self.fresh,
            method,
            uri,
            headers,
            body: self.body.unwrap_or_default().into(),
            requests: self.requests,
            least: Duration::from_secs(self.seconds),
            in_flight: self.in_flight,
            rest: Duration::from_millis(self.rest_ms),
        })
    }
}

impl Args {
    /// The headers that carry tokens; `None` when a mistake was recorded.
    fn credentials(&self, problems: &mut Problems) -> Option<Vec<(HeaderName, HeaderValue)>> {
        const PAYMENTS: &str = "--payments-api-token-file (PAYMENTS_API_TOKEN_FILE)";
        const OPERATOR: &str = "--operator-token-file (OPERATOR_TOKEN_FILE)";
        let x_token = HeaderName::from_static("x-token");
        let mut headers = Vec::new();
        for (setting, path, header, scheme) in [
            (PAYMENTS, &self.payments_api_token_file, x_token, ""),
            (OPERATOR, &self.operator_token_file, header::AUTHORIZATION, "Bearer "),
        ] {
            let Some(path) = path.as_deref().filter(|path| !path.is_empty()) else { continue };
            let tokens = problems.check(setting, Tokens::new(TokenSource::file(path)))?.current();
            let token = tokens.first().map(|token| token.secret.expose()).unwrap_or_default();
            let mut value = problems.check(setting, HeaderValue::try_from(format!("{scheme}{token}")))?;
            value.set_sensitive(true);
            headers.push((header, value));
        }
        Some(headers)
    }
}

fn parse_whole_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("must be a whole number from 0 to {}", u64::MAX))
}

fn parse_in_flight(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| (1..=IN_FLIGHT_MAX).contains(number));
    number.ok_or_else(|| format!("must be a whole number from 1 to {IN_FLIGHT_MAX}"))
}

impl Load {
    async fn drive(&self) -> anyhow::Result<Report> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let report = RefCell::new(Report { url: self.uri.to_string(), ..Report::default() });
        let (begun, stop) = (Cell::new(0), Cell::new(false));
        let since = Instant::now();
        let workers = (0..self.in_flight).map(|_| self.work(since, &begun, &stop, &report));
        let mut workers = pin!(join_all(workers));
        tokio::select! {
            _ = &mut workers => {}
            () = async { tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} } } => {
                stop.set(true);
                workers.await;
            }
        }
        let mut report = report.take();
        report.elapsed_ms = since.elapsed().as_millis();
        report.distinct_answers = report.answers.len();
        report.stopped = stop.get();
        Ok(report)
    }

    async fn work(&self, since: Instant, begun: &Cell<u64>, stop: &Cell<bool>, report: &RefCell<Report>) {
        while !stop.get() && (begun.get() < self.requests || since.elapsed() < self.least) {
            begun.set(begun.get() + 1);
            let sent = Instant::now();
            let answer = self.send().await;
            report.borrow_mut().note(answer, sent.duration_since(since), sent.elapsed());
            tokio::time::sleep(self.rest).await;
        }
    }

    async fn send(&self) -> Result<Response<Bytes>, Failure> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().extend(self.headers.iter().cloned());
        if self.fresh {
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        self.client.send(request).await
    }
}

impl Report {
    fn note(&mut self, answer: Result<Response<Bytes>, Failure>, begun: Duration, took: Duration) {
        self.requests += 1;
        if self.requests == 1 {
            output::note("load: the first request is over");
        }
        self.slowest_ms = self.slowest_ms.max(took.as_millis());
        let failure = match answer {
            Ok(answer) => {
                *self.statuses.entry(answer.status().as_u16()).or_default() += 1;
                if answer.status().is_success() {
                    self.ok += 1;
                    if self.answers.len() < ANSWERS_MAX {
                        self.answers.insert(Sha256::digest(answer.body()).to_vec());
                    }
                    return;
                }
                format!("status {}", answer.status())
            }
            Err(failure) => {
                match failure {
                    Failure::NotSent(_) => self.not_sent += 1,
                    Failure::Unknown(_) => self.no_answer += 1,
                }
                format!("{failure}: {}", failure.cause())
            }
        };
        self.failed += 1;
        if self.failures.len() < FAILURES_TOLD_MAX {
            self.failures.push(format!("begun after {} ms: {failure}", begun.as_millis()));
        }
    }

    fn print_and_exit_code(&self) -> ExitCode {
        output::result(serde_json::to_string(self).unwrap_or_default());
        ExitCode::from(match self {
            Self { requests: 0, .. } => NOT_BEGUN,
            Self { failed: 0, .. } => ALL_ANSWERED,
            _ => SOME_FAILED,
        })
    }
}
