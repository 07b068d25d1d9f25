//! The exhaustive model: searches every interleaving of faults over the production charge protocol, and shows that it
//! holds and that each broken variant of it is found. Never shipped; no other crate knows it.
//!
//! Called, not copied: `protocol::transition`, `protocol::key`, `provider::answer` and `store::changeset` of billing,
//! and `keys::judge_known_key` of payments. Modelled: the code around them, as each file says in its first lines.

mod answers;
mod cases;
mod check;
mod codec;
mod display;
mod environment;
mod faults;
mod index;
mod machine;
mod protocol;
mod provider;
mod report;
mod search;
mod store;
mod world;

use std::process::ExitCode;

use crate::cases::Size;

fn main() -> ExitCode {
    let only = std::env::args().nth(1);
    match report::run(Size::Full, only.as_deref()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => report::failed(&error),
    }
}
