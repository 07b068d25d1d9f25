//! The admin port: liveness, readiness, metrics and the log level. Must not know the business routes; the kubelet and
//! Prometheus call it without any credential, and only a change of the log level needs one.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, Uri, header};

use prometheus::IntGaugeVec;

use crate::caller::{Callers, Presented, bearer};
use crate::config::is_loopback;
use crate::server::{CrossSiteGuard, is_safe};
use crate::shutdown::Shutdown;
use crate::telemetry::{LogHandle, LogLevel, Metrics, TEXT_FORMAT, Telemetry};

/// The shutdown has begun.
const DRAINING: &str = "draining";
/// A [`Hold`] exists: something must be opened before the service is ready.
const OPENING: &str = "opening";

/// Tracks the reasons for not being ready. Clones share them.
#[derive(Clone)]
pub struct Readiness(Arc<Conditions>);

struct Conditions {
    shutdown: Shutdown,
    held: Mutex<Vec<Arc<str>>>,
    checks: Mutex<Vec<(&'static str, Check)>>,
    remarks: Mutex<Vec<Remark>>,
}

type Remark = Arc<dyn Fn() -> Option<String> + Send + Sync>;
type Check = Arc<dyn Fn() -> Result<(), Unmet> + Send + Sync>;

/// Why a check fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// A constant word for the metric; empty for the check's own name.
    pub code: &'static str,
    /// Description for an operator.
    pub text: String,
}

impl From<String> for Unmet {
    fn from(text: String) -> Self {
        Self { code: "", text }
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Keeps a service not ready until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it says that the condition is met"]
pub struct Hold {
    conditions: Readiness,
    reason: Arc<str>,
}

impl Readiness {
    /// A readiness that lasts until something is held, a check fails or the shutdown begins.
    #[must_use]
    pub fn new(shutdown: &Shutdown) -> Self {
        let (held, checks, remarks) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self(Arc::new(Conditions { shutdown: shutdown.clone(), held, checks, remarks }))
    }

    /// Makes the service not ready, for this reason, until the returned [`Hold`] is dropped.
    pub fn hold(&self, reason: impl Into<String>) -> Hold {
        let reason: Arc<str> = reason.into().into();
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&reason));
        Hold { conditions: self.clone(), reason }
    }

    /// Adds a check, called at each probe. A check answers from memory: it never waits and never calls another service.
    pub fn check<E: Into<Unmet>>(
        &self,
        name: &'static str,
        check: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    ) {
        let check = move || check().map_err(Into::into);
        self.0.checks.lock().unwrap_or_else(PoisonError::into_inner).push((name, Arc::new(check)));
    }

    /// Adds a remark, called at each probe: a line for operators about something that a ready service does not do.
    pub fn remark(&self, remark: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.0.remarks.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(remark));
    }

    /// The current remarks.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let remarks = self.0.remarks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        remarks.iter().filter_map(|remark| remark()).collect()
    }

    /// Every reason not to be ready; empty when ready.
    #[must_use]
    pub fn unmet(&self) -> Vec<String> {
        self.reasons().into_iter().map(|(_, text)| text).collect()
    }

    /// Every reason, as a word for the metric and as a line for an operator.
    fn reasons(&self) -> Vec<(&'static str, String)> {
        let mut reasons = Vec::new();
        if self.0.shutdown.is_draining() {
            reasons.push((DRAINING, DRAINING.to_owned()));
        }
        let held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        reasons.extend(held.iter().map(|text| (OPENING, text.to_string())));
        // Cloned out, so that no check runs under the lock.
        let checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        reasons.extend(checks.iter().filter_map(|(name, check)| {
            let Unmet { code, text } = check().err()?;
            Some((if code.is_empty() { name } else { code }, format!("{name}: {text}")))
        }));
        reasons
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.0.held).finish()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.conditions.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|reason| !Arc::ptr_eq(reason, &self.reason));
    }
}

/// Who may change the log level: on a loopback listener every program of this machine, elsewhere operators.
#[derive(Clone, Debug)]
pub struct LogLevelAccess {
    operators: Option<Callers>,
    is_loopback: bool,
    cross_site: CrossSiteGuard,
}

impl LogLevelAccess {
    /// The access rule of the admin listener at this address. Without operators, a listener off loopback accepts no
    /// change.
    #[must_use]
    pub fn new(listener: SocketAddr, operators: Option<Callers>) -> Self {
        let operators = operators.filter(|operators| !operators.is_open());
        Self { operators, is_loopback: is_loopback(listener), cross_site: CrossSiteGuard::new(listener) }
    }

