//! The pinger: sends pings on one persistent connection with random pauses; a failed ping is logged and does not end
//! the pinger. Knows no server.

use std::ffi::OsString;
use std::process::ExitCode;

use bytes::Bytes;
use chassis::admin::Readiness;
use chassis::client::{Cause, Client, ClientConfig, Failure};
use chassis::clock::{Clock, Random};
use chassis::program::{self, Work};
use chassis::server::{Limits, Server};
use chassis::service;
use chassis::shutdown::Shutdown;
use chassis::telemetry::{LogHandle, Metrics};
use chassis::tls::{TlsConnect, TlsMetrics};
use http::{Request, StatusCode};
use prometheus::{Histogram, IntCounterVec};
use tokio::time::Instant;

use crate::admin;
use crate::config::{PingerConfig, Target};

/// Results of a ping, as labels of the metrics.
const RESULTS: [&str; 6] = ["success", "not_connected", "timeout", "no_answer", "wrong_status", "wrong_body"];

/// Runs the whole program, from argv (program name first) to the exit code. Also behind `tinjis run pinger`.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    program::run(PingerConfig::load(args), |config| &config.common.log, work)
}

fn work(config: PingerConfig, log: LogHandle) -> Work {
    Box::pin(start(config, log))
}

async fn start(config: PingerConfig, log: LogHandle) -> anyhow::Result<()> {
    let metrics = &config.common.metrics;
    if config.common.is_healthcheck {
        anyhow::ensure!(metrics.is_present, "without the block metrics there is no port to ask");
        return service::healthcheck(metrics.address).await;
    }
    let shutdown = program::shutdown_on_signals();
    let telemetry = program::new_telemetry("pinger");
    // Without the block the pinger has no port, so that pinger and ponger can start on one machine in either order.
    let listener = metrics.is_present.then(|| metrics.bind()).transpose()?;
    let readiness = Readiness::new(&shutdown);
    let admin = admin(&telemetry, readiness, log, metrics.address, &metrics.endpoint);
    config.common.warn_about_unread();
    if config.target.leaves_tls_unused {
        tracing::warn!("certificates are configured but the URL is http, pings are sent in plain text");
    }
    let pinger = Pinger::new(config.target, &telemetry.metrics)?;
    let admin = listener.map(|listener| {
        tokio::spawn(Server::new(listener, admin, Limits::default()).serve(shutdown.clone()))
    });
    tokio::select! {
        () = pinger.ping_for_ever(&shutdown) => {}
        () = shutdown.hard() => {}
    }
    if let Some(admin) = admin {
        admin.await?;
    }
    tracing::info!("ended");
    Ok(())
}

struct Pinger {
    target: Target,
    client: Client,
    random: Random,
    results: IntCounterVec,
    took: Histogram,
}

impl Pinger {
    fn new(target: Target, metrics: &Metrics) -> anyhow::Result<Self> {
        let limits = ClientConfig {
            connect_timeout: target.timeout,
            deadline: target.timeout,
            pool_max: 1,
            ..ClientConfig::default()
        };
        let figures = TlsMetrics::new(metrics);
        let client = match &target.tls {
            None => Client::new(limits),
            Some(files) => {
                Client::with_connect(limits, TlsConnect::open(files.clone(), Clock::system(), &figures)?)
            }
        };
        let results = metrics.counters("ping_requests_total", "Pings sent by result", &["result"]);
        for result in RESULTS {
            results.with_label_values(&[result]).inc_by(0);
        }
        let took = metrics.seconds("ping_duration_seconds", "Round trip of a ping, in seconds", &[]);
        let took = took.with_label_values::<&str>(&[]);
        Ok(Self { target, client, random: Random::system(), results, took })
    }

    async fn ping_for_ever(&self, shutdown: &Shutdown) {
        tracing::info!(url = %self.target.url, "Starting to ping");
        while !shutdown.is_draining() {
            let result = self.ping().await;
            self.results.with_label_values(&[result]).inc();
            tokio::select! {
                () = tokio::time::sleep(self.random.jitter(self.target.interval)) => {}
                () = shutdown.draining() => {}
            }
        }
    }

    /// Sends one ping; returns its label in the metrics.
    async fn ping(&self) -> &'static str {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = self.target.url.clone();
        let began = Instant::now();
        let answer = self.client.send(request).await;
        if !matches!(answer, Err(Failure::NotSent(_))) {
            tracing::info!("Sent ping");
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                tracing::warn!("Request failed: {failure}: {}", failure.cause());
                return label(&failure);
            }
        };
        self.took.observe(began.elapsed().as_secs_f64());
        if answer.status() != StatusCode::OK {
            tracing::warn!("Request failed: the answer is {}", answer.status());
            return "wrong_status";
        }
        if answer.body().trim_ascii() != b"pong" {
            tracing::warn!("Request failed: the answer is no pong");
            return "wrong_body";
        }
        tracing::info!("Got pong");
        "success"
    }
}

fn label(failure: &Failure) -> &'static str {
    match failure {
        Failure::Unknown(Cause::Late(_)) | Failure::NotSent(Cause::ConnectLate(_) | Cause::Late(_)) => {
            "timeout"
        }
        Failure::NotSent(_) => "not_connected",
        Failure::Unknown(_) => "no_answer",
    }
}
