//! Collects configuration mistakes, so that one start reports all of them.
//! Must not know which settings there are.

use std::fmt::{self, Display};

/// Exit code of every command whose usage or configuration is wrong.
pub const EXIT_USAGE: u8 = 64;

/// The mistakes found so far.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

/// At least one mistake; its text has all of them, one per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(Vec<String>);

impl Problems {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records a mistake of `setting`, for example `--listen (LISTEN)`, with what is allowed.
    pub fn add(&mut self, setting: &str, what: impl Display) {
        self.note(format!("{setting}: {what}"));
    }

    /// Returns the parsed value, or records why it could not be parsed.
    pub fn check<T, E: Display>(&mut self, setting: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(setting, error)).ok()
    }

    /// True while nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All mistakes as one error, or nothing.
    ///
    /// # Errors
    /// When at least one mistake was recorded.
    pub fn finish(self) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigError(self.0)) }
    }

    /// Records a mistake that names its setting itself.
    pub(super) fn note(&mut self, mistake: String) {
        if !self.0.contains(&mistake) {
            self.0.push(mistake);
        }
    }
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "mistake" } else { "mistakes" };
        write!(f, "{} {noun} in the settings:", self.0.len())?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_come_in_one_message() {
        let mut problems = Problems::new();
        assert_eq!(problems.check("--in-flight-max (IN_FLIGHT_MAX)", "64".parse::<u8>()), Some(64));
        assert_eq!(problems.check("--success-rate (SUCCESS_RATE)", "x".parse::<u8>()), None);
        problems.add("--listen (LISTEN)", "is empty");
        let message = problems.finish().unwrap_err().to_string();
        assert_eq!(
            message,
            "2 mistakes in the settings:\n  --success-rate (SUCCESS_RATE): invalid digit found in string\
             \n  --listen (LISTEN): is empty"
        );
    }

    #[test]
    fn without_mistakes_there_is_no_error() {
        assert_eq!(Problems::new().finish(), Ok(()));
    }
}
