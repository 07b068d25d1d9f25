//! Spans of sampled traces: begun where work begins, recorded when dropped, queued for an exporter without waiting.
//! Must not know any route, nor what is charged. Without an exporter, each function is one branch.

mod sampler;
mod span;

#[cfg(feature = "otlp")]
mod export;
#[cfg(feature = "otlp")]
mod message;
#[cfg(feature = "otlp")]
mod queue;

use http::HeaderMap;

pub use sampler::Sampler;
pub use span::{Kind, Span, Value};

use super::TraceContext;
use crate::clock::Random;

#[cfg(feature = "otlp")]
pub use export::Exported;
#[cfg(feature = "otlp")]
use std::sync::Arc;

/// Makes spans, or none: [`Tracer::default`] is off. Clones share one queue.
#[derive(Clone, Debug, Default)]
pub struct Tracer {
    #[cfg(feature = "otlp")]
    exported: Option<Arc<Exported>>,
}

impl Tracer {
    /// A tracer that passes its spans to this exporter.
    #[cfg(feature = "otlp")]
    #[must_use]
    pub fn to(exported: Exported) -> Self {
        Self { exported: Some(Arc::new(exported)) }
    }

    /// Whether spans are exported at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.sampler().is_some()
    }

    /// The context of a request, and the span of the caller that it continues.
    #[must_use]
    pub(super) fn of_request(
        &self,
        headers: &HeaderMap,
        random: &Random,
    ) -> (TraceContext, Option<TraceContext>) {
        let Some(sampler) = self.sampler() else {
            return (TraceContext::of_request(headers, random), None);
        };
        match TraceContext::from_headers(headers) {
            Some(parent) => {
                let is_sampled = sampler.samples_child(parent.ids().0, parent.is_sampled());
                (parent.child(random).with_sampled(is_sampled), Some(parent))
            }
            None => (Self::decided(sampler, TraceContext::root(random)), None),
        }
    }

    /// The first span of a trace that begins here, sampled or not by its id; `None` while spans are not exported.
    pub fn begin_trace(&self, first: impl FnOnce() -> Option<TraceContext>) -> Option<TraceContext> {
        let sampler = self.sampler()?;
        Some(Self::decided(sampler, first()?))
    }

    /// Begins this span; it records nothing when its trace is not sampled.
    #[must_use]
    pub fn span(
        &self,
        context: TraceContext,
        parent: Option<TraceContext>,
        kind: Kind,
        name: &'static str,
    ) -> Span {
        if !self.is_on() || !context.is_sampled() {
            return Span::default();
        }
        Span::begin(self.clone(), context, parent, kind, name)
    }

    /// Begins a span inside the current one, or the first of a new trace; its context is for the work inside of it.
    /// `None` while spans are not exported.
    #[must_use]
    pub fn begin_here(&self, kind: Kind, name: &'static str) -> Option<(TraceContext, Span)> {
        if !self.is_on() {
            return None;
        }
        let (context, parent) = match TraceContext::current() {
            Some(current) => (current.child(&Random::system()), Some(current)),
            None => (self.begin_trace(|| Some(TraceContext::root(&Random::system())))?, None),
        };
        Some((context, self.span(context, parent, kind, name)))
    }

    /// Begins a span inside the current one; without a current span it records nothing.
    #[must_use]
    pub fn child(&self, kind: Kind, name: &'static str) -> Span {
        match TraceContext::current() {
            Some(current) if self.is_on() && current.is_sampled() => {
                self.span(current.child(&Random::system()), Some(current), kind, name)
            }
            _ => Span::default(),
        }
    }

    fn decided(sampler: Sampler, first: TraceContext) -> TraceContext {
        first.with_sampled(sampler.samples_root(first.ids().0))
    }

    #[cfg(feature = "otlp")]
    fn sampler(&self) -> Option<Sampler> {
        self.exported.as_deref().map(Exported::sampler)
    }

    #[cfg(not(feature = "otlp"))]
    fn sampler(&self) -> Option<Sampler> {
        None
    }

    fn record(&self, span: span::Recorded) {
        #[cfg(feature = "otlp")]
        if let Some(exported) = &self.exported {
            exported.queue(span);
        }
        #[cfg(not(feature = "otlp"))]
        drop(span);
    }

    /// Exports the queued spans for a short time: the end of a service does not wait for a collector.
    pub async fn finish(&self) {
        #[cfg(feature = "otlp")]
        if let Some(exported) = &self.exported {
            exported.finish().await;
        }
    }
}
