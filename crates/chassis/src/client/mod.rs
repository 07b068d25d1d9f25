//! The HTTP client: one call on one connection, exact about whether a byte has left.
//! Must not know who is called or what an answer means; never retries, redirects or reads a proxy.
