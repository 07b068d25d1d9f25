//! Executes the schedule: decides which dates may be invoiced, makes their invoices in batches, and starts the run that
//! charges them. Every replica may do this at any time, without a leader: the constraints of the store make each period
//! exist once. Must not know when a period is due, nor SQL, nor HTTP.

use std::sync::Arc;
use std::time::Duration;

use chassis::clock::Clock;
use chassis::shutdown::Shutdown;
use chassis::telemetry::Metrics;
use chassis::test_overrides::scaled;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use prometheus::IntGauge;

use crate::charge::{Engine, StartedRun};
use crate::invoice::RunId;
use crate::run_order::RunOrder;
use crate::schedule::Holidays;
use crate::schedule::run::{
    Cap, CatchUp, Decision, Question, ScheduleRun, ScheduleRunState, WaitReason, decide,
};
use crate::store::subscriptions::{DueDate, GenerateBatch, ScheduleDecision};
use crate::store::{self, Store, StoreError};

/// Time between two passes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The most invoices in one transaction.
const BATCH: usize = 500;
/// The time until another scheduled run is started while invoices wait: the provider may have been unreachable.
const CHARGE_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How soon a jump of a virtual clock is detected.
const JUMP_NOTICED_WITHIN: Duration = Duration::from_millis(10);
/// How often a waiting date is decided again: prices, subscriptions and settings may have changed.
const WAITING_LOOK_EVERY_MS: i64 = 10 * 60 * 1000;
/// The most days between the date of any zone and the date of UTC, rounded up.
const ZONES_DAYS: i64 = 2;

/// Settings of the schedule.
#[derive(Clone, Debug, Default)]
pub struct ScheduleSettings {
    /// Whether this process executes the schedule by itself.
    pub is_on: bool,
    pub catch_up: CatchUp,
    pub cap: Cap,
    pub holidays: Holidays,
}

/// An operator's order to run the schedule.
#[derive(Clone, Debug)]
pub struct RunUntil {
    /// The last date of periods.
    pub until: Date,
    pub catch_up: CatchUp,
    /// Whether runs above the cap may proceed.
    pub over_cap: bool,
    /// The operator.
    pub actor: String,
}

/// The result of a pass.
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub invoices: i64,
    pub skipped: i64,
    /// Whether the limit was reached before everything was invoiced.
    pub has_more: bool,
    /// Dates that wait for an operator.
    pub waiting: Vec<Waiting>,
}

/// A date that waits for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub on: Date,
    pub reason: WaitReason,
}

/// How the due invoices are charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charging {
    /// This run charges them.
    Started(RunId),
    NothingDue,
    /// This run claims other invoices, and has to end first.
    RunUnfinished(RunId),
    /// An operator has stopped all charging.
    Stopped,
}

/// The parameters of one pass over the dates.
struct Pass<'a> {
    until: Option<Date>,
    catch_up: CatchUp,
    cap: &'a Cap,
    confirmed_by: Option<&'a str>,
    /// The number of invoices that the pass may still make.
    left: usize,
}

/// The schedule of one process.
pub struct Scheduler {
    store: Arc<dyn Store>,
    engine: Engine,
    settings: ScheduleSettings,
    clock: Clock,
    late: IntGauge,
    shutdown: Shutdown,
}

