//! The routes of billing, called through the real router over a real SQLite store in its own folder; the console also
//! over PostgreSQL.

#[cfg(test)]
mod antaeus;
#[cfg(test)]
mod console;
#[cfg(test)]
mod console_postgres;
#[cfg(test)]
mod control;
#[cfg(test)]
mod demo_data;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod imports;
#[cfg(test)]
mod invoice_app;
#[cfg(test)]
mod lists;
#[cfg(test)]
mod operators;
#[cfg(test)]
mod pay;
#[cfg(test)]
mod provider;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod subscriptions;
#[cfg(test)]
mod support;
#[cfg(test)]
mod v1;
