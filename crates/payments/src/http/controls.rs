//! Rates and faults, read by callers and set by operators while the service runs. Executes no charge; knows no SQL.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chassis::problem::{FieldError, Problem};
use http::{HeaderMap, StatusCode, header};

use super::App;
use super::deployments::check_operator;
use super::v1::failure_response;
use crate::controls::Control;
use crate::faults::Mistake;
use crate::faults::rates::Rates;
use crate::faults::script::Script;

/// The longest body of rates or of a script, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

const JSON: &str = "application/json";
const TOML: &str = "application/toml";

/// `GET /v1/rates`
pub(super) async fn rates(State(app): State<App>) -> Response {
    ok_response(JSON, app.0.controls.in_force().rates.to_json())
}

/// `PUT /v1/rates`: 200 and the rates that are in force from now on.
pub(super) async fn set_rates(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(refusal) = may_set(&app, &headers).await {
        return refusal.into_response();
    }
    if media_type(&headers) != Some(JSON) {
        return unsupported_media_type_response("send application/json");
    }
    let set = match Rates::parse(&body) {
        Ok(rates) => set(&app, Control::Rates, Some(rates.to_json())).await,
        Err(mistakes) => return invalid_response(mistakes),
    };
    set.err().unwrap_or(rates(State(app)).await)
}

/// `DELETE /v1/rates`: restores the settings of the start.
pub(super) async fn reset_rates(State(app): State<App>, headers: HeaderMap) -> Response {
    if let Err(refusal) = may_set(&app, &headers).await {
        return refusal.into_response();
    }
    let set = set(&app, Control::Rates, None).await;
    set.err().unwrap_or(rates(State(app)).await)
}

/// `GET /v1/faults`: the script, in JSON unless the request accepts TOML.
pub(super) async fn faults(State(app): State<App>, headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    shown_script(&app, if accepts.contains(TOML) { TOML } else { JSON })
}

/// `PUT /v1/faults`: 200 and the script that is in force from now on, in the form in which it was sent.
pub(super) async fn set_faults(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    if let Err(refusal) = may_set(&app, &headers).await {
        return refusal.into_response();
    }
    let (form, script) = match media_type(&headers) {
        Some(JSON) => (JSON, Script::parse_json(&body)),
        Some(TOML) => match std::str::from_utf8(&body) {
            Ok(text) => (TOML, Script::parse(text)),
            Err(_) => return invalid_response(vec![Mistake::new("script", "is not UTF-8")]),
        },
        _ => return unsupported_media_type_response("send application/toml or application/json"),
    };
    let set = match script {
        Ok(script) => set(&app, Control::Faults, Some(script.to_json())).await,
        Err(error) => return invalid_response(error.0),
    };
    set.err().unwrap_or_else(|| shown_script(&app, form))
}

/// `DELETE /v1/faults`: restores the script of the start.
pub(super) async fn reset_faults(State(app): State<App>, headers: HeaderMap) -> Response {
    if let Err(refusal) = may_set(&app, &headers).await {
        return refusal.into_response();
    }
    set(&app, Control::Faults, None).await.err().unwrap_or_else(|| shown_script(&app, JSON))
}

fn shown_script(app: &App, form: &'static str) -> Response {
    let in_force = app.0.controls.in_force();
    let script = in_force.faults.script();
    ok_response(form, if form == TOML { script.to_toml() } else { script.to_json() })
}

/// Checks that the caller may set controls: off loopback only an operator with a token, and no caller if the setting is
/// off.
async fn may_set(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    if !app.0.controls.are_settable() {
        let detail = "start payments with --run-time-faults on (RUN_TIME_FAULTS), not in production";
        return Err(Problem::named(
            StatusCode::FORBIDDEN,
            "run-time-faults-off",
            "Faults cannot be set at run time",
        )
        .detail(detail));
    }
    if app.0.operators.is_none() && !app.0.is_loopback {
        let title = "Setting rates or faults off loopback needs an operator token";
        let detail = "start payments with --operator-token-file and send one of its lines in the header Operator-Token";
        return Err(Problem::named(StatusCode::FORBIDDEN, "operator-token", title).detail(detail));
    }
    check_operator(app, headers, "Setting rates or faults needs an operator token").await
}

