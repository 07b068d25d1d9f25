//! `/v1/imports`: imports invoices, one JSON object a line, in batches, so that memory does not grow with the body.
//! Other kinds of rows are imported in the same way ([`Rows`]). Knows the rules of a row; must not know how rows are
//! stored, nor the other formats of the command line.

use std::sync::Arc;

use api::billing::{ImportReport, LineFault, LineWarning};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chassis::problem::Problem;
use chassis::server::Connection;
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode, Uri, header};
use tokio::sync::Semaphore;

use super::look_alikes::{LookAlikes, stored_spellings};
use super::ndjson::{LINE_BYTES_MAX, Line, Lines};
use super::page::{Params, json_response};
use super::row::{self, Fault};
use crate::http::AppState;
use crate::http::error::problem_of;
use crate::invoice::Reference;
use crate::store::{BATCH_MAX, ImportMode, ImportRow, Imported, Store, StoreError};

/// The most faults that are listed; all are counted.
const LISTED_MAX: usize = 100;

/// The longest body; it is never held in memory as a whole.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// The most imports at once; each holds one batch of rows.
const IMPORTS_MAX: usize = 16;

/// Media types for NDJSON; a caller may also omit the type.
const MEDIA_TYPES: [&str; 5] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "application/json-lines",
];

/// The byte order mark that some editors put before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Permits for concurrent imports.
#[derive(Clone)]
pub(in crate::http) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(IMPORTS_MAX)))
    }
}

/// Admits an import if a permit is free; otherwise answers 503 before the body is read.
pub(in crate::http) async fn place(State(places): State<Places>, request: Request, next: Next) -> Response {
    if let Ok(_place) = places.0.try_acquire() {
        return next.run(request).await;
    }
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE)
        .detail(format!("{IMPORTS_MAX} imports are under way; try again later"));
    ([(header::RETRY_AFTER, "1")], problem).into_response()
}

/// Why an import stopped before its end. Rows recorded before stay; repeating the import completes it.
enum Stopped {
    Store(StoreError),
    Body(axum::Error),
    /// The first line shows that the body has another format.
    NotNdjson(&'static str),
}

/// The result of importing a row that is valid by itself.
pub(super) enum RowOutcome {
    Created,
    Unchanged,
    Updated,
    Refused(Fault),
}

/// A kind of rows that can be imported.
pub(super) trait Rows: Send + Sync {
    type Row: Send + Sync;

    /// Parses one line.
    fn parse(&self, line: &[u8]) -> Result<Self::Row, Fault>;

    /// The reference that identifies a row.
    fn reference<'r>(&self, row: &'r Self::Row) -> &'r Reference;

    /// Finds for each row a stored reference that is another spelling of the row's own.
    fn stored_spellings(
        &self,
        rows: &[Self::Row],
    ) -> impl Future<Output = Result<Vec<Option<String>>, StoreError>> + Send;

    /// Imports at most [`BATCH_MAX`] rows; returns one outcome for each, in order.
    fn take(
        &self,
        rows: &[Self::Row],
        dry_run: bool,
    ) -> impl Future<Output = Result<Vec<RowOutcome>, StoreError>> + Send;
}

/// The rows of invoices.
struct Invoices<'a> {
    store: &'a dyn Store,
    update: bool,
}

impl Rows for Invoices<'_> {
    type Row = ImportRow;

    fn parse(&self, line: &[u8]) -> Result<ImportRow, Fault> {
        row::parse(line)
    }

    fn reference<'r>(&self, row: &'r ImportRow) -> &'r Reference {
        &row.reference
    }

    async fn stored_spellings(&self, rows: &[ImportRow]) -> Result<Vec<Option<String>>, StoreError> {
        stored_spellings(self.store, rows).await
    }

    async fn take(&self, rows: &[ImportRow], dry_run: bool) -> Result<Vec<RowOutcome>, StoreError> {
        let imported = self.store.import(rows, ImportMode { dry_run, update: self.update }).await?;
        let taken = |(row, outcome): (&ImportRow, Imported)| match outcome {
            Imported::Created => RowOutcome::Created,
            Imported::Unchanged => RowOutcome::Unchanged,
            Imported::Updated => RowOutcome::Updated,
            Imported::Differs | Imported::Locked | Imported::CurrencyMismatch(_) => {
                RowOutcome::Refused(rejection_fault(row, &outcome))
            }
        };
        Ok(rows.iter().zip(imported).map(taken).collect())
    }
}

