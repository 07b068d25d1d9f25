//! One line on standard output per event, JSON or text, with the fields of its spans and its trace id.
//! Must not know who reads it, nor the meaning of any field.

mod line;
mod queue;

use std::panic::PanicHookInfo;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;

use self::line::{Fields, Line};
use self::queue::Queue;
use super::{LogLevel, TraceContext};
use crate::clock::Clock;

/// Log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One flat JSON object per line.
    Json,
    /// Human-readable.
    Text,
}

impl LogFormat {
    fn print(self, line: &Line<'_>) -> String {
        match self {
            Self::Json => line.json(),
            Self::Text => line.text(),
        }
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            other => Err(format!("\"{other}\" is neither json nor text")),
        }
    }
}

/// Log format, level and service name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Log format.
    pub format: LogFormat,
    /// The level at the start; the admin port can change it.
    pub level: LogLevel,
    /// The workload's name: `service.name` of every line.
    pub service: String,
}

/// Changes the log level while the service runs. Clones change the same log.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: Arc<dyn Filter>,
    level: Arc<Mutex<LogLevel>>,
    queue: Option<Arc<Queue>>,
}

/// A reloadable filter of a subscriber whose type only its builder knows.
trait Filter: Send + Sync + std::fmt::Debug {
    /// Replaces the filter; `false` when the subscriber is gone.
    fn replace(&self, targets: Targets) -> bool;
}

impl<S> Filter for reload::Handle<Targets, S>
where
    Self: Send + Sync + std::fmt::Debug,
{
    fn replace(&self, targets: Targets) -> bool {
        self.reload(targets).is_ok()
    }
}

impl LogHandle {
    /// The current level.
    #[must_use]
    pub fn level(&self) -> LogLevel {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the level from now on.
    pub fn set_level(&self, level: LogLevel) {
        if self.filter.replace(level.targets()) {
            *self.level.lock().unwrap_or_else(PoisonError::into_inner) = level;
        }
    }

    /// Flushes the log, for two seconds at most: called before the process ends.
    pub fn flush(&self) {
        if let Some(queue) = &self.queue {
            queue.flush();
        }
    }
}

#[cfg(test)]
impl LogHandle {
    /// A handle that is attached to no log: it changes only the level that it returns itself.
    pub(crate) fn detached(level: &str) -> Self {
        #[derive(Debug)]
        struct DetachedFilter;
        impl Filter for DetachedFilter {
            fn replace(&self, _: Targets) -> bool {
                true
            }
        }
        let level = level.parse().expect("a test names a level that exists");
        Self { filter: Arc::new(DetachedFilter), level: Arc::new(Mutex::new(level)), queue: None }
    }
}

/// Sets up the log of the process, once; a later call returns the handle of the first. Panics are logged as events too.
///
/// # Panics
/// When the process cannot start a single thread.
pub fn init_logs(config: &LogConfig) -> LogHandle {
    static FIRST: OnceLock<LogHandle> = OnceLock::new();
    FIRST.get_or_init(|| set_up(config)).clone()
}

fn set_up(config: &LogConfig) -> LogHandle {
    let (format, service) = (config.format, config.service.clone());
    let dropped = move |lines| dropped_line(format, &service, lines);
    let queue = Queue::start(std::io::stdout(), dropped).expect("a process may start a thread");
    let own = Arc::clone(&queue);
    let (subscriber, mut handle) = subscriber(config, move |line: &str| own.put(line));
    handle.queue = Some(Arc::clone(&queue));
    // A process that has a subscriber already (a test, say) keeps it.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let unlogged = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if tracing::enabled!(tracing::Level::ERROR) {
                log_panic(info);
                // The process may end right after this.
                queue.flush();
            } else {
                unlogged(info);
            }
        }));
    }
    handle
}

fn dropped_line(format: LogFormat, service: &str, lines: u64) -> String {
    let line = Line {
        time: Clock::system().now(),
        level: tracing::Level::WARN,
        target: module_path!(),
        service,
        trace_id: None,
        fields: Fields::new(
            "log lines were dropped because the reader was too slow",
            "log.lines_dropped",
            lines,
        ),
    };
    format.print(&line)
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    tracing::error!(
        panic.message = message,
        panic.location = location,
        panic.thread = thread,
        "a thread panicked"
    );
}

fn subscriber<P>(config: &LogConfig, put: P) -> (impl Subscriber + Send + Sync + use<P>, LogHandle)
where
    P: Fn(&str) + Send + Sync + 'static,
{
    let (filter, reload) = reload::Layer::new(config.level.targets());
    let lines = Lines { format: config.format, service: config.service.clone(), clock: Clock::system(), put };
    let level = Arc::new(Mutex::new(config.level.clone()));
    let handle = LogHandle { filter: Arc::new(reload), level, queue: None };
    (tracing_subscriber::registry().with(filter).with(lines), handle)
}