impl Scheduler {
    /// Registers the metric even if the schedule is off.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        engine: Engine,
        settings: ScheduleSettings,
        clock: Clock,
        metrics: &Metrics,
        shutdown: Shutdown,
    ) -> Self {
        let late = metrics.gauge(
            "billing_schedule_late_seconds",
            "Time since the oldest due period without an invoice was to be charged; 0 if there is none",
        );
        Self { store, engine, settings, clock, late, shutdown }
    }

    #[must_use]
    pub fn settings(&self) -> &ScheduleSettings {
        &self.settings
    }

    /// Executes passes until the service drains. Without subscriptions a pass costs one step in an index.
    pub async fn run_loop(self: Arc<Self>) {
        let mut charged_at = None;
        loop {
            if let Err(error) = self.run_pass(&mut charged_at).await {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "working on the schedule failed, retrying");
            }
            tokio::select! {
                biased;
                () = self.sleep_until_next_pass() => {}
                () = self.shutdown.draining() => return,
            }
        }
    }

    /// Waits until the next pass is due by the store's time, which is the machine's unless the clock is virtual.
    async fn sleep_until_next_pass(&self) {
        let rest = scaled(LOOK_EVERY);
        let Some((_, Ok(since_ms))) = self.clock.as_virtual().zip(Some(self.store.now_ms().await)) else {
            return tokio::time::sleep(rest).await;
        };
        loop {
            tokio::time::sleep(JUMP_NOTICED_WITHIN).await;
            let now_ms = self.store.now_ms().await;
            if now_ms.map_or(true, |now_ms| has_passed(rest, since_ms, now_ms)) {
                return;
            }
        }
    }

    async fn run_pass(&self, charged_at: &mut Option<i64>) -> store::Result<()> {
        let now_ms = self.store.now_ms().await?;
        let mut made = 0;
        if self.settings.is_on {
            let pass = Pass {
                until: None,
                catch_up: self.settings.catch_up,
                cap: &self.settings.cap,
                confirmed_by: None,
                left: usize::MAX,
            };
            made = self.make_invoices(pass).await?.invoices;
        }
        self.refresh_metric().await?;
        let may_charge = charged_at.is_none_or(|at| has_passed(scaled(CHARGE_AGAIN_AFTER), at, now_ms));
        if self.settings.is_on
            && (made > 0 || may_charge)
            && let Charging::Started(_) = self.charge().await?
        {
            *charged_at = Some(now_ms);
        }
        Ok(())
    }

    async fn refresh_metric(&self) -> store::Result<()> {
        let now_ms = self.store.now_ms().await?;
        let oldest = self.store.next_due_date(None).await?;
        let late_ms = oldest.map_or(0, |due| now_ms.saturating_sub(due.first_at).max(0));
        self.late.set(late_ms / 1000);
        Ok(())
    }

    /// Invoices what is due up to a date, about `limit` invoices at most, by an operator's order.
    ///
    /// # Errors
    /// When the store fails; invoices made before stay.
    pub async fn run_until(&self, order: &RunUntil, limit: usize) -> store::Result<Done> {
        let no_cap = Cap::default();
        self.make_invoices(Pass {
            until: Some(order.until),
            catch_up: order.catch_up,
            cap: if order.over_cap { &no_cap } else { &self.settings.cap },
            confirmed_by: Some(&order.actor),
            left: limit,
        })
        .await
    }

    /// Starts the run that charges what is due.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn charge(&self) -> store::Result<Charging> {
        if self.store.halt().await?.is_some() {
            return Ok(Charging::Stopped);
        }
        let now_ms = self.store.now_ms().await?;
        if self.store.next_attempt_at().await?.is_none_or(|at| at > now_ms) {
            return Ok(Charging::NothingDue);
        }
        match self.engine.begin_run(RunOrder::scheduled()).await? {
            StartedRun::Started(started) => Ok(Charging::Started(started.run)),
            StartedRun::Busy(run) => Ok(Charging::RunUnfinished(run)),
        }
    }

    /// Makes the invoices date by date, the oldest first.
    async fn make_invoices(&self, mut pass: Pass<'_>) -> store::Result<Done> {
        let mut done = Done::default();
        let mut after = None;
        while let Some(due) = self.store.next_due_date(after).await? {
            let now_ms = self.store.now_ms().await?;
            let is_past = pass.until.is_some_and(|until| due.on > until) || due.on > last_date(now_ms);
            if is_past || self.shutdown.is_draining() {
                break;
            }
            after = Some(due.on);
            if due.first_at > now_ms {
                continue;
            }
            match self.decide(&due, now_ms, &pass).await? {
                Decision::Wait(reason) => done.waiting.push(Waiting { on: due.on, reason }),
                Decision::Run { latest_only } => {
                    match self.run_date(due.on, latest_only, &mut pass, &mut done).await {
                        // An unreadable row must not block the other dates or the charging of existing invoices. In an
                        // operator's call the error is returned.
                        Err(StoreError::Corrupt(problem)) if pass.until.is_none() => {
                            tracing::error!(schedule.period_on = %due.on, problem, "a date cannot be invoiced");
                        }
                        ended => ended?,
                    }
                }
            }
            if pass.left == 0 {
                done.has_more = true;
                break;
            }
        }
        Ok(done)
    }

    async fn decide(&self, due: &DueDate, now_ms: i64, pass: &Pass<'_>) -> store::Result<Decision> {
        let known = self.known_run(due.on).await?;
        if let Some(ScheduleRun {
            state: ScheduleRunState::Waiting, reason: Some(reason), updated_at, ..
        }) = known
            && pass.confirmed_by.is_none()
            && now_ms.saturating_sub(updated_at) < WAITING_LOOK_EVERY_MS
        {
            return Ok(Decision::Wait(reason));
        }
        let left = self.store.left_on(due.on).await?;
        let (first_at, catch_up, cap) = (due.first_at, pass.catch_up, pass.cap);
        let confirmed = known.as_ref().filter(|run| run.confirmed_by.is_some()).map(|run| &run.planned);
        let decision = decide(&Question { first_at, now_ms, catch_up, cap, left: &left, confirmed });
        let (state, reason) = match decision {
            Decision::Wait(reason) => (ScheduleRunState::Waiting, Some(reason)),
            Decision::Run { .. } => (ScheduleRunState::Running, None),
        };
        if let Some(reason) = reason {
            tracing::warn!(
                schedule.period_on = %due.on,
                reason = reason.as_str(),
                "a schedule run waits for an operator"
            );
        }
        let confirmed_by = pass.confirmed_by.filter(|_| reason.is_none()).map(str::to_owned);
        let decided = ScheduleDecision { on: due.on, state, reason, planned: left, confirmed_by };
        self.store.put_schedule_run(&decided).await?;
        Ok(decision)
    }

    async fn known_run(&self, on: Date) -> store::Result<Option<ScheduleRun>> {
        let Ok(before) = on.yesterday() else { return Ok(None) };
        let found = self.store.schedule_runs(None, Some(before), 1).await?;
        Ok(found.into_iter().next().filter(|run| run.period_on == on))
    }

    async fn run_date(
        &self,
        on: Date,
        latest_only: bool,
        pass: &mut Pass<'_>,
        done: &mut Done,
    ) -> store::Result<()> {
        let holidays = &self.settings.holidays;
        let (mut invoices, mut skipped) = (0, 0);
        while pass.left > 0 && !self.shutdown.is_draining() {
            let latest_until = latest_only.then(|| pass.until.unwrap_or(Date::MAX));
            let batch = GenerateBatch { on, limit: BATCH.min(pass.left), latest_until, holidays };
            let generated = self.store.generate(&batch).await?;
            invoices += generated.invoices;
            skipped += generated.skipped;
            pass.left = pass.left.saturating_sub(generated.taken);
            if generated.taken == 0 {
                self.finish(on).await?;
                break;
            }
        }
        tracing::info!(schedule.period_on = %on, invoices, skipped, "invoiced the due periods of a date");
        done.invoices += invoices;
        done.skipped += skipped;
        Ok(())
    }

    async fn finish(&self, on: Date) -> store::Result<()> {
        let planned = self.known_run(on).await?.map(|run| run.planned).unwrap_or_default();
        let state = ScheduleRunState::Finished;
        let finished = ScheduleDecision { on, state, reason: None, planned, confirmed_by: None };
        self.store.put_schedule_run(&finished).await
    }
}

/// Whether the time has passed. Also true when the clock was set back, because then the elapsed time is unknown.
fn has_passed(time: Duration, since_ms: i64, now_ms: i64) -> bool {
    let passed_ms = now_ms.saturating_sub(since_ms);
    passed_ms < 0 || u128::from(passed_ms.unsigned_abs()) >= time.as_millis()
}

/// The last date that can have a due period: a date that has begun in some zone, or one shortly after it that holidays
/// move back. The instant of each period decides whether it is due.
pub(crate) fn last_date(now_ms: i64) -> Date {
    let now = Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let today = TimeZone::UTC.to_datetime(now).date();
    let ahead = jiff::Span::new().days(ZONES_DAYS + i64::from(crate::schedule::holidays::CLOSED_DAYS_MAX));
    today.saturating_add(ahead)
}
