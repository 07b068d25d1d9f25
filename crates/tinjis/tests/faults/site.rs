//! Both services with the fault proxy between them, at ten times the speed of production. Knows settings and routes;
//! judges by `tinjis verify`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use testkit::proof::Verified;
use testkit::proxy::{Pace, Plan, Proxy};
use testkit::wait::wait_until;
use testkit::{Builder, Process, Services};

use crate::outage::Trials;

pub(crate) const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");
/// Every deadline, lease and pause of billing is divided by this.
const TEMPO: u32 = 10;
/// Billing's call deadline at that speed.
pub(crate) const PACE: Pace = Pace { call_timeout: Duration::from_secs(1), delay: Duration::from_secs(6) };
/// Maximum duration of a leg, on any machine.
pub(crate) const WITHIN: Duration = Duration::from_secs(120);

pub(crate) struct Site {
    pub(crate) services: Services,
    pub(crate) proxy: Proxy,
    pub(crate) trials: Trials,
    _folder: tempfile::TempDir,
}

/// The services without special settings.
pub(crate) fn plain() -> Builder {
    Services::of(TINJIS).payments_flags(["--success-rate=0.9", "--seed=3"])
}

impl Site {
    pub(crate) fn start(builder: Builder, seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let trials = Trials::within(folder.path());
        let proxy = Proxy::start(seed, PACE);
        let path = |path: &PathBuf| path.to_str().expect("a test's path is UTF-8").to_owned();
        let services = builder
            .billing_env("PAYMENT_PROVIDER_ENDPOINT", proxy.url())
            .billing_env("TINJIS_TRIAL_TEMPO", TEMPO.to_string())
            .billing_env("TINJIS_TRIAL_NAMES", path(&trials.names))
            .billing_env("TINJIS_TRIAL_CLOCK", path(&trials.clock))
            .billing_env("TINJIS_CRASH_HITS", path(&trials.hits))
            .start();
        let replicas = [&services.payments].into_iter().chain(&services.more_payments);
        proxy.lead_to(replicas.map(Process::address).collect());
        Self { services, proxy, trials, _folder: folder }
    }

    /// Ends all faults; returns when their effects are over and all is paid.
    #[track_caller]
    pub(crate) fn recover(&self) {
        self.proxy.follow(Plan::default());
        self.proxy.settle(WITHIN);
        let attention = "SELECT count(*) FROM invoices WHERE state = 'ATTENTION'";
        wait_until("everything to be paid", WITHIN, || {
            assert_eq!(self.services.ask_billing(attention), 0, "nothing of this needs an operator");
            self.services.is_all_paid()
        });
    }

    #[track_caller]
    pub(crate) fn assert_all_paid(&self, context: &str, flags: &[&str]) -> Verified {
        let verified = Verified::of(TINJIS, &self.services, flags);
        verified.assert_all_paid(context);
        verified
    }

    /// How often each fault took effect so far, by its name.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = self.trials.counts();
        counts.extend(self.proxy.counts().into_iter().map(|(fault, count)| (fault.as_str(), count)));
        counts
    }
}
