//! Parses a command line: prints help and version, collects every usage mistake.
//! Must not know any setting's meaning; each service resolves and checks the values.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Error};

use super::problems::{EXIT_USAGE, Problems};
use crate::printable::printable;

/// Maximum number of reported mistakes of one command line; further mistakes are reported as one.
const MISTAKES_MAX: usize = 20;

/// Reads a valid configuration from argv (program name first), or prints help or version, or ALL mistakes at once,
/// unknown flags and bad values alike.
///
/// # Errors
/// The code to exit with: 0 after help or version, [`EXIT_USAGE`] after mistakes.
pub fn load<A: clap::Parser, C>(
    args: impl IntoIterator<Item = OsString>,
    resolve: impl FnOnce(A, &mut Problems) -> Option<C>,
) -> Result<C, ExitCode> {
    let mut problems = Problems::new();
    let parsed = parse::<A>(args.into_iter().collect(), &mut problems)?;
    let config = parsed.and_then(|parsed| resolve(parsed, &mut problems));
    match (problems.finish(), config) {
        (Ok(()), Some(config)) => Ok(config),
        (Err(mistakes), _) => Err(report_usage_error(&mistakes.to_string())),
        (Ok(()), None) => Err(report_usage_error("the settings are invalid")),
    }
}

/// Parses argv (program name first) without resolving it; for commands whose arguments need no further check.
///
/// # Errors
/// As [`load`].
pub fn parse_or_exit_code<A: clap::Parser>(args: impl IntoIterator<Item = OsString>) -> Result<A, ExitCode> {
    load(args, |parsed: A, _| Some(parsed))
}

fn report_usage_error(message: &str) -> ExitCode {
    print_error(&format!("{message}\n\nFor the manual, try --help."));
    ExitCode::from(EXIT_USAGE)
}

/// The reader of a closed pipe (`| head`) has what it wanted.
fn not_printed(error: std::io::Error) -> ExitCode {
    if error.kind() != std::io::ErrorKind::BrokenPipe {
        print_error(&format!("the text could not be written to standard output: {error}"));
    }
    ExitCode::FAILURE
}

fn print_error(message: &str) {
    // When standard error is closed too, only the exit code is left.
    let _closed = writeln!(std::io::stderr().lock(), "error: {}", printable_lines(message));
}

/// A message that may quote a file or a variable, with its line breaks.
fn printable_lines(message: &str) -> String {
    message.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// Parses, and after each mistake again without the wrong argument, so that every mistake is found.
/// `None` when the mistakes left nothing to go on with.
fn parse<A: clap::Parser>(mut args: Vec<OsString>, problems: &mut Problems) -> Result<Option<A>, ExitCode> {
    // The value of a removed flag is no mistake of its own.
    let mut left_over = None;
    for _ in 0..MISTAKES_MAX {
        let error = match try_parse_args::<A>(&args) {
            Ok(parsed) => return Ok(Some(parsed)),
            Err(error) => error,
        };
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            if !problems.is_empty() {
                return Ok(None);
            }
            // A help that cannot be printed (a full disk, a closed pipe) is no success.
            let printed = error.print().and_then(|()| std::io::stdout().flush());
            return Err(printed.map_or_else(not_printed, |()| ExitCode::SUCCESS));
        }
        let wrong = wrong_word(&error).and_then(|word| position(&args, &word, left_over));
        if error.kind() == ErrorKind::InvalidSubcommand && wrong != left_over {
            // Without a known command no later argument can be judged.
            problems.note(unknown_command::<A>(&error));
            return Ok(None);
        }
        if wrong.is_none() || wrong != left_over {
            problems.note(first_lines(&error));
        }
        let Some(index) = wrong else { return Ok(None) };
        let word = args.remove(index);
        let value_follows =
            takes_next_word(&word) && args.get(index).is_some_and(|next| !takes_next_word(next));
        left_over = value_follows.then_some(index);
    }
    Ok(None)
}

fn try_parse_args<A: clap::Parser>(args: &[OsString]) -> Result<A, Error> {
    let command = without_empty_variables(A::command(), &|name| std::env::var_os(name));
    let hidden: Vec<String> = command
        .get_subcommands()
        .filter(|subcommand| subcommand.is_hide_set())
        .map(|subcommand| subcommand.get_name().to_owned())
        .collect();
    let matches = command.try_get_matches_from(args).map_err(|error| without_hidden(error, &hidden))?;
    A::from_arg_matches(&matches)
}

