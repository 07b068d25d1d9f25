//! The frame of every page, and the parts of pages: untrusted text, times, money, tables. The only place that turns a
//! failure of the store into a page. Knows no row.

use axum::response::{IntoResponse, Response};
use chassis::printable::printable;
use http::{StatusCode, header};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, Render, html};

use super::assets;
use crate::http::error::log_failure;
use crate::money::Money;
use crate::store::StoreError;

/// The links on each page, and the path prefixes under which a link is the current one.
const PAGES: [(&str, &str); 4] = [
    ("/console", "Overview"),
    ("/console/runs", "Runs"),
    ("/console/attention", "Needs attention"),
    ("/console/subscriptions", "Subscriptions"),
];

/// One page.
pub(super) struct Page {
    title: String,
    body: Markup,
    /// The path of the current link.
    at: &'static str,
    /// Whether the page shows changing data, so that a script may refresh it.
    is_live: bool,
    has_navigation: bool,
}

impl Page {
    pub(super) fn new(title: impl Into<String>, body: Markup) -> Self {
        Self {
            title: printable(&title.into()).into_owned(),
            body,
            at: "",
            is_live: false,
            has_navigation: true,
        }
    }

    pub(super) fn at(self, at: &'static str) -> Self {
        Self { at, ..self }
    }

    pub(super) fn live(self) -> Self {
        Self { is_live: true, ..self }
    }

    /// Omits the navigation, for callers that have not logged in.
    pub(super) fn bare(self) -> Self {
        Self { has_navigation: false, ..self }
    }

    pub(super) fn ok(self) -> Response {
        self.answer(StatusCode::OK)
    }

    pub(super) fn answer(self, status: StatusCode) -> Response {
        let text = self.render().into_string();
        (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response()
    }
}

impl Render for Page {
    fn render(&self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) " · Tinjis billing" }
                    link rel="icon" href="/console/icon.svg" type="image/svg+xml";
                    link rel="stylesheet" href=(assets::STYLE.url());
                    @if self.is_live { script defer src=(assets::SCRIPT.url()) {} }
                }
                body {
                    a class="skip" href="#content" { "Skip to the content" }
                    header {
                        p class="brand" { "Tinjis billing" }
                        @if self.has_navigation { (navigation(self.at)) }
                    }
                    main id="content" tabindex="-1" {
                        h1 { (self.title) }
                        @if self.is_live {
                            p class="refresh" { a href="" { "Refresh" } " " span id="live" hidden { "Live" } }
                        }
                        (self.body)
                    }
                    footer { p { "Read-only. Decisions are made with the " code { "tinjis" } " command." } }
                }
            }
        }
    }
}

fn navigation(at: &str) -> Markup {
    html! {
        nav aria-label="Pages" {
            ul {
                @for (path, name) in PAGES {
                    li { a href=(path) aria-current=[(path == at).then_some("page")] { (name) } }
                }
            }
        }
        search {
            form action="/console/find" method="get" {
                label for="find" { "Invoice reference" }
                input id="find" name="reference" type="text" required maxlength="200" autocomplete="off"
                    spellcheck="false";
                button type="submit" { "Find" }
            }
        }
        form action="/console/logout" method="post" { button class="quiet" type="submit" { "Log out" } }
    }
}

/// Why a page cannot be shown.
pub(super) enum Failure {
    /// Nothing with this name exists.
    Unknown(&'static str),
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, title, text) = match self {
            Self::Unknown(what) => {
                (StatusCode::NOT_FOUND, "Not found", format!("No {what} has this name. Check its spelling."))
            }
            Self::Store(error) => {
                log_failure(&error);
                let text = match error {
                    StoreError::Unavailable(_) => "The store cannot be used now. Try again later.",
                    StoreError::Corrupt(_) => "The store holds what it must not. See billing's log.",
                };
                (StatusCode::SERVICE_UNAVAILABLE, "Not available", text.to_owned())
            }
        };
        Page::new(title, html! { p { (text) } }).answer(status)
    }
}

