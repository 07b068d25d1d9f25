//! State that the driver, the I/O, the call and the handler's handle of one connection share: its phase, its signals,
//! and how its body ended. Atomics only; it decides nothing.

use crate::tls::PeerName;
use futures_util::task::AtomicWaker;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use tokio::time::Instant;

/// The phase of a connection; each has its own deadline or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// No byte has come yet.
    FirstByte,
    /// The TLS handshake is under way.
    Handshake,
    /// Between an answer and the next request.
    Idle,
    /// A head has begun.
    Head,
    /// The head is complete, the body is not.
    Body,
    /// A handler waits for more of a long body.
    LongBody,
    /// The handler works and does not wait for the body.
    Call,
    /// The handler has answered.
    Answer,
    /// Our side is shut; further bytes of the client are discarded, so that it can read the response.
    Closing,
}

impl Phase {
    const ALL: [Self; 9] = [
        Self::FirstByte,
        Self::Handshake,
        Self::Idle,
        Self::Head,
        Self::Body,
        Self::LongBody,
        Self::Call,
        Self::Answer,
        Self::Closing,
    ];
}

/// Why a body could not be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyFailure {
    #[error("the body is larger than allowed")]
    TooLarge,
    #[error("the body did not come in time")]
    Late,
    #[error("the body ends before its length, or its chunks are broken")]
    Broken,
}

/// Finish the current call, then close.
pub(super) const DRAIN: u32 = 1;
/// End at once.
pub(super) const HARD: u32 = 2;
/// End without an answer, as a handler asked.
pub(super) const CLOSE: u32 = 4;
/// End as by `CLOSE`, but by RST.
pub(super) const RESET: u32 = 8;

/// End, because another connection needs the place.
pub(super) const EVICT: u32 = 16;

const NOT_LIMITED: u64 = u64::MAX;
const BODY_INTACT: u8 = 0;
const BODY_TOO_LARGE: u8 = 1;
const BODY_LATE: u8 = 2;
const BODY_BROKEN: u8 = 3;

#[derive(Debug)]
pub(super) struct State {
    pub(super) peer: SocketAddr,
    /// The name that the peer's certificate has proven.
    pub(super) peer_name: OnceLock<PeerName>,
    /// Time after which a response is the connection's last one.
    pub(super) aged_at: OnceLock<Instant>,
    /// The task that drives the connection.
    pub(super) driver: AtomicWaker,
    /// The task that waits for the body, if it is another one.
    pub(super) reader: AtomicWaker,
    /// Milliseconds since the server's start at which the driver last noticed a change of phase; the maximum at first.
    pub(super) since_ms: AtomicU64,
    phase: AtomicU8,
    /// Counts phases and progress, so that the driver knows when to read the clock again.
    turn: AtomicU32,
    signals: AtomicU32,
    write_blocked: AtomicBool,
    shut_by_peer: AtomicBool,
    body_bytes_max: AtomicU64,
    body_is_long: AtomicBool,
    body_failure: AtomicU8,
    /// The handler saw the failure: it cannot have had the body.
    body_failure_seen: AtomicBool,
    body_whole: AtomicBool,
    answer_bytes_left: AtomicU64,
    bytes_written: AtomicU64,
}