/// Removes from an error the suggestion of a subcommand that `--help` hides.
fn without_hidden(mut error: Error, hidden: &[String]) -> Error {
    for kind in [ContextKind::ValidSubcommand, ContextKind::SuggestedSubcommand] {
        let Some(ContextValue::Strings(names)) = error.remove(kind) else { continue };
        let shown: Vec<String> = names.into_iter().filter(|name| !hidden.contains(name)).collect();
        if !shown.is_empty() {
            error.insert(kind, ContextValue::Strings(shown));
        }
    }
    error
}

/// An empty variable counts as unset, also for subcommands. Values of variables are never shown by `--help`. A negative
/// number is a value, which its setting refuses with what it allows.
fn without_empty_variables(command: Command, read: &dyn Fn(&OsStr) -> Option<OsString>) -> Command {
    // A flag with a variable and a default is a `Setting`, which takes an empty text for the default itself.
    let is_empty = |arg: &Arg| {
        let is_empty = arg.get_env().and_then(read).is_some_and(|value| value.is_empty());
        is_empty && arg.get_default_values().is_empty()
    };
    command
        .mut_args(|arg| {
            let is_flag_with_value = !arg.is_positional() && arg.get_action().takes_values();
            let arg = if is_flag_with_value { arg.allow_negative_numbers(true) } else { arg };
            let arg = arg.hide_env_values(true);
            if is_empty(&arg) { arg.env(Resettable::<clap::builder::OsStr>::Reset) } else { arg }
        })
        .mut_subcommands(|subcommand| without_empty_variables(subcommand, read))
}

/// The argument that an error is about.
fn wrong_word(error: &Error) -> Option<String> {
    let said = error.get(ContextKind::InvalidArg).or_else(|| error.get(ContextKind::InvalidSubcommand))?;
    Some(said.to_string().split_whitespace().next()?.to_owned())
}

fn position(args: &[OsString], word: &str, left_over: Option<usize>) -> Option<usize> {
    let is_it = |arg: &OsString| {
        let arg = arg.to_string_lossy();
        arg == word || arg.split_once('=').is_some_and(|(flag, _)| flag == word)
    };
    let at_left_over = left_over.filter(|index| args.get(*index).is_some_and(is_it));
    at_left_over.or_else(|| args.iter().skip(1).position(is_it).map(|index| index + 1))
}

/// True for `--flag`, whose value may be the next argument; not for a negative number, which is a value itself.
fn takes_next_word(word: &OsStr) -> bool {
    let word = word.to_string_lossy();
    let flag = word.strip_prefix('-');
    flag.is_some_and(|flag| !flag.contains('=') && !flag.starts_with(|c: char| c.is_ascii_digit()))
}

/// Describes an unknown command, with the most similar command or else all of them.
fn unknown_command<A: clap::Parser>(error: &Error) -> String {
    let said = first_lines(error);
    if error.get(ContextKind::SuggestedSubcommand).is_some() {
        return said;
    }
    let command = A::command();
    let shown = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
    let names: Vec<&str> = shown.map(Command::get_name).collect();
    format!("{said} (commands: {})", names.join(", "))
}

