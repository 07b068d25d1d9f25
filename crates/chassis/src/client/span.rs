//! The span of one call, by the semantic conventions of HTTP clients. Must not know which service is called. A call
//! outside of any sampled trace also gets a `traceparent`, so that the logs of both sides can be joined.

use bytes::Bytes;
use http::{Request, Response};

use super::{ClientConfig, Failure, parse_port};
use crate::telemetry::{Kind, Span, TRACEPARENT, TraceContext, Value};

/// An extension of a request: the place of its span in a trace, as the caller sets it.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The span of the call; nothing is recorded unless its trace is sampled.
    pub context: TraceContext,
    /// The parent of the span.
    pub parent: TraceContext,
    /// The earlier call that this call repeats.
    pub resends: Option<TraceContext>,
    /// Number of earlier calls of the same attempt.
    pub resend_count: u32,
    /// Further attributes of the span.
    pub attributes: Vec<(&'static str, Value)>,
}

/// Begins the span, and writes its context into the request.
pub(super) fn begin(config: &ClientConfig, request: &mut Request<Bytes>) -> Span {
    if !config.tracer.is_on() {
        return Span::default();
    }
    let traced = request.extensions_mut().remove::<Traced>();
    let (context, parent) = match (&traced, TraceContext::current()) {
        (Some(traced), _) => (traced.context, Some(traced.parent)),
        (None, Some(current)) => (current.child(&config.random), Some(current)),
        (None, None) => return Span::default(),
    };
    request.headers_mut().insert(TRACEPARENT, context.header_value());
    let mut span = config.tracer.span(context, parent, Kind::Client, "HTTP");
    if span.is_recorded() {
        describe(&mut span, request);
        if let Some(traced) = traced {
            traced.attributes.into_iter().for_each(|(name, value)| span.set_attribute(name, value));
            if traced.resend_count > 0 {
                span.set_attribute("http.request.resend_count", i64::from(traced.resend_count));
            }
            traced.resends.into_iter().for_each(|earlier| span.link(earlier));
        }
    }
    span
}

/// Describes the request without the URL's query, which may hold secrets.
fn describe(span: &mut Span, request: &Request<Bytes>) {
    let (method, uri) = (request.method().as_str(), request.uri());
    span.rename(|| method.to_owned());
    span.set_text("http.request.method", method);
    if let Some(authority) = uri.authority() {
        span.set_text("server.address", authority.host());
        let is_https = uri.scheme_str() == Some("https");
        let default_port = if is_https { super::HTTPS_PORT } else { super::HTTP_PORT };
        let port = parse_port(authority).ok().flatten().unwrap_or(default_port);
        span.set_attribute("server.port", i64::from(port));
        // A user name in a URL may be followed by a password. Such a request is refused, and its URL is not recorded
        // either.
        if !authority.as_str().contains('@') {
            let scheme = uri.scheme_str().unwrap_or("http");
            span.set_attribute("url.full", format!("{scheme}://{authority}{}", uri.path()));
        }
    }
}

/// Records the outcome of the call. By the conventions a 4xx or 5xx response is an error of the client's span.
pub(super) fn conclude(span: &mut Span, result: &Result<Response<Bytes>, Failure>) {
    if !span.is_recorded() {
        return;
    }
    match result {
        Ok(response) => {
            let status = response.status();
            span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
            if status.is_client_error() || status.is_server_error() {
                span.fail(status.as_str().to_owned());
            }
        }
        Err(failure) => {
            // The peer has not seen this span's id, and the next call of the same attempt uses the same id.
            if matches!(failure, Failure::NotSent(_)) {
                span.renumber();
            }
            span.fail(failure.cause().as_str());
        }
    }
}
