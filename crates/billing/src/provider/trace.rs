//! The spans of one attempt, numbered within the trace whose id is the attempt's key. A resend by a later process thus
//! finds the trace and the previous send without stored data. Knows no exporter.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chassis::client::Traced;
use chassis::clock::Random;
use chassis::telemetry::{TraceContext, Tracer};

use super::answer::Verdict;
use super::client::CREDENTIALS_MAX;
use crate::invoice::Attempt;
use crate::protocol::key::Key;
use crate::protocol::transition::AnswerClass;

/// The most numbers of sends that are remembered as used. Beyond this, two spans may have the same id.
const REMEMBERED_MAX: usize = 4096;

/// The span of the whole attempt, from its journal row to its settlement. Its key alone decides sampling, so each
/// process decides alike. `None` while spans are not exported.
#[must_use]
pub fn of_attempt(tracer: &Tracer, key: &Key) -> Option<TraceContext> {
    tracer.begin_trace(|| TraceContext::numbered(key.as_str(), 0))
}

/// Sends of this process whose number a later send may get. Only definite sends surely keep their number: a send that
/// was not executed is subtracted from the attempt's sends.
#[derive(Debug, Default)]
pub(super) struct Sends {
    used: Mutex<HashSet<(Key, u32)>>,
}

impl Sends {
    /// The span of a send of this attempt with its `nth` credential, counted from 0.
    pub(super) fn traced(&self, tracer: &Tracer, attempt: &Attempt, nth: usize) -> Option<Traced> {
        let parent = of_attempt(tracer, &attempt.key)?;
        if !parent.is_sampled() {
            return Some(Traced {
                context: parent,
                parent,
                resends: None,
                resend_count: 0,
                attributes: Vec::new(),
            });
        }
        let own = number_of_send(attempt.sends, nth);
        let context = context_of_send(&attempt.key, own)?;
        let is_used = self.lock().contains(&(attempt.key.clone(), own));
        let earlier = match (is_used, nth) {
            (true, _) => Some(own),
            (false, 0) if attempt.sends > 1 => Some(number_of_send(attempt.sends - 1, 0)),
            (false, 0) => None,
            (false, nth) => Some(number_of_send(attempt.sends, nth - 1)),
        };
        let uncounted = u32::from(is_used) + u32::try_from(nth).unwrap_or(0);
        Some(Traced {
            context: if is_used { context.child(&Random::system()) } else { context },
            parent,
            resends: earlier.and_then(|earlier| context_of_send(&attempt.key, earlier)),
            resend_count: attempt.sends.saturating_sub(1).saturating_add(uncounted),
            attributes: vec![
                ("attempt.key", attempt.key.as_str().to_owned().into()),
                ("invoice.id", attempt.invoice_id.0.into()),
            ],
        })
    }

    /// Records that a send has ended with this verdict.
    pub(super) fn ended(&self, attempt: &Attempt, nth: usize, verdict: Verdict) {
        let is_counted = matches!(
            verdict.class,
            AnswerClass::Charged | AnswerClass::Refused | AnswerClass::Voided | AnswerClass::Invalid
        );
        if is_counted {
            return;
        }
        let mut used = self.lock();
        if used.len() >= REMEMBERED_MAX {
            used.clear();
        }
        used.insert((attempt.key.clone(), number_of_send(attempt.sends, nth)));
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(Key, u32)>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of a send in its trace; 0 is the span of the whole attempt.
fn number_of_send(sends: u32, nth: usize) -> u32 {
    let credentials = u32::try_from(CREDENTIALS_MAX).unwrap_or(1);
    sends.max(1).saturating_mul(credentials).saturating_add(u32::try_from(nth).unwrap_or(0))
}

fn context_of_send(key: &Key, number: u32) -> Option<TraceContext> {
    TraceContext::numbered(key.as_str(), number)
}
