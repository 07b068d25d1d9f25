//! TLS both ways by rustls and aws-lc-rs: material from files that change while connections are served, the name
//! of a certificate, and the SAN allow-list. Must not know any service, nor HTTP.

mod client;
mod material;
mod metrics;
mod name;
mod reload;
mod server;

pub(crate) use client::Secured;
pub use client::{ClientFiles, TlsConnect};
pub use material::{Mistake, Mistakes, Source};
pub use metrics::{Refusal, TlsMetrics};
pub use name::{NameError, PeerName, SanAllowList};
pub use reload::{LOOK_EVERY, ReloadOutcome};
pub use server::{ClientRules, ServerFiles, ServerTls};

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::clock::Clock;

/// The one provider of cryptography; passed to each configuration, never read from a global default.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The clock in the form that the TLS library needs.
#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let since = Duration::from_millis(u64::try_from(self.0.now_ms()).ok()?);
        Some(UnixTime::since_unix_epoch(since))
    }
}
