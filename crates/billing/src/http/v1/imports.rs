//! `/v1/imports`: invoices in, one JSON object a line, in batches, so that memory does not grow with the body.
//! Knows the rules of a row; not how rows are kept, nor what other formats the command line reads.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chassis::problem::Problem;
use chassis::server::Connection;
use futures_util::StreamExt;
use http::{StatusCode, Uri, header};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::ndjson::{LINE_BYTES_MAX, Line, Lines};
use super::page::{Params, answer};
use super::row::{self, Fault};
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::store::{BATCH_MAX, ImportMode, ImportRow, Imported, Store, StoreError};

/// Faults that are listed; all are counted.
const LISTED_MAX: usize = 100;

/// The longest body; it is never held as a whole.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// Imports at once; each holds one batch of rows.
const IMPORTS_MAX: usize = 16;

/// The byte order mark that some editors put before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Who may import now.
#[derive(Clone)]
pub(in crate::http) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(IMPORTS_MAX)))
    }
}

/// Lets an import through if a place is free; else 503, before its body is read.
pub(in crate::http) async fn place(State(places): State<Places>, request: Request, next: Next) -> Response {
    if let Ok(_place) = places.0.try_acquire() {
        return next.run(request).await;
    }
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE)
        .detail(format!("{IMPORTS_MAX} imports are under way; try again later"));
    ([(header::RETRY_AFTER, "1")], problem).into_response()
}

/// What an import did, or would do.
#[derive(Default, Serialize)]
struct Report {
    created: u64,
    unchanged: u64,
    updated: u64,
    errors_total: u64,
    errors: Vec<LineFault>,
    dry_run: bool,
}

/// The first mistake of one line.
#[derive(Serialize)]
struct LineFault {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    field: &'static str,
    message: String,
}

/// Why an import stopped before its end. What was recorded before stays; the next import completes it.
enum Stopped {
    Store(StoreError),
    Body(axum::Error),
}

/// Rows on their way to the store.
struct Intake<'a> {
    store: &'a dyn Store,
    mode: ImportMode,
    rows: Vec<ImportRow>,
    numbers: Vec<u64>,
    report: Report,
}

/// `POST /v1/imports?dry_run=&update=`: 200 with what was done, also when lines were at fault.
pub(in crate::http) async fn create(
    State(state): State<AppState>,
    connection: Option<Extension<Connection>>,
    uri: Uri,
    body: Body,
) -> Result<Response, Problem> {
    if let Some(Extension(connection)) = connection {
        connection.expect_long_body(BODY_BYTES_MAX);
    }
    let mut params = Params::of(&uri);
    let mode = ImportMode { dry_run: params.switch("dry_run"), update: params.switch("update") };
    params.finish()?;
    let mut intake = Intake {
        store: state.store.as_ref(),
        mode,
        rows: Vec::with_capacity(BATCH_MAX),
        numbers: Vec::with_capacity(BATCH_MAX),
        report: Report { dry_run: mode.dry_run, ..Report::default() },
    };
    match intake.read(body).await {
        Ok(()) => Ok(answer(StatusCode::OK, &intake.report)),
        Err(Stopped::Store(error)) => Err(problem_of(&error)),
        Err(Stopped::Body(error)) => {
            tracing::info!(%error, "The body of an import ended early");
            let detail = "the body ended early; what came before was taken, so import the same again";
            Err(Problem::new(StatusCode::BAD_REQUEST).detail(detail))
        }
    }
}

impl Intake<'_> {
    async fn read(&mut self, body: Body) -> Result<(), Stopped> {
        let mut chunks = body.into_data_stream();
        let mut lines = Lines::default();
        while let Some(chunk) = chunks.next().await {
            lines.feed(chunk.map_err(Stopped::Body)?);
            while let Some(line) = lines.next() {
                self.take(line).await?;
            }
        }
        if let Some(line) = lines.finish() {
            self.take(line).await?;
        }
        self.flush().await?;
        // The store's faults come a batch later than those of the lines themselves.
        self.report.errors.sort_by_key(|fault| fault.line);
        Ok(())
    }

    async fn take(&mut self, line: Line) -> Result<(), Stopped> {
        let number = line.number;
        let Some(bytes) = line.bytes else {
            let message = format!("is longer than {LINE_BYTES_MAX} bytes");
            self.fault(number, Fault { reference: None, field: "line", message });
            return Ok(());
        };
        let text = if number == 1 { without_mark(bytes) } else { bytes };
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        match row::parse(&text) {
            Err(fault) => self.fault(number, fault),
            Ok(row) => {
                self.rows.push(row);
                self.numbers.push(number);
            }
        }
        if self.rows.len() >= BATCH_MAX { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Stopped> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let outcomes = self.store.import(&self.rows, self.mode).await.map_err(Stopped::Store)?;
        let rows = std::mem::take(&mut self.rows);
        let numbers = std::mem::take(&mut self.numbers);
        for ((row, number), outcome) in rows.into_iter().zip(numbers).zip(outcomes) {
            match outcome {
                Imported::Created => self.report.created += 1,
                Imported::Unchanged => self.report.unchanged += 1,
                Imported::Updated => self.report.updated += 1,
                Imported::Differs | Imported::Locked | Imported::CurrencyMismatch(_) => {
                    self.fault(number, not_taken(&row, &outcome));
                }
            }
        }
        Ok(())
    }

    fn fault(&mut self, line: u64, fault: Fault) {
        self.report.errors_total += 1;
        if self.report.errors.len() < LISTED_MAX {
            let Fault { reference, field, message } = fault;
            self.report.errors.push(LineFault { line, reference, field, message });
        }
    }
}

/// Why the store did not take a row that is well-formed.
fn not_taken(row: &ImportRow, outcome: &Imported) -> Fault {
    let (field, message) = match outcome {
        Imported::CurrencyMismatch(currency) => {
            ("currency", format!("customer {} pays in {currency}", row.customer_id.0))
        }
        Imported::Locked => {
            let why = "is known with other data, and is paid or has an attempt that is open or charged";
            ("reference", why.to_owned())
        }
        _ => ("reference", "is known with other data; only an update changes it".to_owned()),
    };
    Fault { reference: Some(row.reference.as_str().to_owned()), field, message }
}

fn without_mark(bytes: Bytes) -> Bytes {
    if bytes.starts_with(BYTE_ORDER_MARK) { bytes.slice(BYTE_ORDER_MARK.len()..) } else { bytes }
}
