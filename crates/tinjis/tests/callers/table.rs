//! Makes attempts in pairs, reads the server's counters before and after each, and prints a line of the table. Knows no
//! reason.

use std::collections::BTreeMap;
use std::time::Duration;

use testkit::http::{Answer, Connection, try_call};
use testkit::secure::Dialer;
use testkit::{timed, wait_until};

use crate::presented::{Attempt, Signer, Wire};
use crate::site::{ServerKind, Site};

/// Maximum time until a refusal is counted.
const COUNTED_WITHIN: Duration = Duration::from_secs(60);
/// Maximum difference between the times of two kinds of refusal, so that a time does not reveal the reason.
const SAME_CLASS: Duration = Duration::from_millis(5);
/// A charge as every billing program sends it.
const CHARGE: &[u8] = br#"{"customer_id":1,"currency":"USD","value":1.25}"#;

pub(crate) struct Table<'a> {
    pub(crate) site: &'a Site,
    refused: usize,
    /// Status, headers and body that all refusals of payments share.
    look: Option<Look>,
    /// Number of charges that must have been executed.
    charges: BTreeMap<ServerKind, i64>,
}

/// Status, headers and body.
type Look = (u16, Vec<(String, String)>, String);

type Counters = BTreeMap<String, i64>;

impl<'a> Table<'a> {
    pub(crate) fn new(site: &'a Site) -> Self {
        println!(
            "\n  {:9} {:17} {:60} {}",
            "server", "refused for", "differs from its control in", "attempt"
        );
        Self { site, refused: 0, look: None, charges: BTreeMap::new() }
    }

    /// Makes both attempts: the positive control succeeds; the other differs in one property and is rejected for this
    /// reason.
    #[track_caller]
    pub(crate) fn pair(
        &mut self,
        at: ServerKind,
        what: &str,
        control: &Attempt,
        other: &Attempt,
        reason: &str,
    ) {
        self.pair_on(at, route(at), what, control, other, reason);
    }

    /// Makes both attempts on another route.
    #[track_caller]
    pub(crate) fn pair_on(
        &mut self,
        at: ServerKind,
        route: (&str, &str),
        what: &str,
        control: &Attempt,
        other: &Attempt,
        reason: &str,
    ) {
        let differences = control.differences(other);
        assert_eq!(differences.len(), 1, "{what}: {differences:?}");
        self.succeeds(at, route, what, control);
        self.is_refused(at, route, what, other, reason);
        println!("  {:9} {reason:17} {:60} {what}", format!("{at:?}"), shorten(&differences[0]));
    }

    #[track_caller]
    pub(crate) fn succeeds(&mut self, at: ServerKind, route: (&str, &str), what: &str, attempt: &Attempt) {
        let before = self.counters(at);
        let answer = self.make(at, route, attempt);
        let answer =
            answer.unwrap_or_else(|error| panic!("{what}: its positive control had no response: {error}"));
        let is_write = matches!(at, ServerKind::Operators | ServerKind::Loopback);
        // An accepted call of an operator may still name a missing row.
        let is_good = if is_write { answer.status != 403 } else { answer.status == 200 };
        assert!(is_good, "{what}: its positive control got {} {}", answer.status, answer.text());
        assert_eq!(before, self.counters(at), "{what}: its positive control was counted as rejected");
        if route.1 == "/" {
            *self.charges.entry(at).or_default() += 1;
        }
    }

    #[track_caller]
    pub(crate) fn is_refused(
        &mut self,
        at: ServerKind,
        route: (&str, &str),
        what: &str,
        attempt: &Attempt,
        reason: &str,
    ) {
        let before = self.counters(at);
        let answer = self.make(at, route, attempt);
        if let Ok(answer) = answer {
            let (is_limit, is_own) =
                (reason == "rate_limited", matches!(at, ServerKind::Operators | ServerKind::Loopback));
            let wanted = if is_limit { 429 } else { 403 };
            assert_eq!(answer.status, wanted, "{what}: {}", answer.text());
            if !is_limit && !is_own {
                let look = (answer.status, looks(&answer), answer.text());
                let first = self.look.get_or_insert(look.clone());
                assert_eq!(*first, look, "{what}: refusals look alike");
                assert_eq!(look.2, "Forbidden\n");
            }
        }
        let mut wanted = before;
        let counted = wanted.iter_mut().find(|(series, _)| series.ends_with(&format!("\"{reason}\"}}")));
        *counted.unwrap_or_else(|| panic!("{what}: no counter has {reason}")).1 += 1;
        let is_counted = || self.counters(at) == wanted;
        if !is_counted() {
            wait_until(&format!("{what}: to be counted as {reason} alone"), COUNTED_WITHIN, is_counted);
        }
        self.refused += 1;
    }

