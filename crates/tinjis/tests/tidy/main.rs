//! Holds what no compiler holds: directions between rooms, lengths, words, and that the documents speak the truth.
//! Reads the tree and the programs' `--help`; a new rule is a line in a table here.

mod docs;
mod rooms;
mod settings;
mod tree;
