//! `/console/events`: signals a page that something has changed, so that its script reloads the content. The store is
//! read once a second for all streams. A stream ends when the service drains, and after some minutes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{StatusCode, header};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::http::AppState;
use crate::http::error::log_failure;
use crate::store::{self, Store};

/// The most streams of this process: each holds a connection and one of the calls in flight, which billing's callers
/// need.
const STREAMS_MAX: usize = 32;
/// How often a stream checks for changes, and how old a reading may be.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const READING_AGE_MAX: Duration = Duration::from_millis(900);
/// The event when nothing has changed. Only a failed write frees the place of a closed page, so each check writes:
/// otherwise a browser that goes from page to page would soon hold all places.
const BEAT: &[u8] = b":

";
/// A stream ends after this time. Its browser opens another one, for which the session is checked again.
const STREAM_AGE_MAX: Duration = Duration::from_secs(600);

/// The first event, which sets the reconnect time of the browser.
const HELLO: &[u8] = b"retry: 5000\n\n";

const CHANGED: &[u8] = b"event: changed\ndata: 1\n\n";

/// The state that all streams share.
#[derive(Clone)]
pub(super) struct Live {
    places: Arc<Semaphore>,
    reading: Arc<Mutex<Option<(Instant, String)>>>,
}

impl Default for Live {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(STREAMS_MAX)), reading: Arc::default() }
    }
}

impl Live {
    /// The changing data that pages show, as one text that differs when any of it does.
    async fn reading(&self, store: &dyn Store) -> store::Result<String> {
        let mut kept = self.reading.lock().await;
        if let Some((at, text)) = &*kept
            && at.elapsed() < READING_AGE_MAX
        {
            return Ok(text.clone());
        }
        let (counts, run, halt) = (store.counts().await?, store.latest_run().await?, store.halt().await?);
        let run = run.map(|run| (run.id, run.state, run.counters, run.problem));
        let text = format!("{counts:?} {run:?} {halt:?}");
        *kept = Some((Instant::now(), text.clone()));
        Ok(text)
    }
}

/// The stream of one page.
struct Stream {
    live: Live,
    app: AppState,
    _place: OwnedSemaphorePermit,
    ticks: tokio::time::Interval,
    ends_at: Instant,
    last: Option<String>,
}

impl Stream {
    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        tokio::select! {
            biased;
            () = self.app.engine.draining() => return None,
            _ = self.ticks.tick() => {}
        }
        if Instant::now() >= self.ends_at {
            return None;
        }
        let reading = self.live.reading(self.app.store.as_ref()).await.inspect_err(log_failure).ok()?;
        let event = match self.last.replace(reading.clone()) {
            None => HELLO,
            Some(last) if last != reading => CHANGED,
            Some(_) => BEAT,
        };
        Some(Bytes::from_static(event))
    }
}

/// `GET /console/events`
pub(super) async fn events(State(app): State<AppState>, Extension(live): Extension<Live>) -> Response {
    let Ok(place) = Arc::clone(&live.places).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are live; this one shows what it has")
            .into_response();
    };
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ends_at = Instant::now() + STREAM_AGE_MAX;
    let stream = Stream { live, app, _place: place, ticks, ends_at, last: None };
    let events = stream::unfold(stream, async |mut stream| {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(event), stream))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}