/// Stores the control, then puts it into force here; other replicas follow.
async fn set(app: &App, control: Control, value: Option<String>) -> Result<(), Response> {
    match app.0.ledger.set_control(control, value).await {
        Ok(row) => {
            app.0.controls.apply(&row);
            Ok(())
        }
        Err(error) => Err(failure_response(&error)),
    }
}

fn ok_response(media_type: &'static str, body: String) -> Response {
    ([(header::CONTENT_TYPE, media_type)], body).into_response()
}

/// The media type of a body, without its parameters.
fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').next().map(str::trim)
}

fn unsupported_media_type_response(advice: &str) -> Response {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE).detail(advice).into_response()
}

fn invalid_response(mistakes: Vec<Mistake>) -> Response {
    let errors = mistakes.into_iter().map(|mistake| FieldError::new(mistake.field, mistake.message));
    Problem::validation(errors.collect()).into_response()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::charge::Charger;
    use crate::controls::{Controls, StartSettings};
    use crate::faults::draw::{Seed, Share};
    use crate::http::router;
    use crate::ledger::Ledger;
    use crate::ledger::sqlite::SqliteLedger;
    use crate::metrics::Counters;
    use axum::Router;
    use axum::body::Body;
    use chassis::caller::Callers;
    use chassis::clock::{Clock, Random};
    use chassis::config::TokenSource;
    use chassis::shutdown::Shutdown;
    use chassis::telemetry::{Telemetry, Tracer};
    use http::Request;
    use std::path::Path;
    use std::sync::Arc;
    use tower::ServiceExt;

    const TOKEN: &str = "an-operators-own-token";

    /// The real routes over a ledger in this folder.
    pub(in crate::http) async fn routes(
        dir: &Path,
        listen: &str,
        operators: Option<Callers>,
        at_run_time: bool,
    ) -> Router {
        let path = dir.join("payments.db");
        let ledger = SqliteLedger::open(&path, Clock::system(), Random::seeded(1)).await.unwrap();
        let ledger: Arc<dyn Ledger> = Arc::new(ledger);
        let ledger_id = ledger.id().await.unwrap();
        let rates = Rates::of_success(Share::ALL);
        let start = StartSettings {
            seed: Seed(1),
            is_seed_set: true,
            rates,
            script: Script::default(),
            has_test_amounts: false,
            is_one_charge_per_reference: false,
            at_run_time,
        };
        let counters = Counters::new(&Telemetry::new("payments", "0", "0").metrics);
        let charger = Charger::new(
            Arc::clone(&ledger),
            Controls::new(start, Clock::system()),
            counters,
            Shutdown::new(),
            Tracer::default(),
        );
        let (listen, callers) = (listen.parse().unwrap(), Callers::by_token(None, None).unwrap());
        router(App::new(charger, ledger, ledger_id, callers, operators, listen, Shutdown::new()))
    }

    /// The status of a `PUT /v1/rates`, with and without an operator's token.
    async fn put(listen: &str, operators: Option<Callers>, at_run_time: bool) -> [StatusCode; 2] {
        let dir = tempfile::tempdir().unwrap();
        let routes = routes(dir.path(), listen, operators, at_run_time).await;
        let mut seen = [StatusCode::OK; 2];
        for (seen, token) in seen.iter_mut().zip([TOKEN, "another-token-of-no-one"]) {
            let request =
                Request::put("/v1/rates").header("content-type", JSON).header("operator-token", token);
            let request = request.header("host", "localhost").body(Body::from(r#"{"success":0.5}"#)).unwrap();
            *seen = routes.clone().oneshot(request).await.unwrap().status();
        }
        seen
    }

    #[tokio::test]
    async fn off_loopback_only_an_operator_with_a_token_sets_anything() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{TOKEN}\n")).unwrap();
        let operators = || {
            let source = TokenSource::file(file.path().to_str().unwrap());
            Some(Callers::by_token(Some(source), None).unwrap())
        };
        let (ok, no) = (StatusCode::OK, StatusCode::FORBIDDEN);
        assert_eq!(put("127.0.0.1:9000", None, true).await, [ok, ok]);
        assert_eq!(put("0.0.0.0:9000", None, true).await, [no, no]);
        assert_eq!(put("0.0.0.0:9000", operators(), true).await, [ok, no]);
        assert_eq!(put("127.0.0.1:9000", operators(), true).await, [ok, no]);
        assert_eq!(put("127.0.0.1:9000", operators(), false).await, [no, no]);
    }
}
