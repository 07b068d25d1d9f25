//! Code for tests of several processes: real services on free ports in a folder of their own, a plain HTTP client,
//! waiting for conditions, and direct reads of the stores. Knows the services by their settings and APIs only; links
//! none of their code. No shipped binary contains it.

pub mod backup;
pub mod certs;
pub mod fuzz;
pub mod http;
pub mod issuer;
pub mod ledger;
pub mod otlp;
pub mod page;
pub mod postgres;
pub mod process;
pub mod proof;
pub mod proxy;
pub mod replicas;
pub mod requirements;
pub mod routes;
pub mod runs;
pub mod secure;
pub mod services;
pub mod starting;
pub mod wait;

pub use http::Answer;
pub use postgres::Database;
pub use process::Process;
pub use proof::Proof;
pub use replicas::Replicas;
pub use services::{Builder, Services};
pub use wait::{SeededRng, size, timed, wait_until};
