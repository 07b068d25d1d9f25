//! Variants of the original's API: how the currency is sent, and whether the status counts. Pure; `--dialect` selects
//! one of them.

use std::str::FromStr;

/// A dialect of the original's API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// The currency is text, and status and body must agree.
    #[default]
    Default,
    /// The currency is an empty object, as the original billing program sends it; some forks accept nothing else.
    Original,
    /// Like the default, but `result` counts with any 2xx or 4xx status: one fork answers every charge with 400.
    StatusBlind,
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(Self::Default),
            "original" => Ok(Self::Original),
            "status-blind" => Ok(Self::StatusBlind),
            _ => Err(format!("\"{text}\" is none of default, original and status-blind")),
        }
    }
}
