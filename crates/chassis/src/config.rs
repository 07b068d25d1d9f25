//! Settings: flags and variables parsed into real types before anything is opened, all mistakes in one message.
//! Must not know what a service does with them.

mod args;
mod callers;
mod database;
mod problems;
mod regular;
mod setting;
mod tls;
mod traces;
mod values;

pub use args::{load, parse_or_exit_code};
pub use callers::CallerArgs;
pub use database::{DatabaseArgs, DatabaseUrl, SqliteMode, SqliteUrl};
pub use problems::{ConfigError, EXIT_USAGE, Problems};
pub use regular::{open_regular, read_regular, read_regular_text};
pub use setting::{Checked, Setting, checked, parse_path, parse_text, with_defaults};
pub use tls::{TlsArgs, client_tls, no_client_tls};
pub use traces::{TraceSettings, Traces};
pub use values::{
    Common, CommonArgs, CommonDefaults, LogArgs, Secret, TokenOrigin, TokenSource, is_loopback, non_empty,
    parse_bool, parse_on_or_off, token_file, unquote,
};
