//! SQLite behind the store contract.
