//! The span of one call, by the semantic conventions of HTTP clients. Must not know which service is called.
//! A call outside of any sampled trace gets a `traceparent` all the same, so that the logs of both sides belong together.

use bytes::Bytes;
use http::{Request, Response};

use super::{ClientConfig, Failure, port};
use crate::telemetry::{Kind, Span, TRACEPARENT, TraceContext, Value};

/// An extension of a request whose caller says where in which trace it belongs.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The span of the call; of another one, nothing is recorded.
    pub context: TraceContext,
    /// The span that it is a part of.
    pub parent: TraceContext,
    /// The earlier call that this one repeats.
    pub resends: Option<TraceContext>,
    /// How many calls came before it.
    pub resend_count: u32,
    /// What else is to be known of it.
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

/// Without the URL's query: it may hold what a log must not.
fn describe(span: &mut Span, request: &Request<Bytes>) {
    let (method, uri) = (request.method().as_str(), request.uri());
    span.rename(|| method.to_owned());
    span.set_text("http.request.method", method);
    if let Some(authority) = uri.authority() {
        span.set_text("server.address", authority.host());
        let is_https = uri.scheme_str() == Some("https");
        let default_port = if is_https { super::HTTPS_PORT } else { super::HTTP_PORT };
        let port = port(authority).ok().flatten().unwrap_or(default_port);
        span.set_attribute("server.port", i64::from(port));
        // Behind a user name there may be a password; such a request is refused, and not shown either.
        if !authority.as_str().contains('@') {
            let scheme = uri.scheme_str().unwrap_or("http");
            span.set_attribute("url.full", format!("{scheme}://{authority}{}", uri.path()));
        }
    }
}

/// What became of the call. A refusal is an answer, and still an error of the client's span, as the conventions say.
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
            // No one has seen this span, and the next call of the same attempt has its number.
            if matches!(failure, Failure::NotSent(_)) {
                span.renumber();
            }
            span.fail(failure.cause().as_str());
        }
    }
}
