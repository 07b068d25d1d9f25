//! Settings of the trace exporter: OpenTelemetry's standard variables, text in, checked settings out. Must not know
//! what a trace is of. A value that cannot be used causes a warning and its default applies, as the specification
//! demands: operators of clusters set these variables for every pod, and a service charges without traces too.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Uri};

use crate::client::http_url;
use crate::clock::Clock;
use crate::telemetry::Sampler;
use crate::tls::{ClientFiles, Source};

/// Path of traces below `OTEL_EXPORTER_OTLP_ENDPOINT`.
const TRACES_PATH: &str = "/v1/traces";
/// Time limit of one request to the collector.
const TIMEOUT_MS: u64 = 10_000;
/// Interval between exports in milliseconds, unless a batch is full before.
const SCHEDULE_DELAY_MS: u64 = 5_000;
/// Time limit for exporting one batch, retries included, in milliseconds.
const EXPORT_TIMEOUT_MS: u64 = 30_000;
/// Maximum number of ended spans that wait; further spans are dropped.
const QUEUE_MAX: u64 = 2048;
/// Maximum number of spans in one request.
const BATCH_MAX: u64 = 512;
/// Upper limit of the queue, above any value of the variable: 256 spans are about 100 kB.
const QUEUE_LIMIT: u64 = 65_536;

const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const CLIENT_CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
const CLIENT_KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";

/// Where traces go, and how many.
#[derive(Clone, PartialEq, Eq)]
pub struct TraceSettings {
    /// URL that batches are POSTed to.
    pub endpoint: Uri,
    /// Headers of each request: credentials, mostly.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// CA bundle and certificate, where the URL begins with https.
    pub tls: Option<ClientFiles>,
    /// Time limit of one request.
    pub timeout: Duration,
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// Attributes of the source of these spans; `service.name` is the first.
    pub resource: Vec<(String, String)>,
    /// Maximum number of ended spans that wait.
    pub queue_max: usize,
    /// Maximum number of spans in one request.
    pub batch_max: usize,
    /// Interval between exports.
    pub schedule_delay: Duration,
    /// Time limit for exporting one batch, retries included.
    pub export_timeout: Duration,
}

/// Hides the headers, which are credentials.
impl fmt::Debug for TraceSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceSettings").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// The settings that the variables give, and their mistakes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// `None` unless an endpoint is given.
    pub settings: Option<TraceSettings>,
    /// A line for each value that cannot be used; logged once the log is open.
    pub warnings: Vec<String>,
}

impl Traces {
    /// Reads the variables of this process. `service` is a name, and whether that name is the service's own default.
    #[must_use]
    pub fn of_environment(service: (&str, bool)) -> Self {
        Self::read(&|name| std::env::var_os(name)?.into_string().ok(), service)
    }

    /// Reads each variable by `read`.
    #[must_use]
    pub fn read(read: &dyn Fn(&str) -> Option<String>, service: (&str, bool)) -> Self {
        let mut variables = Variables { read, warnings: Vec::new() };
        let settings = variables.settings(service);
        Self { settings, warnings: variables.warnings }
    }
}

struct Variables<'a> {
    read: &'a dyn Fn(&str) -> Option<String>,
    warnings: Vec<String>,
}

