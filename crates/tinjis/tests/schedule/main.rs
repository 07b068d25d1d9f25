//! Subscriptions on real billing and real payments, by the command line: each due period is invoiced and charged once,
//! over missed dates, price changes, pauses, ends, caps, restarts, replicas and a restore from before the run. On SQLite
//! and on PostgreSQL. Knows the command line and the tables only.

#[cfg(test)]
mod clock;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod site;
