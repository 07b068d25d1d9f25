//! The program `tinjis`: its commands and, with the feature `services`, also the demo, the simulation, backups and the
//! four services. Its image has the program without that feature. Only starts the command that `cli` returns; knows no
//! API.

#![cfg_attr(
    not(feature = "services"),
    expect(dead_code, unused_imports, reason = "the demo uses more of other modules than the commands do")
)]

#[cfg(feature = "services")]
mod backup;
mod cli;
mod control;
#[cfg(feature = "services")]
mod demo;
mod deployments;
mod doctor;
mod http;
mod import;
mod load;
mod output;
mod pay;
mod preview;
mod progress;
mod reach;
mod resolve;
mod run;
mod schedule;
#[cfg(feature = "services")]
mod simulate;
mod subscriptions;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use chassis::service::keep_memory_private;
use cli::Command;

/// Exit code when a command could not do its work.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    output::exit_code(run_command())
}

fn run_command() -> ExitCode {
    keep_memory_private();
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = run::service(&args) {
        return code;
    }
    let command = match cli::parse(args) {
        Ok(command) => command,
        Err(code) => return code,
    };
    #[cfg(feature = "services")]
    let command = match command {
        // The backup command has its own runtime.
        Command::Backup(what) => return backup::command(what),
        other => other,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(execute(command)));
    done.map_or_else(
        |error| {
            output::error(&error);
            ExitCode::from(FAILED)
        },
        ExitCode::from,
    )
}

async fn execute(command: Command) -> anyhow::Result<u8> {
    match command {
        #[cfg(feature = "services")]
        Command::Demo(what) => demo::command(what).await,
        #[cfg(feature = "services")]
        Command::Simulate(options) => simulate::command(*options).await,
        Command::Pay { billing } => pay::command(&billing).await,
        Command::Import { billings, options } => import::command::<import::Row>(&billings, &options).await,
        Command::ImportSubscriptions { billings, options } => {
            import::command::<import::SubscriptionRow>(&billings, &options).await
        }
        Command::Explain { file, format, target } => import::explain(&file, format, target),
        Command::Control { billing, what } => control::command(&billing, what).await,
        Command::Resolve { billing, what } => resolve::command(&billing, what).await,
        Command::Subscriptions { billing, what } => subscriptions::command(&billing, what).await,
        Command::Schedule { billing, what } => schedule::command(&billing, what).await,
        Command::Verify { billing, payments, json, repair, acknowledge } => {
            if let Some(acknowledge) = acknowledge {
                verify::acknowledge::command(&billing, &payments, &acknowledge).await?;
            }
            if repair {
                verify::repair::command(&billing, &payments).await?;
            }
            verify::command(billing, payments, json).await
        }
        Command::VerifyAll { pairs, json } => verify::all::command(&pairs, json).await,
        #[cfg(feature = "services")]
        Command::Backup(_) => Err(anyhow::anyhow!("a backup is made outside of this runtime")),
        Command::Doctor(options) => doctor::command(*options).await,
    }
}
