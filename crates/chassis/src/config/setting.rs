//! One setting: flag, variable, default and check are declared together, at a field of clap's arguments, and messages take
//! its name from there. Must not know which settings there are.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::TypedValueParser;
use clap::{Arg, Command};

use super::problems::Problems;
use crate::tls::Source;

/// What was given for a setting, or else its default. A mistake in the value is kept until all mistakes are reported
/// together.
///
/// A field of this type needs [`checked`] as its value parser, and its command [`with_defaults`].
#[derive(Clone)]
pub struct Setting<T> {
    name: Arc<str>,
    value: Result<Option<T>, String>,
}

impl<T: Clone> Setting<T> {
    /// A setting that clap did not make.
    pub fn new(name: &str, value: Option<T>) -> Self {
        Self { name: name.into(), value: Ok(value) }
    }

    /// The name that messages show, such as `--listen (LISTEN)`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a value was given, right or wrong; a default counts as given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        !matches!(self.value, Ok(None))
    }

    /// The value of a setting that has a default; `None` when its mistake was recorded.
    pub fn value(&self, problems: &mut Problems) -> Option<T> {
        let value = self.optional(problems)?;
        if value.is_none() {
            problems.add(&self.name, "is missing");
        }
        value
    }

    /// The value, if one was given; `None` when its mistake was recorded.
    pub fn optional(&self, problems: &mut Problems) -> Option<Option<T>> {
        problems.check(&self.name, self.value.as_ref()).cloned()
    }

    /// Converts the value, for example to a file's contents; an error of the conversion is a mistake of this setting.
    pub fn and_then<U, E: Display>(&self, lead: impl FnOnce(T) -> Result<U, E>) -> Setting<U> {
        let value = self.value.clone().and_then(|value| {
            let led = value.map(lead).transpose();
            led.map_err(|error| error.to_string())
        });
        Setting { name: self.name.clone(), value }
    }
}

impl Setting<PathBuf> {
    /// The file that was given.
    #[must_use]
    pub fn source(&self) -> Option<Source> {
        let path = self.value.clone().ok().flatten()?;
        Some(Source { setting: self.name.clone(), path })
    }
}

/// Hides the value, which may be a secret.
impl<T> fmt::Debug for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The value parser of a [`Setting`]. An empty text counts as not given.
pub fn checked<F>(check: F) -> Checked<F> {
    Checked(check)
}

/// See [`checked`].
#[derive(Clone, Debug)]
pub struct Checked<F>(F);

impl<T, E, F> TypedValueParser for Checked<F>
where
    F: Fn(&str) -> Result<T, E> + Clone + Send + Sync + 'static,
    E: Display,
    T: Clone + Send + Sync + 'static,
{
    type Value = Setting<T>;

    fn parse_ref(&self, _: &Command, arg: Option<&Arg>, given: &OsStr) -> Result<Setting<T>, clap::Error> {
        let default = arg.and_then(|arg| Some(arg.get_default_values().first()?.as_os_str()));
        let text = if given.is_empty() { default.unwrap_or(given) } else { given };
        let value = match text.to_str() {
            Some("") => Ok(None),
            Some(text) => (self.0)(text).map(Some).map_err(|error| error.to_string()),
            None => Err("is not UTF-8".to_owned()),
        };
        Ok(Setting { name: arg.map_or_else(String::new, name_of).into(), value })
    }
}

/// Makes a flag valid before and after a subcommand, and sets its default: the one of the list under the field's name,
/// else the one that the flag declares, else an empty text. Call it from `#[command(mut_args = …)]`.
#[must_use]
pub fn with_defaults(arg: Arg, defaults: &[(&str, &'static str)]) -> Arg {
    // clap requires a field that is no `Option`.
    let arg = arg.global(true).required(false);
    match defaults.iter().find(|(id, _)| arg.get_id() == id) {
        Some((_, default)) => arg.default_value(*default),
        None if arg.get_default_values().is_empty() => arg.default_value("").hide_default_value(true),
        None => arg,
    }
}

fn name_of(arg: &Arg) -> String {
    let flag = arg.get_long().unwrap_or_else(|| arg.get_id().as_str());
    match arg.get_env() {
        Some(variable) => format!("--{flag} ({})", variable.to_string_lossy()),
        None => format!("--{flag}"),
    }
}

/// The check of any text, for [`checked`].
///
/// # Errors
/// None.
pub fn parse_text(text: &str) -> Result<String, Infallible> {
    Ok(text.to_owned())
}

/// The check of a path of a file or a folder, for [`checked`].
///
/// # Errors
/// None.
pub fn parse_path(text: &str) -> Result<PathBuf, Infallible> {
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[command(name = "kiosk", mut_args = |arg| with_defaults(arg, &[("paper", "times")]))]
    struct Args {
        #[arg(long, env = "PAPER_OF_THIS_TEST", value_parser = checked(parse_text))]
        paper: Setting<String>,
        #[arg(long, default_value = "3", value_parser = checked(str::parse::<u8>))]
        stock: Setting<u8>,
        #[arg(long, value_parser = checked(parse_path))]
        file: Setting<PathBuf>,
    }

    fn args(words: &[&str]) -> Args {
        Args::try_parse_from(["kiosk"].iter().chain(words)).unwrap()
    }

    #[test]
    fn a_default_is_the_services_or_the_declared_one_and_an_empty_text_is_nothing() {
        for words in [&[][..], &["--paper", "", "--stock", "", "--file", ""]] {
            let (args, mut problems) = (args(words), Problems::new());
            assert_eq!(args.paper.value(&mut problems).as_deref(), Some("times"));
            assert_eq!(args.stock.value(&mut problems), Some(3));
            assert_eq!(args.file.optional(&mut problems), Some(None));
            assert!(!args.file.is_given() && args.file.source().is_none() && problems.finish().is_ok());
        }
    }

    #[test]
    fn a_mistake_names_flag_and_variable_and_is_recorded_when_it_is_asked_for() {
        let (args, mut problems) = (args(&["--stock", "many", "--paper", "sun"]), Problems::new());
        assert_eq!(args.stock.value(&mut problems), None);
        assert!(args.paper.and_then(|_| Err::<u8, _>("is sold out")).optional(&mut problems).is_none());
        let mistakes = problems.finish().unwrap_err().to_string();
        assert!(mistakes.contains("--stock: invalid digit"), "{mistakes}");
        assert!(mistakes.contains("--paper (PAPER_OF_THIS_TEST): is sold out"), "{mistakes}");
    }

    #[test]
    fn a_text_that_is_no_utf_8_is_a_mistake_of_its_setting() {
        use std::os::unix::ffi::OsStrExt;
        let words = [OsStr::new("kiosk"), OsStr::new("--paper"), OsStr::from_bytes(b"\xff")];
        let (args, mut problems) = (Args::try_parse_from(words).unwrap(), Problems::new());
        assert_eq!(args.paper.value(&mut problems), None);
        assert!(problems.finish().unwrap_err().to_string().contains("is not UTF-8"));
    }
}
