//! The circuit breaker: decides by the results of the last calls whether the provider is called at all. Knows no
//! provider, no attempt and no clock: signals and the current time are parameters.
//!
//! An engine begins *unproven*: one call at a time until a call is answered. So a wrong setting affects one invoice and
//! not a whole window of them. Once a provider has charged without echoing our key, the breaker is *latched*: nothing
//! more is sent until an operator has changed the setting and restarted the service.
//!
//! Without keys a call in doubt, a probe too, costs an operator's time. Then the breaker opens at the first such call
//! that was made alone, and a [`Window`] limits the calls under way and those that may end in doubt.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chassis::clock::Random;
use chassis::test_overrides::scaled;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::window::{Reading, Window};

/// Calls in a row without an answer, or answered as unavailable, that open the breaker.
pub const FAILURES_TO_OPEN: u32 = 10;
/// Consecutive validation errors that open the breaker: so many invalid invoices in a row mean an invalid client.
pub const INVALID_TO_OPEN: u32 = 20;
/// Failed calls in a row after which an unproven provider is called in parallel, so that calls to a slow provider do
/// not time out one after another.
const UNPROVEN_FAILURES_MAX: u32 = 3;
/// Failed probes after which a run gives up.
pub const PROBES_MAX: u32 = 3;
/// Ceiling of the pause before the first probe; doubled with each failed one.
const COOL_DOWN_FIRST: Duration = Duration::from_millis(500);
/// Ceiling of every later pause.
const COOL_DOWN_MAX: Duration = Duration::from_secs(30);

/// Result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// An answer about the invoice.
    Good,
    /// No response, or one that means "unavailable".
    Failure,
    /// No response, or "unavailable", without keys, and the request may have been executed.
    Doubt,
    /// A validation answer.
    Invalid,
    /// The endpoint or the credentials are wrong.
    Wrong,
    /// The endpoint, the credentials or only this item is wrong: the results of other items show which.
    Suspect,
    /// The provider charges without echoing the key.
    Unkeyed,
}

/// Permission to make one call. A permit that is dropped without a report has no effect.
#[derive(Debug)]
#[must_use = "report what the call met"]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    call: Call,
    is_reported: bool,
}

/// The conditions under which a call was allowed.
#[derive(Clone, Copy, Debug)]
struct Call {
    /// Whether this call alone decides the next state.
    probe: bool,
    /// Whether no other call could be under way, so that its result predicts that of the next call. Only with a window.
    alone: bool,
}

impl Permit<'_> {
    /// Applies the result of the call; `true` when it opened the breaker.
    pub fn report(mut self, signal: Signal, now: Instant) -> bool {
        self.is_reported = true;
        self.breaker.report(self.call, signal, now)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.is_reported {
            self.breaker.cancel(self.call);
        }
    }
}

/// Whether and when calls are admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Calls may be made.
    Clear,
    /// One call may be made from this moment on.
    ProbeAt(Instant),
    /// The probe is under way.
    Probing,
    /// No call until an operator acts.
    Latched,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Unproven { failures: u32, invalid: u32, probing: bool },
    Closed { failures: u32, invalid: u32 },
    Open { probe_at: Instant, failed_probes: u32, probing: bool },
    Latched,
}

/// The breaker of one provider, shared by all runs of an engine.
#[derive(Debug)]
pub struct Breaker {
    inner: Mutex<Inner>,
    changed: Notify,
    random: Random,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// The time until which the provider has asked for no requests, in whatever state.
    held_until: Option<Instant>,
    /// Window of calls to a provider without keys.
    window: Option<Window>,
}

impl Inner {
    fn is_exhausted(&self) -> bool {
        self.window.is_some_and(|window| window.is_exhausted())
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. } | State::Latched) || self.is_exhausted()
    }
}

impl Breaker {
    /// A breaker for a provider that has not answered yet. A window means that the provider has no keys.
    #[must_use]
    pub fn unproven(random: Random, window: Option<Window>) -> Self {
        let state = State::Unproven { failures: 0, invalid: 0, probing: false };
        Self { inner: Mutex::new(Inner { state, held_until: None, window }), changed: Notify::new(), random }
    }

