//! Network faults; each has a name for tables.
//! Says only what happens; carries nothing out.

/// What happens to one request or to its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The connection is reset while the request comes in.
    ResetInRequest,
    /// The request is dropped: it is not delivered, and no response comes.
    BlackHole,
    /// The answer comes after the caller has given up.
    LateAnswer,
    /// It is executed, and the connection ends without an answer.
    LostAnswer,
    /// The provider gets it twice at once.
    Repeated,
    /// The provider gets it a minute later, after the caller has sent again.
    Delayed,
    /// It is executed, and something answers 5xx.
    ErrorAfter,
    /// Something answers 5xx before the provider has it.
    ErrorBefore,
    /// It is executed; the answer's body is cut off.
    BrokenBody,
    /// It is executed; the response is 200 with an unrelated page.
    ForeignBody,
    /// It is executed; the answer's body is beyond every limit.
    OversizedBody,
    /// The answer is a redirect.
    Redirect,
    /// 429 with the mark that nothing was executed, and so it is.
    TooManyMarked,
    /// 429 without it, though it was executed.
    TooMany,
    /// 503 with the mark that nothing was executed, and so it is.
    UnavailableMarked,
    /// 503 without it, though it was executed.
    Unavailable,
    /// The connection is kept, and reset when its next request comes.
    KeepAliveRace,
    /// It is executed; the answer is the one to another request.
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

    /// Its name in tables.
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

    /// Whether the provider gets the request when this happens at once, and once.
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

/// Which requests are treated badly, and how.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// How many of a hundred requests.
    pub percent: u64,
    /// Each time one of these is drawn.
    pub faults: Vec<Fault>,
    /// The provider never sees `Idempotency-Key`: one without keys.
    pub strips_keys: bool,
    /// Routes under `/v1/` answer 404: a provider that has none.
    pub hides_ledger: bool,
}

impl Plan {
    /// One fault alone.
    #[must_use]
    pub fn only(fault: Fault, percent: u64) -> Self {
        Self { percent, faults: vec![fault], ..Self::default() }
    }

    /// These, mixed.
    #[must_use]
    pub fn mix(faults: &[Fault], percent: u64) -> Self {
        Self { percent, faults: faults.to_vec(), ..Self::default() }
    }
}
