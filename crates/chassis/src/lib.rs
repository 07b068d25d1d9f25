//! What every service needs and none should think about: settings, listeners, telemetry, shutdown, callers.
//! Must not know any service, its routes, its tables or its words.

pub mod admin;
mod alarm;
pub mod caller;
pub mod client;
pub mod clock;
pub mod config;
pub mod crash;
pub mod postgres;
pub mod problem;
pub mod query;
pub mod schema;
pub mod server;
pub mod service;
pub mod shutdown;
pub mod sqlite;
pub mod telemetry;
pub mod tls;
pub mod trial;