    async fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
        if self.is_loopback {
            return self.cross_site.check(uri, headers).map_err(|why| why.reason());
        }
        let Some(operators) = &self.operators else {
            return Err("the log level changes on loopback only: no --operator-token-file is set");
        };
        let presented = Presented { token: bearer(headers), ..Presented::default() };
        let admitted = operators.admit(&presented).await;
        admitted
            .map(drop)
            .map_err(|_| "send Authorization: Bearer with an operator token (--operator-token-file)")
    }
}

async fn guard_level(State(access): State<LogLevelAccess>, request: Request, next: Next) -> Response {
    if is_safe(request.method()) {
        return next.run(request).await;
    }
    match access.check(request.uri(), request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(why) => {
            tracing::warn!(reason = why, "a change of the log level was refused");
            (StatusCode::FORBIDDEN, format!("{why}\n")).into_response()
        }
    }
}

/// `/livez`, `/readyz`, `/metrics` and `/log-level`.
pub fn admin_router(
    telemetry: &Telemetry,
    readiness: Readiness,
    log: LogHandle,
    access: LogLevelAccess,
) -> Router {
    let help = "1 for each reason for which the service is not ready";
    let reasons = telemetry.metrics.gauges("not_ready_reasons", help, &["reason"]);
    let metrics = Shown { metrics: telemetry.metrics.clone(), readiness: readiness.clone(), reasons };
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(serve_metrics).with_state(metrics))
        .route(
            "/log-level",
            get(level).put(set_level).with_state(log).layer(from_fn_with_state(access, guard_level)),
        )
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let reasons = readiness.unmet();
    let (status, first) = match reasons.is_empty() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, ""),
    };
    let lines =
        reasons.iter().chain(&readiness.remarks()).map(|line| format!("{line}\n")).collect::<String>();
    (status, format!("{first}{lines}")).into_response()
}

/// The data that `/metrics` shows.
#[derive(Clone)]
struct Shown {
    metrics: Metrics,
    readiness: Readiness,
    reasons: IntGaugeVec,
}

async fn serve_metrics(State(shown): State<Shown>) -> Response {
    let reasons = shown.readiness.reasons();
    shown.reasons.reset();
    // Always there, so that an alert rule finds a series.
    for word in [DRAINING, OPENING] {
        shown.reasons.with_label_values(&[word]).set(0);
    }
    for (word, _) in reasons {
        shown.reasons.with_label_values(&[word]).set(1);
    }
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], shown.metrics.render()).into_response()
}

async fn level(State(log): State<LogHandle>) -> String {
    format!("{}\n", log.level())
}