/// The error and its hint, without the usage lines.
fn first_lines(error: &Error) -> String {
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let what = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let more: Vec<&str> =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more")).collect();
    if more.is_empty() { what } else { format!("{what} ({})", more.join("; ")) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "kiosk", version = "1.2.3", about = "Sells papers")]
    struct Args {
        /// Address to listen on
        #[arg(long, env = "KIOSK_LISTEN_OF_THIS_TEST", help_heading = "Addresses")]
        listen: Option<String>,
        /// Papers in stock
        #[arg(long)]
        stock: Option<String>,
        #[command(subcommand)]
        command: Option<Sub>,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Sub {
        /// Looks whether it lives
        Healthcheck,
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn mistakes_of(line: &str) -> String {
        let mut problems = Problems::new();
        if let Some(args) = parse::<Args>(words(line), &mut problems).unwrap() {
            problems.check("--stock (STOCK)", args.stock.as_deref().unwrap_or("0").parse::<u8>());
        }
        problems.finish().unwrap_err().to_string()
    }

    #[test]
    fn unknown_flags_and_bad_values_come_in_one_message() {
        let message = mistakes_of("kiosk --listne 127.0.0.1:1 --stock many --colour=red");
        assert!(message.starts_with("3 mistakes"), "{message}");
        for part in ["'--listne'", "--listen", "'--colour'", "--stock (STOCK): invalid digit"] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }

    #[test]
    fn a_flag_without_its_value_does_not_hide_the_other_mistakes() {
        let message = mistakes_of("kiosk --colour red --listen --stock many");
        for part in ["'--colour'", "'--listen", "--stock (STOCK)"] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }

    #[test]
    fn the_value_of_an_unknown_flag_is_no_mistake_of_its_own_and_hides_none() {
        let message = mistakes_of("kiosk --stock 5 --colour 5 --listen --size");
        assert!(message.starts_with("3 mistakes"), "{message}");
        for part in ["'--colour'", "'--listen", "'--size'"] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }

    #[test]
    fn a_flag_given_twice_is_a_mistake() {
        let message = mistakes_of("kiosk --stock 1 --stock 2");
        assert!(message.contains("--stock"), "{message}");
    }

    #[test]
    fn what_follows_an_unknown_subcommand_is_no_mistake_of_its_own() {
        let message = mistakes_of("kiosk helthcheck --colour red");
        assert!(message.starts_with("1 mistake ") && message.contains("'healthcheck'"), "{message}");
        let message = mistakes_of("kiosk sell --colour red");
        assert!(message.starts_with("1 mistake ") && message.contains("commands: healthcheck"), "{message}");
    }

    #[test]
    fn an_unknown_subcommand_is_a_mistake() {
        let message = mistakes_of("kiosk healthchekc");
        assert!(message.contains("healthchekc"), "{message}");
    }

    #[test]
    fn a_negative_number_is_one_mistake_of_its_setting() {
        let message = mistakes_of("kiosk --stock -1");
        assert_eq!(message, "1 mistake in the settings:\n  --stock (STOCK): invalid digit found in string");
        assert!(mistakes_of("kiosk --colour -1").starts_with("1 mistake "));
        let message = mistakes_of("kiosk --stock --listen here");
        assert!(message.contains("a value is required for '--stock"), "{message}");
    }

    #[test]
    fn a_message_keeps_its_line_breaks_and_escapes_what_steers_a_terminal() {
        let message = "2 mistakes:\n  1 | \u{1b}[2Jkey\u{202e}\r\n  2 | \u{9b}\r31m\tb";
        assert_eq!(
            printable_lines(message),
            "2 mistakes:\n  1 | \\u001b[2Jkey\\u202e\n  2 | \\u009b\\r31m\\tb"
        );
    }

    #[test]
    fn mistakes_exit_with_64_and_help_and_version_with_0() {
        let code = |line: &str| format!("{:?}", parse_or_exit_code::<Args>(words(line)).unwrap_err());
        assert_eq!(code("kiosk --nothing"), format!("{:?}", ExitCode::from(64)));
        assert_eq!(code("kiosk --help"), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code("kiosk --version"), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code("kiosk --colour red --help"), format!("{:?}", ExitCode::from(64)));
    }

    #[test]
    fn what_is_right_is_parsed() {
        let args: Args = parse_or_exit_code(words("kiosk --listen here --stock=3 healthcheck")).unwrap();
        assert_eq!((args.listen.as_deref(), args.stock.as_deref()), (Some("here"), Some("3")));
        assert!(matches!(args.command, Some(Sub::Healthcheck)));
    }

    #[test]
    fn an_empty_variable_counts_as_unset_and_help_shows_no_values() {
        use clap::CommandFactory;
        let env_of = |value: &'static str| {
            let command = without_empty_variables(Args::command(), &move |_| Some(value.into()));
            let listen = command.get_arguments().find(|arg| arg.get_id() == "listen").unwrap().clone();
            assert!(listen.is_hide_env_values_set());
            listen.get_env().map(OsStr::to_owned)
        };
        assert_eq!(env_of(""), None);
        assert_eq!(env_of("127.0.0.1:1"), Some("KIOSK_LISTEN_OF_THIS_TEST".into()));
    }
}
