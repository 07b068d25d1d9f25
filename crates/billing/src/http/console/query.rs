//! Query parameters of pages. A parameter without a valid value counts as absent: a link that was cut short shows the
//! beginning of a list.

use std::str::FromStr;

use http::Uri;

/// The first value of a parameter.
pub(super) fn value(uri: &Uri, name: &str) -> Option<String> {
    let query = uri.query().unwrap_or_default().as_bytes();
    form_urlencoded::parse(query).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The first value of a parameter, if it can be parsed.
pub(super) fn parsed<T: FromStr>(uri: &Uri, name: &str) -> Option<T> {
    value(uri, name)?.parse().ok()
}
