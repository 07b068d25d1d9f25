//! Transport errors by the only question that matters: whether the peer can have received any byte.
//! Must not know how the caller reacts.

use std::io;
use std::time::Duration;

/// A call without a complete response.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No byte of this request was handed to the kernel: the other side cannot have executed it.
    #[error("not sent")]
    NotSent(#[source] Cause),
    /// Some bytes may have arrived: whether the request was executed is not known.
    #[error("no answer")]
    Unknown(#[source] Cause),
}

impl Failure {
    /// The cause.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        match self {
            Self::NotSent(cause) | Self::Unknown(cause) => cause,
        }
    }
}

impl Cause {
    /// The error's class as one word: `error.type` in traces.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Request(_) => "request",
            Self::Busy(_) => "busy",
            Self::Connect(_) => "connect",
            Self::ConnectLate(_) => "connect_timeout",
            Self::SendLate => "send_late",
            Self::Late(_) => "timeout",
            Self::TooLarge(_) => "too_large",
            Self::Connection(_) => "connection",
        }
    }

    /// Whether the process or the machine has reached its limit of open file descriptors.
    pub(super) fn is_want_of_files(&self) -> bool {
        let Self::Connect(error) = self else { return false };
        let wants = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].map(rustix::io::Errno::raw_os_error);
        error.raw_os_error().is_some_and(|code| wants.contains(&code))
    }
}

/// Cause of a transport error.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The request cannot be sent by this client.
    #[error("the request cannot be sent: {0}")]
    Request(&'static str),
    /// All connections stayed busy for the whole time of the call.
    #[error("no connection came free within {0:?}")]
    Busy(Duration),
    /// The name was not resolved, or no address took the connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// No address took the connection in time.
    #[error("not connected within {0:?}")]
    ConnectLate(Duration),
    /// The time limit for sending passed before the first byte left: this process stood still, or was too slow.
    #[error("the time to send it was over")]
    SendLate,
    /// The time limit of the whole call has passed.
    #[error("not answered within {0:?}")]
    Late(Duration),
    /// The answer is larger than allowed.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The connection ended, or the response is not HTTP.
    #[error("the connection failed: {0}")]
    Connection(#[source] hyper::Error),
}
