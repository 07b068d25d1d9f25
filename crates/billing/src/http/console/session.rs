//! Login and logout: a token becomes a session in a cookie that scripts cannot read and other sites do not send.
//! Decides nothing about tokens.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, StatusCode, Uri, header};
use maud::{Markup, html};

use super::layout::Page;
use crate::http::AppState;

/// The longest form body, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 4096;

/// Eight hours: a working day.
const SECONDS: i64 = 8 * 60 * 60;

const COOKIE: &str = "tinjis-console";

/// The session of a request, if it has one.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, session)| session)
}

/// The cookie that sets a session, or ends it with zero seconds. `Secure` is set where the browser uses TLS, to billing
/// or to a proxy before it: `Origin` of a form request shows that.
fn set_cookie(headers: &HeaderMap, session: &str, seconds: i64) -> String {
    let is_tls = headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let secure = if is_tls { "; Secure" } else { "" };
    format!("{COOKIE}={session}; Path=/console; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}")
}

/// `GET /console/login`
pub(super) async fn form(State(state): State<AppState>, headers: HeaderMap) -> Response {
    if state.access.may_see_console(&headers, cookie(&headers)).await {
        let body = html! { p { "No login is needed. " a href="/console" { "To the overview" } } };
        return Page::new("Log in", body).bare().ok();
    }
    Page::new("Log in", login(None)).bare().ok()
}

fn login(problem: Option<&str>) -> Markup {
    html! {
        @if let Some(problem) = problem { p role="alert" class="problem" { "Not logged in: " (problem) "." } }
        form class="login" action="/console/login" method="post" {
            label for="token" { "Token of a reader or of an operator" }
            input id="token" name="token" type="password" required autocomplete="current-password" autofocus;
            button type="submit" { "Log in" }
        }
        p {
            "A session ends after eight hours, or when its token leaves the file. "
            "The console only reads, with an operator's token too."
        }
    }
}

/// `POST /console/login`
pub(super) async fn log_in(
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let token = form_urlencoded::parse(&body).find(|(name, _)| name == "token");
    let token = token.map(|(_, token)| token.trim().to_owned()).unwrap_or_default();
    match state.access.log_in(&uri, &headers, &token, SECONDS) {
        Ok(session) => {
            let cookie = [(header::SET_COOKIE, set_cookie(&headers, &session, SECONDS))];
            (cookie, Redirect::to("/console")).into_response()
        }
        Err(why) => Page::new("Log in", login(Some(why))).bare().answer(StatusCode::FORBIDDEN),
    }
}

/// `POST /console/logout`
pub(super) async fn log_out(State(state): State<AppState>, uri: Uri, headers: HeaderMap) -> Response {
    if !state.access.is_same_site(&uri, &headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let cookie = [(header::SET_COOKIE, set_cookie(&headers, "", 0))];
    (cookie, Redirect::to("/console/login")).into_response()
}
