//! TLS on real sockets with freshly made certificates: who is let in, who is refused and for which reason, and what
//! a change of files does.
#![cfg(test)]

mod authority;
mod changes;
mod clients;
mod edges;
mod foreign;
mod refused;
mod site;