impl Variables<'_> {
    fn settings(&mut self, service: (&str, bool)) -> Option<TraceSettings> {
        let is_disabled =
            self.read_variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let exporters = self.read_variable("OTEL_TRACES_EXPORTER").unwrap_or_else(|| "otlp".to_owned());
        let endpoint = self.endpoint()?;
        if is_disabled || exporters.trim() == "none" {
            return None;
        }
        if !exporters.split(',').any(|exporter| exporter.trim() == "otlp") {
            self.warn("OTEL_TRACES_EXPORTER", "only otlp and none are known here, otlp is used");
        }
        let protocol = self.of_traces("PROTOCOL").map(|(_, text)| text);
        if protocol.is_some_and(|protocol| protocol != "http/protobuf") {
            self.warn("OTEL_EXPORTER_OTLP_PROTOCOL", "only http/protobuf is known here, it is used");
        }
        if self.of_traces("COMPRESSION").is_some_and(|(_, compression)| compression != "none") {
            self.warn("OTEL_EXPORTER_OTLP_COMPRESSION", "only none is known here, it is used");
        }
        let queue_max = self.number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_MAX).clamp(1, QUEUE_LIMIT);
        let batch_max = self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_MAX).clamp(1, queue_max);
        let size = |number| usize::try_from(number).expect("a queue's limit fits");
        let timeout_ms = match self.of_traces("TIMEOUT") {
            Some((name, _)) => self.number(&name, TIMEOUT_MS),
            None => TIMEOUT_MS,
        };
        Some(TraceSettings {
            tls: if endpoint.scheme() == Some(&Scheme::HTTPS) { Some(self.tls()?) } else { None },
            headers: self.headers(),
            timeout: Duration::from_millis(timeout_ms.max(1)),
            sampler: self.sampler(),
            resource: self.resource(service),
            queue_max: size(queue_max),
            batch_max: size(batch_max),
            schedule_delay: self.millis("OTEL_BSP_SCHEDULE_DELAY", SCHEDULE_DELAY_MS),
            export_timeout: self.millis("OTEL_BSP_EXPORT_TIMEOUT", EXPORT_TIMEOUT_MS),
            endpoint,
        })
    }

    /// The variable for traces holds the whole URL; the variable for all signals holds the base URL of their paths.
    fn endpoint(&mut self) -> Option<Uri> {
        let (name, text) = self.of_traces("ENDPOINT")?;
        let url = match name.contains("TRACES") {
            true => text,
            false => format!("{}{TRACES_PATH}", text.trim_end_matches('/')),
        };
        let uri = http_url(&url, "http://collector:4318").ok();
        if uri.is_none() {
            self.warn(
                &name,
                "is no http or https URL without credentials and fragment, no traces are exported",
            );
        }
        uri
    }

    fn sampler(&mut self) -> Sampler {
        let Some(name) = self.read_variable("OTEL_TRACES_SAMPLER") else { return Sampler::DEFAULT };
        let ratio = self.read_variable("OTEL_TRACES_SAMPLER_ARG");
        Sampler::new(name.trim(), ratio.as_deref().map(str::trim)).unwrap_or_else(|why| {
            self.warn("OTEL_TRACES_SAMPLER", &format!("{why}, parentbased_always_on is used"));
            Sampler::DEFAULT
        })
    }

    /// `service.name` is taken from a flag or `OTEL_SERVICE_NAME`, else from `OTEL_RESOURCE_ATTRIBUTES`, else it is the
    /// service's own default.
    fn resource(&mut self, (service, is_default): (&str, bool)) -> Vec<(String, String)> {
        const NAME: &str = "service.name";
        let mut given = match self.read_variable("OTEL_RESOURCE_ATTRIBUTES") {
            Some(text) => self.parse_pairs("OTEL_RESOURCE_ATTRIBUTES", &text),
            None => Vec::new(),
        };
        let named = given.iter().position(|(name, _)| name == NAME).map(|at| given.remove(at).1);
        let name = named.filter(|_| is_default).unwrap_or_else(|| service.to_owned());
        given.insert(0, (NAME.to_owned(), name));
        given
    }

    fn headers(&mut self) -> Vec<(HeaderName, HeaderValue)> {
        let Some((variable, text)) = self.of_traces("HEADERS") else { return Vec::new() };
        let mut headers = Vec::new();
        for (name, value) in self.parse_pairs(&variable, &text) {
            match (HeaderName::from_str(&name), HeaderValue::from_str(&value)) {
                (Ok(name), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.push((name, value));
                }
                // The value may be a credential, and the name is invalid: neither is shown.
                _ => self.warn(&variable, "an entry is no header, it is left out"),
            }
        }
        headers
    }

    /// TLS settings; `None` when a file cannot be used, since traces go to a verified collector only.
    fn tls(&mut self) -> Option<ClientFiles> {
        let source = |setting: &str| {
            let path = self.read_variable(setting).map(PathBuf::from)?;
            Some(Source { setting: setting.into(), path })
        };
        let (trusted, certificate, key) =
            (source(CERTIFICATE), source(CLIENT_CERTIFICATE), source(CLIENT_KEY));
        let files = ClientFiles { system_too: trusted.is_none(), trusted, identity: certificate.zip(key) };
        let mistakes = files.check(&Clock::system());
        for mistake in &mistakes {
            self.warn(&mistake.setting, &format!("{}, no traces are exported", mistake.what));
        }
        mistakes.is_empty().then_some(files)
    }

    /// Parses `name=value` pairs with percent-encoded values, separated by commas as in W3C baggage.
    fn parse_pairs(&mut self, variable: &str, text: &str) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let pair = entry.split_once('=').map(|(name, value)| (name.trim(), percent_decode(value.trim())));
            match pair {
                Some((name, Some(value))) if !name.is_empty() => pairs.push((name.to_owned(), value)),
                _ => self.warn(variable, "an entry is not NAME=VALUE in percent-encoding, it is left out"),
            }
        }
        pairs
    }

    fn millis(&mut self, name: &str, default: u64) -> Duration {
        Duration::from_millis(self.number(name, default).max(1))
    }

    fn number(&mut self, name: &str, default: u64) -> u64 {
        let Some(text) = self.read_variable(name) else { return default };
        text.trim().parse().unwrap_or_else(|_| {
            self.warn(name, &format!("{text:?} is no whole number, {default} is used"));
            default
        })
    }

    /// Value and name of the variable for traces, or else of the variable for all signals.
    fn of_traces(&self, what: &str) -> Option<(String, String)> {
        let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
        names.into_iter().find_map(|name| self.read_variable(&name).map(|text| (name, text)))
    }

    /// An empty variable counts as unset.
    fn read_variable(&self, name: &str) -> Option<String> {
        (self.read)(name).filter(|text| !text.is_empty())
    }

    fn warn(&mut self, variable: &str, what: &str) {
        self.warnings.push(format!("{variable}: {what}"));
    }
}

