//! Rules that no compiler checks: dependency directions, lengths, wording, and that the documents match the code.
//! Reads the tree and the programs' `--help`; a new rule is a line in a table here.

mod boundaries;
mod docs;
mod make;
mod settings;
mod tree;
mod walks;
mod words;
