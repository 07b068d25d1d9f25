//! The billing service: charges each invoice as often as it should be charged, and proves it.
//! Depends on `chassis` only; knows no other service's code.

pub mod charge;
pub mod demo_data;
pub mod http;
pub mod invoice;
pub mod money;
pub mod provider;
pub mod store;