/// Untrusted text: hidden characters are shown as escapes, so that they cannot change the direction of the text around
/// it.
pub(super) fn isolated_text(text: &str) -> Markup {
    html! { bdi { (printable(text)) } }
}

/// Encodes any text as one path segment.
pub(super) fn encode_segment(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'~' => path.push(char::from(byte)),
            // Dots are encoded as well, although a browser removes a segment that is only `.` or `..`, encoded or not.
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

pub(super) fn invoice_link(reference: &str) -> Markup {
    html! { a href={ "/console/invoices/" (encode_segment(reference)) } { (isolated_text(reference)) } }
}

pub(super) fn customer_link(id: i64) -> Markup {
    html! { a href={ "/console/customers/" (id) } { (id) } }
}

/// A time in UTC, to the second.
pub(super) fn time(ms: i64) -> Markup {
    let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    html! { time datetime=(time) { (time.strftime("%Y-%m-%d %H:%M:%S")) " UTC" } }
}

pub(super) fn optional_time(ms: Option<i64>) -> Markup {
    html! { @if let Some(ms) = ms { (time(ms)) } @else { (NONE) } }
}

/// Content of a cell without a value.
pub(super) const NONE: PreEscaped<&str> = PreEscaped("<span class=\"none\">none</span>");

pub(super) fn money(money: Money) -> Markup {
    html! { span class="number" { (money.amount()) } " " (money.currency.code()) }
}

/// A whole number with thin spaces between thousands, for reading and not for copying.
pub(super) fn number(value: i64) -> Markup {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "−" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    html! { span class="number" { (text) } }
}

/// A state, distinguished by its text as well as by its colour.
pub(super) fn state(word: &str) -> Markup {
    html! { span class={ "state " (word.to_ascii_lowercase()) } { (word) } }
}

/// A table that scrolls horizontally where the page is narrow.
pub(super) fn table(caption: &str, columns: &[&str], rows: &[Markup]) -> Markup {
    html! {
        div class="scroll" role="group" aria-label=(caption) tabindex="0" {
            table {
                caption { (caption) }
                thead { tr { @for column in columns { th scope="col" { (column) } } } }
                tbody {
                    @for row in rows { tr { (row) } }
                    @if rows.is_empty() { tr { td colspan=(columns.len()) class="none" { "None" } } }
                }
            }
        }
    }
}

/// Names with their values.
pub(super) fn facts(rows: &[(&str, Markup)]) -> Markup {
    html! { dl { @for (name, value) in rows { div { dt { (name) } dd { (value) } } } } }
}

/// A command to type or copy.
pub(super) fn command(text: &str) -> Markup {
    html! { pre tabindex="0" { code { (printable(text)) } } }
}

/// A link to the next page of rows.
pub(super) fn next_page(path: &str, cursor: Option<i64>) -> Markup {
    html! { @if let Some(cursor) = cursor { p { a href={ (path) "?after=" (cursor) } rel="next" { "Next page" } } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_escaped_and_what_is_hidden_in_it_is_shown() {
        let shown = isolated_text("<b>&\"\u{202e}\u{1b}").into_string();
        assert_eq!(shown, "<bdi>&lt;b&gt;&amp;&quot;\\u202e\\u001b</bdi>");
        assert_eq!(encode_segment("a/b?c#d é..\""), "a%2Fb%3Fc%23d%20%C3%A9%2E%2E%22");
    }

    #[test]
    fn numbers_have_gaps_between_thousands() {
        let shown = |value| number(value).into_string();
        assert_eq!(shown(0), "<span class=\"number\">0</span>");
        assert_eq!(shown(-1_234_567), "<span class=\"number\">−1\u{202f}234\u{202f}567</span>");
        assert_eq!(shown(123), "<span class=\"number\">123</span>");
    }
}
