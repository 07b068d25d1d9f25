//! Access rules: `/v1` writes and reads, and the legacy routes as `--legacy-routes` says. On a loopback listener
//! programs of this machine need no token. Knows tokens, addresses and the setting; the router table decides which
//! guard a route has.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chassis::caller::{Callers, Presented, Refusal, bearer};
use chassis::clock::Clock;
use chassis::config::is_loopback;
use chassis::problem::Problem;
use chassis::server::{CrossSite, CrossSiteGuard, is_safe};
use http::{HeaderMap, Method, StatusCode, Uri, header};

use super::{antaeus, error, json};

/// The setting's name in the log.
const LEGACY_ROUTES: &str = "--legacy-routes (LEGACY_ROUTES)";

/// Who may call the routes of the replaced systems, except their health paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LegacyRoutes {
    /// Every caller, as their clients expect.
    #[default]
    Open,
    /// Operators may write; readers and operators may read.
    Token,
    /// The routes are closed and answer as unknown paths do.
    Off,
}

impl FromStr for LegacyRoutes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "open" => Ok(Self::Open),
            "token" => Ok(Self::Token),
            "off" => Ok(Self::Off),
            _ => Err(format!("\"{text}\" is none of open, token and off")),
        }
    }
}

/// The configured tokens, and what is open without a token.
#[derive(Clone, Debug)]
pub struct AccessRules {
    /// Operator tokens; open when none is configured.
    pub operators: Callers,
    /// Reader tokens; open when none is configured.
    pub readers: Callers,
    /// Whether `/v1` may be read without a token off loopback.
    pub anonymous_reads: bool,
    /// Who may call the legacy routes.
    pub legacy: LegacyRoutes,
}

impl AccessRules {
    /// Rules without tokens and with open reads.
    #[must_use]
    pub fn open() -> Self {
        let open = Callers::by_token(None, None).expect("without a file nothing can be wrong with it");
        let readers = open.clone();
        Self { operators: open, readers, anonymous_reads: true, legacy: LegacyRoutes::Open }
    }
}

/// Decides about each call; clones share their state.
#[derive(Clone, Debug)]
pub struct Access {
    rules: AccessRules,
    is_loopback: bool,
    cross_site: CrossSiteGuard,
    clock: Clock,
    /// Closed legacy routes that a caller has called and that are in the log already.
    logged: Arc<Mutex<BTreeSet<String>>>,
}

/// Why a call is refused, for the log, the metrics and the caller.
struct Denied {
    refusal: Refusal,
    detail: &'static str,
}

impl Access {
    /// Guards the listener at this address.
    #[must_use]
    pub fn new(rules: AccessRules, listener: SocketAddr) -> Self {
        Self {
            rules,
            is_loopback: is_loopback(listener),
            cross_site: CrossSiteGuard::new(listener),
            clock: Clock::system(),
            logged: Arc::default(),
        }
    }