/// An import in progress.
struct ImportStream<R: Rows> {
    kind: R,
    dry_run: bool,
    rows: Vec<R::Row>,
    numbers: Vec<u64>,
    /// The last complete line, and the last line whose batch the store has recorded.
    last_line: u64,
    taken_to: u64,
    look_alikes: LookAlikes,
    /// Whether the first line that is not blank has been read.
    has_begun: bool,
    report: ImportReport,
}

/// `POST /v1/imports?dry_run=&update=`: 200 with the report, also when lines had faults.
pub(in crate::http) async fn create(
    State(state): State<AppState>,
    connection: Option<Extension<Connection>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let mut params = Params::of(&uri);
    let (dry_run, update) = (params.switch("dry_run"), params.switch("update"));
    params.finish()?;
    import(Invoices { store: state.store.as_ref(), update }, dry_run, connection, &headers, body).await
}

/// Imports a body of such rows: 200 with the report, also when lines had faults.
pub(super) async fn import<R: Rows>(
    kind: R,
    dry_run: bool,
    connection: Option<Extension<Connection>>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    if let Some(Extension(connection)) = connection {
        connection.expect_long_body(BODY_BYTES_MAX);
    }
    check_media_type(headers)?;
    let mut intake = ImportStream {
        kind,
        dry_run,
        rows: Vec::with_capacity(BATCH_MAX),
        numbers: Vec::with_capacity(BATCH_MAX),
        last_line: 0,
        taken_to: 0,
        look_alikes: LookAlikes::default(),
        has_begun: false,
        report: ImportReport { dry_run, ..ImportReport::default() },
    };
    match intake.read(body).await {
        Ok(()) => Ok(json_response(StatusCode::OK, &intake.report)),
        Err(Stopped::Store(error)) => {
            let problem = problem_of(&error);
            let detail = format!("{}; {}", problem.detail, intake.so_far());
            Err(problem.detail(detail))
        }
        Err(Stopped::Body(error)) => {
            tracing::info!(%error, "the body of an import ended early");
            let detail =
                format!("the body ended early, after line {}; {}", intake.last_line, intake.so_far());
            Err(Problem::new(StatusCode::BAD_REQUEST).detail(detail))
        }
        Err(Stopped::NotNdjson(why)) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY).detail(why)),
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let given = String::from_utf8_lossy(given.as_bytes());
    let essence = given.split(';').next().unwrap_or_default().trim();
    if MEDIA_TYPES.iter().any(|media_type| media_type.eq_ignore_ascii_case(essence)) {
        return Ok(());
    }
    let detail = format!(
        "an import is NDJSON, one object a line: send it as {}, not as {essence:?}; `tinjis import FILE` reads CSV and JSON",
        MEDIA_TYPES[0]
    );
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE).detail(detail))
}

/// The reason why a body that begins with this line is not NDJSON; `None` for a line that may be invalid by itself.
fn detect_other_format(line: &[u8]) -> Option<&'static str> {
    let object: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(line);
    match line.trim_ascii_start().first() {
        Some(b'[') => Some(
            "the body is a JSON array, and an import is NDJSON, one object a line; `tinjis import FILE` reads arrays",
        ),
        Some(b'{') if object.is_err_and(|error| error.is_eof()) => Some(
            "the first line ends in the middle of an object, and an import is NDJSON: each object stands on one line",
        ),
        Some(b'{') => None,
        _ => Some(
            "the first line is no JSON object, and an import is NDJSON, one object a line; `tinjis import FILE` reads CSV and JSON",
        ),
    }
}