    /// A permit for one call now; `None` while the state admits none.
    pub fn admit(&self, now: Instant) -> Option<Permit<'_>> {
        let Inner { state, held_until, window } = &mut *self.lock();
        if held_until.is_some_and(|until| now < until) {
            return None;
        }
        let probing = match state {
            State::Closed { .. } => None,
            State::Unproven { probing, .. } if !*probing => Some(probing),
            State::Open { probe_at, probing, .. } if !*probing && now >= *probe_at => Some(probing),
            _ => return None,
        };
        let is_narrow = match window {
            Some(window) => window.enter()?,
            None => false,
        };
        let call = Call { probe: probing.is_some(), alone: is_narrow || probing.is_some() };
        if let Some(probing) = probing {
            *probing = true;
        }
        Some(Permit { breaker: self, call, is_reported: false })
    }

    /// How many calls may be under way; `None` where only the settings limit them.
    #[must_use]
    pub fn window(&self) -> Option<usize> {
        self.lock().window.map(|window| window.size())
    }

    /// Whether the next call should be for an item that was not sent before: the items that failed may be what opened it.
    #[must_use]
    pub fn wants_fresh(&self) -> bool {
        matches!(self.lock().state, State::Open { .. })
    }

    /// Whether nothing is sent because as many calls have ended in doubt as may: an operator must resolve one.
    #[must_use]
    pub fn awaits_operator(&self) -> bool {
        self.lock().is_exhausted()
    }

    /// An operator has resolved an attempt that was in doubt.
    pub fn resolved(&self) {
        if let Some(window) = &mut self.lock().window {
            window.resolved();
        }
        self.changed.notify_waiters();
    }

    /// Whether and when calls are admitted.
    #[must_use]
    pub fn admission(&self, now: Instant) -> Admission {
        let inner = self.lock();
        let held_until = inner.held_until.filter(|until| now < *until);
        match (inner.state, held_until) {
            _ if inner.is_exhausted() => Admission::Latched,
            (State::Latched, _) => Admission::Latched,
            (State::Open { probing: false, probe_at, .. }, Some(until)) => {
                Admission::ProbeAt(probe_at.max(until))
            }
            (State::Closed { .. } | State::Unproven { probing: false, .. }, Some(until)) => {
                Admission::ProbeAt(until)
            }
            (State::Closed { .. }, None) => Admission::Clear,
            (State::Unproven { probing: true, .. } | State::Open { probing: true, .. }, _) => {
                Admission::Probing
            }
            (State::Unproven { .. }, None) => Admission::ProbeAt(now),
            (State::Open { probe_at, .. }, None) => Admission::ProbeAt(probe_at),
        }
    }

    /// The provider has asked for no requests before `until`. A time earlier than the one it asked for before has no
    /// effect. No operator's call shortens this pause.
    pub fn hold(&self, until: Instant) {
        let held_until = &mut self.lock().held_until;
        *held_until = (*held_until).max(Some(until));
    }

    /// Whether no call is made now, not even a probe. Half-open counts as closed, also when no call follows.
    #[must_use]
    pub fn is_open(&self, now: Instant) -> bool {
        let inner = self.lock();
        match inner.state {
            _ if inner.is_exhausted() || inner.held_until.is_some_and(|until| now < until) => true,
            State::Latched => true,
            State::Open { probe_at, probing, .. } => probing || now < probe_at,
            State::Closed { .. } | State::Unproven { .. } => false,
        }
    }

    /// Whether a run should stop trying.
    #[must_use]
    pub fn has_given_up(&self) -> bool {
        let inner = self.lock();
        match inner.state {
            _ if inner.is_exhausted() => true,
            State::Open { failed_probes, .. } => failed_probes >= PROBES_MAX,
            State::Latched => true,
            State::Closed { .. } | State::Unproven { .. } => false,
        }
    }

    /// Called when a caller starts a run: an open breaker may probe at once and has all its probes again. A latched
    /// breaker stays latched.
    pub fn rearm(&self, now: Instant) {
        if let State::Open { probe_at, failed_probes, .. } = &mut self.lock().state {
            *probe_at = now;
            *failed_probes = 0;
        }
        self.changed.notify_waiters();
    }

    fn cancel(&self, call: Call) {
        let Inner { state, window, .. } = &mut *self.lock();
        if let (true, State::Unproven { probing, .. } | State::Open { probing, .. }) = (call.probe, state) {
            *probing = false;
        }
        if let Some(window) = window {
            window.leave();
        }
        self.changed.notify_waiters();
    }

    fn report(&self, call: Call, signal: Signal, now: Instant) -> bool {
        let mut inner = self.lock();
        let was_open = inner.is_open();
        inner.state = self.next(&inner, call, signal, now);
        if let Some(window) = &mut inner.window {
            window.leave();
            window.read(call.alone, reading(signal));
        }
        let opened = !was_open && inner.is_open();
        drop(inner);
        self.changed.notify_waiters();
        opened
    }

    /// Completes at the next change. Create it before reading the state, so that no change is missed.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    fn next(&self, inner: &Inner, call: Call, signal: Signal, now: Instant) -> State {
        let Inner { state, window, .. } = *inner;
        let Call { probe, alone } = call;
        match (state, signal) {
            (State::Latched, _) | (_, Signal::Unkeyed) => State::Latched,
            // Calls that were in flight when the breaker opened change nothing.
            (State::Open { .. }, _) if !probe => state,
            (State::Open { .. } | State::Unproven { .. }, Signal::Good) => {
                State::Closed { failures: 0, invalid: 0 }
            }
            // Either this invoice is invalid or a setting is wrong: the next invoice shows which.
            (State::Unproven { invalid, .. }, Signal::Invalid) => match invalid + 1 {
                INVALID_TO_OPEN.. => self.open(now, 0),
                invalid => State::Unproven { failures: 0, invalid, probing: false },
            },
            // Invalid invoices may have opened the breaker: another invalid one does not prove that the provider works.
            (
                State::Open { failed_probes, .. },
                Signal::Failure | Signal::Doubt | Signal::Wrong | Signal::Suspect | Signal::Invalid,
            ) => self.open(now, failed_probes.saturating_add(1)),
            (_, Signal::Wrong) | (State::Unproven { .. }, Signal::Suspect) => self.open(now, 0),
            // The provider has answered other items before; their next results show whether it still does.
            (State::Closed { .. }, Signal::Suspect) => state,
            // The next call could cost another invoice: pause first.
            (State::Unproven { .. }, Signal::Doubt) => self.open(now, 0),
            (State::Closed { .. }, Signal::Doubt) if alone => self.open(now, 0),
            // The response has narrowed the window.
            (State::Closed { .. }, Signal::Doubt) => state,
            (State::Unproven { failures, invalid, .. }, Signal::Failure) => match failures + 1 {
                // Calls to a slow provider would time out one by one until the breaker opens.
                UNPROVEN_FAILURES_MAX.. if window.is_some() => self.open(now, 0),
                failures @ UNPROVEN_FAILURES_MAX.. => State::Closed { failures, invalid },
                failures => State::Unproven { failures, invalid, probing: false },
            },
            (State::Closed { .. }, Signal::Good) => State::Closed { failures: 0, invalid: 0 },
            (State::Closed { failures, invalid }, Signal::Failure) => match failures + 1 {
                FAILURES_TO_OPEN.. => self.open(now, 0),
                failures => State::Closed { failures, invalid },
            },
            (State::Closed { invalid, .. }, Signal::Invalid) => match invalid + 1 {
                INVALID_TO_OPEN.. => self.open(now, 0),
                invalid => State::Closed { failures: 0, invalid },
            },
        }
    }

    /// The open state, with half of the pause fixed and half random.
    fn open(&self, now: Instant, failed_probes: u32) -> State {
        let ceiling = COOL_DOWN_FIRST.saturating_mul(1 << failed_probes.min(16)).min(COOL_DOWN_MAX);
        let pause = ceiling / 2 + self.random.jitter(ceiling / 2);
        State::Open { probe_at: now + scaled(pause), failed_probes, probing: false }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maps a signal to the window's reading.
fn reading(signal: Signal) -> Reading {
    match signal {
        Signal::Good => Reading::Definite,
        Signal::Doubt => Reading::Doubt,
        Signal::Failure | Signal::Invalid | Signal::Wrong | Signal::Suspect | Signal::Unkeyed => {
            Reading::Other
        }
    }
}

#[cfg(test)]
mod tests;