    /// Allows a write through `/v1`: with an operator's token if any is configured, otherwise only on loopback.
    async fn check_write(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Denied> {
        if self.rules.operators.is_open() && self.is_loopback {
            return self.check_same_site(uri, headers);
        }
        self.check_operator(headers).await
    }

    /// Allows a read of `/v1`.
    async fn check_read(&self, headers: &HeaderMap) -> Result<(), Denied> {
        if self.is_loopback || self.rules.anonymous_reads {
            return Ok(());
        }
        self.check_reader(headers).await
    }

    /// Allows a call of a legacy route that is not closed.
    async fn check_legacy(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Denied> {
        let reads = is_safe(method);
        match self.rules.legacy {
            LegacyRoutes::Token if reads => self.check_reader(headers).await,
            LegacyRoutes::Token => self.check_operator(headers).await,
            LegacyRoutes::Open if reads => Ok(()),
            LegacyRoutes::Open | LegacyRoutes::Off => self.check_same_site(uri, headers),
        }
    }

    /// Whether the console may be read: under the rules of `/v1` reads, or in a session that a login has opened.
    pub(super) async fn may_see_console(&self, headers: &HeaderMap, session: Option<&str>) -> bool {
        let AccessRules { operators, readers, anonymous_reads, .. } = &self.rules;
        let now_s = self.clock.now_ms().div_euclid(1000);
        let is_in = |callers: &Callers| session.is_some_and(|session| callers.is_in_session(session, now_s));
        if self.is_loopback || *anonymous_reads || is_in(readers) || is_in(operators) {
            return true;
        }
        // A first visit without a credential is not counted as a refusal.
        headers.contains_key(header::AUTHORIZATION) && self.check_reader(headers).await.is_ok()
    }

    /// Opens a session of `seconds` for a reader's or an operator's token; a wrong token counts as a refusal.
    ///
    /// # Errors
    /// The reason for the caller.
    pub(super) fn log_in(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        token: &str,
        seconds: i64,
    ) -> Result<String, &'static str> {
        self.check_same_site(uri, headers).map_err(|denied| denied.detail)?;
        let AccessRules { operators, readers, .. } = &self.rules;
        let until_s = self.clock.now_ms().div_euclid(1000).saturating_add(seconds);
        let (reader, operator) =
            (readers.open_session(token, until_s), operators.open_session(token, until_s));
        reader.or(operator).ok_or_else(|| {
            let why = operators.refuse(Refusal::TokenUnknown);
            tracing::warn!(reason = why.label(), "a login to the console was refused");
            "this token is neither a reader's (--reader-token-file) nor an operator's (--operator-token-file)"
        })
    }

    /// Whether a page of this service sent the request, as far as its headers say.
    pub(super) fn is_same_site(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        self.check_same_site(uri, headers).is_ok()
    }

    async fn check_operator(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let denied = |refusal| Denied {
            refusal,
            detail: "this route writes: send Authorization: Bearer with an operator token (--operator-token-file)",
        };
        if self.rules.operators.is_open() {
            return Err(denied(self.rules.operators.refuse(Refusal::Closed)));
        }
        let presented = Presented { token: bearer(headers), ..Presented::default() };
        self.rules.operators.admit(&presented).await.map(drop).map_err(|(why, _)| denied(why))
    }

    /// Accepts a reader's or an operator's token. Only the operators' check counts refusals, so that one call is
    /// counted once.
    async fn check_reader(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let denied = |refusal| Denied {
            refusal,
            detail: "send Authorization: Bearer with a reader token (--reader-token-file) or an operator token \
                     (--operator-token-file)",
        };
        let AccessRules { operators, readers, .. } = &self.rules;
        let presented = Presented { token: bearer(headers), ..Presented::default() };
        let mut why = Refusal::Closed;
        if !readers.is_open() {
            match readers.admit(&presented).await {
                Ok(_) => return Ok(()),
                Err((refusal, _)) => why = refusal,
            }
        }
        if operators.is_open() {
            return Err(denied(operators.refuse(why)));
        }
        operators.admit(&presented).await.map(drop).map_err(|(why, _)| denied(why))
    }

    fn check_same_site(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Denied> {
        self.cross_site.check(uri, headers).map_err(|why: CrossSite| Denied {
            refusal: self.rules.operators.refuse(why.into()),
            detail: why.reason(),
        })
    }

    /// Logs the setting once per route, so that repeated calls do not fill the log.
    fn log_closed(&self, request: &Request) {
        let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let route = matched.unwrap_or_else(|| request.uri().path());
        let is_new = self.logged.lock().unwrap_or_else(PoisonError::into_inner).insert(route.to_owned());
        if is_new {
            tracing::warn!(route, setting = LEGACY_ROUTES, "a legacy route was called and is closed");
        }
    }
}

/// Guards a route of `/v1` that writes.
pub(super) async fn guard_write(State(access): State<Access>, request: Request, next: Next) -> Response {
    match access.check_write(request.uri(), request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(denied) => denied_response(&denied, "write"),
    }
}

/// Guards a route of `/v1` that reads.
pub(super) async fn guard_read(State(access): State<Access>, request: Request, next: Next) -> Response {
    match access.check_read(request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(denied) => denied_response(&denied, "read"),
    }
}

/// Guards a legacy route.
pub(super) async fn guard_legacy(State(access): State<Access>, request: Request, next: Next) -> Response {
    if access.rules.legacy == LegacyRoutes::Off {
        access.log_closed(&request);
        return error::not_found_response();
    }
    let admitted = access.check_legacy(request.method(), request.uri(), request.headers()).await;
    let Err(Denied { refusal, detail }) = admitted else {
        return next.run(request).await;
    };
    tracing::warn!(reason = refusal.label(), "a call of a legacy route was refused");
    // Never a JSON object: a script in use runs the body of a pay response as a shell command.
    let text = serde_json::Value::from(detail).to_string();
    json(StatusCode::FORBIDDEN, antaeus::CONTENT_TYPE, text)
}

fn denied_response(denied: &Denied, kind: &'static str) -> Response {
    tracing::warn!(kind, reason = denied.refusal.label(), "a call of /v1 was refused");
    Problem::new(StatusCode::FORBIDDEN).detail(denied.detail).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_routes_are_open_token_or_off() {
        assert_eq!("open".parse(), Ok(LegacyRoutes::Open));
        assert_eq!("token".parse(), Ok(LegacyRoutes::Token));
        assert_eq!("off".parse(), Ok(LegacyRoutes::Off));
        for text in ["", "Off", "closed", "true"] {
            assert!(text.parse::<LegacyRoutes>().unwrap_err().contains("open, token and off"), "{text}");
        }
    }
}
