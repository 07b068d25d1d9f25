//! Tests of the charge engine over a real SQLite store, with a scripted provider on a real socket.

#[cfg(test)]
mod bad_items;
#[cfg(test)]
mod declines;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod faulty;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod none;
#[cfg(test)]
mod provider;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod resolve;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod support;
#[cfg(test)]
mod trouble;
#[cfg(test)]
mod turns;
