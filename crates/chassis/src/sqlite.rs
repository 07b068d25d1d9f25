//! One SQLite file: one writer thread with group commit, several readers, one process.
//! Must not know any table of a service.
