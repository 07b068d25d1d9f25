//! Rules that no compiler checks: dependency directions, lengths, wording, and that the documents match the code.
//! Reads the tree and the programs' `--help`; a new rule is a line in a table here.

mod boundaries;
mod commands;
mod delivery;
mod docs;
mod figures;
mod log_messages;
mod make;
mod numbers;
mod openapi;
mod pages;
mod runbook;
mod settings;
mod states;
mod tree;
mod walks;
mod words;