/// Writes a line per event.
struct Lines<P> {
    format: LogFormat,
    service: String,
    clock: Clock,
    put: P,
}

impl<S, P> Layer<S> for Lines<P>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    P: Fn(&str) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // Innermost first: the event's own fields win.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.add_missing(outer);
            }
        }
        let line = Line {
            time: self.clock.now(),
            level: *event.metadata().level(),
            target: event.metadata().target(),
            service: &self.service,
            trace_id: TraceContext::current().map(|context| context.trace_id()),
            fields,
        };
        (self.put)(&self.format.print(&line));
    }
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;

    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[derive(Clone, Default)]
    struct CaptureBuffer(Arc<Mutex<String>>);

    impl CaptureBuffer {
        fn put(&self) -> impl Fn(&str) + Send + Sync + 'static {
            let own = self.clone();
            move |line: &str| own.0.lock().unwrap().push_str(line)
        }

        fn text(&self) -> String {
            self.0.lock().unwrap().clone()
        }
    }

    fn printed(format: LogFormat, level: &str, events: impl FnOnce(&LogHandle)) -> Vec<String> {
        let paper = CaptureBuffer::default();
        let config = LogConfig { format, level: level.parse().unwrap(), service: "antaeus".to_owned() };
        let (subscriber, handle) = subscriber(&config, paper.put());
        with_default(subscriber, || events(&handle));
        paper.text().lines().map(ToOwned::to_owned).collect()
    }

    fn json(line: &str) -> serde_json::Value {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn an_event_is_one_flat_json_line_with_the_fields_of_its_spans() {
        let lines = printed(LogFormat::Json, "info", |_| {
            let run =
                tracing::info_span!("run", run.id = "7", invoice.id = 1, attempt.key = tracing::field::Empty);
            run.record("attempt.key", "bca1");
            run.in_scope(|| tracing::info!(invoice.id = 2, ok = true, "Paid \"one\"\nof two"));
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line = json(&lines[0]);
        assert_eq!(line["message"], "Paid \"one\"\nof two");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["service.name"], "antaeus");
        assert_eq!(line["target"], "chassis::telemetry::logs::tests");
        assert_eq!(line["run.id"], "7");
        assert_eq!(line["attempt.key"], "bca1");
        assert_eq!(line["invoice.id"], 2);
        assert_eq!(line["ok"], true);
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(lines[0].matches("invoice.id").count(), 1);
    }

    #[test]
    fn a_field_of_ours_is_not_overwritten_by_a_field_of_an_event() {
        let lines = printed(LogFormat::Json, "info", |_| tracing::info!(level = 3, "Lift"));
        assert_eq!(lines[0].matches("\"level\":").count(), 1, "{lines:?}");
        assert_eq!(json(&lines[0])["level"], "INFO");
        assert_eq!(json(&lines[0])["field.level"], 3);
    }

    #[tokio::test]
    async fn lines_written_for_a_request_carry_its_trace_id() {
        let paper = CaptureBuffer::default();
        let config = LogConfig {
            format: LogFormat::Json,
            level: "info".parse().unwrap(),
            service: "antaeus".to_owned(),
        };
        let (subscriber, _) = subscriber(&config, paper.put());
        let _guard = tracing::subscriber::set_default(subscriber);
        tracing::info!("outside");
        TraceContext::parse(GIVEN).unwrap().scope(async { tracing::info!("inside") }).await;
        let text = paper.text();
        let (outside, inside) = text.trim().split_once('\n').unwrap();
        assert_eq!(json(outside).get("trace_id"), None);
        assert_eq!(json(inside)["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn dropped_lines_are_reported_in_a_line() {
        let line = json(&dropped_line(LogFormat::Json, "antaeus", 7));
        assert_eq!((&line["level"], &line["log.lines_dropped"]), (&"WARN".into(), &7.into()));
    }

    #[test]
    fn text_is_one_line_to_read() {
        let lines = printed(LogFormat::Text, "info", |_| {
            tracing::warn!(invoice.id = 2, reason = "no money", "Refused");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains(" WARN Refused invoice.id=2 reason=\"no money\""), "{lines:?}");
    }

    #[test]
    fn the_level_decides_and_can_be_changed() {
        let lines = printed(LogFormat::Json, "warn", |handle| {
            tracing::info!("before");
            handle.set_level("debug".parse().unwrap());
            tracing::debug!("after");
            assert_eq!(handle.level().to_string(), "debug");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(json(&lines[0])["message"], "after");
    }
}
