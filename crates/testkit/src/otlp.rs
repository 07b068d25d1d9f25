//! Spans as a collector receives them: from a receiver of OTLP over HTTP in this process, or from the file that a real
//! collector writes. Decodes by the field numbers of OpenTelemetry's protocol, without the exporter's code. Knows no
//! service.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// The parts of a span that tests read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// `service.name` of its resource.
    pub service: String,
    pub trace_id: String,
    pub span_id: String,
    /// Empty for the first span of a trace.
    pub parent: String,
    pub name: String,
    /// 1 internal, 2 server, 3 client.
    pub kind: i64,
    /// The linked spans, as trace and span.
    pub links: Vec<(String, String)>,
    pub attributes: BTreeMap<String, String>,
    pub is_failed: bool,
    pub began_ns: u64,
    pub ended_ns: u64,
}

/// Receives batches of spans; its threads end with the test's process.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

#[derive(Debug, Default)]
struct Received {
    spans: Vec<Span>,
    heads: Vec<String>,
    /// The status line that is sent instead of 200, if not empty.
    refusal: &'static str,
}

impl Receiver {
    /// Starts a receiver on a free port.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let received = Arc::<Mutex<Received>>::default();
        let shared = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream, &shared));
            }
        });
        Self { address, received }
    }

    /// The value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers with this status line from now on, such as `500 Internal Server Error`, and stores nothing.
    pub fn refuse(&self, status: &'static str) {
        self.lock().refusal = status;
    }

    /// All spans received so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.lock().spans.clone()
    }

    /// The heads of all requests so far.
    #[must_use]
    pub fn heads(&self) -> Vec<String> {
        self.lock().heads.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(stream: &TcpStream, received: &Mutex<Received>) {
    let mut reader = BufReader::new(stream);
    while let Ok(Some((head, body))) = read_request(&mut reader) {
        let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
        received.heads.push(head);
        let status = if received.refusal.is_empty() { "200 OK" } else { received.refusal };
        if received.refusal.is_empty() {
            received.spans.extend(of_protobuf(&body).expect("a batch is a message of OTLP"));
        }
        drop(received);
        let answer =
            format!("HTTP/1.1 {status}\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n");
        if (&*stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Reads one request; `None` at the end of the connection.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<(String, Vec<u8>)>> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some((head, body)))
}

/// One field of a message: its number, and a number or bytes.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in order; `None` for malformed bytes.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            1 => Field::Number(u64::from_le_bytes(take(&mut bytes, 8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Field::Bytes(take(&mut bytes, length)?)
            }
            5 => Field::Number(u32::from_le_bytes(take(&mut bytes, 4)?.try_into().ok()?).into()),
            _ => return None,
        };
        all.push((tag >> 3, field));
    }
    Some(all)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..10 {
        let byte = take(bytes, 1)?[0];
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The messages in one field of a message.
fn messages(bytes: &[u8], number: u64) -> Option<Vec<&[u8]>> {
    let of = |(field, value)| match value {
        Field::Bytes(bytes) if field == number => Some(bytes),
        _ => None,
    };
    Some(fields(bytes)?.into_iter().filter_map(of).collect())
}

/// The spans of an `ExportTraceServiceRequest`; `None` for malformed bytes.
#[must_use]
pub fn of_protobuf(request: &[u8]) -> Option<Vec<Span>> {
    let mut spans = Vec::new();
    for resource_spans in messages(request, 1)? {
        let mut resource = BTreeMap::new();
        for message in messages(resource_spans, 1)? {
            resource = attributes(&messages(message, 1)?)?;
        }
        for scope_spans in messages(resource_spans, 2)? {
            for message in messages(scope_spans, 2)? {
                let service = resource.get("service.name").cloned().unwrap_or_default();
                spans.push(Span { service, ..span(message)? });
            }
        }
    }
    Some(spans)
}

fn span(message: &[u8]) -> Option<Span> {
    let mut span = Span::default();
    for (number, field) in fields(message)? {
        match (number, field) {
            (1, Field::Bytes(id)) => span.trace_id = hex(id),
            (2, Field::Bytes(id)) => span.span_id = hex(id),
            (4, Field::Bytes(id)) => span.parent = hex(id),
            (5, Field::Bytes(name)) => span.name = String::from_utf8(name.to_vec()).ok()?,
            (6, Field::Number(kind)) => span.kind = i64::try_from(kind).ok()?,
            (7, Field::Number(moment)) => span.began_ns = moment,
            (8, Field::Number(moment)) => span.ended_ns = moment,
            (9, Field::Bytes(pair)) => span.attributes.extend(attributes(&[pair])?),
            (13, Field::Bytes(link)) => {
                let ids: Vec<String> = [1, 2]
                    .iter()
                    .map(|number| Some(hex(messages(link, *number)?.first()?)))
                    .collect::<Option<_>>()?;
                span.links.push((ids[0].clone(), ids[1].clone()));
            }
            (15, Field::Bytes(status)) => {
                span.is_failed = fields(status)?.iter().any(|field| matches!(field, (3, Field::Number(2))));
            }
            _ => {}
        }
    }
    Some(span)
}

fn attributes(pairs: &[&[u8]]) -> Option<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for pair in pairs {
        let name = String::from_utf8(messages(pair, 1)?.first()?.to_vec()).ok()?;
        let value = fields(messages(pair, 2)?.first()?)?;
        let text = match value.first()? {
            (1, Field::Bytes(text)) => String::from_utf8(text.to_vec()).ok()?,
            (2, Field::Number(flag)) => (*flag == 1).to_string(),
            (3, Field::Number(number)) => number.cast_signed().to_string(),
            _ => return None,
        };
        all.insert(name, text);
    }
    Some(all)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The spans in a file of the collector's file exporter: one JSON object a line. An unfinished line is skipped.
#[must_use]
pub fn of_json_lines(text: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        for resource_spans in items(&line["resourceSpans"]) {
            let resource = json_attributes(&resource_spans["resource"]["attributes"]);
            let service = resource.get("service.name").cloned().unwrap_or_default();
            for scope_spans in items(&resource_spans["scopeSpans"]) {
                let of_scope = items(&scope_spans["spans"]);
                spans
                    .extend(of_scope.iter().map(|span| Span { service: service.clone(), ..json_span(span) }));
            }
        }
    }
    spans
}

fn json_span(span: &Value) -> Span {
    let nanos = |name: &str| text(&span[name]).parse().unwrap_or(0);
    Span {
        service: String::new(),
        trace_id: text(&span["traceId"]),
        span_id: text(&span["spanId"]),
        parent: text(&span["parentSpanId"]),
        name: text(&span["name"]),
        kind: span["kind"].as_i64().unwrap_or(0),
        links: items(&span["links"])
            .iter()
            .map(|link| (text(&link["traceId"]), text(&link["spanId"])))
            .collect(),
        attributes: json_attributes(&span["attributes"]),
        is_failed: span["status"]["code"] == 2,
        began_ns: nanos("startTimeUnixNano"),
        ended_ns: nanos("endTimeUnixNano"),
    }
}

fn json_attributes(pairs: &Value) -> BTreeMap<String, String> {
    let value = |pair: &Value| pair["value"].as_object().and_then(|value| value.values().next()).map(text);
    items(pairs).iter().map(|pair| (text(&pair["key"]), value(pair).unwrap_or_default())).collect()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, ToOwned::to_owned)
}
