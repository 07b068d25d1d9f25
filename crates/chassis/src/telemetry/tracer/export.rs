//! Sends ended spans to a collector: OTLP over HTTP with protobuf, in batches, by this crate's client. Must not know
//! what a span describes. Nothing waits for the export: a collector that is slow, wrong or gone only costs spans, which
//! are counted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use prometheus::IntCounterVec;
use prost::Message;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::message;
use super::queue::Queue;
use super::sampler::Sampler;
use super::span::Recorded;
use crate::client::{Client, ClientConfig, Failure};
use crate::clock::{Clock, Random};
use crate::config::TraceSettings;
use crate::telemetry::Metrics;
use crate::tls::{TlsConnect, TlsMetrics};

/// Time limit at the end of a service for sending the last spans.
const FINISH: Duration = Duration::from_secs(2);
/// The first pause before a batch is sent again; each further pause is twice as long.
const PAUSE: Duration = Duration::from_secs(1);

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

const EXPORTED: &str = "exported";
const DROPPED: &str = "dropped";
const FAILED: &str = "failed";

/// A queue of spans, and the task that empties it.
#[derive(Debug)]
pub struct Exported {
    sampler: Sampler,
    queue: Arc<Queue>,
    spans: IntCounterVec,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Exported {
    /// Starts to export. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When the collector's CA bundle or the client certificate is not valid any more.
    pub fn start(
        settings: TraceSettings,
        version: &'static str,
        metrics: &Metrics,
        tls: &TlsMetrics,
    ) -> anyhow::Result<Self> {
        let limits = ClientConfig {
            deadline: settings.timeout,
            connect_timeout: settings.timeout,
            pool_max: 1,
            ..ClientConfig::default()
        };
        let client = match &settings.tls {
            None => Client::new(limits),
            Some(files) => {
                let connect = TlsConnect::open(files.clone(), Clock::system(), tls)?;
                Client::with_connect(limits, connect)
            }
        };
        let spans = metrics.counters(
            "traces_spans_total",
            "Spans of sampled traces that have ended: exported, dropped because the queue was full, or failed to be exported",
            &["result"],
        );
        for result in [EXPORTED, DROPPED, FAILED] {
            spans.with_label_values(&[result]);
        }
        let queue = Arc::new(Queue::new(settings.queue_max, settings.batch_max));
        let (stop, sampler) = (CancellationToken::new(), settings.sampler);
        let exporter = Exporter {
            client,
            settings,
            version,
            spans: spans.clone(),
            queue: Arc::clone(&queue),
            stop: stop.clone(),
            random: Random::system(),
            is_failing: false,
        };
        let task = Mutex::new(Some(tokio::spawn(exporter.run())));
        Ok(Self { sampler, queue, spans, stop, task })
    }

    pub(super) fn sampler(&self) -> Sampler {
        self.sampler
    }

    pub(super) fn queue(&self, span: Recorded) {
        if !self.queue.push(span) {
            self.spans.with_label_values(&[DROPPED]).inc();
        }
    }

    /// Sends the queued spans once more, and ends.
    pub(super) async fn finish(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _late = tokio::time::timeout(FINISH, task).await;
        }
    }
}

struct Exporter {
    client: Client,
    settings: TraceSettings,
    version: &'static str,
    spans: IntCounterVec,
    queue: Arc<Queue>,
    stop: CancellationToken,
    random: Random,
    /// The last batch was lost: this is logged once, not for each batch.
    is_failing: bool,
}

/// Why a request did not deliver its batch.
struct Undelivered {
    why: String,
    /// Whether the same request may succeed later.
    is_transient: bool,
}

impl Exporter {
    async fn run(mut self) {
        loop {
            let due = tokio::time::sleep(self.settings.schedule_delay);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                () = self.queue.full.notified() => {}
                () = due => {}
            }
            let stops = self.stop.is_cancelled();
            loop {
                let (batch, more) = self.queue.take();
                if batch.is_empty() {
                    break;
                }
                self.export(batch).await;
                if !more && !stops {
                    break;
                }
            }
            if stops {
                return;
            }
        }
    }

    /// Sends one batch; and again after a pause while time is left, if the collector asks for it or cannot be reached.
    async fn export(&mut self, batch: Vec<Recorded>) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let body = message::request(&self.settings.resource, self.version, &batch).encode_to_vec();
        drop(batch);
        let body = Bytes::from(body);
        let give_up_at = Instant::now() + self.settings.export_timeout;
        let mut pause = PAUSE;
        let undelivered = loop {
            let undelivered = match self.send(body.clone()).await {
                Ok(rejected) => return self.delivered(count, rejected.min(count)),
                Err(undelivered) => undelivered,
            };
            let wait = pause / 2 + self.random.jitter(pause / 2);
            if !undelivered.is_transient || Instant::now() + wait >= give_up_at {
                break undelivered;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break undelivered,
                () = tokio::time::sleep(wait) => pause *= 2,
            }
        };
        self.spans.with_label_values(&[FAILED]).inc_by(count);
        if !std::mem::replace(&mut self.is_failing, true) {
            let (endpoint, why) = (self.settings.endpoint.to_string(), undelivered.why);
            tracing::warn!(endpoint, why, "the collector does not take traces, spans are lost until it does");
        }
    }

    fn delivered(&mut self, count: u64, rejected: u64) {
        self.spans.with_label_values(&[EXPORTED]).inc_by(count - rejected);
        self.spans.with_label_values(&[FAILED]).inc_by(rejected);
        if std::mem::replace(&mut self.is_failing, false) {
            tracing::info!("the collector takes traces again");
        }
    }

    /// Sends one request. Returns how many of its spans the collector rejected.
    async fn send(&self, body: Bytes) -> Result<u64, Undelivered> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.settings.endpoint.clone();
        for (name, value) in &self.settings.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        request.headers_mut().insert(header::CONTENT_TYPE, PROTOBUF);
        let response = self.client.send(request).await.map_err(|failure: Failure| Undelivered {
            why: format!("{failure}: {}", failure.cause()),
            is_transient: true,
        })?;
        let status = response.status();
        if !status.is_success() {
            return Err(Undelivered {
                why: format!("it answered {status}"),
                // The statuses that OTLP calls retryable.
                is_transient: matches!(
                    status,
                    StatusCode::TOO_MANY_REQUESTS
                        | StatusCode::BAD_GATEWAY
                        | StatusCode::SERVICE_UNAVAILABLE
                        | StatusCode::GATEWAY_TIMEOUT
                ),
            });
        }
        // A response that is no OTLP message says nothing of rejected spans.
        let partial =
            message::Response::decode(response.into_body()).ok().and_then(|answer| answer.partial_success);
        let Some(partial) = partial.filter(|partial| partial.rejected_spans > 0) else { return Ok(0) };
        tracing::debug!(
            rejected = partial.rejected_spans,
            why = partial.error_message,
            "the collector rejected spans"
        );
        Ok(u64::try_from(partial.rejected_spans).unwrap_or(0))
    }
}
