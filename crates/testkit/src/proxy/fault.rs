//! Network faults; each has a name for tables. Describes the faults; carries none out.

/// A fault of one request or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The connection is reset while the request is being sent.
    ResetInRequest,
    /// The request is dropped: it is not delivered, and no response comes.
    BlackHole,
    /// The answer arrives after the caller has given up.
    LateAnswer,
    /// The request is executed, and the connection ends without an answer.
    LostAnswer,
    /// The provider gets the request twice at the same time.
    Repeated,
    /// The provider gets the request a minute later, after the caller has sent it again.
    Delayed,
    /// The request is executed, and another server answers 5xx.
    ErrorAfter,
    /// Another server answers 5xx before the provider gets the request.
    ErrorBefore,
    /// The request is executed; the answer's body is cut off.
    BrokenBody,
    /// The request is executed; the response is 200 with an unrelated page.
    ForeignBody,
    /// The request is executed; the answer's body exceeds every limit.
    OversizedBody,
    /// The answer is a redirect.
    Redirect,
    /// The response is 429, marked as not executed, and nothing was executed.
    TooManyMarked,
    /// The response is 429 without the mark, although the request was executed.
    TooMany,
    /// The response is 503, marked as not executed, and nothing was executed.
    UnavailableMarked,
    /// The response is 503 without the mark, although the request was executed.
    Unavailable,
    /// The connection is kept, and reset when the next request arrives.
    KeepAliveRace,
    /// The request is executed; the caller gets the answer to another request.
    OtherAnswer,
}

impl Fault {
    pub const ALL: [Self; 18] = [
        Self::ResetInRequest,
        Self::BlackHole,
        Self::LateAnswer,
        Self::LostAnswer,
        Self::Repeated,
        Self::Delayed,
        Self::ErrorAfter,
        Self::ErrorBefore,
        Self::BrokenBody,
        Self::ForeignBody,
        Self::OversizedBody,
        Self::Redirect,
        Self::TooManyMarked,
        Self::TooMany,
        Self::UnavailableMarked,
        Self::Unavailable,
        Self::KeepAliveRace,
        Self::OtherAnswer,
    ];

    /// The fault's name in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ResetInRequest => "reset-in-request",
            Self::BlackHole => "black-hole",
            Self::LateAnswer => "late-answer",
            Self::LostAnswer => "lost-answer",
            Self::Repeated => "repeated",
            Self::Delayed => "delayed-a-minute",
            Self::ErrorAfter => "5xx-after-charging",
            Self::ErrorBefore => "5xx-before",
            Self::BrokenBody => "broken-body",
            Self::ForeignBody => "foreign-body",
            Self::OversizedBody => "oversized-body",
            Self::Redirect => "redirect",
            Self::TooManyMarked => "429-marked",
            Self::TooMany => "429-unmarked",
            Self::UnavailableMarked => "503-marked",
            Self::Unavailable => "503-unmarked",
            Self::KeepAliveRace => "keep-alive-race",
            Self::OtherAnswer => "answer-to-another",
        }
    }

    /// Whether the provider gets the request once and without delay.
    #[must_use]
    pub(super) fn is_forwarded(self) -> bool {
        !matches!(
            self,
            Self::ResetInRequest
                | Self::BlackHole
                | Self::Delayed
                | Self::ErrorBefore
                | Self::Redirect
                | Self::TooManyMarked
                | Self::UnavailableMarked
        )
    }
}

/// Selects the requests with faults, and the faults.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Percentage of requests with a fault.
    pub percent: u64,
    /// The faults that are drawn from.
    pub faults: Vec<Fault>,
    /// Whether to remove `Idempotency-Key`, for a provider without keys.
    pub strips_keys: bool,
    /// Whether routes under `/v1/` answer 404, for a provider without them.
    pub hides_ledger: bool,
}

impl Plan {
    /// A plan with one fault.
    #[must_use]
    pub fn only(fault: Fault, percent: u64) -> Self {
        Self { percent, faults: vec![fault], ..Self::default() }
    }

    /// A plan with a mix of these faults.
    #[must_use]
    pub fn mix(faults: &[Fault], percent: u64) -> Self {
        Self { percent, faults: faults.to_vec(), ..Self::default() }
    }
}
