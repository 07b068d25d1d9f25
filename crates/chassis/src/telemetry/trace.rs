//! W3C trace context: the trace of a request, which its task passes on to logs and outgoing calls. Must not know who
//! exports traces, nor any route.

use std::fmt;
use std::future::Future;

use http::{HeaderMap, HeaderValue};

use crate::clock::Random;

/// Name of the header.
pub const TRACEPARENT: &str = "traceparent";

/// The flag of a trace whose spans are recorded.
const SAMPLED: u8 = 1;

/// One span of one trace. Neither id is ever zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

tokio::task_local! {
    static CURRENT: TraceContext;
}

impl TraceContext {
    /// The first span of a new trace, sampled.
    #[must_use]
    pub fn root(random: &Random) -> Self {
        Self { trace_id: random.u128().max(1), span_id: random.u64().max(1), flags: SAMPLED }
    }

    /// Span number `nth` of a trace whose id is given as 32 hex digits; `None` when it is malformed. The same arguments
    /// give the same span in each process, so that spans refer to each other and nothing is stored.
    #[must_use]
    pub fn numbered(trace_id: &str, nth: u32) -> Option<Self> {
        let trace_id = hex(trace_id, 32).filter(|id| *id != 0)?;
        let low = u64::try_from(trace_id & u128::from(u64::MAX)).expect("64 bits are left");
        let span_id = spread(low ^ spread(u64::from(nth))).max(1);
        Some(Self { trace_id, span_id, flags: SAMPLED })
    }

    /// The same span with another sampling flag.
    #[must_use]
    pub fn with_sampled(self, sampled: bool) -> Self {
        Self { flags: if sampled { self.flags | SAMPLED } else { self.flags & !SAMPLED }, ..self }
    }

    /// Whether the spans of its trace are recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    pub(super) fn ids(&self) -> (u128, u64) {
        (self.trace_id, self.span_id)
    }

    /// Reads `00-<32 hex>-<16 hex>-<2 hex>`; `None` when it is malformed or an id is all zero.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = hex(parts.next()?, 32)?;
        let span_id = u64::try_from(hex(parts.next()?, 16)?).ok()?;
        let flags = u8::try_from(hex(parts.next()?, 2)?).ok()?;
        let more = parts.next().is_some();
        // Version 255 is forbidden; a later version may add parts, version 0 may not.
        let sound = version != 0xff && !(version == 0 && more) && trace_id != 0 && span_id != 0;
        sound.then_some(Self { trace_id, span_id, flags })
    }

    /// The context of a request, continued by a span of this service; a new trace when the request has no valid one.
    #[must_use]
    pub fn of_request(headers: &HeaderMap, random: &Random) -> Self {
        Self::from_headers(headers).map_or_else(|| Self::root(random), |parent| parent.child(random))
    }

    /// The caller's span, if a request names exactly one.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(TRACEPARENT).iter();
        let first = given.next().and_then(|value| value.to_str().ok()).and_then(Self::parse);
        first.filter(|_| given.next().is_none())
    }

    #[must_use]
    pub fn child(&self, random: &Random) -> Self {
        Self { span_id: random.u64().max(1), ..*self }
    }

    /// The context of an outgoing call: a child of the current span, or a new trace outside any request.
    #[must_use]
    pub fn outgoing(random: &Random) -> Self {
        Self::current().map_or_else(|| Self::root(random), |current| current.child(random))
    }

    /// The span that this task works for, if any.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|current| *current).ok()
    }

    /// Runs a future for this span, which [`TraceContext::current`] returns inside.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
    }

    /// Passes the current span (if any) to a future that is about to be spawned as a task.
    pub fn inherit<F: Future>(future: F) -> impl Future<Output = F::Output> {
        let current = Self::current();
        async move {
            match current {
                Some(current) => current.scope(future).await,
                None => future.await,
            }
        }
    }

    /// The trace's id as 32 hex digits: `trace_id` in logs.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// The value of a `traceparent` header.
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("hex digits and dashes make a header value")
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// The finalizer of SplitMix64: adjacent numbers become unrelated ids.
fn spread(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Parses exactly `digits` lower-case hex digits; the standard forbids upper case and signs.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let sound = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    sound.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn request(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (TRACEPARENT.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_sound_header_is_read_and_printed_the_same() {
        let context = TraceContext::parse(GIVEN).unwrap();
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.to_string(), GIVEN);
        assert_eq!(context.header_value(), GIVEN);
    }

    #[test]
    fn malformed_and_all_zero_ids_are_refused() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_later_version_may_bring_more_parts() {
        assert!(
            TraceContext::parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").is_some()
        );
    }

    #[test]
    fn a_request_is_continued_in_its_trace_under_a_span_of_ours() {
        let context = TraceContext::of_request(&request(&[GIVEN]), &Random::seeded(1));
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(context.span_id, TraceContext::parse(GIVEN).unwrap().span_id);
    }

    #[test]
    fn a_request_with_a_bad_header_or_with_two_starts_a_trace_of_its_own() {
        let random = Random::seeded(1);
        for values in [vec![], vec!["nonsense"], vec![GIVEN, GIVEN]] {
            let context = TraceContext::of_request(&request(&values), &random);
            assert_ne!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736", "{values:?}");
            assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
        }
    }

    #[test]
    fn numbered_spans_of_one_trace_are_found_again_and_differ() {
        let key = "bca1897f57e947286a9d2dcb4be588f1";
        let span = |nth| TraceContext::numbered(key, nth).unwrap();
        assert_eq!(span(1), span(1));
        assert_eq!(span(1).trace_id(), key);
        let ids: std::collections::HashSet<u64> = (0..1000).map(|nth| span(nth).span_id).collect();
        assert_eq!(ids.len(), 1000);
        assert_eq!(TraceContext::numbered("no key", 1), None);
        assert_eq!(TraceContext::numbered(&"0".repeat(32), 1), None);
    }

    #[test]
    fn the_sampled_flag_is_changed_alone() {
        let given = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03").unwrap();
        assert!(given.is_sampled());
        assert_eq!(
            given.with_sampled(false).to_string(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02"
        );
        assert_eq!(given.with_sampled(false).with_sampled(true), given);
    }

    #[tokio::test]
    async fn a_task_spawned_inside_a_request_stays_in_its_trace() {
        assert_eq!(TraceContext::current(), None);
        let context = TraceContext::parse(GIVEN).unwrap();
        let inside = context
            .scope(async {
                tokio::spawn(TraceContext::inherit(async { TraceContext::current() })).await.unwrap()
            })
            .await;
        assert_eq!(inside, Some(context));
        assert_eq!(TraceContext::inherit(async { TraceContext::current() }).await, None);
    }

    #[tokio::test]
    async fn an_outgoing_call_gets_a_span_of_its_own_in_the_current_trace() {
        let (context, random) = (TraceContext::parse(GIVEN).unwrap(), Random::seeded(3));
        let outgoing = context.scope(async { TraceContext::outgoing(&random) }).await;
        assert_eq!(outgoing.trace_id(), context.trace_id());
        assert_ne!(outgoing.span_id, context.span_id);
        assert_ne!(TraceContext::outgoing(&random).trace_id(), context.trace_id());
    }
}