    /// Every counter of refusals on the server, with the label `reason` last.
    fn counters(&self, at: ServerKind) -> Counters {
        let page = testkit::http::get(&format!("{}/metrics", self.site.server(at).admin_url())).text();
        let names = ["tls_refusals_total{", "caller_refusals_total{"];
        let lines = page.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
        let series = lines.filter_map(|line| line.rsplit_once(' '));
        // Both counters have the reason "other"; their names distinguish them.
        series.map(|(series, value)| (series.to_owned(), value.parse().unwrap_or(-1))).collect()
    }

    /// Compares the minimum times of refusals: a busy machine makes refusals slower, never faster.
    #[track_caller]
    pub(crate) fn take_the_same_time(&mut self, at: ServerKind, attempts: &[(&str, Attempt)]) {
        /// Number of calls for each reason.
        const CALLS: usize = 41;
        let mut least = Vec::new();
        for (reason, attempt) in attempts {
            let headers = self.headers(attempt);
            let url = format!("{}{}", self.site.server(at).url(), route(at).1);
            let times = (0..CALLS)
                .map(|_| timed(|| try_call(route(at).0, &url, &borrowed(&headers), CHARGE)))
                .map(|(answer, time)| answer.map_or(Duration::MAX, |_| time));
            let time = times.min().expect("some");
            least.push(time);
            println!("  {:9} {reason:17} at the least after {time:?}", format!("{at:?}"));
        }
        let (least, most) = (least.iter().min().expect("some"), least.iter().max().expect("some"));
        assert!(*most - *least < SAME_CLASS, "refusals take from {least:?} to {most:?}");
    }

    fn headers(&self, attempt: &Attempt) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        for text in &attempt.authorization {
            headers.push(("Authorization", format!("{} {}", attempt.scheme, text.text(self.site))));
        }
        headers.extend(attempt.tokens.iter().map(|text| ("X-Token", text.text(self.site))));
        headers.extend(attempt.origin.map(|origin| ("Origin", origin.to_owned())));
        headers.extend(attempt.key.map(|key| ("Idempotency-Key", key.to_owned())));
        headers
    }

    pub(crate) fn make(
        &self,
        at: ServerKind,
        route: (&str, &str),
        attempt: &Attempt,
    ) -> std::io::Result<Answer> {
        let (method, path) = route;
        let headers = self.headers(attempt);
        let headers = borrowed(&headers);
        let body = if method == "POST" { CHARGE } else { b"" };
        let server = self.site.server(at);
        if attempt.wire == Wire::Plain {
            return try_call(method, &format!("{}{path}", server.url()), &headers, body);
        }
        let shows = attempt.certificate.as_ref().map(|shown| match shown.signer {
            Signer::Ours => self.site.ours.leaf(&shown.leaf),
            Signer::Another => self.site.another.leaf(&shown.leaf),
            Signer::Itself => shown.leaf.self_signed(),
        });
        let trusted = self.site.ours.pem();
        let dialer = match attempt.wire {
            Wire::Tls12 => Dialer::of_1_2(&trusted, shows.as_ref()),
            _ => Dialer::new(&trusted, shows.as_ref()),
        };
        let mut connection: Connection<_> = dialer.open(server.address(), "localhost")?;
        connection.call(method, path, &headers, body)
    }

    /// Counts one more charge that the ledger must contain.
    pub(crate) fn charged(&mut self, at: ServerKind) {
        *self.charges.entry(at).or_default() += 1;
    }

    /// Asserts that no refused attempt was executed; returns the number of refusals.
    pub(crate) fn end(self) -> usize {
        for (at, charges) in &self.charges {
            let in_ledger = testkit::ledger::ask(&self.site.server(*at).db(), "SELECT count(*) FROM ledger");
            assert_eq!(in_ledger, *charges, "{at:?}: unexpected or missing charges");
        }
        println!(
            "  {} attempts rejected, each for its reason; each positive control succeeded",
            self.refused
        );
        self.refused
    }
}

fn borrowed<'a>(headers: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// Headers by which answers could be distinguished.
fn looks(answer: &Answer) -> Vec<(String, String)> {
    let told = answer.headers.iter().filter(|(name, _)| !matches!(name.as_str(), "date" | "ledger-id"));
    told.cloned().collect()
}

pub(crate) fn route(at: ServerKind) -> (&'static str, &'static str) {
    match at {
        ServerKind::Ponger => ("GET", "/ping"),
        ServerKind::Billing => ("GET", "/rest/health"),
        ServerKind::Operators | ServerKind::Loopback => ("POST", "/v1/runs"),
        _ => ("POST", "/"),
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(58) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