impl State {
    pub(super) fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            peer_name: OnceLock::new(),
            aged_at: OnceLock::new(),
            driver: AtomicWaker::new(),
            reader: AtomicWaker::new(),
            since_ms: AtomicU64::new(u64::MAX),
            phase: AtomicU8::new(Phase::FirstByte as u8),
            turn: AtomicU32::new(0),
            signals: AtomicU32::new(0),
            write_blocked: AtomicBool::new(false),
            shut_by_peer: AtomicBool::new(false),
            body_bytes_max: AtomicU64::new(0),
            body_is_long: AtomicBool::new(false),
            body_failure: AtomicU8::new(BODY_INTACT),
            body_failure_seen: AtomicBool::new(false),
            body_whole: AtomicBool::new(true),
            answer_bytes_left: AtomicU64::new(NOT_LIMITED),
            bytes_written: AtomicU64::new(0),
        }
    }

    /// Whether this connection is too old and must be replaced, so that current client rules apply.
    pub(super) fn is_aged(&self) -> bool {
        self.aged_at.get().is_some_and(|at| Instant::now() >= *at)
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Relaxed))]
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
        self.progress();
    }

    /// Restarts the time of the current phase.
    pub(super) fn progress(&self) {
        self.turn.fetch_add(1, Relaxed);
    }

    pub(super) fn turn(&self) -> u32 {
        self.turn.load(Relaxed)
    }

    pub(super) fn signals(&self) -> u32 {
        self.signals.load(Relaxed)
    }

    /// Whether no more bytes may be written.
    pub(super) fn is_severed(&self) -> bool {
        self.signals() & (CLOSE | RESET | EVICT) != 0
    }

    pub(super) fn ask(&self, what: u32) {
        self.signals.fetch_or(what, Relaxed);
        self.driver.wake();
    }

    pub(super) fn set_write_blocked(&self, blocked: bool) {
        if self.write_blocked.load(Relaxed) != blocked {
            self.write_blocked.store(blocked, Relaxed);
            self.progress();
        }
    }

    /// Records that the peer sends nothing more: it has gone, or waits for its last answer.
    pub(super) fn note_shut_by_peer(&self) {
        self.shut_by_peer.store(true, Relaxed);
    }

    pub(super) fn is_shut_by_peer(&self) -> bool {
        self.shut_by_peer.load(Relaxed)
    }

    /// Number of bytes written on this connection so far.
    pub(super) fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Relaxed)
    }

    pub(super) fn is_write_blocked(&self) -> bool {
        self.write_blocked.load(Relaxed)
    }

    /// Records that a head is complete and its call begins.
    pub(super) fn begin_call(&self, has_body: bool, body_bytes_max: u64) {
        self.body_bytes_max.store(body_bytes_max, Relaxed);
        self.body_is_long.store(false, Relaxed);
        self.body_failure.store(BODY_INTACT, Relaxed);
        self.body_failure_seen.store(false, Relaxed);
        self.body_whole.store(!has_body, Relaxed);
        self.answer_bytes_left.store(NOT_LIMITED, Relaxed);
        self.enter(if has_body { Phase::Body } else { Phase::Call });
    }

    /// Makes the deadline of this call's body run only while the handler waits for more of it.
    pub(super) fn expect_long_body(&self, bytes_max: u64) {
        self.body_bytes_max.store(bytes_max, Relaxed);
        self.body_is_long.store(true, Relaxed);
        if self.phase() == Phase::Body {
            self.enter(Phase::Call);
        }
    }

    /// Records that the handler asked for more of the body and none is there yet.
    pub(super) fn await_body(&self) {
        if self.body_is_long.load(Relaxed) && self.phase() == Phase::Call {
            self.enter(Phase::LongBody);
            self.driver.wake();
        }
    }

    /// The handler received the data that it awaited.
    pub(super) fn feed_body(&self) {
        if self.phase() == Phase::LongBody {
            self.enter(Phase::Call);
        }
    }

    pub(super) fn body_bytes_max(&self) -> u64 {
        self.body_bytes_max.load(Relaxed)
    }

    /// Records that no more of the body is awaited; `whole` if all of it came.
    pub(super) fn end_body(&self, whole: bool) {
        if whole {
            self.body_whole.store(true, Relaxed);
        }
        if matches!(self.phase(), Phase::Body | Phase::LongBody) {
            self.enter(Phase::Call);
        }
    }

    pub(super) fn is_body_whole(&self) -> bool {
        self.body_whole.load(Relaxed)
    }

    pub(super) fn fail_body(&self, failure: BodyFailure) {
        let code = match failure {
            BodyFailure::TooLarge => BODY_TOO_LARGE,
            BodyFailure::Late => BODY_LATE,
            BodyFailure::Broken => BODY_BROKEN,
        };
        self.body_failure.store(code, Relaxed);
        self.end_body(false);
        self.reader.wake();
    }

    /// The failure of the body, for the handler's side; records that the handler has seen it.
    pub(super) fn see_body_failure(&self) -> Option<BodyFailure> {
        let failure = self.body_failure()?;
        self.body_failure_seen.store(true, Relaxed);
        Some(failure)
    }

    /// The failure, if the handler saw it.
    pub(super) fn seen_body_failure(&self) -> Option<BodyFailure> {
        if self.body_failure_seen.load(Relaxed) { self.body_failure() } else { None }
    }

    fn body_failure(&self) -> Option<BodyFailure> {
        match self.body_failure.load(Relaxed) {
            BODY_INTACT => None,
            BODY_TOO_LARGE => Some(BodyFailure::TooLarge),
            BODY_LATE => Some(BodyFailure::Late),
            _ => Some(BodyFailure::Broken),
        }
    }

    pub(super) fn limit_answer(&self, bytes: u64) {
        self.answer_bytes_left.store(bytes, Relaxed);
    }

    /// Number of bytes that may be written now.
    pub(super) fn answer_bytes_left(&self) -> usize {
        usize::try_from(self.answer_bytes_left.load(Relaxed)).unwrap_or(usize::MAX)
    }

    /// Counts written bytes; at the end of a limited response the connection is cut.
    pub(super) fn count_written(&self, bytes: usize) {
        self.bytes_written.fetch_add(bytes as u64, Relaxed);
        let left = self.answer_bytes_left.load(Relaxed);
        if left == NOT_LIMITED {
            return;
        }
        let left = left.saturating_sub(bytes as u64);
        self.answer_bytes_left.store(left, Relaxed);
        if left == 0 {
            self.ask(CLOSE);
        }
    }
}
