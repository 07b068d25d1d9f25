//! The wire types of `/v1` of both services: requests, responses and problem documents, each declared once and used by the
//! service that writes it and by all that read it. Knows no rule, no store and no HTTP; a value is checked where it is used.
//!
//! A field with `default` was added after the first version: readers accept a response of an earlier service without
//! it.

pub mod billing;
pub mod payments;
pub mod problem;
mod unique;

use std::borrow::Cow;

/// A text that a service mostly has as a constant, such as a state.
pub type Text = Cow<'static, str>;
