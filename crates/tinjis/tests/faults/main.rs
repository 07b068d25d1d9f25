//! Fault matrix: each network fault alone, and all mixed at 20 % of calls. Every fault is counted, and in the end each
//! invoice is charged once and recorded as PAID. Small here; `make faults` is the full size. Knows the services from
//! outside only; builds with debug assertions only, where time can be shortened.
#![cfg(debug_assertions)]

mod matrix;
mod operator_changes;
mod outage;
mod site;
