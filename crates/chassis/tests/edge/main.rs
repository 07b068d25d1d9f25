//! The accept loop and the HTTP client on real sockets: one test per limit and per kind of failure.
#![cfg(test)]

mod answers;
mod crash;
mod crowd;
mod drain;
mod limits;
mod sent;
mod smuggled;
mod support;
mod unsent;
