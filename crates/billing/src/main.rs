//! Placeholder until the service stands.

fn main() {}