async fn set_level(State(log): State<LogHandle>, body: String) -> Response {
    match body.parse::<LogLevel>() {
        Ok(level) => {
            tracing::info!(log.level = %level, "log level changed");
            log.set_level(level.clone());
            format!("{level}\n").into_response()
        }
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::body::Body;
    use http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::config::{Secret, TokenSource};

    struct AdminFixture {
        router: Router,
        readiness: Readiness,
        shutdown: Shutdown,
    }

    fn admin_fixture() -> AdminFixture {
        guarded("127.0.0.1:8001", None)
    }

    fn guarded(listener: &str, operators: Option<Callers>) -> AdminFixture {
        let access = LogLevelAccess::new(listener.parse().unwrap(), operators);
        let shutdown = Shutdown::new();
        let readiness = Readiness::new(&shutdown);
        let telemetry = Telemetry::new("shop", "1.2.3", "abc");
        let router = admin_router(&telemetry, readiness.clone(), LogHandle::detached("off"), access);
        AdminFixture { router, readiness, shutdown }
    }

    impl AdminFixture {
        async fn call(&self, method: &str, path: &str, body: &'static str) -> (u16, String, String) {
            self.call_with(&[], method, path, body).await
        }

        async fn call_with(
            &self,
            headers: &[(&str, &str)],
            method: &str,
            path: &str,
            body: &'static str,
        ) -> (u16, String, String) {
            let request = Request::builder().method(method).uri(path);
            let request =
                headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            let request = request.body(Body::from(body)).unwrap();
            let response = self.router.clone().oneshot(request).await.unwrap();
            let media =
                response.headers().get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap());
            let (status, media) = (response.status().as_u16(), media.to_owned());
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            (status, media, String::from_utf8(body.to_vec()).unwrap())
        }

        async fn ready(&self) -> (u16, String) {
            let (status, _, body) = self.call("GET", "/readyz", "").await;
            (status, body)
        }
    }

    #[tokio::test]
    async fn ready_only_when_every_hold_is_dropped() {
        let admin_fixture = admin_fixture();
        let (store, recovery) =
            (admin_fixture.readiness.hold("store"), admin_fixture.readiness.hold("recovery"));
        assert_eq!(admin_fixture.ready().await, (503, "store\nrecovery\n".to_owned()));
        drop(store);
        assert_eq!(admin_fixture.ready().await, (503, "recovery\n".to_owned()));
        drop(recovery);
        assert_eq!(admin_fixture.ready().await, (200, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn two_holds_for_the_same_reason_are_two() {
        let admin_fixture = admin_fixture();
        let (one, _two) = (admin_fixture.readiness.hold("store"), admin_fixture.readiness.hold("store"));
        drop(one);
        assert_eq!(admin_fixture.ready().await, (503, "store\n".to_owned()));
    }

    #[tokio::test]
    async fn a_failing_check_shows_its_reason_while_it_fails() {
        let admin_fixture = admin_fixture();
        let broken = Arc::new(AtomicBool::new(true));
        let look = Arc::clone(&broken);
        let full = || Unmet { code: "disk-full", text: "full".to_owned() };
        admin_fixture
            .readiness
            .check("disk", move || if look.load(Ordering::SeqCst) { Err(full()) } else { Ok(()) });
        assert_eq!(admin_fixture.ready().await, (503, "disk: full\n".to_owned()));
        let shown = admin_fixture.call("GET", "/metrics", "").await.2;
        assert!(shown.contains("not_ready_reasons{reason=\"disk-full\"} 1\n"), "{shown}");
        assert!(shown.contains("not_ready_reasons{reason=\"draining\"} 0\n"), "{shown}");
        broken.store(false, Ordering::SeqCst);
        assert_eq!(admin_fixture.ready().await.0, 200);
        assert!(!admin_fixture.call("GET", "/metrics", "").await.2.contains("disk-full"));
    }

    #[tokio::test]
    async fn a_draining_service_is_alive_and_not_ready() {
        let admin_fixture = admin_fixture();
        admin_fixture.shutdown.trigger();
        assert_eq!(admin_fixture.ready().await, (503, "draining\n".to_owned()));
        assert_eq!(admin_fixture.call("GET", "/livez", "").await.0, 200);
    }

    #[tokio::test]
    async fn metrics_come_in_the_text_format() {
        let (status, media, body) = admin_fixture().call("GET", "/metrics", "").await;
        assert_eq!((status, media.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
        assert!(body.contains("build_info{"), "{body}");
    }

    #[tokio::test]
    async fn the_log_level_is_read_and_changed() {
        let admin_fixture = admin_fixture();
        let (status, _, body) = admin_fixture.call("PUT", "/log-level", "loud").await;
        assert_eq!((status, body.contains("none of off, error")), (400, true), "{body}");
        assert_eq!(admin_fixture.call("PUT", "/log-level", "error\n").await.2, "error\n");
        assert_eq!(admin_fixture.call("GET", "/log-level", "").await.2, "error\n");
    }

    #[tokio::test]
    async fn off_loopback_only_an_operator_changes_the_log_level() {
        let token = || Callers::by_token(Some(TokenSource::value(Secret::new("operator-1"))), None).unwrap();
        let operator = [("authorization", "Bearer operator-1")];
        for listener in ["0.0.0.0:8001", "[::]:8001", "192.0.2.1:8001"] {
            let admin_fixture = guarded(listener, Some(token()));
            for headers in [&[][..], &[("authorization", "Bearer guess")], &[("host", "localhost")]] {
                let (status, _, body) = admin_fixture.call_with(headers, "PUT", "/log-level", "error").await;
                assert_eq!(
                    (status, body.contains("--operator-token-file")),
                    (403, true),
                    "{listener} {body}"
                );
            }
            assert_eq!(admin_fixture.call("GET", "/log-level", "").await.2, "off\n");
            assert_eq!(admin_fixture.call_with(&operator, "PUT", "/log-level", "error").await.0, 200);
            for no_token in [None, Some(Callers::by_token(None, None).unwrap())] {
                let admin_fixture = guarded(listener, no_token);
                assert_eq!(admin_fixture.call_with(&operator, "PUT", "/log-level", "error").await.0, 403);
            }
        }
    }

    #[tokio::test]
    async fn on_loopback_no_web_page_changes_the_log_level() {
        let admin_fixture = admin_fixture();
        for page in
            [("origin", "http://evil.example"), ("host", "evil.example"), ("sec-fetch-site", "cross-site")]
        {
            assert_eq!(
                admin_fixture.call_with(&[page], "PUT", "/log-level", "error").await.0,
                403,
                "{page:?}"
            );
        }
        assert_eq!(
            admin_fixture.call_with(&[("host", "localhost:8001")], "PUT", "/log-level", "error").await.0,
            200
        );
    }

    #[tokio::test]
    async fn an_unknown_path_is_not_found() {
        assert_eq!(admin_fixture().call("GET", "/rest/health", "").await.0, 404);
    }
}
