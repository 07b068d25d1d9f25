//! The controls in force in this process: seed, rates and fault script, from the settings of the start or set by
//! operators since. Operators' settings are stored in the ledger's database, so that they survive a restart and reach
//! other replicas. Knows no HTTP.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chassis::clock::Clock;

use crate::faults::draw::Seed;
use crate::faults::rates::Rates;
use crate::faults::script::Script;
use crate::faults::{Faults, id_of_file};
use crate::ledger::Result;

/// Maximum time until another replica's change is noticed.
pub const POLL_PAUSE: Duration = Duration::from_secs(1);

/// The controls that operators may set at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    /// The rates, in their JSON form.
    Rates,
    /// The fault script, in its JSON form.
    Faults,
}

impl Control {
    pub const ALL: [Self; 2] = [Self::Rates, Self::Faults];

    /// The control's name in SQL and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rates => "rates",
            Self::Faults => "faults",
        }
    }

    /// The control with this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|control| control.as_str() == text)
    }
}

/// A control as the database keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlRow {
    pub control: Control,
    /// `None` once an operator has reset it.
    pub value: Option<String>,
    /// Increases with each change.
    pub revision: i64,
    /// Time of the change, in ms since the epoch.
    pub set_at_ms: i64,
}

/// The durable store of controls: each change is one durable transaction.
#[async_trait]
pub trait ControlStore: Send + Sync + 'static {
    /// Every control that was ever set.
    async fn controls(&self) -> Result<Vec<ControlRow>>;

    /// Sets or resets a control. Returns the row that is stored now.
    async fn set_control(&self, control: Control, value: Option<String>) -> Result<ControlRow>;
}

/// The settings of the start.
#[derive(Debug)]
pub struct StartSettings {
    /// The seed of the setting, of the script, or a random one.
    pub seed: Seed,
    /// Whether the seed comes from the setting, which a script does not override.
    pub is_seed_set: bool,
    pub rates: Rates,
    pub script: Script,
    /// Whether the amounts of [`crate::faults::test_amounts`] decide charges by themselves.
    pub has_test_amounts: bool,
    /// Whether a reference can be charged under one key only.
    pub is_one_charge_per_reference: bool,
    /// Whether operators may set anything at run time; if not, their earlier settings are not in force either.
    pub at_run_time: bool,
}

impl StartSettings {
    /// The script of the start.
    fn faults(&self, started_at_ms: i64) -> Arc<Faults> {
        let (script, id) = (self.script.clone(), id_of_file(&self.script));
        Arc::new(Faults::new(id, self.seed, script, started_at_ms, self.has_test_amounts))
    }

    /// An operator's script, and the seed that follows from it.
    fn faults_of(&self, script: Script, row: &ControlRow) -> (Seed, Arc<Faults>) {
        let seed = script.seed.filter(|_| !self.is_seed_set).unwrap_or(self.seed);
        let id = format!("revision {}", row.revision);
        (seed, Arc::new(Faults::new(id, seed, script, row.set_at_ms, self.has_test_amounts)))
    }
}

/// The values that decide one charge.
#[derive(Debug)]
pub struct InForce {
    pub seed: Seed,
    pub rates: Rates,
    pub faults: Arc<Faults>,
}

/// The controls in force. Clones share them.
#[derive(Clone)]
pub struct Controls(Arc<Inner>);

struct Inner {
    start: StartSettings,
    clock: Clock,
    /// Start of the process, in ms since the epoch.
    started_at_ms: i64,
    state: Mutex<State>,
}

struct State {
    in_force: Arc<InForce>,
    rates_revision: i64,
    faults_revision: i64,
}

impl Controls {
    #[must_use]
    pub fn new(start: StartSettings, clock: Clock) -> Self {
        let started_at_ms = clock.now_ms();
        let faults = start.faults(started_at_ms);
        let in_force = Arc::new(InForce { seed: start.seed, rates: start.rates.clone(), faults });
        let state = Mutex::new(State { in_force, rates_revision: 0, faults_revision: 0 });
        Self(Arc::new(Inner { start, clock, started_at_ms, state }))
    }

    /// The current time, in ms since the epoch.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.0.clock.now_ms()
    }

    /// The values in force now.
    #[must_use]
    pub fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.lock().in_force)
    }

    /// Whether a reference can be charged under one key only.
    #[must_use]
    pub fn is_one_charge_per_reference(&self) -> bool {
        self.0.start.is_one_charge_per_reference
    }

    /// Whether operators may set anything at run time.
    #[must_use]
    pub fn are_settable(&self) -> bool {
        self.0.start.at_run_time
    }

    /// Loads what operators have set, if they may set anything.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn load(&self, store: &dyn ControlStore) -> Result<()> {
        if self.are_settable() {
            store.controls().await?.iter().for_each(|row| self.apply(row));
        }
        Ok(())
    }

    /// Applies what operators set at other replicas; never ends.
    pub async fn follow(self, store: Arc<dyn ControlStore>) {
        while self.are_settable() {
            tokio::time::sleep(POLL_PAUSE).await;
            if let Err(error) = self.load(&*store).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "reading run-time settings failed, retrying"
                );
            }
        }
    }

    /// Puts a row into force, unless a later row is in force.
    pub fn apply(&self, row: &ControlRow) {
        let mut state = self.lock();
        match row.control {
            Control::Rates if row.revision > state.rates_revision => {
                state.rates_revision = row.revision;
                let rates = match row.value.as_deref().map(|json| Rates::parse(json.as_bytes())) {
                    None => self.0.start.rates.clone(),
                    Some(Ok(rates)) => rates,
                    Some(Err(_)) => return log_unreadable(row),
                };
                tracing::warn!(rates = %rates.to_json(), revision = row.revision, "rates of an operator are in force");
                let InForce { seed, faults, .. } = &*state.in_force;
                state.in_force = Arc::new(InForce { seed: *seed, rates, faults: Arc::clone(faults) });
            }
            Control::Faults if row.revision > state.faults_revision => {
                state.faults_revision = row.revision;
                let start = &self.0.start;
                let script = row.value.as_deref().map(|json| Script::parse_json(json.as_bytes())).transpose();
                let (seed, faults) = match script {
                    Ok(None) => (start.seed, start.faults(self.0.started_at_ms)),
                    Ok(Some(script)) => start.faults_of(script, row),
                    Err(_) => return log_unreadable(row),
                };
                tracing::warn!(
                    rules = faults.script().rules.len(),
                    %seed,
                    revision = row.revision,
                    "a fault script of an operator is in force"
                );
                let rates = state.in_force.rates.clone();
                state.in_force = Arc::new(InForce { seed, rates, faults });
            }
            Control::Rates | Control::Faults => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs a row that another version wrote: the previous settings stay in force.
fn log_unreadable(row: &ControlRow) {
    tracing::error!(
        name = row.control.as_str(),
        revision = row.revision,
        "a run-time setting is not readable by this version and is ignored"
    );
}
