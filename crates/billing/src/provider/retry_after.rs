//! How long a provider asks for no requests: `Retry-After` in both of its forms (RFC 9110, 10.2.3). Pure; knows no cap
//! and no attempt.

use std::time::{Duration, SystemTime};

/// Statuses whose `Retry-After` is for all calls: too many requests (RFC 6585, 4) and service unavailable.
const ABOUT_ALL_CALLS: [u16; 2] = [429, 503];

/// The pause that a response with this status asks for. A date is measured from the response's own `Date`, so that two
/// clocks need not agree, or from `now` without one. A past date or an invalid value asks for no pause.
pub(super) fn retry_after(status: u16, value: &str, date: Option<&str>, now: SystemTime) -> Option<Duration> {
    if !ABOUT_ALL_CALLS.contains(&status) {
        return None;
    }
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number too large to parse: the caller's cap limits the pause.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let sent_at = date.and_then(|date| httpdate::parse_http_date(date.trim()).ok()).unwrap_or(now);
    at.duration_since(sent_at).ok().filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &str = "Sat, 28 Nov 2026 12:00:00 GMT";

    fn asked(status: u16, value: &str, date: Option<&str>) -> Option<u64> {
        let now = httpdate::parse_http_date(SENT).unwrap() + Duration::from_secs(7);
        retry_after(status, value, date, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_and_all_three_forms_of_a_date_are_read() {
        assert_eq!(asked(429, "20", None), Some(20));
        assert_eq!(asked(503, " 0 ", None), Some(0));
        assert_eq!(asked(429, "99999999999999999999999", None), Some(u64::MAX));
        for date in
            ["Sat, 28 Nov 2026 12:00:30 GMT", "Saturday, 28-Nov-26 12:00:30 GMT", "Sat Nov 28 12:00:30 2026"]
        {
            assert_eq!(asked(429, date, Some(SENT)), Some(30), "{date}");
            assert_eq!(asked(429, date, None), Some(23), "{date}");
        }
    }

    #[test]
    fn what_is_neither_form_or_has_passed_asks_for_nothing() {
        for value in ["", "-1", "1.5", "soon", "20 s", "Sat, 28 Nov 2026 11:59:59 GMT", SENT] {
            assert_eq!(asked(429, value, Some(SENT)), None, "{value}");
        }
        for status in [200, 402, 409, 500] {
            assert_eq!(asked(status, "20", None), None, "{status}");
        }
    }
}