impl<R: Rows> ImportStream<R> {
    /// What the import has done up to the point where it stopped.
    fn so_far(&self) -> String {
        let ImportReport { created, unchanged, updated, errors_total, .. } = self.report;
        if self.dry_run || created + updated == 0 {
            return "nothing was written; import the same again".to_owned();
        }
        format!(
            "of lines 1 to {}, {created} were created, {updated} updated, {unchanged} were unchanged and {errors_total} \
             refused; no later line was written; import the same again",
            self.taken_to
        )
    }

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
        // Faults from the store arrive a batch later than faults of the lines themselves.
        self.report.errors.sort_by_key(|fault| fault.line);
        Ok(())
    }

    async fn take(&mut self, line: Line) -> Result<(), Stopped> {
        let number = line.number;
        self.last_line = number;
        let Some(bytes) = line.bytes else {
            let message = format!("is longer than {LINE_BYTES_MAX} bytes");
            self.record_fault(number, Fault { reference: None, field: "line", message });
            return Ok(());
        };
        let text = if number == 1 { strip_byte_order_mark(bytes) } else { bytes };
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        if !std::mem::replace(&mut self.has_begun, true)
            && let Some(why) = detect_other_format(&text)
        {
            return Err(Stopped::NotNdjson(why));
        }
        match self.kind.parse(&text) {
            Err(fault) => self.record_fault(number, fault),
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
        let spellings = self.kind.stored_spellings(&self.rows).await.map_err(Stopped::Store)?;
        let taken = self.kind.take(&self.rows, self.dry_run).await.map_err(Stopped::Store)?;
        let rows = std::mem::take(&mut self.rows);
        let numbers = std::mem::take(&mut self.numbers);
        self.taken_to = self.last_line;
        for (((row, number), taken), stored) in rows.iter().zip(numbers).zip(taken).zip(spellings) {
            let reference = self.kind.reference(row);
            let earlier = self.look_alikes.find_earlier_or_remember(reference, number);
            match taken {
                RowOutcome::Created => {
                    self.warn_of_look_alike(number, reference, earlier, stored);
                    self.report.created += 1;
                }
                RowOutcome::Unchanged => self.report.unchanged += 1,
                RowOutcome::Updated => self.report.updated += 1,
                RowOutcome::Refused(fault) => self.record_fault(number, fault),
            }
        }
        Ok(())
    }

    /// Warns about a similar reference. The row is imported all the same, because there may be two invoices.
    fn warn_of_look_alike(
        &mut self,
        line: u64,
        reference: &Reference,
        like_line: Option<u64>,
        stored: Option<String>,
    ) {
        let other = match (like_line, stored) {
            (Some(earlier), _) => format!("that of line {earlier}"),
            (None, Some(stored)) => format!("the stored {stored:?}"),
            (None, None) => return,
        };
        self.report.warnings_total += 1;
        if self.report.warnings.len() < LISTED_MAX {
            let message = format!("differs from {other} only by case, compatibility form, spaces or dashes");
            let reference = reference.as_str().to_owned();
            self.report.warnings.push(LineWarning {
                line,
                reference,
                field: "reference".into(),
                like_line,
                message,
            });
        }
    }

    fn record_fault(&mut self, line: u64, fault: Fault) {
        self.report.errors_total += 1;
        if self.report.errors.len() < LISTED_MAX {
            let Fault { reference, field, message } = fault;
            self.report.errors.push(LineFault { line, reference, field: field.into(), message });
        }
    }
}

/// Why the store rejected a well-formed row.
fn rejection_fault(row: &ImportRow, outcome: &Imported) -> Fault {
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

fn strip_byte_order_mark(bytes: Bytes) -> Bytes {
    if bytes.starts_with(BYTE_ORDER_MARK) { bytes.slice(BYTE_ORDER_MARK.len()..) } else { bytes }
}