/// Undoes percent-encoding.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(more.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &more[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Traces {
        let find = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Traces::read(&find, ("billing", true))
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    fn settings(more: &[(&str, &str)]) -> TraceSettings {
        let read = read(&[&[ENDPOINT], more].concat());
        assert_eq!(read.warnings, Vec::<String>::new());
        read.settings.unwrap()
    }

    #[test]
    fn without_an_endpoint_or_switched_off_there_are_no_traces() {
        assert_eq!(read(&[("OTEL_TRACES_SAMPLER", "always_on")]), Traces::default());
        assert_eq!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")]), Traces::default());
        assert_eq!(read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]), Traces::default());
    }

    #[test]
    fn the_defaults_are_those_of_the_specification() {
        let settings = settings(&[]);
        assert_eq!(settings.endpoint, "http://collector:4318/v1/traces");
        assert_eq!((settings.queue_max, settings.batch_max), (2048, 512));
        assert_eq!(settings.timeout, Duration::from_secs(10));
        assert_eq!(settings.schedule_delay, Duration::from_secs(5));
        assert_eq!(settings.export_timeout, Duration::from_secs(30));
        assert_eq!(settings.sampler, Sampler::DEFAULT);
        assert_eq!(settings.resource, [("service.name".to_owned(), "billing".to_owned())]);
    }

    #[test]
    fn variables_of_traces_come_before_those_of_all_signals() {
        let settings = settings(&[
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other:4318/in"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20one%2Ctwo, x-scope = a"),
        ]);
        assert_eq!(settings.endpoint, "http://other:4318/in");
        assert_eq!(settings.timeout, Duration::from_millis(250));
        let headers: Vec<_> = settings.headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
        assert_eq!(headers[0].0, "authorization");
        assert_eq!(headers[0].1, "Bearer one,two");
        assert_eq!((headers[1].0, headers[1].1.to_str().unwrap()), ("x-scope", "a"));
        assert!(!format!("{settings:?}").contains("Bearer"), "{settings:?}");
    }

    #[test]
    fn a_name_from_the_resource_replaces_only_a_default() {
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=prod,service.name=biller");
        let of = |is_default| {
            let find = |name: &str| {
                [ENDPOINT, attributes].iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned())
            };
            Traces::read(&find, ("antaeus", is_default)).settings.unwrap().resource
        };
        assert_eq!(of(true)[0].1, "biller");
        assert_eq!(of(false)[0].1, "antaeus");
        assert_eq!(of(true)[1], ("deployment.environment".to_owned(), "prod".to_owned()));
        assert_eq!(of(true).len(), 2);
    }

    #[test]
    fn each_value_that_cannot_be_used_is_a_warning_and_the_default_holds() {
        let read = read(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "no pair, a b=secret%20one"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz"),
        ]);
        let settings = read.settings.unwrap();
        assert_eq!((settings.queue_max, settings.sampler), (2048, Sampler::DEFAULT));
        assert_eq!(settings.headers, []);
        assert_eq!(read.warnings.len(), 8, "{:#?}", read.warnings);
        assert!(read.warnings.iter().all(|line| line.starts_with("OTEL_") && !line.contains("secret")));
    }

    #[test]
    fn an_endpoint_that_is_no_url_or_holds_credentials_exports_nothing() {
        for text in [
            "collector:4318",
            "grpc://collector:4317",
            "http://user:word@collector:4318",
            "http://collector:4318#x",
        ] {
            let read = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", text)]);
            assert_eq!(read.settings, None, "{text}");
            assert_eq!(read.warnings.len(), 1, "{text}");
            assert!(!read.warnings[0].contains("word"), "{:?}", read.warnings);
        }
    }

    #[test]
    fn a_missing_ca_bundle_exports_nothing() {
        let read = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318"),
            (CERTIFICATE, "/nowhere/ca.pem"),
        ]);
        assert_eq!(read.settings, None);
        assert!(read.warnings[0].starts_with(CERTIFICATE), "{:?}", read.warnings);
    }
}
