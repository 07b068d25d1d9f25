//! The store contract as one suite. A fixture opens and reopens a store of some kind; the suite runs the cases. Knows
//! no SQL; each kind of store passes the same cases and the same walk against the model.

#[cfg(test)]
#[macro_use]
mod cases;
#[cfg(test)]
mod charged_days;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod control;
#[cfg(test)]
mod dunning;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod model;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod repairs;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod subscriptions;
#[cfg(test)]
mod walk;
