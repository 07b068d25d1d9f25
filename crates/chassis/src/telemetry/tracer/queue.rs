//! Spans that have ended and wait for the exporter: bounded, filled without waiting, emptied in batches. Must not know
//! their destination. It uses a lock, not a channel, so that only a full batch wakes a task.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::span::Recorded;

/// The queue of one exporter.
#[derive(Debug)]
pub(super) struct Queue {
    spans: Mutex<Vec<Recorded>>,
    spans_max: usize,
    batch_max: usize,
    /// Notified when a batch is full.
    pub(super) full: Notify,
}

impl Queue {
    pub(super) fn new(spans_max: usize, batch_max: usize) -> Self {
        Self { spans: Mutex::default(), spans_max, batch_max, full: Notify::new() }
    }

    /// Adds a span; `false` when the queue is full and the span is lost.
    pub(super) fn push(&self, span: Recorded) -> bool {
        let length = {
            let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
            if spans.len() >= self.spans_max {
                return false;
            }
            spans.push(span);
            spans.len()
        };
        if length == self.batch_max {
            self.full.notify_one();
        }
        true
    }

    /// Takes the oldest batch, and returns whether another full one waits.
    pub(super) fn take(&self) -> (Vec<Recorded>, bool) {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let size = spans.len().min(self.batch_max);
        let batch = spans.drain(..size).collect();
        (batch, spans.len() >= self.batch_max)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::telemetry::{Kind, TraceContext};

    fn ended(nth: u32) -> Recorded {
        Recorded {
            context: TraceContext::numbered("bca1897f57e947286a9d2dcb4be588f1", nth).unwrap(),
            parent: None,
            kind: Kind::Internal,
            name: "work".into(),
            began_ns: 1,
            ended_ns: 2,
            attributes: Vec::new(),
            links: Vec::new(),
            is_failed: false,
        }
    }

    #[test]
    fn a_full_queue_takes_no_further_span_and_keeps_the_oldest() {
        let queue = Queue::new(3, 2);
        assert_eq!([0, 1, 2, 3].map(|nth| queue.push(ended(nth))), [true, true, true, false]);
        let (batch, more) = queue.take();
        assert_eq!((batch.len(), more), (2, false));
        assert_eq!(batch[0].context, ended(0).context);
        assert!(queue.push(ended(4)), "a place is free again");
        assert_eq!(queue.take().0.len(), 2);
        assert_eq!(queue.take().0.len(), 0);
    }

    #[test]
    fn only_a_full_batch_wakes_the_exporter() {
        let queue = Queue::new(10, 2);
        queue.push(ended(0));
        assert!(queue.full.notified().now_or_never().is_none());
        queue.push(ended(1));
        assert!(queue.full.notified().now_or_never().is_some());
    }
}
