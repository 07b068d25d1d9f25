//! Query parameters of `/v1`: pages, filters and switches. One response names every mistake. Knows no route and no
//! store.

use std::borrow::Cow;
use std::str::FromStr;

use api::billing::Page;
use axum::response::{IntoResponse, Response};
use chassis::problem::{FieldError, Problem};
use chassis::query;
use http::{StatusCode, Uri, header};
use serde::Serialize;

use crate::store::BATCH_MAX;

/// Items of a page without the parameter `limit`.
const LIMIT_DEFAULT: usize = 100;

/// The parameters of one request, consumed one by one; those left at the end are unknown.
pub(super) struct Params<'a> {
    left: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    errors: Vec<FieldError>,
}

impl<'a> Params<'a> {
    /// Reads the query.
    pub(super) fn of(uri: &'a Uri) -> Self {
        let query = uri.query().unwrap_or_default().as_bytes();
        Self { left: form_urlencoded::parse(query).collect(), errors: Vec::new() }
    }

    /// The single value of a parameter; an empty value counts as absent.
    fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let mut values = self.left.extract_if(.., |(key, _)| key == name).map(|(_, value)| value);
        let value = values.next();
        if values.next().is_some() {
            drop(values);
            self.add_error(name, "is given more than once");
            return None;
        }
        drop(values);
        value.filter(|value| !value.is_empty())
    }

    /// `limit`, or its default.
    pub(super) fn limit(&mut self) -> usize {
        let Some(text) = self.take("limit") else { return LIMIT_DEFAULT };
        match text.parse() {
            Ok(limit) if (1..=BATCH_MAX).contains(&limit) => limit,
            _ => {
                self.add_error("limit", format!("must be a whole number from 1 to {BATCH_MAX}"));
                LIMIT_DEFAULT
            }
        }
    }

    /// `after`, if given: a cursor of this list.
    pub(super) fn after<C: FromStr>(&mut self) -> Option<C> {
        let text = self.take("after")?;
        let cursor = text.parse().ok();
        if cursor.is_none() {
            self.add_error("after", "must be the `next` of an earlier page of this list");
        }
        cursor
    }

    /// A parameter whose value is one of a few names.
    pub(super) fn choice<T>(&mut self, name: &str, of: fn(&str) -> Option<T>, allowed: &str) -> Option<T> {
        let text = self.take(name)?;
        let choice = of(&text);
        if choice.is_none() {
            self.add_error(name, format!("must be one of {allowed}"));
        }
        choice
    }

    /// A switch; off when absent.
    pub(super) fn switch(&mut self, name: &str) -> bool {
        let of = |text: &str| match text {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        };
        self.choice(name, of, "true, false, 1 and 0").unwrap_or(false)
    }

    /// Fails with every mistake. Unknown parameters are mistakes: a misspelt switch must not do the opposite.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.left) {
            self.errors.push(query::unknown_parameter(&name));
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::validation(self.errors)) }
    }

    fn add_error(&mut self, field: &str, message: impl Into<String>) {
        self.errors.push(FieldError::new(field, message));
    }
}

/// A page of these rows. A full page gets a cursor after its last row, because more rows may follow.
pub(super) fn page<R, T>(rows: &[R], limit: usize, item: fn(&R) -> T, cursor: fn(&R) -> String) -> Page<T> {
    let next = if rows.len() < limit { None } else { rows.last().map(cursor) };
    Page { items: rows.iter().map(item).collect(), next }
}

/// A JSON response.
pub(super) fn json_response<T: Serialize>(status: StatusCode, body: &T) -> Response {
    let text = serde_json::to_vec(body).expect("rows are plain text and numbers, which JSON always holds");
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// A time as RFC 3339 in UTC with milliseconds.
pub(super) fn format_timestamp(ms: i64) -> String {
    let since = std::time::Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let time = std::time::UNIX_EPOCH.checked_add(since).filter(|_| since < YEAR_10000);
    humantime::format_rfc3339_millis(time.unwrap_or(std::time::UNIX_EPOCH)).to_string()
}

/// The year 10000: RFC 3339 writes years with four digits.
const YEAR_10000: std::time::Duration = std::time::Duration::from_secs(253_402_300_800);

#[cfg(test)]
mod tests {
    use super::*;

    /// The faulty fields when a list's three parameters and a switch are read from this query.
    fn faults(query: &str) -> Vec<String> {
        let uri: Uri = format!("/v1/things?{query}").parse().unwrap();
        let mut params = Params::of(&uri);
        params.limit();
        params.after::<i64>();
        params.choice("state", |word| (word == "PAID").then_some(()), "PAID");
        params.switch("dry_run");
        match params.finish() {
            Ok(()) => Vec::new(),
            Err(problem) => problem.errors.into_iter().map(|error| error.field).collect(),
        }
    }

    #[test]
    fn good_parameters_pass_and_empty_ones_count_as_absent() {
        for query in ["", "limit=1&after=-7", "limit=1000", "after=&limit=&state=", "state=PAID&dry_run=1"] {
            assert_eq!(faults(query), [""; 0], "{query}");
        }
    }

    #[test]
    fn every_mistake_is_named_in_one_answer() {
        assert_eq!(faults("limit=0"), ["limit"]);
        assert_eq!(faults("limit=1001"), ["limit"]);
        assert_eq!(
            faults("limit=x&after=%20&state=paid&dry_run=yes"),
            ["limit", "after", "state", "dry_run"]
        );
        assert_eq!(faults("limit=1&limit=2"), ["limit"]);
        assert_eq!(faults("dry_rum=true"), ["dry_rum"]);
    }

    #[test]
    fn times_are_utc_with_milliseconds_and_never_panic() {
        assert_eq!(format_timestamp(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(format_timestamp(0), "1970-01-01T00:00:00.000Z");
        for odd in [i64::MIN, -1, i64::MAX, 253_402_300_800_000] {
            assert_eq!(format_timestamp(odd), "1970-01-01T00:00:00.000Z");
        }
    }
}
