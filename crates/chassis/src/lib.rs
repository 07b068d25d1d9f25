//! Common parts of every service: settings, listeners, telemetry, shutdown, authentication.
//! Must not know any service, its routes, its tables or its terms.

pub mod admin;
mod alarm;
pub mod caller;
pub mod client;
pub mod clock;
pub mod config;
pub mod crash;
pub mod currency;
mod error_chain;
pub mod gate;
pub mod postgres;
pub mod presence;
pub mod printable;
pub mod problem;
pub mod program;
pub mod query;
pub mod schema;
pub mod server;
pub mod service;
pub mod shutdown;
pub mod sqlite;
pub mod telemetry;
pub mod test_overrides;
pub mod tls;

pub use error_chain::error_chain;
