//! One span: its name, its time, its place in a trace. Ends when it is dropped, however its work ends. Must not know
//! how spans are exported.

use std::borrow::Cow;

use super::Tracer;
use crate::clock::{Clock, Random};
use crate::telemetry::TraceContext;

/// Who does the work of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of this process does the work.
    Internal,
    /// This service does the work, for a caller.
    Server,
    /// Another service does the work, for this one.
    Client,
}

/// The value of an attribute. It is never an amount and never a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(Cow<'static, str>),
    Number(i64),
    Flag(bool),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// A span that has ended.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only an exporter reads it"))]
pub(super) struct Recorded {
    pub(super) context: TraceContext,
    pub(super) parent: Option<TraceContext>,
    pub(super) kind: Kind,
    pub(super) name: Cow<'static, str>,
    pub(super) began_ns: u64,
    pub(super) ended_ns: u64,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) links: Vec<TraceContext>,
    pub(super) is_failed: bool,
}

/// A span, if its trace is sampled. Otherwise nothing is kept and nothing is computed.
#[derive(Debug, Default)]
pub struct Span(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    tracer: Tracer,
    recorded: Recorded,
}

impl Span {
    pub(super) fn begin(
        tracer: Tracer,
        context: TraceContext,
        parent: Option<TraceContext>,
        kind: Kind,
        name: &'static str,
    ) -> Self {
        let recorded = Recorded {
            context,
            parent,
            kind,
            name: Cow::Borrowed(name),
            began_ns: Clock::wall_ns(),
            ended_ns: 0,
            attributes: Vec::with_capacity(8),
            links: Vec::new(),
            is_failed: false,
        };
        Self(Some(Box::new(Open { tracer, recorded })))
    }

    /// Whether attributes are recorded.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// The context of this span, for the work inside of it.
    #[must_use]
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_deref().map(|open| open.recorded.context)
    }

    /// Names the span by what became known after it began.
    pub fn rename(&mut self, name: impl FnOnce() -> String) {
        self.with(|recorded| recorded.name = Cow::Owned(name()));
    }

    /// Adds an attribute, by its name in OpenTelemetry's semantic conventions where they have one.
    pub fn set_attribute(&mut self, name: &'static str, value: impl Into<Value>) {
        self.with(|recorded| recorded.attributes.push((name, value.into())));
    }

    /// Adds an attribute as [`Self::set_attribute`] does, with a text that is copied only when it is recorded.
    pub fn set_text(&mut self, name: &'static str, text: &str) {
        self.with(|recorded| recorded.attributes.push((name, text.to_owned().into())));
    }

    /// Links another span, such as an earlier request of the same attempt.
    pub fn link(&mut self, to: TraceContext) {
        self.with(|recorded| recorded.links.push(to));
    }

    /// Sets the time at which the span began, in milliseconds since 1970.
    pub fn began_at_ms(&mut self, moment: i64) {
        let moment = u64::try_from(moment).unwrap_or(0).saturating_mul(1_000_000);
        self.with(|recorded| recorded.began_ns = recorded.began_ns.min(moment));
    }

    /// Gives the span an id that no other span has. Call it only while no other process knows the old id.
    pub fn renumber(&mut self) {
        self.with(|recorded| recorded.context = recorded.context.child(&Random::system()));
    }

    /// Ends the span without a record.
    pub fn discard(&mut self) {
        // This drops the record alone: dropping the span would queue it.
        drop(self.0.take());
    }

    /// Marks the span as failed, with a short name of a class of errors.
    pub fn fail(&mut self, error_type: impl Into<Value>) {
        self.with(|recorded| {
            recorded.is_failed = true;
            recorded.attributes.push(("error.type", error_type.into()));
        });
    }

    fn with(&mut self, change: impl FnOnce(&mut Recorded)) {
        if let Some(open) = self.0.as_deref_mut() {
            change(&mut open.recorded);
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(open) = self.0.take() else { return };
        let Open { tracer, mut recorded } = *open;
        // A clock may be set back, but no span ends before it begins.
        recorded.ended_ns = Clock::wall_ns().max(recorded.began_ns);
        tracer.record(recorded);
    }
}
