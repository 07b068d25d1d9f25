//! Rate, errors and duration of every request, by matched route, and the trace that its task belongs to.
//! Must not know any route; a path never becomes a label.

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use http::{Method, StatusCode};
use prometheus::{HistogramVec, IntCounterVec};
use tokio::time::Instant;
use tracing::Instrument;

use super::{Kind, Span, Telemetry, Tracer};
use crate::clock::Random;
use crate::server::Connection;

/// Label of requests that no route matched.
const UNMATCHED: &str = "unmatched";

#[derive(Clone)]
struct Observer {
    requests: IntCounterVec,
    durations: HistogramVec,
    tracer: Tracer,
    random: Random,
}

/// Wraps all routes that the router has so far: counts and times each request, continues or begins its trace. Call it
/// last, and once per service.
pub fn observe<S: Clone + Send + Sync + 'static>(router: Router<S>, telemetry: &Telemetry) -> Router<S> {
    let metrics = &telemetry.metrics;
    let observer = Observer {
        requests: metrics.counters(
            "http_requests_total",
            "Requests answered",
            &["route", "method", "status"],
        ),
        durations: metrics.seconds(
            "http_request_duration_seconds",
            "Time from the request's head to the response's head, in seconds",
            &["route", "method"],
        ),
        tracer: telemetry.tracer.clone(),
        random: telemetry.random().clone(),
    };
    router.layer(from_fn_with_state(observer, record_request))
}

async fn record_request(State(observer): State<Observer>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = method_label(request.method());
    let (context, parent) = observer.tracer.of_request(request.headers(), &observer.random);
    request.extensions_mut().insert(context);
    let mut recorded = observer.tracer.span(context, parent, Kind::Server, method);
    if recorded.is_recorded() {
        describe(&mut recorded, &request);
    }
    let span = tracing::debug_span!("request", http.method = method, http.path = request.uri().path());
    let response = context.scope(next.run(request)).instrument(span).await;

    // A path in another spelling than its route is matched by an inner router, which puts the route into the response.
    let route = route.or_else(|| response.extensions().get::<MatchedPath>().cloned());
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let elapsed = began.elapsed();
    if recorded.is_recorded() {
        conclude(&mut recorded, method, route, response.status());
    }
    drop(recorded);
    observer.requests.with_label_values(&[route, method, response.status().as_str()]).inc();
    observer.durations.with_label_values(&[route, method]).observe(elapsed.as_secs_f64());
    response
}

/// Records what is known of a request before it is routed, by the semantic conventions of HTTP servers. The query is
/// left out, since it may hold secrets.
fn describe(span: &mut Span, request: &Request) {
    span.set_attribute("http.request.method", method_label(request.method()));
    span.set_text("url.path", request.uri().path());
    let is_tls = request.extensions().get::<Connection>().is_some_and(Connection::is_tls);
    span.set_attribute("url.scheme", if is_tls { "https" } else { "http" });
}

/// Records the response. A status of 5xx is the server's failure, one of 4xx the client's.
fn conclude(span: &mut Span, method: &'static str, route: &str, status: StatusCode) {
    if route != UNMATCHED {
        span.rename(|| format!("{method} {route}"));
        span.set_text("http.route", route);
    }
    span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.fail(status.as_str().to_owned());
    }
}

/// The label of a method: clients can send any text, labels are a fixed set.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::telemetry::TraceContext;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn shop() -> (Router, Telemetry) {
        let telemetry = Telemetry::new("shop", "1", "a");
        let trace =
            || async { TraceContext::current().map_or_else(String::new, |context| context.trace_id()) };
        let routes = Router::new()
            .route("/papers/{id}", get(|| async { StatusCode::IM_A_TEAPOT }))
            .route("/trace", get(trace))
            .fallback(|| async { StatusCode::NOT_FOUND });
        (observe(routes, &telemetry), telemetry)
    }

    async fn call(router: &Router, method: &str, path: &str) -> String {
        let request =
            Request::builder().method(method).uri(path).header("traceparent", GIVEN).body(Body::empty());
        let response = router.clone().oneshot(request.unwrap()).await.unwrap();
        String::from_utf8(axum::body::to_bytes(response.into_body(), 4096).await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn requests_are_counted_by_route_pattern_method_and_status() {
        let (router, telemetry) = shop();
        call(&router, "GET", "/papers/1").await;
        call(&router, "GET", "/papers/2").await;
        call(&router, "DELETE", "/papers/2").await;
        call(&router, "BREW", "/coffee").await;
        let text = String::from_utf8(telemetry.metrics.render()).unwrap();
        for line in [
            r#"http_requests_total{method="GET",route="/papers/{id}",status="418"} 2"#,
            r#"http_requests_total{method="DELETE",route="/papers/{id}",status="405"} 1"#,
            r#"http_requests_total{method="other",route="unmatched",status="404"} 1"#,
            r#"http_request_duration_seconds_count{method="GET",route="/papers/{id}"} 2"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains("coffee"), "{text}");
    }

    #[tokio::test]
    async fn a_handler_runs_in_the_trace_of_its_request() {
        let (router, _) = shop();
        assert_eq!(call(&router, "GET", "/trace").await, "4bf92f3577b34da6a3ce929d0e0e4736");
    }
}
