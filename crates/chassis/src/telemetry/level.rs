//! Log levels: one for all, or one per module. Pure.
//! Must not know how lines look or where they go.

use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// A level such as `debug`, or a level with exceptions: `info,chassis::client=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel {
    text: String,
    base: LevelFilter,
    modules: Vec<(String, LevelFilter)>,
}

impl LogLevel {
    /// The filter for exactly these levels.
    pub(super) fn targets(&self) -> Targets {
        Targets::new().with_default(self.base).with_targets(self.modules.clone())
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut base, mut modules) = (LevelFilter::INFO, Vec::new());
        for part in text.trim().split(',').map(str::trim) {
            match part.split_once('=') {
                Some((module, level)) if !module.trim().is_empty() => {
                    modules.push((module.trim().to_owned(), level_of(level.trim())?));
                }
                Some(_) => return Err(format!("\"{part}\" names no module before its =")),
                None => base = level_of(part)?,
            }
        }
        Ok(Self { text: text.trim().to_owned(), base, modules })
    }
}

fn level_of(text: &str) -> Result<LevelFilter, String> {
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    let level =
        known.iter().find(|level| text.eq_ignore_ascii_case(level)).and_then(|level| level.parse().ok());
    level.ok_or_else(|| format!("\"{text}\" is none of {}", known.join(", ")))
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn level(text: &str) -> LogLevel {
        text.parse().unwrap()
    }

    #[test]
    fn one_word_is_the_level_of_all_module() {
        let targets = level(" WARN\n").targets();
        assert!(targets.would_enable("billing", &Level::WARN));
        assert!(!targets.would_enable("billing", &Level::INFO));
    }

    #[test]
    fn a_room_may_have_a_level_of_its_own() {
        let targets = level("warn,chassis::client=debug").targets();
        assert!(targets.would_enable("chassis::client::pool", &Level::DEBUG));
        assert!(!targets.would_enable("chassis::server", &Level::INFO));
    }

    #[test]
    fn off_is_off() {
        assert!(!level("off").targets().would_enable("billing", &Level::ERROR));
    }

    #[test]
    fn a_typing_error_is_no_level() {
        for text in ["", "debgu", "info,", "chassis=loud", "=debug", "info;debug"] {
            assert!(text.parse::<LogLevel>().is_err(), "{text}");
        }
        assert_eq!(
            "debgu".parse::<LogLevel>().unwrap_err(),
            "\"debgu\" is none of off, error, warn, info, debug, trace"
        );
    }
}
