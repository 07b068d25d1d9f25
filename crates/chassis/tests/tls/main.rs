//! TLS on real sockets with freshly made certificates: accepted clients, rejected clients with the reason, and what
//! a change of files does.
#![cfg(test)]

mod authority;
mod changes;
mod clients;
mod edges;
mod other_tls_stacks;
mod refused;
mod site;
