//! Fault matrix: each way in which a network treats a call badly, alone and mixed at 20 % of calls; everything that
//! faulted is counted, and in the end each invoice is charged once and known to be. Small here; `make faults` is the
//! full size. Knows the services from outside only; builds with debug assertions only, where time can be shortened.
#![cfg(debug_assertions)]

mod matrix;
mod operator_changes;
mod outage;
mod site;
