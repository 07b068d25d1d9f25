//! Reads a bearer token from a request's head. This module knows one header.
//! Must not know how the token is used.

use http::{HeaderMap, header};

/// The token of `Authorization: Bearer TOKEN`; `None` when there is no such header, or more than one.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let only = values.next().is_none();
    (only && scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
}
